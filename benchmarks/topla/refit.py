"""`weighted_vote` cross-validated on many sub-ensembles: what `fusion.pruning` does, some fifteen times faster.

The fuser is fitted on four folds at each of its powers, takes the one that is right most often, and is counted on the
fifth. Here all folds and powers are tried on a question at once. `run.py` compares some results with those of
`fusion.pruning` on every split and stops where they differ.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from fusion.data import PredictionTable, accuracy_when_answering, by_accuracy, folds
from fusion.fusers.weighted_vote import POWERS
from fusion.pruning._outcomes import Members, make_fuser
from fusion.pruning._refit import Batch, cross_validated
from fusion.schema import FloatArray, IntArray

FUSER = "weighted_vote"
_TIE = 1e-9


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count(
    answers_NS: IntArray,
    labels_N: IntArray,
    fold_N: IntArray,
    weights_FPS: FloatArray,
    ranked_FS: IntArray,
    scores_K: FloatArray,
    right_FPF: IntArray,
) -> None:
    """Add to right_FPF[f, p, g] on how many questions of fold g a vote with the weights [f, p] is right."""
    num_questions, size = answers_NS.shape
    num_folds, num_powers = weights_FPS.shape[:2]
    for n in range(num_questions):
        for f in range(num_folds):
            for p in range(num_powers):
                cast = 0.0
                for j in range(size):
                    if answers_NS[n, j] >= 0:
                        scores_K[answers_NS[n, j]] += weights_FPS[f, p, j]
                        cast += weights_FPS[f, p, j]
                best = 0.0
                for j in range(size):
                    if answers_NS[n, j] >= 0:
                        best = max(best, scores_K[answers_NS[n, j]])
                winner = -1
                for place in range(size):
                    option = answers_NS[n, ranked_FS[f, place]]
                    if winner < 0 and option >= 0 and scores_K[option] >= best - _TIE * cast:
                        winner = option
                for j in range(size):
                    if answers_NS[n, j] >= 0:
                        scores_K[answers_NS[n, j]] = 0.0
                if winner >= 0 and winner == labels_N[n]:
                    right_FPF[f, p, fold_N[n]] += 1


@dataclass(eq=False)
class Refit:
    """Cross-validated accuracies of `weighted_vote` on the sub-ensembles of a table; each is computed once.

    Args:
        table: Labelled answers of the pool.
        seed: Of the folds.
        num_folds: How many.
        threads: How many work at a time.
    """

    table: PredictionTable
    seed: int
    num_folds: int = 5
    threads: int = 1

    def __post_init__(self) -> None:
        self._fold_N = folds(self.table, self.num_folds, seed=self.seed)
        fits = [self.table.rows(self._fold_N != fold) for fold in range(self.num_folds)]
        self._competence_FM = np.array([accuracy_when_answering(fit) for fit in fits])
        self._accuracies_FM = np.array([fit.accuracies for fit in fits])
        self._labels_N = self.table.require_labels().astype(np.int64)
        self._known: dict[Members, float] = {}

    def accuracies(self, subsets: Sequence[Members]) -> list[float]:
        """Return the accuracy on each sub-ensemble, given in pool order."""
        fresh = [members for members in dict.fromkeys(subsets) if members not in self._known]
        with ThreadPoolExecutor(self.threads) as pool:
            self._known |= dict(zip(fresh, pool.map(self._accuracy, fresh), strict=True))
        return [self._known[members] for members in subsets]

    def check(self, subsets: Sequence[Members]) -> None:
        """Compare with what `fusion.pruning` computes.

        Raises:
            AssertionError: When there is a difference.
        """
        batch = Batch(self.table, subsets, make_fuser(FUSER), self.num_folds, self.seed)
        theirs: Iterator[float] = cross_validated(batch)
        for members, other in zip(subsets, theirs, strict=True):
            own = self._accuracy(members)
            assert own == other, f"{FUSER} on {members}: {own} here, {other} by fusion.pruning"

    def _accuracy(self, members: Members) -> float:
        places = [self.table.agents.index(name) for name in members]
        answers_NS = np.ascontiguousarray(self.table.answers[:, places].astype(np.int64))
        # How far competence is smoothed depends on the options of all questions, not on the members.
        weights_FPS = np.array(
            [[competence_M[places] ** power for power in POWERS] for competence_M in self._competence_FM]
        )
        ranked_FS = np.array([by_accuracy(accuracies_M[places]) for accuracies_M in self._accuracies_FM])
        right_FPF = np.zeros((self.num_folds, len(POWERS), self.num_folds), np.int64)
        arguments: tuple[Any, ...] = (answers_NS, self._labels_N, self._fold_N, weights_FPS, ranked_FS)
        _count(*arguments, np.zeros(self.table.max_options), right_FPF)
        hits = 0
        for fold in range(self.num_folds):
            fitted_P = right_FPF[fold].sum(axis=1) - right_FPF[fold, :, fold]
            hits += int(right_FPF[fold, int(fitted_P.argmax()), fold])
        return hits / len(self.table)
