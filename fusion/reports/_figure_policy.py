"""Figures of policies: whom they ask by category, and what they are worth stopped earlier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusion.reports._figure_parts import COLUMN, MARKS, PALE, aired, heat, key, panel, sheet
from fusion.reports._page_data import ReportData
from fusion.reports._page_parts import ROLE_WORDS
from fusion.reports._page_policy import PolicyMap, policy_maps, references, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE_RANGE = 8  # largest over smallest number of calls from which the axis is logarithmic


def figures_of_policies(data: ReportData) -> dict[str, Figure]:
    """Return `policy` and `policy-curve`, those of further systems as `policy-2`, `policy-curve-2` and so on."""
    found: dict[str, Figure] = {}
    for place, policy in enumerate(policy_maps(data), start=1):
        number = "" if place == 1 else f"-{place}"
        label = "asked (%)" if len(data.policies) == 1 else f"{policy.table.label}, asked (%)"
        counted = [f"{name} ({count:,})" for name, count in zip(policy.rows, policy.counts.tolist(), strict=True)]
        found[f"policy{number}"] = heat(100 * policy.asked.T, policy.agents, counted, label=label, form="{:.0f}")
        if len(policy.table.curve):
            found[f"policy-curve{number}"] = _curve(data, policy)
    return found


def _curve(data: ReportData, policy: PolicyMap) -> Figure:
    calls_P, right_P, low_P, high_P = (policy.table.curve * (1, 100, 100, 100)).T
    least, most = span(data, policy)
    beside = [row for row in references(data, policy) if row.accuracy >= least]
    roles = ["system", *(row.role for row in beside)]
    keys = [key("", "stopped after k calls", marker="o", color=MARKS["system"]["color"], linestyle="-", markersize=2.5)]
    keys.append(key("", "95 % interval", marker="s", color=PALE))
    keys += [key(role, words.partition(",")[0]) for role, words in ROLE_WORDS.items() if role in roles]
    figure = sheet(COLUMN, plot=2.0, keys=keys)
    axes = panel(figure, left=0.5, width=COLUMN - 0.66, height=2.0)
    axes.fill_between(calls_P, low_P, high_P, color=PALE, alpha=0.5, linewidth=0, zorder=0.8)
    axes.plot(calls_P, right_P, color=MARKS["system"]["color"], marker="o", markersize=2, linewidth=0.9)
    costs = [row.calls_per_question or 0.0 for row in beside]
    # Members lie below what the reader looks for.
    for row, cost in sorted(zip(beside, costs, strict=True), key=lambda pair: pair[0].role != "member"):
        axes.plot(cost, 100 * row.accuracy, **MARKS[row.role])
    axes.plot(calls_P[-1], right_P[-1], **MARKS["system"])
    axes.set(xlabel="calls per question", ylabel="accuracy (%)", ylim=aired([100 * least, 100 * most]))
    _place_calls(axes, [*calls_P.tolist(), *costs])
    axes.grid(axis="y")
    return figure


def _place_calls(axes: Axes, calls: list[float]) -> None:
    low, high = min(calls), max(calls)
    if not 0 < _WIDE_RANGE * low < high:
        axes.set_xlim(aired(calls))
        return
    low, high = low / 1.15, high * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
