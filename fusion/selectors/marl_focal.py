r"""MARL-Focal's decider, question by question: ask one agent more, or stop.

Reference: Tekin, Ilhan, Huang, Hu and Liu 2025, MARL-Focal, arXiv:2502.04492. `learner=stopping`: Longstaff and
    Schwartz 2001, Review of Financial Studies 14; Tsitsiklis and Van Roy 2001, IEEE Transactions on Neural Networks 12.
    `learner=ppo`: Schulman et al. 2017, Proximal Policy Optimization, arXiv:1707.06347.
Equations: an episode is a question. State s: who was asked, what they said, the question's category. Action a: an agent
    that was not asked yet, or to stop. Reward: 1 if the likeliest option is right when it stops, less `price` for every
    call. The policy maximises the expected sum.
    stopping   agents are asked in an order, learned for each category; a question goes on while what that gains, a
               ridge regression on the state for each number of answers, learned from the last backwards, is above 0.
    ppo        one network chooses agents and stops; clipped ratio min(r A, clip(r, 0.8, 1.2) A), a value baseline
               (generalised advantage, lambda 0.95), an entropy bonus that fades to nothing.
Deviations: the paper's decider chooses a whole pool from statistics of past questions alone, so it ends as one constant
    pool. Here it sees the question's category and the answers so far, through a conditional logit with weights of
    agent and category that was learned with random sets of agents heard; on the questions to train on, from the others
    (cross-fitted). Stopping by least squares is the default because it is better, steadier from seed to seed, and a
    hundred times faster than the network on recorded answers (benchmarks/marl). Acting, nothing is learned any more.

Example:
    Two agents that are always right: one is enough.

    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> labels = np.arange(40) % 2
    >>> table = PredictionTable(question_ids=[f"q{n}" for n in range(40)], agents=["ann", "bob"],
    ...     answers=np.stack([labels, labels], axis=1), labels=labels)
    >>> from fusion.ensemble import ask
    >>> int(ask(MarlFocal(price=0.05).fit(table), table)[1].sum(axis=1).max())
    1
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt

from fusion.data import PredictionTable, by_accuracy, is_open
from fusion.errors import InvalidTable, NotFitted
from fusion.policies import Beliefs, Layers, PpoOptions, Stopping, World, play, play_out, stop_when, train_policy
from fusion.schema import BoolArray, FloatArray, IntArray, Sees, Selection

_PRICES = 1e-4, 0.2
_HALVINGS = 24
_CHUNK = 50_000


@dataclass(kw_only=True)
class MarlFocal:
    """Ask agents one after another, whom and how many as the answers so far suggest.

    Args:
        price: Accuracy that one call has to be worth: 0.005 asks once more for half a point.
        calls: Calls a question to spend on average instead, at least 1; 0 goes by `price`.
        max_calls: Most calls for one question; 0 for no limit.
        costs: What a call costs: the same for every agent, or its tokens on the questions of fit, as a share of the
            mean over agents; `price` and `calls` are then those of a mean call.
        learner: What learns the policy.
        updates: For `ppo`: updates, each of which plays all questions of fit once.
        seed: Of weights and draws.
    """

    sees: ClassVar[Sees] = "answers"

    price: Annotated[float, Gt(0)] = 0.005
    calls: Annotated[float, Ge(0)] = 0.0
    max_calls: Annotated[int, Ge(0)] = 0
    costs: Literal["calls", "tokens"] = "calls"
    learner: Literal["stopping", "ppo"] = "stopping"
    updates: Annotated[int, Ge(1)] = 100
    seed: Annotated[int, Ge(0)] = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    ranked_: IntArray | None = field(default=None, init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)
    open_: bool = field(default=False, init=False, repr=False)
    probs_: bool = field(default=False, init=False, repr=False)
    beliefs_: FloatArray | None = field(default=None, init=False, repr=False)
    price_: float = field(default=0.0, init=False, repr=False)
    order_: IntArray | None = field(default=None, init=False, repr=False)
    gains_: FloatArray | None = field(default=None, init=False, repr=False)
    first_: FloatArray | None = field(default=None, init=False, repr=False)
    second_: FloatArray | None = field(default=None, init=False, repr=False)
    third_: FloatArray | None = field(default=None, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Learn what answers say, and when to ask whom.

        Raises:
            InvalidTable: When the table has no labels or questions, or no tokens where these are the costs.
            MissingDependency: When torch is not installed, for `ppo`.
        """
        labels_N = table.require_labels()
        if not len(table):
            raise InvalidTable("marl_focal learns from labelled questions, and the table is empty")
        self.agents_, self.open_ = table.agents, is_open(table)
        # The pool's order is nothing: the best agent comes first, names settle ties.
        self.ranked_ = by_accuracy(table.accuracies, names=table.agents)
        self.categories_ = () if table.categories is None else tuple(sorted(set(table.categories.tolist())))
        table = table.columns([table.agents[m] for m in self.ranked_])
        costs_M = self._costs(table)
        world = World.to_learn_from(table, self.categories_, seed=self.seed)
        self.beliefs_, self.probs_ = Beliefs.learn(table, self.categories_, rng=np.random.default_rng(self.seed))
        if self.learner == "ppo":
            self._learn_by_gradient(world, labels_N, costs_M)
        else:
            self._learn_to_stop(world, labels_N, costs_M)
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who has been asked, and on questions where it goes on one agent more.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        if self.ranked_ is None or self.beliefs_ is None:
            raise NotFitted("marl_focal learns whom to ask, and has not been fitted; call fit(table)")
        table.require_agents(self.agents_)
        moved = table.columns([self.agents_[m] for m in self.ranked_])
        asked_NM = np.ones(moved.answers.shape, dtype=bool) if moved.asked is None else moved.asked.copy()
        for low in range(0, len(moved), _CHUNK):
            part = slice(low, low + _CHUNK)
            asked_NM[part] |= self._more(moved.rows(part), asked_NM[part])
        mask_NM = np.zeros_like(asked_NM)
        mask_NM[:, self.ranked_] = asked_NM
        return Selection(mask_NM)

    def _more(self, table: PredictionTable, asked_NM: BoolArray) -> BoolArray:
        """Return bool [N, M], whom to ask next, agents by accuracy: at most one a question."""
        assert self.beliefs_ is not None, "fitted"
        world = World.to_act_in(table, self.categories_, Beliefs(self.beliefs_, self.probs_), open=self.open_)
        state = world.heard(np.arange(len(table)), asked_NM)
        if self.order_ is not None and self.gains_ is not None:
            policy = Stopping(self.order_, self.gains_)
            next_N = np.where(policy.worth(world, state) > 0, policy.following(world, state), -1)
        else:
            chosen_N = self._layers().choose(world.observe(state, np.full(len(table), self.price_)), asked_NM)
            next_N = np.where(chosen_N < table.num_agents, chosen_N, -1)
        goes_N = (next_N >= 0) & (asked_NM.sum(axis=1) < (self.max_calls or table.num_agents))
        more_NM = np.zeros_like(asked_NM)
        more_NM[goes_N, next_N[goes_N]] = True
        return more_NM

    def _learn_to_stop(self, world: World, labels_N: IntArray, costs_M: FloatArray) -> None:
        courses = play(world, labels_N, costs_M=costs_M, most=self.max_calls or world.answers.shape[1])
        self.price_ = self.price
        if self.calls:
            spent_NL = costs_M[courses.agents].cumsum(axis=1)
            rows_N = np.arange(len(labels_N))

            def spent(price: float) -> float:
                stops_N = stop_when(courses, price, costs_M=costs_M)[1]
                return float(spent_NL[rows_N, stops_N - 1].mean())

            self.price_ = _price_of(self.calls, spent)
        self.order_, self.gains_ = stop_when(courses, self.price_, costs_M=costs_M)[0]

    def _learn_by_gradient(self, world: World, labels_N: IntArray, costs_M: FloatArray) -> None:
        options = PpoOptions(updates=self.updates, prices=_PRICES, seed=self.seed)
        layers = train_policy(world, labels_N, options=options, costs_M=costs_M)
        # A layer's bias is the last row of its weights.
        self.first_, self.second_, self.third_ = (
            np.vstack([weight, bias]) for weight, bias in zip(layers.weights, layers.biases, strict=True)
        )
        self.order_ = self.gains_ = None
        self.price_ = self.price
        if self.calls:

            def spent(price: float) -> float:
                price_N = np.full(len(labels_N), price)
                asked_NM = play_out(world, layers, price_N, max_calls=self.max_calls or None).asked
                return float((asked_NM @ costs_M).mean())

            self.price_ = _price_of(self.calls, spent)

    def _costs(self, table: PredictionTable) -> FloatArray:
        """Return what a call of each agent costs, [M], 1 for the mean."""
        if self.costs == "calls":
            return np.ones(table.num_agents)
        if table.tokens_out is None:
            raise InvalidTable(
                "the table has no tokens to count; record them, or let every call cost the same: costs=calls"
            )
        tokens_NM = table.tokens_out.astype(np.float64)
        if table.tokens_in is not None:
            tokens_NM = tokens_NM + table.tokens_in
        costs_M = np.maximum(tokens_NM.mean(axis=0), 1.0)
        return np.asarray(costs_M / costs_M.mean())

    def _layers(self) -> Layers:
        assert self.first_ is not None, "fitted"
        assert self.second_ is not None, "fitted"
        assert self.third_ is not None, "fitted"
        parts = self.first_, self.second_, self.third_
        weights, biases = tuple(part[:-1] for part in parts), tuple(part[-1] for part in parts)
        return Layers(weights, biases)  # type: ignore[arg-type]  # three of each


def _price_of(calls: float, spent: Callable[[float], float]) -> float:
    """Return the price at which so many calls are spent on average."""
    low, high = np.log(_PRICES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if spent(float(np.exp(middle))) > calls:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


__all__ = ["MarlFocal"]
