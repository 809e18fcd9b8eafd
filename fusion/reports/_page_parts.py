"""Pieces of the report that need no script: tables, dots with whiskers, lists. All foreign text is escaped here."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_EN_DASH = "\u2013"
_NUM = ' class="num"'
_MINUS = "\u2212"
_TICKS_AT_MOST = 7
ROLE_WORDS = {
    "system": "ensemble",
    "subset": "chosen sub-ensemble",
    "member": "member alone",
    "baseline": "baseline",
    "upper_bound": "upper bound, reads the labels",
}


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One line of a chart of dots with whiskers.

    Args:
        label: What it is.
        role: Which mark it gets.
        value: Where the mark stands.
        low, high: Ends of the whisker.
        cells: Numbers beside it, as text.
        tick: A second value, drawn as a stroke, or None.
    """

    label: str
    role: str
    value: float
    low: float
    high: float
    cells: tuple[str, ...]
    tick: float | None = None


def text(value: str) -> str:
    """Return `value` for HTML text or a quoted attribute; what UTF-8 cannot carry becomes a question mark."""
    return html.escape(value.encode("utf-8", "replace").decode("utf-8"), quote=True)


def breakable(value: str) -> str:
    """Return `value` for HTML text, with places where a long spec may be broken."""
    return re.sub(r"([+,])(?=\S)", r"\1<wbr>", text(value))


def percent(fraction: float, *, digits: int = 1) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * fraction:.{digits}f}"


def points(fraction: float) -> str:
    """Return a difference of fractions in percentage points, signed."""
    shown = f"{100 * fraction:+.2f}"
    return "0.00" if float(shown) == 0 else shown.replace("-", _MINUS)


def interval(low: str, high: str) -> str:
    """Return an interval as text."""
    return f"{low} to {high}" if _MINUS in low + high or "+" in low + high else f"{low}{_EN_DASH}{high}"


def nice_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in [low, high]: at most seven, 1, 2 or 5 times a power of ten apart; low < high."""
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS_AT_MOST))
    for step in (power * factor for factor in (1, 2, 5, 10)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < _TICKS_AT_MOST:
            break
    return [round(number * step, 12) for number in range(first, last + 1)]


def dot_table(
    dots: Sequence[Dot], *, headings: Sequence[str], caption: str, signed: bool = False, reference: float | None = None
) -> str:
    """Return a table with a chart column: for each line a mark and its whisker, and the numbers beside it.

    Args:
        dots: The lines, in order.
        headings: Of the first column, then of the cells.
        caption: What the table is, for those who cannot see it.
        signed: Whether the values are differences, shown in points around 0.
        reference: Where to draw a line through all rows, or None.
    """
    values = [bound for dot in dots for bound in (dot.low, dot.high, dot.value)]
    values += [dot.tick for dot in dots if dot.tick is not None] + ([0.0] if signed else [])
    air = 0.03 * (max(values) - min(values)) or 0.01
    low, high = min(values) - air, max(values) + air
    ticks = nice_ticks(low, high)

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    digits = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in ticks) else 1
    labels = "".join(
        f'<text x="{at(tick)}" y="12">{(points_tick if signed else percent)(tick, digits=digits)}</text>'
        for tick in ticks
    )
    grid = "".join(f'<line class="grid" x1="{at(tick)}" x2="{at(tick)}" y1="0" y2="100%"/>' for tick in ticks)
    rule = 0.0 if signed else reference
    if rule is not None:
        grid += f'<line class="reference" x1="{at(rule)}" x2="{at(rule)}" y1="0" y2="100%"/>'
    cells = "".join(f'<th scope="col" role="columnheader" class="num">{text(head)}</th>' for head in headings[1:])
    rows = []
    for dot in dots:
        tick = "" if dot.tick is None else f'<use class="tick" href="#m-tick" x="{at(dot.tick)}" y="50%"/>'
        numbers = "".join(
            f'<td role="cell" class="num" data-head="{text(head)}">{text(cell)}</td>'
            for head, cell in zip(headings[1:], dot.cells, strict=True)
        )
        rows.append(
            f'<tr role="row" class="r-{dot.role}"><th scope="row" role="rowheader"><span class="name">'
            f"{'' if signed else mark(dot.role)}<span>{breakable(dot.label)}</span></span></th>"
            f'<td role="cell" class="dots"><svg aria-hidden="true">{grid}'
            f'<line class="whisker" x1="{at(dot.low)}" x2="{at(dot.high)}" y1="50%" y2="50%"/>{tick}'
            f'<use href="#m-end" x="{at(dot.low)}" y="50%"/><use href="#m-end" x="{at(dot.high)}" y="50%"/>'
            f'<use href="#m-{dot.role}" x="{at(dot.value)}" y="50%"/></svg></td>{numbers}</tr>'
        )
    return (
        f'<table class="dotted" role="table"><caption class="unseen">{text(caption)}</caption><thead><tr role="row">'
        f'<th scope="col" role="columnheader">{text(headings[0])}</th>'
        f'<th class="dots axis" role="columnheader"><svg aria-hidden="true">{labels}</svg></th>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def points_tick(fraction: float, *, digits: int = 1) -> str:
    """Return a position on an axis of differences, in points."""
    shown = f"{100 * fraction:+.{digits}f}"
    return "0" if float(shown) == 0 else shown.replace("-", _MINUS)


def mark(role: str) -> str:
    """Return the mark of a role, as in the charts."""
    return f'<svg class="mark" aria-hidden="true"><use href="#m-{role}" x="50%" y="50%"/></svg>'


def roles_legend(roles: Iterable[str]) -> str:
    """Return list items that explain the marks of `roles`."""
    present = set(roles)
    return "\n".join(
        f'<li class="r-{role}">{mark(role)}{text(words)}</li>' for role, words in ROLE_WORDS.items() if role in present
    )


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a table; the first `words` columns hold words, the others numbers. Cells are escaped."""
    head = "".join(
        f'<th scope="col"{"" if place < words else _NUM}>{text(heading)}</th>' for place, heading in enumerate(headings)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{'' if at < words else _NUM}>{text(cell)}</td>" for at, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def share_table(headings: Sequence[str], rows: Iterable[tuple[str, float]]) -> str:
    """Return a table of words and shares, each share with a bar."""
    body = "".join(
        f'<tr><td>{text(words)}</td><td class="share"><svg aria-hidden="true"><rect width="{percent(share)}%" '
        f'height="100%"/></svg></td><td{_NUM}>{percent(share)} %</td></tr>'
        for words, share in rows
    )
    first, second = (text(heading) for heading in headings)
    return (
        f'<table class="plain shares"><thead><tr><th scope="col">{first}</th><th scope="col"{_NUM} colspan="2">'
        f"{second}</th></tr></thead><tbody>{body}</tbody></table>"
    )


def figure(value: str, words: str) -> str:
    """Return one of the key figures below the verdict."""
    return f"<div><dt>{breakable(words)}</dt><dd>{text(value)}</dd></div>"


def paragraphs(sentences: Iterable[str]) -> str:
    """Return each sentence as a paragraph."""
    return "\n".join(f"<p>{text(sentence)}</p>" for sentence in sentences)


def bullets(sentences: Sequence[str]) -> str:
    """Return a list, or nothing when there is nothing to list."""
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{items}</ul>' if items else ""


def definitions(entries: Mapping[str, str]) -> str:
    """Return names and values, or nothing when there are none."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in entries.items())
    return f'<dl class="provenance">{items}</dl>' if items else ""
