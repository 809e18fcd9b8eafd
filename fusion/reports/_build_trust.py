"""From a run of bench to what a report shows of confidences and weights."""

from collections.abc import Iterable

import numpy as np

from fusion.evaluation import BenchResult, SelectiveResult, SystemResult
from fusion.reports._page_data import AnsweredPart, ConfidenceRow, WeightTable


def confidence_rows(results: Iterable[BenchResult]) -> tuple[ConfidenceRow, ...]:
    """Return what systems say of their answers; of a system in several results, what the last one knows."""
    rows = {item.name: _confidence_row(item) for result in results for item in result.systems}
    return tuple(row for row in rows.values() if row is not None)


def _confidence_row(item: SystemResult) -> ConfidenceRow | None:
    bins, curve = item.reliability, item.risk_coverage
    if not bins or curve is None or item.calibration_error is None or item.calibration_ci95 is None:
        return None
    return ConfidenceRow(
        label=item.label,
        role=item.role,
        error=item.calibration_error,
        low=item.calibration_ci95[0],
        high=item.calibration_ci95[1],
        counts=np.array([row.n for row in bins]),
        confidence=np.array([row.confidence for row in bins]),
        accuracy=np.array([row.accuracy for row in bins]),
        accuracy_low=np.array([row.ci95[0] for row in bins]),
        accuracy_high=np.array([row.ci95[1] for row in bins]),
        coverage=np.array(curve.coverage),
        risk=np.array(curve.risk),
        aurc=curve.aurc,
        answered=None if item.selective is None else _answered_part(item.selective),
    )


def _answered_part(found: SelectiveResult) -> AnsweredPart:
    low, high = found.error_ci95 or (None, None)
    return AnsweredPart(risk=found.risk, coverage=found.coverage, error=found.error, low=low, high=high)


def weight_tables(results: Iterable[BenchResult]) -> tuple[WeightTable, ...]:
    """Return the weights of the systems asked for that do not count all votes alike; likewise."""
    asked = (item for result in results for item in result.systems if item.role == "system")
    tables = {item.name: _weight_table(item) for item in asked}
    return tuple(table for table in tables.values() if table is not None)


def _weight_table(item: SystemResult) -> WeightTable | None:
    found = item.weights
    if found is None:
        return None
    # None stands for nan: JSON has none.
    value_CM = np.array(found.values, dtype=np.float64).reshape(len(found.categories), len(found.agents))
    known = value_CM[np.isfinite(value_CM)]
    if not known.size or np.ptp(known) == 0:
        return None
    return WeightTable(
        label=item.label,
        agents=found.agents,
        categories=found.categories,
        counts=np.array(found.counts),
        value=value_CM,
    )
