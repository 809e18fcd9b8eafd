"""Static figures for papers, as wide as one column (3.3 inches) or two (7 inches); titles are left to captions."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusion.errors import MissingDependency
from fusion.files import replacing
from fusion.reports._page_data import ReportData
from fusion.reports._page_parts import ROLE_WORDS
from fusion.reports._page_study import Study
from fusion.schema import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_COLUMN, _PAGE, _LINE, _TALLEST = 3.3, 7.0, 0.16, 45  # widths and line pitch in inches; most lines of one panel
_INK, _PALE = "#222222", "#9dbfdc"
# The typeface comes with matplotlib, so that figures are the same on every machine; names are no formulas.
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "axes.formatter.useoffset"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("grid.linewidth", "hatch.linewidth", "legend.handletextpad"), 0.4),
    **{"font.family": "DejaVu Sans", "pdf.fonttype": 42, "text.parse_math": False, "axes.axisbelow": True},
    **{"axes.edgecolor": _INK, "text.color": _INK, "grid.color": "#d8d8d8", "hatch.color": "#999999"},
    **{"legend.labelspacing": 0.25, "legend.columnspacing": 1.2, "legend.handlelength": 1.6, "ytick.minor.size": 0},
}
# Okabe and Ito's colours, which the colour-blind tell apart; marks do without any colour.
_MARKS: Mapping[str, dict[str, Any]] = {
    "system": {"marker": "D", "color": "#0072b2", "markersize": 4.2},
    "subset": {"marker": "*", "color": "#d5001c", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5},
    "member": {"marker": "o", "color": "#606060", "markersize": 3.8},
    "baseline": {"marker": "^", "color": "#009e73", "markersize": 4.8},
    "upper_bound": {"marker": "v", "color": "#aa5587", "markersize": 4.8, "markerfacecolor": "white"},
    "worth": {"marker": "o", "color": "#0072b2", "markersize": 4.2},
    "left_out": {"marker": "D", "color": "#d55e00", "markersize": 3.8, "markerfacecolor": "none"},
    "front": {"marker": "o", "color": "black", "markersize": 4.6, "markerfacecolor": "none", "markeredgewidth": 0.8},
    "elsewhere": {"marker": "x", "color": "#606060", "markersize": 3.6, "markeredgewidth": 0.9},
    "chance": {"marker": "o", "color": "#d55e00", "markersize": 3.2, "markerfacecolor": "white", "linewidth": 0.9},
    "rule": {"linestyle": (0, (4, 3)), "color": _INK, "linewidth": 0.8, "zorder": 0.9},
    "interval": {"linestyle": "-", "color": _INK, "linewidth": 0.8, "zorder": 1.5},
}


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
    with _styled():
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

    They are `systems`, `diversity`, `errors` (without labels `agreement`), `failures`, `pareto`, `worth`, `categories`.

    Raises:
        MissingDependency: When matplotlib is not installed.
    """
    study = Study.of(data)
    with _styled():
        found = {
            "systems": _systems(data),
            "diversity": _diversity(data),
            "agreement" if study.right is None else "errors": _pairs(data, study),
            "failures": _failures(study),
            "pareto": _pareto(data),
            "worth": _worth(data),
            "categories": _categories(data, study),
        }
    return {name: figure for name, figure in found.items() if figure is not None}


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    """Draw as these figures are drawn, whatever the user's own settings; they are put back afterwards."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise MissingDependency("matplotlib", purpose="drawing figures", extra="figures") from error
    with style.context(["default", _STYLE]):
        yield


def _inches(*names: str) -> float:
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    font.set_size(8, 72)
    return max(sum(font.load_char(ord(c)).linearHoriAdvance for c in name) for name in names) / 65536 / 72


def _fitted(names: Sequence[str], most: float) -> list[str]:
    """Return names at most `most` inches wide, different where possible; what has no glyph is escaped."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    short = [name if len(name) <= 200 else f"{name[:100]}...{name[-100:]}" for name in names]
    whole = ["".join(c if ord(c) in glyphs and c.isprintable() else ascii(c)[1:-1] for c in name) for name in short]
    shown = [_cut(name, most, tail=0.5) for name in whole]
    # Ends tell most names apart; where they do not, what comes before the first difference is left out instead.
    for twice in [words for words, count in Counter(shown).items() if count > 1]:
        group = [at for at, words in enumerate(shown) if words == twice]
        ends = min(whole[at] for at in group), max(whole[at] for at in group)
        same = next((place for place, (one, other) in enumerate(zip(*ends, strict=False)) if one != other), 0)
        for at in group if same > 4 else ():
            shown[at] = _cut("\u2026" + whole[at][same - 4 :], most, tail=0)
    return shown


