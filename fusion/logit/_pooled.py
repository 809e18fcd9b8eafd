"""A conditional logit with partial pooling over groups of questions.

Model. Option k of question n in group c has the score x_nk . u_c, and is right with the probability

    P(k) = exp(x_nk . u_c) / Z,    Z = unnamed_n + sum_j exp(x_nj . u_c)

(McFadden 1974), an option without features having the score 0. Where answers are better or worse rather than right, an
option with the worth t_nk counts as right t_nk times: sum_k t_nk log P(k) is greatest where P(k) is in proportion to
E[t_nk], so the likeliest option is the one that is worth most on average.

Weights of a group vary about common ones, and these about a direction that is given, by how much being learned (partial
pooling, Gelman and Hill 2007):

    u_c ~ N(w, 1 / L),    w ~ N(tau r, 1 / P),    tau of any size.

Fit. The posterior mode by Newton's method: given w the groups are independent, so a step solves one system a group and
one for w. The precisions L and P of each kind of feature follow by expectation-maximisation with the Gaussian
approximation at the mode: a precision becomes the number of weights over their summed squares and variances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fusion.logit._candidates import Candidates
from fusion.logit._threads import one_thread
from fusion.schema import BoolArray, FloatArray, IntArray

_ROUNDS = 12
_SETTLED = 0.02
_STEPS = 30
_ENOUGH = 1e-10
_FIRST_WITHIN, _FIRST_COMMON = 100.0, 10.0
_LEAST, _MOST = 1e-2, 1e5
# Of the direction r itself: keeps the weights finite where the agents are never wrong.
_FREE = 1e-4


class Weights(NamedTuple):
    """What was learned.

    Attributes:
        common: float64 [D], w.
        groups: float64 [C, D], u of each group.
        within: float64 [D], L: how alike the groups are.
    """

    common: FloatArray
    groups: FloatArray
    within: FloatArray


class Worth(NamedTuple):
    """How often options count as right.

    Attributes:
        named: float64 [R], of each option, at least 0.
        unnamed: float64 [N], of all unnamed options of each question together.
    """

    named: FloatArray
    unnamed: FloatArray


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled questions, those of a group side by side.

    Args:
        candidates: Their options.
        right: int [N], where the right option stands among all options; -1 where it is one of the unnamed.
        bounds: int [C + 1], where the questions of each group begin.
        worth: How often options count as right, instead of `right` alone.
    """

    candidates: Candidates
    right: IntArray
    bounds: IntArray
    worth: Worth | None = None

    @property
    def group(self) -> IntArray:
        """Int [N], the group of each question."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def taken(self, keep_N: BoolArray) -> "Rows":
        """Return some of the questions."""
        found = self.candidates.taken(keep_N)
        # Where the right option stands among those of its own question stays.
        right_N = np.where(self.right >= 0, self.right - self.candidates.start[:-1], -1)[keep_N]
        right_N = np.where(right_N >= 0, right_N + found.start[:-1], -1)
        bounds = np.concatenate([[0], np.cumsum(np.bincount(self.group[keep_N], minlength=len(self.bounds) - 1))])
        worth = self.worth and Worth(self.worth.named[keep_N[self.candidates.question]], self.worth.unnamed[keep_N])
        return Rows(candidates=found, right=right_N, bounds=bounds, worth=worth)

    def counted(self) -> Worth:
        """Return how often each option counts as right."""
        if self.worth is not None:
            return self.worth
        found = Worth(np.zeros(len(self.candidates.option)), (self.right < 0).astype(np.float64))
        found.named[self.right[self.right >= 0]] = 1
        return found


class Model(NamedTuple):
    """What is known of the weights before any answer is seen.

    Attributes:
        directions: float64 [T, D], the directions r that cost nothing, orthogonal to each other.
        kinds: Features that share their precisions.
        pooled: Whether groups may differ at all.
    """

    directions: FloatArray
    kinds: Sequence[slice]
    pooled: bool


class _Fitted(NamedTuple):
    """Likelihood of one group at its weights: value, gradient [D] and Hessian [D, D] of its negative logarithm."""

    value: float
    gradient: FloatArray
    hessian: FloatArray


def fit(rows: Rows, model: Model) -> Weights:
    """Learn the weights."""
    with one_thread():
        return _fit(rows, model)


def _fit(rows: Rows, model: Model) -> Weights:
    directions, kinds, pooled = model
    num_features = rows.candidates.features.shape[1]
    num_groups = len(rows.bounds) - 1
    within_D = np.full(num_features, _FIRST_WITHIN if pooled else _MOST)
    common_D = np.full(num_features, _FIRST_COMMON)
    weights = Weights(np.zeros(num_features), np.zeros((num_groups, num_features)), within_D)
    for _ in range(_ROUNDS):
        weights, spread = _mode(rows, weights._replace(within=within_D), _prior(common_D, directions))
        before = np.concatenate([within_D, common_D])
        off_D = weights.common - directions.T @ (directions @ weights.common)
        within_D, common_D = within_D.copy(), common_D.copy()
        for kind in kinds:
            common_D[kind] = _precision(off_D[kind] ** 2 + spread.common[kind])
            if pooled:
                moved_CD = (weights.groups - weights.common)[:, kind]
                within_D[kind] = _precision(moved_CD**2 + spread.groups[:, kind])
        if np.abs(np.log(np.concatenate([within_D, common_D]) / before)).max() < _SETTLED:
            break
    return weights


def held_out(rows: Rows, model: Model, *, folds: int = 3) -> FloatArray:
    """Return the log-probability of each right option by weights learned without its question, float64 [N]."""
    fold_N = np.arange(len(rows.right)) % folds
    found_N = np.zeros(len(rows.right))
    for fold in range(folds):
        weights = fit(rows.taken(fold_N != fold), model)
        tested = rows.taken(fold_N == fold)
        scores_R = np.einsum(
            "rd,rd->r", tested.candidates.features, weights.groups[tested.group][tested.candidates.question]
        )
        counts_N = np.diff(tested.candidates.start)
        _, log_sums_N = probabilities(scores_R, counts_N, tested.candidates.unnamed)
        named_N = tested.right >= 0
        right_N = np.log(np.maximum(tested.candidates.unnamed, 1))
        right_N[named_N] = scores_R[tested.right[named_N]]
        found_N[fold_N == fold] = right_N - log_sums_N
    return found_N


class _Spread(NamedTuple):
    """Posterior variances: of the common weights [D], and of each group's about them [C, D]."""

    common: FloatArray
    groups: FloatArray


