r"""MARL-Focal's decider, question by question: ask one agent more, or stop.

Reference: Tekin, Ilhan, Huang, Hu and Liu 2025, MARL-Focal, arXiv:2502.04492; Schulman et al. 2017, Proximal Policy
    Optimization, arXiv:1707.06347.
Equations: an episode is a question. State s: who was asked, what they said, the question's category. Action a: an agent
    that was not asked yet, or to stop. Reward: 1 if the likeliest option is right when it stops, less `price` for every
    call. The policy maximises the expected sum; it is trained with the clipped ratio min(r A, clip(r, 0.8, 1.2) A), a
    value baseline (generalised advantage, lambda 0.95) and an entropy bonus that fades to nothing.
Deviations: the paper's decider chooses a whole pool from statistics of past questions alone, so it ends as one constant
    pool. Here it sees the question's category and the answers so far, through a conditional logit with weights of
    agent and category that was learned with random sets of agents heard; on the questions to train on, from the others
    (cross-fitted). Every episode draws a price of its own, which the policy sees, so one training gives all trade-offs
    between accuracy and calls: `calls` finds the price that spends as many on the questions of fit. Acting, the
    likeliest action is taken, and nothing is learned any more.

Example:
    Two agents that are always right: one is enough.

    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> labels = np.arange(40) % 2
    >>> table = PredictionTable(question_ids=[f"q{n}" for n in range(40)], agents=["ann", "bob"],
    ...     answers=np.stack([labels, labels], axis=1), labels=labels)
    >>> from fusion.ensemble import ask
    >>> int(ask(MarlFocal(price=0.05, updates=40).fit(table), table)[1].sum(axis=1).max())
    1
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np
from annotated_types import Ge, Gt

from fusion.data import PredictionTable, by_accuracy, category_places, folds
from fusion.errors import NotFitted
from fusion.policies import (
    Beliefs,
    Layers,
    PpoOptions,
    Views,
    World,
    fit_beliefs,
    play_out,
    train_policy,
)
from fusion.schema import FloatArray, IntArray, Sees, Selection

_FOLDS = 5
_POOLING = 30.0
_PRICES = 1e-4, 0.2
_HALVINGS = 24


@dataclass(kw_only=True)
class MarlFocal:
    """Ask agents one after another, whom and how many as the answers so far suggest.

    Args:
        price: Accuracy that one call has to be worth: 0.005 asks once more for half a point.
        calls: Calls a question to spend on average instead, at least 1; 0 goes by `price`.
        max_calls: Most calls for one question; 0 for no limit.
        updates: Updates of the policy, each of which plays all questions of fit once.
        seed: Of weights and draws.
    """

    sees: ClassVar[Sees] = "answers"

    price: Annotated[float, Gt(0)] = 0.005
    calls: Annotated[float, Ge(0)] = 0.0
    max_calls: Annotated[int, Ge(0)] = 0
    updates: Annotated[int, Ge(1)] = 100
    seed: Annotated[int, Ge(0)] = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    order_: IntArray | None = field(default=None, init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)
    votes_: FloatArray | None = field(default=None, init=False, repr=False)
    counts_: FloatArray | None = field(default=None, init=False, repr=False)
    price_: float = field(default=0.0, init=False, repr=False)
    first_: FloatArray | None = field(default=None, init=False, repr=False)
    second_: FloatArray | None = field(default=None, init=False, repr=False)
    third_: FloatArray | None = field(default=None, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Learn what answers say, and when to ask whom.

        Raises:
            InvalidTable: When the table has no labels or questions.
        """
        labels_N, accuracies_M = table.require_labels(), table.accuracies
        self.agents_ = table.agents
        # The pool's order is nothing: the best agent comes first, names settle ties.
        self.order_ = by_accuracy(accuracies_M, names=table.agents)
        self.categories_ = () if table.categories is None else tuple(sorted(set(table.categories.tolist())))
        table = table.columns([table.agents[m] for m in self.order_])
        category_N = category_places(table, self.categories_)
        views = self._cross_fitted(table, labels_N, category_N)
        world = World.of(table, self.categories_, views)
        options = PpoOptions(updates=self.updates, prices=_PRICES, seed=self.seed)
        layers = train_policy(world, labels_N, options=options)
        beliefs = self._beliefs(table, labels_N, category_N, np.ones(len(table), dtype=bool))
        self.votes_, self.counts_ = beliefs
        # A layer's bias is the last row of its weights.
        self.first_, self.second_, self.third_ = (
            np.vstack([weight, bias]) for weight, bias in zip(layers.weights, layers.biases, strict=True)
        )
        self.price_ = self._price(world, layers) if self.calls else self.price
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who has been asked, and on questions where it goes on one agent more.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        if self.order_ is None or self.votes_ is None or self.counts_ is None:
            raise NotFitted("marl_focal learns whom to ask, and has not been fitted; call fit(table)")
        table.require_agents(self.agents_)
        moved = table.columns([self.agents_[m] for m in self.order_])
        views = Views.of(Beliefs(self.votes_, self.counts_), category_places(moved, self.categories_))
        world = World.of(moved, self.categories_, views)
        asked_NM = np.ones(moved.answers.shape, dtype=bool) if moved.asked is None else moved.asked.copy()
        state = world.heard(np.arange(len(moved)), asked_NM)
        seen_ND = world.observe(state, np.full(len(moved), self.price_))
        chosen_N = self._layers().choose(seen_ND, asked_NM)
        most = self.max_calls or moved.num_agents
        goes_N = (chosen_N < moved.num_agents) & (asked_NM.sum(axis=1) < most)
        asked_NM[goes_N, chosen_N[goes_N]] = True
        mask_NM = np.zeros_like(asked_NM)
        mask_NM[:, self.order_] = asked_NM
        return Selection(mask_NM)

    def _cross_fitted(self, table: PredictionTable, labels_N: IntArray, category_N: IntArray) -> Views:
        """Return what beliefs that were learned from other questions say of each."""
        num_folds = min(_FOLDS, len(table))
        if num_folds < 2:
            return Views.of(self._beliefs(table, labels_N, category_N, np.ones(len(table), dtype=bool)), category_N)
        fold_N = folds(table, num_folds, seed=self.seed)
        votes_NM = np.zeros((len(table), table.num_agents))
        counts_NM = np.zeros((len(table), table.num_agents + 1))
        for fold in range(num_folds):
            mine_N = fold_N == fold
            found = Views.of(self._beliefs(table, labels_N, category_N, ~mine_N), category_N[mine_N])
            votes_NM[mine_N], counts_NM[mine_N] = found
        return Views(votes_NM, counts_NM)

    def _beliefs(
        self, table: PredictionTable, labels_N: IntArray, category_N: IntArray, rows_N: "np.typing.NDArray[np.bool_]"
    ) -> Beliefs:
        return fit_beliefs(
            table.answers[rows_N].astype(np.intp),
            labels_N[rows_N],
            category_N[rows_N],
            table.num_options[rows_N].astype(np.intp),
            num_categories=max(len(self.categories_), 1),
            pooling=_POOLING,
            rng=np.random.default_rng(self.seed),
        )

    def _layers(self) -> Layers:
        assert self.first_ is not None, "fitted"
        assert self.second_ is not None, "fitted"
        assert self.third_ is not None, "fitted"
        parts = self.first_, self.second_, self.third_
        weights, biases = tuple(part[:-1] for part in parts), tuple(part[-1] for part in parts)
        return Layers(weights, biases)  # type: ignore[arg-type]  # three of each

    def _price(self, world: World, layers: Layers) -> float:
        """Return the price at which the policy spends `calls` on average."""
        low, high = np.log(_PRICES)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            price_N = np.full(len(world.answers), np.exp(middle))
            ended = play_out(world, layers, price_N, max_calls=self.max_calls or None)
            if ended.asked.sum(axis=1).mean() > self.calls:
                low = middle
            else:
                high = middle
        return float(np.exp(high))


__all__ = ["MarlFocal"]
