"""Figures of confidence and weights: reliability diagrams, risk against coverage, heat maps of weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.reports._figure_parts import COLUMN, INK, MARKS, PAGE, PALE, fitted, heat, inches, key, panel, sheet
from fusion.reports._page_data import ConfidenceRow, ReportData
from fusion.reports._page_trust import diagrams, weight_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours again; strokes differ beside, so that curves are told apart in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa5587", "#e69f00", "#606060", "#56b4e9", "#8a6d00")
_STROKES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 2, 1.2, 2)))
_FOOT = 15  # percent of a diagram's height that the bars at its foot take at most


def figures_of_trust(data: ReportData) -> dict[str, Figure]:
    """Return `reliability`, `risk-coverage` and `weights`, further systems as `weights-2` and so on."""
    found: dict[str, Figure] = {}
    if data.confidences:
        rows = diagrams(data)
        if rows:
            found["reliability"] = _reliability(rows)
        found["risk-coverage"] = _risk_coverage(data)
    for place, weights in enumerate(weight_maps(data), start=1):
        unit = f", {weights.unit_words}" if weights.unit_words else ""
        label = f"weight{unit}" if len(data.weights) == 1 else f"{weights.label}{unit}"
        counted = [f"{name} ({count:,})" for name, count in zip(weights.rows, weights.counts.tolist(), strict=True)]
        form = f"{{:.{weights.digits}f}}"
        name = "weights" if place == 1 else f"weights-{place}"
        found[name] = heat(weights.value.T / weights.unit, weights.agents, counted, label=label, form=form, signed=True)
    return found


def _reliability(rows: list[ConfidenceRow]) -> Figure:
    """Return a diagram for each system, up to three side by side."""
    across = min(len(rows), 3)
    down = math.ceil(len(rows) / across)
    wide = PAGE if across > 1 else COLUMN
    each, pitch = wide / across, wide / across + 0.1
    side = each - 0.64
    keys = [key("worth", "right, with 95 % interval"), key("rule", "as right as said", linestyle=(0, (4, 3)))]
    keys.append(key("", "number of answers", marker="s", color=PALE))
    titled = 0.18 if len(rows) > 1 else 0.0
    figure = sheet(wide, plot=(down - 1) * pitch + side + titled, keys=keys)
    names = fitted([row.label for row in rows], side + 0.3)
    for at, row in enumerate(rows):
        bottom = 0.42 + (down - 1 - at // across) * pitch
        axes = panel(figure, left=0.5 + at % across * each, width=side, height=side, bottom=bottom)
        _diagram(axes, row)
        if len(rows) > 1:
            axes.set_title(names[at], fontsize=8, pad=4)
    return figure


def _diagram(axes: Axes, row: ConfidenceRow) -> None:
    said_B, right_B = 100 * row.confidence, 100 * row.accuracy
    axes.bar(said_B, _FOOT * row.counts / row.counts.max(), width=1.5, color=PALE)
    axes.plot([0, 100], [0, 100], **MARKS["rule"])
    # Points on the edge are drawn whole.
    shown: dict[str, Any] = {"clip_on": False}
    axes.vlines(said_B, 100 * row.accuracy_low, 100 * row.accuracy_high, color=INK, linewidth=0.8, zorder=1.5, **shown)
    axes.plot(said_B, right_B, **MARKS["worth"] | {"linestyle": "none", "markersize": 3.2} | shown)
    ticks = range(0, 101, 20)
    axes.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(0, 100), ylim=(0, 100), xticks=ticks, yticks=ticks)
    axes.grid(axis="y")


def _risk_coverage(data: ReportData) -> Figure:
    rows = data.confidences
    names = fitted([row.label for row in rows], 2.7)
    looks = [
        {
            "color": _COLOURS[at % len(_COLOURS)],
            "linestyle": _STROKES[(at + at // len(_COLOURS)) % len(_STROKES)],
            "linewidth": 1.4 if row.role == "system" else 0.9,
        }
        for at, row in enumerate(rows)
    ]
    keys = [key("", name, **look) for name, look in zip(names, looks, strict=True)]
    allowed = next((row.answered.risk for row in rows if row.answered is not None), None)
    if allowed is not None:
        keys += [key("rule", "risk asked for"), key("front", "where it stops")]
    wide = COLUMN if inches(*names) < 1.2 else PAGE
    figure = sheet(wide, plot=2.4, keys=keys)
    axes = panel(figure, left=0.46, width=wide - 0.66, height=2.4)
    # A single wrong answer would be a risk of 100 %: the first questions must not flatten everything else.
    usual = np.concatenate([row.risk[row.coverage >= 0.05] for row in rows])
    top = 106 * max(0.02, float(usual.max()), allowed or 0.0)
    for row, look in zip(rows, looks, strict=True):
        alone = {"marker": "o", "markersize": 3.2} if len(row.coverage) == 1 else {}
        axes.plot(100 * row.coverage, np.minimum(100 * row.risk, top), clip_on=False, **look | alone)
        if row.answered is not None and row.answered.error is not None:
            place = 100 * row.answered.coverage, min(100 * row.answered.error, top)
            axes.plot(*place, **MARKS["front"] | {"color": look["color"], "markerfacecolor": "white"})
    if allowed is not None:
        axes.axhline(100 * allowed, **MARKS["rule"])
    axes.set(xlabel="questions answered (%)", ylabel="wrong (%)", xlim=(0, 100), ylim=(0, top))
    axes.grid(axis="y")
    return figure
