"""SearchQA: what is shown of the search results, how answers are read and compared, and recording it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion import Agent, AgentPool, Spec, load_task
from fusion.data import Call, read_table, tabulate
from fusion.data._ids import numbered
from fusion.data._squad import exact_match, normalise_words, word_f1
from fusion.data._tabulate import RightReader
from fusion.data.searchqa import Searchqa
from fusion.errors import InputError, InvalidSpec, UnknownName
from fusion.recording import RecordOptions, record
from fusion.schema import Completion, Question

_TYPES = {
    "context": pa.string(),
    "question": pa.string(),
    "key": pa.string(),
    "answers": pa.list_(pa.string()),
    "labels": pa.list_(pa.struct([("end", pa.list_(pa.int64())), ("start", pa.list_(pa.int64()))])),
}
_CONTEXT = (
    "[DOC] [TLE] Red wine - Notes [PAR] Its vineyards lie \n south of the town. [PAR] More to come. "
    "[DOC] [TLE] Only a title [DOC] [PAR] Only a text ... [DOC] "
)
_LINES = [
    "- Red wine - Notes: Its vineyards lie south of the town. More to come.",
    "- Only a title",
    "- Only a text ...",
]


def row(key: str, answers: Sequence[str], *, context: str = _CONTEXT, question: str = "This country's wine") -> Any:
    return {"key": key, "context": context, "question": question, "answers": answers, "labels": []}


ROWS = [
    row("aa", ["john adams", "Adams, John"], question="He was \n the second"),
    row("bb", ["caf\u00e9 noir"], context="", question="Drunk black"),
    row("cc", ["Who's Afraid of Virginia Woolf?"], question="A play by Albee"),
]


def write(folder: Path, rows: Sequence[Any] = ROWS, *, split: str = "validation", drop: str = "") -> Path:
    """Write one split as the data set's folder."""
    path = folder / f"data/{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([pair for pair in _TYPES.items() if pair[0] != drop])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return folder


def asked(**answers: Any) -> Question:
    return Question(id="q", messages=(), reference="x", meta={"answers": ["x"], **answers})


# What is compared


def test_f1_by_hand() -> None:
    """ "The big Red Dog." is big, red, dog; "a red dog, red" is red, dog, red. They share red and dog.

    P = 2 / 3, R = 2 / 3, F1 = 2 / 3. With "red dog" alone P = 2 / 2, R = 2 / 3, F1 = 2 * (2 / 3) / (5 / 3) = 0.8.
    """
    assert word_f1("The big Red Dog.", ["a red dog, red"]) == pytest.approx(2 / 3, rel=1e-12)
    assert word_f1("red dog", ["The big Red Dog."]) == pytest.approx(0.8, rel=1e-12)
    assert word_f1("red dog", ["cat", "The big Red Dog.", "dog"]) == pytest.approx(0.8, rel=1e-12)
    assert word_f1("dog red", ["red dog"]) == 1
    assert exact_match("dog red", ["red dog"]) == 0
    assert exact_match("the red, dog!", ["cat", "Red Dog"]) == 1


@pytest.mark.parametrize(("answer", "accepted"), [("", ["x"]), ("x", []), (" \n", ["the", "?"]), ("zzz", ["x y"])])
def test_nothing_shared_scores_nothing(answer: str, accepted: list[str]) -> None:
    assert word_f1(answer, accepted) == 0
    assert exact_match(answer, accepted) == 0


def test_articles_and_punctuation_alone_are_told_apart() -> None:
    assert exact_match("vitamin A", ["vitamin the"]) == 1, "as in SQuAD"
    assert exact_match("A", ["the"]) == exact_match("A", ["!!!"]) == word_f1("the", ["A"]) == 0
    assert exact_match("A", ["a"]) == word_f1("!!!", ["!!!"]) == 1
    assert exact_match("CAF\u00c9 Noir", ["caf\u00e9 noir."]) == 1


@given(st.text(alphabet="ab the.,!\u00e9\n", max_size=12), st.text(alphabet="ab the.,!\u00e9\n", max_size=12))
def test_f1_is_symmetric_bounded_and_one_where_the_match_is_exact(one: str, other: str) -> None:
    found = word_f1(one, [other])
    assert found == word_f1(other, [one])
    assert 0 <= found <= 1
    assert found >= exact_match(one, [other])
    assert normalise_words(normalise_words(one)) == normalise_words(one)


