"""Everything that the report computes, computed once, and what it says about that in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from fusion.reports._page_data import ReportData
from fusion.reports._page_numbers import (
    FailingSet,
    Pairs,
    agreement_pairs,
    category_strengths,
    error_pairs,
    failing_sets,
    failure_counts,
    independent_counts,
)
from fusion.reports._page_parts import percent
from fusion.schema import BoolArray, FloatArray, IntArray

_FAILING_SETS = 12
_CATEGORIES = 80  # lines of the heat map; the largest ones where there are more
_NAMED = 4  # members listed by name before "and n more"


@dataclass(frozen=True, kw_only=True, eq=False)
class Strengths:
    """Accuracies by category.

    Args:
        names: C categories, the one where members do best first.
        counts: int [C], questions of each.
        value: float [C, M + E], accuracies of the members, then of the ensembles.
        hidden: How many smaller categories there are beyond these.
    """

    names: tuple[str, ...]
    counts: IntArray
    value: FloatArray
    hidden: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What the report computes from answers and labels; None where it has nothing to show.

    Args:
        right: bool [N, M], or None without labels.
        ensembles_right: bool [N, E], or None without labels.
        pairs: Members two by two; None with one member.
        failures: int [M + 1], questions that exactly k members fail on; None without labels or with one member.
        chance: float [M + 1], the same if failures were independent.
        sets: Most frequent sets of failing members.
        strengths: Accuracies by category; None without labels or categories.
    """

    right: BoolArray | None
    ensembles_right: BoolArray | None
    pairs: Pairs | None
    failures: IntArray | None
    chance: FloatArray | None
    sets: tuple[FailingSet, ...]
    strengths: Strengths | None

    @classmethod
    def of(cls, data: ReportData) -> Self:
        """Compute everything that `data` allows."""
        right, ensembles_right = data.correct(), data.ensembles_correct()
        several = len(data.agents) > 1
        pairs: Pairs | None = None
        failures, chance = None, None
        sets: tuple[FailingSet, ...] = ()
        if several and right is None:
            pairs = agreement_pairs(data.answers)
        elif several and right is not None:
            pairs = error_pairs(~right, data.answers)
            failures = failure_counts(~right)
            chance = independent_counts(1 - right.mean(axis=0), num_questions=len(right))
            sets = tuple(failing_sets(~right, most=_FAILING_SETS))
        return cls(
            right=right,
            ensembles_right=ensembles_right,
            pairs=pairs,
            failures=failures,
            chance=chance,
            sets=sets,
            strengths=_strengths(data, right, ensembles_right),
        )


def _strengths(data: ReportData, right: BoolArray | None, ensembles_right: BoolArray | None) -> Strengths | None:
    if data.categories is None or right is None or ensembles_right is None:
        return None
    names, codes_N = np.unique(np.array(data.categories, dtype=object), return_inverse=True)
    counts_C = np.bincount(codes_N)
    value = category_strengths(np.concatenate([right, ensembles_right], axis=1), codes_N, num_categories=len(names))
    largest = np.sort(np.argsort(-counts_C, kind="stable")[:_CATEGORIES])
    best_first = largest[np.argsort(-value[largest, : right.shape[1]].mean(axis=1), kind="stable")]
    return Strengths(
        names=tuple(names[best_first]),
        counts=counts_C[best_first],
        value=value[best_first],
        hidden=len(names) - len(best_first),
    )


def listed(names: Sequence[str], *, most: int | None = None) -> str:
    """Return names as a list in words."""
    shown = list(names if most is None or len(names) <= most else names[:most])
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def set_words(members: Sequence[int], agents: Sequence[str]) -> str:
    """Return a set of members in words, by who is missing where that is shorter."""
    others = [agents[index] for index in range(len(agents)) if index not in set(members)]
    if not others:
        return f"all {len(agents)}" if len(agents) > 2 else "both"
    if len(others) <= _NAMED and len(members) > 2 * len(others):
        return f"all but {listed(others)}"
    return listed([agents[index] for index in members])


def systems_words(data: ReportData) -> str:
    """Say how members and ensembles compare."""
    words = "Share of questions answered right, with 95 % intervals, best first."
    members = [row for row in data.systems if row.role == "member"]
    if members:
        best = max(members, key=lambda row: row.accuracy)
        words += f" The dashed line is the member that is best on these questions, {best.label}."
    if any(row.role == "upper_bound" for row in data.systems):
        words += (
            " Upper bounds look at the right answers: nobody who chooses among the answers given can be that good, "
            "they show what is left to gain."
        )
    return words


