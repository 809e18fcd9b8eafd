"""Calibration: hand-worked cases, an independent plain implementation, properties and simulated guarantees.

A guarantee "at most delta" is simulated with DRAWS calibration sets; the share that breaks it may exceed delta
by three binomial standard errors, so a sound method fails one in 700 seeds (the seed is fixed). Worlds are
built so that a wrong method would show: the risk asked for is just below the true risk of some threshold.
"""

import math
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fusion.calibration import calibration_error, risk_coverage, threshold_at_risk
from fusion.errors import UsageError
from fusion.significance import wilson_interval

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
DRAWS = 2000
DELTA = 0.05
ALLOWED = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)

# Few distinct confidences make ties; the others make none.
DECISIONS = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0]), st.floats(0, 1)), st.booleans()),
    min_size=1,
    max_size=80,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def arrays(decisions: Iterable[tuple[float, bool]]) -> tuple[FloatArray, BoolArray]:
    confidences, rights = zip(*decisions, strict=True)
    return np.array(confidences, dtype=np.float64), np.array(rights, dtype=np.bool_)


def decided(*groups: tuple[float, int, int]) -> tuple[FloatArray, BoolArray]:
    """Return decisions from (confidence, how many are right, how many are wrong)."""
    return arrays(
        (confidence, right) for confidence, rights, wrongs in groups for right in [True] * rights + [False] * wrongs
    )


# ------------------------------------------------------------------------------------- calibration error


def test_calibration_error_by_hand() -> None:
    """0.6 twice, both right: gap 1 - 0.6 = 0.4. 0.9 four times, three right: gap 0.75 - 0.9 = -0.15.

    ECE = 2/6 * 0.4 + 4/6 * 0.15 = 7/30. Debiased: (2 * (0.16 - 0) + 4 * (0.0225 - 0.75 * 0.25 / 3)) / 6 =
    (0.32 - 0.16) / 6 = 2/75. Brier: (2 * 0.16 + 3 * 0.01 + 0.81) / 6 = 1.16 / 6.
    """
    found = calibration_error(*decided((0.9, 3, 1), (0.6, 2, 0)), bins=2, rng=rng())
    assert found.ece == pytest.approx(7 / 30, rel=1e-12)
    assert found.squared_debiased == pytest.approx(2 / 75, rel=1e-12)
    assert found.rms_debiased == pytest.approx(math.sqrt(2 / 75), rel=1e-12)
    assert found.brier == pytest.approx(1.16 / 6, rel=1e-12)
    low, high = found.table
    assert low[:5] == pytest.approx((0.6, 0.6, 0.6, 1.0, 2))
    assert high[:5] == pytest.approx((0.9, 0.9, 0.9, 0.75, 4))
    assert (low.interval, high.interval) == (wilson_interval(2, 2), wilson_interval(3, 4))


def test_debiasing_of_unequal_confidences_by_hand() -> None:
    """0.5 right and 0.7 wrong: surpluses 0.5 and -0.7 have mean -0.1 and variance 0.72; 0.01 - 0.36 = -0.35."""
    found = calibration_error([0.5, 0.7], [True, False], bins=1, rng=rng())
    assert found.squared_debiased == pytest.approx(-0.35, rel=1e-12)
    assert found.rms_debiased == 0.0
    assert found.ece == pytest.approx(0.1, rel=1e-12)


def test_one_decision() -> None:
    """0.5 and right: ECE 0.5; the noise cannot be told from it, so no debiased estimate and any error is possible."""
    found = calibration_error([0.5], [True], rng=rng())
    assert (found.ece, found.interval, found.squared_debiased, found.rms_debiased) == (0.5, (0.0, 1.0), None, None)


def test_a_lonely_question_is_left_out_of_the_debiased_estimate() -> None:
    """A bin of 0.1 alone and one of 0.9, 0.9 right and wrong: 0.4^2 - 0.5 * 0.5 / 1 = -0.09 over the latter."""
    found = calibration_error(*decided((0.1, 0, 1), (0.9, 1, 1)), bins=3, rng=rng())
    assert [row.n for row in found.table] == [1, 2]
    assert found.squared_debiased == pytest.approx(-0.09, rel=1e-12)


