"""fusion stream: what it prints and writes, and what it refuses."""

import json
import re
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import Run, Told

from fusion.data import PredictionTable, write_table
from fusion.evaluation import PrequentialResult

FEW = ("--block", "50", "--warm-up", "100", "--window", "200")


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with tables, and no settings from outside."""
    table = drawn(800)
    write_table(table, "t.parquet")
    write_table(drawn(2600), "long.parquet")
    labels_N = np.where(np.arange(800) % 4 == 0, -1, table.require_labels())
    some = PredictionTable(question_ids=table.question_ids, agents=table.agents, answers=table.answers, labels=labels_N)
    write_table(some, "some.parquet")
    Path("unlabelled.csv").write_text("question_id,m1,m2\nq1,A,B\nq2,A,B\n", encoding="utf-8")
    Path("open.csv").write_text(
        "question_id,answer,m1,m2\n" + "".join(f"q{n},word {n},word {n},no\n" for n in range(200)), encoding="utf-8"
    )
    return bare


def drawn(questions: int) -> PredictionTable:
    """Three agents that are right on 80, 60 and 50 % of questions with four options."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 4, questions)
    steps_NM = np.where(rng.random((questions, 3)) < (0.8, 0.6, 0.5), 0, rng.integers(1, 4, (questions, 3)))
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(questions)],
        agents=("m1", "m2", "m3"),
        answers=(labels_N[:, None] + steps_NM) % 4,
        labels=labels_N,
    )


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run fusion stream in this process."""

    def told(*words: str) -> Told:
        return command_line.run(capsys, ["stream", *words])

    return told


def rows(text: str) -> list[list[str]]:
    """The cells of the lines of the table that begin with places in the stream, the whole last."""
    return [line.split() for line in text.splitlines() if re.match(r" *\d+-\d+ ", line)]


def test_what_it_prints(run: Run) -> None:
    told = run("single_best+vote", "t.parquet", *FEW, "--inject-fault", "m1@420")
    assert (told.code, told.error) == (0, "")
    printed = rows(told.out)
    assert [row[0] for row in printed] == [f"{at}-{at + 49}" for at in range(100, 800, 50)] + ["100-799"]
    by_start = {row[0]: row for row in printed}
    assert "m1" in by_start["100-149"]
    assert by_start["400-449"][-1] == "m1"
    assert "m2" in by_start["450-499"]
    assert re.search(r"^alarm: m1 fell from .* noticed at question 450 .* from 100.0 to 0.0 %$", told.out, re.M)
    assert re.search(
        r"^verdict: single_best\+vote, fitted again on the latest 200 questions every 50, beats the same system frozen "
        r"after the first 100: \+\d+\.\d points \(95 % CI \+.* to \+.*, exact McNemar p .*, n = 700\)\.$",
        told.out,
        re.M,
    )


def test_without_drift_there_is_no_alarm(run: Run) -> None:
    told = run("vote", "t.parquet", *FEW)
    assert told.code == 0
    assert "no alarm: no agent is seen to have become worse" in told.out
    assert "is not shown to differ from the same system frozen" in told.out


def test_many_blocks_are_merged(run: Run) -> None:
    """126 blocks of 20 are 18 rows of 7."""
    told = run("vote", "long.parquet", "--block", "20", "--warm-up", "80")
    printed = rows(told.out)
    assert len(printed) == 19
    assert [row[0] for row in printed][:2] == ["80-219", "220-359"]
    assert printed[-1][0] == "80-2599"


def test_json(run: Run, folder: Path) -> None:
    told = run("weighted_vote", "t.parquet", *FEW, "--seed", "3", "--order", "shuffled", "--delay", "10", "--json", "-")
    found = json.loads(told.out)
    assert found["format"] == "fusion.prequential/1"
    command = found["run"]["command"]
    given = {"block": 50, "warm_up": 100, "window": 200, "order": "shuffled", "seed": 3, "delay": 10}
    assert {key: command[key] for key in given} == given
    assert command["stream"] == "all_agents+weighted_vote"
    assert command["table"] == "t.parquet"
    assert command["reset_on_drift"] is True
    told = run("vote", "t.parquet", *FEW, "--keep-window", "--json", "run.json")
    assert told.out.endswith("wrote run.json\n")
    result = PrequentialResult.load("run.json")
    assert (result.n, result.run.command["reset_on_drift"]) == (700, False)


def test_faults_may_be_several(run: Run) -> None:
    told = run("vote", "t.parquet", *FEW, "--inject-fault", "m1@300", "--inject-fault", "m2@500:abstain", "--json", "-")
    assert [alarm["agent"] for alarm in json.loads(told.out)["alarms"]] == ["m1", "m2"]


def test_labels_that_are_not_known(run: Run) -> None:
    told = run("vote", "some.parquet", *FEW)
    assert told.code == 0
    assert "note: 200 questions have no known label" in told.out


REFUSED = [
    (
        ("vote", "t.parquet", "--warm-up", "800"),
        1,
        "of the stream's 800 questions 800 have one; give more",
    ),
    (("vote", "unlabelled.csv"), 1, "the table has no labels"),
    (("oracle+vote", "t.parquet"), 2, "it is an upper bound for fusion bench"),
    (("vote", "t.parquet", "--block", "0"), 2, "block must be at least 1, got 0"),
    (("vote", "t.parquet", "--order", "random"), 2, "order must be table or shuffled, got 'random'"),
    (("vote", "t.parquet", "--inject-fault", "m1"), 2, "a fault is written agent@question[:wrong|random|abstain]"),
    (("vote", "t.parquet", "--inject-fault", "m1@5:lazy"), 2, "wrong, random or abstain, got 'lazy'"),
    (("vote", "t.parquet", "--inject-fault", "m9@5"), 2, "unknown agent 'm9'; known: m1, m2, m3"),
    (
        ("vote", "t.parquet", "--inject-fault", "m1@800"),
        2,
        "after 800 questions, but there are 800; start it",
    ),
    (("vote", "open.csv", "--warm-up", "100", "--inject-fault", "m1@120"), 1, "those of this table are open"),
    (("vote+vote", "t.parquet"), 2, "vote is a fuser; a system is selector+fuser"),
    (("vote, weighted_vote", "t.parquet"), 2, "expected one system"),
    (("vote", "none.parquet"), 1, "none.parquet"),
    (("vote", "t.parquet", "--json", "t.parquet/run.json"), 1, "t.parquet/run.json"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(run: Run, words: tuple[str, ...], code: int, message: str) -> None:
    told = run(*words)
    assert (told.code, told.out) == (code, "")
    assert message in told.error
    assert len(told.error.splitlines()) == 1


def test_the_help_says_how_it_differs_from_bench(run: Run) -> None:
    told = run("--help")
    assert "fusion bench is the other kind of evaluation" in " ".join(told.out.split())