def _precision(squares: FloatArray) -> float:
    return float(np.clip(1 / max(squares.mean(), 1e-12), _LEAST, _MOST))


def _prior(common_D: FloatArray, directions_TD: FloatArray) -> FloatArray:
    """Return the precision matrix [D, D] of w about the directions that are free."""
    off_DD = np.eye(len(common_D)) - directions_TD.T @ directions_TD
    return off_DD @ np.diag(common_D) @ off_DD + _FREE * np.eye(len(common_D))


def _mode(rows: Rows, start: Weights, prior_DD: FloatArray) -> tuple[Weights, _Spread]:
    """Return the weights of the highest posterior density, and how sure they are."""
    within_D = start.within
    common_D, groups_CD = start.common, start.groups
    fitted = _likelihood(rows, groups_CD)
    value = _energy(fitted, common_D, groups_CD, within_D, prior_DD)
    for _ in range(_STEPS):
        inverse_CDD = np.linalg.inv(np.array([part.hessian for part in fitted]) + np.diag(within_D))
        slope_CD = np.array([part.gradient for part in fitted]) + within_D * (groups_CD - common_D)
        slope_D = prior_DD @ common_D - (within_D * (groups_CD - common_D)).sum(axis=0)
        # The groups' steps are eliminated: they are inverse (within dw - slope).
        system_DD = prior_DD + len(groups_CD) * np.diag(within_D)
        system_DD -= within_D[:, None] * inverse_CDD.sum(axis=0) * within_D
        step_D = np.linalg.solve(system_DD, -slope_D - within_D * np.einsum("cij,cj->i", inverse_CDD, slope_CD))
        step_CD = np.einsum("cij,cj->ci", inverse_CDD, within_D * step_D - slope_CD)
        size = 1.0
        while True:
            tried = common_D + size * step_D, groups_CD + size * step_CD
            fitted = _likelihood(rows, tried[1])
            reached = _energy(fitted, *tried, within_D, prior_DD)
            if reached <= value + _ENOUGH * abs(value) or size < 1e-6:
                break
            size /= 2
        gained, value = value - reached, reached
        common_D, groups_CD = tried
        if gained <= _ENOUGH * abs(value):
            break
    spread = _Spread(np.diag(np.linalg.inv(system_DD)), np.diagonal(inverse_CDD, axis1=1, axis2=2))
    return Weights(common_D, groups_CD, within_D), spread