def test_interval_by_hand() -> None:
    """300 of 400 right at confidence 0.5: ECE 0.25, and the right answers are binomial.

    Wilson's centre is (300 + 1.9207) / (400 + 3.8415) = 0.74762, the standard error of a share 0.02172. The
    97.5 % quantile of |noise| is 2.2414 of these, of noise 1.96; shares come in steps of 0.0025.
    """
    low, high = calibration_error(*decided((0.5, 300, 100)), repeats=100_000, rng=rng()).interval
    assert low == pytest.approx(0.25 - 2.2414 * 0.02172, abs=0.0025)
    assert high == pytest.approx(0.25 + 1.9600 * 0.02172, abs=0.0025)


def plain_ece(confidences: list[float], rights: list[bool], bins: int) -> float:
    """Expected calibration error in loops: the middle rank of each confidence says which bin it goes to."""
    members = defaultdict(list)
    for confidence, right in zip(confidences, rights, strict=True):
        below = sum(other < confidence for other in confidences)
        same = sum(other == confidence for other in confidences)
        members[math.floor(bins * (2 * below + same) / (2 * len(rights)))].append((confidence, right))
    total = 0.0
    for inside in members.values():
        total += abs(sum(right for _, right in inside) - math.fsum(confidence for confidence, _ in inside))
    return total / len(rights)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(decisions=DECISIONS, bins=st.integers(1, 20))
def test_calibration_error_agrees_with_loops_and_ignores_order(decisions: list[tuple[float, bool]], bins: int) -> None:
    confidence_N, correct_N = arrays(decisions)
    found = calibration_error(confidence_N, correct_N, bins=bins, repeats=100, rng=rng())
    expected = plain_ece(confidence_N.tolist(), correct_N.tolist(), bins)
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert sum(row.n for row in found.table) == len(decisions)
    assert all(left.high < right.low for left, right in pairwise(found.table))
    assert all(row.low - 1e-12 <= row.confidence <= row.high + 1e-12 for row in found.table)
    assert 0.0 <= found.interval.low <= found.ece + 1e-12
    assert found.ece - 1e-12 <= found.interval.high <= 1.0
    moved_N = rng(1).permutation(len(decisions))
    moved = calibration_error(confidence_N[moved_N], correct_N[moved_N], bins=bins, repeats=100, rng=rng())
    assert moved == found


def test_bins_without_ties_have_equal_mass() -> None:
    found = calibration_error(rng().random(1000), rng(1).random(1000) < 0.5, rng=rng())
    assert {row.n for row in found.table} == {66, 67}
    assert len(found.table) == 15


def test_inputs_stay_as_they_were() -> None:
    confidence_N, correct_N = np.array([0.9, 0.1, 0.5]), np.array([True, False, True])
    calibration_error(confidence_N, correct_N, rng=rng())
    threshold_at_risk(confidence_N, correct_N, risk=0.5)
    risk_coverage(confidence_N, correct_N)
    assert confidence_N.tolist() == [0.9, 0.1, 0.5]
    assert correct_N.tolist() == [True, False, True]


@pytest.mark.parametrize("over", [0.0, 0.1])
def test_debiased_estimate_is_unbiased_and_plug_in_is_not(over: float) -> None:
    """Confidences uniform in four levels, accuracy lower by `over` throughout: the truth is over^2, and over.

    Four standard errors of the mean over 500 draws are allowed; the plug-in misses by more than ten where it
    is most biased, at over = 0.
    """
    generator = rng(1)
    level_N = np.tile([0.4, 0.6, 0.8, 0.9], 25)
    found = [
        calibration_error(level_N, generator.random(100) < level_N - over, bins=4, repeats=100, rng=rng())
        for _ in range(500)
    ]
    squared = np.array([one.squared_debiased for one in found], dtype=np.float64)
    assert squared.mean() == pytest.approx(over**2, abs=4 * stats.sem(squared))
    plug_in = np.array([one.ece for one in found])
    assert plug_in.mean() > over + (10 if over == 0.0 else 3) * stats.sem(plug_in)


