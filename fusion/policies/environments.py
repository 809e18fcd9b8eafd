"""MARL-Focal's games, and asking within one question, as environments of Gymnasium.

They play on recorded answers, so no model is called, and any library that trains on such environments can train here.
`DeciderEnv` and `DeciderVectorEnv` are one stream and many of the same game; `AggregatorEnv` is what comes after it;
`fusion.policies.focal_game` is both agents together; `AskingEnv` asks or stops within one question.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> answers, labels = [[0, 1], [1, 1]], [0, 1]
    >>> table = PredictionTable(question_ids=["q0", "q1"], agents=["ann", "bob"], answers=answers, labels=labels)
    >>> env = DeciderEnv(table, alpha=1.0, order="kept")
    >>> env.reset()[0].tolist()
    [1.0, 1.0, 0.0, 1.0]
    >>> observation, reward, *_ = env.step(np.array([0, 1]))
    >>> observation.tolist(), float(reward)
    ([0.0, 1.0, 0.0, 0.5], -1.5)
"""

from typing import Any

import numpy as np

from fusion.data import PredictionTable, category_names
from fusion.errors import InvalidTable, MissingDependency, TableMismatch, UsageError
from fusion.policies._streams import Order, Streams, observed, opinions, ordered
from fusion.policies._window import DiversityWeights, Recorded, Window
from fusion.policies._world import World
from fusion.schema import FloatArray, Selection

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.utils import seeding
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as error:
    raise MissingDependency("gymnasium", purpose="an environment to train in", extra="marl") from error

Seen = np.typing.NDArray[Any]
"""Float32."""
Chosen = np.typing.NDArray[np.int8]
Infos = dict[str, Any]
_DEFAULT = DiversityWeights()
_SMALLEST_PRICE = 1e-6


class DeciderEnv(gymnasium.Env[Seen, Chosen]):
    """The decider of MARL-Focal: before every question it chooses a pool, from how past questions went.

    An episode is one pass over the questions. Observation, float32 [M + 2]: the pool chosen before (everybody at
    first), its score over the window of questions answered (0 at first), its size / M. Action: int8 [M], 1 for the
    members. Reward: 1 where the plurality of the pool is right, else -1 - alpha size / M. `info["right"]` says which.

    Args:
        table: Labelled questions.
        alpha: What being wrong with everybody costs more than with nobody.
        weights: What a pool's score is made of.
        window: Answered questions that it is taken over.
        accuracies: float [M], by which ties of a vote are settled, known before the stream begins: those of
            `fusion.fusers.vote` where that was fitted. By default the agent that comes first settles them.
        order: In which order an episode takes the questions.
        seed: Of the orders, until a reset gives another.

    Raises:
        InvalidTable: When the table has no labels or no questions.
    """

    def __init__(
        self,
        table: PredictionTable,
        *,
        alpha: float,
        weights: DiversityWeights = _DEFAULT,
        window: int = 500,
        accuracies: FloatArray | None = None,
        order: Order = "rotated",
        seed: int | None = None,
    ) -> None:
        self._recorded = _recorded(table, accuracies)
        self._alpha, self._weights, self._size, self._order = alpha, weights, window, order
        self.observation_space, self.action_space = _decider_spaces(table.num_agents)
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Seen, Infos]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._rows = ordered(len(self._recorded.labels), self._order, self.np_random)
        self._window = Window(self._recorded, size=self._size, weights=self._weights)
        self._position, self.pool = 0, np.ones(self._recorded.answers.shape[1], dtype=bool)
        return self.observed(), {}

    def step(self, action: Chosen) -> tuple[Seen, float, bool, bool, Infos]:
        """Answer the next question with the pool `action`."""
        row, self.pool = int(self._rows[self._position]), np.asarray(action) > 0
        right = self._recorded.is_right(row, self.pool)
        self._window.push(row)
        self._position += 1
        share = np.count_nonzero(self.pool) / len(self.pool)
        reward = 1.0 if right else -1.0 - self._alpha * share
        over = self._position == len(self._rows)
        return self.observed(), reward, over, False, {"right": right}

    @property
    def next_row(self) -> int | None:
        """The position in the table of the question that is next; None after the last."""
        return int(self._rows[self._position]) if self._position < len(self._rows) else None

    def observed(self) -> Seen:
        """Return what is seen before the next question."""
        return observed(self.pool, self._window).astype(np.float32)


