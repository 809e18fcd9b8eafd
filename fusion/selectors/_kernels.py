"""Compiled kernels that score sub-ensembles on planes of bits: one word holds 64 questions.

Shapes, besides those of `fusion.schema`: P sub-ensembles, W words of a block, Q = M (M - 1) / 2 pairs of agents.
Agents stand in the order in which they settle ties, the one to be followed first at 0; pair (i, j), i < j, stands at
`pair_of(i, j, M)`. Every row of `members_PS` is ascending; rows that share their first members with the row before
share the work on them, so lexicographic order is fastest.

Correctness is checked against plain NumPy in tests/test_kernels.py.
"""

import functools
import logging
import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from fusion.schema import IntArray

_LOG = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]


class Compiled:
    """A function that is compiled on first use, and kept for later processes where that is possible.

    It runs without holding the interpreter's lock. Kernels kept by an earlier process may be damaged, and the disk may
    be full: then it is compiled for this process alone.

    Args:
        function: What to compile.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self._compiled = numba.njit(nogil=True, cache=True)(function)
        except RuntimeError:  # No folder to keep it in can be written to.
            self._compiled = numba.njit(nogil=True)(function)

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        try:
            return self._compiled(*arguments)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            _LOG.warning("compiled kernels cannot be kept in or read from %s: %s", _folder(self._compiled), error)
            self._compiled = numba.njit(nogil=True)(self._compiled.py_func)
            return self._compiled(*arguments)

    @property
    def signatures(self) -> list[Any]:
        """The types of arguments that it has been compiled for."""
        return list(self._compiled.signatures)


def compiled(function: Function) -> Function:
    """Return a function that is compiled on first use (`Compiled`); others that are compiled cannot call it."""
    return cast("Function", functools.update_wrapper(Compiled(function), function))


def _folder(function: Any) -> str:
    return str(getattr(function.stats, "cache_path", None) or "the cache")


def inlined(function: Function) -> Function:
    """Compile as a part of the compiled functions that call it."""
    return numba.njit(inline="always")(function)  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def popcount(context: Any, word: Any) -> Any:
    """Return the number of bits set in a word."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@inlined
def pair_of(i: int, j: int, num_agents: int) -> int:
    """Return the position of the pair i < j among all pairs in lexicographic order."""
    return i * (2 * num_agents - i - 1) // 2 + j - i - 1


@inlined
def _count(hits: Words, correct_W: Words, depth: int) -> None:
    """Add one member to the planes "at least c members are right"."""
    num_words = correct_W.shape[0]
    for c in range(1, hits.shape[1]):
        next_W = hits[depth, c]
        if c > depth + 1:
            for w in range(num_words):
                next_W[w] = np.uint64(0)
        elif depth == 0:
            for w in range(num_words):
                next_W[w] = correct_W[w]
        elif c == 1:
            same_W = hits[depth - 1, 1]
            for w in range(num_words):
                next_W[w] = same_W[w] | correct_W[w]
        else:
            same_W = hits[depth - 1, c]
            less_W = hits[depth - 1, c - 1]
            for w in range(num_words):
                next_W[w] = same_W[w] | (less_W[w] & correct_W[w])


@compiled
def hit_block(correct_MW: Words, members_PS: IntArray, counts_PC: IntArray) -> None:
    """Add to `counts_PC` on how many questions at least c + 1 members of each sub-ensemble are right, c < S.

    Args:
        correct_MW: Where each agent is right.
        members_PS: Sub-ensembles.
        counts_PC: [P, S], counts so far.
    """
    num_subsets, size = members_PS.shape
    num_words = correct_MW.shape[1]
    hits = np.empty((size, size + 1, num_words), np.uint64)
    members = np.empty(size, np.int64)
    for i in range(size):
        members[i] = -1
    for p in range(num_subsets):
        shared = 0
        while shared < size and members_PS[p, shared] == members[shared]:
            shared += 1
        for depth in range(shared, size):
            members[depth] = members_PS[p, depth]
            _count(hits, correct_MW[members[depth]], depth)
        for c in range(size):
            level_W = hits[size - 1, c + 1]
            count = np.uint64(0)
            for w in range(num_words):
                count += popcount(level_W[w])
            counts_PC[p, c] += count


