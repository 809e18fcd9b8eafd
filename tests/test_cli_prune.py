"""fusion prune: what it prints and writes, what it refuses, and Ctrl-C."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Run, Told
from tables import random_table

from fusion.data import write_table
from fusion.pruning import PruneResult

COMMAND = [sys.executable, "-m", "fusion", "prune"]


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with tables and configurations, good and broken, and no settings from outside."""
    # m1 is right on two of three questions, m2 and m3 on half, m4 on a quarter.
    rows = [f"q{n},{'abc'[n % 3]},A,{'BAA'[n % 3]},{'AB'[n % 2]},{'AABB'[n % 4]},{'ACDE'[n % 4]}" for n in range(120)]
    head = "question_id,category,answer,m1,m2,m3,m4"
    write("t.csv", "\n".join([head, *rows, ""]))
    write("more.csv", "\n".join([head, *(row.replace("q", "r", 1) for row in rows[:50]), ""]))
    write("one.csv", "question_id,answer,m1\n" + "".join(f"q{n},A,{'AB'[n % 2]}\n" for n in range(20)))
    write("other.csv", "question_id,category,answer,m1,m2,m3,x\nr1,a,A,A,A,A,A\n")
    write("unlabelled.csv", "question_id,m1,m2,m3\nq1,A,B,C\nq2,A,B,C\n")
    write("small.csv", "question_id,answer,m1,m2,m3\nq1,A,A,B,C\n")
    write("empty.csv", "")
    write("good.yaml", "table: t.csv\nsizes: [2, 3]\nobjective: accuracy\ntop: 3\nrepeats: 100\n")
    write("misspelt.yaml", "table: t.csv\nobjectiv: accuracy\n")
    write("broken.yaml", "table: [t.csv\n")
    write("prices.yaml", "prices: {m1: {input: 1, output: 2}}\n")
    write("jobs.yaml", "jobs: {a: {table: t.csv}}\n")
    return bare


def write(name: str, content: str) -> None:
    Path(name).write_text(content, encoding="utf-8")


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run fusion prune, or another verb that is among the words, in this process."""

    def told(*words: str, verb: str | None = "prune") -> Told:
        return command_line.run(capsys, [*([verb] if verb else []), *words])

    return told


def result(run: Run, *words: str) -> dict[str, Any]:
    told = run(*words, "--set", "repeats=100", "--json", "-")
    assert (told.code, told.error) == (0, ""), told.error
    found: dict[str, Any] = json.loads(told.out)
    return found


def flat(text: str) -> str:
    """The text without Typer's boxes, which may break a sentence over lines."""
    return re.sub(r"[\s\u2500-\u257f]+", " ", text)


def ranked(text: str) -> list[str]:
    """The lines of the table of sub-ensembles: those that begin with a rank."""
    return [line for line in text.splitlines() if re.match(r" *\d+ +\S+, ", line)]


class TestPrinted:
    def test_tables_and_verdict(self, run: Run) -> None:
        told = run("t.csv", "--sizes", "2-3", "--objective", "accuracy", "--top", "4", "--set", "repeats=100")
        assert (told.code, told.error) == (0, "")
        assert "Best by accuracy=1 on 84 questions: all 10 sub-ensembles of 4 agents" in told.out
        assert len(ranked(told.out)) == 4
        assert "What the first is compared with, vote on 36 other questions" in flat(told.out)
        assert "the best single member, m1" in told.out
        assert "all 4 members" in told.out
        verdict = told.out[told.out.index("verdict: ") :]
        assert re.match(r"verdict: m1 \+ .* answers \d+\.\d % of 36 other questions right;\n {9}\S", verdict)
        assert verdict.endswith(".\n")

    def test_notes(self, run: Run) -> None:
        told = run("t.csv", "--sizes", "3-9")
        assert "note: sizes 5, 6, 7, 8, 9 are left out: 0 agents are included and 4 more may join\n" in told.out

    def test_with_a_fuser(self, run: Run) -> None:
        told = run("t.csv", "--sizes", "2", "--fuser", "weighted_vote", "--candidates", "3", "--top", "2")
        assert "cross-val. %" in told.out
        assert "weighted_vote on 36 other questions" in flat(told.out)

    def test_with_evidence(self, run: Run) -> None:
        told = run("t.csv", "--sizes", "2", "--set", "repeats=100", "--evidence", "--resamples", "3")
        assert told.code == 0
        assert "What each member is worth, in points of accuracy on 36 other questions" in flat(told.out)
        assert "What one more agent would add, on 36 other questions" in flat(told.out)
        assert re.search(r"note: in the top 10 in \d of 3 resamples of the questions, the best in \d;", told.out)
        assert "note: chosen on all folds but one, the winner is " in told.out

    def test_one_agent(self, run: Run) -> None:
        told = run("one.csv", "--sizes", "1", "--objective", "accuracy")
        assert told.code == 0
        assert "compared with" not in told.out
        assert "verdict: m1 answers" in told.out


