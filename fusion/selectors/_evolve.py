"""Search where scoring everything is out of reach: beam search with exchanges, and a genetic algorithm.

Sub-ensembles are sorted rows of ranks. Both are given `score`, which returns the objective of rows of one size.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fusion.schema import FloatArray, IntArray
from fusion.selectors._subsets import Space, by_size

Score = Callable[[IntArray], FloatArray]
Members = tuple[int, ...]

WIDTH = 256
"""Sub-ensembles of a size that beam search goes on with."""

POPULATION = 512
GENERATIONS = 200
PATIENCE = 25
"""Generations without a better one after which the genetic algorithm stops."""


def grow(score: Score, space: Space, *, least: int, width: int = WIDTH) -> None:
    """Grow the best sub-ensembles by one member at a time, then exchange members of the best of each size.

    Args:
        score: What to maximise.
        space: What is allowed.
        least: The fewest members for which the objective is defined.
        width: How many of a size to go on with, at least 1.
    """
    level = [tuple(sorted(space.include))]
    kept: dict[int, list[Members]] = {}
    while len(level[0]) < space.sizes[-1]:
        level = _extended(level, space)
        if not level:
            break
        if len(level[0]) >= least:
            level = _best(score, level, width)
        if len(level[0]) in space.sizes:
            kept[len(level[0])] = level
    for start in kept.values():
        _exchange(score, space, start)


def _exchange(score: Score, space: Space, level: list[Members]) -> None:
    """Replace one member at a time as long as the best of the sub-ensembles gets better."""
    known = set(level)
    best = -np.inf
    while level:
        tried = {members for row in level for members in _neighbours(row, space)} - known
        level = _within(tried, space)
        if not level:
            return
        known |= set(level)
        rows_PS = np.array(level, np.int16)
        objective_P = score(rows_PS)
        if objective_P.max() <= best:
            return
        best = float(objective_P.max())
        order = np.argsort(-objective_P, kind="stable")[: max(1, WIDTH // 8)]
        level = [level[p] for p in order.tolist()]


def evolve(
    score: Score, space: Space, *, seed: int, seeds: Sequence[Members] = (), population: int = POPULATION
) -> None:
    """Recombine good sub-ensembles until nothing better has come for a while.

    A child has the members that both parents share, further ones drawn from either, and with some probability one
    member exchanged, added or removed. The best of parents and children live on.

    Args:
        score: What to maximise.
        space: What is allowed.
        seed: Of the draws.
        seeds: Sub-ensembles to start from, besides random ones.
        population: How many live at a time, at least 2.
    """
    rng = np.random.default_rng(seed)
    alive: dict[Members, float] = {}
    fresh = set(_within(seeds, space)) | {_random(space, rng) for _ in range(population)}
    best, waited = -np.inf, 0
    for _ in range(GENERATIONS):
        for rows_PS in by_size(_within(fresh - alive.keys(), space)).values():
            alive |= zip(map(tuple, rows_PS.tolist()), score(rows_PS).tolist(), strict=True)
        if not alive:
            return
        order = sorted(alive, key=lambda members: (-alive[members], members))[:population]
        alive = {members: alive[members] for members in order}
        waited = waited + 1 if alive[order[0]] <= best else 0
        if waited > PATIENCE:
            return
        best = alive[order[0]]
        # Better ones are parents more often: the smaller of two random places in the order.
        places = rng.integers(0, len(order), (population, 2, 2)).min(axis=2).tolist()
        fresh = {_mutated(_child(order[a], order[b], space, rng), space, rng) for a, b in places}


def _child(a: Members, b: Members, space: Space, rng: np.random.Generator) -> Members:
    size = len((a, b)[int(rng.integers(2))])
    both = [member for member in a if member in b]
    either = [member for member in {*a, *b} if member not in both]
    drawn = rng.permutation(len(either)).tolist()
    members = (sorted(both, key=lambda member: member not in space.include) + [either[d] for d in drawn])[:size]
    return tuple(sorted(members))


def _mutated(row: Members, space: Space, rng: np.random.Generator) -> Members:
    if rng.random() < 0.5:
        return row
    own = [member for member in row if member not in space.include]
    others = [agent for agent in space.free if agent not in row]
    changes = []
    if own and others:
        changes.append("exchange")
    if own and len(row) - 1 in space.sizes:
        changes.append("remove")
    if others and len(row) + 1 in space.sizes:
        changes.append("add")
    if not changes:
        return row
    change = changes[int(rng.integers(len(changes)))]
    members = set(row)
    if change != "add":
        members.discard(own[int(rng.integers(len(own)))])
    if change != "remove":
        members.add(others[int(rng.integers(len(others)))])
    return tuple(sorted(members))


def _random(space: Space, rng: np.random.Generator) -> Members:
    size = space.sizes[int(rng.integers(len(space.sizes)))]
    drawn = rng.permutation(len(space.free))[: size - len(space.include)].tolist()
    return tuple(sorted([*space.include, *(space.free[d] for d in drawn)]))


def _extended(level: Sequence[Members], space: Space) -> list[Members]:
    grown = {tuple(sorted((*row, agent))) for row in level for agent in space.free if agent not in row}
    return _within(grown, space)


def _neighbours(row: Members, space: Space) -> list[Members]:
    others = [agent for agent in space.free if agent not in row]
    return [
        tuple(sorted([*(member for member in row if member != leaving), agent]))
        for leaving in row
        if leaving not in space.include
        for agent in others
    ]


def _within(rows: Sequence[Members] | set[Members], space: Space) -> list[Members]:
    """Return those within the limits on price and latency, sorted."""
    return sorted(tuple(row) for rows_PS in by_size(list(rows)).values() for row in space.within(rows_PS).tolist())


def _best(score: Score, level: Sequence[Members], width: int) -> list[Members]:
    objective_P = score(np.array(level, np.int16))
    order = np.argsort(-objective_P, kind="stable")[:width]
    return [level[p] for p in order.tolist()]
