"""The fusers one by one: examples worked by hand, and votes counted again the slow way."""

from collections import defaultdict

import numpy as np
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import by_hand, everyone, random_table

from fusion import discovery
from fusion.data import PredictionTable
from fusion.errors import InvalidSpec, InvalidTable, NotFitted, TableMismatch
from fusion.fusers.mean_probability import MeanProbability
from fusion.fusers.sample_vote import SampleVote
from fusion.fusers.vote import Vote
from fusion.fusers.weighted_vote import POWERS, WeightedVote
from fusion.schema import Selection

# Right answers are 0. a is right on 1 of 4, b on 3, c on 2, d on 3.
FIT = by_hand([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 0]], [0, 0, 0, 0])


# ---- vote


def test_vote_counts_and_ignores_abstentions() -> None:
    """Row 0: two say 1. Row 1: b, c and d abstain, a alone says 2. Row 2: nobody answers."""
    table = by_hand([[0, 1, 1, 2], [2, -1, -1, -1], [-1, -1, -1, -1]])
    decision = Vote().fuse(table, everyone(table))
    assert decision.answers.tolist() == [1, 2, -1]
    assert decision.probs is not None
    assert decision.probs.tolist() == [[0.25, 0.5, 0.25], [0, 0, 1], [0, 0, 0]]


def test_vote_counts_only_who_is_selected() -> None:
    table = by_hand([[0, 1, 1]])
    assert Vote().fuse(table, Selection(np.array([[True, True, False]]))).answers.tolist() == [0]


def test_ties_go_to_the_most_accurate_agent_then_by_pool_order() -> None:
    """Fitted, b and d are best, b first in the pool, then c, then a. Unfitted it is a, b, c, d.

    Row 0: 0 (a, c) ties with 1 (b, d): fitted b decides, unfitted a. Row 1: four different ones: b, or a. Row 2: d,
    which is as accurate as b, against c. Row 3: 0 and 1 tie, and b, who is best, chose 2, which does not: d, or a.
    """
    table = by_hand(
        [[0, 1, 0, 1, -1, -1], [3, 2, 1, 0, -1, -1], [-1, -1, 2, 1, -1, -1], [0, 2, 0, 1, 1, -1]],
        num_options=[4] * 4,
    )
    fit = by_hand(np.hstack([FIT.answers, np.ones((4, 2), dtype=int)]), [0] * 4)
    assert Vote().fuse(table, everyone(table)).answers.tolist() == [0, 3, 2, 0]
    assert Vote().fit(fit, everyone(fit)).fuse(table, everyone(table)).answers.tolist() == [1, 2, 1, 1]


def test_the_agent_that_settles_a_tie_is_one_that_is_selected() -> None:
    """b, the most accurate, backs 1, but is not selected: d settles 0 against 1 for 0."""
    table = by_hand([[1, 1, -1, 0]])
    selection = Selection(np.array([[True, False, True, True]]))
    assert Vote().fit(FIT, everyone(FIT)).fuse(table, selection).answers.tolist() == [0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), agents=st.integers(1, 6), options=st.integers(1, 4))
def test_vote_is_the_plurality(seed: int, agents: int, options: int) -> None:
    """Counted again question by question, ties included."""
    pool = tables.AGENTS[:agents]
    fit, table = (random_table(seed + i, questions=24, agents=pool, options=options) for i in (0, 1))
    selection = tables.some(table, seed)
    expected = slow_votes(table, selection, [1.0] * agents, fit)
    assert Vote().fit(fit, everyone(fit)).fuse(table, selection).answers.tolist() == expected


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), weights=st.sampled_from(["power", "accuracy"]))
def test_weighted_vote_is_the_weighted_plurality(seed: int, weights: str) -> None:
    fit, table = random_table(seed, questions=24), random_table(seed + 1, questions=24)
    selection = tables.some(table, seed)
    fuser = WeightedVote(weights=weights).fit(fit, everyone(fit))  # type: ignore[arg-type]  # drawn from its choices
    right_M, answered_M = fit.correct.sum(axis=0), fit.answered.sum(axis=0)
    competence = [(r + 1) / (n + 5) for r, n in zip(right_M.tolist(), answered_M.tolist(), strict=True)]
    power = fuser.power_ if weights == "power" else 1.0
    assert fuser.fuse(table, selection).answers.tolist() == slow_votes(
        table, selection, [p**power for p in competence], fit
    )


