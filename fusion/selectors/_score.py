"""Scoring many sub-ensembles of one table at once."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from fusion import diversity
from fusion.data import PredictionTable, accuracy_when_answering
from fusion.errors import UnknownName, UsageError
from fusion.schema import FloatArray, IntArray
from fusion.selectors._bitset import BitTable, CoErrors, focal_diversities, pair_means
from fusion.selectors._objective import TERMS, Objective

# Sub-ensembles that a thread takes at a time: those late in the order share fewer members and take longer.
_MIN_ROWS, _MAX_ROWS = 64, 8192

POWERS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""A weighted vote weighs agents by accuracy to the one of these powers that is right most often."""

_MATRICES: Mapping[str, Callable[[diversity.PairCounts], FloatArray]] = {
    "q_statistic": diversity.q_matrix,
    "correlation": diversity.correlation_matrix,
    "disagreement": diversity.disagreement_matrix,
    "double_fault": diversity.double_fault_matrix,
    "kappa": diversity.kappa_matrix,
}
_PREPARED = frozenset(_MATRICES) | {"answer_kappa", "fleiss_kappa"}


class Scores(NamedTuple):
    """Columns of P sub-ensembles.

    Attributes:
        objective: float64 [P].
        accuracy: float64 [P], of the plurality vote.
        focal: float64 [P], focal diversity; nan for a single member.
    """

    objective: FloatArray
    accuracy: FloatArray
    focal: FloatArray


