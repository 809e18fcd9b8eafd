"""The command line meets bad input: a sentence that helps, the right exit code, no traceback, nothing left behind."""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Run, Told

COMMAND = [sys.executable, "-m", "fusion"]


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with a good table t.csv, a run run.json and broken files, and no settings from outside."""
    rows = [f"q{n},{'abc'[n % 3]},{'ABCD'[n % 4]},A,{'ABCD'[n % 4]},C" for n in range(120)]
    write("t.csv", "\n".join(["question_id,category,answer,m1,m2,m3", *rows, ""]))
    write("other.csv", "question_id,category,answer,m1,m2,x\nr1,a,A,A,A,A\n")
    write("ragged.csv", "question_id,answer,m1\nq1,A\n")
    write("empty.csv", "")
    write("header.csv", "question_id,answer,m1\n")
    write("twice.csv", "question_id,answer,m1\nq1,A,B\nq1,A,B\n")
    write("unlabelled.csv", "question_id,m1,m2,m3\nq1,A,B,C\nq2,A,B,C\n")
    write("small.csv", "question_id,answer,m1,m2,m3\nq1,A,A,B,C\n")
    write("binary.csv", b"\xff\x00\x9f" * 50)
    write("misspelt.yaml", "table: t.csv\nsede: 1\n")
    write("broken.yaml", "table: [t.csv\n")
    write("broken.json", "{")
    write("other.json", '{"format": "something"}')
    return bare


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def told(*words: str) -> Told:
        return command_line.run(capsys, words)

    return told


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


USAGE: list[tuple[str, str]] = [
    # Words and options.
    ("nope", "No such command 'nope'"),
    ("bench t.csv --fit-fractoin 0.5", "No such option.*--fit-fractoin.*--fit-fraction"),
    ("bench t.csv --seed one", "valid int"),
    ("bench t.csv other.csv", "unexpected extra argument"),
    ("bench", "give a TABLE, or --config FILE that names one; see fusion bench --help"),
    ("import wide t.csv", "Missing option '--out'"),
    ("import", "Missing argument 'FORMAT'"),
    ("compare run.json", "Missing argument"),
    ("list foo", "unknown kind of thing 'foo'; known: systems, engines, selectors"),
    ("--log-level loud list", "expected debug, info, warning or error, got 'loud'"),
    ("demo --questions 3", "20"),
    # Values.
    ("bench t.csv --fit-fraction 2", "fit_fraction: input should be less than 1, got 2.0"),
    ("bench t.csv --fit_fraction=0", "fit_fraction: input should be greater than 0, got 0.0"),
    ("bench t.csv --fit-fraction nan", "fit_fraction: input should be .*, got nan"),
    ("bench t.csv --seed -1", "seed: input should be greater than or equal to 0, got -1"),
    ("bench t.csv --repeats 0", "repeats: input should be greater than or equal to 100, got 0"),
    ("bench t.csv --stratify agent", "stratify: input should be 'category' or 'none', got 'agent'"),
    ("bench t.csv --cluster agent", "cluster: input should be 'none' or 'category', got 'agent'"),
    ("import wide t.csv --out o --cells words", "--cells must be auto, letters or text, got 'words'"),
    ("import wide t.csv t.csv --out o", "a wide table is one file with a column per agent, got 2 files"),
    ("rescore t.csv --out o", "give either --extractor NAME or --task TASK"),
    ("rescore t.csv --out o --extractor a --task b", "give either --extractor NAME or --task TASK"),
    # Unknown names.
    ("bench t.csv --systems topk(k=1)+vote", r"unknown selector 'topk'; did you mean 'top_k'\?"),
    ("bench t.csv --systems top_k(k=1)+voet", r"unknown fuser 'voet'; did you mean 'vote'\?"),
    ("bench t.csv --systems oracle", r"oracle is a selector; write for example oracle\+vote"),
    ("bench t.csv --systems fixed_subset(agents=[m1,m9])+vote", "unknown agent 'm9'; known: m1, m2, m3"),
    ("import wdie t.csv --out o", r"unknown format 'wdie'; did you mean 'wide'\?"),
    ("import wide t.csv --out o --agents m1,m9", r"unknown column \(for an agent, in t.csv\) 'm9'"),
    ("import wide t.csv --out o --id-column id", r"unknown column \(for question ids, in t.csv\) 'id'"),
    ("import wide t.csv --out o --answer-column gold", r"unknown column \(for right answers, in t.csv\) 'gold'"),
    (
        "rescore t.csv --out o --extractor gsm8k/flexibel",
        "unknown extractor 'gsm8k/flexibel'; did you mean 'gsm8k/flexible",
    ),
    ("rescore t.csv --out o --task gsm8", r"unknown task 'gsm8'; did you mean 'gsm8k'\?"),
    # Specs.
    ("bench t.csv --systems top_k(k=0)+vote", r"top_k\(k=0\): input should be greater than or equal to 1"),
    ("bench t.csv --systems top_k(k=9)+vote", r"top_k\(k=9\) needs 1 <= k <= 3, the size of the pool"),
    ("bench t.csv --systems top_k+vote", r"selector 'top_k' needs k; write top_k\(k=...\)"),
    ("bench t.csv --systems top_k(n=1)+vote", "selector 'top_k' has no parameter 'n'; known: k"),
    ("bench t.csv --systems top_k(k=1", r"expected '\)' at character 10, got the end of the text"),
    ("bench t.csv --systems vote,", "expected the name of a method at character 6"),
    ("bench t.csv --systems=", "expected the name of a method at character 1"),
    # Configurations.
    ("bench --config misspelt.yaml", r"misspelt.yaml: unknown key 'sede'; did you mean 'seed'\?"),
    ("bench --config broken.yaml", "broken.yaml cannot be read as YAML: line 2"),
    ("bench --config none.yaml", "no configuration none.yaml: No such file or directory"),
    ("bench --config t.csv", "t.csv must hold keys and values"),
    ("bench t.csv --set sede=1", r"unknown key 'sede'; did you mean 'seed'\?"),
    ("bench t.csv --set seed", "expected KEY=VALUE such as seed=1"),
    ("bench t.csv --prices misspelt.yaml", "the key 'prices' is required"),
    ("config validate misspelt.yaml", r"unknown key 'sede'; did you mean 'seed'\?"),
    ("config show misspelt.yaml", "unknown key 'sede'"),
]

FAILURES: list[tuple[str, str]] = [
    # Tables.
    ("bench none.csv", "no file none.csv; give the path of a table written by fusion import, or of a wide CSV"),
    ("bench .", "is a folder; give the path of a table file in it"),
    ("bench empty.csv", "empty.csv is empty; expected a header question_id,category,answer,AGENT"),
    ("bench header.csv", "header.csv: there is a header but there are no questions"),
    ("bench ragged.csv", "ragged.csv cannot be read as a wide table: row 2 has 2 cells, the header has 3"),
    ("bench twice.csv", "twice.csv: every question id must occur once, but 'q1' occurs more often"),
    ("bench binary.csv", "binary.csv is not UTF-8 text"),
    ("bench unlabelled.csv", "needs a labelled table, and the table has no labels; import it with an answer column"),
    ("bench small.csv", "1 questions cannot be split 0.7 to 0.3: one part would be empty"),
    ("bench t.csv --test t.csv", "120 question ids are in the table to fit on and in the table to evaluate on"),
    ("bench t.csv --test other.csv", "different agents: in the second missing m3; not expected x"),
    ("bench t.csv --test none.csv", "no file none.csv"),
    ("bench t.csv --systems mean_probability", "needs a table with the agents' probabilities"),
    ("import wide ragged.csv --out o", "row 2 has 2 cells"),
    ("import wide none.csv --out new/o", "no file none.csv"),
    ("import lm-eval t.csv --out o", "t.csv, line 1: expected a sample of lm-evaluation-harness"),
    ("import inspect t.csv --out o", "t.csv: expected a log of inspect"),
    ("import openai-batch t.csv --out o", "t.csv, line 1: expected a line of batch output"),
    ("rescore t.csv --out o --extractor gsm8k/strict", "this table has no texts; import it again"),
    # Runs.
    ("compare none.json other.json", "no run none.json"),
    ("compare broken.json other.json", "broken.json is not the JSON of fusion bench"),
    ("compare other.json broken.json", "other.json is not the JSON of fusion bench"),
    ("compare t.csv broken.json", "t.csv is not the JSON of fusion bench"),
    # Output.
    ("bench t.csv --json /proc/o.json", "cannot write /proc/o.json: No such file or directory; choose another folder"),
    ("bench t.csv --json .", "cannot write .: it is a folder; give the name of a file in it"),
    ("bench t.csv --json /dev/full", "cannot write /dev/full: it is no regular file"),
    ("bench t.csv --json t.csv/o.json", "cannot write t.csv/o.json: Not a directory"),
    ("import wide t.csv --out /proc/o", "cannot write /proc/o"),
    ("import wide t.csv --out t.csv/o", "cannot write t.csv/o"),
    ("rescore t.csv --out /proc/o --extractor gsm8k/strict", "cannot write /proc/o"),
    ("demo --questions 100 --out /proc/o", "cannot write /proc/o"),
    ("demo --questions 100 --out t.csv", "cannot write .*t.csv"),
]


def refused(told: Told, code: int, message: str) -> None:
    assert told.code == code, told.error
    # Typer's boxes may break a sentence over lines.
    flat = re.sub(r"[\s\u2500-\u257f]+", " ", told.error)
    assert re.search(message, flat), flat
    assert "Traceback" not in told.error
    assert "unexpected" not in flat or "unexpected extra argument" in flat


@pytest.mark.parametrize(("line", "message"), USAGE, ids=lambda item: item[:60])
def test_wrong_usage(run: Run, folder: Path, line: str, message: str) -> None:
    before = files(folder)
    refused(run(*line.split(" ")), 2, message)
    assert files(folder) == before


@pytest.mark.parametrize(("line", "message"), FAILURES, ids=lambda item: item[:60])
def test_failures(run: Run, folder: Path, line: str, message: str) -> None:
    before = files(folder)
    refused(run(*line.split(" ")), 1, message)
    assert files(folder) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FUSION_SEED", "one", "valid int"),
        ("FUSION_FIT_FRACTION", "9", "fit_fraction: input should be less than 1, got 9.0"),
        ("FUSION_SYSTEMS", "zz(", "expected a parameter's name at character 4"),
        ("FUSION_CONFIG", "none.yaml", "no configuration none.yaml"),
        ("FUSION_LOG_LEVEL", "loud", "expected debug, info, warning or error, got 'loud'"),
    ],
)
def test_environment(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    refused(run("bench", "t.csv"), 2, message)


def test_nothing_is_overwritten_by_a_failure(run: Run, folder: Path) -> None:
    write("o.parquet", "precious")
    assert run("import", "wide", "ragged.csv", "--out", "o.parquet").code == 1
    assert run("bench", "ragged.csv", "--json", "o.parquet").code == 1
    assert (folder / "o.parquet").read_text() == "precious"


class TestDebug:
    def test_a_traceback_only_when_asked_for(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        quiet = run("bench", "none.csv")
        assert quiet.error.count("\n") == 1
        for words in (["bench", "none.csv", "--debug"], ["--debug", "bench", "none.csv"]):
            loud = run(*words)
            assert loud.code == 1
            assert "Traceback" in loud.error
            assert loud.error.endswith(quiet.error)
        monkeypatch.setenv("FUSION_DEBUG", "1")
        assert "Traceback" in run("bench", "none.csv").error
        monkeypatch.setenv("FUSION_DEBUG", "0")
        assert "Traceback" not in run("bench", "none.csv").error


class TestSpelling:
    @pytest.mark.parametrize("words", [["--fit-fraction", "0.5"], ["--fit_fraction", "0.5"], ["--fit_fraction=0.5"]])
    def test_underscores_are_dashes(self, run: Run, words: Sequence[str]) -> None:
        told = run("bench", "t.csv", "--systems", "vote", "--repeats", "100", "--json", "-", *words)
        assert json.loads(told.out)["run"]["command"]["fit_fraction"] == 0.5

    def test_values_keep_their_underscores(self, run: Run) -> None:
        told = run(
            "bench", "t.csv", "--set", "fit_fraction=0.5", "--set=repeats=100", "--systems=all_agents+vote", "--json=-"
        )
        assert json.loads(told.out)["run"]["command"]["fit_fraction"] == 0.5

    def test_a_file_named_like_an_option(self, run: Run, folder: Path) -> None:
        (folder / "--fit_fraction").write_bytes((folder / "t.csv").read_bytes())
        told = run("bench", "--systems", "vote", "--repeats", "100", "--json", "-", "--", "--fit_fraction")
        assert json.loads(told.out)["n"] == 36


class TestStreams:
    def outcome(self, *words: str, **given: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=120, **given)

    def test_json_alone_on_standard_output(self, folder: Path) -> None:
        told = self.outcome("bench", "t.csv", "--systems", "vote", "--repeats", "100", "--json", "-")
        assert told.returncode == 0
        assert json.loads(told.stdout)["format"] == "fusion.bench/1"
        assert told.stderr == ""

    def test_errors_go_to_standard_error(self, folder: Path) -> None:
        told = self.outcome("bench", "none.csv", "--json", "-")
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr.startswith("fusion: no file none.csv")

    @pytest.mark.parametrize(
        "words",
        ["list", "config schema", "bench t.csv --systems vote --repeats 100", "bench t.csv --systems vote --json -"],
    )
    def test_a_reader_that_goes_away(self, folder: Path, words: str) -> None:
        with subprocess.Popen([*COMMAND, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stderr is not None
            writer.stdout.close()
            error = writer.stderr.read()
            code = writer.wait(timeout=120)
        assert error == b""
        assert code in (0, 1)

    def test_full_standard_output(self, folder: Path) -> None:
        with open("/dev/full", "w") as full:
            told = subprocess.run(
                [*COMMAND, "config", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
            )
        assert told.returncode == 1
        assert "No space left on device" in told.stderr
        assert "Traceback" not in told.stderr

    def test_interrupt(self, folder: Path) -> None:
        command = [*COMMAND, "demo", "--simulated", "--questions", "300000", "--out", "demo"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stderr is not None
            assert worker.stdout.readline().startswith("Simulated agents")
            worker.send_signal(signal.SIGINT)
            error = worker.stderr.read()
            code = worker.wait(timeout=120)
        assert code == 130
        assert "Traceback" not in error
        assert not list(folder.glob("demo/.*"))

    @pytest.mark.parametrize(
        "words", ["import wide t.csv --out o", "bench t.csv --systems vote --repeats 100 --json o"]
    )
    def test_full_disk(self, folder: Path, words: str) -> None:
        """Files end at 1 kB, as on a disk that is full in the middle of the writing."""
        before = files(folder)
        told = self.outcome(*words.split(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
        assert told.returncode == 1
        assert "fusion: cannot write" in told.stderr
        assert "File too large; nothing was left there. Free some space" in told.stderr
        assert "Traceback" not in told.stderr
        assert files(folder) == before

    def test_python_m_fusion_from_any_folder(self, folder: Path) -> None:
        assert self.outcome("list", "--json", cwd="/").returncode == 0
