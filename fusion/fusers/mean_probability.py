"""Mean of the agents' probabilities: the option with the largest one wins.

Equations, over the selected agents that answered, with weights w_m that sum to 1:
    arithmetic   P(k) = sum_m w_m p_m(k)             (linear opinion pool, Stone 1961)
    geometric    P(k) ~ prod_m p_m(k) ** w_m         (logarithmic opinion pool; p_m(k) is floored)
    weights      equal, or `power`: accuracy on the fit questions to a power chosen there

Needs a table with probabilities. Among tied options the one wins that the most accurate agent on the fit
questions finds likeliest; before fit, or at equal accuracy, the agent that comes first in the pool.

Example:
    >>> MeanProbability(mean="geometric")
    MeanProbability(mean='geometric', weights='equal', floor=1e-06)
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from annotated_types import Gt, Lt

from fusion.data import PredictionTable, accuracy_when_answering
from fusion.errors import InvalidTable
from fusion.fusers._votes import (
    Tally,
    best_power,
    leading,
    not_fitted,
    ranking,
    settle,
    shares,
)
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection

POWERS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
# Probabilities are kept as float32: a difference in the seventh digit is rounding.
_TIE = 1e-6


@dataclass(kw_only=True)
class MeanProbability:
    """Average the probabilities of the selected agents.

    Args:
        mean: Which mean.
        weights: Equal, or accuracy to a power chosen on the fit questions.
        floor: Smallest probability that the geometric mean takes for real; keeps one agent's 0 from being a veto.
    """

    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    weights: Literal["equal", "power"] = "equal"
    floor: Annotated[float, Gt(0), Lt(1)] = 1e-6
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)
    competence_: FloatArray | None = field(default=None, init=False, repr=False)
    power_: float = field(default=0.0, init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the accuracies and, for `power`, the exponent with the most right answers (the smallest of equals).

        Raises:
            InvalidTable: When the table has no labels, questions or probabilities.
        """
        _probs(table)
        self.agents_ = table.agents
        self.accuracies_ = table.accuracies
        self.competence_ = accuracy_when_answering(table)
        if self.weights == "power":
            self.power_ = best_power(
                POWERS, lambda power: self._fuse(table, selection, power).answers, table.require_labels()
            )
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the option with the largest mean probability, and the means.

        Raises:
            NotFitted: With `power` weights before fit.
            InvalidTable: When the table has no probabilities.
            TableMismatch: When the agents are not those of fit.
        """
        if self.agents_:
            table.require_agents(self.agents_)
        elif self.weights == "power":
            raise not_fitted(self)
        return self._fuse(table, selection, self.power_)

    def _fuse(self, table: PredictionTable, selection: Selection, power: float) -> Decision:
        probs_NMK = _probs(table)
        weights_M = np.ones(table.num_agents) if self.competence_ is None else self.competence_**power
        heard_NM = selection.mask & table.answered
        valid_NK = np.arange(probs_NMK.shape[2]) < table.num_options[:, None]
        pooled_NK = self._pool(probs_NMK, heard_NM, weights_M, valid_NK)
        counted = Tally(pooled_NK, valid_NK & heard_NM.any(axis=1, keepdims=True), pooled_NK.sum(axis=1))
        tied_NK = leading(counted, tolerance=_TIE)
        favourites_NM = _favourites(table.answers, probs_NMK, tied_NK)
        answers_N = settle(tied_NK, favourites_NM, heard_NM, ranking(self.accuracies_, table.num_agents))
        return Decision(answers_N, probs=shares(pooled_NK))

    def _pool(
        self, probs_NMK: FloatArray, heard_NM: BoolArray, weights_M: FloatArray, valid_NK: BoolArray
    ) -> FloatArray:
        """Return float64 [N, K], proportional to the mean; agent by agent, so that memory stays at one [N, K]."""
        num_questions, num_agents, num_options = probs_NMK.shape
        pooled_NK = np.zeros((num_questions, num_options))
        for j in range(num_agents):
            probs_NK = probs_NMK[:, j].astype(np.float64)
            if self.mean == "geometric":
                probs_NK = np.log(np.maximum(probs_NK, self.floor))
            pooled_NK += weights_M[j] * heard_NM[:, j, None] * probs_NK
        totals_N = heard_NM @ weights_M
        pooled_NK /= np.where(totals_N > 0, totals_N, 1)[:, None]
        if self.mean == "geometric":
            pooled_NK = np.exp(pooled_NK - pooled_NK.max(axis=1, keepdims=True))
        return pooled_NK * valid_NK * heard_NM.any(axis=1, keepdims=True)


def _probs(table: PredictionTable) -> FloatArray:
    if table.probs is None:
        raise InvalidTable(
            "mean_probability needs a table with the agents' probabilities, and this one has votes only; "
            "use vote or weighted_vote"
        )
    return table.probs[:, :, : table.max_options]


def _favourites(answers_NM: IntArray, probs_NMK: FloatArray, tied_NK: BoolArray) -> IntArray:
    """Return int [N, M], the tied option that each agent finds likeliest, its answer where several are or none tie."""
    rows = np.flatnonzero(tied_NK.sum(axis=1) > 1)
    among_BMK = np.where(tied_NK[rows, None], probs_NMK[rows], -1)
    alone_BM = (among_BMK == among_BMK.max(axis=2, keepdims=True)).sum(axis=2) == 1
    favourites_NM = answers_NM.copy()
    favourites_NM[rows] = np.where(alone_BM, among_BMK.argmax(axis=2), answers_NM[rows])
    return favourites_NM


__all__ = ["MeanProbability"]
