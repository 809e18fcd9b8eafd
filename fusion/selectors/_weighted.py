"""Compiled kernel for votes with whole-number weights, on the planes of `fusion.selectors._kernels`.

The lead of the right option over a wrong one, weighted, plus 1 where a member that is right stands before the first
backer of the wrong one, is kept as a number of B bits for each member that named a new wrong option: plane b holds bit
b of 64 questions a word, plus an offset of 2^(B-1) so that no number is negative. Adding a member adds its weight
where it is right and subtracts it where it backs that option; comparing with a constant takes one operation a bit.

Correctness is checked against a vote row by row in tests/test_kernels.py.
"""

import numpy as np

from fusion.schema import IntArray
from fusion.selectors._kernels import Words, compiled, inlined, pair_of, popcount, shared_members

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@inlined
def _at_least(number_BW: Words, constant: int, result_W: Words) -> None:
    """Write the plane "number >= constant"; the constant is non-negative and has at most B bits."""
    num_bits, num_words = number_BW.shape
    for w in range(num_words):
        result_W[w] = _ALL
    for b in range(num_bits):
        bit_W = number_BW[b]
        if (constant >> b) & 1:
            for w in range(num_words):
                result_W[w] &= bit_W[w]
        else:
            for w in range(num_words):
                result_W[w] |= bit_W[w]


@inlined
def _add(number_BW: Words, weight: int, where_W: Words, less_W: Words, carry_W: Words, sum_BW: Words) -> None:
    """Write number + weight where `where`, number - weight where `less`, plus the carry, modulo 2^B.

    `where` and `less` share no question; `carry_W` is overwritten.
    """
    num_bits, num_words = number_BW.shape
    for b in range(num_bits):
        bit_W = number_BW[b]
        out_W = sum_BW[b]
        up = _ALL if (weight >> b) & 1 else np.uint64(0)
        down = _ALL if (-weight >> b) & 1 else np.uint64(0)
        for w in range(num_words):
            term = (where_W[w] & up) | (less_W[w] & down)
            half = bit_W[w] ^ term
            out_W[w] = half ^ carry_W[w]
            carry_W[w] = (bit_W[w] & term) | (half & carry_W[w])


@compiled
def weighted_vote_block(
    correct_MW: Words,
    wrong_MW: Words,
    agree_QW: Words,
    weights_M: IntArray,
    num_bits: int,
    members_PS: IntArray,
    right_P: IntArray,
) -> None:
    """Add to `right_P` on how many questions of a block the weighted vote of each sub-ensemble is right.

    Args:
        correct_MW: Where each agent is right, agents in the order in which they settle ties.
        wrong_MW: Where each agent names a wrong option.
        agree_QW: Where two agents name the same wrong option.
        weights_M: int64, non-negative.
        num_bits: B, with 2^(B-1) larger than the sum of any sub-ensemble's weights plus its largest weight plus 2.
        members_PS: Sub-ensembles of at least two agents, every row ascending.
        right_P: Counts so far.
    """
    num_subsets, size = members_PS.shape
    num_agents, num_words = correct_MW.shape
    offset = 1 << (num_bits - 1)
    lead = np.empty((size, size, num_bits, num_words), np.uint64)
    # Support of the right option plus 1 where it has any: its lead over an option that is new.
    support = np.empty((size, num_bits, num_words), np.uint64)
    fresh_SW = np.empty((size, num_words), np.uint64)
    any_SW = np.empty((size, num_words), np.uint64)
    zeros_W = np.zeros(num_words, np.uint64)
    carry_W = np.empty(num_words, np.uint64)
    ahead_W = np.empty(num_words, np.uint64)
    gained_W = np.empty(num_words, np.uint64)
    kept_W = np.empty(num_words, np.uint64)
    zero_BW = np.zeros((num_bits, num_words), np.uint64)
    for p in range(num_subsets):
        members = members_PS[p]
        for depth in range(shared_members(members_PS, p, size), size):
            new = members[depth]
            weight = weights_M[new]
            correct_W = correct_MW[new]
            wrong_W = wrong_MW[new]
            fresh_W = fresh_SW[depth]
            for w in range(num_words):
                fresh_W[w] = wrong_W[w]
            for i in range(depth):
                agree_W = agree_QW[pair_of(members[i], new, num_agents)]
                for w in range(num_words):
                    fresh_W[w] &= ~agree_W[w]
                    carry_W[w] = np.uint64(0)
                _add(lead[depth - 1, i], weight, correct_W, agree_W, carry_W, lead[depth, i])
            before_BW = support[depth - 1] if depth else zero_BW
            any_W = any_SW[depth]
            seen_W = any_SW[depth - 1] if depth else zeros_W
            for w in range(num_words):
                carry_W[w] = np.uint64(0)
                ahead_W[w] = _ALL
            _add(before_BW, offset - weight, ahead_W, zeros_W, carry_W, lead[depth, depth])
            for w in range(num_words):
                carry_W[w] = correct_W[w] & ~seen_W[w]
                any_W[w] = seen_W[w] | correct_W[w]
            _add(before_BW, weight, correct_W, zeros_W, carry_W, support[depth])
        any_W = any_SW[size - 1]
        for w in range(num_words):
            kept_W[w] = any_W[w]
        for i in range(size):
            _at_least(lead[size - 1, i], offset + 1, gained_W)
            fresh_W = fresh_SW[i]
            for w in range(num_words):
                kept_W[w] &= gained_W[w] | ~fresh_W[w]
        count = np.uint64(0)
        for w in range(num_words):
            count += popcount(kept_W[w])
        right_P[p] += count
