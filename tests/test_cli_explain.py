"""fusion fit and fusion explain: what they print and write, and what they refuse."""

import json
import os
import re
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Run, Told

from fusion.data import read_table, write_table
from fusion.ensemble import Ensemble
from fusion.explanation import explain

PAGE = Path(__file__).parents[1] / "docs" / "explain-json.md"


def write(name: str, content: str) -> None:
    Path(name).write_text(content, encoding="utf-8")


@pytest.fixture
def folder(bare: Path) -> Path:
    """A working folder with tables, good and broken, and no settings from outside."""
    # m1 is right on two of three questions, m2 and m3 on half.
    rows = [f"q{n},{'abc'[n % 3]},A,{'BAA'[n % 3]},{'AB'[n % 2]},{'AABB'[n % 4]}" for n in range(60)]
    head = "question_id,category,answer,m1,m2,m3"
    write("t.csv", "\n".join([head, *rows, ""]))
    write("new.csv", "question_id,category,m1,m2,m3\nn1,a,B,A,A\nn2,new,B,,A\nn3,b,,,\n")
    write("open.csv", "question_id,answer,m1,m2,m3\nq1,Paris,Paris,paris,Rome\nq2,12,12,7,12\n")
    write("unlabelled.csv", "question_id,m1,m2,m3\nq1,A,B,C\nq2,A,B,C\n")
    write("other.csv", "question_id,answer,m1,m2,x\nr1,A,A,A,A\n")
    write("header.csv", "question_id,answer,m1\n")
    write("misspelt.txt", "no table")
    return bare


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in this process."""

    def told(*words: str) -> Told:
        return command_line.run(capsys, words)

    return told


@pytest.fixture
def fitted(run: Run) -> str:
    """An ensemble fitted on t.csv, in the folder e."""
    told = run("fit", "t.csv", "--out", "e", "--system", "all_agents+weighted_vote(weights=accuracy)")
    assert (told.code, told.error) == (0, "")
    return "e"


def found(run: Run, *words: str) -> dict[str, Any]:
    told = run(*words, "--json", "-")
    assert (told.code, told.error) == (0, ""), told.error
    value: dict[str, Any] = json.loads(told.out)
    return value


def refused(told: Told, code: int, message: str) -> None:
    error = re.sub(r"[\s\u2500-\u257f]+", " ", told.error)
    assert told.code == code, error
    assert told.out == ""
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert "unexpected" not in error


class TestFit:
    def test_says_what_it_did(self, run: Run, folder: Path) -> None:
        """40 of 60 are right: m1 is on two of three questions; the other two together on too few more to matter."""
        told = run("fit", "t.csv", "--out", "e", "--system", "single_best+vote")
        assert told == Told(
            0,
            "fitted single_best+vote on 60 questions and 3 agents; it answers 66.7 % of these right, which is "
            "optimistic: they are what it learned from (fusion bench measures on others)\nwrote e\n",
            "",
        )
        assert sorted(os.listdir("e")) == ["ensemble.json", "fit.json", "state.npz"]

    def test_the_ensemble_is_the_one_fitted(self, run: Run, fitted: str) -> None:
        table = read_table("t.csv")
        expected = Ensemble(table.agents, "all_agents", "weighted_vote(weights=accuracy)").fit(table)
        answers_N = Ensemble.load(fitted).replay(table).decision.answers
        assert answers_N.tolist() == expected.replay(table).decision.answers.tolist()

    def test_json(self, run: Run, folder: Path) -> None:
        value = found(run, "fit", "t.csv", "--out", "e", "--system", "vote")
        assert value == json.loads(Path("e/fit.json").read_text())
        assert (value["format"], value["system"], value["n"]) == ("fusion.fit/1", "all_agents+vote", 60)
        assert value["table"] == str((folder / "t.csv").resolve())
        assert value["fingerprint"] == read_table("t.csv").fingerprint
        assert value["run"]["command"] == {"fit": "all_agents+vote", "table": "t.csv"}
        assert value["run"]["tables"] == {"fit": value["fingerprint"]}
        section = PAGE.read_text(encoding="utf-8").partition("## `fusion fit")[2]
        assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M)) == set(value)

    @pytest.mark.parametrize(
        ("named", "system"),
        [("marl_focal", "marl_focal+marl_aggregator"), ("cascade(calls=2)", "cascade(calls=2.0)+topla_weighted")],
    )
    def test_a_selector_alone_gets_a_fuser(self, run: Run, named: str, system: str) -> None:
        value = found(run, "fit", named, "t.csv", "--out", "e")
        assert value["system"] == system

    def test_json_file(self, run: Run, folder: Path) -> None:
        told = run("fit", "t.csv", "--out", "e", "--system", "vote", "--json", "new/fit.json")
        assert told.code == 0
        assert Path("new/fit.json").read_text() == Path("e/fit.json").read_text()

    def test_parameters(self, run: Run, folder: Path) -> None:
        sets = ("--set", "selector.k=1", "--set", "fuser.weights=log_odds")
        value = found(run, "fit", "t.csv", "--out", "e", "--system", "top_k(k=2)+weighted_vote", *sets)
        assert value["system"] == "top_k(k=1)+weighted_vote(weights=log_odds)"

    def test_the_default(self, run: Run, folder: Path) -> None:
        assert found(run, "fit", "t.csv", "--out", "e")["system"] == "all_agents+topla_weighted"

    def test_notes_on_the_table(self, run: Run, folder: Path) -> None:
        told = run("fit", "open.csv", "--out", "e", "--system", "vote")
        assert "note: answers are read as text" in told.out

    def test_the_system_before_the_table(self, run: Run) -> None:
        assert found(run, "fit", "vote", "t.csv", "--out", "e")["system"] == "all_agents+vote"
        assert found(run, "fit", "single_best+vote", "t.csv", "--out", "e")["system"] == "single_best+vote"

    def test_training_that_was_begun_is_gone_on_with(self, run: Run) -> None:
        """A folder with nothing but training in it is accepted, one with anything else is not."""
        Path("e/fuser").mkdir(parents=True)
        write("e/fuser/training.json", '{"format": "fusion.training/1", "mark": "m"}')
        write("e/mine.txt", "")
        refused(run("fit", "vote", "t.csv", "--out", "e"), 1, "it is there, and is not the folder of an ensemble")
        Path("e/mine.txt").unlink()
        assert run("fit", "vote", "t.csv", "--out", "e").code == 0
        Path("f/fuser").mkdir(parents=True)
        refused(run("fit", "vote", "t.csv", "--out", "f"), 1, "it is there, and is not the folder of an ensemble")

    def test_a_model_is_trained(self, run: Run) -> None:
        """What the fuser has to say of training stands below the table's notes, and in the JSON."""
        from tiny_models import TinyModels
        from trust_world import WORDS, trust_world

        write_table(trust_world(20, 1).table, "w.parquet")
        TinyModels(Path()).led(words=WORDS, context=64, name="led")
        words = ("fit", "topla_summary", "w.parquet", "--model", "led", "--out", "e")
        sets = ("--set", "fuser.max_tokens=3", "--set", "fuser.epochs=1", "--set", "fuser.question_tokens=2")
        value = found(run, *words, *sets)
        assert value["system"] == "all_agents+topla_summary(model=led, question_tokens=2, max_tokens=3, epochs=1.0)"
        assert value["accuracy"] is None
        assert value["notes"][0] == "topla_summary: 3 updates, 1 epochs"
        assert value["notes"][-1].endswith("0 of 60 candidates and 20 of 20 questions were cut (40 tokens left out)")
        assert sorted(os.listdir("e/fuser")) == ["model", "trained.json", "training.json"]
        told = run(*words, *sets)
        assert (told.code, told.error) == (0, "")
        assert all(f"note: {note}" in told.out for note in value["notes"])
        assert "how it does on others, fusion bench measures" in told.out
        Path("led/model.safetensors").unlink()
        assert len(Ensemble.load("e").replay(read_table("w.parquet")).decision.answers) == 20

    def test_an_ensemble_is_replaced(self, run: Run, fitted: str) -> None:
        assert found(run, "fit", "t.csv", "--out", fitted, "--system", "vote")["system"] == "all_agents+vote"
        assert str(Ensemble.load(fitted).system) == "all_agents+vote"


