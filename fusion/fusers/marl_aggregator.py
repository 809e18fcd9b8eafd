"""MARL-Focal's aggregator: it is consulted where agents differ, however many of them were asked.

Reference: Tekin, Ilhan, Huang, Hu and Liu 2025, MARL-Focal, arXiv:2502.04492.

Equations: the state is what the agents asked have said; an action is an option k; the reward is 1 where it is right.
The policy is pi(k) = exp(x_k . u_c) / sum_j exp(x_j . u_c), with the features x and the weights u_c of a category of
`fusion.logit`: who names the option, how likely they find it, and how many name it.
    likelihood   maximises sum_n log pi(right_n), less the priors of the logit
    reward       maximises sum_n pi(right_n), the expected reward, less 150 |u - u_0|^2 about the weights u_0 of
                 likelihood: on record every action's reward is known, so its gradient is the policy gradient without
                 the noise of sampled actions
    target=score maximises sum_n sum_k t_nk log pi(k), where t_nk is how much more option k is worth than the worst one
                 given: pi is in proportion to its mean, so the likeliest option is the best on average

    The paper's (`mode=paper`) is an MLP (100, 100) over the members' probabilities, position by position, learned with
    the clipped policy gradient (`fusion.policies.train_aggregator` names what was mended in it).

The former two are learned from questions of which every second is heard from random agents alone, so they settle few
answers as well as many: what a selector that asks question by question (`marl_focal`) needs. Where all who answered
agree, that is the answer.

Deviations: the paper's network reads options by position and never explores, so it has to learn the same thing once
for every letter and ends at one constant class on most tasks; here permuting options moves the answer along. Likelihood
is the default because reward is worse on questions not seen (benchmarks/marl).

Example:
    >>> MarlAggregator()
    MarlAggregator(mode='adaptive', objective='likelihood', target='label', updates=200, seed=0)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from annotated_types import Ge

from fusion.data import PredictionTable, best_rated, by_accuracy, category_names, category_places
from fusion.errors import InvalidTable
from fusion.fusers._deciding import ScoringFuser
from fusion.fusers._votes import leading, not_fitted, ranking, settle, tally
from fusion.logit import Candidates, kinds, probabilities
from fusion.policies import Aggregator, AggregatorOptions, Beliefs, TrainingRun, opinions, rewarded, train_aggregator
from fusion.schema import BoolArray, Decision, FloatArray, Selection


@dataclass(kw_only=True)
class MarlAggregator(ScoringFuser):
    """Settle what differs by weights that were learned with random agents asked.

    Args:
        mode: This rule, or the paper's network.
        objective: What the weights maximise on the questions of fit.
        target: The answer to learn: the right one, or that with the highest score in the table.
        updates: Of the paper's network: each answers all questions once.
        seed: Of who is heard on which question; of weights and draws.
    """

    mode: Literal["adaptive", "paper"] = "adaptive"
    objective: Literal["likelihood", "reward"] = "likelihood"
    target: Literal["label", "score"] = "label"
    updates: Annotated[int, Ge(1)] = 200
    seed: Annotated[int, Ge(0)] = 0
    weights_: FloatArray | None = field(default=None, init=False, repr=False)
    first_: FloatArray | None = field(default=None, init=False, repr=False)
    second_: FloatArray | None = field(default=None, init=False, repr=False)
    third_: FloatArray | None = field(default=None, init=False, repr=False)
    _run: TrainingRun = field(default_factory=TrainingRun, init=False, repr=False, compare=False)

    @property
    def positional(self) -> bool:
        """Whether it tells options apart by their place."""
        return self.mode == "paper"

    def learn_in(
        self, folder: Path, told: Callable[[str, int, int], None] | None = None, *, tensorboard: bool = False
    ) -> None:
        """Learn in `folder`, so that a network that was cut short goes on there; weights are learned anew."""
        self._run = TrainingRun(folder, told=told, tensorboard=tensorboard)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the weights of all agents that the selection listens to on some question, from all their answers.

        Raises:
            InvalidTable: When the table has no labels or questions.
        """
        worth_NK = None
        if self.target == "score":
            table, worth_NK = best_rated(table)
        table.require_labels()
        if not len(table):
            raise InvalidTable("marl_aggregator learns from labelled questions, and the table is empty")
        categories = category_names(table)
        self._meet(table, probs=table.probs is not None, categories=categories)
        self.weights_ = self.first_ = self.second_ = self.third_ = None
        if self.mode == "paper":
            options, ordered = AggregatorOptions(updates=self.updates, seed=self.seed), self._ordered(table)
            pools = self._ordered_mask(selection)
            self._run.begin("aggregator", ordered.fingerprint, sha256(pools.tobytes()).hexdigest(), repr(options))
            network = train_aggregator(ordered, pools, options=options, run=self._run)
            # A layer's bias is the last row of its weights.
            layers = zip(network.weights, network.biases, strict=True)
            self.first_, self.second_, self.third_ = (np.vstack([weight, bias]) for weight, bias in layers)
            return self
        # The pool's order is nothing: who is heard is drawn for the agents by accuracy, then name.
        ranked_M = by_accuracy(table.accuracies, names=table.agents)
        moved = table.columns([table.agents[m] for m in ranked_M])
        rng, among_M = np.random.default_rng(self.seed), np.asarray(selection.mask.any(axis=0))[ranked_M]
        beliefs = Beliefs.learn(moved, categories, rng=rng, among=among_M, worth_NK=worth_NK)
        if self.objective == "reward":
            beliefs = rewarded(beliefs, moved, categories, rng=rng, among=among_M, worth_NK=worth_NK)
        back_M = np.argsort(ranked_M)
        *per_agent, counts = kinds(table.num_agents, probs=self.probs_)
        columns = np.concatenate([*(kind.start + back_M for kind in per_agent), np.arange(counts.start, counts.stop)])
        self.weights_ = beliefs.weights[:, columns]
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the likeliest option of every row that an agent chose, with probabilities and confidence.

        Where there are probabilities an option that no agent chose may win, unless all agree on another.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When the table lacks probabilities that fit had.
        """
        if self.weights_ is None and self.third_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        if self.weights_ is None:
            return self._by_network(table, selection)
        weights_CD = self.weights_
        category_N = category_places(table, self.categories_)

        def score(part: slice, found: Candidates) -> tuple[FloatArray, FloatArray]:
            weights_RD = weights_CD[category_N[part][found.question]]
            scores_R = np.einsum("rd,rd->r", found.features, weights_RD)
            return scores_R, probabilities(scores_R, np.diff(found.start), found.unnamed)[0]

        return self._decide(table, selection, score)

    def vote_weights(self, table: PredictionTable) -> FloatArray | None:
        """Return the weights of votes in the category of each question, float64 [N, M]; None where beliefs count too.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        if self.weights_ is None and self.third_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        if self.weights_ is None or self.probs_:
            return None
        return np.asarray(self.weights_[category_places(table, self.categories_), self._kinds()[0]])

    def _ordered(self, table: PredictionTable) -> PredictionTable:
        """Return the table with its agents by name, so that the order of the pool is nothing to the network."""
        return table.columns(sorted(self.agents_))

    def _ordered_mask(self, selection: Selection) -> BoolArray:
        return selection.mask[:, np.argsort(np.array(self.agents_))]

    def _by_network(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return what the paper's network says where agents differ; what they say where they do not."""
        layers = [layer for layer in (self.first_, self.second_, self.third_) if layer is not None]
        width = layers[-1].shape[1]
        seen_NMK = opinions(self._ordered(table)) * self._ordered_mask(selection)[:, :, None]
        kept = min(width, seen_NMK.shape[2])
        input_NMK = np.zeros((len(table), table.num_agents, width), dtype=np.float32)
        input_NMK[:, :, :kept] = seen_NMK[:, :, :kept]
        network = Aggregator.of([layer[:-1] for layer in layers], [layer[-1] for layer in layers])
        chosen_N = network.choose_options(input_NMK.reshape(len(table), table.num_agents * width))
        counted = tally(table.answers, selection.mask, table.max_options)
        voted_N = settle(leading(counted), table.answers, selection.mask, ranking(self.accuracies_, table.num_agents))
        differ_N = counted.backed.sum(axis=1) > 1
        return Decision(np.where(differ_N & (chosen_N < table.num_options), chosen_N, voted_N))


__all__ = ["MarlAggregator"]