class TestJson:
    def test_alone_on_standard_output(self, run: Run) -> None:
        found = result(run, "t.csv", "--sizes", "2", "--top", "2")
        assert found["format"] == "fusion.prune/1"
        assert len(found["subsets"]) == 2
        assert found["run"]["command"]["table"] == "t.csv"

    def test_evidence(self, run: Run) -> None:
        assert result(run, "t.csv", "--sizes", "2")["evidence"] is None
        found = result(run, "t.csv", "--sizes", "2", "--evidence", "--resamples", "3")
        assert found["evidence"]["agents"] == found["subsets"][0]["agents"]
        assert found["evidence"]["stability"]["resamples"] == 3
        page = (Path(__file__).parents[1] / "docs" / "prune-json.md").read_text(encoding="utf-8")
        documented = set(re.findall(r"^\| `(\w+)` ", page.partition("## `evidence`")[2], flags=re.M))
        assert documented == set(found["evidence"])

    def test_file(self, run: Run, folder: Path) -> None:
        told = run("t.csv", "--set", "repeats=100", "--json", "new/pruned.json")
        assert told.code == 0
        assert told.out.endswith("wrote new/pruned.json\n")
        loaded = PruneResult.load(folder / "new" / "pruned.json")
        assert loaded.verdict.split(";")[0] in told.out
        assert os.listdir(folder / "new") == ["pruned.json"]


