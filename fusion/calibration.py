"""How far to trust stated confidences: calibration error, risk against coverage, and when to answer at all.

Everything takes N decisions on independent questions: `confidence_N`, the stated probability that the answer
is right, and `correct_N`, whether it was. Results do not depend on the order of the questions, because equal
confidences are always kept together.

References:
    Angelopoulos et al. (2021), Learn then Test, arXiv:2110.01052.
    Clopper and Pearson (1934), Biometrika 26:404.
    El-Yaniv and Wiener (2010), JMLR 11:1605.
    Ferro and Fricker (2012), Quarterly Journal of the Royal Meteorological Society 138:1954.
    Geifman and El-Yaniv (2017), Selective classification for deep neural networks, arXiv:1705.08500.
    Geifman, Uziel and El-Yaniv (2019), Bias-reduced uncertainty estimation, arXiv:1805.08206.
    Kumar, Liang and Ma (2019), Verified uncertainty calibration, arXiv:1909.10155.
    Naeini, Cooper and Hauskrecht (2015), AAAI 29:2901.
    Nixon et al. (2019), Measuring calibration in deep learning, arXiv:1904.01685.
    Roelofs et al. (2022), Mitigating bias in calibration error estimation, arXiv:2012.08668.

Beyond the legend in `schema`: B non-empty bins; V distinct confidences, from high to low; R resamples.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusion.errors import UsageError
from fusion.significance import Interval, wilson_interval

_LEVEL = 0.95  # of every interval here
_CELLS_AT_ONCE = 1 << 19  # resampled bins held at a time
_START_ERRORS = 5  # the first threshold tested need not tolerate more errors than these
_START_SHARE = 3  # and answers a third of the questions, where that tolerates fewer
_SECOND_SHARE = 5  # where a fifth of the questions is more than that, a second sequence starts there
_Vector = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.integer]
_Flags = npt.NDArray[np.bool_]


class ReliabilityBin(NamedTuple):
    """One row of a reliability table: questions of similar confidence.

    Attributes:
        low: Least confidence in the bin, in [0, 1].
        high: Greatest confidence in the bin.
        confidence: Mean confidence.
        accuracy: Share of right answers.
        n: Questions in the bin, at least 1.
        interval: 95 % Wilson interval of `accuracy`.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int
    interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationError:
    """How far confidences are from the accuracy they promise; 0 is perfect.

    Attributes:
        ece: Plug-in expected calibration error in [0, 1]; too high on average, most so where all is well.
        interval: 95 % interval of the binned calibration error that `ece` estimates; allows for its bias.
        squared_debiased: Unbiased estimate of the mean squared gap of the bins, so negative at times; over
            the bins of two questions or more, None where there are none.
        brier: Mean squared distance of confidence from outcome (0 or 1), in [0, 1].
        table: The bins, from low confidence to high, [B].
    """

    ece: float
    interval: Interval
    squared_debiased: float | None
    brier: float
    table: tuple[ReliabilityBin, ...]

    @property
    def rms_debiased(self) -> float | None:
        """Root of `squared_debiased`, on the scale of `ece`; 0 where that is negative, None where it is None."""
        return None if self.squared_debiased is None else math.sqrt(max(0.0, self.squared_debiased))


class RiskCoverage(NamedTuple):
    """What answering only the more confident questions buys.

    Attributes:
        threshold_V: Distinct confidences from high to low, [V]; entry v answers those at or above it.
        coverage_V: Share of the questions answered, in (0, 1], rising to 1, [V].
        risk_V: Share of wrong answers among those answered, in [0, 1], [V].
        aurc: Area under the curve, in [0, 1]; low is good.
        excess_aurc: `aurc` less that of the best order, all right answers first; 0 where none is better.
    """

    threshold_V: _Vector
    coverage_V: _Vector
    risk_V: _Vector
    aurc: float
    excess_aurc: float


