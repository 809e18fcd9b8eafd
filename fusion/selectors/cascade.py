r"""A cascade: agents in one order, until the answers so far are sure enough.

Reference: Viola and Jones 2001 for the idea; for language models FrugalGPT, Chen, Zaharia and Zou 2023,
    arXiv:2305.05176, cheapest first, with a threshold for each model on a learned score.
Equations: after the answers of agents 1, ..., s the likeliest option has the probability p_s. It stops at the first s
    with p_s >= threshold. The probabilities are those of the conditional logit of `fusion.logit`, learned with random
    agents heard, so that they hold for few answers as for many.
Deviations: FrugalGPT scores a reply by a model that reads it, and searches orders and thresholds together. Here what
    the agents agree on is the score, one threshold holds for all, and the order is by cost or accuracy. It goes on for
    questions that nobody can answer until everybody was asked, which `marl_focal` has learned not to.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> labels = np.arange(90) % 3
    >>> table = PredictionTable(question_ids=[f"q{n}" for n in range(90)], agents=["ann", "bob"],
    ...     answers=np.stack([labels, (labels + 1) % 3], axis=1), labels=labels)
    >>> from fusion.ensemble import ask
    >>> ask(Cascade(threshold=0.9).fit(table), table)[1].sum(axis=0).tolist()
    [90, 0]
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt, Le

from fusion.data import PredictionTable, by_accuracy, category_names, is_open
from fusion.errors import InvalidTable
from fusion.policies import Beliefs, World, mean_tokens
from fusion.schema import BoolArray, FloatArray, IntArray, Sees, Selection
from fusion.selectors._one_more import one_more
from fusion.selectors._static import not_fitted


@dataclass(kw_only=True)
class Cascade:
    """Ask one agent after another until an answer is sure enough.

    Args:
        threshold: Probability of the likeliest answer at which nobody else is asked.
        calls: Calls a question to spend on average instead, at least 1; 0 goes by `threshold`.
        order: The most accurate agent first, or the one with the fewest tokens, on the questions of fit.
        max_calls: Most calls for one question; 0 for no limit.
        seed: Of who is heard when the probabilities are learned.
    """

    sees: ClassVar[Sees] = "answers"

    threshold: Annotated[float, Gt(0), Le(1)] = 0.8
    calls: Annotated[float, Ge(0)] = 0.0
    order: Literal["accuracy", "tokens"] = "accuracy"
    max_calls: Annotated[int, Ge(0)] = 0
    seed: Annotated[int, Ge(0)] = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    ordered_: tuple[str, ...] = field(default=(), init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)
    open_: bool = field(default=False, init=False, repr=False)
    probs_: bool = field(default=False, init=False, repr=False)
    beliefs_: FloatArray | None = field(default=None, init=False, repr=False)
    threshold_: float = field(default=1.0, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Learn the order, and what answers say.

        Raises:
            InvalidTable: When the table has no labels or questions, or no tokens where these are the order.
        """
        table.require_labels()
        if not len(table):
            raise InvalidTable("cascade learns from labelled questions, and the table is empty")
        self.agents_, self.open_ = table.agents, is_open(table)
        self.categories_ = category_names(table)
        ranked_M = by_accuracy(table.accuracies, names=table.agents)
        if self.order == "tokens":
            ranked_M = ranked_M[np.argsort(mean_tokens(table)[ranked_M], kind="stable")]
        self.ordered_ = tuple(table.agents[m] for m in ranked_M)
        table = table.columns(self.ordered_)
        self.beliefs_, self.probs_ = Beliefs.learn(table, self.categories_, rng=np.random.default_rng(self.seed))
        self.threshold_ = self._threshold(table) if self.calls else self.threshold
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who has been asked, and on questions that are not sure enough the next agent.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        if self.beliefs_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        beliefs = Beliefs(self.beliefs_, self.probs_)

        def following(part: PredictionTable, asked_BM: BoolArray) -> IntArray:
            world = World.to_act_in(part, self.categories_, beliefs, open=self.open_)
            state = world.heard(np.arange(len(part)), asked_BM)
            sure_B = asked_BM.any(axis=1) & (world.probabilities(state).max(axis=1) >= self.threshold_)
            return np.where(sure_B | asked_BM.all(axis=1), -1, (~asked_BM).argmax(axis=1))

        return one_more(table, self.ordered_, following, max_calls=self.max_calls)

    def _threshold(self, table: PredictionTable) -> float:
        """Return the threshold at which `calls` are spent on average on the questions of fit."""
        assert self.beliefs_ is not None, "learned before"
        beliefs = Beliefs(self.beliefs_, self.probs_)
        world = World.to_act_in(table, self.categories_, beliefs, open=self.open_)
        rows_N = np.arange(len(table))
        state, sure = world.begin(rows_N), []
        for agent in range(min(self.max_calls or table.num_agents, table.num_agents)):
            world.ask(state, np.full(len(table), agent))
            sure.append(world.probabilities(state).max(axis=1))
        # What a threshold must not exceed for a question to have stopped by then.
        most_LN = np.maximum.accumulate(np.array(sure), axis=0)
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            # Each answer after the first is asked for where no earlier one was enough.
            spent = 1 + float((most_LN[:-1] < middle).sum(axis=0).mean())
            low, high = (middle, high) if spent < self.calls else (low, middle)
        return max(low, 1e-9)


__all__ = ["Cascade"]