# What is read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("John Adams", "John Adams"),
        ("  Answer: John Adams.\nHe was the second.", "John Adams"),
        ("Answer:\n\nJohn Adams", "John Adams"),
        ("**Final Answer:** John Adams", "John Adams"),
        ("The answer is **John Adams**.", "John Adams"),
        ("Who is John Adams?", "John Adams"),
        ("what's   Boston?\n", "Boston"),
        ("Who\u2019s **John Adams**?", "John Adams"),
        ("What were the Alps", "the Alps"),
        ("<think>Who is it? Adams?</think>\nJohn Adams", "John Adams"),
        ("John Adams\n\nClue: Another\nAnswer: Bob", "John Adams"),
        ("M*A*S*H", "M*A*S*H"),
        ("What?", "What?"),
        ("What is", "What is"),
        ("...", ".."),
        (".", "."),
        ("\u6771\u4eac.", "\u6771\u4eac"),
        ("", None),
        (" \n\t", None),
        ("<think>never ends", None),
    ],
)
def test_reading(text: str, read: str | None) -> None:
    assert Searchqa().parse(text, asked()) == read


def test_every_accepted_answer_counts() -> None:
    question = asked(answers=["john adams", "President Adams"])
    assert Searchqa().metrics("Who is President Adams?", question) == {"em": 1.0, "f1": 1.0}
    assert Searchqa().metrics("Adams", question) == {"em": 0.0, "f1": pytest.approx(2 / 3)}
    assert Searchqa(metric="em").score("Adams", question) == 0
    assert Searchqa().score("Adams", question) == pytest.approx(2 / 3)
    assert Searchqa().metrics("", question) == {"em": 0.0, "f1": 0.0}
    assert not Searchqa().right("Adams", question)
    assert Searchqa().right("Answer: The John Adams.", question)


# What is shown


def test_the_prompt(tmp_path: Path) -> None:
    questions = Searchqa().load("validation", root=write(tmp_path))
    assert [question.id for question in questions] == [f"searchqa/validation/{key}" for key in ("aa", "bb", "cc")]
    first, second, third = questions
    assert first.messages[0].content == (
        "Answer the clue with a name or a short phrase and nothing else.\n\nSearch results:\n"
        + "\n".join(_LINES)
        + "\n\nClue: He was the second\nAnswer:"
    )
    assert first.text == "He was the second"
    assert first.reference == "john adams"
    assert first.meta == {"answers": ["john adams", "Adams, John"], "snippets": 3, "snippets_shown": 3}
    assert second.messages[0].content == (
        "Answer the clue with a name or a short phrase and nothing else.\n\nClue: Drunk black\nAnswer:"
    )
    assert second.meta["snippets"] == second.meta["snippets_shown"] == 0
    assert Searchqa().score(third.reference, third) == 1


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_whole_snippets_as_fit(tmp_path: Path, count: int, spare: int) -> None:
    """The line feeds between snippets count, those around them do not."""
    block = "\n".join(_LINES[:count])
    root = write(tmp_path)
    fits = Searchqa(context_chars=len(block) + spare).load("validation", root=root)[0]
    assert f"Search results:\n{block}\n\nClue" in fits.messages[0].content
    assert (fits.meta["snippets_shown"], fits.meta["snippets"]) == (count, 3)
    short = Searchqa(context_chars=len(block) - 1).load("validation", root=root)[0]
    assert short.meta["snippets_shown"] == count - 1


def test_no_context(tmp_path: Path) -> None:
    question = load_task("searchqa(context_chars=0)").load("validation", root=write(tmp_path))[0]
    assert "Search" not in question.messages[0].content
    assert (question.meta["snippets_shown"], question.meta["snippets"]) == (0, 3)
    with pytest.raises(InvalidSpec, match="greater than or equal to 0"):
        load_task("searchqa(context_chars=-1)")


def test_context_without_marks_is_one_snippet(tmp_path: Path) -> None:
    question = Searchqa().load("validation", root=write(tmp_path, [row("a", ["b"], context=" Just \n a text ")]))[0]
    assert "Search results:\n- Just a text\n\n" in question.messages[0].content


def test_no_prompt_depends_on_the_right_answer(tmp_path: Path) -> None:
    right = Searchqa().load("validation", root=write(tmp_path / "right"))
    others = [entry | {"answers": ["someone else"]} for entry in ROWS]
    wrong = Searchqa().load("validation", root=write(tmp_path / "wrong", others))
    assert [question.messages for question in right] == [question.messages for question in wrong]
    assert all(a.reference != b.reference for a, b in zip(right, wrong, strict=True))


# Where it is read from


