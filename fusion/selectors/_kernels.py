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
def shared_members(members_PS: IntArray, p: int, most: int) -> int:
    """Return how many of its first `most` members row p shares with the row before it."""
    count = 0
    while p > 0 and count < most and members_PS[p, count] == members_PS[p - 1, count]:
        count += 1
    return count


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
    for p in range(num_subsets):
        for depth in range(shared_members(members_PS, p, size), size):
            _count(hits, correct_MW[members_PS[p, depth]], depth)
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
    before = size - 1
    # Unsigned, so that nothing is spent on positions counted from the end.
    num_agents = np.uint64(pairs_MM.shape[0])
    pairs, triples = pairs_MM.reshape(-1), triples_MMM.reshape(-1)
    # Where the counts of a member with the others begin, and those of two members.
    one_S = np.empty(before, np.uint64)
    two_SS = np.empty((before, before), np.uint64)
    # f, u and v of all members but the last, among themselves.
    failed_S, once_S, shared_S = np.empty(before), np.empty(before), np.empty(before)
    scale = 2.0 / (before * size)
    for p in range(num_subsets):
        if p == 0 or shared_members(members_PS, p, before) < before:
            for a in range(before):
                one_S[a] = np.uint64(members_PS[p, a]) * num_agents
                failed_S[a] = pairs[one_S[a] + np.uint64(members_PS[p, a])]
                once_S[a] = 0.0
                shared_S[a] = 0.0
            for a in range(before):
                for b in range(a + 1, before):
                    pair = float(pairs[one_S[a] + np.uint64(members_PS[p, b])])
                    once_S[a] += pair
                    once_S[b] += pair
                    two_SS[a, b] = (one_S[a] + np.uint64(members_PS[p, b])) * num_agents
                    two_SS[b, a] = two_SS[a, b]
                    for c in range(b + 1, before):
                        triple = float(triples[two_SS[a, b] + np.uint64(members_PS[p, c])])
                        shared_S[a] += triple
                        shared_S[b] += triple
                        shared_S[c] += triple
        last = np.uint64(members_PS[p, before])
        own = 0.0
        twice = 0
        joint = 0.0
        for a in range(before):
            pair = float(pairs[one_S[a] + last])
            own += pair
            with_others = 0
            for b in range(before):
                if b != a:
                    with_others += triples[two_SS[a, b] + last]
            twice += with_others
            if failed_S[a] > 0:
                u = once_S[a] + pair
                joint += (u + (shared_S[a] + with_others)) / (failed_S[a] + u)
        failed = float(pairs[last * num_agents + last])
        if failed > 0:
            joint += (own + 0.5 * twice) / (failed + own)
        focal_P[p] = 1.0 - scale * joint


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
