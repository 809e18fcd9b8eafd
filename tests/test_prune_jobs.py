"""Many prunings from one file: what the file may say, each job done once, and whatever happens in between."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tables import random_table

from fusion.cli import main
from fusion.data import write_table
from fusion.errors import ConfigError, OutputError
from fusion.executors import open_executor
from fusion.pruning import JobsResult, PruneOptions, PruneResult, _jobs, prune, read_jobs, run_jobs

COMMAND = [sys.executable, "-m", "fusion", "prune", "--jobs"]
DEFAULTS = {"sizes": 2, "repeats": 100}


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with tables a and b, of other agents, and no settings from outside."""
    write_table(random_table(0, questions=80), bare / "a.parquet")
    write_table(random_table(1, questions=60, agents=("m", "n", "o")), bare / "b.parquet")
    return bare


def describe(name: str = "jobs.yaml", **content: Any) -> Path:
    """Write a file of jobs into the working folder."""
    Path(name).write_text(yaml.safe_dump({"defaults": DEFAULTS, **content}, sort_keys=False), encoding="utf-8")
    return Path(name)


def statuses(result: JobsResult) -> dict[str, str]:
    return {job.name: job.status for job in result.jobs}


def comparable(path: Path | str) -> dict[str, Any]:
    """The JSON of a result without what differs from one run to the next."""
    found: dict[str, Any] = json.loads(Path(path).read_text())
    del found["seconds"], found["run"]["started"], found["run"]["seconds"], found["run"]["command"]["table"]
    return found


