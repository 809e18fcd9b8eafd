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
Deviations: the paper's decider (`mode=paper`; `fusion.policies.train_decider` names what was mended in it) chooses a
    whole pool from statistics of past questions alone, so it ends as one constant pool. By default it sees the
    question's category and the answers so far, through a conditional logit with weights of agent and category that was
    learned with random sets of agents heard; on the questions to train on, from the others (cross-fitted). Stopping by
    least squares is the default because the network is not shown to be better on recorded answers and takes some
    fifteen times as long to train (benchmarks/marl). Acting, nothing is learned any more.

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
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt

from fusion.data import PredictionTable, best_rated, by_accuracy, category_names, is_open
from fusion.errors import InvalidTable, NotFitted
from fusion.policies import (
    Beliefs,
    DeciderOptions,
    Layers,
    PpoOptions,
    Recorded,
    State,
    Stopping,
    TrainingRun,
    World,
    advantages,
    mean_tokens,
    play,
    play_out,
    play_stream,
    stop_when,
    train_decider,
    train_policy,
)
from fusion.protocols import Telling
from fusion.schema import BoolArray, FloatArray, IntArray, Sees, Selection
from fusion.selectors._one_more import CHUNK, one_more

_PRICES = 1e-4, 0.2
"""Least and greatest price that a network learns, in the spread of what options are worth."""
_DEAREST = 1.0
"""Greatest price that is looked for, in the same."""
_HALVINGS = 24
_STEPS = 50
"""Questions after which a frozen decider's pool is looked at."""