def diversity_words(data: ReportData) -> str:
    """Say what the scatter plot shows."""
    if data.subsets is None:
        return ""
    shown, scored = data.subsets.num_subsets, data.subsets.sampled_from
    amount = f"{shown:,}" if scored is None else f"{shown:,} of the {scored:,}"
    return (
        f"Each dot is one of {amount} scored sub-ensembles. The ring with a cross is the chosen one, plain rings are "
        "the Pareto front."
    )


def pairs_words(data: ReportData, pairs: Pairs, *, labelled: bool) -> str:
    """Say which members are most and least alike."""
    first, second = np.triu_indices(len(data.agents), k=1)
    values = pairs.value[first, second]
    known = np.flatnonzero(np.isfinite(values))
    if labelled:
        words = (
            "Correlation of being wrong, question by question: 1 when two members fail on the same questions, 0 when "
            "one's failures say nothing about the other's."
        )
    else:
        words = "Share of questions on which two members give the same answer, of those that both answer."
    if not len(known):
        return f"{words} No pair has a value: one of each two is always right, always wrong or silent."

    def pair(place: int) -> str:
        at = known[place]
        return f"{data.agents[first[at]]} and {data.agents[second[at]]} ({_two(values[at])})"

    if len(known) == 1:
        return f"{words} {pair(0)} are the only pair."
    order = np.argsort(values[known])
    return f"{words} Mean {_two(values[known].mean())}; most alike: {pair(order[-1])}; least alike: {pair(order[0])}."


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")


def failures_words(study: Study) -> str:
    """Say how much more often all fail than by chance."""
    if study.failures is None or study.chance is None:
        return ""
    num, members = int(study.failures.sum()), len(study.failures) - 1
    everybody, chance = int(study.failures[-1]), float(study.chance[-1])
    expected = f"{chance:,.1f}" if chance >= 0.05 else "practically none"
    return (
        f"How many questions exactly k of the {members} members fail on. All of them fail on {everybody:,} of {num:,} "
        f"questions ({percent(everybody / num)} %), where no choice among their answers can help; members as good "
        f"whose failures were independent would all fail on {expected}. On {int(study.failures[0]):,} nobody fails."
    )


def categories_words(data: ReportData, strengths: Strengths) -> str:
    """Say who leads in how many categories."""
    num_agents, total = len(data.agents), len(strengths.names)
    best_C = strengths.value[:, :num_agents].max(axis=1)
    leads_M = (strengths.value[:, :num_agents] == best_C[:, None]).sum(axis=0)
    leader = int(np.argmax(leads_M))
    words = (
        "Accuracy in %, members by overall accuracy; the best member of each category is framed. "
        f"{data.agents[leader]} leads, or shares the lead, in {leads_M[leader]} of {total}."
    )
    for place, name in list(enumerate(data.ensembles))[:1]:
        ahead = int((strengths.value[:, num_agents + place] >= best_C).sum())
        words += f" {name} is at least as good as the best member of the category in {ahead or 'none'}."
    if strengths.hidden:
        words += f" {strengths.hidden} smaller categories are not shown."
    return words


def headline_figures(data: ReportData, study: Study) -> list[tuple[str, str]]:
    """Return the few numbers that stand below the verdict, with words."""
    counts = {"question": len(data.question_ids), "member": len(data.agents)}
    found = [(f"{count:,}", f"{word}s" if count > 1 else word) for word, count in counts.items()]
    members = [row for row in data.systems if row.role == "member"]
    chosen = [row for row in data.systems if row.role in ("system", "subset")]
    if members:
        best = max(members, key=lambda row: row.accuracy)
        found.append((f"{percent(best.accuracy)} %", f"best member on these questions, {best.label}"))
    if chosen:
        best = max(chosen, key=lambda row: row.accuracy)
        found.append((f"{percent(best.accuracy)} %", f"best ensemble on these questions, {best.label}"))
    if study.right is not None and len(data.agents) > 1:
        found.append((f"{percent(float(study.right.any(axis=1).mean()))} %", "right for at least one member"))
    return found