class TestFile:
    def test_jobs_and_defaults(self, folder: Path) -> None:
        """A job's own keys win over the defaults; paths start from the folder of the file."""
        file = describe(
            jobs={"one": {"table": "a.parquet", "sizes": "3-4"}, "two": {"table": "/x/b.parquet", "seed": 7}}
        )
        one, two = read_jobs(folder / file)
        assert (one.name, one.config.table, one.config.sizes) == ("one", str(folder / "a.parquet"), "3-4")
        assert (two.config.table, two.config.sizes, two.config.seed) == ("/x/b.parquet", 2, 7)
        assert one.config.repeats == two.config.repeats == 100
        assert read_jobs("jobs.yaml")[0].config.table == "a.parquet"

    def test_a_job_of_defaults_alone(self, folder: Path) -> None:
        (job,) = read_jobs(describe(defaults={"table": "a.parquet"}, jobs={"all": None}))
        assert (job.name, job.config.table) == ("all", "a.parquet")

    def test_matrix(self, folder: Path) -> None:
        """Every combination, the last key turning fastest."""
        file = describe(matrix={"table": ["a.parquet", "x/b.csv.gz"], "objective": ["accuracy"], "seed": [0, 12]})
        assert [job.name for job in read_jobs(file)] == [
            "a__accuracy__seed=0",
            "a__accuracy__seed=12",
            "b__accuracy__seed=0",
            "b__accuracy__seed=12",
        ]
        assert [(job.config.table, job.config.seed) for job in read_jobs(file)] == [
            ("a.parquet", 0),
            ("a.parquet", 12),
            ("x/b.csv.gz", 0),
            ("x/b.csv.gz", 12),
        ]

    @pytest.mark.parametrize(
        ("key", "values", "names"),
        [
            ("objective", ["focal=0.5,accuracy=0.5"], ["focal=0.5,accuracy=0.5"]),
            ("fuser", [None, "weighted_vote(weights=power)"], ["fuser=none", "weighted_vote-weights=power"]),
            ("sizes", ["2-5", 3, [2, 4]], ["sizes=2-5", "sizes=3", "sizes=2,4"]),
            ("include", [[], ["org/m:1", "n"]], ["include=none", "include=org-m-1,n"]),
            ("max_cost", [0.5, None], ["max_cost=0.5", "max_cost=none"]),
            ("table", ["x/t.csv", "y/t.csv"], ["x-t.csv", "y-t.csv"]),
            ("table", ["../t.parquet", "/u.tsv"], ["t", "u"]),
            ("table", [".csv", "\u6a21.csv"], ["table", "\u6a21"]),
        ],
        ids=str,
    )
    def test_names_of_values(self, folder: Path, key: str, values: list[Any], names: list[str]) -> None:
        file = describe(defaults={"table": "a.parquet"}, matrix={key: values})
        assert [job.name for job in read_jobs(file)] == names

    def test_long_names(self, folder: Path) -> None:
        """They are cut, and still differ."""
        file = describe(defaults={"table": "a"}, matrix={"include": [["\u00e9" * 150 + "1"], ["\u00e9" * 150 + "2"]]})
        first, second = (job.name for job in read_jobs(file))
        assert first != second
        assert first[:80] == second[:80]
        assert max(len(first.encode()), len(second.encode())) <= 200

    def test_overrides(self, folder: Path) -> None:
        file = describe(jobs={"one": {"table": "a.parquet"}})
        (job,) = read_jobs(file, overrides={"defaults.seed": 4, "jobs.one.sizes": "3"})
        assert (job.config.seed, job.config.sizes) == (4, "3")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("jobs: {a: {table: t, sede: 1}}", r"jobs.yaml: jobs.a: unknown key 'sede'; did you mean 'seed'\?"),
            ("defaults: {objectiv: x}\njobs: {a: {table: t}}", "defaults: unknown key 'objectiv'; did you mean"),
            ("matrix: {tabel: [t]}", r"matrix: unknown key 'tabel'; did you mean 'table'\?"),
            ("jbos: {}", r"jobs.yaml: unknown key 'jbos'; did you mean 'jobs'\?"),
            ("version: 2", "version: input should be 1, got 2"),
            ("jobs: {a: {table: t, version: 1}}", "jobs.a: unknown key 'version'"),
            ("", r"names no jobs; give jobs: {NAME: {table: FILE}} or matrix: {table: \[FILE\]}"),
            ("jobs: {a: {seed: 1}}", "jobs.yaml, job a: the key 'table' is required"),
            ("jobs: {a: {table: t, seed: -1}}", "job a: seed: input should be greater than or equal to 0, got -1"),
            ("jobs: {a: t.csv}", "jobs.a: input should be a valid dictionary, got 't.csv'"),
            ("jobs: {a: {table: t}, a: {table: u}}", "the key 'a' occurs twice"),
            ("jobs: {a: {table: t}, A: {table: u}}", "2 jobs would be called 'a'"),
            ("jobs: {a/b: {table: t}}", "'a/b' cannot be the name of a job, which is that of a file; use letters"),
            ("jobs: {../a: {table: t}}", "cannot be the name of a job"),
            ("jobs: {.a: {table: t}}", "start with a letter or digit"),
            ("jobs: {'': {table: t}}", "'' cannot be the name of a job"),
            (f"jobs: {{{'a' * 201}: {{table: t}}}}", "cannot be the name of a job"),
            ("jobs: {1: {table: t}}", "the keys in jobs must be text, got 1; put it in quotes"),
            ("matrix: {table: t}", "matrix.table: input should be a valid list, got 't'"),
            ("matrix: {table: []}", r"matrix.table needs values that a name can be made of, got \[\]; give some"),
            ("matrix: {table: [t], prices: [{m: {input: 1, output: 1}}]}", "prices under defaults or jobs"),
            ("matrix: {table: [t, t]}", "2 jobs would be called 't'; leave out values that are given twice"),
            ("jobs: {t: {table: t}}\nmatrix: {table: [t]}", "2 jobs would be called 't'"),
            (f"matrix: {{table: [t], seed: {list(range(101))}, top: {list(range(1, 101))}}}", "makes 10100 jobs"),
            ("jobs: [", "jobs.yaml cannot be read as YAML: line"),
        ],
        ids=lambda item: item[:50],
    )  # fmt: skip
    def test_refused(self, folder: Path, content: str, message: str) -> None:
        Path("jobs.yaml").write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_jobs("jobs.yaml")
        with pytest.raises(ConfigError):
            run_jobs("jobs.yaml")
        assert not Path("jobs").exists()