@dataclass(kw_only=True)
class MarlFocal:
    """Ask agents one after another, whom and how many as the answers so far suggest.

    Args:
        price: Accuracy that one call has to be worth: 0.005 asks once more for half a point.
        calls: Calls a question to spend on average instead, at least 1; 0 goes by `price`.
        max_calls: Most calls for one question; 0 for no limit.
        costs: What a call costs: the same for every agent, or its tokens on the questions of fit, as a share of the
            mean over agents; `price` and `calls` are then those of a mean call.
        reward: What an answer is worth: 1 where it is right, or its score in the table, for answers that are better or
            worse rather than right; `price` is then in scores.
        mode: This policy, or the paper's decider of pools.
        learner: What learns the policy.
        updates: For `ppo`: updates, each of which plays all questions of fit once. For the paper's decider, the most.
        alpha: For the paper's decider: what being wrong with everybody costs more than with nobody.
        seed: Of weights and draws.
    """

    sees: ClassVar[Sees] = "answers"

    price: Annotated[float, Gt(0)] = 0.005
    calls: Annotated[float, Ge(0)] = 0.0
    max_calls: Annotated[int, Ge(0)] = 0
    costs: Literal["calls", "tokens"] = "calls"
    reward: Literal["label", "score"] = "label"
    mode: Literal["adaptive", "paper"] = "adaptive"
    learner: Literal["stopping", "ppo"] = "stopping"
    updates: Annotated[int, Ge(1)] = 100
    alpha: Annotated[float, Ge(0)] = 1.0
    seed: Annotated[int, Ge(0)] = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    ranked_: IntArray | None = field(default=None, init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)
    open_: bool = field(default=False, init=False, repr=False)
    probs_: bool = field(default=False, init=False, repr=False)
    beliefs_: FloatArray | None = field(default=None, init=False, repr=False)
    price_: float = field(default=0.0, init=False, repr=False)
    unit_: float = field(default=1.0, init=False, repr=False)
    costs_: FloatArray | None = field(default=None, init=False, repr=False)
    pool_: BoolArray | None = field(default=None, init=False, repr=False)
    order_: IntArray | None = field(default=None, init=False, repr=False)
    gains_: FloatArray | None = field(default=None, init=False, repr=False)
    first_: FloatArray | None = field(default=None, init=False, repr=False)
    second_: FloatArray | None = field(default=None, init=False, repr=False)
    third_: FloatArray | None = field(default=None, init=False, repr=False)
    _run: TrainingRun = field(default_factory=TrainingRun, init=False, repr=False, compare=False)

    def learn_in(
        self, folder: Path, told: Callable[[str, int, int], None] | None = None, *, tensorboard: bool = False
    ) -> None:
        """Learn in `folder`, so that networks that were cut short go on there; least squares begins anew."""
        self._run = TrainingRun(folder, told=told, tensorboard=tensorboard)

    def fit(self, table: PredictionTable) -> Self:
        """Learn what answers say, and when to ask whom.

        Raises:
            InvalidTable: When the table has no labels or questions, or no tokens where these are the costs.
            MissingDependency: When torch is not installed, for `ppo`.
        """
        worth_NK = None
        if self.reward == "score":
            table, worth_NK = best_rated(table)
        labels_N = table.require_labels()
        if not len(table):
            raise InvalidTable("marl_focal learns from labelled questions, and the table is empty")
        self.agents_, self.open_ = table.agents, is_open(table)
        # The pool's order is nothing: the best agent comes first, names settle ties.
        self.ranked_ = by_accuracy(table.accuracies, names=table.agents)
        self.categories_ = category_names(table)
        table = table.columns([table.agents[m] for m in self.ranked_])
        self.pool_ = _paper_pool(table, self, self._run) if self.mode == "paper" else None
        if self.pool_ is not None:
            return self
        costs_M = self.costs_ = self._costs(table)
        self.unit_ = 1.0 if worth_NK is None else _spread(table, worth_NK)
        told = self._telling("what answers say")
        world = World.to_learn_from(table, self.categories_, seed=self.seed, worth_NK=worth_NK, told=told)
        rng = np.random.default_rng(self.seed)
        self.beliefs_, self.probs_ = Beliefs.learn(table, self.categories_, rng=rng, worth_NK=worth_NK)
        if self.learner == "ppo":
            # What the weights depend on; prices are chosen with them.
            self._run.begin("ppo", table.fingerprint, self.reward, self.costs, str(self.updates), str(self.seed))
            self._learn_by_gradient(world, labels_N, worth_NK, costs_M)
        else:
            self._learn_to_stop(world, labels_N, worth_NK, costs_M)
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who has been asked, and on questions where it goes on one agent more.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        names = self._names(table)
        if self.pool_ is None:
            return one_more(table, names, self._next, max_calls=self.max_calls)
        members = {name for name, chosen in zip(names, self.pool_.tolist(), strict=True) if chosen}
        return Selection(np.tile([name in members for name in table.agents], (len(table), 1)))

    def tell(self, table: PredictionTable) -> tuple[Telling, ...]:
        """Say of every row who comes next, and why: the gain and price of asking on, or the policy's probability.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        names = self._names(table)
        moved = table.columns(names)
        asked_NM = np.ones(moved.answers.shape, dtype=bool) if moved.asked is None else moved.asked
        if self.pool_ is not None:
            words = f"its pool of {self.pool_.sum()} was chosen on past questions"
            return tuple(Telling(None, bool(row_M.any()), words=words) for row_M in self.pool_ & ~asked_NM)
        parts = [slice(low, low + CHUNK) for low in range(0, len(moved), CHUNK)]
        return tuple(told for part in parts for told in self._tellings(moved.rows(part), asked_NM[part], names))

    def _names(self, table: PredictionTable) -> list[str]:
        """Return the agents by accuracy, after a check that they are those of the table."""
        if self.ranked_ is None or (self.beliefs_ is None and self.pool_ is None):
            raise NotFitted("marl_focal learns whom to ask, and has not been fitted; call fit(table)")
        table.require_agents(self.agents_)
        return [self.agents_[m] for m in self.ranked_]

    def _next(self, table: PredictionTable, asked_NM: BoolArray) -> IntArray:
        """Return whom to ask next, agents by accuracy, int [N]; -1 to stop."""
        return self._chosen(*self._heard(table, asked_NM))

    def _chosen(self, world: World, state: State) -> IntArray:
        if self.order_ is not None and self.gains_ is not None:
            policy = Stopping(self.order_, self.gains_)
            return np.where(policy.worth(world, state) > 0, policy.following(world, state), -1)
        num_questions, num_agents = state.asked.shape
        chosen_N = self._layers().choose(
            world.observe(state, np.full(num_questions, self.price_ / self.unit_)), state.asked
        )
        return np.where(chosen_N < num_agents, chosen_N, -1)

    def _heard(self, table: PredictionTable, asked_NM: BoolArray) -> tuple[World, State]:
        assert self.beliefs_ is not None, "fitted"
        world = World.to_act_in(table, self.categories_, Beliefs(self.beliefs_, self.probs_), open=self.open_)
        return world, world.heard(np.arange(len(table)), asked_NM)

    def _tellings(self, table: PredictionTable, asked_NM: BoolArray, names: list[str]) -> list[Telling]:
        assert self.costs_ is not None, "fitted"
        world, state = self._heard(table, asked_NM)
        count_N, chosen_N = asked_NM.sum(axis=1), self._chosen(world, state)
        if self.order_ is not None and self.gains_ is not None:
            policy = Stopping(self.order_, self.gains_)
            next_N, sure_N = policy.following(world, state), None
            # What its regression predicts is the gain less the price of the call.
            worth_N = policy.worth(world, state)
        else:
            next_N, sure_N = self._leanings(world, state, chosen_N)
            worth_N = np.full(len(table), np.inf)
        found = []
        for n in range(len(table)):
            agent, full = int(next_N[n]), bool(0 < self.max_calls <= count_N[n])
            price = float(self.price_ * self.costs_[agent]) if agent >= 0 else None
            gain = float(worth_N[n]) + price if price is not None and np.isfinite(worth_N[n]) else None
            words = f"it asks {self.max_calls} at most" if full else ""
            if not full and sure_N is None and (agent < 0 or not count_N[n]):
                words = "all in its order have been asked" if agent < 0 else f"it begins with {names[agent]}"
            found.append(
                Telling(
                    agent=names[agent] if agent >= 0 else None,
                    goes_on=bool(chosen_N[n] >= 0) and not full,
                    gain=gain,
                    price=price,
                    probability=None if sure_N is None or full else float(sure_N[n]),
                    words=words,
                )
            )
        return found

    def _leanings(self, world: World, state: State, chosen_N: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the likeliest agent to ask, int [N], -1 for none, and how likely the network does what it chose."""
        scores_NA = self._layers().scores(
            world.observe(state, np.full(len(chosen_N), self.price_ / self.unit_)), state.asked
        )
        stop, rows_N = state.asked.shape[1], np.arange(len(chosen_N))
        shares_NA = np.exp(scores_NA - scores_NA.max(axis=1, keepdims=True))
        likely_N = shares_NA[rows_N, np.where(chosen_N < 0, stop, chosen_N)] / shares_NA.sum(axis=1)
        return np.where(state.asked.all(axis=1), -1, scores_NA[:, :stop].argmax(axis=1)), likely_N

    def _learn_to_stop(
        self, world: World, labels_N: IntArray, worth_NK: FloatArray | None, costs_M: FloatArray
    ) -> None:
        most = self.max_calls or world.answers.shape[1]
        courses = play(
            world, labels_N, costs_M=costs_M, most=most, worth_NK=worth_NK, told=self._telling("whom to ask after whom")
        )
        self.price_ = self.price
        if self.calls:
            spent_NL = costs_M[courses.agents].cumsum(axis=1)
            rows_N = np.arange(len(labels_N))

            def spent(price: float) -> float:
                stops_N = stop_when(courses, self.unit_ * price, costs_M=costs_M)[1]
                return float(spent_NL[rows_N, stops_N - 1].mean())

            self.price_ = self.unit_ * _price_of(self.calls, spent, dearest=_DEAREST)
        self.order_, self.gains_ = stop_when(courses, self.price_, costs_M=costs_M)[0]

    def _learn_by_gradient(
        self, world: World, labels_N: IntArray, worth_NK: FloatArray | None, costs_M: FloatArray
    ) -> None:
        options = PpoOptions(updates=self.updates, prices=_PRICES, seed=self.seed)
        layers = train_policy(world, labels_N, options=options, costs_M=costs_M, worth_NK=worth_NK, run=self._run)
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

            self.price_ = self.unit_ * _price_of(self.calls, spent, dearest=_PRICES[1])

    def _telling(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._run.say(f"learning {what}", done, total)

    def _costs(self, table: PredictionTable) -> FloatArray:
        """Return what a call of each agent costs, [M], 1 for the mean."""
        if self.costs == "calls":
            return np.ones(table.num_agents)
        tokens_M = mean_tokens(table)
        return np.asarray(tokens_M / tokens_M.mean())

    def _layers(self) -> Layers:
        assert self.first_ is not None, "fitted"
        assert self.second_ is not None, "fitted"
        assert self.third_ is not None, "fitted"
        parts = self.first_, self.second_, self.third_
        weights, biases = tuple(part[:-1] for part in parts), tuple(part[-1] for part in parts)
        return Layers(weights, biases)  # type: ignore[arg-type]  # three of each


def _paper_pool(table: PredictionTable, options: MarlFocal, run: TrainingRun) -> BoolArray:
    """Return bool [M], the pool that the paper's decider comes to.

    Frozen and greedy it sees nothing of a question, and its window stays that of the last questions of fit, so that its
    pools go round in a circle, nearly always of one.
    """
    chosen = DeciderOptions(alpha=options.alpha, updates=options.updates, seed=options.seed)
    run.begin("decider", table.fingerprint, repr(chosen))
    decider = train_decider(table, options=chosen, run=run)
    recorded = Recorded.of(table, accuracies=table.accuracies)
    rows_N = np.arange(len(table))
    steps_n = np.zeros(_STEPS, dtype=np.intp)
    pools_nM = play_stream(
        decider, recorded, steps_n, weights=chosen.weights, window=chosen.window, past=rows_N, answered=False
    )
    return np.asarray(pools_nM[-1])


def _spread(table: PredictionTable, worth_NK: FloatArray) -> float:
    """Return how far the best option given is ahead of the worst on the mean question; 1 where it never is."""
    return float(advantages(table.answers, worth_NK).max(axis=1).mean()) or 1.0


def _price_of(calls: float, spent: Callable[[float], float], *, dearest: float) -> float:
    """Return the price at which so many calls are spent on average, `dearest` at most."""
    low, high = np.log(_PRICES[0]), np.log(dearest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if spent(float(np.exp(middle))) > calls:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


__all__ = ["MarlFocal"]
