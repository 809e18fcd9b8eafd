"""Weighted plurality vote: better agents count for more.

Equations, with p_m the accuracy of agent m on the fit questions that it answered and K_n the number of options:
    log_odds   w_nm = log p_m - log(1 - p_m) + log(K_n - 1)
        The optimal weights when agents err independently and uniformly over the wrong options; at
        K = 2 the rule of Nitzan and Paroush 1982. The usual log p / (1 - p) without the last term turns
        every agent below 50 % against its own answer, although at K = 10 it may be far above chance.
    power      w_m = p_m ** a
        a is chosen on the fit questions among `POWERS`: 0 is the plain vote, a large one follows the best agent.
        Where agents err together, as language models do, this is the safer rule.
    accuracy   w_m = p_m

Open answers have no number of options: the distinct answers to a question are few because the agents are, not because
no other answer is possible. There K - 1 is the inverse of the chance that two wrong answers to a question are the
same, counted on the fit questions: as many equally likely wrong options would collide as often.

Only options that some agent chose can win. Ties are settled as in the plain vote.

Example:
    >>> WeightedVote(weights="log_odds")
    WeightedVote(weights='log_odds')
"""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from fusion.data import PredictionTable, accuracy_when_answering
from fusion.fusers._votes import POWERS as POWERS
from fusion.fusers._votes import (
    best_power,
    decide,
    not_fitted,
    num_wrong_options,
    ranking,
    settled,
)
from fusion.schema import BoolArray, Decision, FloatArray, Selection


@dataclass(kw_only=True)
class WeightedVote:
    """Take the weighted plurality vote of the selected agents.

    Args:
        weights: Which rule turns accuracy into weight.
    """

    weights: Literal["power", "log_odds", "accuracy"] = "power"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)
    competence_: FloatArray | None = field(default=None, init=False, repr=False)
    power_: float = field(default=1.0, init=False, repr=False)
    num_wrong_: float = field(default=0.0, init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the accuracies and, for `power`, the exponent with the most right answers (the smallest of equals).

        Raises:
            InvalidTable: When the table has no labels or no questions.
        """
        self.agents_ = table.agents
        self.accuracies_ = table.accuracies
        self.num_wrong_ = 0.0 if table.references is None else num_wrong_options(table)
        self.competence_ = accuracy_when_answering(table)
        if self.weights == "power":
            competence_M = self.competence_
            ranked_M = ranking(self.accuracies_, table.num_agents)
            self.power_ = best_power(
                POWERS,
                lambda power: decide(table, selection, ranked_M, competence_M**power).answers,
                table.require_labels(),
            )
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the weighted plurality of every row; the probabilities are shares of the weight.

        Log odds may be negative; their probabilities are those of Bayes' rule among the options that some agent chose.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        weights = self._weights(table)
        ranked_M = ranking(self.accuracies_, table.num_agents)
        return decide(table, selection, ranked_M, weights, log_odds=self.weights == "log_odds")

    def settled(self, table: PredictionTable, selection: Selection, pending: BoolArray) -> BoolArray:
        """Return bool [N], True where the pending agents cannot change the weighted plurality.

        Raises:
            NotFitted: Before fit.
        """
        settled_N = settled(table, selection, pending, self._weights(table))
        if self.weights == "log_odds" and not self.num_wrong_:
            # Every answer that nobody has given yet may be one more option of an open question, and weigh more.
            for more in range(1, int(pending.sum(axis=1).max(initial=0)) + 1):
                settled_N &= settled(table, selection, pending, self._weights(table, more_options=more))
        return settled_N

    def vote_weights(self, table: PredictionTable) -> FloatArray:
        """Return the weights, float64 [N, M].

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        return np.broadcast_to(self._weights(table), table.answers.shape)

    def _weights(self, table: PredictionTable, *, more_options: int = 0) -> FloatArray:
        """Return the weights, float64 [M] or, as log odds, [N, M]."""
        if self.competence_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        if self.weights != "log_odds":
            return np.asarray(self.competence_**self.power_)
        odds_M = np.log(self.competence_) - np.log1p(-self.competence_)
        # One option leaves nothing to decide; two is the least for which the term is defined.
        num_wrong_N = self.num_wrong_ or np.maximum(table.num_options + np.float64(more_options), 2) - 1
        weights_NM: FloatArray = odds_M + np.log(num_wrong_N * np.ones(len(table)))[:, None]
        return weights_NM


__all__ = ["WeightedVote"]