def slow_votes(table: PredictionTable, selection: Selection, weights: list[float], fit: PredictionTable) -> list[int]:
    ranked = sorted(range(fit.num_agents), key=lambda j: -fit.accuracies[j])
    found = []
    for row, mask in zip(table.answers.tolist(), selection.mask.tolist(), strict=True):
        totals: dict[int, float] = defaultdict(float)
        for answer, heard, weight in zip(row, mask, weights, strict=True):
            if heard and answer >= 0:
                totals[answer] += weight
        best = [k for k, total in totals.items() if total > max(totals.values()) - 1e-12]
        found.append(next((row[j] for j in ranked if mask[j] and row[j] in best), -1))
    return found


# ---- weighted_vote

# Seven questions with three options. With one right and two wrong answers added, a is right on 6 of 10, b and c on 5 of
# 10, d on 4 of 10, e on 3 of 10.
ODDS_FIT = by_hand(
    [[0 if n < right else 1 + n % 2 for right in (5, 4, 4, 3, 2)] for n in range(7)], [0] * 7, num_options=[3] * 7
)


def log_odds() -> WeightedVote:
    return WeightedVote(weights="log_odds").fit(ODDS_FIT, everyone(ODDS_FIT))


def test_log_odds_with_three_options() -> None:
    """log p - log(1 - p) + log 2: a log 3, b and c log 2, d log 4/3, e log 6/7.

    b and c together have log 4 and beat a, with log 3; in probabilities 4 : 3. d, though right on less than half,
    counts for its answer; e, below chance (1/3), counts against: with d it has log 8/7, less than d alone.
    """
    table = by_hand(
        [[0, 1, 1, -1, -1], [0, -1, -1, 1, -1], [-1, -1, -1, 1, -1], [-1, -1, -1, 0, 1], [-1, 0, -1, 1, 1]],
        num_options=[3] * 5,
    )
    decision = log_odds().fuse(table, everyone(table))
    assert decision.answers.tolist() == [1, 0, 1, 0, 0]
    expected = [[3 / 7, 4 / 7, 0], [9 / 13, 4 / 13, 0], [0, 1, 0], [14 / 23, 9 / 23, 0], [7 / 11, 4 / 11, 0]]
    np.testing.assert_allclose(decision.probs, expected, rtol=1e-6)  # probabilities are float32


def test_log_odds_depend_on_the_number_of_options_of_the_question() -> None:
    """With two options the last term is log 1 = 0: a has log 3/2, b and c 0: 3 : 2. With one there is no choice."""
    table = by_hand([[0, 1, 1, -1, -1], [0, 0, -1, -1, 0]], num_options=[2, 1])
    decision = log_odds().fuse(table, everyone(table))
    assert decision.answers.tolist() == [0, 0]
    assert decision.probs is not None
    np.testing.assert_allclose(decision.probs[0], [0.6, 0.4], rtol=1e-6)


def test_an_option_that_nobody_chose_does_not_win() -> None:
    """e alone counts against its answer, log 6/7 < 0, and yet there is no other to prefer to it."""
    table = by_hand([[-1, -1, -1, -1, 2]], num_options=[3])
    decision = log_odds().fuse(table, everyone(table))
    assert decision.answers.tolist() == [2]
    assert decision.probs is not None
    assert decision.probs.tolist() == [[0, 0, 1]]


def test_log_odds_of_a_large_pool_do_not_overflow() -> None:
    """200 agents with log odds of 6.9 each: e^1380 is beyond what a float holds. 101 against 99 are ahead by e^13.8."""
    fuser = WeightedVote(weights="log_odds")
    fuser.agents_ = tuple(f"agent {j}" for j in range(200))
    fuser.competence_ = np.full(200, 0.999)
    table = tables.renamed(random_table(1, questions=1, agents=[f"{j}" for j in range(200)]), fuser.agents_)
    votes_NM = np.array([[0] * 101 + [1] * 99])
    table = tables.without(tables.answering(table, votes_NM), "probs", "sample_answers")
    decision = fuser.fuse(table, everyone(table))
    assert decision.answers.tolist() == [0]
    assert decision.probs is not None
    assert decision.probs[0, 0] == pytest.approx(1, abs=1e-5)


