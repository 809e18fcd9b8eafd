"""Policy cards: whom a system asks that asks one after another, and what it is worth when it is stopped earlier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable, right_answers
from fusion.ensemble import ask_in_rounds
from fusion.errors import InputError
from fusion.protocols import Fuser, Selector
from fusion.schema import BoolArray, FloatArray, IntArray, Selection

if TYPE_CHECKING:
    from fusion.evaluation._trust import Groups

MAX_ROWS = 40
"""Rows of a card at most; where there are more categories, the last row holds all beyond the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A policy that is stopped after some calls: the same fuser settles what has been said up to then.

    Args:
        most: Agents that are asked at most, at least 1.
        calls: Mean number of answers asked for.
        tokens: Mean number of tokens read and written, or None when not recorded.
        accuracy: Share answered right; abstaining is wrong.
        ci95: 95 % interval of the accuracy.
    """

    most: int
    calls: float
    tokens: float | None
    accuracy: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """Whom a policy asks, on the questions evaluated on.

    Args:
        agents: M names.
        asked: Share of the questions on which each agent is asked, M numbers.
        first: Share on which it is asked in the first round, M numbers; they add up to 1 where one is asked at a time.
        ends: Share of the questions that end after 1, 2, ..., M agents were asked.
        categories: C names, the most frequent first; one "" where questions have none.
        rest: How many categories the last row holds together; 0 where every row is one category.
        counts: Questions evaluated on of each row.
        accuracy: Share of them answered right.
        calls: Mean number of answers asked for on them; what a fuser itself asks is not counted.
        asked_by_category: C rows of M shares.
        curve: Stopped after 1, 2, ... calls at most; the last point is the system itself. Empty where not measured.
        curve_left_out: Why it was not; None where it was.

    Raises:
        InputError: When the lengths differ.
    """

    agents: tuple[str, ...]
    asked: tuple[float, ...]
    first: tuple[float, ...]
    ends: tuple[float, ...]
    categories: tuple[str, ...]
    rest: int
    counts: tuple[int, ...]
    accuracy: tuple[float, ...]
    calls: tuple[float, ...]
    asked_by_category: tuple[tuple[float, ...], ...]
    curve: tuple[CostPoint, ...] = ()
    curve_left_out: str | None = None

    def __post_init__(self) -> None:
        for name in ("asked", "first", "ends"):
            _expect(name, len(getattr(self, name)), len(self.agents), "agents")
        for name in ("counts", "accuracy", "calls", "asked_by_category"):
            _expect(name, len(getattr(self, name)), len(self.categories), "categories")
        for row in self.asked_by_category:
            _expect("a row of asked_by_category", len(row), len(self.agents), "agents")


def _expect(name: str, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise InputError(f"policy card: {expected} {what}, but {name} has {found}")


class Course(NamedTuple):
    """How a policy asked.

    Attributes:
        selection: The last one: whom it listens to.
        opening: bool [N, M], whom it asked in the first round.
        place: int16 [N, M], how many agents had been asked before this one; -1 for those never asked. Agents that are
            wanted together are asked in the selection's order, else by name.
    """

    selection: Selection
    opening: BoolArray
    place: IntArray

    @classmethod
    def of(cls, selector: Selector, table: PredictionTable) -> Self:
        """Run the ask loop on recorded answers."""
        place_NM = np.full((len(table), table.num_agents), -1, dtype=np.int16)
        by_name_NM = np.broadcast_to(np.argsort(np.argsort(table.agents, kind="stable")), place_NM.shape)
        opening_NM = None
        for selection in ask_in_rounds(selector, table):
            if opening_NM is None:
                opening_NM = selection.mask.copy()
            order_NM = by_name_NM if selection.order is None else selection.order
            asked_NM = place_NM >= 0
            rows_E, agents_E = np.nonzero(selection.mask & ~asked_NM)
            in_order = np.lexsort((order_NM[rows_E, agents_E], rows_E))
            rows_E, agents_E = rows_E[in_order], agents_E[in_order]
            before_E = np.arange(len(rows_E)) - np.searchsorted(rows_E, rows_E)
            place_NM[rows_E, agents_E] = asked_NM.sum(axis=1)[rows_E] + before_E
        assert opening_NM is not None, "there is one round at least"
        return cls(selection, opening_NM, place_NM)

    @property
    def asked(self) -> BoolArray:
        """Bool [N, M], who was asked."""
        asked_NM: BoolArray = self.place >= 0
        return asked_NM

    def stopped(
        self, fuser: Fuser, table: PredictionTable, right_N: BoolArray
    ) -> Iterator[tuple[int, BoolArray, BoolArray]]:
        """Yield k = 1, 2, ..., bool [N, M] who was asked and bool [N] what is right, stopped after k calls at most.

        Args:
            fuser: Fitted; it must settle every question by itself, as all must.
            table: The questions, labelled.
            right_N: bool [N], what is right when nothing is stopped.
        """
        calls_N = self.asked.sum(axis=1)
        for most in range(1, int(calls_N.max())):
            # Questions that ended before are what they were.
            rows_B = np.flatnonzero(calls_N > most)
            part, known_NM = table.rows(rows_B), self.asked & (self.place < most)
            decision = fuser.fuse(part.blind(), Selection(known_NM[rows_B]))
            stopped_N = right_N.copy()
            stopped_N[rows_B] = right_answers(decision, part)
            yield most, known_NM, stopped_N
        yield int(calls_N.max()), self.asked, right_N


def policy_card(
    course: Course,
    right_N: BoolArray,
    *,
    agents: tuple[str, ...],
    groups: Groups,
    samples: int,
    curve: tuple[CostPoint, ...],
    curve_left_out: str | None = None,
) -> PolicyCard:
    """Return the card of a policy.

    Args:
        course: How it asked.
        right_N: bool [N], where the system is right.
        agents: M names.
        groups: Categories of the questions.
        samples: Answers drawn from every agent that is asked.
        curve: What it is worth when it is stopped.
        curve_left_out: Why that is empty.
    """
    asked_NM = course.asked
    num_agents = len(agents)
    names, rows_N, rest = _rows(groups)
    counts_C = np.bincount(rows_N, minlength=len(names))
    right_C = np.bincount(rows_N, weights=right_N, minlength=len(names)) / counts_C
    asked_CM = np.stack(
        [np.bincount(rows_N, weights=column_N, minlength=len(names)) / counts_C for column_N in asked_NM.T], axis=1
    )
    ends_M = np.bincount(asked_NM.sum(axis=1) - 1, minlength=num_agents) / len(asked_NM)
    return PolicyCard(
        agents=agents,
        asked=_short(asked_NM.mean(axis=0)),
        first=_short(course.opening.mean(axis=0)),
        ends=_short(ends_M),
        categories=names,
        rest=rest,
        counts=tuple(counts_C.tolist()),
        accuracy=_short(right_C),
        calls=_short(asked_CM.sum(axis=1) * samples),
        asked_by_category=tuple(_short(row_M) for row_M in asked_CM),
        curve=curve,
        curve_left_out=curve_left_out,
    )


def _rows(groups: Groups) -> tuple[tuple[str, ...], IntArray, int]:
    """Return the names of a card's rows, int [N] the row of every question, and how many categories the last holds."""
    num = len(groups.names)
    order = np.argsort(-np.bincount(groups.codes, minlength=num), kind="stable")
    row_C = np.empty(num, dtype=np.intp)
    row_C[order] = np.arange(num)
    if num <= MAX_ROWS:
        return tuple(groups.names[at] for at in order), row_C[groups.codes], 0
    kept = MAX_ROWS - 1
    names = (*(groups.names[at] for at in order[:kept]), f"{num - kept} other categories")
    return names, np.minimum(row_C, kept)[groups.codes], num - kept


def _short(values: FloatArray) -> tuple[float, ...]:
    """Return numbers in six significant digits, more than they are known to."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