@compiled
def co_error_block(failed_MW: Words, pairs_MM: IntArray, triples_MMM: IntArray) -> None:
    """Add to the numbers of questions of a block on which pairs (i <= j) and triples (i < j < k) of agents all fail."""
    num_agents, num_words = failed_MW.shape
    both_W = np.empty(num_words, np.uint64)
    for i in range(num_agents):
        i_W = failed_MW[i]
        for j in range(i, num_agents):
            j_W = failed_MW[j]
            count = np.uint64(0)
            for w in range(num_words):
                both_W[w] = i_W[w] & j_W[w]
                count += popcount(both_W[w])
            pairs_MM[i, j] += count
            if i < j:
                for k in range(j + 1, num_agents):
                    k_W = failed_MW[k]
                    count = np.uint64(0)
                    for w in range(num_words):
                        count += popcount(both_W[w] & k_W[w])
                    triples_MMM[i, j, k] += count


@compiled
def focal(pairs_MM: IntArray, triples_MMM: IntArray, members_PS: IntArray, focal_P: Any) -> None:
    """Write the focal diversity of each sub-ensemble.

    With f_i the failures of member i, u_i those shared with one other member summed over the others, v_i those shared
    with two others summed over pairs of them, the definition (`fusion.selectors.focal_diversity`) becomes
        rho_i = 1 - 2 (u_i + v_i) / ((S - 1) (f_i + u_i)),  1 where f_i = 0.

    Args:
        pairs_MM: From `co_error_block`.
        triples_MMM: Likewise.
        members_PS: Sub-ensembles of at least two agents, every row ascending.
        focal_P: Where to write.
    """
    num_subsets, size = members_PS.shape
    # once[d, a] is u, shared[d, a] is v of member a among the first d members.
    once = np.zeros((size + 1, size), np.int64)
    shared = np.zeros((size + 1, size), np.int64)
    members = np.empty(size, np.int64)
    failed_S = np.empty(size, np.int64)
    for i in range(size):
        members[i] = -1
    for p in range(num_subsets):
        same = 0
        while same < size and members_PS[p, same] == members[same]:
            same += 1
        for depth in range(same, size):
            new = np.int64(members_PS[p, depth])
            members[depth] = new
            failed_S[depth] = pairs_MM[new, new]
            own = np.int64(0)
            both = np.int64(0)
            for a in range(depth):
                shared[depth + 1, a] = shared[depth, a]
            for a in range(depth):
                pair = pairs_MM[members[a], new]
                once[depth + 1, a] = once[depth, a] + pair
                own += pair
                for b in range(a + 1, depth):
                    triple = triples_MMM[members[a], members[b], new]
                    both += triple
                    shared[depth + 1, a] += triple
                    shared[depth + 1, b] += triple
            once[depth + 1, depth] = own
            shared[depth + 1, depth] = both
        total = 0.0
        for a in range(size):
            if failed_S[a] == 0:
                total += 1.0
            else:
                u = once[size, a]
                total += 1.0 - 2.0 * (u + shared[size, a]) / ((size - 1) * (failed_S[a] + u))
        focal_P[p] = total / size


@compiled
def pair_sums(values_MM: Any, members_PS: IntArray, sums_P: Any) -> None:
    """Write the sum over all pairs i < j of members of values_MM[i, j] for each sub-ensemble."""
    num_subsets, size = members_PS.shape
    for p in range(num_subsets):
        total = 0.0
        for a in range(size):
            for b in range(a + 1, size):
                total += values_MM[members_PS[p, a], members_PS[p, b]]
        sums_P[p] = total


@compiled
def combinations(first: IntArray, num_agents: int, members_PS: IntArray) -> None:
    """Write consecutive combinations in lexicographic order, starting with `first`.

    Args:
        first: [S], ascending.
        num_agents: What to choose from: 0 to num_agents - 1.
        members_PS: Where to write; no more rows than there are combinations from `first` on.
    """
    num_subsets, size = members_PS.shape
    row_S = np.empty(size, np.int64)
    for i in range(size):
        row_S[i] = first[i]
    for p in range(num_subsets):
        for i in range(size):
            members_PS[p, i] = row_S[i]
        last = size - 1
        while last >= 0 and row_S[last] == num_agents - size + last:
            last -= 1
        if last >= 0:
            row_S[last] += 1
            for i in range(last + 1, size):
                row_S[i] = row_S[i - 1] + 1
