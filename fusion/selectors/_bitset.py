"""A labelled table as planes of bits, and what the kernels count on it for many sub-ensembles at once.

P sub-ensembles, S members; agents are given and returned by their position in the table.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable, by_accuracy
from fusion.errors import InvalidTable, UsageError
from fusion.schema import BoolArray, FloatArray, IntArray
from fusion.selectors import _kernels, _vote_kernel, _weighted
from fusion.selectors._vectors import LANES

MAX_AGENTS = 256

LEVELS = 63
"""The largest whole-number weight of a vote."""

# What is worked on at a time shall stay in the third-level cache; wider blocks spend less time between loops.
_CACHED_BYTES = 8 * 1024 * 1024
_MIN_WORDS, _MAX_WORDS = 32, 256

Words = _kernels.Words


class CoErrors(NamedTuple):
    """Numbers of questions on which agents fail together, in rank order.

    Attributes:
        pairs: int64 [M, M], for i <= j.
        triples: int64 [M, M, M], for i < j < k.
    """

    pairs: IntArray
    triples: IntArray


@dataclass(frozen=True, eq=False)
class BitTable:
    """What agents got right and where they agree on a wrong option, 64 questions a word, in blocks of W words.

    Questions that all agents get right, or none, are counted alone: they come out alike for every sub-ensemble.

    Args:
        num_questions: N.
        solved: Number of questions that all agents get right.
        lost: Number of those that none does.
        ranked: int [M], positions of agents in the table from the most to the least accurate: the order in which
            they settle ties, and the order of the planes.
        correct: uint64 [blocks, M, W], where an agent is right.
        wrong: uint64 [blocks, M, W], where it names a wrong option; it abstains where neither is set.
        agree: uint64 [blocks, M (M - 1) / 2, W], where two agents name the same wrong option.
    """

    num_questions: int
    solved: int
    lost: int
    ranked: IntArray
    correct: Words
    wrong: Words
    agree: Words

    @classmethod
    def of(cls, table: PredictionTable, *, ranked: IntArray | None = None) -> Self:
        """Pack a labelled table.

        Args:
            table: Labelled answers.
            ranked: Whom to follow in ties, first the most accurate; by default as accurate as in `table`.

        Raises:
            InvalidTable: When the table has no labels or no questions.
            UsageError: When it has more than `MAX_AGENTS` agents.
        """
        if not len(table):
            raise InvalidTable("sub-ensembles cannot be scored on no questions; the table is empty")
        if table.num_agents > MAX_AGENTS:
            raise UsageError(
                f"pruning counts failures of all triples of at most {MAX_AGENTS} agents, got {table.num_agents}; "
                "exclude some (--exclude), or keep the most accurate ones (table.columns)"
            )
        ranked_M = by_accuracy(table.accuracies) if ranked is None else ranked
        answers_MN = np.ascontiguousarray(table.answers.T[ranked_M])
        labels_N = table.require_labels().astype(answers_MN.dtype)
        correct_MN = (answers_MN == labels_N) & (answers_MN >= 0)
        solved_N, lost_N = correct_MN.all(axis=0), ~correct_MN.any(axis=0)
        open_N = ~(solved_N | lost_N)
        return cls(
            len(table),
            int(solved_N.sum()),
            int(lost_N.sum()),
            ranked_M,
            *_planes(*(np.compress(open_N, values_MN, axis=1) for values_MN in (answers_MN, correct_MN))),
        )

    @property
    def num_agents(self) -> int:
        """M."""
        return len(self.ranked)

    @property
    def num_open(self) -> int:
        """Number of questions that the planes hold: some agents get them right, others do not."""
        return self.num_questions - self.solved - self.lost

    @property
    def nbytes(self) -> int:
        """Memory that the planes take."""
        return self.correct.nbytes + self.wrong.nbytes + self.agree.nbytes

    def rank(self, members_PS: IntArray) -> IntArray:
        """Return members by position in the table as members by rank, every row ascending."""
        place_M = np.empty(self.num_agents, np.int16)
        place_M[self.ranked] = np.arange(self.num_agents)
        return np.sort(place_M[members_PS], axis=1)

    def votes(self, ranked_PS: IntArray) -> IntArray:
        """Return on how many questions the plurality vote of each sub-ensemble is right, int64 [P].

        Abstentions are ignored; among tied options the one backed by the most accurate member wins.

        Args:
            ranked_PS: Members by rank, every row ascending; fastest in lexicographic order.
        """
        ranked_PS = _rows(ranked_PS)
        right_P = np.full(len(ranked_PS), self.solved)
        assert self.correct.shape[2] % LANES == 0, "the kernel reads whole vectors"
        if ranked_PS.shape[1] == 1:
            right_P += np.bitwise_count(self.correct).sum(axis=(0, 2), dtype=np.int64)[ranked_PS[:, 0]]
            return right_P
        for planes in zip(self.correct, self.wrong, self.agree, strict=True):
            _vote_kernel.vote_block(*planes, ranked_PS, right_P)
        return right_P

    def weighted_votes(self, ranked_PS: IntArray, weights_M: FloatArray) -> IntArray:
        """Return on how many questions the weighted vote of each sub-ensemble is right, int64 [P].

        The weights are rounded to whole numbers, the largest being `LEVELS`: sub-ensembles that differ by less than
        that may come out equal, and ties are settled as in `votes`.

        Args:
            ranked_PS: Members by rank, every row ascending.
            weights_M: Non-negative, by rank.
        """
        ranked_PS = _rows(ranked_PS)
        size = ranked_PS.shape[1]
        if size == 1 or not weights_M.any():
            return self.votes(ranked_PS)
        whole_M = np.round(weights_M / weights_M.max() * LEVELS).astype(np.int64)
        # The largest number is a lead of all weights against none, compared with one weight more.
        num_bits = int(np.sort(whole_M)[-size:].sum() + LEVELS + 2).bit_length() + 1
        right_P = np.full(len(ranked_PS), self.solved)
        for planes in zip(self.correct, self.wrong, self.agree, strict=True):
            _weighted.weighted_vote_block(*planes, whole_M, num_bits, ranked_PS, right_P)
        return right_P

    def hits(self, ranked_PS: IntArray) -> IntArray:
        """Return int64 [P, S], on how many questions at least 1, 2, ... S members of each sub-ensemble are right."""
        ranked_PS = _rows(ranked_PS)
        counts_PC = np.full(ranked_PS.shape, self.solved)
        for correct_MW in self.correct:
            _kernels.hit_block(correct_MW, ranked_PS, counts_PC)
        return counts_PC

    def co_errors(self) -> CoErrors:
        """Count on how many questions all pairs and triples of agents fail together; abstaining is failing."""
        count = self.num_agents
        found = CoErrors(np.zeros((count, count), np.int64), np.zeros((count, count, count), np.int64))
        words = self.correct.shape[2]
        for b, correct_MW in enumerate(self.correct):
            asked_W = _first_bits(self.num_open - b * words * 64, words)
            _kernels.co_error_block(~correct_MW & asked_W, *found)
        above_MM = np.triu(np.ones((count, count), bool), 1)
        found.pairs[np.triu_indices(count)] += self.lost
        found.triples[above_MM[:, :, None] & above_MM] += self.lost
        return found


def warm_up() -> None:
    """Compile the kernels, or load what an earlier process compiled, so that later calls take no extra time."""
    rng = np.random.default_rng(0)
    answers_NM = rng.integers(-1, 2, (64, 3), dtype=np.int8)
    table = PredictionTable(
        question_ids=[f"q{n}" for n in range(64)], agents=["a", "b", "c"], answers=answers_NM, labels=[0] * 64
    )
    bits = BitTable.of(table)
    rows_PS = np.empty((1, 2), np.int16)
    _kernels.combinations(np.arange(2), 3, rows_PS)
    bits.votes(rows_PS)
    focal_diversities(bits.co_errors(), rows_PS)


def focal_diversities(counts: CoErrors, ranked_PS: IntArray) -> FloatArray:
    """Return the focal diversity of each sub-ensemble of at least two agents, float64 [P]."""
    ranked_PS = _rows(ranked_PS)
    focal_P = np.empty(len(ranked_PS))
    _kernels.focal(*counts, ranked_PS, focal_P)
    return focal_P


def pair_means(values_MM: FloatArray, ranked_PS: IntArray) -> FloatArray:
    """Return the mean of values_MM over all pairs of members of each sub-ensemble, float64 [P].

    Args:
        values_MM: By rank; the part above the diagonal is read.
        ranked_PS: Sub-ensembles of at least two agents, every row ascending.
    """
    ranked_PS = _rows(ranked_PS)
    sums_P = np.empty(len(ranked_PS))
    values_MM = np.ascontiguousarray(values_MM, dtype=np.float64)
    _kernels.pair_sums(values_MM, ranked_PS, sums_P)
    size = ranked_PS.shape[1]
    return np.asarray(sums_P / (size * (size - 1) / 2))


def _rows(ranked_PS: IntArray) -> IntArray:
    """Return the rows in the one form that the kernels are compiled for."""
    return np.require(ranked_PS, np.int16, ["C", "W"])


def _planes(answers_MN: IntArray, correct_MN: BoolArray) -> tuple[Words, Words, Words]:
    """Return the planes `correct`, `wrong` and `agree` in blocks."""
    wrong_MN = (answers_MN >= 0) & ~correct_MN
    num_agents, num_questions = answers_MN.shape
    num_pairs = num_agents * (num_agents - 1) // 2
    words = max(1, -(-num_questions // 64))
    wide = min(max(_CACHED_BYTES // (8 * max(num_pairs, 1)), _MIN_WORDS), _MAX_WORDS)
    blocks = -(-words // wide)
    # Blocks of equal width, in whole vectors, so that little of the last one is empty.
    width = -(-words // (blocks * LANES)) * LANES
    blocks = -(-words // width)
    correct = np.zeros((blocks, num_agents, width), np.uint64)
    wrong = np.zeros_like(correct)
    agree = np.zeros((blocks, num_pairs, width), np.uint64)
    for b in range(blocks):
        part = slice(b * width * 64, (b + 1) * width * 64)
        answers_MC, wrong_MC = np.ascontiguousarray(answers_MN[:, part]), wrong_MN[:, part]
        _pack(correct_MN[:, part], correct[b])
        _pack(wrong_MC, wrong[b])
        first = 0
        for i in range(num_agents - 1):
            same_QC = (answers_MC[i + 1 :] == answers_MC[i]) & wrong_MC[i]
            _pack(same_QC, agree[b, first : first + len(same_QC)])
            first += len(same_QC)
    return correct, wrong, agree


def _pack(values_QC: BoolArray, planes_QW: Words) -> None:
    """Write booleans as bits, the first into the lowest bit of the first word; further words stay 0."""
    bytes_QB = np.packbits(values_QC, axis=1, bitorder="little")
    planes_QW.view(np.uint8)[:, : bytes_QB.shape[1]] = bytes_QB


def _first_bits(count: int, words: int) -> Words:
    """Return uint64 [words] with the first `count` bits set."""
    bits = np.zeros(words * 64, dtype=bool)
    bits[: max(count, 0)] = True
    return np.packbits(bits, bitorder="little").view(np.uint64)
