"""How many word operations the vote of a sub-ensemble takes, and how many a second the machine does.

Counted from `fusion.selectors._vote_kernel`: each bitwise operation, each count of bits and each addition to the
count is one, moves are none. A word is 64 questions.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from fusion.selectors._kernels import popcount

_ROUNDS = 20_000


class Operations(NamedTuple):
    """Word operations a sub-ensemble and word, mean over all sub-ensembles of a size in lexicographic order.

    Attributes:
        last: Of the last member.
        shared: Of the members before it, spread over the sub-ensembles that begin with the same ones.
    """

    last: float
    shared: float


def word_operations(num_agents: int, size: int) -> Operations:
    """Return what `vote_block` does a word."""
    # lost = OR of (agree AND NOT safe), the NOTs for two last members at a time; (right AND NOT lost) OR (nearly AND
    # correct); count; add.
    last = 2 * (size - 1) - 1 + (size - 1) / 2 + 4 + 2
    total = math.comb(num_agents, size)
    shared = 0.0
    for depth in range(size - 1):
        left = size - depth - 1
        if left > 1:
            # An option named before: known OR same, then more OR (same AND NOT agree) OR (less AND correct) a level.
            operations = depth * (1 + 5 * (2 * left + 1))
            # NOT wrong; for each number of right members that matters, known OR hits, and hits OR (hits AND correct).
            operations += 1 + 3 * (left + 1)
        else:
            # The last but one: as above on three levels, two of them gathered over options (1 + 5 + 6 + 6); 8 once.
            operations = 18 * depth + 8
        # Each prefix of depth + 1 members that leaves enough agents behind it is done once.
        shared += operations * math.comb(num_agents - left, depth + 1) / total
    return Operations(last, shared)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _stream(planes_RW: Any, rounds: int) -> int:
    num_words = planes_RW.shape[1]
    count = np.uint64(0)
    for r in range(rounds):
        # Rows change with the round, so that rounds cannot be folded into one.
        first = r & 1
        a_W, b_W, c_W, d_W = planes_RW[first], planes_RW[first + 1], planes_RW[first + 2], planes_RW[first + 3]
        e_W, f_W, g_W, h_W = planes_RW[first + 4], planes_RW[first + 5], planes_RW[first + 6], planes_RW[first + 7]
        for w in range(num_words):
            either = (a_W[w] & b_W[w]) | (c_W[w] & d_W[w]) | (e_W[w] & f_W[w]) | (g_W[w] & h_W[w])
            count += popcount(either)
    return int(count)


class Stream:
    """And, or, count of bits and addition on rows of words that stay in the first cache.

    Args:
        num_words: Words of a row.
    """

    def __init__(self, num_words: int) -> None:
        self._planes_RW = np.random.default_rng(0).integers(0, 2**63, (9, num_words), dtype=np.uint64)
        # Four and, three or, one count, one addition.
        self.operations = 9 * num_words * _ROUNDS

    def work(self) -> None:
        """Do `operations` word operations."""
        _stream(self._planes_RW, _ROUNDS)
