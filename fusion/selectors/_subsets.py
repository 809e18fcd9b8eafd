"""Which sub-ensembles to score, and the best of those scored."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from fusion.errors import UsageError
from fusion.schema import FloatArray, IntArray
from fusion.selectors import _kernels
from fusion.selectors._score import Scores, missing

CHUNK = 1 << 17
"""Sub-ensembles scored at a time: some milliseconds of work, a few megabytes."""


MAX_MEMBERS = 40
"""The most members of a sub-ensemble: what the kernels keep of one grows with their cube."""


_LARGEST = 9999


class Chunk(NamedTuple):
    """Consecutive combinations.

    Attributes:
        size: S, members of each.
        start: How many of that size come before.
        length: P.
    """

    size: int
    start: int
    length: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Space:
    """The sub-ensembles that are allowed; agents are given by rank.

    Args:
        num_agents: M.
        sizes: Numbers of members, ascending.
        include: Members of every sub-ensemble.
        free: Agents that may join them.
        usd: float64 [M], price of a question; None when not known.
        max_usd: The most that a question may cost.
        seconds: float64 [M], latency of a question; None when not known.
        max_seconds: The most that a question may take.

    Raises:
        UsageError: When there is none.
    """

    num_agents: int
    sizes: tuple[int, ...]
    include: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    usd: FloatArray | None = None
    max_usd: float | None = None
    seconds: FloatArray | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for limit, known, name in ((self.max_usd, self.usd, "cost"), (self.max_seconds, self.seconds, "latency")):
            if limit is not None and known is None:
                raise UsageError(missing(name))
        agents = [*self.include, *self.free]
        if len(set(agents)) < len(agents) or not set(agents) <= set(range(self.num_agents)):
            raise UsageError(
                f"include and free must name agents below {self.num_agents}, each once; got {self.include} and "
                f"{self.free}"
            )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise UsageError(f"sizes must ascend, each once; got {self.sizes}")
        available = len(agents)
        if self.sizes and self.sizes[-1] > MAX_MEMBERS:
            raise UsageError(f"sub-ensembles may have at most {MAX_MEMBERS} members, asked for {self.sizes[-1]}")
        if not self.sizes or not max(1, len(self.include)) <= self.sizes[0] <= self.sizes[-1] <= available:
            asked = f"{self.sizes[0]} to {self.sizes[-1]}" if self.sizes else "no size"
            raise UsageError(
                f"{available} agents can form sub-ensembles of {max(1, len(self.include))} to {available} members "
                f"({len(self.include)} are always included), asked for {asked}"
            )

    @property
    def total(self) -> int:
        """Number of sub-ensembles, before limits on price and latency."""
        return sum(count for _, count in self.counts())

    def counts(self) -> list[tuple[int, int]]:
        """Return each size with the number of its sub-ensembles, before limits on price and latency."""
        return [(size, math.comb(len(self.free), size - len(self.include))) for size in self.sizes]

    def chunks(self, most: int = CHUNK) -> Iterator[Chunk]:
        """Yield all combinations in pieces of at most `most`."""
        for size, count in self.counts():
            for start in range(0, count, most):
                yield Chunk(size, start, min(most, count - start))

    def rows(self, chunk: Chunk) -> IntArray:
        """Return the sub-ensembles of a chunk that are within the limits, int16 [P, S], every row ascending."""
        chosen = chunk.size - len(self.include)
        free_PS = np.empty((chunk.length, chosen), np.int16)
        if chosen:
            first = np.array(unrank(chunk.start, len(self.free), chosen), np.int64)
            _kernels.combinations(first, len(self.free), free_PS)
        rows_PS = np.array(self.free, np.int16)[free_PS] if len(self.free) < self.num_agents else free_PS
        if self.include:
            fixed_PS = np.broadcast_to(np.array(self.include, np.int16), (chunk.length, len(self.include)))
            rows_PS = np.sort(np.hstack([rows_PS, fixed_PS]), axis=1)
        return self.within(rows_PS)

    def within(self, rows_PS: IntArray) -> IntArray:
        """Return the rows that are within the limits on price and latency."""
        if self.max_usd is not None and self.usd is not None:
            # Prices are sums of floats; a limit given as the price of a sub-ensemble shall allow it.
            rows_PS = rows_PS[self.usd[rows_PS].sum(axis=1) <= self.max_usd * (1 + 1e-9)]
        if self.max_seconds is not None and self.seconds is not None:
            rows_PS = rows_PS[self.seconds[rows_PS].max(axis=1) <= self.max_seconds * (1 + 1e-9)]
        return rows_PS


class Scored(NamedTuple):
    """Sub-ensembles with their scores, best first where they come from `Best`.

    Attributes:
        members: Ranks of the members of each.
        scores: Columns.
    """

    members: tuple[tuple[int, ...], ...]
    scores: Scores

    @classmethod
    def none(cls) -> Self:
        """Return no sub-ensembles."""
        return cls((), Scores(np.empty(0), np.empty(0), np.empty(0)))

    @classmethod
    def of(cls, rows_PS: IntArray, scores: Scores, places: IntArray) -> Self:
        """Return the sub-ensembles at `places`."""
        return cls(tuple(map(tuple, rows_PS[places].tolist())), Scores(*(column[places] for column in scores)))

    def take(self, places: Sequence[int]) -> Self:
        """Return the sub-ensembles at `places`, in that order."""
        columns = (column[np.array(places, np.intp)] for column in self.scores)
        return type(self)(tuple(self.members[p] for p in places), Scores(*columns))

    def joined(self, other: Self) -> Self:
        """Return these and those of `other` that are not among them."""
        known = set(self.members)
        fresh = other.take([p for p, members in enumerate(other.members) if members not in known])
        columns = (np.concatenate(pair) for pair in zip(self.scores, fresh.scores, strict=True))
        return type(self)(self.members + fresh.members, Scores(*columns))


class Best:
    """The best sub-ensembles seen so far, whatever the order in which they come.

    Equal objectives go by fewer members, then by accuracy, then by the ranks of the members.

    Args:
        most: How many to keep.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.found = Scored.none()

    def add(self, rows_PS: IntArray, scores: Scores) -> None:
        """Take note of sub-ensembles of one size."""
        objective_P = scores.objective
        if not len(objective_P):
            return
        worst = self.found.scores.objective[-1] if len(self.found.members) == self.most else -np.inf
        if len(objective_P) > self.most:
            worst = max(worst, float(np.partition(objective_P, -self.most)[-self.most]))
        better = np.flatnonzero(objective_P >= worst)
        # Many may tie with the worst one that is kept; those of one size differ in accuracy, then stand in order.
        order = np.lexsort((better, -scores.accuracy[better], -objective_P[better]))[: self.most]
        self.merge(Scored.of(rows_PS, scores, better[order]))

    def merge(self, other: Scored) -> None:
        """Take note of the best of other sub-ensembles; those that are known already count once."""
        both = self.found.joined(other)
        scores = both.scores
        order = sorted(
            range(len(both.members)),
            key=lambda p: (-scores.objective[p], len(both.members[p]), -scores.accuracy[p], both.members[p]),
        )
        self.found = both.take(order[: self.most])