@pytest.mark.parametrize("accuracy", [lambda s: s, lambda s: s**2, lambda s: 0.9 + 0.1 * s])
def test_interval_covers_the_binned_error(accuracy: Callable[[FloatArray], FloatArray]) -> None:
    """Calibrated, overconfident and nearly always right; a miss is allowed on either side in 2.5 % of 400 draws."""
    generator, n = rng(2), 300
    below = above = 0
    for _ in range(400):
        confidence_N = np.sort(generator.random(n))
        chance_N = accuracy(confidence_N)
        found = calibration_error(confidence_N, generator.random(n) < chance_N, repeats=200, rng=generator)
        starts_B = np.cumsum([0] + [row.n for row in found.table[:-1]])
        truth = np.abs(np.add.reduceat(chance_N - confidence_N, starts_B)).sum() / n
        below += truth < found.interval.low
        above += truth > found.interval.high
    assert max(below, above) / 400 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 400)


# ----------------------------------------------------------------------------------------- risk-coverage


def test_risk_coverage_by_hand() -> None:
    """0.9 right, 0.8 wrong and right, 0.5 wrong: risks 0 of 1, 1 of 3, 2 of 4 at coverages 1/4, 3/4, 1.

    AURC = (0 + 2 * 1/3 + 1/2) / 4 = 7/24. The best order has its errors last: (1/3 + 2/4) / 4 = 5/24.
    """
    found = risk_coverage([0.5, 0.8, 0.9, 0.8], [False, True, True, False])
    assert found.threshold_V.tolist() == [0.9, 0.8, 0.5]
    assert found.coverage_V.tolist() == [0.25, 0.75, 1.0]
    assert found.risk_V == pytest.approx([0.0, 1 / 3, 0.5], rel=1e-12)
    assert found.aurc == pytest.approx(7 / 24, rel=1e-12)
    assert found.excess_aurc == pytest.approx(2 / 24, rel=1e-12)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_leave_no_excess(right: bool) -> None:
    found = risk_coverage([0.1, 0.7, 0.7], [right] * 3)
    assert found.risk_V.tolist() == [float(not right)] * 2
    assert (found.aurc, found.excess_aurc) == (float(not right), 0.0)


def test_equal_confidences_have_the_overall_risk_as_area() -> None:
    found = risk_coverage(np.full(10, 0.5), np.arange(10) < 7)
    assert found.aurc == pytest.approx(0.3, rel=1e-12)


def test_best_order_nears_the_integral_of_the_paper() -> None:
    """Geifman et al. (2019): the best area tends to r + (1 - r) log(1 - r), at 100,000 questions within 1e-5."""
    found = risk_coverage(np.arange(100_000), np.arange(100_000) >= 30_000)
    assert found.excess_aurc == pytest.approx(0.0, abs=1e-12)
    assert found.aurc == pytest.approx(0.3 + 0.7 * math.log(0.7), abs=1e-5)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(decisions=DECISIONS)
def test_risk_coverage_agrees_with_loops(decisions: list[tuple[float, bool]]) -> None:
    confidence_N, correct_N = arrays(decisions)
    found = risk_coverage(confidence_N, correct_N)
    assert found.threshold_V.tolist() == sorted(set(confidence_N.tolist()), reverse=True)
    risks = {}
    for threshold, coverage, risk in zip(*found[:3], strict=True):
        answered_N = confidence_N >= threshold
        assert coverage == pytest.approx(answered_N.mean())
        assert risk == pytest.approx((~correct_N[answered_N]).mean())
        risks[threshold] = risk
    assert found.aurc == pytest.approx(np.mean([risks[confidence] for confidence in confidence_N]))
    assert 0.0 <= found.excess_aurc <= found.aurc <= 1.0
    # Nothing but the order counts, and the best order is the one with the errors last.
    stretched = risk_coverage(confidence_N * 4.0, correct_N)
    assert stretched.threshold_V.tolist() == (found.threshold_V * 4.0).tolist()
    assert stretched[3:] == found[3:]
    best = risk_coverage(correct_N + np.linspace(0.0, 0.5, correct_N.size), correct_N)
    assert best.excess_aurc == pytest.approx(0.0, abs=1e-12)
    assert found.aurc - found.excess_aurc == pytest.approx(best.aurc, abs=1e-12)