def _energy(
    fitted: Sequence[_Fitted],
    common_D: FloatArray,
    groups_CD: FloatArray,
    within_D: FloatArray,
    prior_DD: FloatArray,
) -> float:
    """Return the negative logarithm of the posterior density, but for a constant."""
    pooling = float(((groups_CD - common_D) ** 2 @ within_D).sum()) / 2
    return sum(part.value for part in fitted) + pooling + float(common_D @ prior_DD @ common_D) / 2


def _likelihood(rows: Rows, groups_CD: FloatArray) -> list[_Fitted]:
    return [_group(rows, c, weights_D) for c, weights_D in enumerate(groups_CD)]


def _group(rows: Rows, group: int, weights_D: FloatArray) -> _Fitted:
    low, high = rows.bounds[group : group + 2]
    start = rows.candidates.start
    features_RD = rows.candidates.features[start[low] : start[high]]
    counts_N = np.diff(start[low : high + 1])
    unnamed_N = rows.candidates.unnamed[low:high]
    scores_R = features_RD @ weights_D
    probs_R, log_sums_N = probabilities(scores_R, counts_N, unnamed_N)
    expected_ND = _sums(probs_R[:, None] * features_RD, counts_N)
    if rows.worth is None:
        right_N, named_N = rows.right[low:high] - start[low], rows.right[low:high] >= 0
        value = float(log_sums_N.sum() - scores_R[right_N[named_N]].sum() - np.log(unnamed_N[~named_N]).sum())
        gradient_D = expected_ND.sum(axis=0) - features_RD[right_N[named_N]].sum(axis=0)
        hessian_DD = features_RD.T @ (probs_R[:, None] * features_RD) - expected_ND.T @ expected_ND
        return _Fitted(value, gradient_D, hessian_DD)
    worth_R, rest_N = rows.worth.named[start[low] : start[high]], rows.worth.unnamed[low:high]
    times_N = _sums(worth_R[:, None], counts_N)[:, 0] + rest_N
    logs_N = np.log(np.maximum(unnamed_N, 1))
    value = float(times_N @ log_sums_N - worth_R @ scores_R - rest_N @ logs_N)
    gradient_D = times_N @ expected_ND - worth_R @ features_RD
    weighted_RD = (np.repeat(times_N, counts_N) * probs_R)[:, None] * features_RD
    hessian_DD = features_RD.T @ weighted_RD - expected_ND.T @ (times_N[:, None] * expected_ND)
    return _Fitted(value, gradient_D, hessian_DD)


def probabilities(scores_R: FloatArray, counts_N: IntArray, unnamed_N: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the probability of each option, float64 [R], and log Z of each question, float64 [N].

    Args:
        scores_R: Scores, those of a question side by side.
        counts_N: How many options with a score each question has.
        unnamed_N: How many without, their score being 0.
    """
    with np.errstate(divide="ignore"):
        most_N = np.where(unnamed_N > 0, 0.0, -np.inf)
    question_R = np.repeat(np.arange(len(counts_N)), counts_N)
    np.maximum.at(most_N, question_R, scores_R)
    most_N = np.where(np.isfinite(most_N), most_N, 0)
    masses_R = np.exp(scores_R - most_N[question_R])
    sums_N = np.bincount(question_R, weights=masses_R, minlength=len(counts_N)) + unnamed_N * np.exp(-most_N)
    safe_N = np.where(sums_N > 0, sums_N, 1)
    return masses_R / safe_N[question_R], np.log(safe_N) + most_N


def _sums(values_RD: FloatArray, counts_N: IntArray) -> FloatArray:
    """Return float64 [N, D], the sums over the options of each question."""
    sums_ND = np.zeros((len(counts_N), values_RD.shape[1]))
    some_N = counts_N > 0
    if some_N.any():
        starts_N = np.cumsum(counts_N) - counts_N
        sums_ND[some_N] = np.add.reduceat(values_RD, starts_N[some_N], axis=0)
    return sums_ND