class TestExplain:
    def test_printed(self, run: Run, fitted: str) -> None:
        """q0: m1 says B with 41/62, m2 and m3 say A with 31/62 each: 62 of 103. Without one of them it is B."""
        told = run("explain", fitted, "q0")
        assert (told.code, told.error) == (0, "")
        assert told.out.startswith("question q0, category a\nright answer: A\n")
        rows = [line.split() for line in told.out.splitlines() if line.startswith(" m")]
        assert sorted(rows) == [
            ["m1", "yes", "yes", "B", "0.661", "the", "same"],
            ["m2", "yes", "yes", "A", "0.500", "B"],
            ["m3", "yes", "yes", "A", "0.500", "B"],
        ]
        assert [row[0] for row in rows][-1] == "m1"
        assert re.search(r"^ A +2 +1\.000 +60\.2 *$", told.out, flags=re.M)
        assert "answer: A (right), share 60.2 %, runner-up B, 20.4 points of probability behind\n" in told.out
        assert "why: followed 2 of 3 agents against 1 for B; without m2 or m3 it would answer B.\n" in told.out
        assert told.out.endswith(
            "note: the ensemble was fitted on this question too; what it makes of new ones, fusion bench measures\n"
        )

    def test_json_is_the_explanation(self, run: Run, fitted: str, folder: Path) -> None:
        value = found(run, "explain", fitted, "q0")
        notes = value.pop("notes")
        expected = explain(Ensemble.load(fitted), read_table("t.csv"), "q0").to_json()
        assert expected.pop("notes") == []
        assert value == expected
        assert len(notes) == 1

    def test_json_file(self, run: Run, fitted: str, folder: Path) -> None:
        told = run("explain", fitted, "q0", "--json", "why.json")
        assert told.out.endswith("wrote why.json\n")
        assert json.loads(Path("why.json").read_text())["answer"] == "A"

    def test_another_table(self, run: Run, fitted: str) -> None:
        """Unlabelled: nothing about what is right; a new question, so no note."""
        told = run("explain", fitted, "n1", "--table", "new.csv")
        assert told.code == 0
        assert "right answer" not in told.out
        assert "note:" not in told.out
        assert "answer: A, share 60.2 %" in told.out

    def test_no_answer(self, run: Run, fitted: str) -> None:
        told = run("explain", fitted, "n3", "--table", "new.csv")
        assert told.code == 0
        assert "answer: none\nwhy: no answer, as none of 3 agents gave one.\n" in told.out

    def test_a_tie(self, run: Run, folder: Path) -> None:
        run("fit", "t.csv", "--out", "v", "--system", "vote")
        told = run("explain", "v", "n2", "--table", "new.csv")
        assert "why: a tie of A (1 vote) and B (1 vote), settled by the most accurate agent; without m1" in told.out

    def test_open_answers(self, run: Run, folder: Path) -> None:
        run("fit", "open.csv", "--out", "o", "--system", "vote")
        told = run("explain", "o", "q1")
        assert "right answer: Paris\n" in told.out
        assert re.search(r"^ m2 +yes +yes +Paris ", told.out, flags=re.M)
        assert "answer: Paris (right)" in told.out

    def test_who_is_not_asked(self, run: Run, folder: Path) -> None:
        run("fit", "t.csv", "--out", "s", "--system", "single_best+vote")
        told = run("explain", "s", "q0")
        assert re.search(r"^ m1 +yes +yes +B +1\.000 +no answer *$", told.out, flags=re.M)
        assert re.search(r"^ m2 +no +no +A +1\.000 +the same *$", told.out, flags=re.M)
        assert "why: followed m1, the only agent that is listened to." in told.out

    def test_a_fuser_without_weights_shows_none(self, run: Run, folder: Path) -> None:
        run("fit", "t.csv", "--out", "s", "--system", "stacker")
        told = run("explain", "s", "q0")
        assert told.code == 0
        assert "weight" not in told.out

    def test_an_ensemble_saved_from_python(self, run: Run, folder: Path) -> None:
        Ensemble(["m1", "m2", "m3"], "all_agents", "vote").save("p")
        refused(run("explain", "p", "q0"), 1, r"no fit\.json in p, .* is not known; give one with --table FILE")
        assert run("explain", "p", "q0", "--table", "t.csv").code == 0


