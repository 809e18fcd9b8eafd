"""Reliability without labels: a round worked by hand, the likelihood that only rises, and planted accuracies."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, everyone, random_table

from fusion.data import PredictionTable, read_table, split
from fusion.errors import InvalidTable, NotFitted, TableMismatch
from fusion.fusers._confusion import OneCoin, Votes
from fusion.fusers.dawid_skene import MAX_ROUNDS, TOLERANCE, DawidSkene
from fusion.fusers.vote import Vote
from fusion.schema import Decision, Selection

CONFUSIONS: tuple[Literal["one_coin", "full"], ...] = ("one_coin", "full")


def learned(table: PredictionTable, confusion: Literal["one_coin", "full"] = "one_coin") -> DawidSkene:
    return DawidSkene(confusion=confusion).fit(table, everyone(table))


def competence(fuser: DawidSkene) -> npt.NDArray[Any]:
    assert fuser.competence_ is not None
    return fuser.competence_


def share_right(decision: Decision, labels_N: npt.NDArray[Any]) -> float:
    return float((decision.answers == labels_N).mean())


# ---- a round by hand


def test_a_round_by_hand() -> None:
    """Votes 0 0 1, twice, and 0 0 0, of two options. The shares of the vote are 2/3 for 0, 2/3, and 1.

    a and b are expected right on 7/3 of 3: with one right and one wrong answer imagined (7/3 + 1) / 5 = 2/3; c on 5/3:
    (5/3 + 1) / 5 = 8/15. Then a's and b's votes make 0 twice as likely each, c's makes 1 8/7 times: 4 : 8/7 = 7 : 2.
    On the last question 4 * 8/7 : 1 = 32 : 7.
    """
    table = by_hand([[0, 0, 1], [0, 0, 1], [0, 0, 0]], num_options=[2] * 3)
    votes = Votes.of(table, everyone(table).mask)
    coin = OneCoin.learn(votes, votes.counts / 3, smoothing=1.0, is_open=False)
    np.testing.assert_allclose(coin.competence, [2 / 3, 2 / 3, 8 / 15])
    np.testing.assert_allclose(coin.infer(votes).posterior[:, 0], [7 / 9, 7 / 9, 32 / 39])


def test_one_agent_alone_is_expected_right_as_often_as_it_must_be() -> None:
    """Nothing contradicts a: p = (3 p + 1) / (3 + 2), so it ends at 1/2, where it began from (3 + 1) / 5."""
    fuser = learned(by_hand([[0], [1], [0]], num_options=[2] * 3))
    np.testing.assert_allclose(competence(fuser), [0.5], atol=1e-5)  # the step is below TOLERANCE, the way left is not


def test_who_agrees_with_the_others_counts_for_more() -> None:
    """a, b, c agree on most questions, d and e with nobody, each its own way; then d and e outvote a in the plain vote.

    The plain vote gives 1, two to one; here 0, whoever is asked first in the pool.
    """
    answers = [[0, 0, 0, 1, 2], [1, 1, 1, 2, 3], [2, 2, 2, 0, 1], [3, 3, 3, 1, 0], [0, 0, 0, 3, 1], [1, 1, 1, 0, 2]]
    fuser = learned(by_hand(answers * 3, question_ids=[f"q{n}" for n in range(18)]))
    table = by_hand([[0, -1, -1, 1, 1]], num_options=[4])
    assert Vote().fuse(table, everyone(table)).answers.tolist() == [1]
    decision = fuser.fuse(table, everyone(table))
    assert decision.answers.tolist() == [0]
    assert decision.confidence is not None
    assert decision.confidence[0] > 0.5


# ---- expectation-maximisation


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), confusion=st.sampled_from(CONFUSIONS), is_open=st.booleans(), options=st.integers(1, 6)
)
def test_no_round_lowers_the_likelihood(
    seed: int, confusion: Literal["one_coin", "full"], is_open: bool, options: int
) -> None:
    table = random_table(seed, options=options)
    table = table if is_open else tables.without(table, "references")
    fuser = DawidSkene(confusion=confusion).fit(table, tables.some(table, seed))
    assert fuser.log_posterior_ is not None
    assert np.isfinite(fuser.log_posterior_).all()
    assert 1 <= len(fuser.log_posterior_) <= MAX_ROUNDS
    # Sums of some hundred logarithms differ in the last bits.
    assert np.diff(fuser.log_posterior_).min(initial=0) >= -1e-9


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_it_ends_where_a_round_changes_nothing(seed: int) -> None:
    """p is what the posterior expects, and the posterior is what p says, counted again option by option."""
    table = tables.without(random_table(seed, questions=60), "references", "options")
    fuser = learned(table)
    p_M = competence(fuser)
    expected_M, cast_M = np.ones(table.num_agents), np.full(table.num_agents, float(table.max_options))
    for row, size in zip(table.answers.tolist(), table.num_options.tolist(), strict=True):
        joint = [
            np.prod([p if said == k else (1 - p) / (size - 1) for p, said in zip(p_M, row, strict=True) if said >= 0])
            for k in range(size)
        ]
        for j, said in enumerate(row):
            if said >= 0:
                expected_M[j] += joint[said] / sum(joint)
                cast_M[j] += 1
    # A last step of TOLERANCE leaves more to go where the steps shrink slowly.
    np.testing.assert_allclose(p_M, expected_M / cast_M, atol=10 * TOLERANCE)


def planted(
    seed: int, p_M: npt.NDArray[Any], *, questions: int = 600, options: int = 4, silent: float = 0.1
) -> PredictionTable:
    """Agents that err independently of each other, and uniformly."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, options, questions)
    shape = (questions, len(p_M))
    wrong_NM = (labels_N[:, None] + rng.integers(1, options, shape)) % options
    answers_NM = np.where(rng.random(shape) < p_M, labels_N[:, None], wrong_NM)
    answers_NM[rng.random(shape) < silent] = -1
    return by_hand(answers_NM, labels_N.tolist(), num_options=[options] * questions)


