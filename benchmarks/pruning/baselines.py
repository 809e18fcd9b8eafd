"""What sub-ensemble scoring is compared with: plain Python, and NumPy one sub-ensemble at a time.

All of them are given members in the order in which they settle ties, the most accurate first, and return on how many
questions the plurality vote is right (abstentions ignored, ties to the option backed by the first of those members)
or the focal diversity. What a side prepares once a table is made by its constructor and not part of its time.

Shapes: N questions, M agents, S members, K options.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from fusion.schema import BoolArray, FloatArray, IntArray


class Plain:
    """A loop over questions and a loop over focal members, straight from the definitions.

    Args:
        answers_NM: int [N, M], agents in tie order; negative where an agent abstains.
        labels_N: int [N].
    """

    name = "plain: row by row"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        self._answers_NM = answers_NM
        self._labels_N = labels_N
        self._correct_NM = answers_NM == labels_N[:, None]

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote is right."""
        right = 0
        for row_S, label in zip(self._answers_NM[:, list(members)], self._labels_N, strict=True):
            named = row_S[row_S >= 0]
            if not len(named):
                continue
            counts_K = np.bincount(named)
            most = counts_K.max()
            winner = next(option for option in named if counts_K[option] == most)
            right += bool(winner == label)
        return right

    def focal(self, members: Sequence[int]) -> float:
        """Return the focal diversity: the mean over focal members of 1 - P2 / P1 on the questions they fail."""
        failed_NS = ~self._correct_NM[:, list(members)]
        size = len(members)
        total = 0.0
        for i in range(size):
            failing = failed_NS[failed_NS[:, i]].sum(axis=1)
            if not len(failing):
                total += 1.0
                continue
            share_k = np.bincount(failing, minlength=size + 1) / len(failing)
            first = sum(k / size * share_k[k] for k in range(1, size + 1))
            second = sum(k * (k - 1) / (size * (size - 1)) * share_k[k] for k in range(1, size + 1))
            total += 1 - second / first
        return float(total / size)


class AddAt:
    """Counts over K options by np.add.at, a tie broken by a fraction of a vote for earlier members."""

    name = "counts over options, np.add.at"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        # The last column takes abstentions.
        self._num_columns = int(max(answers_NM.max(), labels_N.max())) + 2
        self._columns_MN = np.where(answers_NM < 0, self._num_columns - 1, answers_NM).T.astype(np.int64)
        self._labels_N = labels_N.astype(np.int64)
        self._rows_N = np.arange(len(labels_N))

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote is right."""
        counts_NK = np.zeros((len(self._labels_N), self._num_columns))
        for place, member in enumerate(members):
            np.add.at(counts_NK, (self._rows_N, self._columns_MN[member]), 1 + 2.0 ** -(place + 1 + len(members)))
        return self._right(counts_NK)

    def _right(self, counts_NK: FloatArray) -> int:
        counts_NK[:, -1] = 0.5
        winners_N = counts_NK.argmax(axis=1)
        return int(np.count_nonzero(winners_N == self._labels_N))


class Bincount(AddAt):
    """The same by one np.bincount of n K + answer with the votes' weights."""

    name = "counts over options, np.bincount"

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote is right."""
        cells_SN = self._columns_MN[list(members)] + self._rows_N * self._num_columns
        size, num_questions = cells_SN.shape
        weights_SN = np.repeat(1 + 2.0 ** -(np.arange(size) + 1.0 + size), num_questions)
        counts = np.bincount(cells_SN.ravel(), weights=weights_SN, minlength=num_questions * self._num_columns)
        return self._right(counts.astype(np.float64, copy=False).reshape(num_questions, self._num_columns))


class OneHot:
    """Sums of bytes: each agent's answers one-hot over options, the right one apart, kept with the weights of places.

    A vote weighs 2^S, plus 2^(S - 1 - place) to settle ties; sums of 5 votes fit a byte.
    """

    name = "counts over options, sums of weighted one-hot bytes"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        num_options = int(max(answers_NM.max(), labels_N.max())) + 1
        hot_MKN = answers_NM.T[:, None, :] == np.arange(num_options)[:, None]
        right_KN = labels_N == np.arange(num_options)[:, None]
        right_M1N = (hot_MKN & right_KN).any(axis=1, keepdims=True)
        hot_MKN = np.concatenate([hot_MKN & ~right_KN, right_M1N], axis=1)
        self._places = [[hot_KN * np.uint8(32 + (16 >> place)) for hot_KN in hot_MKN] for place in range(5)]
        self._sums_KN = np.empty(hot_MKN.shape[1:], np.uint8)
        self._most_N = np.empty(len(labels_N), np.uint8)

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote of at most 5 is right."""
        first, second, *others = (weighed[member] for weighed, member in zip(self._places, members, strict=False))
        np.add(first, second, self._sums_KN)
        for weighed_KN in others:
            np.add(self._sums_KN, weighed_KN, self._sums_KN)
        np.maximum.reduce(self._sums_KN[:-1], axis=0, out=self._most_N)
        return int(np.count_nonzero(self._sums_KN[-1] > self._most_N))