class DeciderVectorEnv(VectorEnv[Seen, Chosen, np.typing.NDArray[Any]]):
    """Many streams of `DeciderEnv` that step together, as products of matrices.

    With as many groups as environments, which is the default, it does what as many `DeciderEnv` do that are seeded with
    seed, seed + 1, ...; fewer groups share orders and windows, and are faster. All streams end at once; the step after
    that begins the next episodes (`AutoresetMode.NEXT_STEP`).

    Args:
        table: Labelled questions.
        num_envs: Streams.
        groups: Orders of the questions among them, as many streams in each; 0 for as many as streams.
        alpha, weights, window, accuracies, order, seed: As in `DeciderEnv`.

    Raises:
        InvalidTable: When the table has no labels or no questions.
        UsageError: When `groups` does not divide `num_envs`.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 - Gymnasium's own way

    def __init__(
        self,
        table: PredictionTable,
        num_envs: int,
        *,
        alpha: float,
        groups: int = 0,
        weights: DiversityWeights = _DEFAULT,
        window: int = 500,
        accuracies: FloatArray | None = None,
        order: Order = "rotated",
        seed: int | None = None,
    ) -> None:
        groups = groups or num_envs
        if num_envs < 1 or num_envs % groups:
            raise UsageError(f"groups share the environments evenly; got {groups} groups for {num_envs}")
        self.num_envs, self._num_groups = num_envs, groups
        self._recorded = _recorded(table, accuracies)
        self._alpha, self._weights, self._size, self._order = alpha, weights, window, order
        self.single_observation_space, self.single_action_space = _decider_spaces(table.num_agents)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seed(seed)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Seen, Infos]:
        """Begin an episode in every stream."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed(seed)
        rows = [ordered(len(self._recorded.labels), self._order, rng) for rng in self._rngs]
        self._streams = Streams(
            self._recorded,
            np.stack(rows),
            per_group=self.num_envs // self._num_groups,
            alpha=self._alpha,
            weights=self._weights,
            window=self._size,
        )
        return self._streams.observe(), {}

    def step(
        self, actions: Chosen
    ) -> tuple[Seen, "np.typing.NDArray[Any]", "np.typing.NDArray[Any]", "np.typing.NDArray[Any]", Infos]:
        """Answer the next question in every stream, or begin anew where the episodes are over."""
        never_B = np.zeros(self.num_envs, dtype=bool)
        if self._streams.position == self._streams.length:
            seen, infos = self.reset()
            return seen, np.zeros(self.num_envs), never_B, never_B.copy(), infos
        reward_B = self._streams.step(np.asarray(actions) > 0).astype(np.float64)
        over_B = np.full(self.num_envs, self._streams.position == self._streams.length)
        infos = {"right": reward_B > 0, "_right": ~never_B}
        return self._streams.observe(), reward_B, over_B, never_B, infos

    def _seed(self, seed: int | None) -> None:
        self._rngs = [seeding.np_random(None if seed is None else seed + g)[0] for g in range(self._num_groups)]


class AggregatorEnv(gymnasium.Env[Seen, np.int64]):
    """The aggregator of MARL-Focal: it answers each question, from what the members of a pool say.

    An episode is one pass over the questions. Observation, float32 [M K]: probabilities that the members give the
    options, 1 for the answer of one that gives none, 0 for all others; all 0 after the last question. Action: an
    option. Reward: 1 where it is right, else -1. `info["right"]` says which.

    Args:
        table: Labelled questions.
        selection: Who is listened to on each; by default everybody.
        order: In which order an episode takes the questions.
        seed: Of the orders, until a reset gives another.

    Raises:
        InvalidTable: When the table has no labels or no questions.
        TableMismatch: When the selection is of another shape than the answers.
    """

    def __init__(
        self,
        table: PredictionTable,
        *,
        selection: Selection | None = None,
        order: Order = "rotated",
        seed: int | None = None,
    ) -> None:
        _require_questions(table)
        if selection is not None and selection.mask.shape != table.answers.shape:
            shapes = f"{list(selection.mask.shape)}, the answers {list(table.answers.shape)}"
            raise TableMismatch(f"a selection says of each question whom to listen to; it is {shapes}")
        self._labels, self._order = table.require_labels(), order
        self._said = opinions(table)
        if selection is not None:
            self._said *= selection.mask[:, :, None]
        self.observation_space, self.action_space = aggregator_spaces(table)
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Seen, Infos]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._rows, self._position = ordered(len(self._labels), self._order, self.np_random), 0
        return self._observed(), {}

    def step(self, action: np.int64) -> tuple[Seen, float, bool, bool, Infos]:
        """Answer the question."""
        right = bool(self._labels[self._rows[self._position]] == action)
        self._position += 1
        over = self._position == len(self._rows)
        return self._observed(), 1.0 if right else -1.0, over, False, {"right": right}

    def _observed(self) -> Seen:
        if self._position == len(self._rows):
            return np.zeros(self.observation_space.shape or (), dtype=np.float32)
        return np.array(self._said[self._rows[self._position]].reshape(-1), dtype=np.float32)


