"""Static figures for papers, as wide as one column (3.3 inches) or two (7 inches); titles are left to captions."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fusion.files import replacing
from fusion.reports._figure_parts import (
    COLUMN,
    INK,
    LINE,
    MARKS,
    PAGE,
    PALE,
    TALLEST,
    aired,
    fitted,
    heat,
    inches,
    key,
    panel,
    sheet,
    styled,
)
from fusion.reports._figure_policy import figures_of_policies
from fusion.reports._figure_trust import figures_of_trust
from fusion.reports._page_data import ReportData
from fusion.reports._page_parts import ROLE_WORDS
from fusion.reports._page_study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


class _Mark(NamedTuple):
    """A point of a figure in percent, with its interval; `other` is a second value, `cost` its place on the x axis."""

    label: str
    role: str
    value: float
    low: float = 0.0
    high: float = 0.0
    other: float | None = None
    cost: float = 0.0


def write_figures(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """Write the figures that `data` allows as PNG and PDF, the same bytes each time, and return the files.

    Args:
        data: What a report shows.
        folder: Where to; made if it is missing. Files there are replaced, once all figures are drawn.

    Raises:
        MissingDependency: When matplotlib is not installed.
        OutputError: When a file cannot be written.
    """
    drawn: dict[Path, bytes] = {}
    with styled():
        for name, figure in build_figures(data).items():
            for suffix, dpi, left_out in (("png", 200, "Software"), ("pdf", 400, "CreationDate")):
                content = io.BytesIO()
                figure.savefig(content, format=suffix, dpi=dpi, metadata={left_out: None})
                drawn[folder / f"{name}.{suffix}"] = content.getvalue()
    for path, image in drawn.items():
        with replacing(path) as temporary:
            temporary.write_bytes(image)
    return tuple(drawn)


def build_figures(data: ReportData) -> dict[str, Figure]:
    """Return the figures that `data` allows by name.

    They are `systems`, `diversity`, `errors` (without labels `agreement`), `failures`, `pareto`, `worth`, `categories`,
    `policy`, `policy-curve`, `reliability`, `risk-coverage` and `weights` (of further systems `policy-2`,
    `policy-curve-2`, `weights-2` and so on).

    Raises:
        MissingDependency: When matplotlib is not installed.
    """
    study = Study.of(data)
    with styled():
        found = {
            "systems": _systems(data),
            "diversity": _diversity(data),
            "agreement" if study.right is None else "errors": _pairs(data, study),
            "failures": _failures(study),
            "pareto": _pareto(data),
            "worth": _worth(data),
            "categories": _categories(data, study),
            **figures_of_policies(data),
            **figures_of_trust(data),
        }
    return {name: figure for name, figure in found.items() if figure is not None}


def _role_keys(marks: Sequence[_Mark]) -> list[Line2D]:
    known, present = {**ROLE_WORDS, "front": "Pareto front"}, {mark.role for mark in marks}
    return [key(role, words.partition(",")[0]) for role, words in known.items() if role in present]


def _systems(data: ReportData) -> Figure | None:
    rows = sorted(data.systems, key=lambda row: -row.accuracy)
    marks = [_Mark(row.label, row.role, 100 * row.accuracy, 100 * row.low, 100 * row.high) for row in rows]
    members = [mark.value for mark in marks if mark.role == "member"]
    keys = _role_keys(marks) + ([key("rule", "best member alone")] if members else [])
    return _whiskers(marks, name="accuracy (%)", keys=keys, rule=max(members, default=None)) if marks else None


def _worth(data: ReportData) -> Figure | None:
    worth = data.worth
    if worth is None or not worth.agents:
        return None
    columns = [100 * values_M for values_M in (worth.shapley, worth.shapley_low, worth.shapley_high, worth.loo)]
    order = np.argsort(-worth.shapley, kind="stable")
    marks = [_Mark(worth.agents[at], "worth", *(float(column_M[at]) for column_M in columns)) for at in order]
    keys = [key("worth", "Shapley value"), key("left_out", "leave one out")]
    return _whiskers(marks, name="accuracy gained (points)", keys=keys, rule=0.0)


def _whiskers(marks: Sequence[_Mark], *, name: str, keys: Sequence[Line2D], rule: float | None) -> Figure:
    labels = [mark.label for mark in marks]
    halves = 1 if len(marks) <= TALLEST else 2
    lines = math.ceil(len(marks) / halves)
    wide = halves == 2 or inches(*fitted(labels, PAGE)) > 1.7
    names = fitted(labels, 1.7 if halves == 2 or not wide else 3.4)
    left, each, height = inches(*names) + 0.12, (PAGE if wide else COLUMN) / halves, lines * LINE + 0.06
    figure = sheet(each * halves, plot=height, keys=[*keys, key("interval", "95 % interval")])
    ends = [end for mark in marks for end in (mark.low, mark.high, mark.value, mark.other, rule) if end is not None]
    for half in range(halves):
        part = slice(half * lines, (half + 1) * lines)
        axes = panel(figure, left=half * each + left, width=each - left - 0.14, height=height)
        for place, mark in enumerate(marks[part]):
            axes.plot([mark.low, mark.high], [place] * 2, **MARKS["interval"] | {"color": MARKS[mark.role]["color"]})
            axes.plot(mark.value, place, **MARKS[mark.role])
            if mark.other is not None:
                axes.plot(mark.other, place, **MARKS["left_out"])
        if rule is not None:
            axes.axvline(rule, **MARKS["rule"])
        axes.set_yticks(range(len(names[part])), names[part])
        axes.set(ylim=(lines - 0.4, -0.6), xlim=aired(ends), xlabel=name)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return figure


def _diversity(data: ReportData) -> Figure | None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    cloud = data.subsets
    if cloud is None:
        return None
    focal_P, accuracy_P, sizes_P = cloud.focal, 100 * cloud.accuracy, cloud.sizes
    least, most = int(sizes_P.min()), int(sizes_P.max())
    # From dark to light, so that grey tells sizes apart too; pure yellow would be lost on white.
    colors = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, most - least + 1)))
    shades = ScalarMappable(BoundaryNorm(np.arange(least, most + 2) - 0.5, colors.N), colors)
    total = f"{cloud.num_subsets:,}" + (f" of {cloud.sampled_from:,}" if cloud.sampled_from else "")
    keys = [key("subset", ROLE_WORDS["subset"]), key("front", "Pareto front")]
    keys.append(key("member", f"sub-ensembles ({total})", color=colors(0.5), markersize=3))
    figure = sheet(COLUMN, plot=2.2, keys=keys)
    axes = panel(figure, left=0.5, width=2.2 if most > least else 2.66, height=2.2)
    # The most frequent sizes first: they would hide the others.
    order_P = np.argsort(-np.bincount(sizes_P)[sizes_P], kind="stable")
    dot, colors_P = float(np.clip(6000 / cloud.num_subsets, 0.8, 12)), shades.to_rgba(sizes_P[order_P])
    axes.scatter(focal_P[order_P], accuracy_P[order_P], s=dot, c=colors_P, linewidths=0, rasterized=True)
    axes.plot(focal_P[cloud.pareto], accuracy_P[cloud.pareto], linestyle="none", **MARKS["front"])
    axes.plot(focal_P[cloud.best], accuracy_P[cloud.best], **MARKS["subset"])
    axes.set(xlabel="focal diversity", ylabel="accuracy (%)", xlim=aired(focal_P), ylim=aired(accuracy_P))
    if most > least:
        side = panel(figure, left=2.8, width=0.1, height=2.2)
        figure.colorbar(shades, cax=side, label="members", ticks=range(least, most + 1, 1 + (most - least) // 12))
    return figure


def _panels(data: ReportData) -> list[tuple[str, list[_Mark]]]:
    """Return the panels of accuracy against cost, the name of the cost and the points, where costs differ."""
    panels, cloud, usd = [], data.subsets, "USD per 1,000 questions"
    if cloud is not None:
        prices = [] if cloud.cost is None else [(usd, 1000 * cloud.cost)]
        for name, cost_P in [("members", cloud.sizes), *prices]:
            marks = []
            for at in sorted({*cloud.pareto.tolist(), cloud.best}):
                role = "subset" if at == cloud.best else "front"
                other = None if cloud.test_accuracy is None else 100 * float(cloud.test_accuracy[at])
                marks.append(_Mark("", role, 100 * float(cloud.accuracy[at]), other=other, cost=float(cost_P[at])))
            panels.append((name, marks))
    for name, factor, field in (("calls per question", 1, "calls_per_question"), (usd, 1000, "usd_per_question")):
        known = [(row, getattr(row, field)) for row in data.systems if getattr(row, field) is not None]
        marks = [_Mark(row.label, row.role, 100 * row.accuracy, cost=factor * cost) for row, cost in known]
        panels.append((name, marks))
    return [(name, marks) for name, marks in panels if len({mark.cost for mark in marks}) > 1]


def _pareto(data: ReportData) -> Figure | None:
    panels = _panels(data)
    if not panels:
        return None
    keys = _role_keys([mark for _, marks in panels for mark in marks])
    if data.subsets is not None and data.subsets.test_accuracy is not None:
        keys.append(key("elsewhere", "the same on other questions"))
    down = math.ceil(len(panels) / 2)
    figure = sheet(COLUMN if len(panels) == 1 else PAGE, plot=2.4 * down - 0.5, keys=keys)
    for at, (name, marks) in enumerate(panels):
        axes = panel(figure, left=0.58 + at % 2 * 3.6, width=2.66, height=1.9, bottom=2.4 * (down - at // 2) - 1.98)
        _draw_front(axes, marks)
        axes.set(xlabel=name if len(panels) == 1 else f"({'abcd'[at]}) {name}", ylabel="accuracy (%)")
    return figure


def _draw_front(axes: Axes, marks: Sequence[_Mark]) -> None:
    steps: list[_Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.cost, -mark.value)):
        if mark.role != "upper_bound" and (not steps or mark.value > steps[-1].value):
            steps.append(mark)
    costs = [mark.cost for mark in marks]
    low, high = aired(costs)
    if 0 < 20 * min(costs) < max(costs):
        low, high = min(costs) / 1.4, max(costs) * 1.4
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) < 5 else (1,))]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    else:
        axes.locator_params(axis="x", nbins=8, min_n_ticks=1, integer=all(cost % 1 == 0 for cost in costs))
    axes.set(xlim=(low, high), ylim=aired([y for mark in marks for y in (mark.value, mark.other) if y is not None]))
    stairs = [(mark.cost, mark.value) for mark in steps] + [(high, mark.value) for mark in steps[-1:]]
    axes.step([cost for cost, _ in stairs], [value for _, value in stairs], where="post", **MARKS["interval"])
    # Members lie below what the reader looks for.
    for mark in sorted(marks, key=lambda mark: (mark.role != "member") + (mark.role == "subset")):
        if mark.other is not None:
            axes.plot([mark.cost] * 2, [mark.value, mark.other], color="#606060", linewidth=0.4, zorder=1)
            axes.plot(mark.cost, mark.other, **MARKS["elsewhere"])
        axes.plot(mark.cost, mark.value, **MARKS[mark.role])


def _failures(study: Study) -> Figure | None:
    if study.failures is None or study.chance is None:
        return None
    keys = [key("", "observed", marker="s", color=PALE), key("chance", "if independent", linestyle="-")]
    figure = sheet(COLUMN, plot=1.9, keys=keys)
    left = 0.34 + inches(str(int(max(study.failures.max(), study.chance.max()))))
    axes = panel(figure, left=left, width=3.2 - left, height=1.9)
    axes.bar(range(len(study.failures)), study.failures, color=PALE)
    axes.plot(study.chance, clip_on=False, **MARKS["chance"] | {"markersize": 3.2 if len(study.chance) < 30 else 1.8})
    axes.set(xlabel="members that fail", ylabel="questions", xlim=(-0.7, len(study.chance) - 0.3))
    axes.locator_params(integer=True)
    return figure


def _pairs(data: ReportData, study: Study) -> Figure | None:
    if study.pairs is None:
        return None
    order = study.pairs.order
    value_MM = study.pairs.value[np.ix_(order, order)]
    np.fill_diagonal(value_MM, np.nan)
    label = "share of equal answers" if study.right is None else "error correlation"
    return heat(value_MM, [data.agents[at] for at in order], None, label=label, form="{:.2f}")


def _categories(data: ReportData, study: Study) -> Figure | None:
    if study.strengths is None or study.right is None:
        return None
    found, num = study.strengths, len(data.agents)
    order = [*np.argsort(-study.right.mean(axis=0), kind="stable"), *range(num, found.value.shape[1])]
    value_CM = 100 * found.value[:, order]
    everybody = [[*data.agents, *data.ensembles][at] for at in order]
    categories = [f"{name} ({count:,})" for name, count in zip(found.names, found.counts, strict=True)]
    upright = len(everybody) < len(categories)
    shown = (value_CM, categories, everybody) if upright else (value_CM.T, everybody, categories)
    figure = heat(*shown, label="accuracy (%)", form="{:.0f}")
    if data.ensembles:
        (figure.axes[0].axvline if upright else figure.axes[0].axhline)(num, color=INK, linewidth=1)
    return figure
