"""The scores of `fusion.policies._window` for many pools on some windows at once, by products of matrices.

What a pool needs of a window is polynomial in who is in it, so the questions are counted once for all pools, in the
integers

    F_ij   on how many questions i and j both fail         T_ijk   on how many i, j and k all fail
    A_ij   on how many i and j say the same                C_ci    how often i says c, or abstains

With p the pool's 0/1 vector and S its size, focal diversity is the mean over its members of
1 - (sum_jk T_ijk p_j p_k / sum_j F_ij p_j - 1) / (S - 1), which is rho_i of `fusion.diversity.focal_diversities`. All
sums are of integers that a float32 holds exactly.

Legend beside that of `fusion.schema`: G windows, W questions in each, H questions that enter at once, R pools on each
window and B = G R in all, P pairs of agents, C = K + 1 things to say (row 0: nothing).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fusion.diversity import PairCounts
from fusion.policies._window import PAIRWISE, DiversityWeights, Recorded, check_window
from fusion.schema import FloatArray, IntArray

_COUNTED = "rows_GW", "held_G", "failures", "triples", "agreements", "said", "wrong", "right"


class _Change(NamedTuple):
    """What enters and leaves G windows: rows int [G, n], and float32 [G, 1, n], 1, -1, or 0 for nothing."""

    rows: IntArray
    signs: FloatArray


class Windows:
    """G windows side by side, each over an order of the questions of its own, of which many pools are scored at once.

    Only what the weights ask for is counted.

    Args:
        recorded: The questions that can enter.
        num_windows: G.
        size: W.
        weights: What is scored.
    """

    def __init__(self, recorded: Recorded, *, num_windows: int, size: int = 500, weights: DiversityWeights) -> None:
        num_agents = recorded.answers.shape[1]
        check_window(size, num_agents)
        self._recorded, self._weights, self._total = recorded, weights, weights.total
        self._entered = 0
        self._rows_GW = np.full((num_windows, size), -1, dtype=np.intp)
        self._held_G = np.zeros(num_windows)

        def counts(*shape: int) -> FloatArray:
            return np.zeros((num_windows, *shape), dtype=np.float32)

        firsts, seconds = np.triu_indices(num_agents)
        self._pairs = firsts, seconds, np.where(firsts == seconds, 1, 2).astype(np.float32)
        self._failures = counts(num_agents, num_agents)
        self._triples = counts(num_agents, len(firsts))
        self._agreements = counts(num_agents, num_agents)
        self._said = counts(recorded.num_options + 1, num_agents)
        self._wrong = counts(size, num_agents) if weights.entropy else counts(0, 0)
        self._right = counts(1 << num_agents) if weights.plurality and recorded.codes is not None else counts(0)

    def push(self, rows_GH: IntArray) -> None:
        """Let questions enter, H for every window, and the oldest leave where it is full; -1 stands for none."""
        size, steps = self._rows_GW.shape[1], rows_GH.shape[1]
        slots_H = (self._entered + np.arange(steps)) % size
        leaving_GH = self._rows_GW[:, slots_H if self._entered + steps > size else slots_H[:0]]
        rows = np.concatenate([rows_GH, leaving_GH], axis=1)
        signs = (rows >= 0).astype(np.float32)
        signs[:, steps:] *= -1
        self._held_G += signs.sum(axis=1)
        self._rows_GW[:, slots_H] = rows_GH
        self._entered += steps
        change = _Change(rows, signs[:, None, :])
        wrong = self._recorded.wrong[rows]
        if self._weights.entropy:
            self._wrong[:, slots_H] = wrong[:, :steps] * (rows_GH >= 0)[:, :, None]
        if self._weights.focal or self._weights.pairwise:
            self._count_failures(wrong, change)
        if self._weights.fleiss_kappa:
            self._count_answers(change)
        if len(self._right[0]):
            self._right += (change.signs @ self._recorded.all_right[rows])[:, 0]

    def kept(self) -> dict[str, FloatArray | IntArray]:
        """Return all that changes as questions enter, for `take`."""
        return {"entered": np.array([self._entered]), **{name: getattr(self, f"_{name}") for name in _COUNTED}}

    def take(self, kept: Mapping[str, FloatArray | IntArray]) -> None:
        """Go on from what `kept` returned."""
        self._entered = int(kept["entered"][0])
        for name in _COUNTED:
            setattr(self, f"_{name}", np.array(kept[name]))

    def scores(self, pools_MB: FloatArray) -> FloatArray:
        """Return the scores of pools, float64 [B], in [-1, 1].

        Args:
            pools_MB: float32, 1 for the members; the first B / G pools are scored on the first window, and so on.
        """
        num_windows = len(self._held_G)
        num_agents, weights = len(pools_MB), self._weights
        pools_GMR = pools_MB.reshape(num_agents, num_windows, -1).swapaxes(0, 1)
        size_GR = pools_GMR.sum(axis=1, dtype=np.float64)
        found_GR = np.zeros(size_GR.shape)
        if weights.focal:
            found_GR += weights.focal * self._focal(pools_MB, size_GR)
        if weights.fleiss_kappa:
            found_GR -= weights.fleiss_kappa * self._fleiss_kappa(pools_GMR, size_GR)
        for name, weight in weights.pairwise.items():
            matrix, sign = PAIRWISE[name]
            found_GR += sign * weight * self._over_pairs(matrix, pools_GMR, size_GR)
        if weights.entropy:
            failing_GWR = self._wrong @ pools_GMR
            split_GR = np.minimum(failing_GWR, size_GR[:, None] - failing_GWR).sum(axis=1)
            found_GR += (
                weights.entropy * split_GR / (np.maximum(self._held_G, 1)[:, None] * np.maximum(size_GR // 2, 1))
            )
        found_GR[size_GR < 2] = 0
        if weights.plurality:
            found_GR += weights.plurality * self._plurality(pools_GMR) / np.maximum(self._held_G, 1)[:, None]
        found_GR[self._held_G == 0] = 0
        return np.asarray(found_GR.reshape(-1) / self._total)

    def _focal(self, pools_MB: FloatArray, size_GR: FloatArray) -> FloatArray:
        num_agents = len(pools_MB)
        num_windows = len(size_GR)
        both_PB = np.empty((len(self._pairs[0]), pools_MB.shape[1]), dtype=np.float32)
        start = 0
        for j in range(num_agents):
            end = start + num_agents - j
            np.multiply(pools_MB[j], pools_MB[j:], out=both_PB[start:end])
            start = end
        pools_GMR = pools_MB.reshape(num_agents, num_windows, -1).swapaxes(0, 1)
        twice_GMR = self._triples @ both_PB.reshape(len(both_PB), num_windows, -1).swapaxes(0, 1)
        once_GMR = self._failures @ pools_GMR
        # An agent that never fails has rho = 1, as if the two were equal.
        never_GMR = once_GMR == 0
        twice_GMR += never_GMR
        once_GMR += never_GMR
        share_GR = (np.divide(twice_GMR, once_GMR, dtype=np.float64) * pools_GMR).sum(axis=1)
        return np.asarray((size_GR - share_GR / np.maximum(size_GR, 1)) / np.maximum(size_GR - 1, 1))

    def _fleiss_kappa(self, pools_GMR: FloatArray, size_GR: FloatArray) -> FloatArray:
        total_GR = self._held_G[:, None] * size_GR
        pairs_GR = size_GR * (size_GR - 1) / 2
        agreed_GR = ((self._agreements @ pools_GMR) * pools_GMR).sum(axis=1, dtype=np.float64)
        same_GR = (agreed_GR - total_GR) / 2
        said_GCR = (self._said @ pools_GMR).astype(np.float64)
        chance_GR = (said_GCR * said_GCR).sum(axis=1)
        most_GR = (total_GR * total_GR - chance_GR) * pairs_GR
        kappa_GR: FloatArray = np.divide(
            same_GR * total_GR * size_GR - chance_GR * pairs_GR, most_GR, out=np.zeros(most_GR.shape), where=most_GR > 0
        )
        return kappa_GR

    def _over_pairs(
        self, matrix: Callable[[PairCounts], FloatArray], pools_GMR: FloatArray, size_GR: FloatArray
    ) -> FloatArray:
        """Return the mean of a measure's matrix over the pairs in each pool, [G, R]."""
        held_G11 = self._held_G.astype(np.int64)[:, None, None]
        counts = PairCounts.from_failures(self._failures.astype(np.int64), num_questions=0)
        counts = counts._replace(both_right=counts.both_right + held_G11)
        with np.errstate(invalid="ignore"):  # an empty window, of which nothing is scored
            values_GMM = np.nan_to_num(matrix(counts)) * (1 - np.eye(pools_GMR.shape[1]))
        inside_GR = ((values_GMM @ pools_GMR) * pools_GMR).sum(axis=1)
        return np.asarray(inside_GR / np.maximum(size_GR * (size_GR - 1), 1))

    def _plurality(self, pools_GMR: FloatArray) -> FloatArray:
        """Return on how many questions each pool's plurality is right, [G, R]."""
        codes_M = self._recorded.codes
        if codes_M is not None:
            places_GR = np.tensordot(codes_M, pools_GMR, axes=(0, 1)).astype(np.intp)
            return np.asarray(np.take_along_axis(self._right, places_GR, axis=1), dtype=np.float64)
        found = [
            self._recorded.right(rows_W[rows_W >= 0], pools_MR).sum(axis=0)
            for rows_W, pools_MR in zip(self._rows_GW, pools_GMR.astype(np.float64), strict=True)
        ]
        return np.array(found)

    def _count_failures(self, wrong_GHM: FloatArray, change: _Change) -> None:
        first, second, times = self._pairs
        signed_GMH = (wrong_GHM * change.signs.swapaxes(1, 2)).swapaxes(1, 2)
        self._failures += signed_GMH @ wrong_GHM
        if self._weights.focal:
            self._triples += signed_GMH @ (wrong_GHM[:, :, first] * wrong_GHM[:, :, second] * times)

    def _count_answers(self, change: _Change) -> None:
        said_GHM = self._recorded.answers[change.rows]
        same_GHMM = said_GHM[:, :, :, None] == said_GHM[:, :, None, :]
        kinds_GHCM = said_GHM[:, :, None, :] == np.arange(-1, self._recorded.num_options)[:, None]
        for counts, found in ((self._agreements, same_GHMM), (self._said, kinds_GHCM)):
            flat = found.reshape(*change.rows.shape, -1).astype(np.float32)
            counts += (change.signs @ flat).reshape(counts.shape)