# ------------------------------------------------------------------------------------- threshold at risk


def test_threshold_by_hand() -> None:
    """risk 1/2, delta 1/8: three right answers are needed (2^-3), of 12 the start is max(3, min(12 / 3, ..)) = 4.

    Ranks 1 to 6 are right: at 4, 2^-4. Then wrong, right, right: at 7, (1 + 7) / 2^7 = 1/16; at 8, 9 / 256; at
    9, 10 / 512. Then wrong: at 10, (1 + 10 + 45) / 1024 = 0.055; wrong at 11: (1 + 11 + 55 + 165) / 2048 =
    0.113; wrong at 12: (1 + 12 + 66 + 220 + 495) / 4096 = 0.194 > 1/8. So 11 are answered, 3 of them wrong.
    The upper bound is the b with P(Binomial(11, b) <= 3) = 1/8.
    """
    correct_N = np.array([1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0], dtype=bool)
    found = threshold_at_risk(np.arange(12, 0, -1) / 12, correct_N, risk=0.5, delta=0.125)
    assert found[:4] == (2 / 12, 11 / 12, 11, 3 / 11)
    assert found.upper_bound is not None
    assert stats.binom.cdf(3, 11, found.upper_bound) == pytest.approx(0.125, rel=1e-9)


def test_the_first_failure_ends_the_sequence() -> None:
    """Start 4 of 12; errors at ranks 4 and 5: at 4, (1 + 4) / 16 > 1/8, though all 12 would pass, 79 / 4096."""
    correct_N = np.ones(12, dtype=bool)
    correct_N[3:5] = False
    assert stats.binom.cdf(2, 12, 0.5) < 0.125
    found = threshold_at_risk(np.arange(12, 0, -1.0), correct_N, risk=0.5, delta=0.125)
    assert found == (math.inf, 0.0, 0, None, None)


@pytest.mark.parametrize(("n", "certified"), [(58, False), (59, True)])
def test_fewest_questions_that_prove_anything(n: int, certified: bool) -> None:
    """Without an error 0.95^n <= 0.05 from n = log(0.05) / log(0.95) = 58.4 on: the rule of three."""
    found = threshold_at_risk(np.full(n, 0.5), np.ones(n, dtype=bool), risk=0.05)
    assert (found.threshold == 0.5) is certified
    assert (found.upper_bound is not None) is certified
    if certified:
        assert found.upper_bound == pytest.approx(1 - 0.05 ** (1 / 59), rel=1e-12)


def test_equal_confidences_are_answered_together() -> None:
    """Votes of three: 300 of 3 with 6 wrong pass at 0.1; with 200 of 2, 60 wrong, 66 of 500 do not."""
    found = threshold_at_risk(*decided((2 / 3, 140, 60), (1.0, 294, 6)), risk=0.1)
    assert found[:4] == (1.0, 0.6, 300, 0.02)
    assert found.upper_bound == pytest.approx(stats.beta.ppf(0.95, 7, 294), rel=1e-9)


def test_all_wrong_certifies_nothing() -> None:
    assert threshold_at_risk(np.full(100, 1.0), np.zeros(100, dtype=bool), risk=0.99).threshold == math.inf


