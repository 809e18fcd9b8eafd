"""Both agents of MARL-Focal in one game, as an environment of PettingZoo."""

from typing import Any

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import MissingDependency
from fusion.policies._streams import Order, opinions
from fusion.policies._window import DiversityWeights
from fusion.policies.environments import DeciderEnv, Infos, Seen, aggregator_spaces
from fusion.schema import FloatArray

try:
    from gymnasium import spaces
    from pettingzoo import ParallelEnv  # type: ignore[import-untyped]  # has no types
except ModuleNotFoundError as error:
    raise MissingDependency("pettingzoo", purpose="a game of two agents", extra="marl") from error

_DEFAULT = DiversityWeights()


class FocalGame(ParallelEnv):  # type: ignore[misc]  # PettingZoo has no types
    """Both agents of MARL-Focal; made by `focal_game`."""

    metadata: dict[str, Any] = {"name": "focal_game_v0", "render_modes": []}  # noqa: RUF012 - PettingZoo's own way

    def __init__(self, decider: DeciderEnv, table: PredictionTable) -> None:
        self.possible_agents = ["decider", "aggregator"]
        self.agents: list[str] = []
        self._decider, self._said, self._labels = decider, opinions(table), table.require_labels()
        heard, answers = aggregator_spaces(table)
        self.observation_spaces = {"decider": decider.observation_space, "aggregator": heard}
        self.action_spaces = {"decider": decider.action_space, "aggregator": answers}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return what an agent can do."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Infos | None = None) -> tuple[dict[str, Seen], dict[str, Infos]]:
        """Begin an episode."""
        self.agents = list(self.possible_agents)
        seen, _ = self._decider.reset(seed=seed)
        self._open: int | None = None
        return {"decider": seen, "aggregator": self._heard()}, {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Seen], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Infos]]:
        """Let the aggregator answer the question that is open, and the decider choose a pool for the next one."""
        earned, infos = dict.fromkeys(self.agents, 0.0), {agent: Infos() for agent in self.agents}
        over = self._decider.next_row is None
        if self._open is not None:
            right = bool(self._labels[self._open] == actions["aggregator"])
            earned["aggregator"], infos["aggregator"] = (1.0 if right else -1.0), {"right": right}
        self._open, seen = self._decider.next_row, self._decider.observed()
        if self._open is not None:
            seen, earned["decider"], _, _, infos["decider"] = self._decider.step(actions["decider"])
        heard = {"decider": seen, "aggregator": self._heard()}
        ended, cut = dict.fromkeys(self.agents, over), dict.fromkeys(self.agents, False)
        if over:
            self.agents = []
        return heard, earned, ended, cut, infos

    def render(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Hold nothing open."""

    def _heard(self) -> Seen:
        if self._open is None:
            return np.zeros(self.observation_spaces["aggregator"].shape or (), dtype=np.float32)
        said_MK = self._said[self._open] * self._decider.pool[:, None]
        return np.asarray(said_MK.reshape(-1), dtype=np.float32)


def focal_game(
    table: PredictionTable,
    *,
    alpha: float,
    weights: DiversityWeights = _DEFAULT,
    window: int = 500,
    accuracies: FloatArray | None = None,
    order: Order = "rotated",
    seed: int | None = None,
) -> FocalGame:
    """Return the game of both agents of MARL-Focal, as a parallel environment of PettingZoo.

    Of every question the decider chooses the pool, then the aggregator the answer. Nothing that the decider sees
    depends on the aggregator, so they act together, one question apart: in step t the decider chooses for question t
    and the aggregator answers question t - 1. In the first step there is nothing to answer yet (it sees zeros), in the
    last nothing to choose: what is done there counts for nothing, and an episode takes N + 1 steps. Observations,
    actions and rewards are those of `DeciderEnv` and `AggregatorEnv`.

    Args:
        table: Labelled questions.
        alpha: This and all others: as in `DeciderEnv`.
        weights: What a pool's score is made of.
        window: Answered questions that it is taken over.
        accuracies: float [M], by which ties of a vote are settled.
        order: In which order an episode takes the questions.
        seed: Of the orders, until a reset gives another.

    Raises:
        InvalidTable: When the table has no labels or no questions.
    """
    decider = DeciderEnv(
        table, alpha=alpha, weights=weights, window=window, accuracies=accuracies, order=order, seed=seed
    )
    return FocalGame(decider, table)
