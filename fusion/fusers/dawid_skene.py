"""Weigh agents without labels, by how they agree (Dawid and Skene): expectation-maximisation over the right answers.

Reference: Dawid and Skene 1979, Applied Statistics 28(1), 20-28.

Equations (`fusion.fusers._confusion` has the models):
    q_nk = P(votes on n, k) / sum_j P(votes on n, j)               how likely option k is right
    p_m = (sum_n q_n,vote(n,m) + 1) / (votes of m + K)             one_coin: share of m's votes expected to be right
    c_m[k, l] ~ sum_{n: m says l} q_nk + K C_m[k, l]               full: each row sums to 1
    prior_k ~ sum_n q_nk + 1
    C_m is the confusion matrix of one coin, with m's share of agreement with the plain vote for p_m.

The first q are the shares of the plain vote; the two steps alternate until no probability changes by more than
`TOLERANCE`, or for `MAX_ROUNDS` rounds. No round lowers the likelihood of the votes and of the imagined answers, those
added above (`log_posterior_`).

Deviations. The paper has the full model without imagined answers, which keep an agent that was heard little from being
believed, or ruled out, for good. Which place an option has carries no information here, so the default has one
parameter an agent. Labels are never learned from: if the table has any, they only rank the agents that settle ties,
which without them the p_m do.

Where agents share their errors, as language models do, agreement is more than it seems: all agents are taken for better
than they are, one that knows what the others do not for worse beside them, and the confidence is too high.

Example:
    >>> DawidSkene()
    DawidSkene(confusion='one_coin')
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import InvalidTable
from fusion.fusers._confusion import ConfusionFuser, Full, Model, OneCoin, Votes, looks_open, to_learn_from
from fusion.schema import FloatArray, Selection

TOLERANCE = 1e-6
"""Expectation-maximisation ends when no probability that it learns changes by more."""

MAX_ROUNDS = 200
"""Rounds after which it ends anyway."""

_SMOOTHING = 1.0


@dataclass(kw_only=True)
class DawidSkene(ConfusionFuser):
    """Learn from answers alone how reliable agents are, and take the likeliest option.

    Args:
        confusion: one_coin, the chance that an agent is right, or a confusion matrix over the places of the
            options, full.
    """

    log_posterior_: FloatArray | None = field(default=None, init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the reliabilities of the selected agents; labels only rank them for ties, and may be missing.

        Raises:
            InvalidTable: When the table has no questions.
        """
        if not len(table):
            raise InvalidTable("there is nothing to learn from no questions; the table is empty")
        is_open = looks_open(table)
        votes = Votes.of(table, selection.mask)
        votes = votes.rows(to_learn_from(votes, is_open=is_open))
        posterior_NK = votes.counts / votes.counts.sum(axis=1, keepdims=True)
        learn_coin = partial(OneCoin.learn, votes, smoothing=_SMOOTHING, is_open=is_open)
        first = learn_coin(posterior_NK)
        learn_full = partial(Full.learn, votes, smoothing=_SMOOTHING, competence=first.competence)
        model: Model = first if self.confusion == "one_coin" else learn_full(posterior_NK)
        log_posterior = []
        for _ in range(MAX_ROUNDS):
            inferred = model.infer(votes)
            log_posterior.append(inferred.log_likelihood + model.log_prior)
            posterior_NK = inferred.posterior
            before = model.probabilities
            model = learn_coin(posterior_NK) if self.confusion == "one_coin" else learn_full(posterior_NK)
            if np.abs(model.probabilities - before).max() <= TOLERANCE:
                break
        self._keep(table, model, learn_coin(posterior_NK))
        self.log_posterior_ = np.array(log_posterior)
        return self


__all__ = ["DawidSkene"]
