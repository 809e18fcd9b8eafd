"""How diverse pools of agents were on the questions answered last, as MARL-Focal's decider observes it.

A pool's score is sum_i w_i s_i / sum_i |w_i| over the statistics named in `DiversityWeights`, each turned so that
higher is more diverse, or more accurate: Fleiss' kappa, Yule's Q, the correlation and Cohen's kappa, which fall with
diversity, enter with a minus sign. The score lies in [-1, 1]. Where a statistic says nothing it adds 0, not a number
that could be mistaken for one: a pool of one agent has no diversity, the empty pool has no vote either, and before
the first question there is nothing to measure.

Here one pool is scored, question by question, as an environment needs it; `fusion.policies._windows` scores many.

Source: MARL-Focal, Tekin et al. 2025, arXiv:2502.04492. Legend beside that of `fusion.schema`: W questions in a
window, C = K + 1 things to say (column 0: nothing).
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fusion.data import PredictionTable, by_accuracy
from fusion.diversity import (
    PairCounts,
    correlation_matrix,
    disagreement_matrix,
    kappa_matrix,
    mean_over_pairs,
    q_matrix,
)
from fusion.errors import UsageError
from fusion.schema import BoolArray, FloatArray, IntArray

# A float64 holds the votes for an option, and one binary digit an agent to settle ties by, without rounding.
_MOST_AGENTS = 47
# A float32 counts exactly up to here.
_EXACT = 1 << 24
# Whether each of all possible pools is right is looked up where the table of it has at most so many cells.
_LOOKED_UP = 1 << 24
PAIRWISE = {
    "q_statistic": (q_matrix, -1.0),
    "correlation": (correlation_matrix, -1.0),
    "disagreement": (disagreement_matrix, 1.0),
    "kappa": (kappa_matrix, -1.0),
}


@dataclass(frozen=True, kw_only=True)
class DiversityWeights:
    """What counts for a pool's score; the defaults are those of the paper for MMLU.

    Args:
        focal: `fusion.diversity.focal_diversity`.
        plurality: Accuracy of the pool's plurality vote; ties are settled as by `fusion.fusers.vote`.
        fleiss_kappa: `fusion.diversity.fleiss_kappa`, of the answers; enters with a minus sign.
        q_statistic: `fusion.diversity.q_statistic`; enters with a minus sign.
        correlation: `fusion.diversity.correlation`; enters with a minus sign.
        disagreement: `fusion.diversity.disagreement`.
        kappa: `fusion.diversity.kappa`, of correctness; enters with a minus sign.
        entropy: `fusion.diversity.entropy`. The public code takes the binary entropy, which the members' mean accuracy
            determines; this one depends on how they split.

    Raises:
        UsageError: When a weight is not a finite number, or all are 0.
    """

    focal: float = 0.5
    plurality: float = 0.0
    fleiss_kappa: float = 0.5
    q_statistic: float = 0.0
    correlation: float = 0.0
    disagreement: float = 0.0
    kappa: float = 0.0
    entropy: float = 0.0

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        if not np.isfinite(list(values.values())).all() or not any(values.values()):
            told = ", ".join(f"{name}={value}" for name, value in values.items())
            raise UsageError(f"weights of diversity are finite and one at least is not 0; got {told}")

    @property
    def total(self) -> float:
        """Sum of the sizes."""
        return float(sum(abs(value) for value in dataclasses.asdict(self).values()))

    @property
    def pairwise(self) -> dict[str, float]:
        """The weights that are not 0 of means over pairs, by name."""
        return {name: value for name in PAIRWISE if (value := getattr(self, name))}


class Recorded:
    """Questions that all agents answered, and how their votes are counted.

    Attributes:
        answers: intp [N, M], -1 where an agent abstains.
        labels: intp [N].
        num_options: K.
        wrong: float32 [N, M], 1 where an agent is wrong; abstaining is.
        ballots: float64 [M], what a vote weighs: 1, and a power of 2 below it that only settles ties. Of the sums for
            two options with equally many votes, the one with the agent that is followed first is larger.
    """

    def __init__(
        self, answers_NM: IntArray, labels_N: IntArray, *, num_options: int, accuracies: FloatArray | None = None
    ) -> None:
        """Prepare.

        Args:
            answers_NM: Index of the option each agent chose, -1 where it abstained.
            labels_N: The right options, -1 where it is none.
            num_options: K.
            accuracies: float [M], of questions that were answered before these: among options with equally many
                votes the one wins that the most accurate agent backs, as in `fusion.fusers.vote`. By default, and at
                equal accuracy, the agent that comes first.

        Raises:
            UsageError: When there are more than 47 agents.
        """
        num_agents = answers_NM.shape[1]
        if num_agents > _MOST_AGENTS:
            raise UsageError(
                f"pools can be chosen among at most {_MOST_AGENTS} agents, got {num_agents}; prune the pool first"
            )
        self.answers = answers_NM.astype(np.intp)
        self.labels = labels_N.astype(np.intp)
        self.num_options = num_options
        self.wrong = ((answers_NM != labels_N[:, None]) | (answers_NM < 0)).astype(np.float32)
        ranked_M = np.arange(num_agents) if accuracies is None else by_accuracy(accuracies)
        self.ballots = np.empty(num_agents)
        self.ballots[ranked_M] = 1 + 0.5 ** np.arange(1, num_agents + 1)

    @classmethod
    def of(cls, table: PredictionTable, *, accuracies: FloatArray | None = None) -> "Recorded":
        """Return the questions of a labelled table."""
        return cls(table.answers, table.require_labels(), num_options=table.max_options, accuracies=accuracies)

    @cached_property
    def codes(self) -> IntArray | None:
        """Int [M], what each agent adds to the position of a pool in `all_right`; None where that would be too big."""
        num_questions, num_agents = self.answers.shape
        return 1 << np.arange(num_agents) if num_questions << num_agents <= _LOOKED_UP else None

    @cached_property
    def all_right(self) -> FloatArray:
        """Float32 [N, 2^M], 1 where the plurality of each possible pool is right."""
        num_agents = self.answers.shape[1]
        pools_MB = (np.arange(1 << num_agents) >> np.arange(num_agents)[:, None] & 1).astype(np.float64)
        rows_N = np.arange(len(self.answers))
        chunks = np.array_split(rows_N, max(len(rows_N) * self.num_options * pools_MB.shape[1] >> 22, 1))
        return np.concatenate([self.right(rows, pools_MB).astype(np.float32) for rows in chunks])

    def votes(self, rows: IntArray) -> FloatArray:
        """Return float64 [n, K, M], the ballots for every option of questions `rows`."""
        cast = self.answers[rows][:, None, :] == np.arange(self.num_options)[:, None]
        return np.where(cast, self.ballots, 0.0)

    def right(self, rows: IntArray, pools: FloatArray) -> BoolArray:
        """Return bool [n, B], whether the plurality of each pool is right on each question.

        Args:
            rows: n questions.
            pools: float64 [M, B], the pools, or [n, M, B], pools of each question.
        """
        counts_nKB = self.votes(rows) @ pools
        labels_n = self.labels[rows]
        own_nB = counts_nKB[np.arange(len(rows)), labels_n]
        return np.asarray((own_nB == counts_nKB.max(axis=1)) & (own_nB > 0) & (labels_n >= 0)[:, None])

    def is_right(self, row: int, pool_M: BoolArray) -> bool:
        """Return whether the plurality of one pool is right on question `row`."""
        said_M = self.answers[row]
        voting_M = pool_M & (said_M >= 0)
        counts_K = np.bincount(said_M[voting_M], weights=self.ballots[voting_M], minlength=self.num_options)
        label = self.labels[row]
        return bool(label >= 0 and counts_K[label] > 0 and counts_K[label] == counts_K.max())


def check_window(size: int, num_agents: int) -> None:
    """Refuse windows over which counts would not be exact.

    Raises:
        UsageError: When the window is empty, or too long to count triples of agents in a float32.
    """
    most = (_EXACT - 1) // max(num_agents, 1) ** 2
    if not 1 <= size <= most:
        raise UsageError(f"a window holds 1 to {most:,} questions with {num_agents} agents, got {size:,}")


class Window:
    """The last W answered questions, of which single pools are scored.

    Pair counts, agreements and marginals are kept up to date; so are the votes of the pool that was scored last.

    Args:
        recorded: The questions that can enter.
        size: W.
        weights: What is scored.
    """

    def __init__(self, recorded: Recorded, *, size: int = 500, weights: DiversityWeights) -> None:
        num_agents = recorded.answers.shape[1]
        check_window(size, num_agents)
        self._recorded, self._size, self._weights, self._total = recorded, size, weights, weights.total
        self._entered = 0
        self._rows = np.full(size, -1, dtype=np.intp)
        self._wrong_WM = np.zeros((size, num_agents), dtype=np.float32)
        self._failures_MM = np.zeros((num_agents, num_agents), dtype=np.int64)
        self._agreements_MM = np.zeros((num_agents, num_agents))
        self._said_MC = np.zeros((num_agents, recorded.num_options + 1))
        self._each_M = np.arange(num_agents)
        self._pool_M = np.zeros(num_agents, dtype=bool)
        self._right_W = np.zeros(size, dtype=bool)

    def __len__(self) -> int:
        return min(self._entered, self._size)

    def push(self, row: int) -> None:
        """Let question `row` enter, and the oldest leave where the window is full."""
        slot = self._entered % self._size
        if self._entered >= self._size:
            self._count(int(self._rows[slot]), -1)
        self._count(row, 1)
        self._rows[slot] = row
        self._wrong_WM[slot] = self._recorded.wrong[row]
        if self._weights.plurality:
            self._right_W[slot] = self._plurality(self._rows[slot : slot + 1], self._pool_M)[0]
        self._entered += 1

    def score(self, pool_M: BoolArray) -> float:
        """Return the score of a pool, in [-1, 1]."""
        members = np.flatnonzero(pool_M)
        if not len(members) or not self._entered:
            return 0.0
        weights, found = self._weights, 0.0
        if weights.plurality:
            if not np.array_equal(pool_M, self._pool_M):
                self._pool_M = pool_M.copy()
                self._right_W[: len(self)] = self._plurality(self._rows[: len(self)], pool_M)
            found += weights.plurality * np.count_nonzero(self._right_W[: len(self)]) / len(self)
        if len(members) > 1:
            found += self._diversity(members)
        return float(found / self._total)

    def _diversity(self, members: IntArray) -> float:
        weights, size, found = self._weights, len(members), 0.0
        if weights.focal or weights.entropy:
            wrong_WS = self._wrong_WM[: len(self), members]
            failing_W = wrong_WS.sum(axis=1)
            if weights.focal:
                once_S, twice_S = np.stack([failing_W, failing_W * failing_W]) @ wrong_WS
                share_S = np.divide(twice_S, once_S, out=np.ones(size), where=once_S > 0, dtype=np.float64)
                found += weights.focal * (size - share_S.sum() / size) / (size - 1)
            if weights.entropy:
                split = float(np.minimum(failing_W, size - failing_W).sum())
                found += weights.entropy * split / (len(self) * (size // 2))
        if weights.fleiss_kappa:
            found -= weights.fleiss_kappa * self._fleiss_kappa(members)
        for name, weight in weights.pairwise.items():
            matrix, sign = PAIRWISE[name]
            failures_SS = self._failures_MM[np.ix_(members, members)]
            counts = PairCounts.from_failures(failures_SS, num_questions=len(self))
            found += sign * weight * mean_over_pairs(matrix(counts))
        return float(found)

    def _fleiss_kappa(self, members: IntArray) -> float:
        size = len(members)
        total, num_pairs = len(self) * size, size * (size - 1) / 2
        # On the diagonal stands that everybody agrees with itself on all questions.
        same = (self._agreements_MM[members][:, members].sum() - total) / 2
        said_C = self._said_MC[members].sum(axis=0)
        chance = said_C @ said_C
        most = (total * total - chance) * num_pairs
        return float((same * total * size - chance * num_pairs) / most) if most else 0.0

    def _count(self, row: int, sign: int) -> None:
        """Count a question that enters (1) or leaves (-1)."""
        if self._weights.pairwise:
            wrong_M = self._recorded.wrong[row].astype(np.int64)
            self._failures_MM += sign * wrong_M[:, None] * wrong_M
        if self._weights.fleiss_kappa:
            said_M = self._recorded.answers[row]
            same_MM = said_M[:, None] == said_M
            np.add(self._agreements_MM, sign, out=self._agreements_MM, where=same_MM)
            self._said_MC[self._each_M, said_M + 1] += sign

    def _plurality(self, rows_n: IntArray, pool_M: BoolArray) -> BoolArray:
        """Return bool [n], whether the pool's plurality is right on questions `rows_n`."""
        members = np.flatnonzero(pool_M)
        num_kinds = self._recorded.num_options + 1
        said_nS = self._recorded.answers[rows_n[:, None], members] + 1
        place = said_nS + num_kinds * np.arange(len(rows_n))[:, None]
        ballots_nS = np.broadcast_to(self._recorded.ballots[members], place.shape)
        counted = np.bincount(place.ravel(), weights=ballots_nS.ravel(), minlength=num_kinds * len(rows_n))
        counts_nK = counted.reshape(len(rows_n), num_kinds)[:, 1:]
        labels_n = self._recorded.labels[rows_n]
        own_n = counts_nK[np.arange(len(rows_n)), labels_n]
        return np.asarray((own_n == counts_nK.max(axis=1)) & (own_n > 0) & (labels_n >= 0))
