"""What was read oddly is said beside the figures that it changes, and never changes them in silence."""

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from fusion.cli import main
from fusion.data import PredictionTable, from_pandas, read_table, table_notes
from fusion.demo import simulated_table
from fusion.ensemble import Ensemble
from fusion.errors import InvalidTable, TableMismatch
from fusion.evaluation import BenchOptions, bench, compare

FEW = BenchOptions(repeats=200)


def letters(rows: int = 40) -> pandas.DataFrame:
    """A wide table of two agents: a is always right, b always says A."""
    answer = ["A", "B", "C", "D"] * (rows // 4)
    return pandas.DataFrame(
        {"question_id": [f"q{n}" for n in range(rows)], "answer": answer, "a": answer, "b": ["A"] * rows}
    )


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_cells_that_could_not_be_read_are_told_by_bench() -> None:
    frame = letters()
    frame.loc[::4, "a"] = "The answer is A"
    result = bench(from_pandas(frame), "all_agents+vote", options=FEW)
    told = "10 answers of a are not a letter and count as none, such as 'The answer is A'"
    assert told in result.notes
    both = bench(from_pandas(frame), "all_agents+vote", test=_renamed(from_pandas(frame)), options=FEW)
    assert {told, f"in the table to evaluate on: {told}"} <= set(both.notes)


def _renamed(table: PredictionTable) -> PredictionTable:
    return PredictionTable(
        question_ids=[f"other/{name}" for name in table.question_ids.tolist()],
        agents=table.agents,
        answers=table.answers,
        labels=table.labels,
        provenance=table.provenance,
    )


def test_answers_read_as_text_and_keys_beyond_the_options_are_told() -> None:
    frame = letters(4)
    frame["answer"] = ["one", "two", "three", "four"]
    assert table_notes(from_pandas(frame)) == (
        "answers are read as text: the options of a question are the distinct answers to it",
        "the right answer is not among the options of 4 questions; they are wrong for everybody who chooses among the "
        "answers given",
    )
    assert table_notes(from_pandas(letters())) == ()


def test_of_closed_questions_without_a_right_option_nobody_can_be_right() -> None:
    table = PredictionTable(question_ids=["q", "r"], agents=["a"], answers=[[0], [1]], labels=[-1, 1])
    assert table_notes(table) == (
        "the right answer is not among the options of 1 questions; they are wrong for everybody",
    )


def test_one_slip_in_the_key_does_not_turn_letters_into_text(tmp_path: Path) -> None:
    frame = letters()
    frame.loc[7, "answer"] = "see above"
    with pytest.raises(
        InvalidTable, match=r"39 of 40 right answers are letters, but that of question 'q7' is 'see above'"
    ):
        from_pandas(frame)
    frame.to_csv(tmp_path / "slip.csv", index=False)
    out = tmp_path / "table.parquet"
    assert run("import", "wide", str(tmp_path / "slip.csv"), "--cells", "text", "--out", str(out)) == 0
    assert read_table(out).references is not None


def test_the_default_systems_shrink_to_the_pool() -> None:
    table = simulated_table(300).columns(["sim-oak-32b", "sim-elm-13b"])
    result = bench(table, options=FEW)
    names = [system.name for system in result.systems if system.role == "system"]
    assert names == ["all_agents+weighted_vote", "all_agents+vote"]
    assert "top_k(k=3)+weighted_vote is left out: the pool has 2 agents" in result.notes


def test_bench_and_compare_take_files(tmp_path: Path) -> None:
    letters().to_csv(tmp_path / "answers.csv", index=False)
    result = bench(tmp_path / "answers.csv", "all_agents+vote", options=FEW)
    result.save(tmp_path / "run.json")
    again = compare(tmp_path / "run.json", result, system_b="single_best+vote", options=FEW)
    assert again.n == result.n == 12


def test_runs_of_other_questions_with_the_same_ids_are_not_compared() -> None:
    """Data sets that number their questions from 0 share ids; the right answers give them away."""
    frame = letters()
    other = frame.assign(answer=["D", "C", "B", "A"] * 10)
    one, two = (bench(from_pandas(given), "all_agents+vote", options=FEW) for given in (frame, other))
    with pytest.raises(TableMismatch, match="share 12 question ids, but the right answers differ on 12"):
        compare(one, two)


def test_log_odds_do_not_vote_against_fair_agents_on_open_answers() -> None:
    """Three agents, each right on 40 % of 100 open questions, err in different ways; two against one must win.

    Two distinct answers to a question are no choice of two: with K = 2 every agent below 50 % would vote against
    itself, and the lone agent c would beat a and b.
    """
    rng = np.random.default_rng(0)
    rows = 100
    frame = pandas.DataFrame({"question_id": [f"q{n}" for n in range(rows)], "answer": ["right"] * rows})
    for name in "abc":
        is_right = rng.permutation(np.arange(rows) < 40)
        frame[name] = np.where(is_right, "right", [f"wrong {name} {n}" for n in rng.integers(0, 30, rows)])
    ensemble = Ensemble(["a", "b", "c"], "all_agents", "weighted_vote(weights=log_odds)").fit(from_pandas(frame))
    new = from_pandas(pandas.DataFrame({"question_id": ["new"], "a": ["Rome"], "b": ["Rome"], "c": ["Milan"]}))
    decision = ensemble.replay(new).decision
    assert new.options is not None
    assert new.options[0][decision.answers[0]] == "Rome"
    assert decision.probs is not None
    assert decision.probs[0, decision.answers[0]] > 0.9


@pytest.mark.parametrize("name", ["answers.csv", "table.csv", "table.json"])
def test_a_table_is_not_written_over_its_source_or_under_a_wrong_name(tmp_path: Path, name: str) -> None:
    letters().to_csv(tmp_path / "answers.csv", index=False)
    before = (tmp_path / "answers.csv").read_bytes()
    assert run("import", "wide", str(tmp_path / "answers.csv"), "--out", str(tmp_path / name)) == 2
    assert (tmp_path / "answers.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv"]


def test_a_system_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench(from_pandas(letters()), "all_agents+vote", options=FEW).save(tmp_path / "run.json")
    assert run("compare", str(tmp_path / "run.json"), str(tmp_path / "run.json")) == 2
    assert "name two systems of it with --system-a" in capsys.readouterr().err


def test_a_broken_plug_in_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fusion.selectors]\nbroken_one = no_such_package.nothere:X\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert run("list", "selectors") == 0
    told = capsys.readouterr().out
    assert "broken_one" in told
    assert "cannot be used" in told
    assert "single_best" in told
