"""Confidence and weights: what is drawn of them, what is said about that in words, and the tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from fusion.reports import _page_parts as parts
from fusion.reports._page_data import ConfidenceRow, ReportData, WeightTable
from fusion.reports._page_parts import percent, text
from fusion.schema import FloatArray, IntArray, Json

_DIAGRAMS = 12  # of reliability at most, one a system
_MAPS = 8  # of weights at most, one a system
_DASH = "\u2013"
_DIGITS = 6  # of a weight in the page


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightMap:
    """Weights in the order in which they are drawn.

    Args:
        label: The system in words.
        agents: Those that are ever listened to, the one whose votes weigh most first.
        rows: Names of the rows: the mean over the questions, then the categories if these differ.
        counts: int, questions of each row.
        value: float [rows, agents], nan where the agent is never listened to.
    """

    label: str
    agents: tuple[str, ...]
    rows: tuple[str, ...]
    counts: IntArray
    value: FloatArray

    @classmethod
    def of(cls, table: WeightTable) -> Self:
        """Put agents in order, and say once what is the same in all categories."""
        known_CM = np.isfinite(table.value)
        weight_CM = table.counts[:, None] * known_CM
        sums_M = (np.where(known_CM, table.value, 0.0) * weight_CM).sum(axis=0)
        mean_M = np.full(sums_M.shape, np.nan)
        np.divide(sums_M, weight_CM.sum(axis=0), out=mean_M, where=weight_CM.sum(axis=0) > 0)
        # nan sorts last: members without any weight are cut off.
        order = np.argsort(-mean_M, kind="stable")[: int(np.isfinite(mean_M).sum())]
        same = bool((~known_CM | np.isclose(table.value, mean_M, rtol=1e-5, atol=0)).all())
        kept = 0 if same else len(table.categories)
        return cls(
            label=table.label,
            agents=tuple(table.agents[at] for at in order),
            rows=("mean", *table.categories[:kept]),
            counts=np.concatenate([[table.counts.sum()], table.counts[:kept]]),
            value=np.vstack([mean_M, table.value[:kept]])[:, order],
        )

    @property
    def unit(self) -> float:
        """What the numbers are shown in: 1, or a power of ten that leaves a few digits to read."""
        most = float(np.nanmax(np.abs(self.value)))
        return 1.0 if most == 0 or 0.1 <= most < 1000 else 10.0 ** math.floor(math.log10(most))

    @property
    def digits(self) -> int:
        """How many digits behind the point are shown."""
        most = float(np.nanmax(np.abs(self.value))) / self.unit
        return 3 if most < 1 else 2 if most < 10 else 1 if most < 100 else 0

    @property
    def unit_words(self) -> str:
        """Say the unit, or nothing where it is 1."""
        return "" if self.unit == 1 else f"in units of {self.unit:,.12g}"


def diagrams(data: ReportData) -> list[ConfidenceRow]:
    """Return the systems whose reliability is drawn: not baselines that say the same of every answer."""
    return [row for row in data.confidences if row.role == "system" or len(row.counts) > 1][:_DIAGRAMS]


def weight_maps(data: ReportData) -> list[WeightMap]:
    """Return the weights that are drawn."""
    return [WeightMap.of(table) for table in data.weights[:_MAPS]]


def static(data: ReportData) -> dict[str, str]:
    """Return what the skeleton has room for: words and tables."""
    return {
        "confidence_words": text(_confidence_words(data)),
        "risk_words": text(_risk_words(data)),
        "confidence_table": _confidence_table(data.confidences) if data.confidences else "",
        "weights_words": text(_weights_words(data)),
        "weights_tables": "\n".join(_weights_table(found) for found in weight_maps(data)),
    }


def payload(data: ReportData) -> dict[str, Json]:
    """Return what the charts are drawn from."""
    values: dict[str, Json] = {}
    if data.confidences:
        drawn = diagrams(data)
        values["confidences"] = [
            {**_curve(row), "bins": _bins(row) if row in drawn else []} for row in data.confidences
        ]
    if data.weights:
        values["weights"] = [_map(found) for found in weight_maps(data)]
    return values


def _confidence_words(data: ReportData) -> str:
    words = (
        "What a system says of its answers, its confidence or else the share of the votes, against how often they are "
        "right. Each dot is about a fifteenth of the answers, more where many are as sure, with its 95 % interval. On "
        "the dashed line a system keeps its word; below it, it promises too much. The bars at the foot count the "
        "answers of each dot."
    )
    chosen = [row for row in data.confidences if row.role == "system"]
    if len(chosen) > 1:
        best = min(chosen, key=lambda row: row.error)
        words += (
            f" Of the ensembles, {best.label} is closest to the line: off by {percent(best.error)} points on average."
        )
    return words


def _risk_words(data: ReportData) -> str:
    words = (
        "Share of wrong answers among those given, when only the surest questions are answered: the lower the better, "
        "and a curve that does not rise to the right knows nothing of its own errors. Questions without an answer come "
        "last, and count as wrong."
    )
    words += " AURC is the area under the curve."
    asked = next((row.answered for row in data.confidences if row.answered is not None), None)
    if asked is not None:
        words += (
            f" A ring is where a system stops that may be wrong on {percent(asked.risk)} % of its answers (dashed); "
            "where it stops was found on other questions."
        )
    return words


def _confidence_table(rows: Sequence[ConfidenceRow]) -> str:
    asked = next((row.answered for row in rows if row.answered is not None), None)
    headings = ["", "calibration error %", "95 % CI", "AURC %"]
    headings += [] if asked is None else ["answered %", "of these wrong %"]
    cells = []
    for row in rows:
        line = [row.label, percent(row.error), parts.interval(percent(row.low), percent(row.high)), percent(row.aurc)]
        if asked is not None:
            line += [_DASH, _DASH] if row.answered is None else [percent(row.answered.coverage), _wrong(row)]
        cells.append(line)
    return parts.plain_table(headings, cells)


def _wrong(row: ConfidenceRow) -> str:
    found = row.answered
    if found is None or found.error is None or found.low is None or found.high is None:
        return _DASH
    return f"{percent(found.error)} ({parts.interval(percent(found.low), percent(found.high))})"


def _weights_words(data: ReportData) -> str:
    words = (
        "What a vote of each member adds to the score of the option that it is for, by category: the mean over the "
        "questions where the member is listened to; above, over all of them. Members that weigh most come first. A "
        "negative weight, with a minus sign and in the other colour, speaks against what the member says. Weights "
        "compare within a system, not between systems. Ensembles that count all votes alike are not shown, nor members "
        "that one never listens to."
    )
    hidden = len(data.weights) - _MAPS
    return words + (f" {hidden} more systems are not shown." if hidden > 0 else "")


def _weights_table(found: WeightMap) -> str:
    """Return agents down and categories across: there are more agents than categories as a rule."""
    headings = ["", *(f"{name} ({count:,})" for name, count in zip(found.rows, found.counts.tolist(), strict=True))]
    rows = [
        [agent, *(_weight(value, found) for value in column)]
        for agent, column in zip(found.agents, found.value.T.tolist(), strict=True)
    ]
    unit = f", {found.unit_words}" if found.unit_words else ""
    return f"<h3>{parts.breakable(found.label)}{unit}</h3>{parts.plain_table(headings, rows)}"


def _weight(value: float, found: WeightMap) -> str:
    return f"{value / found.unit:.{found.digits}f}".replace("-", "\u2212") if math.isfinite(value) else _DASH


def _curve(row: ConfidenceRow) -> dict[str, Json]:
    found = row.answered
    given = None if found is None or found.error is None else found
    return {
        "label": row.label,
        "role": row.role,
        "error": round(row.error, 5),
        "aurc": round(row.aurc, 5),
        "coverage": _rounded(row.coverage),
        "risk": _rounded(row.risk),
        "allowed": None if found is None else found.risk,
        "answered": None if given is None else [round(given.coverage, 5), round(given.error or 0.0, 5)],
    }


def _bins(row: ConfidenceRow) -> list[Json]:
    columns = (row.confidence, row.accuracy, row.accuracy_low, row.accuracy_high)
    return [
        [count, *(round(value, 5) for value in values)]
        for count, *values in zip(row.counts.tolist(), *(column.tolist() for column in columns), strict=True)
    ]


def _map(found: WeightMap) -> dict[str, Json]:
    return {
        "label": found.label,
        "agents": list(found.agents),
        "rows": list(found.rows),
        "counts": [int(count) for count in found.counts],
        "unit": found.unit,
        "unit_words": found.unit_words,
        "digits": found.digits,
        "value": [
            float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in found.value.ravel().tolist()
        ],
    }


def _rounded(values: FloatArray) -> list[Json]:
    return [round(value, 5) for value in values.tolist()]
