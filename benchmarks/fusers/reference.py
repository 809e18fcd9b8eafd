"""An independent model to measure the learned fusers by: option-equivariant logistic, with weights by category.

    score of option k of question n = sum over the agents m that chose k of (w_m + v_cm),   c the category of n
    P(k)                            = exp(score) / sum of exp(score) over all options of n
    loss                            = - sum over n of log P(right option) + a |w|^2 / 2 + b |v|^2 / 2

It shares no code with `fusion.fusers`. The penalties a and b are those of `PENALTIES` with the highest cross-validated
likelihood inside the table that it is fitted on. It abstains where all agents do, and takes only what an agent chose.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from fusion.data import PredictionTable, folds
from fusion.schema import BoolArray, Decision, FloatArray, IntArray

PENALTIES = tuple(itertools.product((3.0, 30.0, 300.0), (10.0, 30.0, 100.0)))
"""Pairs (a, b) that are tried."""

FOLDS = 3


class Votes(NamedTuple):
    """Every answer that was given, V of them to N questions.

    Attributes:
        cell: int [V], question times K plus the option that was chosen.
        weight: int [V], category times M plus the agent: the place of the weight that counts.
        closed: bool [N, K], the options that a question does not have.
        chosen: bool [N, K], those that an agent chose.
        size: C and M.
    """

    cell: IntArray
    weight: IntArray
    closed: BoolArray
    chosen: BoolArray
    size: tuple[int, int]

    @classmethod
    def of(cls, table: PredictionTable, categories: Sequence[str]) -> "Votes":
        """Return the votes of a table; categories beyond the list share the last place, C - 1."""
        place = {name: c for c, name in enumerate(categories)}
        names = [""] * len(table) if table.categories is None else table.categories.tolist()
        category_N = np.array([place.get(name, len(place)) for name in names], dtype=np.int64)
        question_V, agent_V = np.nonzero(table.answered)
        options, num_agents = table.max_options, table.num_agents
        cell_V = question_V * options + table.answers[question_V, agent_V]
        chosen_NK = np.zeros((len(table), options), dtype=bool)
        chosen_NK.flat[cell_V] = True
        closed_NK = np.arange(options) >= table.num_options[:, None]
        return cls(
            cell_V, category_N[question_V] * num_agents + agent_V, closed_NK, chosen_NK, (len(place) + 1, num_agents)
        )

    def log_probabilities(self, weights_CM: FloatArray) -> FloatArray:
        """Return log P, float64 [N, K], -inf where a question has no such option."""
        scores_K = np.bincount(self.cell, weights=weights_CM.ravel()[self.weight], minlength=self.closed.size)
        scores_NK = np.where(self.closed, -np.inf, scores_K.reshape(self.closed.shape))
        scores_NK = scores_NK - scores_NK.max(axis=1, keepdims=True)
        logs_NK: FloatArray = scores_NK - np.log(np.exp(scores_NK).sum(axis=1, keepdims=True))
        return logs_NK


def loss(
    parameters: FloatArray, votes: Votes, labels_N: IntArray, penalties: tuple[float, float]
) -> tuple[float, FloatArray]:
    """Return the loss and its gradient.

    Args:
        parameters: w [M], then v [C, M], in one vector.
        votes: What the agents say.
        labels_N: The right options, all of them options of the question.
        penalties: a and b.
    """
    num_agents = votes.size[1]
    common_M, own_CM = parameters[:num_agents], parameters[num_agents:].reshape(votes.size)
    logs_NK = votes.log_probabilities(common_M + own_CM)
    rows = np.arange(len(labels_N))
    a, b = penalties
    value = -logs_NK[rows, labels_N].sum() + a * (common_M**2).sum() / 2 + b * (own_CM**2).sum() / 2
    slopes_NK = np.exp(logs_NK)
    slopes_NK[rows, labels_N] -= 1
    slopes_CM = np.bincount(votes.weight, weights=slopes_NK.ravel()[votes.cell], minlength=own_CM.size).reshape(
        votes.size
    )
    gradient = np.concatenate([slopes_CM.sum(axis=0) + a * common_M, (slopes_CM + b * own_CM).ravel()])
    return float(value), gradient


class Reference(NamedTuple):
    """The fitted model.

    Attributes:
        weights: float64 [C, M], w + v; the last row, w alone, is for categories that were not seen.
        categories: The names of the others.
        penalties: a and b, as chosen.
    """

    weights: FloatArray
    categories: tuple[str, ...]
    penalties: tuple[float, float]

    @classmethod
    def learn(cls, table: PredictionTable, penalties: Sequence[tuple[float, float]] = PENALTIES) -> "Reference":
        """Choose the penalties and fit; questions whose right answer is none of the options are left out."""
        table = table.rows(table.require_labels() >= 0)
        categories = () if table.categories is None else tuple(sorted(set(table.categories.tolist())))
        chosen = penalties[0]
        if len(penalties) > 1:
            fold_N = folds(table, FOLDS)
            parts = [(table.rows(fold_N != fold), table.rows(fold_N == fold)) for fold in range(FOLDS)]
            chosen = max(penalties, key=lambda pair: sum(_held_out(*part, categories, pair) for part in parts))
        return cls(_weights(table, categories, chosen), categories, chosen)

    def fuse(self, table: PredictionTable) -> Decision:
        """Return the likeliest option that an agent chose, with its probability as confidence."""
        votes = Votes.of(table, self.categories)
        logs_NK = votes.log_probabilities(self.weights)
        best_N = np.where(votes.chosen, logs_NK, -np.inf).argmax(axis=1)
        heard_N = votes.chosen.any(axis=1)
        confidence_N = np.where(heard_N, np.exp(logs_NK[np.arange(len(table)), best_N]), 0)
        return Decision(np.where(heard_N, best_N, -1), confidence=confidence_N)


def _held_out(
    fit: PredictionTable, test: PredictionTable, categories: Sequence[str], penalties: tuple[float, float]
) -> float:
    """Return the log-likelihood of the right options of questions that were left out."""
    logs_NK = Votes.of(test, categories).log_probabilities(_weights(fit, categories, penalties))
    return float(logs_NK[np.arange(len(test)), test.require_labels()].sum())


def _weights(table: PredictionTable, categories: Sequence[str], penalties: tuple[float, float]) -> FloatArray:
    votes = Votes.of(table, categories)
    start = np.zeros((1 + votes.size[0]) * votes.size[1])
    found = minimize(loss, start, (votes, table.require_labels(), penalties), jac=True, method="L-BFGS-B")
    weights: FloatArray = found.x[: votes.size[1]] + found.x[votes.size[1] :].reshape(votes.size)
    return weights