FIT_ERRORS: list[tuple[str, int, str]] = [
    ("unlabelled.csv --out e", 1, "needs a labelled table, and the table has no labels"),
    ("none.csv --out e", 1, "no file none.csv"),
    ("header.csv --out e", 1, "table is empty|no questions"),
    ("t.csv", 2, "Missing option '--out'"),
    ("t.csv --out .", 1, "cannot write an ensemble to .: it is there, and is not the folder of an ensemble"),
    ("t.csv --out other.csv", 1, "cannot write an ensemble to other.csv: it is there"),
    ("t.csv --out t.csv/e", 1, "cannot write t.csv/e/ensemble.json: Not a directory"),
    ("t.csv --out e --json .", 1, "cannot write .: it is a folder"),
    ("vote t.csv new.csv --out e", 2, "expected TABLE or SYSTEM TABLE .*, got vote t.csv new.csv"),
    ("vote t.csv --out e --system vote", 2, "expected TABLE or SYSTEM TABLE"),
    ("t.csv --out e --system voet", 2, r"unknown fuser 'voet'; did you mean 'vote'\?"),
    ("t.csv --out e --system vote,vote", 2, "expected one system, selector.fuser, got 2"),
    ("t.csv --out e --system top_k+vote", 2, "needs k"),
    ("t.csv --out e --set seed=1", 2, "--set takes selector.PARAMETER=VALUE or fuser.PARAMETER=VALUE, got seed"),
    ("t.csv --out e --set fuser.poling=none", 2, "poling.*did you mean 'pooling'"),
    ("t.csv --out e --set fuser.pooling", 2, "expected KEY=VALUE"),
    ("t.csv --out e --set fuser.pooling={a:b}", 2, "a parameter must be a number, word or list"),
    ("t.csv --out e --system mean_probability", 1, "needs a table with the agents' probabilities"),
]


