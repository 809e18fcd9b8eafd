"""Bayes' rule with counted confusion matrices: examples worked by hand, and the models as probabilities."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, everyone, random_table

from fusion.data import PredictionTable, read_table, split
from fusion.errors import InvalidTable, NotFitted, TableMismatch
from fusion.fusers._confusion import Full, Model, OneCoin, Votes, looks_open
from fusion.fusers.naive_bayes import NaiveBayes
from fusion.fusers.weighted_vote import WeightedVote
from fusion.schema import Decision, Selection

# Seven questions with three options. With one right and two wrong answers added, a is right on 6 of 10, b and c on 5 of
# 10, d on 4 of 10, e on 3 of 10.
FIT = by_hand(
    [[0 if n < right else 1 + n % 2 for right in (5, 4, 4, 3, 2)] for n in range(7)], [0] * 7, num_options=[3] * 7
)


def fused(fuser: NaiveBayes, table: PredictionTable, selection: Selection | None = None) -> Decision:
    decision = fuser.fuse(table.blind(), selection or everyone(table))
    assert decision.confidence is not None
    assert decision.probs is not None
    return decision


def votes(answers: Any, **fields: Any) -> Votes:
    table = by_hand(answers, **fields)
    return Votes.of(table, everyone(table).mask)


# ---- one coin


def test_one_coin_counts_the_option_that_nobody_chose() -> None:
    """With two wrong options: a says 0, which is 0.6 / (0.4 / 2) = 3 times as likely if 0 is right; b and c 2 each.

    0 : 1 : 2 is 3 : 4 : 1. The answer is 1, right with probability 4/8; among the options chosen it has 4/7.
    d alone: 4/3 against 1 and 1. e alone says 1, 6/7 against 1 and 1: less likely than either of the others, but
    nobody chose these; right with probability 3/10.
    """
    table = by_hand([[0, 1, 1, -1, -1], [-1, -1, -1, 2, -1], [-1, -1, -1, -1, 1]], num_options=[3] * 3)
    decision = fused(NaiveBayes().fit(FIT, everyone(FIT)), table)
    assert decision.answers.tolist() == [1, 2, 1]
    np.testing.assert_allclose(decision.probs, [[3 / 7, 4 / 7, 0], [0, 0, 1], [0, 1, 0]], rtol=1e-6)  # float32
    np.testing.assert_allclose(decision.confidence, [4 / 8, 4 / 10, 3 / 10], rtol=1e-12)


def test_smoothing_is_so_many_imagined_answers() -> None:
    """a is right on 5 of 7 questions with three options: (5 + 2) / (7 + 6) with two imagined answers a cell."""
    fuser = NaiveBayes(smoothing=2.0).fit(FIT, everyone(FIT))
    np.testing.assert_allclose(fuser.competence_, np.array([7, 6, 6, 5, 4]) / 13)  # type: ignore[arg-type]  # it is fitted


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), options=st.integers(2, 6))
def test_one_coin_is_the_vote_by_log_odds(seed: int, options: int) -> None:
    fit, table = (
        tables.without(random_table(seed + i, questions=24, options=options), "references", "options") for i in (0, 1)
    )
    selection = tables.some(table, seed)
    found = fused(NaiveBayes().fit(fit, everyone(fit)), table, selection)
    expected = WeightedVote(weights="log_odds").fit(fit, everyone(fit)).fuse(table, selection)
    tables.equal(found.answers, expected.answers)
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-6)  # type: ignore[arg-type]  # it has some


def test_a_question_with_one_option_teaches_nothing() -> None:
    """There everybody is right: only the two others count, a (1 + 1) / (2 + 2), b (2 + 1) / (2 + 2)."""
    fit = by_hand([[0, 0], [1, 0], [0, 0]], [0, 0, 0], num_options=[2, 2, 1])
    fuser = NaiveBayes().fit(fit, everyone(fit))
    np.testing.assert_allclose(fuser.competence_, [2 / 4, 3 / 4])  # type: ignore[arg-type]  # it is fitted
    decision = fused(fuser, by_hand([[0, 0], [1, 1]], num_options=[1, 2]))
    np.testing.assert_allclose(decision.confidence, [1, 3 / 4])


def test_a_right_answer_outside_the_options_makes_everybody_wrong() -> None:
    fit = by_hand([[0], [1]], [0, -1], num_options=[2, 2])
    for confusion in ("one_coin", "full"):
        fuser = NaiveBayes(confusion=confusion).fit(fit, everyone(fit))
        np.testing.assert_allclose(fuser.competence_, [2 / 4])  # type: ignore[arg-type]  # it is fitted


def test_many_agents_do_not_overflow() -> None:
    """1,200 agents with odds of 999 : 1 against as many but one: 999 to the power of 1 remains."""
    fuser = NaiveBayes()
    names = tuple(f"agent {j}" for j in range(2399))
    fuser.agents_, fuser.competence_ = names, np.full(2399, 0.999)
    table = by_hand([[0] * 1200 + [1] * 1199], agents=names)
    decision = fused(fuser, table)
    assert decision.answers.tolist() == [0]
    np.testing.assert_allclose(decision.confidence, [0.999], rtol=1e-6)


# ---- open questions


def open_table(answers: Any, labels: Any = None) -> PredictionTable:
    size = int(np.max(answers)) + 1
    return by_hand(
        answers, labels, options=[[f"text {k}" for k in range(size)]] * len(answers), references=["?"] * len(answers)
    )


def test_open_answers_that_agree_by_chance() -> None:
    """Everybody is right half of the time, and wrong answers have the concentration 2. Votes 0, 0, 1.

    0 is right: one wrong answer, probability 1. 1 is right: two wrong ones that agree, 1 / (1 + 2). None is: the first
    and second agree, the third differs, 1/3 * 2/4. That is 6 : 2 : 1.
    """
    fuser = NaiveBayes()
    fuser.agents_, fuser.competence_, fuser.concentration_ = tuple("abc"), np.full(3, 0.5), 2.0
    decision = fused(fuser, open_table([[0, 0, 1], [-1, -1, -1]]))
    assert decision.answers.tolist() == [0, -1]
    np.testing.assert_allclose(decision.confidence, [6 / 9, 0])
    np.testing.assert_allclose(decision.probs, [[0.75, 0.25], [0, 0]])


def test_the_concentration_is_how_often_wrong_answers_differ() -> None:
    """Of four pairs of wrong answers one agrees, of two imagined pairs another: 2 of 6 is 1 / (1 + t) for t = 2."""
    fit = open_table([[0, 0], [0, 1], [0, 1], [0, 1]], [-1] * 4)
    assert NaiveBayes().fit(fit, everyone(fit)).concentration_ == pytest.approx(2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), agents=st.integers(1, 7))
def test_the_concentration_is_the_likeliest(seed: int, agents: int) -> None:
    """Against a grid over the definition: one answer after another, t / (t + i) new, n / (t + i) like n others."""
    rng = np.random.default_rng(seed)
    fit = open_table(rng.integers(0, 4, (20, agents)), [-1] * 20)
    grid = np.exp(np.linspace(-12, 12, 4001))
    objective = np.log(grid) - 2 * np.log1p(grid)
    for row in fit.answers.tolist():
        for i, said in enumerate(row):
            before = row[:i].count(said)
            objective += np.log((before if before else grid) / (grid + i))
    best = grid[objective.argmax()]
    assert NaiveBayes().fit(fit, everyone(fit)).concentration_ == pytest.approx(best, rel=0.01)  # the grid's step


def test_which_tables_are_open() -> None:
    """With references, or where every option has been said by somebody; without their texts there is no telling."""
    closed = by_hand([[0, 1], [0, 0]], options=[["a", "b"], ["a", "b"]])
    yes_no = by_hand([[0, 1], [1, 0]], options=[["yes", "no"], ["yes", "no"]])
    said = by_hand([[0, 1], [0, 0]], options=[["a", "b"], ["a"]])
    drawn = by_hand([[0], [0]], options=[["a", "b"], []], sample_answers=[[[0, 1]], [[0, -1]]])
    assert [looks_open(table) for table in (closed, yes_no, said, drawn)] == [False, False, True, True]
    assert looks_open(by_hand([[0], [0]], references=["a", "c"], options=[["a", "b"], ["c"]]))
    assert not looks_open(by_hand([[0, 1]]))


# ---- full


def biased() -> tuple[NaiveBayes, PredictionTable]:
    """One agent: where 0 is right it says 0, 0, 1; where 1 is, 1."""
    fit = by_hand([[0], [0], [1], [1]], [0, 0, 0, 1])
    return NaiveBayes(confusion="full"), fit


def test_full_by_hand() -> None:
    """p = (3 + 1) / (4 + 2) = 2/3: each row gets two more answers, 4/3 where it is right and 2/3 where not.

    Rows (2 + 4/3, 1 + 2/3) / 5 = (2/3, 1/3) and (0 + 2/3, 1 + 4/3) / 3 = (2/9, 7/9); prior (3 + 1, 1 + 1) / 6.
    It says 0: 2/3 2/3 against 1/3 2/9, 6 : 1. It says 1: 2/3 1/3 against 1/3 7/9, 6 : 7.
    """
    fuser, fit = biased()
    fuser.fit(fit, everyone(fit))
    np.testing.assert_allclose(fuser.matrices_, [[[2 / 3, 1 / 3], [2 / 9, 7 / 9]]])  # type: ignore[arg-type]  # it is fitted
    np.testing.assert_allclose(fuser.prior_, [2 / 3, 1 / 3])  # type: ignore[arg-type]  # it is fitted
    decision = fused(fuser, by_hand([[0], [1], [-1]], num_options=[2] * 3))
    assert decision.answers.tolist() == [0, 1, -1]
    np.testing.assert_allclose(decision.confidence, [6 / 7, 7 / 13, 0])


def test_a_place_that_fit_did_not_see_is_like_the_average() -> None:
    """Right 13/18 = (2/3 + 7/9) / 2, wrong 5/18, prior 1/2. It says 2: 2/3 5/18, 1/3 5/18, 1/2 13/18: 20 : 10 : 39."""
    fuser, fit = biased()
    decision = fused(fuser.fit(fit, everyone(fit)), by_hand([[2]], num_options=[3]))
    assert decision.answers.tolist() == [2]
    np.testing.assert_allclose(decision.confidence, [39 / 69])


def test_an_option_that_nobody_chose_does_not_win() -> None:
    """It says 1 whatever is right, and 0 is right nearly always: 1 stays the answer, with little confidence."""
    fit = by_hand([[1]] * 20, [0] * 19 + [1])
    decision = fused(NaiveBayes(confusion="full").fit(fit, everyone(fit)), by_hand([[1]], num_options=[2]))
    assert decision.answers.tolist() == [1]
    assert decision.confidence is not None
    assert decision.confidence[0] < 0.2


def test_full_finds_out_who_mistakes_which_option_for_which() -> None:
    """a is right on 0 and 1 only, b on 2 and 3 only, else they guess 0 and 3; the vote ties, the matrices do not."""
    labels_N = np.random.default_rng(0).integers(0, 4, 400)
    answers_NM = np.stack([np.where(labels_N < 2, labels_N, 0), np.where(labels_N >= 2, labels_N, 3)], axis=1)
    table = by_hand(answers_NM, labels_N.tolist(), num_options=[4] * 400)
    full, coin = (
        fused(NaiveBayes(confusion=confusion).fit(table, everyone(table)), table) for confusion in ("full", "one_coin")
    )
    # Right 0 and right 3 look the same, (0, 3), and so do no others.
    assert (full.answers == labels_N).mean() > 0.7
    assert (coin.answers == labels_N).mean() < 0.6


# ---- both

COIN = OneCoin(competence=np.array([0.9, 0.6, 0.3]))
MATRICES = np.random.default_rng(1).dirichlet([1, 1, 1], (3, 3))
PATTERNS = list(itertools.product(range(3), repeat=3))


@pytest.mark.parametrize(
    "model", [COIN, Full(prior=np.array([0.5, 0.3, 0.2]), matrices=MATRICES)], ids=["coin", "full"]
)
def test_the_probabilities_of_all_votes_sum_to_1(model: Model) -> None:
    total = sum(math.exp(model.infer(votes([row], num_options=[3])).log_likelihood) for row in PATTERNS)
    assert total == pytest.approx(1)


def test_the_probabilities_of_all_ways_to_agree_sum_to_1() -> None:
    """Of three agents: all, two of them in three ways, none."""
    model = OneCoin(competence=COIN.competence, concentration=1.7)
    ways = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
    assert sum(math.exp(model.infer(votes([row])).log_likelihood) for row in ways) == pytest.approx(1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), options=st.integers(2, 5))
def test_full_is_the_product_over_agents(seed: int, options: int) -> None:
    """Multiplied again option by option, without logarithms."""
    fit, table = random_table(seed, options=options), random_table(seed + 1, options=options)
    fuser = NaiveBayes(confusion="full").fit(fit, everyone(fit))
    selection = tables.some(table, seed)
    decision = fused(fuser, table, selection)
    assert fuser.matrices_ is not None
    assert fuser.prior_ is not None
    assert decision.confidence is not None
    np.testing.assert_allclose(fuser.matrices_.sum(axis=2), 1)
    for n, row in enumerate(table.answers.tolist()):
        heard = [j for j in range(table.num_agents) if selection.mask[n, j] and row[j] >= 0]
        joint = [
            fuser.prior_[k] * math.prod(fuser.matrices_[j, k, row[j]] for j in heard)
            for k in range(int(table.num_options[n]))
        ]
        named = {row[j] for j in heard}
        answer = int(decision.answers[n])
        assert answer == max(named, key=lambda k: joint[k], default=-1)
        assert decision.confidence[n] == pytest.approx(joint[answer] / sum(joint) if named else 0)


def test_refuses() -> None:
    with pytest.raises(InvalidTable, match="no labels"):
        NaiveBayes().fit(by_hand([[0]]), everyone(by_hand([[0]])))
    with pytest.raises(NotFitted, match=r"naive_bayes .* call fit"):
        NaiveBayes().fuse(FIT, everyone(FIT))
    other = FIT.columns(tuple("abc"))
    with pytest.raises(TableMismatch, match="missing d"):
        NaiveBayes().fit(FIT, everyone(FIT)).fuse(other, everyone(other))


@pytest.mark.parametrize("confusion", ["one_coin", "full"])
def test_recorded_answers(recorded_data: Path, confusion: Any) -> None:
    """Over 24 models that err together, both stay above the plain vote's 60 % and below the best single one's 70 %."""
    fit, test = split(read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz"))
    decision = fused(NaiveBayes(confusion=confusion).fit(fit, everyone(fit)), test)
    assert decision.confidence is not None
    assert np.isfinite(decision.confidence).all()
    assert ((decision.confidence >= 0) & (decision.confidence <= 1)).all()
    assert 0.61 < (decision.answers == test.require_labels()).mean() < 0.67