class TestOptions:
    def test_every_option_arrives(self, run: Run) -> None:
        found = result(
            run,
            *("t.csv", "--sizes", "2,3-4", "--objective", "accuracy,focal=0.1", "--top", "5", "--include", "m1"),
            *("--exclude", "m4", "--fuser", "weighted_vote", "--candidates", "7", "--fit-fraction", "0.5"),
            *("--seed", "3", "--stratify", "none", "--search", "random", "--budget", "40", "--set", "folds=3"),
        )
        assert found["run"]["command"]["prune"] == {
            "sizes": [2, 3, 4],
            "objective": "accuracy,focal=0.1",
            "top": 5,
            "include": ["m1"],
            "exclude": ["m4"],
            "max_cost": None,
            "max_latency": None,
            "method": "random",
            "budget": 40,
            "fuser": "weighted_vote",
            "candidates": 7,
            "folds": 3,
            "fit_fraction": 0.5,
            "seed": 3,
            "stratify": "none",
            "repeats": 100,
            "prices": {},
            "evidence": False,
            "resamples": 100,
        }
        assert (found["n"], found["n_fit"]) == (60, 60)
        assert all("m1" in subset["agents"] and "m4" not in subset["agents"] for subset in found["subsets"])

    def test_several_agents(self, run: Run) -> None:
        found = result(run, "t.csv", "--sizes", "2-4", "--include", "m2", "--include", "m3", "--exclude", "m4")
        assert sorted(subset["agents"] for subset in found["subsets"]) == [["m1", "m2", "m3"], ["m2", "m3"]]

    def test_another_table_to_evaluate_on(self, run: Run) -> None:
        found = result(run, "t.csv", "--test", "more.csv")
        assert (found["n"], found["n_fit"]) == (50, 120)
        assert found["run"]["command"]["test"] == "more.csv"

    def test_prices_and_limits(self, run: Run, folder: Path) -> None:
        write_table(random_table(0, questions=80), folder / "t.parquet")
        agents = random_table(0, questions=80).agents
        write("prices.yaml", json.dumps({"prices": {name: {"input": 1, "output": 2} for name in agents}}))
        (subset, *_) = result(run, "t.parquet", "--sizes", "2", "--prices", "prices.yaml")["subsets"]
        most, slowest = str(subset["usd_per_question"]), str(subset["seconds_per_question"])
        limits = ("--max-cost", most, "--max-latency", slowest)
        found = result(run, "t.parquet", "--sizes", "2", "--prices", "prices.yaml", *limits)
        assert found["subsets"][0]["agents"] == subset["agents"]
        assert all(one["usd_per_question"] <= float(most) * (1 + 1e-9) for one in found["subsets"])
        assert all(one["seconds_per_question"] <= float(slowest) * (1 + 1e-9) for one in found["subsets"])

    def test_configuration_and_what_wins(self, run: Run) -> None:
        """The command line over --set, and that over the file."""
        prune = result(run, "--config", "good.yaml", "--set", "seed=4", "--set", "top=2", "--top", "1")["run"][
            "command"
        ]
        assert (prune["table"], prune["prune"]["sizes"]) == ("t.csv", [2, 3])
        assert (prune["prune"]["seed"], prune["prune"]["top"]) == (4, 1)
        other = result(run, "more.csv", "--config", "good.yaml", "--sizes", "4")["run"]["command"]
        assert (other["table"], other["prune"]["sizes"]) == ("more.csv", [4])

    def test_environment(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSION_OBJECTIVE", "accuracy")
        monkeypatch.setenv("FUSION_SEED", "8")
        monkeypatch.setenv("FUSION_FIT_FRACTION", "0.5")
        prune = result(run, "t.csv", "--seed", "9")["run"]["command"]["prune"]
        assert (prune["objective"], prune["seed"], prune["fit_fraction"]) == ("accuracy", 9, 0.5)


USAGE: list[tuple[str, str]] = [
    ("", "give a TABLE, or --config FILE that names one; see fusion prune --help"),
    ("t.csv --objectiv accuracy", "No such option.*--objectiv.*--objective"),
    ("t.csv other.csv", "unexpected extra argument"),
    ("t.csv --seed one", "valid int"),
    ("t.csv --objective acuracy", r"unknown objective term 'acuracy'; did you mean 'accuracy'"),
    ("t.csv --objective accuracy=much", "accuracy=much"),
    ("t.csv --objective focal --sizes 1-2", "focal"),
    (
        "t.csv --objective cost=-1",
        "the cost of sub-ensembles is not known: no price is given of m1, m2, m3, m4; give those of all",
    ),
    ("t.csv --sizes two", "expected sizes such as 3, 2-5 or 2,4-6, got 'two'"),
    ("t.csv --sizes 0", "expected sizes such as 3, 2-5 or 2,4-6, got '0'"),
    ("t.csv --sizes 5-3", "expected sizes such as 3, 2-5 or 2,4-6, got '5-3'"),
    ("t.csv --sizes 8-9", "4 agents can form sub-ensembles of 1 to 4 members .* asked for 8 to 9"),
    ("one.csv", "1 agents can form sub-ensembles of 1 to 1 members"),
    ("t.csv --include m9", "unknown agent 'm9'; known: m1, m2, m3, m4"),
    ("t.csv --exclude m9", "unknown agent 'm9'"),
    ("t.csv --include m1 --exclude m1", "m1 cannot be both included and excluded"),
    ("t.csv --fuser weighted_voet", r"unknown fuser 'weighted_voet'; did you mean 'weighted_vote'\?"),
    ("t.csv --fuser top_k(k=1)", "top_k"),
    ("t.csv --search exhaustiv", r"unknown search method 'exhaustiv'; did you mean 'exhaustive'\?"),
    ("t.csv --executor cloud", "unknown executor 'cloud'"),
    ("t.csv --max-cost 1", "the cost of sub-ensembles is not known"),
    ("t.csv --max-cost -1", "max_cost: input should be greater than or equal to 0, got -1.0"),
    ("t.csv --max-latency 1", "the latency of sub-ensembles needs a table that recorded the seconds"),
    ("t.csv --top 0", "top: input should be greater than or equal to 1, got 0"),
    ("t.csv --candidates 0", "candidates: input should be greater than or equal to 1, got 0"),
    ("t.csv --budget 0", "budget: input should be greater than or equal to 1, got 0"),
    ("t.csv --seed -1", "seed: input should be greater than or equal to 0, got -1"),
    ("t.csv --fit-fraction 1", "fit_fraction: input should be less than 1, got 1.0"),
    ("t.csv --stratify agent", "stratify: input should be 'category' or 'none', got 'agent'"),
    ("t.csv --set repeats=1", "repeats: input should be greater than or equal to 100, got 1"),
    ("t.csv --set seed", "expected KEY=VALUE such as seed=1"),
    ("t.csv --prices good.yaml", "unknown key 'table'"),
    ("--config misspelt.yaml", r"misspelt.yaml: unknown key 'objectiv'; did you mean 'objective'\?"),
    ("--config broken.yaml", "broken.yaml cannot be read as YAML: line 2"),
    ("--config none.yaml", "no configuration none.yaml: No such file or directory"),
    ("t.csv --out o", "--out is for the results of --jobs; write this one with --json FILE"),
    ("t.csv --jobs jobs.yaml", "--jobs takes everything from jobs.yaml, and table is given beside it"),
    ("--jobs jobs.yaml --config good.yaml", "and config is given beside it"),
    ("--jobs jobs.yaml --seed 1", "seed is given beside it .* override a key there: --set defaults.seed=..."),
    ("--jobs none.yaml", "no configuration none.yaml: No such file or directory"),
    ("--jobs misspelt.yaml", "misspelt.yaml: unknown key 'table'"),
]

FAILURES: list[tuple[str, str]] = [
    ("none.csv", "no file none.csv; give the path of a table"),
    (".", "is a folder; give the path of a table file in it"),
    ("empty.csv", "empty.csv is empty; expected a header"),
    ("unlabelled.csv", "needs a labelled table, and the table has no labels; import it with an answer column"),
    ("small.csv", "1 questions cannot be split 0.7 to 0.3: one part would be empty; use more questions"),
    ("t.csv --test t.csv", "120 question ids are in the table to fit on and in the table to evaluate on"),
    ("t.csv --test other.csv", "different agents: in the second missing m4; not expected x; record the same agents"),
    ("t.csv --test none.csv", "no file none.csv"),
    ("t.csv --fuser mean_probability", "needs a table with the agents' probabilities"),
    ("t.csv --json .", "cannot write .: it is a folder; give the name of a file in it"),
    ("t.csv --json t.csv/o.json", "cannot write t.csv/o.json: Not a directory"),
    ("t.csv --json /proc/o.json", "cannot write /proc/o.json"),
    ("--jobs jobs.yaml --out t.csv", "cannot write t.csv/a.json: Not a directory"),
    ("--jobs jobs.yaml --json .", "cannot write .: it is a folder"),
]


def refused(told: Told, code: int, message: str) -> None:
    assert told.code == code, told.error
    assert told.out == ""
    assert re.search(message, flat(told.error)), flat(told.error)
    assert "Traceback" not in told.error
    assert "unexpected" not in told.error or "unexpected extra argument" in flat(told.error)


@pytest.mark.parametrize(("line", "message"), USAGE, ids=lambda item: item[:60])
def test_wrong_usage(run: Run, folder: Path, line: str, message: str) -> None:
    before = set(folder.rglob("*"))
    refused(run(*line.split()), 2, message)
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(("line", "message"), FAILURES, ids=lambda item: item[:60])
def test_failures(run: Run, folder: Path, line: str, message: str) -> None:
    before = set(folder.rglob("*"))
    refused(run(*line.split()), 1, message)
    assert set(folder.rglob("*")) == before


def test_no_limit_is_met(run: Run, folder: Path) -> None:
    write_table(random_table(0, questions=80), folder / "t.parquet")
    refused(run("t.parquet", "--max-latency", "0.001"), 2, "none of 11 sub-ensembles is within --max-latency 0.001")


class TestProcesses:
    def test_recorded_answers_in_bounded_time(self, folder: Path, recorded_data: Path) -> None:
        """All 55430 sub-ensembles of 24 agents on 5870 questions; processor time, as the machine may be busy."""
        words = [*COMMAND, str(recorded_data / "mmlu_pro" / "predictions.csv.gz")]
        seconds = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        # The first may have compiled the kernels.
        assert seconds[1] < 4, seconds
        assert len(ranked(told.stdout)) == 10
        assert "all 55430 sub-ensembles of 24 agents" in told.stdout
        assert told.stderr == ""

    def test_interrupt(self, folder: Path) -> None:
        """In the middle of 100 million sub-ensembles: what was found is measured and shown, and the exit code tells."""
        write_table(random_table(0, questions=2000, agents=[f"m{n}" for n in range(40)]), folder / "forty.parquet")
        options = ["--sizes", "2-8", "--search", "exhaustive", "--set", "repeats=100", "--json", "pruned.json"]
        command = [*COMMAND, "forty.parquet", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            wait_for_processor_seconds(worker.pid, 5)
            worker.send_signal(signal.SIGINT)
            sent = time.monotonic()
            out, error = worker.communicate(timeout=60)
        assert time.monotonic() - sent < 30  # a second or two, on a machine with nothing else to do
        assert worker.returncode == 130, error
        assert "Traceback" not in error
        result = PruneResult.load("pruned.json")
        assert not result.complete
        assert 0 < result.searched < result.total == sum(math.comb(40, size) for size in range(2, 9))
        assert f"note: interrupted: {result.searched} of {result.total} sub-ensembles were scored" in out
        assert len(ranked(out)) == 10


def wait_for_processor_seconds(pid: int, seconds: float) -> None:
    """Wait until a process has computed for so long; where that cannot be told, three times as long by the clock."""
    stat = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + (120 if stat.exists() else 3 * seconds)
    while time.monotonic() < deadline:
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            if (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") >= seconds:
                return
        time.sleep(0.05)
    assert not stat.exists(), "it did not start to compute"


class TestConfigFiles:
    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            ("table: t.csv\nsystems: all_agents+vote\n", "bench"),
            ("table: t.csv\nseed: 1\n", "bench"),
            ("table: t.csv\nobjective: accuracy\n", "prune"),
            ("jobs: {a: {table: t.csv}}\n", "jobs"),
            ("matrix: {table: [t.csv]}\n", "jobs"),
        ],
    )
    def test_the_keys_say_what_a_file_is(self, run: Run, folder: Path, content: str, kind: str) -> None:
        (folder / "some.yaml").write_text(content)
        told = run("config", "validate", "some.yaml", verb=None)
        assert told.out == f"some.yaml is a valid {kind} file\n"

    def test_jobs_are_checked_too(self, run: Run, folder: Path) -> None:
        (folder / "some.yaml").write_text("jobs: {a: {tabel: t.csv}}\n")
        told = run("config", "validate", "some.yaml", verb=None)
        assert told.code == 2
        assert "unknown key 'tabel'" in told.error

    @pytest.mark.parametrize("kind", ["prune", "jobs"])
    def test_schema(self, run: Run, kind: str) -> None:
        assert json.loads(run("config", "schema", kind, verb=None).out)["type"] == "object"
