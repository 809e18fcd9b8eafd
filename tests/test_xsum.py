"""XSum: what is shown of an article, how summaries are read and scored, and recording it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion import Agent, AgentPool, Spec, load_task
from fusion.data import read_table
from fusion.data import xsum as module
from fusion.data.xsum import Xsum
from fusion.errors import InputError, InvalidSpec, MissingDependency, UnknownName
from fusion.recording import RecordOptions, record
from fusion.schema import Question

ARTICLE = 'One is here. "Two is there." Three\nFour is long.\n\nFive ends it'


def row(key: str, summary: str, document: str = ARTICLE) -> Any:
    return {"document": document, "summary": summary, "id": key}


ROWS = [
    row("11", "The cat sat on the mat."),
    row("12", "Caf\u00e9s in Z\u00fcrich\n have closed", "Caf\u00e9s! \u6771\u4eac\u3002"),
    row("13", "Nothing is known", ""),
]


def write(folder: Path, rows: Sequence[Any] = ROWS, *, split: str = "test", part: int = 0, drop: str = "") -> Path:
    """Write one file of a split as the data set's converted branch has it."""
    path = folder / f"default/{split}/{part:04}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.string()) for name in ("document", "summary", "id") if name != drop])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return folder


def asked(reference: str) -> Question:
    return Question(id="q", messages=(), reference=reference)


# What is compared


def test_rouge_by_hand() -> None:
    """Reference: the cat sat on the mat. Answer: on a mat the cat lay.

    Words shared: on, mat, the, cat, 4 of 6 and of 6: F = 2 / 3. Pairs shared: "the cat", 1 of 5 and of 5: F = 1 / 5.
    Longest common subsequence: "on mat" or "the cat", with nothing longer in that order: 2 of 6 and of 6, F = 1 / 3.
    """
    found = Xsum().metrics("On a mat the cat lay.", asked("The cat sat on the mat."))
    assert found == {"rouge1": pytest.approx(2 / 3), "rouge2": pytest.approx(1 / 5), "rougeL": pytest.approx(1 / 3)}
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert (
            load_task(f"xsum(metric={kind})").score("On a mat the cat lay.", asked("The cat sat on the mat."))
            == (found[kind])
        )


def test_words_are_stemmed() -> None:
    """closed and closing, bridges and bridge have one stem: 3 of 3 words."""
    assert Xsum(metric="rouge1").score("closing bridge roads", asked("roads bridges closed")) == 1


@pytest.mark.parametrize("text", ["", " \n", "zzz qqq", "<think>the cat sat on", "\u6771\u4eac"])
def test_texts_that_share_nothing(text: str) -> None:
    assert Xsum().metrics(text, asked("The cat sat on the mat.")) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert not Xsum().right(text, asked("The cat sat on the mat."))


def test_only_the_reference_is_right() -> None:
    question = asked("The cat sat on the mat.")
    assert Xsum().right("Summary: the cat  sat on the mat", question)
    assert not Xsum().right("The cat sat on a mat.", question)
    assert not Xsum().right("On the mat the cat sat.", question)


@given(st.text(alphabet="abc de.\u00e9\n:", max_size=30))
def test_scores_are_bounded_and_a_longer_ngram_never_scores_more(text: str) -> None:
    found = Xsum().metrics(text, asked("a b c d e"))
    assert all(0 <= value <= 1 for value in found.values())
    assert found["rougeL"] <= found["rouge1"] + 1e-12


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module._scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingDependency, match=r"pip install 'fusion\[metrics\]'"):
        Xsum().score("text", Xsum().samples()[0])
    assert not Xsum().right("text", Xsum().samples()[0])
    module._scorer.cache_clear()


# What is read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" The cat\n sat.\n \nThe dog ran.", "The cat sat."),
        ("Summary: The cat sat.", "The cat sat."),
        ("**Summary:** The cat sat.", "The cat sat."),
        ("Summary:\nThe cat sat.", "The cat sat."),
        ("Here is a summary:\n\nSummary: The cat sat.", "The cat sat."),
        ("Sure!\n\nThe cat sat.", "Sure!"),
        ("The cat: it sat.\nIt ran.", "The cat: it sat. It ran."),
        ("The cat sat:", "The cat sat:"),
        ("Summary:", "Summary:"),
        ("<think>Hm:\n</think>The cat sat.", "The cat sat."),
        ("\u6771\u4eac", "\u6771\u4eac"),
        (" \n ", None),
        ("", None),
    ],
)
def test_reading(text: str, read: str | None) -> None:
    assert Xsum().parse(text, asked("x")) == read


