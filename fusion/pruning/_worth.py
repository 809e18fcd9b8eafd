"""What agents are worth: members of a sub-ensemble to its fuser, and agents of the whole pool to a plurality vote.

Two measures. Leaving one out: the accuracy of all less the accuracy without the agent; two agents that stand in for
each other both get little. The Shapley value (Shapley 1953): what an agent adds to those before it, averaged over all
orders in which the agents may join; nobody has accuracy 0, and the values of all agents sum to the accuracy of all.
With v(C) the share of questions that coalition C answers right, and S agents,

    phi_i = sum over C without i of  |C|! (S - |C| - 1)! / S!  (v(C with i) - v(C)).

As v is a mean over questions, so is phi_i, and its values on single questions show how far a sample of questions can
be off. Where there are too many orders, some are drawn (Castro, Gomez and Tejada 2009).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable
from fusion.pruning._outcomes import Members, Outcomes
from fusion.schema import BoolArray, FloatArray, IntArray
from fusion.significance import accuracy_interval, paired_bootstrap, paired_difference

EXACT_MEMBERS = 10
"""Up to so many members all coalitions are evaluated; of more, orders are drawn that need about as many."""

_COALITIONS = 2**EXACT_MEMBERS
_LEAST_ORDERS, _MOST_ORDERS = 32, 1024
_LEAST_GROUPS = 16
_CELLS = 60_000_000  # answers counted for the pool, all orders together: about a second

Told = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class MemberWorth:
    """What one member of a sub-ensemble is worth on the questions to evaluate on.

    Args:
        agent: Which.
        leave_one_out: Accuracy of all members less the accuracy without this one, both fitted anew.
        leave_one_out_ci95: 95 % interval of it, over questions.
        shapley: What the member adds to those before it, mean over orders of joining.
        shapley_ci95: 95 % interval of it, over questions, and over orders where those were drawn.
    """

    agent: str
    leave_one_out: float
    leave_one_out_ci95: tuple[float, float]
    shapley: float
    shapley_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class WorthResult:
    """What the members of a sub-ensemble are worth.

    Args:
        members: One each, the highest Shapley value first.
        accuracy: Of all of them together, which is the sum of the Shapley values.
        orders: Of joining that were drawn; None when all were counted.
    """

    members: tuple[MemberWorth, ...]
    accuracy: float
    orders: int | None


@dataclass(frozen=True, kw_only=True)
class AgentWorth:
    """What one agent of the pool is worth to the plurality vote of all, on the questions to choose on.

    Args:
        agent: Which.
        leave_one_out: Accuracy of the vote of all less that of the vote of all others.
        shapley: What the agent adds to those before it, mean over orders of joining.
        shapley_ci95: 95 % interval of it, over the orders drawn alone, not over questions.
    """

    agent: str
    leave_one_out: float
    shapley: float
    shapley_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PoolWorthResult:
    """What the agents of the pool are worth to the plurality vote of all.

    Args:
        agents: One each, the highest Shapley value first.
        accuracy: Of the vote of all, on the questions to choose on; the sum of the Shapley values.
        orders: Of joining that were drawn; None when all were counted.
    """

    agents: tuple[AgentWorth, ...]
    accuracy: float
    orders: int | None


def member_worth(outcomes: Outcomes, members: Members, *, repeats: int, seed: int, told: Told) -> WorthResult:
    """Return what each member of a sub-ensemble is worth to it, on the questions to evaluate on.

    Args:
        outcomes: The fuser, and the questions.
        members: Of the sub-ensemble, in pool order.
        repeats: Bootstrap resamples.
        seed: Of the bootstrap, and of the orders that are drawn.
        told: Told how many coalitions are done, and how many there are at most.
    """
    exact = len(members) <= EXACT_MEMBERS
    counted = _all_coalitions if exact else _drawn_orders
    shapley_SN, spreads_S, orders = counted(outcomes, members, seed, told)
    right_N = outcomes.right(members)
    found = []
    for s, agent in enumerate(members):
        others = tuple(name for name in members if name != agent)
        without_N = outcomes.right(others) if others else np.zeros_like(right_N)
        left_out = paired_difference(right_N, without_N, repeats=repeats, rng=np.random.default_rng(seed))
        left_out_ends, mean = left_out.interval, float(shapley_SN[s].mean())
        ends = paired_bootstrap(shapley_SN[s], repeats=repeats, rng=np.random.default_rng(seed))
        if not others:  # Both are the accuracy, which is never below 0.
            left_out_ends = ends = accuracy_interval(right_N)
        # Errors from drawing questions and from drawing orders add up as independent ones do.
        low = mean - math.hypot(mean - ends.low, spreads_S[s])
        high = mean + math.hypot(ends.high - mean, spreads_S[s])
        found.append(
            MemberWorth(
                agent=agent,
                leave_one_out=left_out.difference,
                leave_one_out_ci95=(float(left_out_ends.low), float(left_out_ends.high)),
                shapley=mean,
                shapley_ci95=(max(-1.0, low), min(1.0, high)),
            )
        )
    found.sort(key=lambda member: -member.shapley)
    return WorthResult(members=tuple(found), accuracy=float(right_N.mean()), orders=None if exact else orders)


def coalitions(num_members: int) -> tuple[BoolArray, IntArray]:
    """Return all coalitions but the empty one, and how often each counts in each Shapley value.

    Returns:
        bool [C, S], who belongs to which of C = 2^S - 1 coalitions, the smallest first; and int64 [C, S], w so that
        the Shapley value of member i is the sum over coalitions of w[c, i] v(c), over S!.
    """
    rows = sorted(itertools.product((False, True), repeat=num_members), key=sum)[1:]
    inside_CS = np.array(rows, dtype=bool)
    sizes_C1 = inside_CS.sum(axis=1, keepdims=True)
    factorials = np.array([math.factorial(size) for size in range(num_members + 1)], np.int64)
    joined_C1 = factorials[sizes_C1 - 1] * factorials[num_members - sizes_C1]
    # The coalition of all has nobody outside it; any index does for what is not taken.
    missed_C1 = factorials[sizes_C1] * factorials[np.maximum(num_members - sizes_C1 - 1, 0)]
    return inside_CS, np.where(inside_CS, joined_C1, -missed_C1)


def _all_coalitions(outcomes: Outcomes, members: Members, seed: int, told: Told) -> tuple[FloatArray, FloatArray, int]:
    """Return the Shapley values on single questions, [S, N]; no spread over orders; and the number of orders."""
    inside_CS, weights_CS = coalitions(len(members))
    # Whole numbers, so that equal worth on a question is equal to the last bit.
    totals_SN = np.zeros((len(members), len(outcomes.parts.test)), np.int64)
    for c, (inside_S, weights_S) in enumerate(zip(inside_CS, weights_CS, strict=True)):
        told(c, len(inside_CS))
        right_N = outcomes.right([name for name, inside in zip(members, inside_S, strict=True) if inside])
        totals_SN += weights_S[:, None] * right_N
    orders = math.factorial(len(members))
    return totals_SN / orders, np.zeros(len(members)), orders


def _drawn_orders(outcomes: Outcomes, members: Members, seed: int, told: Told) -> tuple[FloatArray, FloatArray, int]:
    """Return what `_all_coalitions` does, from some orders, with the half widths of 95 % intervals over orders [S]."""
    count = len(members)
    orders_RS, group = _orders(count, max(_LEAST_ORDERS, _COALITIONS // count), seed)
    sums_SN = np.zeros((count, len(outcomes.parts.test)), np.int64)
    gains_RS = np.zeros(orders_RS.shape)
    for r, order_S in enumerate(orders_RS.tolist()):
        told(r * count, orders_RS.size)
        before_N = np.zeros(len(outcomes.parts.test), np.int64)
        for size, s in enumerate(order_S, start=1):
            right_N = outcomes.right([members[place] for place in order_S[:size]]).astype(np.int64)
            sums_SN[s] += right_N - before_N
            gains_RS[r, s] = (right_N - before_N).mean()
            before_N = right_N
    return sums_SN / len(orders_RS), _half_widths(gains_RS, group), len(orders_RS)


def pool_worth(table: PredictionTable, ranked: IntArray, *, seed: int, told: Told) -> PoolWorthResult:
    """Return what each agent of a table is worth to the plurality vote of all of them, on the questions of the table.

    Args:
        table: Labelled answers.
        ranked: int [M], positions of agents in the order in which they settle ties.
        seed: Of the orders that are drawn.
        told: Told how many orders are done, and how many there are.
    """
    count = table.num_agents
    most = min(max(_CELLS // table.answers.size, _LEAST_ORDERS), _MOST_ORDERS)
    orders_RM, group = _orders(count, most, seed)
    joining = _Joining(table, ranked)
    counts_RM = np.empty(orders_RM.shape, np.int64)
    for r, order_M in enumerate(orders_RM.tolist()):
        told(r, len(orders_RM))
        counts_RM[r] = joining.right(order_M)
    gains_RM = np.empty(orders_RM.shape)
    np.put_along_axis(gains_RM, orders_RM, np.diff(counts_RM, prepend=0, axis=1) / len(table), axis=1)
    half_M = _half_widths(gains_RM, group)
    accuracy = float(counts_RM[0, -1]) / len(table)
    without_M = joining.left_out()
    found = []
    for j, (agent, shapley) in enumerate(zip(table.agents, gains_RM.mean(axis=0).tolist(), strict=True)):
        half = float(half_M[j])
        found.append(
            AgentWorth(
                agent=agent,
                leave_one_out=accuracy - float(without_M[j]) / len(table),
                shapley=shapley,
                shapley_ci95=(shapley - half, shapley + half),
            )
        )
    found.sort(key=lambda agent: -agent.shapley)
    return PoolWorthResult(agents=tuple(found), accuracy=accuracy, orders=len(orders_RM) if group else None)


class _Joining:
    """Counts a plurality vote while agents join one after the other.

    On one question the option with the highest key wins, key = votes (M + 1) - the best rank among its backers: more
    votes first, then the tie rule. A key never falls when an agent joins, so the highest key of the wrong options needs
    no look at those that the agent does not name, and an order costs N M steps whatever the number of options.

    Args:
        table: Labelled answers.
        ranked: int [M], positions of agents in the order in which they settle ties.
    """

    def __init__(self, table: PredictionTable, ranked: IntArray) -> None:
        self._rank_of = np.argsort(ranked).tolist()
        self._num_questions = len(table)
        said_NM = table.answered
        rows, columns = np.nonzero(said_NM)
        options = table.answers[rows, columns].astype(np.int64)
        named, pairs = np.unique(rows * np.int64(table.max_options) + options, return_inverse=True)
        self._num_pairs = len(named)
        correct = table.correct[rows, columns]
        self._said = [
            _Said(rows[mine], pairs[mine], correct[mine]) for mine in (columns == j for j in range(table.num_agents))
        ]

    def right(self, order: Sequence[int]) -> list[int]:
        """Return on how many questions the vote is right when one agent has joined, two, ... and all."""
        joined = self._nobody()
        return [joined.add(self._said[agent], self._rank_of[agent]) for agent in order]

    def left_out(self) -> IntArray:
        """Return int64 [M], on how many questions the vote of all but one agent is right.

        Half of the agents join, then the other half is looked at in the same way, so that few join more than once.
        """
        right_M = np.empty(len(self._said), np.int64)
        pending = [(self._nobody(), list(range(len(self._said))))]
        while pending:
            joined, outside = pending.pop()
            if len(outside) == 1:
                right_M[outside[0]] = joined.right
                continue
            half = len(outside) // 2
            for part, rest in ((outside[:half], outside[half:]), (outside[half:], outside[:half])):
                further = joined.copy()
                for agent in rest:
                    further.add(self._said[agent], self._rank_of[agent])
                pending.append((further, part))
        return right_M

    def _nobody(self) -> _Joined:
        return _Joined(
            votes_D=np.zeros(self._num_pairs, np.int32),
            best_D=np.full(self._num_pairs, len(self._said), np.int32),
            right_N=np.zeros(self._num_questions, np.int32),
            wrong_N=np.zeros(self._num_questions, np.int32),
            num_agents=len(self._said),
        )


class _Said(NamedTuple):
    """What one agent said.

    Attributes:
        rows: Questions that it answered.
        pairs: The pair of question and option that each answer is.
        correct: Which answers are right.
    """

    rows: IntArray
    pairs: IntArray
    correct: BoolArray


class _Joined(NamedTuple):
    """The vote of the agents that have joined.

    Attributes:
        votes_D: Votes for each pair of question and option that anybody names.
        best_D: The best rank among its backers.
        right_N: Key of the right option of each question, 0 without backers.
        wrong_N: The highest key of its wrong options.
        num_agents: M.
    """

    votes_D: IntArray
    best_D: IntArray
    right_N: IntArray
    wrong_N: IntArray
    num_agents: int

    @property
    def right(self) -> int:
        """On how many questions the vote is right."""
        return int((self.right_N > self.wrong_N).sum())

    def copy(self) -> _Joined:
        """Return the same, to go on with separately."""
        return self._replace(
            votes_D=self.votes_D.copy(),
            best_D=self.best_D.copy(),
            right_N=self.right_N.copy(),
            wrong_N=self.wrong_N.copy(),
        )

    def add(self, said: _Said, rank: int) -> int:
        """Let an agent join, and return on how many questions the vote is right then."""
        rows, pairs, correct = said
        self.votes_D[pairs] += 1
        self.best_D[pairs] = np.minimum(self.best_D[pairs], rank)
        keys = self.votes_D[pairs] * np.int32(self.num_agents + 1) - self.best_D[pairs]
        self.right_N[rows] = np.where(correct, keys, self.right_N[rows])
        self.wrong_N[rows] = np.maximum(self.wrong_N[rows], np.where(correct, 0, keys))
        return self.right


def _orders(count: int, most: int, seed: int) -> tuple[IntArray, int]:
    """Return all orders of `count` agents, or some drawn ones, int [R, M].

    Drawn orders come in groups: one drawn at random, then the same begun at other places, evenly spaced. What an agent
    adds depends most on how many came before, and in a group of M orders it comes at every place once.

    Returns:
        The orders, and how many make a group; 0 where all orders are there.
    """
    # The factorials of large pools are no numbers to compare with.
    if count <= 12 and math.factorial(count) <= most:
        return np.array(list(itertools.permutations(range(count))), np.int64), 0
    rotations = max(1, min(count, most // _LEAST_GROUPS))
    rng = np.random.default_rng([seed, count])
    drawn_GM = rng.permuted(np.tile(np.arange(count), (most // rotations, 1)), axis=1)
    begun_GRM = [np.roll(drawn_GM, -(count * turn // rotations), axis=1) for turn in range(rotations)]
    return np.stack(begun_GRM, axis=1).reshape(-1, count), rotations


def _half_widths(gains_RM: FloatArray, group: int) -> FloatArray:
    """Return the half widths of 95 % t intervals of the means of the columns, [M]; 0 where all orders are there."""
    from scipy.special import stdtrit

    if not group:
        return np.zeros(gains_RM.shape[1])
    means_GM = gains_RM.reshape(-1, group, gains_RM.shape[1]).mean(axis=1)
    stderr_M = means_GM.std(axis=0, ddof=1) / math.sqrt(len(means_GM))
    return np.asarray(stderr_M * float(stdtrit(len(means_GM) - 1, 0.975)))