@dataclass(frozen=True)
class Prices:
    """What asking an agent costs.

    Args:
        usd: float [M], a question, by position in the table; None when not known.
        seconds: float [M], a question; None when not known.
    """

    usd: FloatArray | None = None
    seconds: FloatArray | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Scorer:
    """Scores sub-ensembles of a labelled table; members are given by rank (`BitTable.rank`).

    It holds counts and bits alone, so it can be sent to other processes. Agents stand by rank in all arrays.

    Args:
        objective: What makes a sub-ensemble good.
        bits: The table.
        accuracies: float64 [M]; abstaining is wrong.
        competence: float64 [M], accuracy when answering.
        co_errors: Joint failures.
        matrices: float64 [M, M] by term that is a mean over pairs of members.
        shares: float64 [M, 1 + K], how often each agent abstains and chooses each option; None unless needed.
        usd, seconds: float64 [M], price and latency of a question; None when not known.
        threads: How many work at a time.
    """

    objective: Objective
    bits: BitTable
    accuracies: FloatArray
    competence: FloatArray
    co_errors: CoErrors
    matrices: Mapping[str, FloatArray]
    shares: FloatArray | None
    usd: FloatArray | None
    seconds: FloatArray | None
    threads: int

    @classmethod
    def of(
        cls,
        table: PredictionTable,
        objective: Objective,
        *,
        prices: Prices | None = None,
        ranked: IntArray | None = None,
        also: Iterable[str] = (),
        threads: int = 0,
    ) -> Self:
        """Count what the objective needs.

        Args:
            table: Labelled answers.
            objective: What makes a sub-ensemble good.
            prices: For the terms `cost` and `latency`, and for limits on them.
            ranked: Whom to follow in ties, first the most accurate; by default as accurate as in `table`.
            also: Further terms that `measure` shall know.
            threads: How many work at a time; by default one a core.

        Raises:
            InvalidTable: When the table has no labels or no questions.
            UsageError: When there are too many agents, or the objective wants prices that are not known.
        """
        bits = BitTable.of(table, ranked=ranked)
        prices = prices or Prices()
        terms = {*objective.weights, *also}
        for name, known in (("cost", prices.usd), ("latency", prices.seconds)):
            if name in terms and known is None:
                raise UsageError(missing(name))
        co_errors = bits.co_errors()
        failures_MM = np.triu(co_errors.pairs) + np.triu(co_errors.pairs, 1).T
        counts = diversity.PairCounts.from_failures(failures_MM, num_questions=len(table))
        matrices = {name: _MATRICES[name](counts) for name in terms & _MATRICES.keys()}
        shares = None
        if terms & {"answer_kappa", "fleiss_kappa"}:
            said = diversity.answer_counts(table.answers[:, bits.ranked])
            matrices["answer_kappa"] = diversity.answer_kappa_matrix(said)
            matrices["fleiss_kappa"] = said.agreements / len(table)
            shares = said.marginals / len(table)
        return cls(
            objective=objective,
            bits=bits,
            accuracies=table.accuracies[bits.ranked],
            competence=accuracy_when_answering(table)[bits.ranked],
            co_errors=co_errors,
            matrices=matrices,
            shares=shares,
            usd=None if prices.usd is None else prices.usd[bits.ranked],
            seconds=None if prices.seconds is None else prices.seconds[bits.ranked],
            threads=threads or _cores(),
        )

    def __call__(self, ranked_PS: IntArray) -> Scores:
        """Score sub-ensembles of one size."""
        wanted = {"accuracy", *self.objective.weights} | ({"focal"} if ranked_PS.shape[1] > 1 else set())
        columns = self._columns(sorted(wanted), ranked_PS)
        objective_P = np.zeros(len(ranked_PS))
        for name, weight in self.objective.weights.items():
            objective_P += weight * columns[name]
        focal_P = columns["focal"] if "focal" in columns else np.full(len(ranked_PS), np.nan)
        return Scores(objective_P, columns["accuracy"], focal_P)

    def measure(self, name: str, ranked_PS: IntArray) -> FloatArray:
        """Return one term (`TERMS`) of each sub-ensemble, float64 [P]."""
        return self._columns([name], ranked_PS)[name]

    def _columns(self, names: Sequence[str], ranked_PS: IntArray) -> dict[str, FloatArray]:
        """Return several terms, all of a part of the sub-ensembles by one thread."""
        for name in names:
            if name not in TERMS:
                raise UnknownName(kind="objective term", name=name, known=TERMS)
            if TERMS[name].pairs and ranked_PS.shape[1] < 2:
                raise UsageError(f"{name} cannot be measured on a single member; it is between members")
            if name in _PREPARED and name not in self.matrices:
                raise UsageError(f"this scorer was not made for {name}; name it in the objective, or in also=")
        columns: dict[str, FloatArray] = {name: np.empty(len(ranked_PS)) for name in names}

        def fill(part: slice) -> None:
            for name, column_P in columns.items():
                if name in self.matrices and name != "fleiss_kappa":
                    column_P[part] = pair_means(self.matrices[name], ranked_PS[part])
                else:
                    column_P[part] = getattr(self, f"_{name}")(ranked_PS[part])

        in_parts(fill, len(ranked_PS), self.threads)
        return columns

    def _accuracy(self, ranked_PS: IntArray) -> FloatArray:
        return self.bits.votes(ranked_PS) / self.bits.num_questions

    def _weighted_accuracy(self, ranked_PS: IntArray) -> FloatArray:
        right_P = self.bits.votes(ranked_PS)
        for power in POWERS[1:]:
            weights_M = self.competence**power
            right_P = np.maximum(right_P, self.bits.weighted_votes(ranked_PS, weights_M))
        return right_P / self.bits.num_questions

    def _mean_accuracy(self, ranked_PS: IntArray) -> FloatArray:
        return np.asarray(self.accuracies[ranked_PS].mean(axis=1))

    def _oracle(self, ranked_PS: IntArray) -> FloatArray:
        return self.bits.hits(ranked_PS)[:, 0] / self.bits.num_questions

    def _entropy(self, ranked_PS: IntArray) -> FloatArray:
        size = ranked_PS.shape[1]
        at_least_PC = self.bits.hits(ranked_PS)
        exactly_PC = at_least_PC - np.pad(at_least_PC[:, 1:], ((0, 0), (0, 1)))
        right_C = np.arange(1, size + 1)
        spread_P = exactly_PC @ np.minimum(right_C, size - right_C)
        return np.asarray(spread_P / (size - (size + 1) // 2) / self.bits.num_questions)

    def _focal(self, ranked_PS: IntArray) -> FloatArray:
        return focal_diversities(self.co_errors, ranked_PS)

    def _generalized(self, ranked_PS: IntArray) -> FloatArray:
        pairs_MM = self.co_errors.pairs
        failures_P = np.diag(pairs_MM)[ranked_PS].sum(axis=1)
        shared_P = pair_means(pairs_MM.astype(float), ranked_PS) * ranked_PS.shape[1]
        return np.asarray(1 - np.divide(shared_P, failures_P, out=np.zeros(len(ranked_PS)), where=failures_P > 0))

    def _fleiss_kappa(self, ranked_PS: IntArray) -> FloatArray:
        assert self.shares is not None
        size = ranked_PS.shape[1]
        observed_P = pair_means(self.matrices["fleiss_kappa"], ranked_PS)
        both_MM = self.shares @ self.shares.T
        own_P = np.diag(both_MM)[ranked_PS].sum(axis=1)
        others_P = pair_means(both_MM, ranked_PS) * size * (size - 1)
        chance_P = (own_P + others_P) / size**2
        # All members always saying the same one thing is no agreement beyond chance.
        beyond_P = np.where(chance_P < 1 - 1e-12, 1 - chance_P, np.inf)
        return np.asarray((observed_P - chance_P) / beyond_P)

    def _size(self, ranked_PS: IntArray) -> FloatArray:
        return np.full(len(ranked_PS), float(ranked_PS.shape[1]))

    def _cost(self, ranked_PS: IntArray) -> FloatArray:
        if self.usd is None:
            raise UsageError(missing("cost"))
        return np.asarray(self.usd[ranked_PS].sum(axis=1))

    def _latency(self, ranked_PS: IntArray) -> FloatArray:
        if self.seconds is None:
            raise UsageError(missing("latency"))
        return np.asarray(self.seconds[ranked_PS].max(axis=1))


def missing(term: str) -> str:
    """Return what to say where `cost` or `latency` is wanted and nothing is known of it."""
    if term == "cost":
        return "the cost of sub-ensembles needs the agents' prices and a table with token counts; give prices"
    return "the latency of sub-ensembles needs a table that recorded the seconds of every answer"


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parts(work: Callable[[slice], None], length: int, threads: int) -> None:
    """Run `work` on consecutive parts of [0, length), `threads` at a time; who is done with one takes the next."""
    step = min(max(length // (4 * threads), _MIN_ROWS), _MAX_ROWS)
    parts = [slice(low, min(low + step, length)) for low in range(0, length, step)]
    if threads == 1 or len(parts) < 2:
        work(slice(0, length))
        return
    waiting = iter(parts)

    def take() -> None:
        for part in waiting:
            work(part)

    started = [_pool(threads - 1, os.getpid()).submit(take) for _ in range(min(threads, len(parts)) - 1)]
    try:
        take()
    finally:
        for _ in waiting:  # After an interrupt nobody takes another.
            pass
        wait(started)
    for done in started:
        done.result()


@functools.lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that wait for work: to start one takes as long as to score a thousand sub-ensembles.

    Args:
        threads: How many.
        process: Its number; threads do not survive a fork.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="fusion-score")