# What is shown


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (1000, ARTICLE),
        (len(ARTICLE), ARTICLE),
        (len(ARTICLE) - 1, ARTICLE.removesuffix("\n\nFive ends it")),
        (50, 'One is here. "Two is there." Three\nFour is long.'),
        (48, 'One is here. "Two is there." Three\nFour is long.'),
        (47, 'One is here. "Two is there." Three'),
        (34, 'One is here. "Two is there." Three'),
        (33, 'One is here. "Two is there."'),
        (28, 'One is here. "Two is there."'),
        (27, "One is here."),
        (12, "One is here."),
        (11, "One is"),
        (3, "One"),
        (2, "On"),
    ],
)
def test_articles_are_cut_at_the_end_of_a_sentence_or_paragraph(tmp_path: Path, limit: int, shown: str) -> None:
    """Where not even the first sentence fits, after a word; where not even that fits, inside it."""
    question = Xsum(document_chars=limit).load("test", root=write(tmp_path))[0]
    request = "Summarise the article in one sentence.\nSummary:"
    assert question.messages[0].content == f"Article:\n{shown}\n\n{request}"
    assert question.text == shown
    assert question.meta == {"characters": len(ARTICLE), "characters_shown": len(shown)}


@given(st.text(alphabet="ab. \n\"'\u201d\u6771", max_size=40), st.integers(1, 45))
def test_a_cut_article_is_a_beginning_within_the_limit(article: str, limit: int) -> None:
    article = article.strip()
    shown = module._cut(article, limit)
    assert article.startswith(shown)
    assert len(shown) <= limit
    assert shown or not article
    assert shown == shown.rstrip()
    assert (shown == article) == (len(article) <= limit)


def test_no_prompt_depends_on_the_summary(tmp_path: Path) -> None:
    right = Xsum().load("test", root=write(tmp_path / "right"))
    wrong = Xsum().load("test", root=write(tmp_path / "wrong", [entry | {"summary": "Other"} for entry in ROWS]))
    assert [question.messages for question in right] == [question.messages for question in wrong]
    assert all(a.reference != b.reference for a, b in zip(right, wrong, strict=True))


# Where it is read from


@pytest.mark.parametrize(
    "place",
    ["EdinburghNLP/xsum", "xsum", f"datasets--EdinburghNLP--xsum/snapshots/{Xsum.revision}"],
)
def test_folder_and_cache(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    write(tmp_path / place, [row("14", "More")], part=1)
    write(tmp_path / place, [row("11", "More")], split="train")
    questions = Xsum().load("test", root=tmp_path)
    assert [question.id for question in questions] == [f"xsum/test/{key}" for key in (11, 12, 13, 14)]
    assert [question.reference for question in questions[1:3]] == [
        "Caf\u00e9s in Z\u00fcrich have closed",
        "Nothing is known",
    ]
    assert [question.id for question in Xsum().load("train", root=tmp_path)] == ["xsum/train/11"]
    for question in questions:
        assert Xsum().score(question.reference, question) == 1
        assert Xsum().right(question.reference, question)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="validation"):
        Xsum().load("dev", root=tmp_path)
    with pytest.raises(InputError, match=f"found no complete default/train/.*{Xsum.revision}"):
        Xsum().load("train", root=write(tmp_path))
    with pytest.raises(InputError, match="lacks summary and has document, id"):
        Xsum().load("test", root=write(tmp_path, drop="summary"))
    with pytest.raises(InputError, match="summary of xsum/test/15 must not be empty"):
        Xsum().load("test", root=write(tmp_path, [row("15", " ")]))
    with pytest.raises(InvalidSpec, match="greater than or equal to 1"):
        load_task("xsum(document_chars=0)")


# Recording it


def agent(name: str, *replies: str) -> Agent:
    return Agent(name=name, engine=Spec("echo", {"replies": list(replies)}), mode="generate")


def test_recording(tmp_path: Path) -> None:
    """No summary is right but the reference; how close the others are stands in the scores."""
    write(tmp_path / "EdinburghNLP/xsum", ROWS[:2])
    pool = AgentPool(
        (
            agent("same", "Summary: The cat sat on the mat."),
            agent("near", "Here it is:\n\nThe cat sat on a mat."),
            agent("echo"),
        )
    )
    result = record(pool, "xsum(document_chars=30)", tmp_path / "out", options=RecordOptions(root=tmp_path))
    table = read_table(tmp_path / "out" / "table.parquet")
    assert table.fingerprint == result.table.fingerprint
    assert table.provenance["task"] == "xsum(document_chars=30)"
    assert table.provenance["split"] == "test"
    assert table.provenance["extractor"] == "xsum/first_paragraph@1"
    assert table.question_ids.tolist() == ["xsum/test/11", "xsum/test/12"]
    assert table.references is not None
    assert table.references.tolist() == ["The cat sat on the mat.", "Caf\u00e9s in Z\u00fcrich have closed"]
    assert table.texts is not None
    assert table.texts[0, 1] == "Here it is:\n\nThe cat sat on a mat."
    assert '"Two is there."' in table.texts[0, 2], "the prompt, which holds the article as it is shown"
    assert "Three" not in table.texts[0, 2]
    assert table.correct.tolist() == [[True, False, False], [False, False, False]]
    assert table.scores is not None
    assert table.scores[0, :2].tolist() == pytest.approx([1, 5 / 6], abs=1e-6)
    assert table.scores[1, :2].tolist() == [0, 0]
    assert [member.accuracy for member in result.members] == [0.5, 0, 0]
