"""Counting votes and settling ties: what every fuser over votes or probabilities shares."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable, by_accuracy
from fusion.errors import NotFitted
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection

POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0)
"""Exponents of accuracy that a weighted vote chooses from."""

# Sums of the same weights in another order differ in the last bits; a real lead is far larger.
_TIE = 1e-9


class Tally(NamedTuple):
    """What every option got.

    Attributes:
        scores: float64 [N, K], sum of the weights of the agents that chose the option.
        backed: bool [N, K], whether any agent chose it.
        cast: float64 [N], sum of the sizes of all weights counted: what a lead is measured against.
    """

    scores: FloatArray
    backed: BoolArray
    cast: FloatArray


def tally(answers_NM: IntArray, mask_NM: BoolArray, num_options: int, weights: FloatArray | None = None) -> Tally:
    """Count the votes of the selected agents; abstentions count for nothing.

    Args:
        answers_NM: Index of the option each agent chose, -1 where it abstained.
        mask_NM: Which agents are listened to.
        num_options: K.
        weights: float [M] or [N, M]; by default every vote weighs 1.
    """
    num_questions, num_agents = answers_NM.shape
    scores_NK = np.zeros((num_questions, num_options))
    backed_NK = np.zeros((num_questions, num_options), dtype=bool)
    cast_N = np.zeros(num_questions)
    weights_NM = np.broadcast_to(np.float64(1) if weights is None else weights, answers_NM.shape)
    for j in range(num_agents):
        rows = np.flatnonzero(mask_NM[:, j] & (answers_NM[:, j] >= 0))
        chosen = answers_NM[rows, j]
        scores_NK[rows, chosen] += weights_NM[rows, j]
        backed_NK[rows, chosen] = True
        cast_N[rows] += np.abs(weights_NM[rows, j])
    return Tally(scores_NK, backed_NK, cast_N)


def leading(counted: Tally, *, tolerance: float = _TIE) -> BoolArray:
    """Return bool [N, K], the options of every row that none leads; no option where none is backed.

    Args:
        counted: What every option got.
        tolerance: Share of the weight cast that is taken for rounding, not for a lead.
    """
    best_N1 = np.where(counted.backed, counted.scores, -np.inf).max(axis=1, keepdims=True)
    leading_NK: BoolArray = counted.backed & (counted.scores >= best_N1 - tolerance * counted.cast[:, None])
    return leading_NK


def settle(leading_NK: BoolArray, answers_NM: IntArray, mask_NM: BoolArray, ranked_M: IntArray) -> IntArray:
    """Return the winning option of every row, int64 [N]; -1 where none leads.

    Among options that tie, the one chosen by the first agent in `ranked_M` wins: agents stand there from
    the most to the least accurate on the fit questions.

    Args:
        leading_NK: The options that tie, or the one that leads.
        answers_NM: The votes, to settle ties by.
        mask_NM: Which agents are listened to.
        ranked_M: Positions of agents, the one to be followed first.
    """
    winners_N = np.where(leading_NK.any(axis=1), leading_NK.argmax(axis=1), -1)
    open_rows = np.flatnonzero(leading_NK.sum(axis=1) > 1)
    for j in ranked_M:
        if not len(open_rows):
            break
        chosen = answers_NM[open_rows, j]
        decides = mask_NM[open_rows, j] & (chosen >= 0) & leading_NK[open_rows, np.maximum(chosen, 0)]
        winners_N[open_rows[decides]] = chosen[decides]
        open_rows = open_rows[~decides]
    return winners_N


def shares(weights_NK: FloatArray) -> FloatArray:
    """Return non-negative rows scaled to sum to 1, float32 [N, K]; rows of zeros stay."""
    totals_N1 = weights_NK.sum(axis=1, keepdims=True)
    shares_NK: FloatArray = np.divide(weights_NK, totals_N1, out=np.zeros_like(weights_NK), where=totals_N1 > 0)
    return np.asarray(shares_NK, dtype=np.float32)


def settled(
    table: PredictionTable, selection: Selection, pending: BoolArray, weights: FloatArray | None = None
) -> BoolArray:
    """Return bool [N], whether the lead is larger than what the pending agents can still do to it.

    They may back the runner-up, an option that nobody has named yet, or, where their weight is negative, the leader.

    Args:
        table: The votes so far; pending agents abstain.
        selection: Whose votes count.
        pending: bool [N, M], agents whose votes are still to come.
        weights: float [M] or [N, M]; by default every vote weighs 1.
    """
    counted = tally(table.answers, selection.mask & ~pending, table.max_options, weights)
    scores_NK = np.where(counted.backed, counted.scores, -np.inf)
    rows = np.arange(len(table))
    leader_N = scores_NK.argmax(axis=1)
    lead_N = scores_NK[rows, leader_N]
    scores_NK[rows, leader_N] = -np.inf
    weights_NM = np.broadcast_to(np.float64(1) if weights is None else weights, pending.shape)
    open_NM = pending & selection.mask
    swing_N = (np.abs(weights_NM) * open_NM).sum(axis=1)
    margin_N = lead_N - np.maximum(scores_NK.max(axis=1), 0)
    settled_N: BoolArray = (margin_N > swing_N + _TIE * (counted.cast + swing_N)) | ~open_NM.any(axis=1)
    return settled_N


def decide(
    table: PredictionTable,
    selection: Selection,
    ranked_M: IntArray,
    weights: FloatArray | None = None,
    *,
    log_odds: bool = False,
) -> Decision:
    """Take the weighted plurality vote of the selected agents.

    Args:
        table: The votes.
        selection: Whose votes count.
        ranked_M: Positions of agents, to settle ties by.
        weights: float [M] or [N, M]; by default every vote weighs 1.
        log_odds: Whether the weights are log odds, which may be negative. Then the probabilities are those of
            Bayes' rule among the options that some agent chose; otherwise an option's share of the weight.
    """
    counted = tally(table.answers, selection.mask, table.max_options, weights)
    answers_N = settle(leading(counted), table.answers, selection.mask, ranked_M)
    masses_NK = counted.scores
    if log_odds:
        scores_NK = np.where(counted.backed, counted.scores, -np.inf)
        best_N1 = scores_NK.max(axis=1, keepdims=True)
        masses_NK = np.exp(scores_NK - np.where(np.isfinite(best_N1), best_N1, 0))
    return Decision(answers_N, probs=shares(masses_NK))


def ranking(accuracies_M: FloatArray | None, num_agents: int) -> IntArray:
    """Return agent positions from the most to the least accurate; pool order for ties, or when nothing is known."""
    return np.arange(num_agents) if accuracies_M is None else by_accuracy(accuracies_M)


def best_power(powers: Sequence[float], answers_by: Callable[[float], IntArray], labels_N: IntArray) -> float:
    """Return the power whose answers are right most often, the first among equals.

    Args:
        powers: What to choose from.
        answers_by: The answers, int [N], that a power leads to.
        labels_N: The right ones.
    """
    return powers[int(np.argmax([(answers_by(power) == labels_N).sum() for power in powers]))]


def num_wrong_options(table: PredictionTable) -> float:
    """Return how many equally likely wrong answers would agree as often as those given, at least 1.

    That is the inverse of the share of pairs of wrong answers to the same question that are the same
    answer; one pair that agrees is added to those counted, so that it is finite.
    """
    wrong_NM = table.answered & ~table.correct
    counts_NK = tally(table.answers, wrong_NM, table.max_options).scores
    wrong_N = counts_NK.sum(axis=1)
    num_pairs = float((wrong_N * (wrong_N - 1)).sum()) / 2
    num_equal = float((counts_NK * (counts_NK - 1)).sum()) / 2
    return (num_pairs + 1) / (num_equal + 1)


def not_fitted(method: object) -> NotFitted:
    """Return the error for a fuser that must see labelled answers first."""
    name = type(method).__module__.rpartition(".")[2]
    return NotFitted(f"{name} weighs agents by what it learned, and has not been fitted; call fit(table, selection)")