class Pairwise:
    """Votes for each member's answer by comparing all pairs of members: bytes, and no K."""

    name = "pairwise equality of answers"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        self._answers_MN = np.ascontiguousarray(answers_NM.T, dtype=np.int8)
        self._own_MN = (16 * (answers_NM >= 0) + (answers_NM == labels_N[:, None])).T.astype(np.uint8)

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote is right.

        The key of a member is 16 times the votes for its answer, plus twice how early it stands, plus 1 where it is
        right; the last bit of the largest key says whether the vote is.
        """
        size = len(members)
        keys = [self._own_MN[member] + np.uint8(2 * (size - place - 1)) for place, member in enumerate(members)]
        answers = [self._answers_MN[member] for member in members]
        answered = [own_N >= 16 for own_N in keys]
        for i in range(size):
            for j in range(i + 1, size):
                equal_N = ((answers[i] == answers[j]) & answered[i]).view(np.uint8) << 4
                keys[i] += equal_N
                keys[j] += equal_N
        return _odd(keys)


class PairTable:
    """Votes for each member's answer as sums of bytes, where any two agents agree being kept for the table."""

    name = "sums of a table of pairwise equality"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        answers_MN = np.ascontiguousarray(answers_NM.T)
        self._equal_MMN = ((answers_MN == answers_MN[:, None]) & (answers_MN[:, None] >= 0)) * np.uint8(16)
        every_M = np.arange(len(answers_MN))
        self._equal_MMN[every_M, every_M] += answers_MN == labels_N

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote is right; keys are those of `Pairwise`."""
        members_S = np.array(members)
        keys_SN = np.add.reduce(self._equal_MMN[members_S[:, None], members_S], axis=1, dtype=np.uint8)
        keys_SN += 2 * np.arange(len(members) - 1, -1, -1, dtype=np.uint8)[:, None]
        return int(np.count_nonzero(np.maximum.reduce(keys_SN, axis=0) & 1))


class PairBits:
    """The same as one bit a question: counts in binary digits by full adders, np.bitwise_count at the end."""

    name = "the same as bits, full adders on words"

    def __init__(self, answers_NM: IntArray, labels_N: IntArray) -> None:
        answers_MN = np.ascontiguousarray(answers_NM.T)
        answered_MN = answers_MN >= 0
        self._answered = [_bits(row_N) for row_N in answered_MN]
        self._right = [_bits(answers_N == labels_N) for answers_N in answers_MN]
        self._equal = [
            [_bits((other_N == answers_MN[i]) & answered_MN[i]) for other_N in answers_MN]
            for i in range(len(answers_MN))
        ]

    def votes(self, members: Sequence[int]) -> int:
        """Return on how many questions the vote of at most 7 is right: the first to have the most votes wins."""
        best = self._digits(members[0], members)
        right_W = self._right[members[0]]
        for member in members[1:]:
            digits = self._digits(member, members)
            # Larger by the highest digit in which they differ.
            more_W = digits[0] & ~best[0]
            for ours_W, theirs_W in zip(digits[1:], best[1:], strict=True):
                differ_W = ours_W ^ theirs_W
                more_W = (differ_W & ours_W) | (more_W & ~differ_W)
            best = [low ^ ((low ^ high) & more_W) for low, high in zip(best, digits, strict=True)]
            right_W = right_W ^ ((right_W ^ self._right[member]) & more_W)
        return int(np.bitwise_count(right_W).sum())

    def _digits(self, member: int, members: Sequence[int]) -> list[IntArray]:
        """Return the votes for a member's answer as binary digits, the lowest first."""
        rows = [self._equal[member][other] for other in members]
        ones, twos = rows[0], None
        fours = None
        for row in rows[1:]:
            carry, ones = ones & row, ones ^ row
            if twos is None:
                twos = carry
            else:
                over, twos = twos & carry, twos ^ carry
                fours = over if fours is None else fours | over
        return [digit for digit in (ones, twos, fours) if digit is not None]