def _cut(name: str, most: float, *, tail: float) -> str:
    shown, kept = name, int(len(name) * most / max(_inches(name), most))
    while _inches(shown) > most:
        shown = name[: kept - int(kept * tail)] + "\u2026" + name[len(name) - int(kept * tail) :]
        kept -= 1
    return shown


def _key(role: str, words: str, **look: Any) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "none", **_MARKS.get(role, {}), **look, "label": words})


def _role_keys(marks: Sequence[_Mark]) -> list[Line2D]:
    known, present = {**ROLE_WORDS, "front": "Pareto front"}, {mark.role for mark in marks}
    return [_key(role, words.partition(",")[0]) for role, words in known.items() if role in present]


def _sheet(width: float, *, plot: float, below: float = 0.42, keys: Sequence[Line2D] = ()) -> Figure:
    """Return a figure with a plot `plot` inches high, `below` inches above its lower edge, under a legend."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(keys), int(width / (_inches("", *(str(key.get_label()) for key in keys)) + 0.4))))
    figure = Figure(figsize=(width, below + plot + 0.1 + 0.165 * math.ceil(len(keys) / columns)))
    if keys:
        figure.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.01, 1), ncols=columns, borderaxespad=0.2)
    return figure


def _panel(figure: Figure, *, left: float, width: float, height: float, bottom: float = 0.42) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _aired(values: Sequence[float] | FloatArray) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    air = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - air, high + air


def _systems(data: ReportData) -> Figure | None:
    rows = sorted(data.systems, key=lambda row: -row.accuracy)
    marks = [_Mark(row.label, row.role, 100 * row.accuracy, 100 * row.low, 100 * row.high) for row in rows]
    members = [mark.value for mark in marks if mark.role == "member"]
    keys = _role_keys(marks) + ([_key("rule", "best member alone")] if members else [])
    return _whiskers(marks, name="accuracy (%)", keys=keys, rule=max(members, default=None)) if marks else None


def _worth(data: ReportData) -> Figure | None:
    worth = data.worth
    if worth is None or not worth.agents:
        return None
    columns = [100 * values_M for values_M in (worth.shapley, worth.shapley_low, worth.shapley_high, worth.loo)]
    order = np.argsort(-worth.shapley, kind="stable")
    marks = [_Mark(worth.agents[at], "worth", *(float(column_M[at]) for column_M in columns)) for at in order]
    keys = [_key("worth", "Shapley value"), _key("left_out", "leave one out")]
    return _whiskers(marks, name="accuracy gained (points)", keys=keys, rule=0.0)


def _whiskers(marks: Sequence[_Mark], *, name: str, keys: Sequence[Line2D], rule: float | None) -> Figure:
    labels = [mark.label for mark in marks]
    halves = 1 if len(marks) <= _TALLEST else 2
    lines = math.ceil(len(marks) / halves)
    wide = halves == 2 or _inches(*_fitted(labels, _PAGE)) > 1.7
    names = _fitted(labels, 1.7 if halves == 2 or not wide else 3.4)
    left, each, height = _inches(*names) + 0.12, (_PAGE if wide else _COLUMN) / halves, lines * _LINE + 0.06
    figure = _sheet(each * halves, plot=height, keys=[*keys, _key("interval", "95 % interval")])
    ends = [end for mark in marks for end in (mark.low, mark.high, mark.value, mark.other, rule) if end is not None]
    for half in range(halves):
        part = slice(half * lines, (half + 1) * lines)
        axes = _panel(figure, left=half * each + left, width=each - left - 0.14, height=height)
        for place, mark in enumerate(marks[part]):
            axes.plot([mark.low, mark.high], [place] * 2, **_MARKS["interval"] | {"color": _MARKS[mark.role]["color"]})
            axes.plot(mark.value, place, **_MARKS[mark.role])
            if mark.other is not None:
                axes.plot(mark.other, place, **_MARKS["left_out"])
        if rule is not None:
            axes.axvline(rule, **_MARKS["rule"])
        axes.set_yticks(range(len(names[part])), names[part])
        axes.set(ylim=(lines - 0.4, -0.6), xlim=_aired(ends), xlabel=name)
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
    keys = [_key("subset", ROLE_WORDS["subset"]), _key("front", "Pareto front")]
    keys.append(_key("member", f"sub-ensembles ({total})", color=colors(0.5), markersize=3))
    figure = _sheet(_COLUMN, plot=2.2, keys=keys)
    axes = _panel(figure, left=0.5, width=2.2 if most > least else 2.66, height=2.2)
    # The most frequent sizes first: they would hide the others.
    order_P = np.argsort(-np.bincount(sizes_P)[sizes_P], kind="stable")
    dot, colors_P = float(np.clip(6000 / cloud.num_subsets, 0.8, 12)), shades.to_rgba(sizes_P[order_P])
    axes.scatter(focal_P[order_P], accuracy_P[order_P], s=dot, c=colors_P, linewidths=0, rasterized=True)
    axes.plot(focal_P[cloud.pareto], accuracy_P[cloud.pareto], linestyle="none", **_MARKS["front"])
    axes.plot(focal_P[cloud.best], accuracy_P[cloud.best], **_MARKS["subset"])
    axes.set(xlabel="focal diversity", ylabel="accuracy (%)", xlim=_aired(focal_P), ylim=_aired(accuracy_P))
    if most > least:
        side = _panel(figure, left=2.8, width=0.1, height=2.2)
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
        keys.append(_key("elsewhere", "the same on other questions"))
    down = math.ceil(len(panels) / 2)
    figure = _sheet(_COLUMN if len(panels) == 1 else _PAGE, plot=2.4 * down - 0.5, keys=keys)
    for at, (name, marks) in enumerate(panels):
        axes = _panel(figure, left=0.58 + at % 2 * 3.6, width=2.66, height=1.9, bottom=2.4 * (down - at // 2) - 1.98)
        _draw_front(axes, marks)
        axes.set(xlabel=name if len(panels) == 1 else f"({'abcd'[at]}) {name}", ylabel="accuracy (%)")
    return figure


def _draw_front(axes: Axes, marks: Sequence[_Mark]) -> None:
    steps: list[_Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.cost, -mark.value)):
        if mark.role != "upper_bound" and (not steps or mark.value > steps[-1].value):
            steps.append(mark)
    costs = [mark.cost for mark in marks]
    low, high = _aired(costs)
    if 0 < 20 * min(costs) < max(costs):
        low, high = min(costs) / 1.4, max(costs) * 1.4
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) < 5 else (1,))]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    else:
        axes.locator_params(axis="x", nbins=8, min_n_ticks=1, integer=all(cost % 1 == 0 for cost in costs))
    axes.set(xlim=(low, high), ylim=_aired([y for mark in marks for y in (mark.value, mark.other) if y is not None]))
    stairs = [(mark.cost, mark.value) for mark in steps] + [(high, mark.value) for mark in steps[-1:]]
    axes.step([cost for cost, _ in stairs], [value for _, value in stairs], where="post", **_MARKS["interval"])
    # Members lie below what the reader looks for.
    for mark in sorted(marks, key=lambda mark: (mark.role != "member") + (mark.role == "subset")):
        if mark.other is not None:
            axes.plot([mark.cost] * 2, [mark.value, mark.other], color="#606060", linewidth=0.4, zorder=1)
            axes.plot(mark.cost, mark.other, **_MARKS["elsewhere"])
        axes.plot(mark.cost, mark.value, **_MARKS[mark.role])


def _failures(study: Study) -> Figure | None:
    if study.failures is None or study.chance is None:
        return None
    keys = [_key("", "observed", marker="s", color=_PALE), _key("chance", "if independent", linestyle="-")]
    figure = _sheet(_COLUMN, plot=1.9, keys=keys)
    left = 0.34 + _inches(str(int(max(study.failures.max(), study.chance.max()))))
    axes = _panel(figure, left=left, width=3.2 - left, height=1.9)
    axes.bar(range(len(study.failures)), study.failures, color=_PALE)
    axes.plot(study.chance, clip_on=False, **_MARKS["chance"] | {"markersize": 3.2 if len(study.chance) < 30 else 1.8})
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
    return _heat(value_MM, [data.agents[at] for at in order], None, label=label, form="{:.2f}")


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
    figure = _heat(*shown, label="accuracy (%)", form="{:.0f}")
    if data.ensembles:
        (figure.axes[0].axvline if upright else figure.axes[0].axhline)(num, color=_INK, linewidth=1)
    return figure


def _heat(value_RC: FloatArray, rows: Sequence[str], columns: Sequence[str] | None, *, label: str, form: str) -> Figure:
    """Return a heat map, hatched where there is no value; columns without names have the numbers of the rows."""
    known = np.ma.masked_invalid(value_RC)
    low, high = (float(known.min()), float(known.max())) if known.count() else (0.0, 1.0)
    names, heads = _fitted(rows, 2.2), _fitted(columns or [str(row + 1) for row in range(len(rows))], 1.4)
    names = [f"{name}  {head}" for name, head in zip(names, heads, strict=True)] if columns is None else names
    left = max(_inches(*names) + 0.12, 0.75 * _inches(*heads[:3]))
    width = _COLUMN if left + 0.24 * len(heads) + 0.9 < _COLUMN else _PAGE
    across = (width - left - 0.88) / len(heads)
    height = max((min(max(across, _LINE), 0.2) if len(rows) <= _TALLEST else 0.125) * len(rows), 1.3)
    below = 0.22 if columns is None else 0.2 + 0.75 * _inches(*heads)
    figure = _sheet(width, plot=height, below=below)
    axes = _panel(figure, left=left, width=across * len(heads), height=height, bottom=below)
    axes.patch.set_hatch("//////")
    mesh = axes.pcolormesh(known, cmap="Blues", vmin=low, vmax=high + (low == high), edgecolors="white", linewidth=0.4)
    if across > 0.28 and height / len(rows) >= _LINE:
        for (row, column), value in np.ndenumerate(value_RC):
            if np.isfinite(value):
                words = form.format(value).replace("-", "\u2212")
                ink = "white" if value > (low + 2 * high) / 3 else _INK
                axes.text(column + 0.5, row + 0.5, words, color=ink, ha="center", va="center_baseline")
    every = math.ceil((_inches(*heads) + 0.03 if columns is None else 0.14) / across)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if columns else {}
    axes.set_xticks(np.arange(0, len(heads), every) + 0.5, heads[::every], **turn)
    axes.set_yticks(np.arange(len(rows)) + 0.5, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    side = _panel(figure, left=width - 0.78, width=0.1, height=height, bottom=below)
    figure.colorbar(mesh, cax=side, label=label).outline.set_visible(False)
    return figure
