"""Pieces of static figures: sizes and style, names that fit, a sheet with panels under a legend, heat maps."""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.errors import MissingDependency
from fusion.schema import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMN, PAGE, LINE, TALLEST = 3.3, 7.0, 0.16, 45  # widths and line pitch in inches; most lines of one panel
INK, PALE = "#222222", "#9dbfdc"
# The typeface comes with matplotlib, so that figures are the same on every machine; names are no formulas.
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "axes.formatter.useoffset"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("grid.linewidth", "hatch.linewidth", "legend.handletextpad"), 0.4),
    **{"font.family": "DejaVu Sans", "pdf.fonttype": 42, "text.parse_math": False, "axes.axisbelow": True},
    **{"axes.edgecolor": INK, "text.color": INK, "grid.color": "#d8d8d8", "hatch.color": "#999999"},
    **{"legend.labelspacing": 0.25, "legend.columnspacing": 1.2, "legend.handlelength": 1.6, "ytick.minor.size": 0},
}
# Okabe and Ito's colours, which the colour-blind tell apart; marks do without any colour.
MARKS: Mapping[str, dict[str, Any]] = {
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
    "rule": {"linestyle": (0, (4, 3)), "color": INK, "linewidth": 0.8, "zorder": 0.9},
    "interval": {"linestyle": "-", "color": INK, "linewidth": 0.8, "zorder": 1.5},
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw as these figures are drawn, whatever the user's own settings; they are put back afterwards."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise MissingDependency("matplotlib", purpose="drawing figures", extra="figures") from error
    with style.context(["default", _STYLE]):
        yield


def inches(*names: str) -> float:
    """Return the width of the widest name."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    font.set_size(8, 72)
    return max(sum(font.load_char(ord(c)).linearHoriAdvance for c in name) for name in names) / 65536 / 72


def fitted(names: Sequence[str], most: float) -> list[str]:
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
    shown, kept = name, int(len(name) * most / max(inches(name), most))
    while inches(shown) > most:
        shown = name[: kept - int(kept * tail)] + "\u2026" + name[len(name) - int(kept * tail) :]
        kept -= 1
    return shown


def key(role: str, words: str, **look: Any) -> Line2D:
    """Return a line of the legend: the mark of a role, or the look given."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "none", **MARKS.get(role, {}), **look, "label": words})


def sheet(width: float, *, plot: float, below: float = 0.42, keys: Sequence[Line2D] = ()) -> Figure:
    """Return a figure with a plot `plot` inches high, `below` inches above its lower edge, under a legend."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(keys), int(width / (inches("", *(str(key.get_label()) for key in keys)) + 0.4))))
    figure = Figure(figsize=(width, below + plot + 0.1 + 0.165 * math.ceil(len(keys) / columns)))
    if keys:
        figure.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.01, 1), ncols=columns, borderaxespad=0.2)
    return figure


def panel(figure: Figure, *, left: float, width: float, height: float, bottom: float = 0.42) -> Axes:
    """Return axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def aired(values: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Return limits that leave some air around all values."""
    low, high = float(np.min(values)), float(np.max(values))
    air = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - air, high + air


def _two_sided() -> Colormap:
    """Return colours from orange for negative over white to blue for positive values, as in the page."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", ["#b84700", "#ffffff", "#08519c"])


def heat(
    value_RC: FloatArray,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    *,
    label: str,
    form: str,
    signed: bool = False,
) -> Figure:
    """Return a heat map, hatched where there is no value.

    Args:
        value_RC: What is shown, nan where there is no value.
        rows: Names of the rows.
        columns: Names of the columns; None for those of the rows, by number.
        label: Of the scale.
        form: How a value is written into its cell.
        signed: Whether colours begin at 0, negative values in another one.
    """
    known = np.ma.masked_invalid(value_RC)
    low, high = (float(known.min()), float(known.max())) if known.count() else (0.0, 1.0)
    cmap = _two_sided() if signed and low < 0 else "Blues"
    if signed:
        high = max(high, -low)
        low = -high if low < 0 else 0.0
    # Beyond this, on either side of 0 where there are two, letters are white.
    dark = high / 1.5 if low < 0 and signed else (low + 2 * high) / 3
    names, heads = fitted(rows, 2.2), fitted(columns or [str(row + 1) for row in range(len(rows))], 1.4)
    names = [f"{name}  {head}" for name, head in zip(names, heads, strict=True)] if columns is None else names
    left = max(inches(*names) + 0.12, 0.75 * inches(*heads[:3]))
    width = COLUMN if left + 0.24 * len(heads) + 0.9 < COLUMN else PAGE
    across = (width - left - 0.88) / len(heads)
    height = max((min(max(across, LINE), 0.2) if len(rows) <= TALLEST else 0.125) * len(rows), 1.3)
    below = 0.22 if columns is None else 0.2 + 0.75 * inches(*heads)
    figure = sheet(width, plot=height, below=below)
    axes = panel(figure, left=left, width=across * len(heads), height=height, bottom=below)
    axes.patch.set_hatch("//////")
    mesh = axes.pcolormesh(known, cmap=cmap, vmin=low, vmax=high + (low == high), edgecolors="white", linewidth=0.4)
    words = {place: form.format(value).replace("-", "\u2212") for place, value in np.ndenumerate(value_RC)}
    if signed:  # A sign takes the room of the zero before the point.
        words = {place: re.sub(r"^(\D?)0\.", r"\1.", word) for place, word in words.items()}
    if across > max(0.28, inches(*words.values())) and height / len(rows) >= LINE:
        for (row, column), value in np.ndenumerate(value_RC):
            if np.isfinite(value):
                ink = "white" if (abs(value) if signed else value) > dark else INK
                axes.text(column + 0.5, row + 0.5, words[row, column], color=ink, ha="center", va="center_baseline")
    every = math.ceil((inches(*heads) + 0.03 if columns is None else 0.14) / across)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if columns else {}
    axes.set_xticks(np.arange(0, len(heads), every) + 0.5, heads[::every], **turn)
    axes.set_yticks(np.arange(len(rows)) + 0.5, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    side = panel(figure, left=width - 0.78, width=0.1, height=height, bottom=below)
    figure.colorbar(mesh, cax=side, label=fitted([label], height)[0]).outline.set_visible(False)
    return figure