VOTES = (AddAt, Bincount, OneHot, Pairwise, PairTable, PairBits)


class FocalTake:
    """Focal diversity from numbers of joint failures, gathered for the members and summed.

    Args:
        correct_NM: bool [N, M], agents in tie order.
    """

    name = "gathered joint failures"

    def __init__(self, correct_NM: BoolArray) -> None:
        failed_MN = (~correct_NM.T).astype(np.float64)
        self._num_agents = len(failed_MN)
        self._pairs_MM = failed_MN @ failed_MN.T
        self._triples_MMM = np.stack([(failed_MN * row_N) @ failed_MN.T for row_N in failed_MN])

    def focal(self, members: Sequence[int]) -> float:
        """Return the focal diversity."""
        members_S = np.array(members)
        cells_SS = members_S[:, None] * self._num_agents + members_S
        cells_SSS = cells_SS[:, :, None] * self._num_agents + members_S
        once_S = self._pairs_MM.take(cells_SS).sum(axis=1)
        twice_S = self._triples_MMM.take(cells_SSS).sum(axis=(1, 2))
        return _focal(once_S, twice_S)


class FocalProduct(FocalTake):
    """The same by products with the indicator of the members."""

    name = "joint failures times the members' indicator"

    def __init__(self, correct_NM: BoolArray) -> None:
        super().__init__(correct_NM)
        self._triples = self._triples_MMM.reshape(-1, self._num_agents)

    def focal(self, members: Sequence[int]) -> float:
        """Return the focal diversity."""
        members_S = list(members)
        inside_M = np.zeros(self._num_agents)
        inside_M[members_S] = 1
        once_S = (self._pairs_MM @ inside_M)[members_S]
        twice_S = ((self._triples @ inside_M).reshape(self._num_agents, -1) @ inside_M)[members_S]
        return _focal(once_S, twice_S)


class FocalLoop(FocalTake):
    """The same by a loop over pairs and triples of members in plain Python."""

    name = "joint failures of pairs and triples in a loop"

    def __init__(self, correct_NM: BoolArray) -> None:
        super().__init__(correct_NM)
        self._pairs = self._pairs_MM.tolist()
        self._triples_of = self._triples_MMM.tolist()

    def focal(self, members: Sequence[int]) -> float:
        """Return the focal diversity."""
        size = len(members)
        pairs = list(itertools.combinations(members, 2))
        lost = 0.0
        for i in members:
            own_pairs, own_triples = self._pairs[i], self._triples_of[i]
            if own_pairs[i]:
                shared = sum([own_triples[j][k] for j, k in pairs])
                lost += 2 * shared / sum([own_pairs[j] for j in members])
        return 1 - lost / (size * (size - 1))


FOCALS = (FocalTake, FocalProduct, FocalLoop)


def _focal(once_S: FloatArray, twice_S: FloatArray) -> float:
    """Return the mean of rho_i = 1 - (sum_jk N_ijk - sum_j N_ij) / ((S - 1) sum_j N_ij); 1 where i never fails."""
    size = len(once_S)
    if once_S.all():
        return float(1 - ((twice_S - once_S) / once_S).sum() / (size * (size - 1)))
    lost_S = np.divide(twice_S - once_S, once_S, out=np.zeros(size), where=once_S > 0)
    return float(1 - lost_S.sum() / (size * (size - 1)))


def _odd(keys: list[IntArray]) -> int:
    """Return on how many questions the largest key is odd."""
    best_N = keys[0]
    for key_N in keys[1:]:
        best_N = np.maximum(best_N, key_N)
    return int(np.count_nonzero(best_N & 1))


def _bits(values_N: BoolArray) -> IntArray:
    """Return booleans as words of 64 bits."""
    return np.packbits(np.pad(values_N, (0, -len(values_N) % 64))).view(np.uint64)