class Threshold(NamedTuple):
    """From which confidence to answer, and what the calibration questions say of it.

    Attributes:
        threshold: Answer where the confidence is at least this; inf where nothing can be certified.
        coverage: Share of the calibration questions answered, in [0, 1].
        answered: Their number.
        risk: Share of wrong answers among them; None where none is answered.
        upper_bound: Clopper-Pearson upper bound of the true risk at level 1 - delta, at most the risk asked
            for; None where none is answered.
    """

    threshold: float
    coverage: float
    answered: int
    risk: float | None
    upper_bound: float | None


def calibration_error(
    confidence_N: npt.ArrayLike,
    correct_N: npt.ArrayLike,
    *,
    bins: int = 15,
    repeats: int = 1000,
    rng: np.random.Generator,
) -> CalibrationError:
    """Return the expected calibration error with its interval, a debiased estimate and the reliability table.

    With gap_b = accuracy - mean confidence in bin b and n_b questions there, ece = sum_b n_b / N |gap_b|: the
    formula of Naeini et al. (2015) in bins of equal mass, as Nixon et al. (2019) advise. A group of equal
    confidences goes undivided to the bin that holds its middle; bins that stay empty are left out.

    Noise alone makes |gap_b| positive, so ece is biased upwards. `squared_debiased` takes the noise off the
    squared gaps: sum_b n_b / N (gap_b^2 - s_b^2 / n_b), with s_b^2 the sample variance of correct - confidence
    in the bin. Where confidences within a bin are equal, s_b^2 / n_b is accuracy (1 - accuracy) / (n_b - 1),
    the estimator of Ferro and Fricker (2012) and Kumar et al. (2019), which Roelofs et al. (2022) recommend
    with bins of equal mass; otherwise that would take off the spread of the confidences as well.

    The interval is for sum_b n_b / N |g_b|, with g_b the gap that the true chances of being right leave in bin
    b. It bounds either error of ece by noise. By the triangle inequality ece exceeds the truth by at most
    sum_b n_b / N |gap_b - g_b|; as |gap_b| >= sign(g_b) gap_b, it falls short by at most
    sum_b n_b / N sign(g_b) (g_b - gap_b). The 97.5 % quantiles of both come from a parametric bootstrap, which
    draws the right answers of each bin as binomial. So coverage is about 95 % or more even for perfect
    calibration, where quantiles of a resampled ece miss 0; the price is a lower end too low by up to the bias.

    Args:
        confidence_N: Stated probability that the answer is right, in [0, 1], [N].
        correct_N: Whether it is right, bool [N].
        bins: Bins wanted, at least 1; the truth within wide bins averages out, narrow ones are noisy.
        repeats: Bootstrap resamples, at least 100. Each costs about 0.1 us a bin, whatever the questions.
        rng: Source of the bootstrap's randomness.

    Raises:
        UsageError: If there is no question, shapes or values do not fit, bins < 1 or repeats < 100.
    """
    if bins < 1 or repeats < 100:
        raise UsageError(f"expected bins >= 1 and repeats >= 100, got {bins} and {repeats}; 15 and 1000 are usual")
    given_N, right_N = _checked(confidence_N, correct_N)
    _check_probabilities(given_N)
    order_N = np.lexsort((right_N, given_N))
    confidence_N, correct_N = given_N[order_N], right_N[order_N]
    starts_B = _bin_starts(confidence_N, bins)
    counts_B = np.diff(starts_B, append=confidence_N.size)
    means_B = np.add.reduceat(confidence_N, starts_B) / counts_B
    rights_B = np.add.reduceat(correct_N.astype(np.int64), starts_B)
    surplus_N = correct_N - confidence_N
    surplus_B = rights_B - counts_B * means_B
    columns = (confidence_N[starts_B], confidence_N[starts_B + counts_B - 1], means_B, rights_B, counts_B)
    return CalibrationError(
        ece=float(np.abs(surplus_B).sum()) / confidence_N.size,
        interval=_ece_interval(surplus_B, rights_B, counts_B, repeats=repeats, rng=rng),
        squared_debiased=_squared_debiased(surplus_N, surplus_B / counts_B, counts_B),
        brier=float(np.mean(surplus_N**2)),
        table=tuple(
            ReliabilityBin(low, high, mean, right / count, count, wilson_interval(right, count, confidence=_LEVEL))
            for low, high, mean, right, count in zip(*(column_B.tolist() for column_B in columns), strict=True)
        ),
    )


