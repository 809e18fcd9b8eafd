r"""What a policy is worth, from paths that are censored where it wants somebody who was not asked.

Reference: Jiang and Li 2016, Doubly Robust Off-policy Value Evaluation for Reinforcement Learning, arXiv:1511.03722;
    Robins, Rotnitzky and Zhao 1994, JASA 89 (augmented inverse probability weighting); Bang and Robins 2005, Biometrics
    61 (regressions learned backwards); Thomas and Brunskill 2016, arXiv:1604.00923 (weights that are normalised);
    Chernozhukov et al. 2018, The Econometrics Journal 21 (cross-fitting); Long and Ervin 2000, The American
    Statistician 54 (HC3).
Equations: at step t of a path h_t is known, and an agent is wanted that is on record with probability p_t; c_t = 1
    where it is. w_t = \prod_{s <= t} c_s / p_s is the weight of a path after t, q_t(h_t) a model of what is right in
    the end and how many calls follow, v_t = q_t plus the call of step t, or what is right where the path ended before.
    weighted        \sum w y / \sum w over the paths that end on record
    direct          mean of v_0, each q_t a ridge regression of v_{t+1} on h_t where the path came so far
    doubly robust   mean of v_0 + \sum_t w_t (v_{t+1} - q_t), the w_t of a step scaled to add up to those before
Intervals are normal, with the variance of the influence function over questions. Every residual is divided by one less
its share of the weights, as one that dominates draws the mean to itself (HC3). For `direct` the influence function
holds what each question adds to the regressions (the sandwich of all steps stacked); that these fit is taken as given.
"""

from typing import Literal, NamedTuple

import numpy as np

from fusion.evaluation._logged import Paths, Step
from fusion.schema import BoolArray, FloatArray, IntArray

Estimator = Literal["doubly_robust", "weighted", "direct"]
_RIDGE = 10.0
_SLACK = 0.5
_TINY = 1e-12
_CALL = np.array([0.0, 1.0])
"""What a call adds to accuracy and calls."""


class Terms(NamedTuple):
    """An estimate of accuracy and calls.

    Attributes:
        values: float64 [2].
        influences: float64 [N, 2], what each question adds to N times their error.
    """

    values: FloatArray
    influences: FloatArray


class Models(NamedTuple):
    """Regressions of every step, each question's learned from others.

    Attributes:
        ahead: For each step float64 [B, 2], what is right in the end, and how many calls follow that of the step.
        influences: float64 [N, 2], what each question adds, through the regressions, to N times the error of `direct`.
    """

    ahead: tuple[FloatArray, ...]
    influences: FloatArray


def path_weights(paths: Paths) -> FloatArray:
    """Return inverse propensities, multiplied along each path, float64 [N]; 0 where it is censored."""
    weights_N = np.ones(len(paths.reached))
    for step in paths.steps:
        weights_N[step.rows] *= step.came / step.chance
    return weights_N


def thin_end(paths: Paths, few: int) -> tuple[int, float]:
    """Return after how many calls fewer than `few` questions tell how paths go on, and the share of paths that do."""
    for number, (step, before_B, _) in enumerate(_scaled(paths)):
        if step.came.sum() < few:
            return number, float(before_B.sum()) / len(paths.reached)
    return len(paths.steps), 0.0


def weighted(paths: Paths) -> Terms:
    """Weigh the paths that end on record."""
    weights_N = path_weights(paths)
    calls_N = np.zeros(len(weights_N))
    for step in paths.steps:
        calls_N[step.rows] += 1
    values_2, apart_N2 = _mean(np.column_stack([paths.right, calls_N]), weights_N)
    return Terms(values_2, apart_N2 * (weights_N / weights_N.mean())[:, None])


def direct(paths: Paths, models: Models) -> Terms:
    """Take what the models say before anybody is asked."""
    values_N2 = models.ahead[0] + _CALL
    values_2 = values_N2.mean(axis=0)
    return Terms(values_2, values_N2 - values_2 + models.influences)


def doubly_robust(paths: Paths, models: Models) -> Terms:
    """Add to what the models say the weighted surprise of every step."""
    value_N2 = _ended(paths)
    # What later steps add to each question's value; for the variance, the same with the scale's own error.
    later_N2, spread_N2 = np.zeros_like(value_N2), np.zeros_like(value_N2)
    for ahead_B2, (step, before_B, mass_B) in list(zip(models.ahead, _scaled(paths), strict=True))[::-1]:
        ratio_B1 = (mass_B / before_B)[:, None]
        surprise_B2 = value_N2[step.rows] - ahead_B2
        later_N2[step.rows] = ratio_B1 * (surprise_B2 + later_N2[step.rows])
        mean_2, apart_B2 = _mean(surprise_B2 + spread_N2[step.rows], mass_B)
        spread_N2[step.rows] = ratio_B1 * apart_B2 + mean_2
        value_N2[step.rows] = ahead_B2 + _CALL
    values_2 = (value_N2 + later_N2).mean(axis=0)
    return Terms(values_2, value_N2 + spread_N2 - values_2)


