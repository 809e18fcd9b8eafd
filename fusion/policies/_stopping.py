"""When to stop asking, by least squares (Longstaff and Schwartz 2001; Tsitsiklis and Van Roy 2001).

Agents are asked in an order that is learned for every category. What is learned then is when to stop: with V_L = R_L,
and R_s = 1 where the likeliest option after s answers is right (or its score), going backwards from s = L - 1 to 1

    G_s(x) = E[V_{s+1} - price cost_{s+1} - R_s | x]     a ridge regression on functions of what the answers so far say
    V_s    = V_{s+1} - price cost_{s+1}  where G_s(x) > 0,  else  R_s

and a question goes on while G_s(x) > 0. V holds rewards that were had rather than predicted values, so that errors of
the regression do not add up. No exploration is needed, as what would have happened is on record.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import InvalidTable
from fusion.policies._beliefs import advantages
from fusion.policies._world import State, World
from fusion.schema import FloatArray, IntArray

MOST_CALLS = 32
"""Agents that an order holds at most."""
_RIDGE = 3.0
_LIKE_OTHERS = 100.0
"""Questions of a category that count as much as what all categories say."""
_KNOTS = np.linspace(0.1, 0.9, 9)
_SURE = 1e-9


class Stopping(NamedTuple):
    """Whom to ask after whom, and until when.

    Attributes:
        order: int [C + 1, L], agents in the order in which they are asked in each category; the last row is for others.
        gains: float64 [L - 1, D], weights of `features`: what going on after 1, ..., L - 1 answers gains.
    """

    order: IntArray
    gains: FloatArray

    def worth(self, world: World, state: State) -> FloatArray:
        """Return what going on gains in each episode, in accuracy, float64 [B]; infinite where nobody was asked."""
        count_B = state.asked.sum(axis=1)
        found_B = np.where(count_B == 0, np.inf, -np.inf)
        inside_B = np.flatnonzero((count_B > 0) & (count_B <= len(self.gains)))
        if len(inside_B):
            seen_BD = features(world, state.take(inside_B))
            found_B[inside_B] = np.einsum("bd,bd->b", seen_BD, self.gains[count_B[inside_B] - 1])
        return found_B

    def following(self, world: World, state: State) -> IntArray:
        """Return who comes next in each episode, int [B]; -1 where all in the order have been asked."""
        order_BL = self.order[world.category[state.rows]]
        open_BL = ~np.take_along_axis(state.asked, order_BL, axis=1)
        first_B = open_BL.argmax(axis=1)[:, None]
        return np.where(open_BL.any(axis=1), np.take_along_axis(order_BL, first_B, axis=1)[:, 0], -1)


class Courses(NamedTuple):
    """What asking in an order brings, one answer after another.

    Attributes:
        order: int [C + 1, L].
        seen: float64 [L, N, D], features after every answer.
        rewards: float64 [L, N], what the likeliest option is worth by then: 1 where it is right, or its score.
        agents: int [N, L], who answered.
    """

    order: IntArray
    seen: FloatArray
    rewards: FloatArray
    agents: IntArray


def mean_tokens(table: PredictionTable) -> FloatArray:
    """Return the mean tokens of an answer of each agent, those of its question included, float64 [M], at least 1.

    Raises:
        InvalidTable: When the table has none.
    """
    if table.tokens_out is None:
        raise InvalidTable("the table has no tokens to count; record them, or go by calls")
    tokens_NM = table.tokens_out.astype(np.float64)
    if table.tokens_in is not None:
        tokens_NM = tokens_NM + table.tokens_in
    return np.asarray(np.maximum(tokens_NM.mean(axis=0), 1.0))


def features(world: World, state: State) -> FloatArray:
    """Return functions of what the answers so far say, float64 [B, D]; options and agents have no place in them.

    Probabilities of the three likeliest options, entropy, hinges of the first; votes for the first two, options named
    and offered; and the category, alone and times what the likeliest lacks.
    """
    probs_BK = world.probabilities(state)
    num_options = probs_BK.shape[1]
    lead_BL = np.argsort(-probs_BK, axis=1, kind="stable")[:, :3]
    top_B3, votes_B2 = np.zeros((len(probs_BK), 3)), np.zeros((len(probs_BK), 2))
    top_B3[:, : lead_BL.shape[1]] = np.take_along_axis(probs_BK, lead_BL, axis=1)
    votes_B2[:, : min(num_options, 2)] = np.take_along_axis(state.counts, lead_BL[:, :2], axis=1)
    first_B, second_B, third_B = top_B3.T
    entropy_B = -(probs_BK * np.log(probs_BK + 1e-12)).sum(axis=1)
    named_B = (state.counts > 0).sum(axis=1)
    # Of open questions as many options are known as were named.
    offered_B = np.zeros(len(probs_BK)) if world.open else world.options[state.rows] / 10
    kind_BC = np.zeros((len(probs_BK), world.num_categories))
    known_B = np.flatnonzero(world.category[state.rows] >= 0)
    kind_BC[known_B, world.category[state.rows][known_B]] = 0.3
    columns = (
        np.ones(len(probs_BK)),
        first_B,
        first_B**2,
        second_B,
        first_B * second_B,
        third_B,
        entropy_B,
        entropy_B**2,
        entropy_B * first_B,
        np.log((first_B + _SURE) / (1 - first_B + _SURE)) / 4,
        named_B,
        *votes_B2.T,
        named_B * votes_B2[:, 0],
        offered_B,
    )
    hinges_BH = np.maximum(first_B[:, None] - _KNOTS, 0)
    return np.column_stack([*columns, hinges_BH, kind_BC, kind_BC * (1 - first_B)[:, None]])


def play(
    world: World,
    labels_N: IntArray,
    *,
    costs_M: FloatArray,
    most: int,
    worth_NK: FloatArray | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Courses:
    """Find the order in which to ask, for every category, and return what asking so brings.

    The next agent is the one whose answer makes the right option likelier, in nats, most for its cost, over the
    questions of the category; the mean over a category counts as much as its number of questions against 100 of the
    others'. Of an open question an answer that nobody gave yet cannot be taken, and its probability is not known; what
    counts there, and where options are worth more or less, is what an option drawn by its probability is worth.

    Args:
        world: Labelled questions.
        labels_N: The right options, -1 where it is none.
        costs_M: What a call of each agent costs; 1 for the mean.
        most: L, agents to order.
        worth_NK: What each option is worth; 1 for the right one by default.
        told: Told how many places of the order are taken, and how many there are.
    """
    num_questions, num_agents = world.answers.shape
    most = min(most, num_agents, MOST_CALLS)
    rows_N = np.arange(num_questions)
    state = world.begin(rows_N)
    gained_NK = None if worth_NK is None else advantages(world.answers, worth_NK)
    order_CL = np.zeros((world.num_categories + 1, most), dtype=np.intp)
    seen, rewards, agents = [], [], []
    for place in range(most):
        if told is not None:
            told(place, most)
        gain_CM = _gains(world, state, labels_N, gained_NK)
        # Worth less than nothing is worst where it costs most.
        gain_CM = np.where(gain_CM > 0, gain_CM / costs_M, gain_CM * costs_M)
        for done in range(place):
            gain_CM[np.arange(len(gain_CM)), order_CL[:, done]] = -np.inf
        order_CL[:, place] = gain_CM.argmax(axis=1)
        chosen_N = order_CL[world.category, place]
        world.ask(state, chosen_N)
        agents.append(chosen_N)
        seen.append(features(world, state))
        rewards.append(reward_of(world.likeliest(state), labels_N, worth_NK))
    return Courses(order_CL, np.array(seen), np.array(rewards), np.array(agents).T)


def reward_of(chosen_N: IntArray, labels_N: IntArray, worth_NK: FloatArray | None) -> FloatArray:
    """Return what options are worth, float64 [N]: 1 for the right one, or what `worth_NK` says; 0 for none, -1."""
    if worth_NK is None:
        return np.asarray((chosen_N == labels_N) & (chosen_N >= 0), dtype=np.float64)
    return np.where(chosen_N >= 0, worth_NK[np.arange(len(chosen_N)), chosen_N], 0.0)


def stop_when(courses: Courses, price: float, *, costs_M: FloatArray) -> tuple[Stopping, IntArray]:
    """Learn when to stop.

    Args:
        courses: What asking brings.
        price: Accuracy that a call of mean cost has to be worth.
        costs_M: What a call of each agent costs; 1 for the mean.

    Returns:
        The policy, and int [N], after how many answers it stops on these questions.
    """
    length, num_questions, width = courses.seen.shape
    gains_LD = np.zeros((length - 1, width))
    value_N = courses.rewards[-1].copy()
    calls_N = np.full(num_questions, length)
    for place in range(length - 2, -1, -1):
        seen_ND = courses.seen[place]
        paid_N = price * costs_M[courses.agents[:, place + 1]]
        ahead_N = value_N - paid_N
        gains_LD[place] = np.linalg.solve(
            seen_ND.T @ seen_ND + _RIDGE * np.eye(width), seen_ND.T @ (ahead_N - courses.rewards[place])
        )
        goes_N = seen_ND @ gains_LD[place] > 0
        value_N = np.where(goes_N, ahead_N, courses.rewards[place])
        calls_N = np.where(goes_N, calls_N, place + 1)
    return Stopping(courses.order, gains_LD), calls_N


def _gains(world: World, state: State, labels_N: IntArray, worth_NK: FloatArray | None) -> FloatArray:
    """Return how much better an agent's answer makes what is known, in each category, float64 [C + 1, M]."""
    num_questions, num_agents = state.asked.shape
    drawn = world.open or worth_NK is not None

    def known(state: State) -> FloatArray:
        if drawn:
            return _worth_drawn(world, state, labels_N[state.rows], None if worth_NK is None else worth_NK[state.rows])
        return _log_right(world, state, labels_N[state.rows])

    before_N = known(state)
    gain_NM = np.zeros((num_questions, num_agents))
    for agent in range(num_agents):
        which = np.flatnonzero(~state.asked[:, agent])
        after = state.take(which)
        world.ask(after, np.full(len(which), agent))
        gain_NM[which, agent] = known(after) - before_N[which]
    unasked_NM = ~state.asked
    sums_CM = np.zeros((world.num_categories + 1, num_agents))
    counts_CM = np.zeros_like(sums_CM)
    np.add.at(sums_CM, world.category, gain_NM)
    np.add.at(counts_CM, world.category, unasked_NM)
    all_M = sums_CM.sum(axis=0) / np.maximum(counts_CM.sum(axis=0), 1)
    return np.asarray((sums_CM + _LIKE_OTHERS * all_M) / (counts_CM + _LIKE_OTHERS))


def _worth_drawn(world: World, state: State, labels_B: IntArray, worth_BK: FloatArray | None) -> FloatArray:
    """Return what an option is worth that is drawn by the options' probabilities, float64 [B]; 0 for none of them."""
    probs_BK = world.probabilities(state)
    if worth_BK is not None:
        return np.asarray((probs_BK * worth_BK).sum(axis=1))
    return np.where(labels_B >= 0, probs_BK[np.arange(len(probs_BK)), labels_B], 0.0)


def _log_right(world: World, state: State, labels_B: IntArray) -> FloatArray:
    """Return the log-probability of what is right, float64 [B]; where it is none of the options, that of none."""
    probs_BK = world.probabilities(state)
    right_B = probs_BK[np.arange(len(probs_BK)), labels_B]
    none_B = 1 - probs_BK.sum(axis=1)
    found_B: FloatArray = np.log(np.maximum(np.where(labels_B < 0, none_B, right_B), _SURE))
    return found_B