@pytest.mark.parametrize(("line", "code", "message"), FIT_ERRORS, ids=lambda item: str(item)[:60])
def test_fit_refuses(run: Run, folder: Path, line: str, code: int, message: str) -> None:
    before = set(folder.rglob("*"))
    refused(run("fit", *line.split()), code, message)
    assert set(folder.rglob("*")) == before


EXPLAIN_ERRORS: list[tuple[str, int, str]] = [
    ("e q-1", 2, r"unknown question id 'q-1'; did you mean 'q1'"),
    ("e n1", 2, "unknown question id 'n1'"),
    ("e q0 --table other.csv", 2, "unknown agent 'm3'"),
    ("e q0 --table none.csv", 1, "no file none.csv"),
    ("none q0", 1, "no ensemble in none: No such file or directory"),
    ("t.csv q0", 1, "no ensemble in t.csv: Not a directory"),
    ("e", 2, "Missing argument 'question_id'"),
    ("e q0 --json .", 1, "cannot write .: it is a folder"),
]


@pytest.mark.parametrize(("line", "code", "message"), EXPLAIN_ERRORS, ids=lambda item: str(item)[:60])
def test_explain_refuses(run: Run, fitted: str, line: str, code: int, message: str) -> None:
    refused(run("explain", *line.split()), code, message)


def test_the_table_is_gone(run: Run, fitted: str, folder: Path) -> None:
    Path("t.csv").rename("moved.csv")
    refused(run("explain", fitted, "q0"), 1, r"e was fitted on, \S+t\.csv, is no longer there; .* --table FILE")
    told = run("explain", fitted, "q0", "--table", "moved.csv")
    assert told.code == 0
    assert "note: the ensemble was fitted on this question too" in told.out


def test_the_table_was_changed(run: Run, fitted: str, folder: Path) -> None:
    write("t.csv", Path("t.csv").read_text().replace("q7,b,A,A", "q7,b,A,C"))
    refused(run("explain", fitted, "q0"), 1, r"t\.csv is not what e was fitted on any more: its fingerprint is")
    told = run("explain", fitted, "q0", "--table", "t.csv")
    assert told.code == 0
    assert "note:" not in told.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a note of the format fusion.fit/1"),
        ('{"format": "fusion.fit/1", "table": 3, "fingerprint": "x"}', "is not a note of the format"),
    ],
)
def test_a_damaged_note(run: Run, fitted: str, content: str, message: str) -> None:
    write("e/fit.json", content)
    refused(run("explain", fitted, "q0"), 1, message)


def test_a_damaged_ensemble(run: Run, fitted: str) -> None:
    write("e/state.npz", "x")
    refused(run("explain", fitted, "q0"), 1, "was changed after it was saved")
    assert run("fit", "t.csv", "--out", fitted, "--system", "vote").code == 0
    assert run("explain", fitted, "q0").code == 0


def test_recorded_answers(run: Run, folder: Path, recorded_data: Path) -> None:
    """24 models on 8386 questions, fitted and explained in seconds."""
    table = str(recorded_data / "mmlu_pro" / "predictions.csv.gz")
    assert run("fit", table, "--out", "e").code == 0
    value = found(run, "explain", "e", "11473")
    assert len(value["agents"]) == 24
    assert value["stated"]
    assert value["answer"] in {option["name"] for option in value["options"] if option["votes"]}
    told = run("explain", "e", "11473")
    assert f"why: {value['decided']}." in told.out
