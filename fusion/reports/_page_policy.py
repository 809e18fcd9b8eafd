"""Policy cards: whom systems ask that ask one after another, in words and tables, and what is drawn of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from fusion.reports import _page_parts as parts
from fusion.reports._page_data import PolicyTable, ReportData, SystemRow
from fusion.reports._page_parts import percent, text
from fusion.reports._page_study import listed
from fusion.schema import FloatArray, IntArray, Json

_CARDS = 8  # at most, one a system
_FIRST = 6  # members named in the table of whom a policy asks first; the others stand in one line
_ENDS = 10  # lines of the table of calls at most; the last one holds what takes longer
_ALL = "all questions"


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyMap:
    """Shares in the order in which they are drawn.

    Args:
        table: What they are made from.
        agents: A names: those that are ever asked, the one asked most often first.
        rows: Names of the rows: all questions, then the categories if there are several.
        counts: int, questions of each row.
        asked: float [rows, A], share of the questions on which each agent is asked.
        accuracy: float, share of right answers of each row.
        calls: float, mean number of answers asked for of each row.
    """

    table: PolicyTable
    agents: tuple[str, ...]
    rows: tuple[str, ...]
    counts: IntArray
    asked: FloatArray
    accuracy: FloatArray
    calls: FloatArray

    @classmethod
    def of(cls, table: PolicyTable) -> Self:
        """Put agents in order, and all questions above the categories."""
        kept = len(table.rows) if len(table.rows) > 1 else 0
        share_C = table.counts / table.counts.sum()
        asked_M = share_C @ table.asked
        order = np.argsort(-asked_M, kind="stable")[: int((asked_M > 0).sum())]
        return cls(
            table=table,
            agents=tuple(table.agents[at] for at in order),
            rows=(_ALL, *table.rows[:kept]),
            counts=np.concatenate([[table.counts.sum()], table.counts[:kept]]),
            asked=np.vstack([asked_M, table.asked[:kept]])[:, order],
            accuracy=np.concatenate([[share_C @ table.accuracy], table.accuracy[:kept]]),
            calls=np.concatenate([[share_C @ table.calls], table.calls[:kept]]),
        )


def policy_maps(data: ReportData) -> list[PolicyMap]:
    """Return the policies that are shown."""
    return [PolicyMap.of(table) for table in data.policies[:_CARDS]]


def references(data: ReportData, found: PolicyMap) -> list[SystemRow]:
    """Return what the curve of a policy is drawn beside: all whose calls are known, but for those who read labels."""
    known = [row for row in data.systems if row.calls_per_question is not None and row.role != "upper_bound"]
    return [row for row in known if row.label != found.table.label]


def span(data: ReportData, found: PolicyMap) -> tuple[float, float]:
    """Return the lowest and highest accuracy that a curve is drawn between; weak members and baselines lie below."""
    beside = references(data, found)
    best = sorted(row.accuracy for row in beside if row.role == "member")[-1:]
    chosen = [row.accuracy for row in beside if row.role in ("system", "subset")]
    values: list[float] = [*found.table.curve[:, 1:].ravel().tolist(), *best, *chosen]
    return min(values), max(*values, *(row.accuracy for row in beside))


def static(data: ReportData) -> dict[str, str]:
    """Return what the skeleton has room for: words and cards."""
    words = (
        "Systems that look at the answers so far before they ask somebody else. The darker a cell, the more of the "
        "category's questions the member is asked about (in %); the last columns are the calls a question takes there, "
        "and the share of right answers. Members that are asked most often come first."
    )
    hidden = len(data.policies) - _CARDS
    return {
        "policies_words": text(words + (f" {hidden} more systems are not shown." if hidden > 0 else "")),
        "policies_cards": "\n".join(_card(data, found, at) for at, found in enumerate(policy_maps(data))),
    }


def payload(data: ReportData) -> dict[str, Json]:
    """Return what the maps and curves are drawn from."""
    return {"policies": [_drawn(data, found) for found in policy_maps(data)]} if data.policies else {}


def _drawn(data: ReportData, found: PolicyMap) -> dict[str, Json]:
    curve = found.table.curve
    values: dict[str, Json] = {
        "label": found.table.label,
        "agents": list(found.agents),
        "rows": list(found.rows),
        "counts": [int(count) for count in found.counts],
        "asked": _rounded(found.asked),
        "accuracy": _rounded(found.accuracy),
        "calls": _rounded(found.calls),
        "curve": [_rounded(point) for point in curve],
    }
    if len(curve):
        values["span"] = [round(end, 5) for end in span(data, found)]
    return values


def _card(data: ReportData, found: PolicyMap, at: int) -> str:
    table = found.table
    shares = (
        parts.share_table(("asked first", "of the questions"), _first(table)),
        parts.share_table(("calls until it stops", "of the questions"), _ends(table)),
    )
    return (
        f'<div class="card"><h3>{parts.breakable(table.label)}</h3><p class="lede">{text(_words(found))}</p>'
        f'<figure><div class="controls"><span class="ramp" id="policy-ramp-{at}" aria-hidden="true"></span></div>'
        f'<div class="heat" id="policy-map-{at}"></div></figure>'
        f'<div class="panels">{"".join(f"<div>{share}</div>" for share in shares)}</div>'
        f"{_curve(data, found, at)}"
        f'<details class="more"><summary>The map as a table</summary>{_by_category(found)}</details></div>'
    )


def _words(found: PolicyMap) -> str:
    table = found.table
    words = f"It asks for {found.calls[0]:.3g} {'answer' if found.calls[0] == 1 else 'answers'} a question on average"
    if len(found.rows) > 1:
        most, least = int(found.calls[1:].argmax()) + 1, int(found.calls[1:].argmin()) + 1
        words += (
            f", from {found.calls[least]:.3g} in {found.rows[least]} to {found.calls[most]:.3g} in {found.rows[most]}"
        )
    words += f". {percent(float(table.ends[0]))} % of the questions end after one call."
    never = [agent for agent in table.agents if agent not in found.agents]
    if never:
        words += f" It never asks {listed(never, most=_FIRST)}."
    return words


def _first(table: PolicyTable) -> list[tuple[str, float]]:
    """Return whom a policy asks first, and on which share of the questions."""
    order = [int(at) for at in np.argsort(-table.first, kind="stable") if table.first[at] > 0]
    rows = [(table.agents[at], float(table.first[at])) for at in order[:_FIRST]]
    others = order[_FIRST:]
    return [*rows, (f"{len(others)} others", float(table.first[others].sum()))] if others else rows


def _ends(table: PolicyTable) -> list[tuple[str, float]]:
    """Return after how many calls questions end."""
    last = int(np.flatnonzero(table.ends)[-1]) + 1 if table.ends.any() else 1
    if last <= _ENDS:
        return [(str(count), float(table.ends[count - 1])) for count in range(1, last + 1)]
    rows = [(str(count), float(table.ends[count - 1])) for count in range(1, _ENDS)]
    return [*rows, (f"{_ENDS} to {last}", float(table.ends[_ENDS - 1 :].sum()))]


def _curve(data: ReportData, found: PolicyMap, at: int) -> str:
    table = found.table
    heading = "<h4>Stopped earlier</h4>"
    if not len(table.curve):
        return f'{heading}<p class="lede">Not measured: {text(table.left_out or "no curve is on record")}.</p>'
    first, last = (percent(float(table.curve[place, 1])) for place in (0, -1))
    words = (
        "Stopped after 1, 2, ... calls at most; the same fuser, fitted once, settles what was said up to then. "
        f"After one call {first} % are right; the last point, {last} %, is the system itself. The band is the 95 % "
        "interval. Beside it stand members alone and other systems at the calls that they take"
    )
    beside = references(data, found)
    low = span(data, found)[0]
    below = sum(row.accuracy < low for row in beside)
    words += f"; {below} weaker {'one lies' if below == 1 else 'ones lie'} below the axis." if below else "."
    return (
        f'{heading}<p class="lede">{text(words)}</p><figure>'
        f'<ul class="legend" aria-label="Legend"><li><span class="swatch band"></span>stopped after k calls</li>'
        f"{parts.roles_legend(['system', *(row.role for row in beside)])}</ul>"
        f'<div id="policy-curve-{at}"></div></figure>'
        f'<details class="more"><summary>The curve as a table</summary>{_points(table)}</details>'
    )


def _points(table: PolicyTable) -> str:
    headings = ["calls at most", "calls a question", "accuracy %", "95 % CI"]
    headings += ["tokens a question"] if table.tokens is not None else []
    rows: list[Sequence[str]] = []
    for most, (calls, accuracy, low, high) in enumerate(table.curve.tolist(), start=1):
        row = [str(most), f"{calls:.2f}", percent(accuracy), parts.interval(percent(low), percent(high))]
        rows.append(row + ([f"{table.tokens[most - 1]:,.0f}"] if table.tokens is not None else []))
    return parts.plain_table(headings, rows)


def _by_category(found: PolicyMap) -> str:
    """Return agents down and categories across, as in the tables of weights."""
    headings = ["", *(f"{name} ({count:,})" for name, count in zip(found.rows, found.counts.tolist(), strict=True))]
    rows = [
        ["calls a question", *(f"{calls:.2f}" for calls in found.calls.tolist())],
        ["right %", *(percent(share) for share in found.accuracy.tolist())],
        *(
            [f"asked %: {agent}", *(percent(share) for share in column)]
            for agent, column in zip(found.agents, found.asked.T.tolist(), strict=True)
        ),
    ]
    return parts.plain_table(headings, rows)


def _rounded(values: FloatArray) -> list[Json]:
    return [round(value, 5) for value in values.ravel().tolist()]