@settings(max_examples=150, derandomize=True, deadline=None)
@given(decisions=DECISIONS, risk=st.floats(0.01, 0.99), delta=st.floats(0.01, 0.4))
def test_threshold_properties(decisions: list[tuple[float, bool]], risk: float, delta: float) -> None:
    confidence_N, correct_N = arrays(decisions)
    found = threshold_at_risk(confidence_N, correct_N, risk=risk, delta=delta)
    answered_N = confidence_N >= found.threshold
    assert found.answered == answered_N.sum()
    assert found.coverage == pytest.approx(answered_N.mean())
    if found.answered:
        assert found.upper_bound is not None
        assert found.risk is not None
        assert found.risk == pytest.approx((~correct_N[answered_N]).mean())
        assert found.risk <= found.upper_bound <= risk
    moved_N = rng(1).permutation(confidence_N.size)
    assert threshold_at_risk(confidence_N[moved_N], correct_N[moved_N], risk=risk, delta=delta) == found
    stretched = threshold_at_risk(4.0 * confidence_N, correct_N, risk=risk, delta=delta)
    assert stretched == (4.0 * found.threshold, *found[1:])
    mended_N = correct_N | (rng(2).random(correct_N.size) < 0.5)
    assert threshold_at_risk(confidence_N, mended_N, risk=risk, delta=delta).threshold <= found.threshold


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    correct=st.lists(st.sampled_from([True, True, True, True, False]), min_size=1, max_size=300),
    risks=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    deltas=st.tuples(st.floats(0.01, 0.9), st.floats(0.01, 0.9)),
)
def test_more_risk_or_delta_never_raises_the_threshold(
    correct: list[bool], risks: tuple[float, float], deltas: tuple[float, float]
) -> None:
    confidence_N = np.arange(len(correct), 0, -1.0)
    strict = threshold_at_risk(confidence_N, correct, risk=min(risks), delta=min(deltas))
    loose = threshold_at_risk(confidence_N, correct, risk=max(risks), delta=max(deltas))
    assert loose.threshold <= strict.threshold


# ------------------------------------------------------------------------------------ simulated guarantee


