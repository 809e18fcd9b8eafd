"""MARL-Focal's decider game, played by many streams at once.

A stream takes the questions in an order; before each it chooses a pool, from statistics of the pool it chose before on
the questions answered until then. The streams of a group share the order, and so the window; groups differ in it. All
step together: looking an answer up needs no simulator, so a step is a few products of matrices.

Source: MARL-Focal, Tekin et al. 2025, arXiv:2502.04492. Legend beside that of `fusion.schema`: G groups of R streams
each, B = G R streams in all, those of a group side by side; L questions in an order; H questions before them.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import UsageError
from fusion.policies._window import DiversityWeights, Recorded, Window
from fusion.policies._windows import Windows
from fusion.schema import BoolArray, FloatArray, IntArray

Order = Literal["kept", "rotated", "shuffled"]
"""In which order a stream takes the questions: that of the table; that order, from a question drawn to the one before
it; or one drawn at random. Only the first two keep near each other in the window what is so in the table."""


_AT_ONCE = 50
"""Questions of the past that enter the windows together: all would take much memory for a moment."""


def ordered(num_questions: int, order: Order, rng: np.random.Generator) -> IntArray:
    """Return the positions of all questions in an order of this kind, intp [N]."""
    if order == "shuffled":
        return rng.permutation(num_questions)
    start = int(rng.integers(num_questions)) if order == "rotated" else 0
    return np.asarray((np.arange(num_questions) + start) % num_questions)


def rewards(right_B: BoolArray, size_B: FloatArray, num_agents: int, alpha: float) -> FloatArray:
    """Return 1 where the pool is right, else -1 - alpha size / M: float32 [B]; the empty pool is wrong."""
    wrong_B = -1 - np.float32(alpha / num_agents) * size_B.astype(np.float32)
    return np.asarray(np.where(right_B, np.float32(1), wrong_B), dtype=np.float32)


def observed(pool_M: BoolArray, window: Window) -> FloatArray:
    """Return what one stream sees, float32 [M + 2]; see `Streams.observe`."""
    num_agents = len(pool_M)
    seen_D = np.empty(num_agents + 2, dtype=np.float32)
    seen_D[:num_agents] = pool_M
    seen_D[num_agents] = window.score(pool_M)
    seen_D[num_agents + 1] = np.count_nonzero(pool_M) / num_agents
    return seen_D


def opinions(table: PredictionTable) -> FloatArray:
    """Return what every agent says as probabilities of the options, float32 [N, M, K].

    Where it gave none that is 1 for its answer; where it abstained, all 0.
    """
    said_NMK = table.answers[:, :, None] == np.arange(table.max_options)
    if table.probs is None:
        return np.asarray(said_NMK, dtype=np.float32)
    given_NM1 = table.probs.any(axis=2, keepdims=True)
    return np.asarray(np.where(given_NM1, table.probs[:, :, : table.max_options], said_NMK), dtype=np.float32)


class Streams:
    """B streams that step together.

    Before the first question a stream's pool is everybody. After the last it begins anew, with the window as it is.

    Args:
        recorded: The questions.
        rows: int [G, L], the order of each group.
        per_group: R.
        alpha: What being wrong with everybody costs more than with nobody.
        weights: What a pool's score is made of.
        window: W.
        past: int [G, H], questions that were answered before, the latest last; -1 for none.

    Attributes:
        position: How many questions have been answered.
        pools: float32 [M, B], 1 for the members of each stream's pool.
    """

    def __init__(
        self,
        recorded: Recorded,
        rows: IntArray,
        *,
        per_group: int,
        alpha: float,
        weights: DiversityWeights,
        window: int = 500,
        past: IntArray | None = None,
    ) -> None:
        if not rows.size:
            raise UsageError("streams need questions, and there are none")
        self._recorded, self._rows_GL, self._per_group, self._alpha = recorded, rows, per_group, alpha
        self._windows = Windows(recorded, num_windows=len(rows), size=window, weights=weights)
        recent_GH = np.zeros((len(rows), 0), dtype=np.intp) if past is None else past[:, -window:]
        for start in range(0, recent_GH.shape[1], _AT_ONCE):
            self._windows.push(recent_GH[:, start : start + _AT_ONCE])
        self.position = 0
        self.pools: FloatArray = np.ones((recorded.answers.shape[1], len(rows) * per_group), dtype=np.float32)

    @property
    def length(self) -> int:
        """L, how many questions an order has."""
        return int(self._rows_GL.shape[1])

    @property
    def rows(self) -> IntArray:
        """Int [G], the question that is next in each group."""
        return np.asarray(self._rows_GL[:, self.position % self._rows_GL.shape[1]])

    def kept(self) -> dict[str, FloatArray | IntArray]:
        """Return all that changes from step to step, for `take`."""
        place = {"position": np.array([self.position]), "pools": self.pools}
        return {**place, **{f"window {name}": array for name, array in self._windows.kept().items()}}

    def take(self, kept: Mapping[str, FloatArray | IntArray]) -> None:
        """Go on from what `kept` returned."""
        self.position, self.pools = int(kept["position"][0]), np.array(kept["pools"])
        self._windows.take({name.removeprefix("window "): array for name, array in kept.items() if "window " in name})

    def observe(self) -> FloatArray:
        """Return what each stream sees before its next question, float32 [B, M + 2].

        Its pool, the pool's score over the window, the pool's size / M. Nothing of the question itself.
        """
        num_agents, num_streams = self.pools.shape
        seen_BD = np.empty((num_streams, num_agents + 2), dtype=np.float32)
        seen_BD[:, :num_agents] = self.pools.T
        seen_BD[:, num_agents] = self._windows.scores(self.pools)
        seen_BD[:, num_agents + 1] = self.pools.sum(axis=0) / num_agents
        return seen_BD

    def step(self, pools: BoolArray) -> FloatArray:
        """Answer the next question with these pools, bool or float [B, M]; return the rewards, float32 [B]."""
        rows_G = self.rows
        self.pools = np.ascontiguousarray(pools.T, dtype=np.float32)
        num_agents = len(self.pools)
        right_B = self._right(rows_G)
        self._windows.push(rows_G[:, None])
        self.position += 1
        return rewards(right_B, self.pools.sum(axis=0), num_agents, self._alpha)

    def _right(self, rows_G: IntArray) -> BoolArray:
        codes_M = self._recorded.codes
        if codes_M is None:
            pools_GMR = self.pools.reshape(len(self.pools), len(rows_G), self._per_group).swapaxes(0, 1)
            return self._recorded.right(rows_G, pools_GMR.astype(np.float64)).reshape(-1)
        # Exact in a float32, as there are at most 2^24 pools.
        places_B = (codes_M.astype(np.float32) @ self.pools).astype(np.intp)
        return np.asarray(self._recorded.all_right[np.repeat(rows_G, self._per_group), places_B] > 0)
