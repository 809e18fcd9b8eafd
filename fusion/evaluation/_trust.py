"""What a result keeps of a system's confidence and of the weights of its fuser, in a bounded number of points."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fusion.calibration import CalibrationError, risk_coverage
from fusion.data import PredictionTable
from fusion.evaluation._confidence import Stated
from fusion.evaluation._result import ConfidenceBin, RiskCoverageCurve, SystemResult, Weights
from fusion.protocols import Fuser, WeighingFuser
from fusion.schema import BoolArray, FloatArray, IntArray

MAX_POINTS = 50
"""Points that a curve of risk against coverage keeps at most."""

MAX_CATEGORIES = 40
"""Categories that weights are kept for at most, the most frequent ones."""


class Groups(NamedTuple):
    """The category of every question.

    Attributes:
        names: C names, [""] where there are no categories.
        codes: int [N], index of each question's category.
    """

    names: list[str]
    codes: IntArray

    @classmethod
    def of(cls, table: PredictionTable) -> "Groups":
        """Return the categories of a table."""
        if table.categories is None:
            return cls([""], np.zeros(len(table), dtype=np.intp))
        names, codes_N = np.unique(table.categories, return_inverse=True)
        return cls([str(name) for name in names], codes_N)


def confidence_bins(found: CalibrationError) -> tuple[ConfidenceBin, ...]:
    """Return the bins that a calibration error was computed in."""
    return tuple(
        ConfidenceBin(
            n=row.n,
            confidence=row.confidence,
            accuracy=row.accuracy,
            ci95=(float(row.interval.low), float(row.interval.high)),
        )
        for row in found.table
    )


def risk_coverage_curve(stated: Stated) -> RiskCoverageCurve | None:
    """Return risk against coverage over all questions; None where a system states no confidence or never answers."""
    if stated.confidence is None or not stated.answered.any():
        return None
    # An abstention is wrong, as everywhere in an evaluation, and stands behind whatever is answered: left out, the
    # area would be the smaller the more of the hard questions a system leaves unanswered.
    behind = float(stated.confidence[stated.answered].min()) - 1.0
    found = risk_coverage(np.where(stated.answered, stated.confidence, behind), stated.correct)
    kept_P = thinned(found.coverage_V, most=MAX_POINTS)
    return RiskCoverageCurve(
        coverage=tuple(found.coverage_V[kept_P].tolist()), risk=tuple(found.risk_V[kept_P].tolist()), aurc=found.aurc
    )


def thinned(coverage_V: FloatArray, *, most: int) -> IntArray:
    """Return int [P], P <= `most`, which points to keep: both ends, and those nearest to even steps between them.

    Args:
        coverage_V: Coverage of every point, rising, [V].
        most: Points to keep, at least 2.
    """
    if len(coverage_V) <= most:
        return np.arange(len(coverage_V))
    steps_P = np.linspace(coverage_V[0], coverage_V[-1], most)
    after_P = np.searchsorted(coverage_V, steps_P).clip(1, len(coverage_V) - 1)
    nearer_P = steps_P - coverage_V[after_P - 1] <= coverage_V[after_P] - steps_P
    return np.unique(after_P - nearer_P)


def mean_weights(
    fuser: Fuser, table: PredictionTable, heard_NM: BoolArray, *, groups: Groups, most: int = MAX_CATEGORIES
) -> Weights | None:
    """Return the mean weight of each agent's votes in every category; None where the fuser does not say weights.

    Args:
        fuser: Fitted.
        table: The questions evaluated on.
        heard_NM: bool [N, M], whose votes count; the mean of an agent is over these alone.
        groups: Their categories.
        most: Categories to keep, the most frequent ones.
    """
    weights_NM = fuser.vote_weights(table.blind()) if isinstance(fuser, WeighingFuser) else None
    if weights_NM is None:
        return None
    num = len(groups.names)
    counts_C = np.bincount(groups.codes, minlength=num)
    kept = np.argsort(-counts_C, kind="stable")[:most]
    heard_CM, sums_CM = (
        np.stack([np.bincount(groups.codes, weights=column_N, minlength=num) for column_N in values_NM.T], axis=1)
        for values_NM in (heard_NM, np.where(heard_NM, weights_NM, 0.0))
    )
    means_CM = np.full(sums_CM.shape, np.nan)
    np.divide(sums_CM, heard_CM, out=means_CM, where=heard_CM > 0)
    return Weights(
        agents=table.agents,
        categories=tuple(groups.names[at] for at in kept),
        counts=tuple(counts_C[kept].tolist()),
        values=tuple(tuple(_shortened(value) for value in row) for row in means_CM[kept].tolist()),
    )


def _shortened(value: float) -> float | None:
    """Return a weight in six significant digits, more than it is known to; None for what JSON has no number for."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def weights_notes(results: Iterable[SystemResult], groups: Groups) -> list[str]:
    """Say so where weights of some categories are left out."""
    shown = max((len(item.weights.categories) for item in results if item.weights is not None), default=0)
    if not 0 < shown < len(groups.names):
        return []
    return [f"weights are those of the {shown} most frequent of {len(groups.names)} categories"]
