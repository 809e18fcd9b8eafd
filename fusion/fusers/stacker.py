"""Stacked generalisation: a classifier from scikit-learn says of every option how likely it is right.

Reference: Wolpert 1992, Stacked generalization, Neural Networks 5, 241-259: a model over the members' answers, fitted
on questions that the members were not trained on. The agents are not trained here, so all questions of fit will do.

Rows. Every option of a question is one, whether it is right the target. Features: who chose it; with probabilities,
those of every agent and their logarithms, less their means over the options; curves of how many chose it (see
`fusion.logit`); and the question's category. Options that nobody chose have none but the category.

Models, s_k being the log odds of option k to be right:
    logistic   s_k = x_k . w + b_category + b, by penalised maximum likelihood. A category shifts all options of a
               question alike: it does not change which one wins.
    boosting   s_k = sum of the values of 100 small trees, each fitted to what those before left over: who is right may
               depend on the category, and on who else chose the option. Better with thousands of questions, worse than
               `logistic` with hundreds.

The options of a question compete, and permuting them moves the answer along. It is the option with the highest s that
an agent chose; where there are probabilities, of all unless the agents agree. Ties are settled as in the plain vote.
    P(k) = p_k / sum_j p_j,    p_k = 1 / (1 + exp(-s_k))
over all options, those that nobody chose having the score of a row without features. An open question has one more
option, none of those named, with that score. Shares of exp(s) would count what is known of an option twice: with two
options, p and 1 - p of a perfect model would become p^2 and (1 - p)^2.

Where nothing can be learned (nobody answers, all options right or none, too few for a tree to split) every vote counts
for 1 in s.

Saving. Of the logistic model the weights are kept. scikit-learn saves trees as pickles alone, and reading a pickle runs
code: so the rows to learn from are kept, and the same trees are grown again when a loaded fuser is first used. Under
another version of scikit-learn they may differ, and a warning says so.

Example:
    >>> Stacker(model="boosting")
    Stacker(model='boosting', strength=0.1)
"""

import collections
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from annotated_types import Gt

from fusion.data import PredictionTable, by_accuracy, category_places
from fusion.fusers._deciding import ScoringFuser
from fusion.fusers._stacking import (
    MOST_CATEGORIES,
    Boosted,
    Rows,
    boosted_scores,
    fit_boosted,
    fit_linear,
    linear_scores,
    log_probabilities,
    prefers_nothing,
    rows_of,
    tells_nothing,
    values_of,
    vote_weights,
)
from fusion.fusers._votes import not_fitted
from fusion.logit import Candidates, joined, probabilities
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection


@dataclass(kw_only=True)
class Stacker(ScoringFuser):
    """Score every option with a classifier over who chose it.

    Args:
        model: Logistic regression, or gradient-boosted trees.
        strength: How far the weights of the logistic model may go from 0: the inverse of their penalty, C in
            scikit-learn. Its default of 1 was as good with thousands of recorded questions, worse with hundreds.
    """

    model: Literal["logistic", "boosting"] = "logistic"
    strength: Annotated[float, Gt(0)] = 0.1
    weights_: FloatArray | None = field(default=None, init=False, repr=False)
    rows_: FloatArray | None = field(default=None, init=False, repr=False)
    right_: BoolArray | None = field(default=None, init=False, repr=False)
    times_: IntArray | None = field(default=None, init=False, repr=False)
    release_: str = field(default="", init=False, repr=False)
    _boosted: Boosted | None = field(default=None, init=False, repr=False, compare=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the classifier.

        Raises:
            InvalidTable: When the table has no labels or questions.
            MissingDependency: When scikit-learn is not installed.
        """
        labels_N = table.require_labels()
        self._meet(table, probs=table.probs is not None, categories=_most_common(table))
        self.weights_ = self.rows_ = self.right_ = self.times_ = self._boosted = None
        found = joined([part for _, part in self._candidates(table, selection)])
        right_N, category_N = found.place(labels_N), category_places(table, self.categories_)
        # Where the right answer is not among the options of a closed question, no option is right.
        unnamed_right_N = (right_N < 0) & ((labels_N >= 0) | self.open_)
        values_RX = values_of(found.features[:, self._columns()], category_N[found.question])
        rows = rows_of(found, values_RX, right=right_N, unnamed_right=unnamed_right_N, category=category_N)
        if tells_nothing(rows):
            self.weights_ = vote_weights(self._kinds(), len(self.categories_))
        elif self.model == "logistic":
            self.weights_ = fit_linear(rows, len(self.categories_), strength=self.strength)
        else:
            self._boost(rows)
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the likeliest option of every row that an agent chose, with probabilities and confidence.

        Where there are probabilities an option that no agent chose may win, unless all agree on another.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When the table lacks probabilities that fit had.
            MissingDependency: When trees have to be grown again, and scikit-learn is not installed.
        """
        if self.weights_ is None and self.rows_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        columns, category_N, unnamed_C = self._columns(), category_places(table, self.categories_), self._unnamed()

        def score(part: slice, found: Candidates) -> tuple[FloatArray, FloatArray]:
            category_R = category_N[part][found.question]
            scores_R = self._scores(values_of(found.features[:, columns], category_R))
            relative_R = log_probabilities(scores_R) - unnamed_C[category_R]
            return scores_R, probabilities(relative_R, np.diff(found.start), found.unnamed)[0]

        return self._decide(table, selection, score)

    def _boost(self, rows: Rows) -> None:
        boosted, self.release_ = fit_boosted(rows)
        if prefers_nothing(boosted_scores(boosted, rows.values), rows):
            self.weights_ = vote_weights(self._kinds(), len(self.categories_))
            return
        self.rows_, self.right_, self.times_ = rows
        self._boosted = boosted

    def _scores(self, values_RX: FloatArray) -> FloatArray:
        """Return the log odds of rows, float64 [R]."""
        if self.weights_ is not None:
            return linear_scores(self.weights_, values_RX)
        if self._boosted is None:
            assert self.rows_ is not None
            assert self.right_ is not None
            assert self.times_ is not None
            self._boosted, _ = fit_boosted(Rows(self.rows_, self.right_, self.times_), release=self.release_)
        return boosted_scores(self._boosted, values_RX)

    def _unnamed(self) -> FloatArray:
        """Return log p of an option that nobody chose, float64 [C + 1]; the last is for unknown categories."""
        category_C = np.append(np.arange(max(1, len(self.categories_))), -1)
        scores_C = self._scores(values_of(np.zeros((len(category_C), self._kinds()[-1].stop)), category_C))
        return log_probabilities(scores_C)

    def _columns(self) -> IntArray:
        """Return int [D], the order of features: agents by accuracy, then name, so that the pool's order is nothing."""
        assert self.accuracies_ is not None, "fitted"
        order_M = by_accuracy(self.accuracies_, names=self.agents_)
        *per_agent, counts = self._kinds()
        return np.concatenate([*(kind.start + order_M for kind in per_agent), np.arange(counts.start, counts.stop)])


def _most_common(table: PredictionTable) -> tuple[str, ...]:
    """Return the categories that are told apart, sorted; of very many those with most questions."""
    if table.categories is None:
        return ()
    counts = collections.Counter(table.categories.tolist())
    return tuple(sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_CATEGORIES]))


__all__ = ["Stacker"]
