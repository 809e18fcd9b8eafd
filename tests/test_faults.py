"""Faults on purpose: what changes, what does not, and what is refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import AGENTS, abstaining, by_hand, random_table, without

from fusion.data import PredictionTable
from fusion.errors import FusionError, InvalidTable, UnknownName, UsageError
from fusion.evaluation import Fault, FaultKind, inject


def closed(seed: int = 0, **fields: object) -> PredictionTable:
    """A multiple-choice table with every field that such a table has."""
    return without(random_table(seed, **fields), "references")  # type: ignore[arg-type]


def test_by_hand() -> None:
    """Three options each, right answers 0, 1, 2: from the second question on, b says one of the two others."""
    table = by_hand([[0, 0], [1, 1], [2, 2]], labels=[0, 1, 2])
    faulty = inject(table, agent="b", start=1)
    assert faulty.answers[:, 0].tolist() == [0, 1, 2]
    assert faulty.answers[0, 1] == 0
    assert faulty.answers[1, 1] in (0, 2)
    assert faulty.answers[2, 1] in (0, 1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), start=st.integers(0, 47), kind=st.sampled_from(["wrong", "random", "abstain"]))
def test_what_changes_and_what_does_not(seed: int, start: int, kind: FaultKind) -> None:
    table = closed(seed)
    faulty = inject(table, agent="birch", start=start, kind=kind, seed=seed)
    others = [name for name in table.agents if name != "birch"]
    assert faulty.columns(others).fingerprint == table.columns(others).fingerprint
    if start:
        assert faulty.rows(slice(0, start)).fingerprint == table.rows(slice(0, start)).fingerprint
    column = table.agents.index("birch")
    answers_n = faulty.answers[start:, column]
    if kind == "wrong":
        assert not faulty.correct[start:, column].any()
        assert ((answers_n >= 0) | (table.num_options[start:] == 1)).all()
    if kind == "abstain":
        assert (answers_n == -1).all()
    if kind == "random":
        assert (answers_n >= 0).all()


def test_probabilities_draws_scores_and_texts_go_with_the_answer() -> None:
    table = closed(3)
    faulty = inject(table, agent="ash", start=0)
    answers_N = faulty.answers[:, 0]
    said_N = answers_N >= 0
    assert faulty.probs is not None
    assert table.probs is not None
    assert faulty.sample_answers is not None
    assert faulty.scores is not None
    assert faulty.texts is not None
    assert faulty.options is not None
    assert table.labels is not None
    assert (faulty.probs[said_N, 0].argmax(axis=1) == answers_N[said_N]).all()
    before_N = table.answered[:, 0]
    np.testing.assert_array_equal(np.sort(faulty.probs[before_N, 0]), np.sort(table.probs[before_N, 0]))
    assert not (faulty.sample_answers[:, 0] == table.labels[:, None])[table.labels >= 0].any()
    assert (faulty.sample_answers[:, 0, 0] == answers_N).all()
    assert not faulty.scores[:, 0].any()
    assert faulty.texts[5, 0] == faulty.options[5][answers_N[5]]
    silent = inject(table, agent="ash", start=0, kind="abstain")
    assert silent.probs is not None
    assert silent.sample_answers is not None
    assert silent.texts is not None
    assert not silent.probs[:, 0].any()
    assert (silent.sample_answers[:, 0] == -1).all()
    assert set(silent.texts[:, 0].tolist()) == {""}


def test_an_agent_that_abstained_gives_a_wrong_answer_surely() -> None:
    table = closed(1)
    silent = abstaining(table, np.arange(4)[None] == np.full((48, 1), 2))
    faulty = inject(silent, agent="cedar", start=0)
    assert faulty.probs is not None
    rows_N = faulty.answers[:, 2] >= 0
    assert rows_N.sum() > 40
    assert (faulty.probs[rows_N, 2].max(axis=1) == 1).all()


def test_who_was_not_asked_says_nothing() -> None:
    asked = [[True, True], [True, False], [True, True]]
    table = by_hand([[0, 0], [1, -1], [2, 2]], labels=[0, 1, 2], asked=asked)
    faulty = inject(table, agent="b", start=0)
    assert faulty.answers[1, 1] == -1
    assert (faulty.answers[[0, 2], 1] >= 0).all()


def test_only_as_many_draws_as_there_were() -> None:
    """Agent b was drawn twice only."""
    samples = [[[0, 1, 2], [0, 1, -1]], [[1, 1, 1], [1, -1, -1]]]
    table = by_hand([[0, 0], [1, 1]], labels=[0, 1], sample_answers=samples, num_options=[3, 3])
    faulty = inject(table, agent="b", start=0)
    assert faulty.sample_answers is not None
    assert (faulty.sample_answers[:, 1, 2] == -1).all()
    assert (faulty.sample_answers[:, 1, :2] >= 0).all()


def many(num: int = 4000) -> PredictionTable:
    labels_N = np.arange(num) % 4
    categories = np.array(["even", "odd"])[np.arange(num) % 2]
    return by_hand(np.stack([labels_N] * 2, axis=1), labels=labels_N, categories=categories)


def test_wrong_and_random_answers_are_uniform() -> None:
    """Standard errors are 0.7 points of 4,000 answers: 3 points are over four of them."""
    table = many()
    labels_N = table.require_labels()
    wrong_N = inject(table, agent="a", start=0).answers[:, 0]
    for step in (1, 2, 3):
        assert abs(((wrong_N - labels_N) % 4 == step).mean() - 1 / 3) < 0.03
    random_N = inject(table, agent="a", start=0, kind="random").answers[:, 0]
    for step in range(4):
        assert abs(((random_N - labels_N) % 4 == step).mean() - 1 / 4) < 0.03


def test_share_and_category() -> None:
    table = many()
    half = inject(table, agent="a", start=0, share=0.5)
    assert abs(half.accuracies[0] - 0.5) < 0.04
    odd = inject(table, agent="a", start=1000, category="odd")
    wrong_N = ~odd.correct[:, 0]
    assert np.flatnonzero(wrong_N).tolist() == list(range(1001, 4000, 2))


def test_two_agents_fail_independently_and_seeds_differ() -> None:
    """Two uniform wrong answers of three agree on a third of the questions."""
    table = many()
    both = inject(inject(table, agent="a", start=0), agent="b", start=0)
    assert both.accuracies.tolist() == [0, 0]
    assert abs((both.answers[:, 0] == both.answers[:, 1]).mean() - 1 / 3) < 0.03
    other = inject(table, agent="a", start=0, seed=1)
    assert abs((both.answers[:, 0] == other.answers[:, 0]).mean() - 1 / 3) < 0.03


def test_the_order_of_rows_changes_nothing() -> None:
    table = closed(7)
    order_N = np.random.default_rng(0).permutation(len(table))
    faulty = inject(table, agent="elm", start=0, share=0.7)
    moved = inject(table.rows(order_N), agent="elm", start=0, share=0.7)
    assert moved.fingerprint == faulty.rows(order_N).fingerprint


def test_one_option_that_is_right_and_a_label_that_is_none() -> None:
    table = by_hand([[0], [1]], labels=[0, -1], num_options=[1, 2])
    assert inject(table, agent="a", start=0).answers[0, 0] == -1
    assert inject(table, agent="a", start=0).answers[1, 0] >= 0


REFUSED: list[tuple[dict[str, object], type[FusionError], str]] = [
    ({"agent": "ahs"}, UnknownName, "did you mean 'ash'"),
    ({"start": 48}, UsageError, "starts after 48 questions, but there are 48; start it after 47 at most"),
    ({"start": -1}, UsageError, "got -1"),
    ({"share": 0.0}, UsageError, r"\(0, 1\], got 0.0"),
    ({"share": 1.5}, UsageError, r"\(0, 1\], got 1.5"),
    ({"kind": "lazy"}, UsageError, "wrong, random or abstain, got 'lazy'"),
    ({"category": "cooking"}, UnknownName, "category 'cooking'"),
]


@pytest.mark.parametrize(("given", "error", "message"), REFUSED)
def test_refused(given: dict[str, object], error: type[FusionError], message: str) -> None:
    with pytest.raises(error, match=message):
        inject(closed(), **({"agent": "ash", "start": 0} | given))  # type: ignore[arg-type]


def test_open_answers_are_refused() -> None:
    with pytest.raises(InvalidTable, match="open"):
        inject(random_table(0), agent="ash", start=0)
    texts = dataclasses.replace(closed(), provenance={"cells": "text"})
    with pytest.raises(InvalidTable, match="open"):
        inject(texts, agent="ash", start=0)


def test_labels_are_needed_to_be_wrong_only() -> None:
    unlabelled = without(closed(), "labels", "scores")
    with pytest.raises(InvalidTable, match="no labels"):
        inject(unlabelled, agent="ash", start=0)
    assert not inject(unlabelled, agent="ash", start=0, kind="abstain").answered[:, 0].any()


@pytest.mark.parametrize(
    ("text", "agent", "start", "kind"),
    [
        ("a@0", "a", 0, "wrong"),
        ("gpt-4o@4000:random", "gpt-4o", 4000, "random"),
        ("who@where:free@12:abstain", "who@where:free", 12, "abstain"),
    ],
)
def test_parse(text: str, agent: str, start: int, kind: FaultKind) -> None:
    assert Fault.parse(text) == Fault(agent=agent, start=start, kind=kind)


@pytest.mark.parametrize("text", ["", "a", "a@", "@5", "a@x", "a@-1", "a@1_0", "a@5:lazy", "a@1.5", f"{AGENTS[0]}:5"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        Fault.parse(text)