def test_accuracy_weights() -> None:
    """a has 0.6, b and c 0.5 each, d 0.4, e 0.3: b and e outweigh a, 0.8 : 0.6; d and e only just, 0.7 : 0.6; e not."""
    table = by_hand([[0, 1, -1, -1, 1], [0, -1, -1, 1, 1], [0, -1, -1, -1, 1]], num_options=[3] * 3)
    fuser = WeightedVote(weights="accuracy").fit(ODDS_FIT, everyone(ODDS_FIT))
    decision = fuser.fuse(table, everyone(table))
    assert decision.answers.tolist() == [1, 1, 0]
    np.testing.assert_allclose(decision.probs[0], [0.6 / 1.4, 0.8 / 1.4, 0], rtol=1e-6)  # type: ignore[index]


def test_the_power_is_the_smallest_that_gets_most_right() -> None:
    """a is right on 4 of 4, b and c on the same 2: competences 5/6, 1/2, 1/2 (K = 2).

    Where b and c are wrong together a outvotes them when (5/6)^x > 2 (1/2)^x, x > log 2 / log(5/3) = 1.36: the smallest
    power on the list above that is 1.5. Accuracy weights (x = 1) leave a in the minority.
    """
    fit = by_hand([[0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 0]], [0] * 4)
    fuser = WeightedVote().fit(fit, everyone(fit))
    assert fuser.power_ == 1.5
    assert fuser.fuse(fit, everyone(fit)).answers.tolist() == [0, 0, 0, 0]
    plain = WeightedVote(weights="accuracy").fit(fit, everyone(fit))
    assert plain.fuse(fit, everyone(fit)).answers.tolist() == [1, 1, 0, 0]


def test_the_power_is_chosen_for_the_selected_agents() -> None:
    """Without c, a and b tie where they differ, and a, the better one, decides at any power: 0, the plain vote."""
    fit = by_hand([[0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 0]], [0] * 4)
    selection = Selection(np.array([[True, True, False]] * 4))
    assert WeightedVote().fit(fit, selection).power_ == 0.0


def test_power_zero_is_the_plain_vote_and_a_large_one_follows_the_best() -> None:
    table = random_table(3)
    fit = random_table(4)
    for power, reference in ((0.0, None), (32.0, int(fit.accuracies.argmax()))):
        fuser = WeightedVote().fit(fit, everyone(fit))
        fuser.power_ = power
        answers_N = fuser.fuse(table, everyone(table)).answers
        if reference is None:
            tables.equal(answers_N, Vote().fit(fit, everyone(fit)).fuse(table, everyone(table)).answers)
        else:
            best_N = table.answers[:, reference]
            assert (answers_N == best_N)[best_N >= 0].mean() > 0.8
    assert min(POWERS) == 0
    assert list(POWERS) == sorted(POWERS)


def test_small_weights_are_no_ties() -> None:
    """0.3^32 is 1.9e-17. b and c agree with 0.298 each: together 2 (0.298 / 0.3)^32 = 1.6146 times as much."""
    fuser = WeightedVote().fit(by_hand([[0, 0, 0]], [0]), everyone(by_hand([[0, 0, 0]])))
    fuser.competence_, fuser.power_ = np.array([0.3, 0.298, 0.298]), 32.0
    table = by_hand([[0, 1, 1]])
    decision = fuser.fuse(table, everyone(table))
    assert decision.answers.tolist() == [1]
    np.testing.assert_allclose(decision.probs, [[0.3825, 0.6175]], atol=1e-4)