def learn(paths: Paths, fold_N: IntArray) -> Models:
    """Learn what follows each step, from the last backwards, on the paths that came so far.

    Args:
        paths: Censored paths.
        fold_N: int [N]; a fold's values are those of models learned from the other folds.
    """
    ahead = tuple(np.zeros((len(step.rows), 2)) for step in paths.steps)
    # The same unit at every step: what hardly varies among a few questions must not count for more there.
    scale_D = np.vstack([step.seen for step in paths.steps]).std(axis=0)
    units = [step.seen / np.where(scale_D > _TINY, scale_D, 1.0) for step in paths.steps]
    influences_N2 = np.zeros((len(fold_N), 2))
    for fold in np.unique(fold_N):
        value_N2 = _ended(paths)
        fits: list[_Fit] = []
        for later, (step, seen_BD, out_B2) in enumerate(list(zip(paths.steps, units, ahead, strict=True))[::-1]):
            own_B = fold_N[step.rows] == fold
            fit = _Fit.of(step, seen_BD, value_N2[step.rows], used_B=step.came & ~own_B, most_calls=later)
            fits.append(fit)
            out_B2[own_B] = fit.ahead[own_B]
            value_N2[step.rows] = fit.ahead + _CALL
        influences_N2 += _through(paths, fits[::-1], fold_N == fold)
    return Models(ahead, influences_N2)


class _Fit(NamedTuple):
    """A ridge regression of what follows a step.

    Attributes:
        used: bool [B], what it was learned from.
        design: float64 [B, D + 1], a constant first.
        gram: float64 [D + 1, D + 1].
        ahead: float64 [B, 2], its values, not far from what is possible.
        free: bool [B, 2], where they are not at the end of that.
        residuals: float64 [B, 2], 0 where not used.
    """

    used: BoolArray
    design: FloatArray
    gram: FloatArray
    ahead: FloatArray
    free: BoolArray
    residuals: FloatArray

    @classmethod
    def of(
        cls, step: Step, seen_BD: FloatArray, targets_B2: FloatArray, *, used_B: BoolArray, most_calls: int
    ) -> "_Fit":
        """Regress `targets_B2`, less what stopping would bring, on what is known."""
        width = seen_BD.shape[1]
        base_B2 = np.column_stack([step.right, np.zeros(len(step.rows))])
        design_BD = np.ones((len(step.rows), width + 1))
        if used_B.any():
            design_BD[:, 1:] = seen_BD - seen_BD[used_B].mean(axis=0)
        inside_AD = design_BD[used_B]
        gram_DD = inside_AD.T @ inside_AD + np.diag(np.r_[_TINY, np.full(width, _RIDGE)])
        weights_D2 = np.linalg.solve(gram_DD, inside_AD.T @ (targets_B2 - base_B2)[used_B])
        told_B2 = base_B2 + design_BD @ weights_D2
        # Cut only what is far from possible: to cut all of it would move the mean.
        ahead_B2 = np.clip(told_B2, -_SLACK, [1 + _SLACK, most_calls + _SLACK])
        residuals_B2 = np.where(used_B[:, None], targets_B2 - told_B2, 0)
        return cls(used_B, design_BD, gram_DD, ahead_B2, ahead_B2 == told_B2, residuals_B2)


def _through(paths: Paths, fits: list[_Fit], own_N: BoolArray) -> FloatArray:
    """Return what each question adds to N times the fold's part of `direct`, through its regressions, [N, 2].

    The gradient of the value by the weights of one step leads, over the questions these are learned from, to that by
    the weights of the next: the chain rule through all regressions.
    """
    added_N2 = np.zeros((len(own_N), 2))
    # How much the value at each step counts, by question.
    counts_N2 = np.column_stack([own_N, own_N]) / len(own_N)
    for step, fit in zip(paths.steps, fits, strict=True):
        gradient_D2 = fit.design.T @ (counts_N2[step.rows] * fit.free)
        pull_B2 = np.where(fit.used[:, None], fit.design @ np.linalg.solve(fit.gram, gradient_D2), 0)
        added_N2[step.rows] += len(own_N) * pull_B2 * fit.residuals
        counts_N2 = np.zeros_like(added_N2)
        counts_N2[step.rows] = pull_B2
    return added_N2


def _scaled(paths: Paths) -> list[tuple[Step, FloatArray, FloatArray]]:
    """Return of each step the weights before it, [B], and those after it, scaled to add up to the same."""
    weights_N: FloatArray = np.ones(len(paths.reached))
    found: list[tuple[Step, FloatArray, FloatArray]] = []
    for step in paths.steps:
        before_B = weights_N[step.rows]
        after_B = before_B * step.came / step.chance
        # Where nobody came there is no weight to scale, and the models alone speak.
        after_B = after_B * (before_B.sum() / max(after_B.sum(), _TINY))
        found.append((step, before_B, after_B))
        weights_N[step.rows] = after_B
    return found


def _ended(paths: Paths) -> FloatArray:
    """Return what paths are worth that have ended, [N, 2]."""
    return np.column_stack([paths.right, np.zeros(len(paths.right))])


def _mean(values_B2: FloatArray, weights_B: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weighted mean, and how far the values are from it, for a variance (HC3); both 0 without weight."""
    total = weights_B.sum()
    if total <= 0:
        return np.zeros(values_B2.shape[1]), np.zeros_like(values_B2)
    mean_2 = weights_B @ values_B2 / total
    others_B1 = np.maximum(1 - weights_B / total, _TINY)[:, None]
    return mean_2, np.where(weights_B[:, None] > 0, (values_B2 - mean_2) / others_B1, 0)