def risk_coverage(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener 2010) and its area (Geifman et al. 2019).

    The area is the mean over questions of the risk with their own confidence as the threshold. Without any
    order (equal confidences) it is the overall share of errors. The best order of N answers, k of them wrong,
    has the area sum_{i=1..k} i / (N - k + i) / N; the paper takes the integral this tends to.

    Args:
        confidence_N: Confidence in each answer, finite, [N]; only the order matters, so any score will do.
        correct_N: Whether the answer is right, bool [N].

    Raises:
        UsageError: If there is no question, or shapes or kinds of values do not fit.
    """
    threshold_V, answered_V, errors_V = _at_thresholds(*_checked(confidence_N, correct_N))
    n, wrong = int(answered_V[-1]), int(errors_V[-1])
    risk_V = errors_V / answered_V
    aurc = float((risk_V * np.diff(answered_V, prepend=0)).sum()) / n
    ranks = np.arange(1, wrong + 1)
    best = float((ranks / (n - wrong + ranks)).sum()) / n
    # The best order has the least area; rounding must not say otherwise.
    return RiskCoverage(threshold_V, answered_V / n, risk_V, aurc, max(0.0, aurc - best))


def threshold_at_risk(
    confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, *, risk: float, delta: float = 0.05
) -> Threshold:
    """Return the least confidence from which to answer with at most `risk` errors, by a sequence of exact tests.

    With probability at least 1 - delta over the calibration questions, the error rate R(t) of new questions
    with confidence >= t, drawn like them, is at most `risk` at the threshold returned. Thresholds are tested
    from high to low (fixed-sequence testing, Angelopoulos et al. 2021), each at level delta: t passes if of n
    questions answered so few, k, are wrong that P(Binomial(n, risk) <= k) <= delta, which is to say that the
    Clopper-Pearson upper bound is at most `risk`. The first failure ends it, so unlike the union bound of
    Geifman and El-Yaniv (2017) many thresholds cost nothing.

    Which thresholds: every number, hence a sequence fixed without data, of which those observed are where the
    test changes. It starts at the first that answers n_0 questions, where n_0, the least n that tolerates 0
    errors or if larger min(N / 3, the least n that tolerates 5), depends on N, risk and delta alone. Too
    early a start would end at a chance error, and where the surest answers err too even this one may: so where
    N / 5 is more than n_0 there are two sequences at level delta / 2 each, the second from the first threshold
    that answers N / 5 questions, and the one that goes further counts.

    Why that start is harmless although it depends on the confidences. A bad threshold (R > risk) is certified
    only if the first bad one from the start on passes. Go down the confidences, ties in random order, so that
    R changes continuously, and mark where R = risk. Between two marks, and above the first, the mean error
    rate is risk; so given how many questions lie between each two marks, the n_y above a mark y still err
    like Binomial(n_y, risk) draws. These numbers alone decide which stretch of bad thresholds is met first.
    From its upper mark down to the threshold tested there the rest, given how many, err at more than risk. So
    k is stochastically at least Binomial(n, risk), and the test passes with probability at most delta. No
    assumption about the confidences enters, except for one case of ties: that the start falls on a group of
    equal confidences whose error rate is below `risk` while that of all above it is over `risk`. To know that
    fewer than n_0 lie above may then favour passing. Where accuracy does not fall as confidence rises this
    cannot happen; where it can, exact enumeration over worlds of two confidences found no chance above delta,
    but that is no proof.

    The guarantee is for one call: to choose among several risks or fusers by what they certify, divide delta.
    Without ties the threshold never rises with `risk` or `delta`.

    Args:
        confidence_N: Confidence in each answer, finite, [N]; only the order matters, so any score will do.
        correct_N: Whether the answer is right, bool [N]. The questions must be independent draws, and none
            used to fit what states the confidences.
        risk: Highest error rate allowed among answered questions, in (0, 1).
        delta: Chance allowed for the calibration questions to mislead, in (0, 1).

    Raises:
        UsageError: If risk or delta is outside (0, 1), there is no question, or shapes or kinds of values do
            not fit.
    """
    for name, value in (("risk", risk), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise UsageError(f"{name} must lie in (0, 1), got {value}; both are shares, 0.05 for 5 %")
    threshold_V, answered_V, errors_V = _at_thresholds(*_checked(confidence_N, correct_N))
    n = int(answered_V[-1])
    starts, level = _starts(n, risk=risk, delta=delta)
    chances_V = _chance_of_so_few(answered_V, errors_V, risk)
    last = -1
    for first in np.searchsorted(answered_V, starts).tolist():
        failed_V = chances_V[first:] > level
        reached = first + (int(failed_V.argmax()) if failed_V.any() else failed_V.size) - 1
        last = max(last, reached if reached >= first else -1)
    if last < 0:
        return Threshold(math.inf, 0.0, 0, None, None)
    answered, errors = int(answered_V[last]), int(errors_V[last])
    # Bound <= risk and p <= level are the same on paper; rounding must not say otherwise.
    bound = min(risk, _upper_bound(answered, errors, level))
    return Threshold(float(threshold_V[last]), answered / n, answered, errors / answered, bound)


def _checked(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> tuple[_Vector, _Flags]:
    given_N, right_N = np.asarray(confidence_N), np.asarray(correct_N)
    if given_N.ndim != 1 or given_N.size == 0 or given_N.shape != right_N.shape:
        raise UsageError(
            "confidence_N and correct_N must be one-dimensional, equally long and not empty, got shapes "
            f"{given_N.shape} and {right_N.shape}; pass one of each for every decision"
        )
    if given_N.dtype.kind not in "biuf" or right_N.dtype.kind != "b":
        raise UsageError(
            f"confidence_N must hold real numbers and correct_N booleans, got {given_N.dtype} and "
            f"{right_N.dtype}; convert them first"
        )
    values_N = given_N.astype(np.float64)
    bad_N = ~np.isfinite(values_N)
    if bad_N.any():
        raise UsageError(
            f"confidence_N must be finite, got {values_N[bad_N][0]} at index {bad_N.argmax()} and {bad_N.sum()} "
            f"such values of {bad_N.size} in all; give an abstention the least confidence or leave it out"
        )
    return values_N, right_N


def _check_probabilities(confidence_N: _Vector) -> None:
    outside_N = (confidence_N < 0.0) | (confidence_N > 1.0)
    if outside_N.any():
        raise UsageError(
            f"confidence_N must hold probabilities in [0, 1], got {confidence_N[outside_N][0]} at index "
            f"{outside_N.argmax()}; map scores to probabilities first"
        )


def _bin_starts(sorted_N: _Vector, bins: int) -> _Counts:
    """Return where each non-empty bin of equal mass begins in the sorted confidences, [B], the first at 0."""
    firsts_V = np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1]))
    ends_V = np.append(firsts_V[1:], sorted_N.size)
    bins_V = bins * (firsts_V + ends_V) // (2 * sorted_N.size)
    starts_B: _Counts = firsts_V[np.append(True, bins_V[1:] != bins_V[:-1])]
    return starts_B


def _squared_debiased(surplus_N: _Vector, gaps_B: _Vector, counts_B: _Counts) -> float | None:
    """Return sum_b n_b (gap_b^2 - s_b^2 / n_b) / sum_b n_b over bins with a variance, those of n_b >= 2."""
    several_B = counts_B >= 2
    if not several_B.any():
        return None
    starts_B = np.cumsum(counts_B) - counts_B
    squares_B = np.add.reduceat((surplus_N - np.repeat(gaps_B, counts_B)) ** 2, starts_B)
    gaps_B, squares_B, sizes_B = gaps_B[several_B], squares_B[several_B], counts_B[several_B]
    return float((sizes_B * gaps_B**2 - squares_B / (sizes_B - 1)).sum() / sizes_B.sum())


def _ece_interval(
    surplus_B: _Vector, rights_B: _Counts, counts_B: _Counts, *, repeats: int, rng: np.random.Generator
) -> Interval:
    """Return [ece - q(noise in all bins), ece + q(noise along the signs of the gaps)], cut to [0, 1].

    The noise along signs has the same variance whatever the signs, so those seen may stand for the true ones.
    """
    n = int(counts_B.sum())
    z = NormalDist().inv_cdf(0.5 + _LEVEL / 2)
    # The centre of Wilson's interval: with the plain accuracy a bin of right answers alone would have no noise.
    rates_B = (rights_B + z * z / 2) / (counts_B + z * z)
    signs_B = np.where(surplus_B < 0.0, -1.0, 1.0)
    total_R, along_R = np.empty(repeats), np.empty(repeats)
    rows = max(1, _CELLS_AT_ONCE // counts_B.size)
    for start in range(0, repeats, rows):
        part = slice(start, min(start + rows, repeats))
        noise_RB = rng.binomial(counts_B, rates_B, size=(part.stop - start, counts_B.size)) - counts_B * rates_B
        total_R[part], along_R[part] = np.abs(noise_RB).sum(axis=1) / n, -(noise_RB @ signs_B) / n
    ece = float(np.abs(surplus_B).sum()) / n
    above, below = (float(np.quantile(noise_R, 0.5 + _LEVEL / 2)) for noise_R in (total_R, along_R))
    return Interval(max(0.0, ece - above), min(1.0, ece + max(0.0, below)))


def _at_thresholds(confidence_N: _Vector, correct_N: _Flags) -> tuple[_Vector, _Counts, _Counts]:
    """Return the distinct confidences from high to low, and how many answers and errors are at or above each."""
    order_N = np.argsort(-confidence_N)
    sorted_N = confidence_N[order_N]
    lasts_V = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    errors_N = np.cumsum(~correct_N[order_N], dtype=np.int64)
    return sorted_N[lasts_V], lasts_V + 1, errors_N[lasts_V]


def _starts(n: int, *, risk: float, delta: float) -> tuple[list[int], float]:
    """Return how many questions the first thresholds tested answer, and the level of their tests."""
    first, second = _start(n, risk=risk, delta=delta / 2), n // _SECOND_SHARE
    if second > first:
        return [first, second], delta / 2
    return [_start(n, risk=risk, delta=delta)], delta


def _start(n: int, *, risk: float, delta: float) -> int:
    """Return n_0 of `threshold_at_risk`; n + 1 where even n questions without an error prove nothing."""
    none, some = (_fewest(errors, n, risk=risk, delta=delta) for errors in (0, _START_ERRORS))
    return max(none, min(some, n // _START_SHARE))


def _fewest(errors: int, most: int, *, risk: float, delta: float) -> int:
    """Return the least number of questions, at most `most` + 1, of which `errors` wrong pass the test."""
    low, high = errors + 1, max(errors, most) + 1
    while low < high:  # the chance of so few errors falls as questions are added
        middle = (low + high) // 2
        passed = _chance_of_so_few(np.array([middle]), np.array([errors]), risk)[0] <= delta
        low, high = (low, middle) if passed else (middle + 1, high)
    return low


def _chance_of_so_few(answered_V: _Counts, errors_V: _Counts, risk: float) -> _Vector:
    """Return P(Binomial(answered, risk) <= errors), as an incomplete beta function, [V]."""
    from scipy.special import betainc

    right_V = answered_V - errors_V
    return np.where(right_V > 0, betainc(np.maximum(right_V, 1), errors_V + 1.0, 1.0 - risk), 1.0)


def _upper_bound(answered: int, errors: int, delta: float) -> float:
    """Return the error rate at which so few errors have chance delta (Clopper and Pearson 1934, one-sided)."""
    from scipy.special import betaincinv

    return float(betaincinv(errors + 1, answered - errors, 1.0 - delta))