@pytest.mark.parametrize(
    "place",
    ["lucadiliello/searchqa", "searchqa", f"datasets--lucadiliello--searchqa/snapshots/{Searchqa.revision}"],
)
def test_folder_and_cache(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    write(tmp_path / place, [row("aa", ["x"])], split="train")
    assert len(Searchqa().load("validation", root=tmp_path)) == 3
    assert [question.id for question in Searchqa().load("train", root=tmp_path)] == ["searchqa/train/aa"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="validation"):
        Searchqa().load("test", root=tmp_path)
    with pytest.raises(InputError, match=f"found no complete data/train-.*{Searchqa.revision}"):
        Searchqa().load("train", root=write(tmp_path))
    with pytest.raises(InputError, match="lacks answers and has context, question, key, labels"):
        Searchqa().load("validation", root=write(tmp_path, drop="answers"))
    with pytest.raises(InputError, match="answers of searchqa/validation/dd must hold at least one text"):
        Searchqa().load("validation", root=write(tmp_path, [row("dd", [" "])]))


def test_a_key_that_repeats_gets_a_number(tmp_path: Path) -> None:
    rows = [row(key, ["x"]) for key in ("a", "b", "a", "a/2", "a")]
    ids = [question.id.split("/", 2)[2] for question in Searchqa().load("validation", root=write(tmp_path, rows))]
    assert ids == [*numbered(["a", "b", "a", "a/2", "a"])] == ["a", "b", "a/2", "a/2/2", "a/3"]


# Recording it


def agent(name: str, *replies: str) -> Agent:
    return Agent(name=name, engine=Spec("echo", {"replies": list(replies)}), mode="generate")


@pytest.mark.parametrize("metric", ["f1", "em"])
def test_recording(tmp_path: Path, metric: str) -> None:
    """Half of the name has an F1 of 2 / 3 and is wrong; both spellings of the right one are one option."""
    write(tmp_path / "lucadiliello/searchqa", ROWS[:1])
    pool = AgentPool(
        (
            agent("first", "Answer: John Adams."),
            agent("second", "Who is Adams, John?"),
            agent("half", "Adams\nof Boston"),
            agent("wrong", "Thomas Paine"),
            agent("backwards", "adams john"),
            agent("echo"),
        )
    )
    result = record(pool, f"searchqa(metric={metric})", tmp_path / "out", options=RecordOptions(root=tmp_path))
    table = read_table(tmp_path / "out" / "table.parquet")
    assert table.fingerprint == result.table.fingerprint
    assert table.provenance["split"] == "validation"
    assert table.provenance["extractor"] == "searchqa/first_line@1"
    assert table.question_ids.tolist() == ["searchqa/validation/aa"]
    assert table.references is not None
    assert table.references.tolist() == ["john adams"]
    assert table.texts is not None
    assert table.texts[0, :2].tolist() == ["Answer: John Adams.", "Who is Adams, John?"]
    # "adams john" equals "Adams, John" without punctuation.
    assert table.correct.tolist() == [[True, True, False, False, True, False]]
    assert table.answers[0, 0] == table.answers[0, 1] == table.answers[0, 4]
    assert table.options is not None
    assert table.options[0][:3] == ("John Adams", "Adams", "Thomas Paine")
    if metric == "em":
        assert table.scores is None, "right or wrong says it all"
    else:
        assert table.scores is not None
        assert table.scores[0, :5].tolist() == pytest.approx([1, 1, 2 / 3, 0, 1], abs=1e-6)


def test_a_score_of_one_that_is_not_right_is_kept() -> None:
    """All words in another order: F1 is 1, the match is not exact, and only the scores can say so."""
    question = asked(answers=["red dog"])
    calls = [Call(0, m, 0, Completion(status="ok", text=text)) for m, text in enumerate(["red dog", "dog red"])]
    table = tabulate([question], ["a", "b"], calls, reader=Searchqa())
    assert table.correct.tolist() == [[True, False]]
    assert table.scores is not None
    assert table.scores.tolist() == [[1, 1]]


def test_tasks_without_a_rule_of_their_own_are_right_above_a_half() -> None:
    class Graded:
        def parse(self, text: str, question: Question) -> str | None:
            return text

        def score(self, text: str, question: Question) -> float:
            return float(text)

    class Strict(Graded):
        def right(self, text: str, question: Question) -> bool:
            return text == "0.7"

    assert isinstance(Strict(), RightReader)
    assert not isinstance(Graded(), RightReader)
    assert isinstance(Searchqa(), RightReader)
    assert not isinstance(load_task("gsm8k"), RightReader)
    texts = ["0.5", "0.7", "0.9"]
    calls = [Call(0, m, 0, Completion(status="ok", text=text)) for m, text in enumerate(texts)]
    for reader, right in ((Graded(), [False, True, True]), (Strict(), [False, True, False])):
        table = tabulate([asked()], ["a", "b", "c"], calls, reader=reader)
        assert table.correct.tolist() == [right]
        assert table.scores is not None
        assert table.scores[0].tolist() == pytest.approx([0.5, 0.7, 0.9])