class World:
    """Confidences at levels[l] with weight weights[l], right with chance accuracies[l]; many levels, few ties."""

    def __init__(self, levels_V: FloatArray, weights_V: FloatArray, accuracies_V: FloatArray) -> None:
        order_V = np.argsort(-levels_V)
        self.levels_V, self.accuracies_V = levels_V[order_V], accuracies_V[order_V]
        self.weights_V = weights_V[order_V] / weights_V.sum()
        self.ends_V = np.cumsum(self.weights_V)
        self.risks_V = np.cumsum(self.weights_V * (1 - self.accuracies_V)) / self.ends_V

    def draw(self, n: int, generator: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        drawn_N = np.minimum(np.searchsorted(self.ends_V, generator.random(n)), self.levels_V.size - 1)
        return self.levels_V[drawn_N], generator.random(n) < self.accuracies_V[drawn_N]

    def risk_from(self, threshold: float) -> float:
        """Return the true risk of answering at or above the threshold; 0 where nothing is answered."""
        answered = int((self.levels_V >= threshold).sum())
        return float(self.risks_V[answered - 1]) if answered else 0.0


def smooth(accuracy: Callable[[FloatArray], FloatArray]) -> World:
    """Confidences uniform on 100,000 levels: of 300 drawn, hardly any two are equal."""
    levels_V = (np.arange(100_000) + 0.5) / 100_000
    return World(levels_V, np.ones(100_000), accuracy(levels_V))


def votes(weights: list[float], accuracies: list[float]) -> World:
    return World(np.array([1 / 3, 2 / 3, 1.0]), np.array(weights), np.array(accuracies))


CALIBRATED = smooth(lambda s: 0.5 + s / 2)
BUMPY = smooth(
    lambda s: 0.8 + 0.2 * np.cos(40 * (1 - s))
)  # from t on it errs at 0.2 - 0.2 sin(40 u) / (40 u), u = 1 - t
WORLDS = {
    # name: the world, questions, risk. Where the risk is a constant of the world, it is just below.
    "calibrated": (CALIBRATED, 300, 0.1),
    "calibrated, two sequences": (CALIBRATED, 1500, 0.1),
    "overconfident": (smooth(lambda s: s**2), 300, 0.15),
    "uninformative, two sequences": (smooth(lambda s: np.full_like(s, 0.8)), 1000, 0.2 - 1e-9),
    "uninformative": (smooth(lambda s: np.full_like(s, 0.8)), 300, 0.2 - 1e-9),
    "misleading": (smooth(lambda s: 1.0 - s / 2), 300, 0.25 - 1e-9),
    "bumpy": (BUMPY, 400, 0.19),
    "votes, all but the last are good": (votes([0.1, 0.3, 0.6], [0.4, 0.8, 0.95]), 300, 0.15 - 1e-9),
    "votes, none is good": (votes([0.1, 0.3, 0.6], [0.4, 0.5, 0.9]), 300, 0.1 - 1e-9),
    "votes, the best mislead": (votes([0.3, 0.6, 0.1], [0.5, 0.9, 0.5]), 300, 0.11 / 0.7 - 1e-9),
    "ten questions": (smooth(lambda s: np.full_like(s, 0.7)), 10, 0.3 - 1e-9),
}


def share_broken(world: World, n: int, risk: float, certify: Callable[[FloatArray, BoolArray], float]) -> float:
    """Return in which share of calibration sets the threshold that `certify` returns has more risk than asked."""
    generator = rng(5)
    return sum(world.risk_from(certify(*world.draw(n, generator))) > risk for _ in range(DRAWS)) / DRAWS


@pytest.mark.parametrize("name", WORLDS)
def test_risk_is_kept(name: str) -> None:
    world, n, risk = WORLDS[name]
    assert (world.risks_V > risk).any()
    assert share_broken(world, n, risk, lambda s_N, y_N: threshold_at_risk(s_N, y_N, risk=risk).threshold) <= ALLOWED


@pytest.mark.parametrize("name", WORLDS)
def test_the_plug_in_threshold_breaks_it(name: str) -> None:
    """The least confidence with few enough errors seen is past the true one about half of the time."""
    world, n, risk = WORLDS[name]

    def plug_in(confidence_N: FloatArray, correct_N: BoolArray) -> float:
        curve = risk_coverage(confidence_N, correct_N)
        return float(curve.threshold_V[curve.risk_V <= risk].min(initial=math.inf))

    assert share_broken(world, n, risk, plug_in) > 3 * ALLOWED


def test_the_best_of_many_separate_tests_breaks_it() -> None:
    """Every threshold at level delta without a sequence: one of many passes by chance."""
    world, n, risk = WORLDS["uninformative"]

    def best_of_many(confidence_N: FloatArray, correct_N: BoolArray) -> float:
        curve = risk_coverage(confidence_N, correct_N)
        answered_V = np.round(curve.coverage_V * n)
        passed_V = stats.binom.cdf(np.round(curve.risk_V * answered_V), answered_V, risk) <= DELTA
        return float(curve.threshold_V[passed_V].min(initial=math.inf))

    assert share_broken(world, n, risk, best_of_many) > 2 * ALLOWED


@pytest.mark.parametrize(("n", "coverage"), [(300, 0.01), (1000, 0.15), (10_000, 0.35)])
def test_coverage_nears_what_the_world_allows(n: int, coverage: float) -> None:
    """Answering from t on errs at (1 - t) / 4, so risk 0.1 allows t = 0.6 and coverage 0.4."""
    generator = rng(6)
    found = [threshold_at_risk(*CALIBRATED.draw(n, generator), risk=0.1).coverage for _ in range(100)]
    assert coverage < np.mean(found) < 0.4


def chance_of_breaking(n: int, risk: float, top: float, top_risk: float, delta: float, start: int) -> float:
    """Return the exact chance to certify anything in a world of two confidences, both thresholds bad.

    The higher has weight `top` and risk `top_risk`, both together have `risk`, and the sequence starts at the
    first threshold with at least `start` of the n questions.
    """
    low_risk = (risk - top * top_risk) / (1 - top)
    total = 0.0
    for answered in range(n + 1):
        chance_K = stats.binom.pmf(np.arange(answered + 1), answered, top_risk)
        if answered >= start:
            passed_K = stats.binom.cdf(np.arange(answered + 1), answered, risk) <= delta
        else:
            tolerated = np.flatnonzero(stats.binom.cdf(np.arange(n + 1), n, risk) <= delta).max(initial=-1)
            passed_K = stats.binom.cdf(tolerated - np.arange(answered + 1), n - answered, low_risk)
        total += stats.binom.pmf(answered, n, top) * float(chance_K @ passed_K)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_the_case_of_ties_without_a_proof(seed: int) -> None:
    """Start on a group that errs less than all above it; delta leaves the test of all questions no slack."""
    generator = rng(seed)
    n, risk = int(generator.integers(5, 80)), float(generator.uniform(0.05, 0.6))
    tolerated = int(stats.binom.ppf(generator.uniform(0.02, 0.3), n, risk))
    delta = float(stats.binom.cdf(tolerated, n, risk)) * (1 + 1e-12)
    least = math.ceil(math.log(delta) / math.log1p(-risk))
    top_risk = risk + (1 - risk) * float(generator.random()) ** 2
    top = float(generator.random()) * risk / top_risk
    start = int(generator.integers(least, n + 1)) if least <= n else n
    assert chance_of_breaking(n, risk, top, top_risk, delta, start) <= delta * (1 + 1e-9)


# ------------------------------------------------------------------------------------------ cost, errors


def test_a_million_decisions_take_seconds() -> None:
    start = time.perf_counter()
    confidence_N = rng().random(1_000_000)
    correct_N = rng(1).random(1_000_000) < confidence_N
    assert calibration_error(confidence_N, correct_N, rng=rng()).ece < 0.003
    assert risk_coverage(confidence_N, correct_N).threshold_V.size > 999_000
    assert threshold_at_risk(confidence_N, correct_N, risk=0.1).threshold == pytest.approx(0.8, abs=0.01)
    assert time.perf_counter() - start < 10


def test_as_many_bins_as_decisions() -> None:
    """Each bin holds one decision, so |1 - 0.75| and |0 - 0.25| are averaged; resamples go in many chunks."""
    confidence_N = np.where(np.arange(20_000) % 2, 0.75, 0.25) + np.arange(20_000) * 1e-12
    found = calibration_error(confidence_N, np.arange(20_000) % 2 == 1, bins=20_000, repeats=100, rng=rng())
    assert found.ece == pytest.approx(0.25, abs=1e-7)
    assert found.squared_debiased is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: risk_coverage([], []), "not empty"),
        (lambda: risk_coverage([[0.5]], [[True]]), "one-dimensional"),
        (lambda: risk_coverage([0.5, 0.6], [True]), r"\(2,\) and \(1,\)"),
        (lambda: risk_coverage([0.5, math.nan], [True, False]), "nan at index 1"),
        (lambda: risk_coverage([math.inf, 0.5], [True, False]), "inf at index 0"),
        (lambda: risk_coverage([0.5], [1]), "booleans"),
        (lambda: risk_coverage(["high"], [True]), "real numbers"),
        (lambda: calibration_error([], [], rng=rng()), "not empty"),
        (lambda: calibration_error([0.5, 1.5], [True, True], rng=rng()), "1.5 at index 1"),
        (lambda: calibration_error([-0.1], [True], rng=rng()), "-0.1 at index 0"),
        (lambda: calibration_error([math.nan], [True], rng=rng()), "nan at index 0"),
        (lambda: calibration_error([0.5], [True], bins=0, rng=rng()), "bins >= 1"),
        (lambda: calibration_error([0.5], [True], repeats=99, rng=rng()), "repeats >= 100"),
        (lambda: threshold_at_risk([0.5], [True], risk=0.0), "risk must lie in"),
        (lambda: threshold_at_risk([0.5], [True], risk=1.0), "risk must lie in"),
        (lambda: threshold_at_risk([0.5], [True], risk=math.nan), "risk must lie in"),
        (lambda: threshold_at_risk([0.5], [True], risk=0.1, delta=0.0), "delta must lie in"),
        (lambda: threshold_at_risk([0.5], [True], risk=0.1, delta=1.0), "delta must lie in"),
        (lambda: threshold_at_risk([], [], risk=0.1), "not empty"),
        (lambda: threshold_at_risk([0.5, 0.6], [True], risk=0.1), "equally long"),
        (lambda: threshold_at_risk([math.nan], [True], risk=0.1), "nan at index 0"),
    ],
)
def test_errors_name_the_fault(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_import_leaves_scipy_alone() -> None:
    code = "import sys, fusion.calibration; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