def test_sums_in_another_order_still_tie() -> None:
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit; the option of a, which is first, wins either way."""
    for answers in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]):
        fuser = WeightedVote(weights="accuracy")
        fuser.agents_, fuser.competence_ = tuple("abcdef"), np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
        table = by_hand([answers])
        assert fuser.fuse(table, everyone(table)).answers.tolist() == [answers[0]]


def test_an_agent_that_never_answered_stands_at_chance() -> None:
    """(0 + 1) / (0 + 4): 1/4 of 4 options, log odds 0; it then counts for nothing, not for NaN."""
    fit = by_hand([[0, -1], [0, -1]], [0, 0], num_options=[4, 4])
    fuser = WeightedVote(weights="log_odds").fit(fit, everyone(fit))
    assert fuser.competence_ is not None
    assert fuser.competence_.tolist() == [0.5, 0.25]
    table = by_hand([[1, 2], [-1, 3]], num_options=[4, 4])
    assert fuser.fuse(table, everyone(table)).answers.tolist() == [1, 3]


def test_abstaining_does_not_lower_the_weight_of_the_answers_given() -> None:
    """a answers 2 of 4, both right: (2 + 1) / (2 + 2). b answers 4, 3 of them right: (3 + 1) / (4 + 2)."""
    fit = by_hand([[0, 0], [0, 0], [-1, 0], [-1, 1]], [0] * 4)
    fuser = WeightedVote(weights="accuracy").fit(fit, everyone(fit))
    np.testing.assert_allclose(fuser.competence_, [3 / 4, 4 / 6])  # type: ignore[arg-type]  # it is fitted


def test_agents_of_another_table_are_refused() -> None:
    for fuser in (Vote(), WeightedVote()):
        fuser.fit(FIT, everyone(FIT))
        with pytest.raises(TableMismatch, match="missing d"):
            fuser.fuse(FIT.columns(tuple("abc")), everyone(FIT.columns(tuple("abc"))))
    with pytest.raises(NotFitted, match=r"weighted_vote .* call fit"):
        WeightedVote().fuse(FIT, everyone(FIT))


# ---- mean_probability


def with_probs(probs: list[list[list[float]]], **fields: object) -> PredictionTable:
    probs_NMK = np.array(probs)
    ids = [f"q{n}" for n in range(len(probs_NMK))]
    return PredictionTable(question_ids=ids, agents=tuple("abcdefgh"[: probs_NMK.shape[1]]), probs=probs_NMK, **fields)  # type: ignore[arg-type]


SURE_AGAINST_MANY = with_probs([[[0.99, 0.01], [0.3, 0.7], [0.3, 0.7], [0.3, 0.7]]])


def test_arithmetic_mean() -> None:
    """(0.99 + 3 * 0.3) / 4 = 0.4725 against 0.5275: the three win."""
    decision = MeanProbability().fuse(SURE_AGAINST_MANY, everyone(SURE_AGAINST_MANY))
    assert decision.answers.tolist() == [1]
    np.testing.assert_allclose(decision.probs, [[0.4725, 0.5275]], rtol=1e-6)


def test_geometric_mean_listens_to_the_sure_one() -> None:
    """0.99 * 0.3^3 = 0.02673 against 0.01 * 0.7^3 = 0.00343, 7.793 to 1; its fourth root is 1.6708, hence 0.6256."""
    decision = MeanProbability(mean="geometric").fuse(SURE_AGAINST_MANY, everyone(SURE_AGAINST_MANY))
    assert decision.answers.tolist() == [0]
    np.testing.assert_allclose(decision.probs, [[0.6256, 0.3744]], atol=1e-4)


def test_the_floor_keeps_a_zero_from_being_a_veto() -> None:
    """a rules out 0; b and c are nearly sure of it. With a floor of 0.1, 0.1 * 0.81 against 1 * 0.01: 0 wins.

    With the default floor of 1e-6 the product for 0 is 8.1e-7, against 1e-2: the veto stands.
    """
    table = with_probs([[[0, 1], [0.9, 0.1], [0.9, 0.1]]])
    assert MeanProbability(mean="geometric", floor=0.1).fuse(table, everyone(table)).answers.tolist() == [0]
    assert MeanProbability(mean="geometric").fuse(table, everyone(table)).answers.tolist() == [1]


def test_weights_by_power_of_accuracy() -> None:
    """a is right on 4 of 4, b and c on the same 2: competences 5/6, 1/2, 1/2; all are equally sure, 0.9.

    The mean is 0.1 + 0.8 * share of the weight, so it follows the weighted vote: the smallest power on the list above
    1.36 (see the vote) is 2. On a new question the weights are 25/36 and 9/36 twice: 0.1 + 0.8 * 25/43 = 0.5651 for a.
    """
    says = {0: [0.9, 0.1], 1: [0.1, 0.9]}
    rows = [[0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    fit = with_probs([[says[k] for k in row] for row in rows], labels=[0] * 4)
    fuser = MeanProbability(weights="power").fit(fit, everyone(fit))
    assert fuser.power_ == 2.0
    decision = fuser.fuse(fit, everyone(fit))
    assert decision.answers.tolist() == [0, 0, 0, 0]
    assert decision.probs is not None
    np.testing.assert_allclose(decision.probs[0], [0.1 + 0.8 * 25 / 43, 0.1 + 0.8 * 18 / 43], rtol=1e-6)
    assert MeanProbability().fit(fit, everyone(fit)).fuse(fit, everyone(fit)).answers.tolist() == [1, 1, 0, 0]
    with pytest.raises(NotFitted, match="mean_probability"):
        MeanProbability(weights="power").fuse(fit, everyone(fit))


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_ties_of_options_that_nobody_likes_best(mean: str) -> None:
    """a: 0.4, 0.35, 0.25, 0. b: 0, 0.25, 0.35, 0.4. Options 1 and 2 tie, 0.3 each (0.2958 in the geometric mean).

    a, first in the pool, finds 1 likelier of the two; with the options the other way round it is the same one, now 2.
    """
    a, b = [0.4, 0.35, 0.25, 0.0], [0.0, 0.25, 0.35, 0.4]
    table = with_probs([[a, b], [a[::-1], b[::-1]]])
    fuser = MeanProbability(mean=mean)  # type: ignore[arg-type]  # one of its choices
    assert fuser.fuse(table, everyone(table)).answers.tolist() == [1, 2]
    turned = table.columns(tuple("ba"))
    assert fuser.fuse(turned, everyone(turned)).answers.tolist() == [2, 1]


def test_ties_on_paper_are_ties_in_float32() -> None:
    """0.7 + 0.4 + 0.4 = 0.3 + 0.6 + 0.6, though not in float32; a, the first, says 0."""
    table = with_probs([[[0.7, 0.3], [0.4, 0.6], [0.4, 0.6]]])
    assert MeanProbability().fuse(table, everyone(table)).answers.tolist() == [0]


def test_agents_that_answer_without_probabilities_still_break_ties() -> None:
    """Neither a nor b says how sure it is: their answers are all there is, and a comes first."""
    table = PredictionTable(question_ids=["q"], agents=["a", "b"], answers=[[2, 1]], probs=np.zeros((1, 2, 3)))
    assert MeanProbability().fuse(table, everyone(table)).answers.tolist() == [2]


def test_probabilities_are_required() -> None:
    with pytest.raises(InvalidTable, match="votes only; use vote"):
        MeanProbability().fuse(FIT, everyone(FIT))
    with pytest.raises(InvalidTable, match="votes only; use vote"):
        MeanProbability().fit(FIT, everyone(FIT))


# ---- sample_vote


def with_samples(samples: list[list[list[int]]], **fields: object) -> PredictionTable:
    samples_NMR = np.array(samples)
    ids = [f"q{n}" for n in range(len(samples_NMR))]
    agents = tuple("abcdefgh"[: samples_NMR.shape[1]])
    return PredictionTable(question_ids=ids, agents=agents, sample_answers=samples_NMR, **fields)  # type: ignore[arg-type]


def test_sample_vote_of_one_agent() -> None:
    """Self-consistency: 1 has three of five samples; of the first two, 0 and 1 tie, and the earlier one, 0, wins."""
    table = with_samples([[[0, 1, 1, -1, 1]]])
    everybody = everyone(table)
    decision = SampleVote().fuse(table, everybody)
    assert (decision.answers.tolist(), decision.samples) == ([1], 5)
    assert decision.probs is not None
    assert decision.probs.tolist() == [[0.25, 0.75]]
    for samples in (1, 2):
        decision = SampleVote(samples=samples).fuse(table, everybody)
        assert (decision.answers.tolist(), decision.samples) == ([0], samples)


def test_sample_vote_over_agents() -> None:
    """Row 0: 2 has three votes of six. Row 1: 0 and 1 tie; b is the better agent, and its first sample that ties is 1.

    Row 2: a alone is selected. Row 3: nobody said anything.
    """
    fit = by_hand([[1, 0], [0, 0]], [0, 0], sample_answers=np.zeros((2, 2, 3), dtype=int))
    table = with_samples(
        [
            [[0, 2, 2], [1, 1, 2]],
            [[0, 0, -1], [-1, 1, 1]],
            [[2, 1, 2], [1, 1, 1]],
            [[-1, -1, -1], [-1, -1, -1]],
        ]
    )
    mask_NM = np.ones((4, 2), dtype=bool)
    mask_NM[2, 1] = False
    fuser = SampleVote().fit(fit, everyone(fit))
    assert fuser.fuse(table, Selection(mask_NM)).answers.tolist() == [2, 1, 2, -1]


@pytest.mark.parametrize("samples", [None, 4])
def test_sample_vote_needs_samples(samples: int | None) -> None:
    with pytest.raises(InvalidTable, match="samples"):
        SampleVote(samples=samples).fuse(FIT, everyone(FIT))
    table = with_samples([[[0, 1, 1]]])
    with pytest.raises(InvalidTable, match=r"samples=4\) needs that many samples, the table has 3"):
        SampleVote(samples=4).fuse(table, everyone(table))


@pytest.mark.parametrize(
    "text",
    ["weighted_vote(weights=best)", "mean_probability(floor=0)", "sample_vote(samples=0)", "mean_probability(floor=1)"],
)
def test_parameters_are_checked(text: str) -> None:
    with pytest.raises(InvalidSpec):
        discovery.build("fusers", text)


def test_parameters_at_the_edge() -> None:
    assert discovery.build("fusers", "sample_vote(samples=1)") == SampleVote(samples=1)
    assert discovery.build("fusers", "mean_probability(floor=1e-300)") == MeanProbability(floor=1e-300)


class TestSettled:
    """When the votes that are still to come cannot matter; every case can be counted on the fingers."""

    @pytest.mark.parametrize(
        ("votes", "pending", "expected"),
        [
            ([0, 0, 0, 0, -1], [4], True),  # 4 : 0 with one to come
            ([0, 0, 1, -1, -1], [3, 4], False),  # 2 : 1 with two to come
            ([0, 0, -1, -1, -1], [2, 3, 4], False),  # a third option may get three
            ([0, 0, 0, -1, -1], [3, 4], True),  # 3 : 0 with two to come
            ([0, 0, 1, -1, -1], [4], False),  # 2 : 1 with one to come may tie, and a tie may go the other way
            ([0, 0, 0, 1, -1], [4], True),  # 3 : 1 with one to come
            ([-1, -1, -1, -1, -1], [0], False),  # nothing was said yet
            ([-1, -1, -1, -1, -1], [], True),  # nobody will say anything
        ],
    )
    def test_plain_vote(self, votes: list[int], pending: list[int], expected: bool) -> None:
        table = by_hand([votes], num_options=[4])
        pending_NM = np.isin(np.arange(5), pending)[None]
        assert Vote().settled(table, everyone(table), pending_NM).tolist() == [expected]

    def test_who_is_not_selected_does_not_count(self) -> None:
        table = by_hand([[0, 1, 1, -1]], num_options=[3])
        only_first = Selection(np.array([[True, False, False, False]]))
        assert Vote().settled(table, only_first, np.array([[False, False, False, True]])).all()

    def test_heavy_votes_settle_sooner(self) -> None:
        """Smoothed accuracies (right + 1) / (answered + 2) are 9/10, 5/10, 5/10: 0.9 > 0.5, but not > 0.5 + 0.5."""
        fit = by_hand([[0, 0, 0]] * 4 + [[0, 1, 1]] * 4, labels=[0] * 8, num_options=[2] * 8)
        fuser = WeightedVote(weights="accuracy").fit(fit, everyone(fit))
        table = by_hand([[0, -1, -1]], num_options=[2])
        assert fuser.settled(table, everyone(table), np.array([[False, False, True]])).tolist() == [True]
        assert fuser.settled(table, everyone(table), np.array([[False, True, True]])).tolist() == [False]

    def test_a_negative_vote_for_the_leader_counts_too(self) -> None:
        """Log odds of an agent that is right 1 time in 10 with two options: its vote for the leader would hurt it."""
        fit = by_hand([[0, 1]] * 8, labels=[0] * 8, num_options=[2] * 8)
        fuser = WeightedVote(weights="log_odds").fit(fit, everyone(fit))
        table = by_hand([[0, -1]], num_options=[2])
        assert fuser.settled(table, everyone(table), np.array([[False, True]])).tolist() == [False]
