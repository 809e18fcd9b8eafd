"""MARL-Focal as it was published, learned from many streams at once: a decider of pools, and an aggregator of options.

The decider is linear(M + 2, 128), ReLU, and M two-way heads. A softmax over two scores is a logistic of their
difference, so a head is one score here. The aggregator is an MLP (100, 100) over the members' probabilities. Both are
learned by proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) with the paper's clip of 0.2, Adam and
learning rate of 1e-3.

Deviations from MARL-Focal (Tekin et al. 2025, arXiv:2502.04492) and its public code:

* The ratio is taken against the probabilities under which the actions were drawn; in the code it is always 1.
* There is a value baseline. Streams of a group answer the same question with different pools, so their mean return is
  taken off as well: how hard a question is says nothing about a pool.
* The aggregator explores by drawing its answers; the code reinforces the likeliest. By default its gamma is 0: what the
  next questions bring does not depend on this answer. The paper's is 0.5.
* The best weights are kept as a copy, by questions that are never trained on, every tenth block of them.
* Learned weights are acted on greedily, and nothing is learned any more.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import InvalidTable, UsageError
from fusion.policies._run import TrainingRun
from fusion.policies._streams import Order, Streams, observed, opinions, ordered
from fusion.policies._window import DiversityWeights, Recorded, Window
from fusion.schema import BoolArray, FloatArray, IntArray

_HIDDEN, _INNER = 128, (100, 100)
_TENTH = 10
_BLOCK = 100
"""Questions in a block, about, of which every tenth is for validation."""


class Decider(NamedTuple):
    """Weights of a decider.

    Attributes:
        hidden: float32 [M + 2, H]. hidden_bias: float32 [H].
        heads: float32 [H, M]. heads_bias: float32 [M].
    """

    hidden: FloatArray
    hidden_bias: FloatArray
    heads: FloatArray
    heads_bias: FloatArray

    @classmethod
    def of(cls, weights: Sequence[FloatArray], biases: Sequence[FloatArray]) -> Self:
        """Return the decider of two layers."""
        return cls(weights[0], biases[0], weights[1], biases[1])

    def choose_pools(self, seen: FloatArray) -> BoolArray:
        """Return who is more likely in the pool than not, bool [B, M], from what B streams see, float [B, M + 2].

        Where that is nobody, which is always wrong, it is the likeliest.
        """
        inner = np.maximum(seen @ self.hidden + self.hidden_bias, 0)
        scores = inner @ self.heads + self.heads_bias
        return np.asarray(scores >= np.minimum(scores.max(axis=1, keepdims=True), 0))


class Aggregator(NamedTuple):
    """Weights of an aggregator.

    Attributes:
        weights: float32 [M K, 100], [100, 100], [100, K].
        biases: float32 [100], [100], [K].
    """

    weights: tuple[FloatArray, FloatArray, FloatArray]
    biases: tuple[FloatArray, FloatArray, FloatArray]

    @classmethod
    def of(cls, weights: Sequence[FloatArray], biases: Sequence[FloatArray]) -> Self:
        """Return the aggregator of three layers."""
        return cls((weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2]))

    def choose_options(self, seen: FloatArray) -> IntArray:
        """Return the likeliest option, int [B], from what the members say, float [B, M K]."""
        inner = seen
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inner = np.maximum(inner @ weight + bias, 0)
        return np.asarray((inner @ self.weights[-1] + self.biases[-1]).argmax(axis=1))


@dataclass(frozen=True, kw_only=True)
class DeciderOptions:
    """How a decider is trained; the game first, then how it is learned.

    Args:
        alpha: What being wrong with everybody costs more than with nobody.
        weights: What a pool's score is made of.
        window: Answered questions that it is taken over.
        updates: At most; every one plays `streams` x `horizon` questions.
        streams: Streams that step together.
        groups: Orders of the questions among them; divides `streams`.
        horizon: Questions of each stream between updates.
        passes: Over what was played, in every update; the weights change a few times in each.
        order: In which order a group takes the questions.
        gamma: Discount of what later questions bring.
        entropy: Weight of the entropy bonus at the beginning; it falls to 0.
        learning_rate: Of Adam.
        patience: Looks at the validation questions, one every fifth update, without a better one before it ends.
        seed: Of weights, orders and draws.

    Raises:
        UsageError: When `groups` does not divide `streams`.
    """

    alpha: float = 1.0
    weights: DiversityWeights = field(default_factory=DiversityWeights)
    window: int = 500
    updates: int = 100
    streams: int = 4096
    groups: int = 64
    horizon: int = 8
    passes: int = 2
    order: Order = "rotated"
    gamma: float = 0.99
    entropy: float = 0.01
    learning_rate: float = 1e-3
    patience: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.streams % self.groups:
            raise UsageError(f"groups share the streams evenly; got {self.groups} groups for {self.streams} streams")


@dataclass(frozen=True, kw_only=True)
class AggregatorOptions:
    """How an aggregator is trained.

    Args:
        updates: At most; every one answers all questions once, with options that are drawn.
        passes: Over these, in every update.
        batch: Questions that a gradient is taken of.
        gamma: Discount of what later questions bring.
        entropy: Weight of the entropy bonus at the beginning; it falls to 0.
        learning_rate: Of Adam.
        patience: Looks at the validation questions, one every fifth update, without a better one before it ends.
        seed: Of weights and draws.
    """

    updates: int = 200
    passes: int = 2
    batch: int = 512
    gamma: float = 0.0
    entropy: float = 0.01
    learning_rate: float = 1e-3
    patience: int = 8
    seed: int = 0


class Parts(NamedTuple):
    """Questions to train on, int [n], and blocks of consecutive ones to validate on, int [G, L]."""

    train: IntArray
    held: IntArray

    @classmethod
    def of(cls, num_questions: int) -> Self:
        """Part questions, in the order in which they stand; fewer than ten cannot be parted and are both."""
        rows_N = np.arange(num_questions)
        if num_questions < _TENTH:
            return cls(rows_N, rows_N[None, :])
        num_blocks = _TENTH * max(num_questions // (_TENTH * _BLOCK), 1)
        size = num_questions // num_blocks
        block_N = rows_N // size
        held_N = (block_N % _TENTH == _TENTH - 1) & (block_N < num_blocks)
        return cls(rows_N[~held_N], rows_N[held_N].reshape(-1, size))


def train_decider(table: PredictionTable, *, options: DeciderOptions, run: TrainingRun | None = None) -> Decider:
    """Train a decider on a labelled table.

    Ties of a vote are settled by the agents' accuracies on it, as `fusion.fusers.vote` does after fit.

    Args:
        table: What is learned from.
        options: How.
        run: Told of every update, and keeps it: from one that has begun with the same marks it goes on.

    Raises:
        InvalidTable: When the table has no labels or questions.
        MissingDependency: When torch is not installed.
    """
    from fusion.policies._paper_learner import Learner, learned
    from fusion.policies._paper_net import Net, adam, improve, play, seeded

    recorded = Recorded.of(table, accuracies=table.accuracies)
    parts = Parts.of(len(table))
    draws, rng = seeded(options.seed), np.random.default_rng(options.seed)
    orders = [parts.train[ordered(len(parts.train), options.order, rng)] for _ in range(options.groups)]
    streams, held = training_game(recorded, np.stack(orders), options), held_game(recorded, parts, options)
    net = Net((table.num_agents + 2, _HIDDEN, table.num_agents), draws)
    optimizer = adam(net, options.learning_rate)

    def learn(entropy: float) -> dict[str, float]:
        played = play(net, streams, options.horizon, draws)
        improve(
            net,
            optimizer,
            played,
            groups=options.groups,
            gamma=options.gamma,
            passes=options.passes,
            entropy=entropy,
            draws=draws,
        )
        return {"reward": float(played.reward.mean()), "pool": float(played.chosen.sum(dim=2).mean())}

    def looked_at() -> float:
        return mean_reward(Decider.of(*net.weights()), held, recorded)

    learner = Learner(net, optimizer, draws, streams)
    found = learned(learner, learn, looked_at, what="training the decider", ways=options, run=run or TrainingRun())
    return Decider.of(*found)


def train_aggregator(
    table: PredictionTable, pools: BoolArray, *, options: AggregatorOptions, run: TrainingRun | None = None
) -> Aggregator:
    """Train an aggregator on a labelled table, with the pools that a frozen decider chose.

    Args:
        table: What is learned from.
        pools: bool [N, M], who is listened to.
        options: How.
        run: Told of every update, and keeps it: from one that has begun with the same marks it goes on.

    Raises:
        InvalidTable: When the table has no labels or questions.
        UsageError: When the pools are of another shape than the answers.
        MissingDependency: When torch is not installed.
    """
    from fusion.policies._paper_learner import Learner, learned
    from fusion.policies._paper_net import Net, adam, answer, seeded

    labels_N = table.require_labels()
    if not len(table):
        raise InvalidTable("an aggregator learns from questions; the table is empty")
    if pools.shape != table.answers.shape:
        raise UsageError(f"pools say of each question who is in: {list(table.answers.shape)}, got {list(pools.shape)}")
    draws = seeded(options.seed)
    seen_ND = (opinions(table) * pools[:, :, None]).reshape(len(table), -1)
    parts = Parts.of(len(table))
    held_n = parts.held.reshape(-1)
    net = Net((seen_ND.shape[1], *_INNER, table.max_options), draws)
    optimizer = adam(net, options.learning_rate)
    trained = seen_ND[parts.train], labels_N[parts.train]

    def learn(entropy: float) -> dict[str, float]:
        reward = answer(
            net,
            optimizer,
            trained,
            batch=options.batch,
            gamma=options.gamma,
            passes=options.passes,
            entropy=entropy,
            draws=draws,
        )
        return {"reward": reward}

    def looked_at() -> float:
        options_n = Aggregator.of(*net.weights()).choose_options(seen_ND[held_n])
        return float((options_n == labels_N[held_n]).mean())

    learner = Learner(net, optimizer, draws)
    found = learned(learner, learn, looked_at, what="training the aggregator", ways=options, run=run or TrainingRun())
    return Aggregator.of(*found)


def training_game(recorded: Recorded, rows_GL: IntArray, options: DeciderOptions) -> Streams:
    """Return the streams that are learned from; their windows begin with the questions that end each order."""
    return Streams(
        recorded,
        rows_GL,
        per_group=options.streams // options.groups,
        alpha=options.alpha,
        weights=options.weights,
        window=options.window,
        past=rows_GL[:, max(rows_GL.shape[1] - options.window, 1) :],
    )


def held_game(recorded: Recorded, parts: Parts, options: DeciderOptions) -> Streams:
    """Return one stream for each block of validation questions, after the questions that stand before it."""
    before_GW = parts.held[:, :1] - np.arange(options.window, 0, -1)
    return Streams(
        recorded,
        parts.held,
        per_group=1,
        alpha=options.alpha,
        weights=options.weights,
        window=options.window,
        past=np.maximum(before_GW, -1),
    )


def mean_reward(decider: Decider, streams: Streams, recorded: Recorded) -> float:
    """Return the mean reward of a decider that acts greedily on every question of streams, which stay as they are."""
    own = copy.deepcopy(streams, {id(recorded): recorded})
    found = [own.step(decider.choose_pools(own.observe())).mean() for _ in range(own.length)]
    return float(np.mean(found))


def play_stream(
    decider: Decider,
    recorded: Recorded,
    rows: IntArray,
    *,
    weights: DiversityWeights,
    window: int = 500,
    past: IntArray | None = None,
    answered: bool = True,
) -> BoolArray:
    """Return the pools that a decider chooses for questions one after another, bool [n, M], greedily.

    Args:
        decider: Who decides; it does not learn.
        recorded: The questions.
        rows: int [n], which, in their order.
        weights: What a pool's score is made of.
        window: W.
        past: int [H], questions answered before, the latest last.
        answered: Whether a question enters the window once it is over, so that its label is used; else the window
            stays as the past has left it.
    """
    seen_window = Window(recorded, size=window, weights=weights)
    for row in [] if past is None else past[-window:]:
        seen_window.push(int(row))
    num_agents = recorded.answers.shape[1]
    pool_M, pools_nM = np.ones(num_agents, dtype=bool), np.zeros((len(rows), num_agents), dtype=bool)
    for n, row in enumerate(rows):
        pool_M = decider.choose_pools(observed(pool_M, seen_window)[None])[0]
        pools_nM[n] = pool_M
        if answered:
            seen_window.push(int(row))
    return pools_nM
