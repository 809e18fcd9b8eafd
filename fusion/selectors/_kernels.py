"""Compiled kernels that score sub-ensembles on planes of bits: one word holds 64 questions.

Shapes, besides those of `fusion.schema`: P sub-ensembles, W words of a block, Q = M (M - 1) / 2 pairs of agents.
Agents stand in the order in which they settle ties, the one to be followed first at 0; pair (i, j), i < j, stands at
`pair_of(i, j, M)`. Every row of `members_PS` is ascending; rows that share their first members with the row before
share the work on them, so lexicographic order is fastest.

Plurality vote. Take members in order and let, on one question, lead(o) be the votes for the right option less those
for a wrong option o, plus 1 where a member that is right stands before the first backer of o. The vote is right where
somebody is right and lead(o) >= 1 for every wrong option named: that is the tie rule. One more vote changes a lead by
at most one, so with r members to come only leads from 1 - r to 1 + r matter, and each option is kept at the member
that named it first as planes "lead >= k". The last member needs three facts of the others: where the vote is right
(`right`), where one more right vote would make it so (`nearly`), and where one more vote for the option of member i
would lose it (`fragile`, lead = 1). It brings up no option that could win: a single late vote never does.

Correctness is checked against a vote row by row in tests/test_kernels.py.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from fusion.schema import IntArray

Function = TypeVar("Function", bound=Callable[..., Any])
Words = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def compiled(function: Function) -> Function:
    """Compile on first use and keep the result for later processes; run without holding the interpreter's lock."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # No folder to keep it in can be written to.
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


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
def _extend(
    lead: Words,
    hits: Words,
    fresh_W: Words,
    correct_MW: Words,
    wrong_MW: Words,
    agree_QW: Words,
    members: IntArray,
    depth: int,
) -> None:
    """Add members[depth] to the state of the members before it.

    Args:
        lead: [S, S, 2 S + 3, W]; lead[d, i, k + S] is the plane "lead >= k" of the option first named by member i,
            once members 0..d are counted; all ones where member i named no new wrong option.
        hits: [S, S + 2, W]; hits[d, c] is the plane "at least c of the members 0..d are right".
        fresh_W: Scratch.
        correct_MW: Where each agent is right.
        wrong_MW: Where it names a wrong option.
        agree_QW: Where two agents name the same wrong option.
        members: [S - 1], all but the last.
        depth: Which one is new.
    """
    size = lead.shape[0]
    num_agents, num_words = correct_MW.shape
    left = size - (depth + 1)
    new = members[depth]
    correct_W = correct_MW[new]
    wrong_W = wrong_MW[new]
    for w in range(num_words):
        fresh_W[w] = wrong_W[w]
    for i in range(depth):
        agree_W = agree_QW[pair_of(members[i], new, num_agents)]
        for w in range(num_words):
            fresh_W[w] &= ~agree_W[w]
        for k in range(1 - left, 2 + left):
            less_W = lead[depth - 1, i, k - 1 + size]
            same_W = lead[depth - 1, i, k + size]
            more_W = lead[depth - 1, i, k + 1 + size]
            next_W = lead[depth, i, k + size]
            for w in range(num_words):
                next_W[w] = more_W[w] | (same_W[w] & ~agree_W[w]) | (less_W[w] & correct_W[w])
    for k in range(1 - left, 2 + left):
        next_W = lead[depth, depth, k + size]
        if k < 0:
            for w in range(num_words):
                next_W[w] = _ALL
        elif depth == 0:
            for w in range(num_words):
                next_W[w] = ~fresh_W[w]
        else:
            before_W = hits[depth - 1, max(k, 1)]
            for w in range(num_words):
                next_W[w] = ~fresh_W[w] | before_W[w]
    _count(hits, correct_W, depth)


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


@inlined
def _close(lead: Words, hits: Words, right_W: Words, nearly_W: Words, fragile_SW: Words) -> None:
    """Derive from the state of all members but the last what the last one can change."""
    size, _, _, num_words = lead.shape
    depth = size - 2
    any_W = hits[depth, 1]
    for w in range(num_words):
        right_W[w] = any_W[w]
        nearly_W[w] = _ALL
    for i in range(depth + 1):
        level_W = lead[depth, i, size]
        ahead_W = lead[depth, i, size + 1]
        for w in range(num_words):
            right_W[w] &= ahead_W[w]
            nearly_W[w] &= level_W[w]
    for w in range(num_words):
        nearly_W[w] &= ~right_W[w]
    for i in range(depth + 1):
        safe_W = lead[depth, i, size + 2]
        fragile_W = fragile_SW[i]
        for w in range(num_words):
            fragile_W[w] = right_W[w] & ~safe_W[w]


