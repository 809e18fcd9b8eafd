"""From single answers to a table."""

import numpy as np
import pytest

from fusion.data._assemble import Answer, QuestionInfo, assemble, chosen
from fusion.errors import InvalidTable


def test_assemble_worked_example() -> None:
    """Two agents, one closed and one open question.

    Log-likelihoods 0 and ln 3 are probabilities 1/4 and 3/4. Open: a says "four" and the scorer takes it for
    right, b says "4", which is the reference; they are one option, spelt as first seen, and the right one.
    """
    questions = [
        QuestionInfo(id="closed", source="s", options=("x", "y"), label=0),
        QuestionInfo(id="open", source="s", references=("4",)),
    ]
    closed = Answer(question_id="closed", agent="a", source="s", choice=1, logprobs=(0.0, float(np.log(3))))
    table = assemble([closed], questions=questions[:1], provenance={})
    assert table.probs is not None
    assert table.probs[0, 0].tolist() == pytest.approx([0.25, 0.75])
    answers = [
        closed,
        Answer(question_id="open", agent="a", source="s", text="four", right=True),
        Answer(question_id="open", agent="b", source="s", text="4.0", right=False),
    ]
    table = assemble(answers, questions=questions, provenance={})
    assert table.probs is not None, "an open answer is certain of itself"
    assert table.probs.tolist() == [[pytest.approx([0.25, 0.75]), [0, 0]], [[1, 0], [1, 0]]]
    vote = Answer(question_id="closed", agent="b", source="s", choice=0)
    assert assemble([*answers, vote], questions=questions, provenance={}).probs is None
    assert table.answers.tolist() == [[1, -1], [0, 0]]
    assert table.options == (("x", "y"), ("four",))
    assert table.require_labels().tolist() == [0, 0]


def test_assemble_means_over_draws() -> None:
    """Tokens 10 and 21 make 16 (15.5 to the even number), seconds 1 and 2 make 1.5; the failed draw is not counted."""
    known = dict(question_id="q", agent="a", source="s", text="x")
    answers = [
        Answer(**known, sample=0, tokens_in=10, seconds=1.0),  # type: ignore[arg-type]  # all of them are text
        Answer(**known, sample=1, tokens_in=21, seconds=2.0),  # type: ignore[arg-type]
        Answer(question_id="q", agent="a", source="s", sample=2, failed=True),
    ]
    questions = [QuestionInfo(id="q", source="s")]
    table = assemble(answers, questions=questions, provenance={})
    assert table.tokens_in is not None
    assert table.tokens_in.tolist() == [[16]]
    assert table.seconds is not None
    assert table.seconds.tolist() == [[1.5]]
    assert table.sample_answers is not None
    assert table.sample_answers.tolist() == [[[0, 0, -1]]]
    unknown = [*answers, Answer(question_id="q", agent="b", source="s", text="x")]
    assert assemble(unknown, questions=questions, provenance={}).tokens_in is None


def test_assemble_wants_all_labels_or_none() -> None:
    questions = [QuestionInfo(id="q", source="s", references=("1",)), QuestionInfo(id="r", source="t")]
    answers = [Answer(question_id=id, agent="a", source="s", text="1") for id in ("q", "r")]
    with pytest.raises(InvalidTable, match="1 of 2 questions have no right answer, the first is 'r' in t"):
        assemble(answers, questions=questions, provenance={})


def test_chosen() -> None:
    """The first of equals; nothing where no option is possible or one is not a number."""
    inf, nan = float("inf"), float("nan")
    assert [chosen(row) for row in ((-1.0, -1.0), (-inf, -2.0), (-inf, -inf), (-1.0, nan), ())] == [
        0,
        1,
        None,
        None,
        None,
    ]
