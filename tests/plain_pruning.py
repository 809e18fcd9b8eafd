"""Sub-ensembles scored one by one and question by question: what the compiled kernels must agree with.

Agents are given by their position in a table. S members, N questions.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from fusion.data import PredictionTable
from fusion.schema import BoolArray, IntArray

Members = tuple[int, ...]


def subsets(agents: Iterable[int], sizes: Iterable[int]) -> Iterator[Members]:
    """Yield all sub-ensembles, size by size, in lexicographic order of the positions of their members."""
    pool = list(agents)
    for size in sizes:
        yield from itertools.combinations(pool, size)


def ranking(table: PredictionTable) -> list[int]:
    """Return all agents from the most to the least accurate; equal ones in the order of the table."""
    right_M = ((table.answers == table.require_labels()[:, None]) & (table.answers >= 0)).sum(axis=0).tolist()
    return sorted(range(table.num_agents), key=lambda agent: -right_M[agent])


def vote(answers_S: IntArray, weights_S: IntArray | None = None) -> int:
    """Return the option with the most votes, abstentions ignored; -1 where all abstain.

    Args:
        answers_S: Answers to one question, the member that is followed in ties first; -1 for an abstention.
        weights_S: Whole numbers, at least 0; by default every vote weighs 1.
    """
    said = answers_S >= 0
    if not said.any():
        return -1
    votes_K = np.bincount(answers_S[said], weights=None if weights_S is None else weights_S[said])
    most = votes_K[answers_S[said]].max()
    return next(int(option) for option in answers_S[said] if votes_K[option] == most)


def right_votes(
    table: PredictionTable, members: Sequence[int], ranked: Sequence[int], weights: Sequence[int] | None = None
) -> int:
    """Return on how many questions the vote of the members is right.

    Args:
        table: Labelled answers.
        members: Who votes, in any order.
        ranked: All agents, the one that is followed in ties first.
        weights: Whole numbers, one an agent of the table; by default every vote weighs 1.
    """
    order = [agent for agent in ranked if agent in set(members)]
    answers_NS = table.answers[:, order]
    weights_S = None if weights is None else np.array(weights)[order]
    labels = table.require_labels().tolist()
    return sum(
        label >= 0 and vote(answers_S, weights_S) == label for answers_S, label in zip(answers_NS, labels, strict=True)
    )


def correct(table: PredictionTable, members: Sequence[int]) -> BoolArray:
    """Return bool [N, S], whether each member is right on each question."""
    rows = zip(table.answers.tolist(), table.require_labels().tolist(), strict=True)
    return np.array([[row[agent] == label != -1 for agent in members] for row, label in rows])


def at_least(correct_NS: BoolArray) -> list[int]:
    """Return on how many questions at least 1, 2, ... S members are right."""
    right = [int(row.sum()) for row in correct_NS]
    return [sum(count >= least for count in right) for least in range(1, correct_NS.shape[1] + 1)]


def focal_diversity(correct_NS: BoolArray) -> float:
    """Return the mean over the members of 1 - P2 / P1 (LLM-TOPLA, arXiv 2410.03953); S >= 2.

    With p_k the share of a member's failures on which exactly k members fail, P1 = sum_k k / S p_k and
    P2 = sum_k k (k - 1) / (S (S - 1)) p_k; a member that never fails counts as 1.
    """
    size = correct_NS.shape[1]
    diversity = Fraction(0)
    for member in range(size):
        failing = [size - int(row.sum()) for row in correct_NS if not row[member]]
        if not failing:
            diversity += 1
            continue
        shares = {k: Fraction(failing.count(k), len(failing)) for k in range(1, size + 1)}
        first = sum((Fraction(k, size) * share for k, share in shares.items()), Fraction(0))
        second = sum((Fraction(k * (k - 1), size * (size - 1)) * share for k, share in shares.items()), Fraction(0))
        diversity += 1 - second / first
    return float(diversity / size)


def objective(
    table: PredictionTable, members: Sequence[int], ranked: Sequence[int], *, focal: float, accuracy: float
) -> float:
    """Return the weighted sum of focal diversity and vote accuracy."""
    value = accuracy * (right_votes(table, members, ranked) / len(table))
    return value + (focal * focal_diversity(correct(table, members)) if focal else 0.0)


def rank_rows(rows: Iterable[Sequence[int]], ranked: Sequence[int]) -> list[Members]:
    """Return sub-ensembles by position as the sorted places of their members in `ranked`."""
    place = {agent: rank for rank, agent in enumerate(ranked)}
    return [tuple(sorted(place[agent] for agent in row)) for row in rows]