P = np.array([0.85, 0.7, 0.55, 0.45, 0.4, 0.3, 0.3])


@pytest.mark.parametrize("seed", range(4))
def test_planted_accuracies_are_found(seed: int) -> None:
    """Closer than the share of agreement with the plain vote, and so are the answers to the truth."""
    table = planted(seed, P, questions=2000)
    blind, labels_N = table.blind(), table.require_labels()
    fuser = learned(blind)
    majority = Vote().fuse(blind, everyone(blind))
    agreeing_NM = (table.answers == majority.answers[:, None]) & table.answered
    agreement_M = agreeing_NM.sum(axis=0) / table.answered.sum(axis=0)
    right_M = table.correct.sum(axis=0) / table.answered.sum(axis=0)
    # Beside the standard error of a share of 1,800, 0.012, which both have, the truth is only nearly known.
    assert np.abs(competence(fuser) - right_M).max() < 0.04
    assert np.abs(competence(fuser) - right_M).mean() < np.abs(agreement_M - right_M).mean() / 3
    decision = fuser.fuse(blind, everyone(blind))
    assert share_right(decision, labels_N) > share_right(majority, labels_N) + 0.03
    assert decision.confidence is not None
    assert abs(decision.confidence.mean() - share_right(decision, labels_N)) < 0.04