class Front:
    """The Pareto front: sub-ensembles whose vote no other one of as few members and as low a price beats.

    Args:
        usd: float64 [M], price of a question by rank; None when prices do not count.
    """

    def __init__(self, usd: FloatArray | None) -> None:
        self.usd = usd
        self.found = Scored.none()

    def add(self, rows_PS: IntArray, scores: Scores) -> None:
        """Take note of sub-ensembles of one size."""
        if not len(rows_PS):
            return
        usd_P = np.zeros(len(rows_PS)) if self.usd is None else self.usd[rows_PS].sum(axis=1)
        order_P = np.lexsort((-scores.accuracy, usd_P))
        accuracy_P = scores.accuracy[order_P]
        before_P = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy_P)[:-1]])
        self.merge(Scored.of(rows_PS, scores, order_P[accuracy_P > before_P]))

    def merge(self, other: Scored) -> None:
        """Take note of the front of other sub-ensembles."""
        both = self.found.joined(other)
        usd = [0.0 if self.usd is None else float(self.usd[list(members)].sum()) for members in both.members]
        keys = [
            (len(members), price, -accuracy)
            for members, price, accuracy in zip(both.members, usd, both.scores.accuracy.tolist(), strict=True)
        ]
        kept: list[int] = []
        for p in sorted(range(len(keys)), key=lambda p: (keys[p], both.members[p])):
            if not any(keys[q][1] <= keys[p][1] and keys[q][2] <= keys[p][2] for q in kept):
                kept.append(p)
        self.found = both.take(kept)


def unrank(rank: int, num_agents: int, size: int) -> list[int]:
    """Return the combination that `rank` others precede in lexicographic order."""
    row: list[int] = []
    low = 0
    for place in range(size):
        while (following := math.comb(num_agents - low - 1, size - place - 1)) <= rank:
            rank -= following
            low += 1
        row.append(low)
        low += 1
    return row


def by_size(rows: Sequence[tuple[int, ...]]) -> dict[int, IntArray]:
    """Return rows of several sizes as one sorted array [P, S] for each size, without repetitions."""
    sizes = sorted({len(row) for row in rows})
    return {size: np.unique(np.array([row for row in rows if len(row) == size], np.int16), axis=0) for size in sizes}


def parse_sizes(text: str) -> tuple[int, ...]:
    """Read "2-5", "3" or "2,4-6" as ascending sizes.

    Raises:
        UsageError: When it is none of these.
    """
    sizes: set[int] = set()
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        if not low.isdecimal() or (dash and not high.isdecimal()) or int(low) < 1 or int(high or low) < int(low):
            raise UsageError(f"expected sizes such as 3, 2-5 or 2,4-6, got {text!r}")
        if int(high or low) > _LARGEST:
            raise UsageError(f"sizes go up to {_LARGEST}, got {text!r}")
        sizes.update(range(int(low), int(high or low) + 1))
    return tuple(sorted(sizes))