class AskingEnv(gymnasium.Env[Seen, np.int64]):
    """Asking one agent after another, or stopping, within one question: `fusion.policies.World`, one episode at a time.

    An episode is one question, drawn at random. Observation: `World.observe`. Action: an agent to ask, or M to stop and
    take the likeliest option. Reward: 1 for stopping where that is right, less the price of every call. To ask somebody
    again costs a call and tells nothing; after `max_calls` calls it stops by itself. `info["action_mask"]`, int8
    [M + 1], is 1 for what is worth doing; `info["calls"]` counts.

    What answers mean is learned from the table itself, for each question from the others.

    Args:
        table: Labelled questions.
        price: Accuracy that a call has to be worth, above 0 and at most 1.
        max_calls: Most calls for a question; 0 for as many as there are agents.
        seed: Of what answers mean, and of the questions until a reset gives another.

    Raises:
        InvalidTable: When the table has no labels or no questions.
        UsageError: When the price is outside its range.
    """

    def __init__(self, table: PredictionTable, *, price: float, max_calls: int = 0, seed: int = 0) -> None:
        _require_questions(table)
        if not _SMALLEST_PRICE <= price <= 1:
            raise UsageError(f"the price of a call is {_SMALLEST_PRICE:g} to 1, in accuracy; got {price:g}")
        categories = category_names(table)
        self._world, self._labels = World.to_learn_from(table, categories, seed=seed), table.require_labels()
        self._price, self._stop = np.array([price]), table.num_agents
        self._most = max_calls or table.num_agents
        width = self._world.observe(self._world.begin(np.zeros(1, dtype=np.intp)), self._price).shape[1]
        most = max(table.num_agents, table.max_options, 4)
        self.observation_space = spaces.Box(-np.float32(most), np.float32(most), (width,), np.float32)
        self.action_space = spaces.Discrete(table.num_agents + 1)
        self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Seen, Infos]:
        """Begin with another question."""
        super().reset(seed=seed)
        self._state = self._world.begin(self.np_random.integers(len(self._labels), size=1))
        self._calls = 0
        return self._observed(), self._info()

    def step(self, action: np.int64) -> tuple[Seen, float, bool, bool, Infos]:
        """Ask, or stop."""
        stops, reward = int(action) == self._stop, 0.0
        if not stops:
            self._calls += 1
            reward -= float(self._price[0])
            if not self._state.asked[0, action]:
                self._world.ask(self._state, np.array([action]))
            stops = self._calls >= self._most
        if stops:
            label = self._labels[self._state.rows[0]]
            reward += float(label >= 0 and self._world.likeliest(self._state)[0] == label)
        return self._observed(), reward, stops, False, self._info()

    def _observed(self) -> Seen:
        return np.asarray(self._world.observe(self._state, self._price)[0], dtype=np.float32)

    def _info(self) -> Infos:
        asked_M = self._state.asked[0]
        return {"action_mask": np.append(~asked_M, asked_M.any()).astype(np.int8), "calls": self._calls}


def _require_questions(table: PredictionTable) -> None:
    table.require_labels()
    if not len(table):
        raise InvalidTable("an episode is played on questions; the table is empty")


def _recorded(table: PredictionTable, accuracies: FloatArray | None) -> Recorded:
    _require_questions(table)
    return Recorded.of(table, accuracies=accuracies)


def _decider_spaces(num_agents: int) -> tuple[spaces.Box, spaces.MultiBinary]:
    low_D, high_D = np.zeros(num_agents + 2, dtype=np.float32), np.ones(num_agents + 2, dtype=np.float32)
    low_D[num_agents] = -1
    return spaces.Box(low_D, high_D, dtype=np.float32), spaces.MultiBinary(num_agents)


def aggregator_spaces(table: PredictionTable) -> tuple[spaces.Box, spaces.Discrete]:
    """Return what an aggregator sees, and what it can do."""
    size = table.num_agents * table.max_options
    # Float32 shares may round to a little more than 1.
    return spaces.Box(np.float32(0), np.float32(1.001), (size,), np.float32), spaces.Discrete(table.max_options)