class TestRun:
    def test_each_is_what_prune_makes(self, folder: Path) -> None:
        file = describe(
            jobs={
                "plain": {"table": "a.parquet"},
                "fused": {"table": "a.parquet", "fuser": "weighted_vote", "candidates": 3, "seed": 2},
                "other": {"table": "b.parquet", "objective": "accuracy", "sizes": "2-3"},
            }
        )
        result = run_jobs(folder / file)
        assert statuses(result) == {"plain": "made", "fused": "made", "other": "made"}
        assert (result.complete, result.folder) == (True, str(folder / "jobs"))
        options = {
            "plain": PruneOptions(sizes=(2,), repeats=100),
            "fused": PruneOptions(sizes=(2,), repeats=100, fuser="weighted_vote", candidates=3, seed=2),
            "other": PruneOptions(sizes=(2, 3), repeats=100, objective="accuracy"),
        }
        for job in result.jobs:
            table = folder / ("b.parquet" if job.name == "other" else "a.parquet")
            prune(table, options=options[job.name]).save("expected.json")
            assert comparable(job.file) == comparable("expected.json")
            loaded = PruneResult.load(job.file)
            assert loaded.run.command["table"] == str(table)
            assert job.found is not None
            assert job.found.agents == loaded.subsets[0].agents
            assert job.found.test_accuracy == loaded.subsets[0].test_accuracy
            assert job.found.paired == loaded.paired[0]
            assert (job.found.objective, job.found.fuser, job.found.n) == (loaded.objective, loaded.fuser, loaded.n)
        assert sorted(os.listdir("jobs")) == ["fused.json", "other.json", "plain.json"]

    def test_folder_of_ones_own(self, folder: Path) -> None:
        result = run_jobs(describe(jobs={"a": {"table": "a.parquet"}}), folder / "new" / "place")
        assert os.listdir("new/place") == ["a.json"]
        assert result.jobs[0].file == str(folder / "new" / "place" / "a.json")
        assert not Path("jobs").exists()

    def test_a_table_to_evaluate_on(self, folder: Path) -> None:
        write_table(random_table(5, questions=40, prefix="r"), folder / "c.parquet")
        result = run_jobs(describe(jobs={"a": {"table": "a.parquet", "test": "c.parquet"}}))
        loaded = PruneResult.load(result.jobs[0].file)
        assert (loaded.n, loaded.n_fit, loaded.run.command["test"]) == (40, 80, "c.parquet")
        assert statuses(run_jobs("jobs.yaml")) == {"a": "reused"}

    def test_the_best_single_member(self, folder: Path) -> None:
        """It is not compared with itself."""
        file = describe(jobs={"a": {"table": "a.parquet", "sizes": 1, "objective": "accuracy"}})
        (job,) = run_jobs(file).jobs
        assert job.found is not None
        assert len(job.found.agents) == 1
        assert job.found.paired is None

    def test_failures_do_not_stop_the_others(self, folder: Path) -> None:
        Path("broken.csv").write_text("question_id,answer,m1\nq1,A\n")
        file = describe(
            jobs={
                "missing": {"table": "none.parquet"},
                "broken": {"table": "broken.csv"},
                "objective": {"table": "a.parquet", "objective": "acuracy"},
                "sizes": {"table": "a.parquet", "sizes": "9-2"},
                "beyond": {"table": "a.parquet", "sizes": "8-9"},
                "fuser": {"table": "a.parquet", "fuser": "voet"},
                "agents": {"table": "a.parquet", "test": "b.parquet"},
                "good": {"table": "a.parquet"},
            }
        )
        result = run_jobs(file)
        reasons = {job.name: job.reason for job in result.having("failed")}
        assert list(reasons) == ["missing", "broken", "objective", "sizes", "beyond", "fuser", "agents"]
        assert reasons["missing"].startswith("no file none.parquet; give the path")
        assert "row 2 has 2 cells" in reasons["broken"]
        assert "did you mean 'accuracy'" in reasons["objective"]
        assert "expected sizes such as 3, 2-5" in reasons["sizes"]
        assert "asked for 8 to 9" in reasons["beyond"]
        assert "unknown fuser 'voet'" in reasons["fuser"]
        assert "different agents" in reasons["agents"]
        assert [job.name for job in result.having("made")] == ["good"]
        assert os.listdir("jobs") == ["good.json"]
        assert result.complete

    def test_a_table_is_read_once_and_not_kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However its path is spelled."""
        read: list[str] = []
        kept: list[int] = []

        def reading(path: str) -> Any:
            read.append(Path(path).name)
            return original(path)

        original = _jobs.read_table
        monkeypatch.setattr(_jobs, "read_table", reading)
        finished = _jobs._Shelf.finished

        def counting(self: Any, job: Any) -> None:
            finished(self, job)
            kept.append(len(self._tables))

        monkeypatch.setattr(_jobs._Shelf, "finished", counting)
        one, two = {"table": "a.parquet"}, {"table": f"../{folder.name}/a.parquet", "seed": 1}
        file = describe(jobs={"one": one, "b": {"table": "b.parquet"}, "two": two, "three": one})
        run_jobs(file)
        assert read == ["a.parquet", "b.parquet"]
        assert kept == [1, 1, 1, 0]

    def test_progress(self, folder: Path) -> None:
        told: list[tuple[str, int, int]] = []
        file = describe(jobs={"one": {"table": "a.parquet"}, "two": {"table": "b.parquet"}})
        run_jobs(file, progress=lambda step, done, total: told.append((step, done, total)))
        assert {total for _, _, total in told} == {2}
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
        assert told[-1] == ("done with two", 2, 2)
        assert ("searching 100 %, one", 0, 2) in told
        assert ("searching 100 %, two", 1, 2) in told

    def test_workers(self, folder: Path) -> None:
        file = describe(jobs={"a": {"table": "a.parquet", "sizes": "2-3"}})
        run_jobs(file, "near")
        with open_executor("local(workers=1)") as workers:
            run_jobs(file, "far", executor=workers)
        assert comparable("near/a.json") == comparable("far/a.json")


class TestAgain:
    def made(self, **own: Any) -> JobsResult:
        return run_jobs(describe(jobs={"a": {"table": "a.parquet", **own}, "b": {"table": "b.parquet"}}))

    def test_nothing_is_done_twice(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.made()
        times = [Path(job.file).stat().st_mtime_ns for job in first.jobs]
        monkeypatch.setattr(_jobs, "prune", None)
        again = run_jobs("jobs.yaml")
        assert statuses(again) == {"a": "reused", "b": "reused"}
        assert [job.found for job in again.jobs] == [job.found for job in first.jobs]
        assert [Path(job.file).stat().st_mtime_ns for job in again.jobs] == times

    @pytest.mark.parametrize(
        ("own", "reason"),
        [
            ({"seed": 1}, "its seed changed"),
            ({"objective": "accuracy", "top": 3}, "its objective, top changed"),
            ({"prices": {"ash": {"input": 1, "output": 1}}}, "its prices changed"),
        ],
    )
    def test_other_options(self, folder: Path, own: dict[str, Any], reason: str) -> None:
        self.made()
        again = self.made(**own)
        assert statuses(again) == {"a": "replaced", "b": "reused"}
        assert again.jobs[0].reason == reason
        run_jobs("jobs.yaml", "fresh")
        assert comparable("fresh/a.json") == comparable("jobs/a.json")
        assert statuses(self.made(**own)) == {"a": "reused", "b": "reused"}

    def test_another_table_under_the_name(self, folder: Path) -> None:
        self.made()
        write_table(random_table(7, questions=80), folder / "a.parquet")
        again = self.made()
        assert statuses(again) == {"a": "replaced", "b": "reused"}
        assert again.jobs[0].reason == "its table changed"

    def test_the_same_table_under_another_name(self, folder: Path) -> None:
        self.made()
        Path("a.parquet").rename("renamed.parquet")
        assert statuses(self.made(table="renamed.parquet")) == {"a": "reused", "b": "reused"}

    def test_a_result_of_an_interrupted_search(self, folder: Path) -> None:
        self.made()
        content = json.loads(Path("jobs/a.json").read_text())
        Path("jobs/a.json").write_text(json.dumps(content | {"complete": False}))
        assert [job.reason for job in self.made().having("replaced")] == ["it was interrupted"]

    @pytest.mark.parametrize("content", ["", "my notes", '{"format": "fusion.bench/1"}'])
    def test_what_is_no_result_is_not_overwritten(self, folder: Path, content: str) -> None:
        self.made()
        Path("jobs/a.json").write_text(content)
        again = self.made()
        assert statuses(again) == {"a": "failed", "b": "reused"}
        assert "is not the JSON of fusion prune" in again.jobs[0].reason
        assert "what is there stays: move it away, or give another folder" in again.jobs[0].reason
        assert Path("jobs/a.json").read_text() == content

    def test_a_failed_job_keeps_the_result_that_was_there(self, folder: Path) -> None:
        self.made()
        before = Path("jobs/a.json").read_text()
        assert statuses(self.made(objective="acuracy"))["a"] == "failed"
        assert Path("jobs/a.json").read_text() == before

    def test_nowhere_to_write(self, folder: Path) -> None:
        file = describe(jobs={"a": {"table": "a.parquet"}})
        with pytest.raises(OutputError, match=r"cannot write a\.parquet/a\.json: Not a directory"):
            run_jobs(file, "a.parquet")


def interrupting(step: str) -> Callable[[str, int, int], None]:
    def told(now: str, done: int, total: int) -> None:
        if now.startswith(step):
            raise KeyboardInterrupt

    return told


class TestInterrupted:
    @pytest.mark.parametrize(
        "step",
        ["reading, b", "searching 100 %, b", "weighted_vote on the best 33 %, b", "evaluating, b", "done with a"],
    )
    def test_in_the_second_job(self, folder: Path, step: str) -> None:
        """What is done stays; what the running job had found is not taken for its result."""
        second = {"table": "b.parquet", "fuser": "weighted_vote", "candidates": 2}
        file = describe(jobs={"a": {"table": "a.parquet"}, "b": second, "c": {"table": "a.parquet", "seed": 1}})
        result = run_jobs(file, progress=interrupting(step))
        assert statuses(result) == {"a": "made", "b": "waiting", "c": "waiting"}
        assert not result.complete
        assert [(job.found, job.file) for job in result.jobs[1:]] == [(None, "jobs/b.json"), (None, "jobs/c.json")]
        assert os.listdir("jobs") == ["a.json"]
        assert statuses(run_jobs(file)) == {"a": "reused", "b": "made", "c": "made"}

    def test_while_replacing(self, folder: Path) -> None:
        """The old result is there until the new one is."""
        file = describe(jobs={"a": {"table": "a.parquet"}})
        run_jobs(file)
        before = Path("jobs/a.json").read_text()
        result = run_jobs(file, overrides={"defaults.seed": 1}, progress=interrupting("searching"))
        assert statuses(result) == {"a": "waiting"}
        assert Path("jobs/a.json").read_text() == before
        assert statuses(run_jobs(file)) == {"a": "reused"}


class TestCommandLine:
    def told(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["prune", "--jobs", "jobs.yaml", *words])
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        assert "Traceback" not in captured.err
        return caught.value.code, captured.out, captured.err

    def test_printed(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        describe(
            jobs={"one": {"table": "a.parquet"}, "two": {"table": "b.parquet", "sizes": 1, "objective": "accuracy"}}
        )
        code, out, error = self.told(capsys)
        assert (code, error) == (0, "")
        assert re.search(
            r"^ *one +made +\w+, \w+ +\d+\.\d +\d+\.\d to \d+\.\d +[+-]\d+\.\d +[+-]\S+ to [+-]\S+ *$", out, re.M
        )
        assert re.search(r"^ *two +made +\w +\d+\.\d +\d+\.\d to \d+\.\d *$", out, re.M)
        assert out.endswith("2 jobs: 2 made; results in jobs\n")
        code, out, error = self.told(capsys, "--set", "jobs.one.seed=3")
        assert (code, error) == (0, "")
        assert out.endswith("one was made anew: its seed changed\n2 jobs: 1 replaced, 1 reused; results in jobs\n")

    def test_failures_come_last(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        describe(jobs={"bad": {"table": "none.csv"}, "good": {"table": "a.parquet"}})
        code, out, error = self.told(capsys, "--out", "here")
        assert code == 1
        assert out.endswith("2 jobs: 1 made, 1 failed; results in here\n")
        assert error.startswith("bad failed: no file none.csv; give the path")
        assert error.count("\n") == 1
        assert os.listdir("here") == ["good.json"]

    def test_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The keys are those of docs/pruning.md."""
        describe(jobs={"bad": {"table": "none.csv"}, "good": {"table": "a.parquet"}})
        code, out, error = self.told(capsys, "--json", "-")
        found = json.loads(out)
        assert (code, error.count("\n")) == (1, 1)
        page = (Path(__file__).parents[1] / "docs" / "pruning.md").read_text(encoding="utf-8")
        section = page[page.index("## Many prunings") : page.index("## From Python")]
        summary = set(re.findall(r"`([^`]+)`", section[section.index("`--json FILE` writes") :]))
        keys = {*found, *found["jobs"][1], *found["jobs"][1]["found"]}
        assert keys <= summary
        assert {"--json FILE", "fusion.pruning.run_jobs(FILE)", '"fusion.prune-jobs/1"'} <= summary - keys
        assert summary - keys <= {
            *("--json FILE", "fusion.pruning.run_jobs(FILE)", '"fusion.prune-jobs/1"'),
            *("made", "replaced", "reused", "failed", "waiting"),
        }
        assert [job["status"] for job in found["jobs"]] == ["failed", "made"]
        _, out, _ = self.told(capsys, "--json", "summary.json")
        assert out.endswith("wrote summary.json\n")
        assert json.loads(Path("summary.json").read_text())["jobs"][1]["status"] == "reused"

    def test_the_example_of_the_documentation(self, folder: Path) -> None:
        page = (Path(__file__).parents[1] / "docs" / "pruning.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.M | re.S)
        Path("example.yaml").write_text(example)
        names = [job.name for job in read_jobs("example.yaml")]
        assert len(names) == 2 + 2 * 2 * 5
        assert "a__accuracy__seed=0" in names


def long_jobs(folder: Path) -> None:
    """A job of moments, one of a minute (100 million sub-ensembles), another of moments."""
    write_table(random_table(0, questions=2000, agents=[f"m{n}" for n in range(40)]), folder / "forty.parquet")
    describe(
        jobs={
            "quick": {"table": "a.parquet"},
            "long": {"table": "forty.parquet", "sizes": "2-8", "search": "exhaustive"},
            "last": {"table": "b.parquet"},
        }
    )


class TestProcesses:
    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
    def test_stopped_in_the_middle(self, folder: Path, sent: signal.Signals) -> None:
        long_jobs(folder)
        command = [*COMMAND, "jobs.yaml"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            deadline = time.monotonic() + 120
            while not Path("jobs/quick.json").exists():
                assert worker.poll() is None, worker.communicate()
                assert time.monotonic() < deadline, "the first job did not end"
                time.sleep(0.02)
            time.sleep(0.5)  # into the second
            worker.send_signal(sent)
            out, error = worker.communicate(timeout=60)
        assert os.listdir("jobs") == ["quick.json"]
        if sent == signal.SIGINT:
            assert worker.returncode == 130
            assert "3 jobs: 1 made, 2 waiting; results in jobs" in out
            assert error.strip() == (
                "stopped with 2 of 3 jobs to do; what is done is in jobs, the same command goes on from there"
            )
        else:
            assert worker.returncode == -signal.SIGKILL
        assert not PruneResult.load("jobs/quick.json").run.command["test"]
        again = run_jobs("jobs.yaml", overrides={"jobs.long.sizes": 2})
        assert statuses(again) == {"quick": "reused", "long": "made", "last": "made"}
