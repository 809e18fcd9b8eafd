"""From completions to a table: what is an answer, an abstention, a question not asked; how answers are scored."""

import math
from typing import Any

import numpy as np
import pytest

from fusion import load_task
from fusion.data import Call, FreeForm, make_question, tabulate
from fusion.data._tabulate import OptionAdjuster
from fusion.schema import Completion, Question, Usage

MICRO = load_task("micro")
QUESTIONS = MICRO.load("test")[:3]


def said(text: str, **how: Any) -> Completion:
    return Completion(status="ok", text=text, **how)


def test_by_hand() -> None:
    """Two questions, two agents: an answer, one that cannot be read, a failure, and a call that was never made."""
    calls = [
        Call(0, 0, 0, said("The answer is B", usage=Usage(tokens_in=7, tokens_out=4), seconds=1.5)),
        Call(0, 1, 0, said("no idea", usage=Usage(tokens_in=7, tokens_out=2), seconds=0.5)),
        Call(1, 0, 0, Completion(status="timeout", detail="too slow", seconds=3.0)),
    ]
    table = tabulate(QUESTIONS[:2], ["a", "b"], calls, reader=MICRO, provenance={"task": "micro"})
    assert table.answers.tolist() == [[1, -1], [-1, -1]]
    assert table.asked is not None
    assert table.asked.tolist() == [[True, True], [True, False]]
    assert table.texts is not None
    assert table.texts.tolist() == [["The answer is B", "no idea"], ["", ""]]
    assert table.tokens_out is not None
    assert table.tokens_out.tolist() == [[4, 2], [0, 0]]
    assert table.seconds is not None
    assert table.seconds.tolist() == [[1.5, 0.5], [3.0, 0.0]]
    assert table.labels is not None
    assert table.labels.tolist() == [question.label for question in QUESTIONS[:2]]
    assert table.provenance == {"task": "micro"}
    assert "too slow" not in repr(table.texts)


def test_nobody_was_asked() -> None:
    table = tabulate(QUESTIONS, ["a", "b"], [], reader=MICRO)
    assert table.answers.tolist() == [[-1, -1]] * 3
    assert table.asked is not None
    assert not table.asked.any()


def test_who_had_no_budget_was_not_asked() -> None:
    calls = [Call(0, 0, 0, said("A")), Call(0, 1, 0, Completion(status="over_budget", detail="not asked"))]
    table = tabulate(QUESTIONS[:1], ["a", "b"], calls, reader=MICRO)
    assert table.asked is not None
    assert table.asked.tolist() == [[True, False]]


@pytest.mark.parametrize("status", ["cancelled", "empty", "refused", "http_error"])
def test_who_failed_was_asked(status: Any) -> None:
    table = tabulate(QUESTIONS[:1], ["a"], [Call(0, 0, 0, Completion(status=status))], reader=MICRO)
    assert table.asked is None
    assert not table.answered.any()


def test_scored_options_become_probabilities() -> None:
    options = len(QUESTIONS[0].options)
    logprobs = tuple(math.log(share) for share in (0.1, 0.3, *([0.05] * (options - 2))))
    table = tabulate(QUESTIONS[:1], ["a"], [Call(0, 0, 0, said("B", option_logprobs=logprobs))], reader=MICRO)
    total = 0.4 + 0.05 * (options - 2)
    assert table.probs is not None
    np.testing.assert_allclose(table.probs[0, 0, :2], [0.1 / total, 0.3 / total], rtol=1e-6)
    assert table.answers.tolist() == [[1]]


def test_draws_that_were_asked_for_have_room() -> None:
    table = tabulate(QUESTIONS[:1], ["a"], [Call(0, 0, 0, said("A"))], reader=MICRO, draws=3)
    assert table.sample_answers is not None
    assert table.sample_answers.tolist() == [[[0, -1, -1]]]


def test_gsm8k_compares_numbers() -> None:
    """113.00 is 113; the wrong answer is an option of its own; right answers are one option whatever their form."""
    task = load_task("gsm8k")
    question = task.samples()[0]
    calls = [Call(0, 0, 0, said("#### 113.00")), Call(0, 1, 0, said("So 113 are free")), Call(0, 2, 0, said("160"))]
    table = tabulate([question], ["a", "b", "c"], calls, reader=task)
    assert table.correct.tolist() == [[True, True, False]]
    assert table.options is not None
    assert len(table.options[0]) == 2
    assert table.scores is None, "right or wrong says it all"


def test_graded_answers_have_scores() -> None:
    task = load_task("truthfulqa_mc2")
    question = task.samples()[0]
    logprobs = tuple(math.log(1 / len(question.options)) for _ in question.options)
    table = tabulate([question], ["a"], [Call(0, 0, 0, said("x", option_logprobs=logprobs))], reader=task)
    assert table.scores is not None
    truths = question.meta["truths"]
    assert isinstance(truths, list)
    assert table.scores[0, 0] == pytest.approx(sum(map(int, truths)) / len(truths))  # type: ignore[arg-type]


def test_truthfulqa_gen_has_scores() -> None:
    task = load_task("truthfulqa_gen")
    question = task.samples()[0]
    right, wrong = said(question.reference), said("In a tank of skin inside the hump.")
    table = tabulate([question], ["a", "b"], [Call(0, 0, 0, right), Call(0, 1, 0, wrong)], reader=task)
    assert table.correct.tolist() == [[True, False]]


def test_musr_compares_per_character() -> None:
    """The likeliest text is not the answer where a longer one is likelier per character."""
    task = load_task("musr")
    assert isinstance(task, OptionAdjuster)
    question = task.samples()[0]
    longest = max(range(len(question.options)), key=lambda k: len(question.options[k]))
    lengths = [len(option) for option in question.options]
    assert len(set(lengths)) > 1
    logprobs = tuple(-(float(length) ** (0.5 if k == longest else 1.0)) for k, length in enumerate(lengths))
    table = tabulate([question], ["a"], [Call(0, 0, 0, said("x", option_logprobs=logprobs))], reader=task)
    assert table.answers.tolist() == [[longest]]
    assert table.provenance == {"adjusted": True}


def test_lone_surrogates_do_not_break_a_table() -> None:
    table = tabulate(QUESTIONS[:1], ["a"], [Call(0, 0, 0, said("A \ud800"))], reader=MICRO)
    assert table.texts is not None
    assert table.texts[0, 0] == "A ?"


@pytest.mark.parametrize("logprobs", [(math.nan,) * 9, (-math.inf,) * 9])
def test_scores_that_say_nothing(logprobs: tuple[float, ...]) -> None:
    count = len(QUESTIONS[0].options)
    call = Call(0, 0, 0, said("A", option_logprobs=logprobs[:count]))
    table = tabulate(QUESTIONS[:1], ["a"], [call], reader=MICRO)
    assert table.answers.tolist() == [[-1]]


def test_free_form() -> None:
    reader = FreeForm()
    choice = make_question("Which?", options=["one", "two"])
    assert reader.parse("It is (B).", choice) == "B"
    assert reader.parse("two", choice) == "B"
    assert reader.parse("neither", choice) is None
    known = Question(id="q", messages=(), reference="Paris")
    assert reader.score(" paris. ", known) == 1
    assert reader.score("Rome", known) == 0
    assert reader.parse("  ", known) is None