@inlined
def _last(
    right_W: Words,
    nearly_W: Words,
    fragile_SW: Words,
    correct_W: Words,
    agree_QW: Words,
    pairs_S: IntArray,
    scratch_W: Words,
) -> int:
    """Return on how many questions the vote is right once the last member is counted.

    The first four members are unrolled: sizes 2 to 5 are what exhaustive search spends its time on.
    """
    num_words = correct_W.shape[0]
    before = pairs_S.shape[0]
    count = np.uint64(0)
    a_W = agree_QW[pairs_S[0]]
    fa_W = fragile_SW[0]
    if before == 1:
        for w in range(num_words):
            count += popcount((right_W[w] & ~(a_W[w] & fa_W[w])) | (nearly_W[w] & correct_W[w]))
        return int(count)
    b_W = agree_QW[pairs_S[1]]
    fb_W = fragile_SW[1]
    if before == 2:
        for w in range(num_words):
            lost = (a_W[w] & fa_W[w]) | (b_W[w] & fb_W[w])
            count += popcount((right_W[w] & ~lost) | (nearly_W[w] & correct_W[w]))
        return int(count)
    c_W = agree_QW[pairs_S[2]]
    fc_W = fragile_SW[2]
    if before == 3:
        for w in range(num_words):
            lost = (a_W[w] & fa_W[w]) | (b_W[w] & fb_W[w]) | (c_W[w] & fc_W[w])
            count += popcount((right_W[w] & ~lost) | (nearly_W[w] & correct_W[w]))
        return int(count)
    d_W = agree_QW[pairs_S[3]]
    fd_W = fragile_SW[3]
    if before == 4:
        for w in range(num_words):
            lost = (a_W[w] & fa_W[w]) | (b_W[w] & fb_W[w]) | (c_W[w] & fc_W[w]) | (d_W[w] & fd_W[w])
            count += popcount((right_W[w] & ~lost) | (nearly_W[w] & correct_W[w]))
        return int(count)
    for w in range(num_words):
        scratch_W[w] = (a_W[w] & fa_W[w]) | (b_W[w] & fb_W[w]) | (c_W[w] & fc_W[w]) | (d_W[w] & fd_W[w])
    for i in range(4, before):
        a_W = agree_QW[pairs_S[i]]
        fa_W = fragile_SW[i]
        for w in range(num_words):
            scratch_W[w] |= a_W[w] & fa_W[w]
    for w in range(num_words):
        count += popcount((right_W[w] & ~scratch_W[w]) | (nearly_W[w] & correct_W[w]))
    return int(count)


@compiled
def vote_block(correct_MW: Words, wrong_MW: Words, agree_QW: Words, members_PS: IntArray, right_P: IntArray) -> None:
    """Add to `right_P` on how many questions of a block the plurality vote of each sub-ensemble is right.

    Args:
        correct_MW: Where each agent is right, agents in the order in which they settle ties.
        wrong_MW: Where each agent names a wrong option.
        agree_QW: Where two agents name the same wrong option.
        members_PS: Sub-ensembles of at least two agents, every row ascending.
        right_P: Counts so far.
    """
    num_subsets, size = members_PS.shape
    num_agents, num_words = correct_MW.shape
    lead = np.empty((size, size, 2 * size + 3, num_words), np.uint64)
    hits = np.empty((size, size + 2, num_words), np.uint64)
    right_W = np.empty(num_words, np.uint64)
    nearly_W = np.empty(num_words, np.uint64)
    scratch_W = np.empty(num_words, np.uint64)
    fragile_SW = np.empty((size - 1, num_words), np.uint64)
    members = np.empty(size - 1, np.int64)
    for i in range(size - 1):
        members[i] = -1
    pairs_S = np.empty(size - 1, np.int64)
    for p in range(num_subsets):
        shared = 0
        while shared < size - 1 and members_PS[p, shared] == members[shared]:
            shared += 1
        if shared < size - 1:
            for depth in range(shared, size - 1):
                members[depth] = members_PS[p, depth]
                _extend(lead, hits, scratch_W, correct_MW, wrong_MW, agree_QW, members, depth)
            _close(lead, hits, right_W, nearly_W, fragile_SW)
        last = members_PS[p, size - 1]
        for i in range(size - 1):
            pairs_S[i] = pair_of(members[i], last, num_agents)
        right_P[p] += _last(right_W, nearly_W, fragile_SW, correct_MW[last], agree_QW, pairs_S, scratch_W)


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
    once_S = np.empty(size, np.int64)
    shared_S = np.empty(size, np.int64)
    for p in range(num_subsets):
        for a in range(size):
            once_S[a] = 0
            shared_S[a] = 0
        for a in range(size):
            i = members_PS[p, a]
            for b in range(a + 1, size):
                j = members_PS[p, b]
                pair = pairs_MM[i, j]
                once_S[a] += pair
                once_S[b] += pair
                for c in range(b + 1, size):
                    triple = triples_MMM[i, j, members_PS[p, c]]
                    shared_S[a] += triple
                    shared_S[b] += triple
                    shared_S[c] += triple
        total = 0.0
        for a in range(size):
            i = members_PS[p, a]
            if pairs_MM[i, i] == 0:
                total += 1.0
            else:
                total += 1.0 - 2.0 * (once_S[a] + shared_S[a]) / ((size - 1) * (pairs_MM[i, i] + once_S[a]))
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
