"""Bayes' rule with the agents' confusion matrices, counted on labelled questions.

Reference: Xu, Krzyzak and Suen 1992, IEEE Transactions on Systems, Man, and Cybernetics 22(3), 418-435, section V.

Equations (`fusion.fusers._confusion` has the models), with s = `smoothing`:
    P(k | votes) ~ P(votes, k)                                     agents err independently of each other
    p_m = (right votes of m + s) / (votes of m + s K)              one_coin
    c_m[k, l] ~ #{n: k is right, m says l} + s K C_m[k, l]         full: each row sums to 1
    prior_k ~ #{n: k is right} + s
    C_m is the confusion matrix of one coin with p_m.

Deviations. The paper has the full model without smoothing and with the other conditional, the right option given what
an agent says, multiplied over agents; that counts the prior once for every agent, so here it is what an agent says
given the right option. Which place an option has carries no information, so the default has one parameter an agent: on
closed questions that is the vote weighted by log odds, with a confidence. Only options that some agent chose can win.

Example:
    >>> NaiveBayes(confusion="full")
    NaiveBayes(confusion='full', smoothing=1.0)
"""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from annotated_types import Gt

from fusion.data import PredictionTable
from fusion.fusers._confusion import ConfusionFuser, Full, Model, OneCoin, Votes, looks_open, to_learn_from
from fusion.schema import Selection


@dataclass(kw_only=True)
class NaiveBayes(ConfusionFuser):
    """Take the option that is likeliest by the confusion matrices of the selected agents.

    Args:
        confusion: one_coin, the chance that an agent is right, or a confusion matrix over the places of the
            options, full.
        smoothing: s, imagined answers in each cell of a matrix.
    """

    smoothing: Annotated[float, Gt(0)] = 1.0

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Count what every agent answered, selected or not, by what is right.

        Where the right answer is none of the options, everybody is wrong; matrices learn nothing from that.

        Raises:
            InvalidTable: When the table has no labels or no questions.
        """
        labels_N = table.require_labels()
        is_open = looks_open(table)
        votes = Votes.of(table, np.ones(table.answers.shape, dtype=bool))
        kept_N = to_learn_from(votes, is_open=is_open)
        votes = votes.rows(kept_N)
        right_NK = (np.arange(votes.size) == labels_N[kept_N, None]).astype(np.float64)
        coin = OneCoin.learn(votes, right_NK, smoothing=self.smoothing, is_open=is_open)
        model: Model = coin
        if self.confusion == "full":
            model = Full.learn(votes, right_NK, smoothing=self.smoothing, competence=coin.competence)
        self._keep(table, model, coin)
        return self


__all__ = ["NaiveBayes"]
