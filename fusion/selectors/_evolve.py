"""Search where scoring everything is out of reach: beam search with exchanges, and a genetic algorithm.

Sub-ensembles are sorted rows of ranks. Both are given `score`, which returns the objective of rows of one size.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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
    level_PS: IntArray = np.array([sorted(space.include)], np.int16)
    kept: list[IntArray] = []
    if level_PS.shape[1] == space.sizes[0]:
        # Nothing grows to the smallest size: those that are always included are there already.
        level_PS = space.within(level_PS)
        if len(level_PS):
            kept.append(_best(score, level_PS, width))
    while len(level_PS) and level_PS.shape[1] < space.sizes[-1]:
        level_PS = space.within(_extended(level_PS, space))
        if len(level_PS) and level_PS.shape[1] >= least:
            level_PS = _best(score, level_PS, width)
        if len(level_PS) and level_PS.shape[1] in space.sizes:
            kept.append(level_PS)
    for start_PS in kept:
        _exchange(score, space, start_PS)


def _exchange(score: Score, space: Space, level_PS: IntArray) -> None:
    """Replace one member at a time as long as the best of the sub-ensembles gets better."""
    known = _keys(level_PS)
    best = -np.inf
    while len(level_PS):
        tried_PS = space.within(_neighbours(level_PS, space))
        tried_PS = tried_PS[~np.isin(_keys(tried_PS), known)]
        if not len(tried_PS):
            return
        known = np.concatenate([known, _keys(tried_PS)])
        objective_P = score(tried_PS)
        if objective_P.max() <= best:
            return
        best = float(objective_P.max())
        level_PS = tried_PS[np.argsort(-objective_P, kind="stable")[: max(1, WIDTH // 8)]]


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


def _extended(level_PS: IntArray, space: Space) -> IntArray:
    """Return the distinct sub-ensembles that one more agent makes of each, sorted."""
    agents_F = np.array(space.free, np.int16)
    pairs_PF = ~(level_PS[:, :, None] == agents_F).any(axis=1)
    rows_P, picked_P = np.nonzero(pairs_PF)
    return _distinct(np.column_stack([level_PS[rows_P], agents_F[picked_P]]))


def _neighbours(level_PS: IntArray, space: Space) -> IntArray:
    """Return the distinct sub-ensembles with one member of each exchanged, sorted; included agents stay."""
    agents_F = np.array(space.free, np.int16)
    absent_PF = ~(level_PS[:, :, None] == agents_F).any(axis=1)
    leaving_PS = ~np.isin(level_PS, np.array(space.include, np.int16))
    rows_P, places_P, picked_P = np.nonzero(leaving_PS[:, :, None] & absent_PF[:, None, :])
    changed_PS = level_PS[rows_P].copy()
    changed_PS[np.arange(len(changed_PS)), places_P] = agents_F[picked_P]
    return _distinct(changed_PS)


def _distinct(rows_PS: IntArray) -> IntArray:
    """Return the different rows, each sorted, in lexicographic order."""
    rows_PS = np.sort(rows_PS, axis=1).astype(np.int16)
    rows_PS = rows_PS[np.lexsort(rows_PS.T[::-1])]
    differ_P = np.ones(len(rows_PS), dtype=bool)
    differ_P[1:] = (rows_PS[1:] != rows_PS[:-1]).any(axis=1)
    return np.asarray(rows_PS[differ_P])


def _keys(rows_PS: IntArray) -> NDArray[np.void]:
    """Return one comparable value a row."""
    rows_PS = np.ascontiguousarray(rows_PS, np.int16)
    return rows_PS.view([("row", np.void, rows_PS.shape[1] * 2)])["row"].ravel()


def _within(rows: Sequence[Members] | set[Members], space: Space) -> list[Members]:
    """Return those within the limits on price and latency, sorted."""
    return sorted(tuple(row) for rows_PS in by_size(list(rows)).values() for row in space.within(rows_PS).tolist())


def _best(score: Score, level_PS: IntArray, width: int) -> IntArray:
    """Return the best sub-ensembles, in lexicographic order."""
    objective_P = score(level_PS)
    return level_PS[np.sort(np.argsort(-objective_P, kind="stable")[:width])]