def test_full_finds_agents_that_favour_a_place() -> None:
    """Four agents see the answer half of the time and say 0 else, three see it with 0.7 and guess evenly else."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 4, 1500)
    shape = (1500, 7)
    guess_NM = np.where(np.arange(7) < 4, 0, rng.integers(0, 4, shape))
    knows_NM = rng.random(shape) < np.where(np.arange(7) < 4, 0.5, 0.7)
    table = by_hand(np.where(knows_NM, labels_N[:, None], guess_NM), num_options=[4] * 1500)
    coin, full = (learned(table, confusion) for confusion in CONFUSIONS)
    assert full.matrices_ is not None
    expected_KK = 0.5 * np.eye(4) + 0.5 * (np.arange(4) == 0)
    assert np.abs(full.matrices_[:4] - expected_KK).max() < 0.08  # rows are shares of about 375 questions
    right = [share_right(fuser.fuse(table, everyone(table)), labels_N) for fuser in (coin, full)]
    assert right[1] > right[0] + 0.01


def test_open_answers_without_labels() -> None:
    """Wrong answers are any of six, of which the table only shows those given; p and the six are found without it.

    Two wrong answers agree one time in six: 1 / (1 + t) for t = 5.
    """
    rng = np.random.default_rng(2)
    p_M = np.array([0.25, 0.3, 0.4, 0.5, 0.6, 0.8])
    shape = (800, 6)
    said_NM = np.where(rng.random(shape) < p_M, 0, rng.integers(1, 7, shape))
    answers, options = [], []
    for row in said_NM.tolist():
        places: dict[int, int] = {}
        answers.append([places.setdefault(said, len(places)) for said in row])
        options.append([str(said) for said in places])
    table = by_hand(answers, options=options)
    fuser = learned(table)
    assert np.abs(competence(fuser) - p_M).max() < 0.07
    assert fuser.concentration_ == pytest.approx(5, rel=0.3)
    labels_N = np.array([row.index("0") if "0" in row else -2 for row in options])
    found, majority = (method.fuse(table, everyone(table)) for method in (fuser, Vote()))
    assert share_right(found, labels_N) > share_right(majority, labels_N) + 0.03
    assert found.confidence is not None
    assert abs(found.confidence.mean() - share_right(found, labels_N)) < 0.04


# ---- labels are for ties alone


@pytest.mark.parametrize("confusion", CONFUSIONS)
def test_labels_change_nothing_that_is_learned(confusion: Literal["one_coin", "full"]) -> None:
    table = planted(5, P[:5])
    wrong = PredictionTable(
        question_ids=table.question_ids,
        agents=table.agents,
        answers=table.answers,
        num_options=table.num_options,
        labels=(table.require_labels() + 1) % 4,
    )
    expected = learned(table.blind(), confusion)
    for labelled in (table, wrong):
        found = learned(labelled, confusion)
        tables.equal(competence(found), competence(expected))
        assert (found.matrices_ is None) == (expected.matrices_ is None)
        if found.matrices_ is not None and expected.matrices_ is not None:
            tables.equal(found.matrices_, expected.matrices_)


def test_ties_follow_the_competence_where_there_are_no_labels() -> None:
    """a and b weigh the same by hand: labels say that b is better, without them a is the first of equals."""
    answers = [[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]
    table = by_hand([[0, 1, -1]], num_options=[2])
    blind = by_hand(answers)
    fuser = learned(blind)
    tables.equal(np.asarray(fuser.accuracies_), competence(fuser))
    fuser.competence_ = np.array([0.6, 0.6, 0.7])
    assert fuser.fuse(table, everyone(table)).answers.tolist() == [0]
    labelled = learned(by_hand(answers, [0, 1, 1, 0]))
    labelled.competence_ = np.array([0.6, 0.6, 0.7])
    assert labelled.fuse(table, everyone(table)).answers.tolist() == [1]


def test_only_selected_agents_are_learned_from() -> None:
    table = planted(7, P)
    selection = Selection(np.tile(np.arange(7) < 4, (600, 1)))
    found = DawidSkene().fit(table, selection)
    again = DawidSkene().fit(tables.noise(table, ~selection.mask, 1), selection)
    tables.equal(competence(found), competence(again))
    np.testing.assert_allclose(competence(found)[4:], 1 / 4)  # chance, of four options


def test_nobody_heard_and_single_options_teach_nothing() -> None:
    for answers, options in (([[-1, -1]], [3]), ([[0, 0], [0, 0]], [1, 1])):
        table = by_hand(answers, num_options=options)
        for confusion in CONFUSIONS:
            fuser = learned(table, confusion)
            np.testing.assert_allclose(competence(fuser), 1 / max(options[0], 2))
            decision = fuser.fuse(table, everyone(table))
            assert decision.answers.tolist() == [row[0] for row in answers]
            assert decision.confidence is not None
            assert decision.confidence.tolist() == [float(row[0] >= 0) for row in answers]


def test_refuses() -> None:
    table = by_hand([[0, 1]])
    with pytest.raises(InvalidTable, match="no questions"):
        learned(table.rows(slice(0, 0)))
    with pytest.raises(NotFitted, match=r"dawid_skene .* call fit"):
        DawidSkene().fuse(table, everyone(table))
    with pytest.raises(TableMismatch, match="missing b"):
        learned(table).fuse(table.columns("a"), everyone(table.columns("a")))
    assert not DawidSkene().positional
    assert DawidSkene(confusion="full").positional


@pytest.mark.parametrize("confusion", CONFUSIONS)
def test_recorded_answers(recorded_data: Path, confusion: Literal["one_coin", "full"]) -> None:
    """24 models that err together: the order of their accuracies is nearly found, the level is not."""
    fit, test = split(read_table(recorded_data / "mmlu_pro" / "predictions.csv.gz"))
    fuser = learned(fit.blind(), confusion)
    assert np.isfinite(competence(fuser)).all()
    assert np.corrcoef(competence(fuser), fit.accuracies)[0, 1] > 0.8
    assert competence(fuser).mean() > fit.accuracies.mean() + 0.05
    decision = fuser.fuse(test.blind(), everyone(test))
    assert decision.confidence is not None
    assert np.isfinite(decision.confidence).all()
    assert 0.58 < share_right(decision, test.require_labels()) < 0.65
