"""Learn to ensemble: every option is scored by who chose it, with weights that may differ between categories.

Reference: LLM-TOPLA, arXiv 2410.03953, section 3.2: TOPLA-Weighted, a network from the members' concatenated
probabilities to the answer.

Equations, for option k of question n in category c (`fusion.logit` has the fit):
    P(k) = exp(x_nk . u_c) / sum_j exp(x_nj . u_c)
    x_nk   for every agent m: does it choose k; with probabilities: p_m(k) and log p_m(k), less their means over the
           options; and four curves of how many choose k
    u_c    weights of a category: drawn about common weights, and these about tau accuracy_m ** a, the weighted vote

Deviations from the paper. Its network reads the options' probabilities by position, so it has to learn the same thing
once for every letter; here every option is scored by the same function, and permuting options moves the answer along.
Weights are shrunk towards the weighted vote, and those of a category towards the others, as much as the data say
(no rows are set aside for that): few labelled questions give the vote, many a learned rule. Questions whose right
answer nobody gave are kept. `network=mlp` is the paper's network, its defects mended (`fusion.fusers._paper_network`).

Where members favour a position (always the first option), `positions=auto` adds log p_m(k) less its mean over the
questions of the category, option by option, in those categories in which that makes the right options of questions
that were left out likelier, by more than chance would (one-sided, 5 %). Order then matters in these categories.

Example:
    >>> ToplaWeighted(pooling="off")
    ToplaWeighted(pooling='off', positions='ignore', network='equivariant', probs=True, samples=1, seed=0)
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from annotated_types import Ge

from fusion.data import PredictionTable, accuracy_when_answering, category_places
from fusion.fusers import _paper_network
from fusion.fusers._deciding import ScoringFuser
from fusion.fusers._votes import POWERS, best_power, decide, not_fitted, ranking
from fusion.logit import Candidates, Model, Rows, fit, held_out, joined, probabilities, scales
from fusion.schema import Decision, FloatArray, IntArray, Selection

MOST_QUESTIONS = 100_000
"""Questions that weights are learned from, evenly over the categories, where a table has more: more change nothing."""

# Of a normal distribution, what one value in twenty exceeds.
_BEYOND_CHANCE = 1.645


@dataclass(kw_only=True)
class ToplaWeighted(ScoringFuser):
    """Weigh agents by what is learned about them, in every category.

    Args:
        pooling: Whether weights may differ between categories.
        positions: Whether agents' preferences for positions may be taken off, where there are probabilities.
        network: The rule of this library, or the paper's network.
        probs: Whether to use the agents' probabilities where a table has them.
        samples: How many drawn answers of each agent to count, in [1, R]; 1 counts its one answer.
        seed: Of the paper's network; the other rule draws nothing.
    """

    pooling: Literal["category", "off"] = "category"
    positions: Literal["ignore", "auto"] = "ignore"
    network: Literal["equivariant", "mlp"] = "equivariant"
    probs: bool = True
    samples: Annotated[int, Ge(1)] = 1
    seed: Annotated[int, Ge(0)] = 0
    weights_: FloatArray | None = field(default=None, init=False, repr=False)
    offsets_: FloatArray | None = field(default=None, init=False, repr=False)
    num_options_: int = field(default=0, init=False, repr=False)

    @property
    def positional(self) -> bool:
        """Whether it may tell options apart by their place."""
        return self.network == "mlp" or self.positions == "auto"

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the weights.

        Raises:
            InvalidTable: When the table has no labels or questions, or too few samples.
        """
        labels_N = table.require_labels()
        pooled = self.pooling == "category" and table.categories is not None
        categories = tuple(sorted(set(table.require_categories().tolist()))) if pooled else ()
        self._meet(table, probs=self.probs and table.probs is not None, categories=categories)
        self.offsets_ = None
        group_N = category_places(table, self.categories_)
        order_N = np.argsort(group_N, kind="stable")
        # Where the right answer is not among the options of a closed question, no option is.
        order_N = order_N if self.open_ else order_N[labels_N[order_N] >= 0]
        if len(order_N) > MOST_QUESTIONS:
            order_N = order_N[np.linspace(0, len(order_N) - 1, MOST_QUESTIONS).astype(np.intp)]
        ordered = table.rows(order_N)
        chosen = Selection(selection.mask[order_N])
        found = joined([part for _, part in self._candidates(ordered, chosen, samples=self.samples)])
        if self.network == "mlp":
            self._train(found, ordered)
            return self
        bounds = np.searchsorted(group_N[order_N], np.arange(max(1, len(self.categories_)) + 1))
        rows = Rows(candidates=found, right=found.place(ordered.require_labels()), bounds=bounds)
        self.weights_ = self._learn(rows, self._directions(table, selection))
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the likeliest option of every row that an agent chose, with probabilities and confidence.

        Where there are probabilities an option that no agent chose may win, unless all agree on another.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When the table lacks probabilities or samples that fit had.
        """
        if self.weights_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        group_N = category_places(table, self.categories_)

        def score(part: slice, found: Candidates) -> tuple[FloatArray, FloatArray]:
            scores_R = self._scores(found, group_N[part], table.num_options[part])
            return scores_R, probabilities(scores_R, np.diff(found.start), found.unnamed)[0]

        return self._decide(table, selection, score, samples=self.samples)

    def vote_weights(self, table: PredictionTable) -> FloatArray | None:
        """Return the weights of votes in the category of each question, float64 [N, M].

        None for the paper's network, and where probabilities are used beside the votes, which then weigh little by
        themselves. How many agents agree adds to the scores as well.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        if self.weights_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        if self.network == "mlp" or self.probs_:
            return None
        return np.asarray(self.weights_[category_places(table, self.categories_), self._kinds()[0]])

    def _learn(self, rows: Rows, directions_TD: FloatArray) -> FloatArray:
        """Return the weights of each category, then those for categories that fit did not see, [C + 1, D]."""
        scale_D = scales(rows.candidates.features, len(self.agents_), probs=self.probs_)
        features_RD = rows.candidates.features / scale_D
        plain = Rows(candidates=rows.candidates._replace(features=features_RD), right=rows.right, bounds=rows.bounds)
        model = Model(directions_TD, self._kinds(), len(self.categories_) > 1)
        learned = fit(plain, model)
        weights_CD = np.vstack([learned.groups, learned.common]) / scale_D
        if self.positions == "ignore" or not self.probs_:
            return weights_CD
        self.offsets_ = self._preferences(rows)
        agents = self._kinds()[2]
        moved_RM = self._unbiased(rows.candidates, rows.group) / scale_D[agents]
        wide = Rows(
            candidates=plain.candidates._replace(features=np.hstack([features_RD, moved_RM])),
            right=rows.right,
            bounds=rows.bounds,
        )
        width = features_RD.shape[1]
        wide_model = Model(
            np.pad(directions_TD, ((0, 0), (0, len(self.agents_)))),
            [*model.kinds, slice(width, width + len(self.agents_))],
            model.pooled,
        )
        gained_N = held_out(wide, wide_model) - held_out(plain, model)
        chosen = fit(wide, wide_model)
        wide_CD = np.vstack([chosen.groups, chosen.common]) / np.concatenate([scale_D, scale_D[agents]])
        weights_CD = np.pad(weights_CD, ((0, 0), (0, len(self.agents_))))
        for c in range(len(rows.bounds) - 1):
            own_N = gained_N[rows.bounds[c] : rows.bounds[c + 1]]
            if len(own_N) > 1 and own_N.mean() > _BEYOND_CHANCE * own_N.std(ddof=1) / len(own_N) ** 0.5:
                weights_CD[c] = wide_CD[c]
        return weights_CD

    def _scores(self, found: Candidates, group_B: IntArray, num_options_B: IntArray) -> FloatArray:
        """Return the score of every candidate, [R]."""
        assert self.weights_ is not None
        if self.network == "mlp":
            return self._network_scores(found, num_options_B)
        features_RD = found.features
        if self.offsets_ is not None:
            features_RD = np.hstack([features_RD, self._unbiased(found, group_B)])
        return np.asarray(np.einsum("rd,rd->r", features_RD, self.weights_[group_B[found.question]]))

    def _network_scores(self, found: Candidates, num_options_B: IntArray) -> FloatArray:
        """Return the network's scores, [R], less what makes 0 the score of the options that nobody named."""
        assert self.weights_ is not None
        width = self.num_options_
        inputs_BI, place_R = self._inputs(found)
        scores_BK = _paper_network.scores(inputs_BI, self.weights_, width).astype(np.float64)
        question_R, known_R = found.question, place_R < width
        scores_R = np.full(len(place_R), scores_BK.min(initial=0.0) - 1)
        scores_R[known_R] = scores_BK[question_R[known_R], place_R[known_R]]
        if self.open_:
            return scores_R
        unnamed_BK = np.arange(width) < num_options_B[:, None]
        unnamed_BK[question_R[known_R], place_R[known_R]] = False
        most_B1 = scores_BK.max(axis=1, keepdims=True, initial=0.0)
        masses_B = (np.exp(scores_BK - most_B1) * unnamed_BK).sum(axis=1)
        mean_B = np.log(np.maximum(masses_B, 1e-300) / np.maximum(found.unnamed, 1)) + most_B1[:, 0]
        return np.asarray(scores_R - np.where(masses_B > 0, mean_B, 0)[question_R])

    def _train(self, found: Candidates, table: PredictionTable) -> None:
        """Train the paper's network."""
        labels_N = table.require_labels()
        self.num_options_ = min(table.max_options, _paper_network.MOST_OPTIONS)
        inputs_BI, place_R = self._inputs(found)
        valid_NK = np.arange(self.num_options_) < table.num_options[:, None]
        if self.open_:
            right_N = found.place(labels_N)
            labels_N = np.where(right_N >= 0, place_R[right_N] if len(place_R) else -1, -1)
            valid_NK = np.arange(self.num_options_) < np.diff(found.start)[:, None]
        known_N = (labels_N >= 0) & (labels_N < self.num_options_)
        self.weights_ = _paper_network.train(inputs_BI[known_N], labels_N[known_N], valid_NK[known_N], seed=self.seed)

    def _inputs(self, found: Candidates) -> tuple[FloatArray, IntArray]:
        """Return what the network reads, [B, K M], and where each candidate stands in it, [R].

        Agents stand in the order of their names, so that the order of the pool is nothing to it. Options of open
        questions stand by the mass of votes that they have, at most `MOST_OPTIONS` of them.
        """
        kinds = self._kinds()
        values_RM = found.features[:, kinds[1] if self.probs_ else kinds[0]]
        values_RM = values_RM[:, np.argsort(np.array(self.agents_))]
        place_R = found.option
        if self.open_:
            question_R, mass_R = found.question, found.features[:, kinds[0]].sum(axis=1)
            order_R = np.lexsort((-mass_R, question_R))
            place_R = np.empty(len(order_R), dtype=np.int64)
            place_R[order_R] = np.arange(len(order_R)) - found.start[question_R[order_R]]
        inputs_BKM = np.zeros((len(found.unnamed), self.num_options_, len(self.agents_)), dtype=np.float32)
        inside_R = place_R < self.num_options_
        inputs_BKM[found.question[inside_R], place_R[inside_R]] = values_RM[inside_R]
        return inputs_BKM.reshape(len(found.unnamed), -1), place_R

    def _preferences(self, rows: Rows) -> FloatArray:
        """Return the mean log-probability that each agent gives to a position in a category, [C + 1, K, M].

        Less the mean over the options, as the features are; 0 for new categories.
        """
        found = rows.candidates
        beliefs_RM = found.features[:, self._kinds()[2]]
        group_R = rows.group[found.question]
        shape = (len(rows.bounds), int(found.option.max(initial=0)) + 1, len(self.agents_))
        sums_CKM, counts_CKM = np.zeros(shape), np.zeros(shape)
        np.add.at(sums_CKM, (group_R, found.option), beliefs_RM)
        np.add.at(counts_CKM, (group_R, found.option), beliefs_RM != 0)
        return np.asarray(sums_CKM / np.maximum(counts_CKM, 1))

    def _unbiased(self, found: Candidates, group_B: IntArray) -> FloatArray:
        """Return the log-probabilities less the preferences, [R, M]; 0 where an agent says nothing."""
        assert self.offsets_ is not None
        beliefs_RM = found.features[:, self._kinds()[2]]
        known_R = found.option < self.offsets_.shape[1]
        offsets_RM = np.zeros_like(beliefs_RM)
        offsets_RM[known_R] = self.offsets_[group_B[found.question[known_R]], found.option[known_R]]
        return np.where(beliefs_RM != 0, beliefs_RM - offsets_RM, 0)

    def _directions(self, table: PredictionTable, selection: Selection) -> FloatArray:
        """Return [T, D], the weighted vote: of answers, and of what the agents believe."""
        competence_M = accuracy_when_answering(table)
        ranked_M = ranking(self.accuracies_, table.num_agents)
        power = best_power(
            POWERS,
            lambda power: decide(table, selection, ranked_M, competence_M**power).answers,
            table.require_labels(),
        )
        kinds = self._kinds()
        directions_TD = np.zeros((len(kinds) - 1, kinds[-1].stop))
        for direction_D, kind in zip(directions_TD, kinds, strict=False):
            direction_D[kind] = competence_M**power / np.linalg.norm(competence_M**power)
        return directions_TD


__all__ = ["ToplaWeighted"]
