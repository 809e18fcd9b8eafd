"""Compiled kernel of the plurality vote, on planes of bits.

Take members in order and let, on one question, lead(o) be the votes for the right option less those for a wrong
option o, plus 1 where a member that is right stands before the first backer of o. The vote is right where somebody is
right and lead(o) >= 1 for every wrong option named: that is the tie rule. One more vote changes a lead by at most one,
so with r members to come only leads from 1 - r to 1 + r matter, and each option is kept at the member that named it
first as planes "lead >= k". The last member needs three facts of the others: where the vote is right (`right`), where
one more right vote would make it so (`nearly`), and where one more vote for the option of member i would not lose it
(`safe`, lead >= 2). It brings up no option that could win: a single late vote never does.

Rows that share their first members with the row before share the work on them, so lexicographic order is fastest.
Correctness is checked against a vote row by row in tests/test_kernels.py.
"""

import numpy as np

from fusion.schema import IntArray
from fusion.selectors._kernels import Words, compiled, inlined, pair_of, shared_members
from fusion.selectors._vectors import LANES, load, popcounts, store, total, zeros


@inlined
def _aligned(num_words: int) -> Words:
    """Return a flat array of words that begins at the start of a line of the cache."""
    words = np.empty(num_words + LANES, np.uint64)
    first = (-(words.ctypes.data // 8)) % LANES
    return words[first : first + num_words]


@inlined
def _extend(
    lead: Words,
    hits: Words,
    correct: Words,
    wrong: Words,
    agree: Words,
    pairs_S: IntArray,
    new: int,
    depth: int,
    size: int,
    num_words: int,
) -> None:
    """Add a member, not the last two, to the state of the members before it.

    All planes are flat. Those of a state are interleaved: its vector 0 of every plane, then vector 1, and so on, so
    that one pass reads memory in order.

    Args:
        lead: [S, W / 8, S, 2 S + 3, 8]; lead[d, w, i, k - k0] is the plane "lead >= k" of the option first named by
            member i, once members 0..d are counted, from k0 = 1 - r on with r members to come; all ones where member
            i named no new wrong option.
        hits: [S, W / 8, S + 1, 8]; hits[d, w, c] is the plane "at least c of the members 0..d are right".
        correct: [M, W], where each agent is right.
        wrong: [M, W], where it names a wrong option.
        agree: [Q, W], where two agents name the same wrong option.
        pairs_S: Where the planes of the new member's agreement with each before it begin in `agree`.
        new: The member.
        depth: How many are before it.
        size: S.
        num_words: W.
    """
    left = size - (depth + 1)
    option = (2 * size + 3) * LANES
    at_depth = size * option * (num_words // LANES)
    hits_at_depth = (size + 1) * num_words
    for w in range(0, num_words, LANES):
        hit = load(correct, new * num_words + w)
        known = ~load(wrong, new * num_words + w)
        into = depth * at_depth + w * (option // LANES) * size
        for i in range(depth):
            same = load(agree, pairs_S[i] + w)
            known |= same
            at = into + i * option - at_depth
            to = into + i * option
            less = load(lead, at)
            level = load(lead, at + LANES)
            for _ in range(2 * left + 1):
                more = load(lead, at + 2 * LANES)
                store(lead, to, more | (level & ~same) | (less & hit))
                less = level
                level = more
                at += LANES
                to += LANES
        to = into + depth * option
        for _ in range(left - 1):
            store(lead, to, ~zeros())
            to += LANES
        counted = depth * hits_at_depth + w * (size + 1)
        less = ~zeros()
        for c in range(1, left + 2):
            more = load(hits, counted - hits_at_depth + c * LANES) if depth else zeros()
            if c == 1:
                store(lead, to, known | more)
            store(lead, to + c * LANES, known | more)
            store(hits, counted + c * LANES, more | (less & hit))
            less = more


@inlined
def _close(
    lead: Words,
    hits: Words,
    state: Words,
    correct: Words,
    wrong: Words,
    agree: Words,
    pairs_S: IntArray,
    new: int,
    size: int,
    num_words: int,
) -> None:
    """Add the last but one member and derive what the last one can change.

    Args:
        lead: As in `_extend`, likewise the others.
        hits: Likewise.
        state: [W / 8, S + 1, 8]: the planes `right` and `nearly`, then for each member i "the option first named by i
            loses no vote if one more member names it", which is where it is not fragile.
        correct: Likewise.
        wrong: Likewise.
        agree: Likewise.
        pairs_S: Likewise.
        new: The member.
        size: Likewise.
        num_words: Likewise.
    """
    depth = size - 2
    option = (2 * size + 3) * LANES
    first = (depth - 1) * size * option * (num_words // LANES)
    counted = (depth - 1) * (size + 1) * num_words
    for w in range(0, num_words, LANES):
        hit = load(correct, new * num_words + w)
        known = ~load(wrong, new * num_words + w)
        to = w * (size + 1) + 2 * LANES
        one = load(hits, counted + LANES) if depth else zeros()
        two = load(hits, counted + 2 * LANES) if depth else zeros()
        right = one | hit
        nearly = ~zeros()
        at = first
        for i in range(depth):
            same = load(agree, pairs_S[i] + w)
            behind = load(lead, at)
            level = load(lead, at + LANES)
            ahead = load(lead, at + 2 * LANES)
            safe = load(lead, at + 3 * LANES)
            safer = load(lead, at + 4 * LANES)
            known |= same
            nearly &= ahead | (level & ~same) | (behind & hit)
            right &= safe | (ahead & ~same) | (level & hit)
            store(state, to, safer | (safe & ~same) | (ahead & hit))
            at += option
            to += LANES
        right &= known | one
        store(state, to, known | two)
        store(state, w * (size + 1), right)
        store(state, w * (size + 1) + LANES, nearly & (known | one) & ~right)
        first += size * option
        counted += (size + 1) * LANES


@inlined
def _last(state: Words, correct: Words, agree: Words, pairs_S: IntArray, last: int, num_words: int) -> int:
    """Return on how many questions the vote is right once the last member is counted."""
    before = pairs_S.shape[0]
    counts = zeros()
    at = 0
    for w in range(0, num_words, LANES):
        right = load(state, at)
        nearly = load(state, at + LANES)
        at += 2 * LANES
        lost = zeros()
        for i in range(before):
            lost |= load(agree, pairs_S[i] + w) & ~load(state, at)
            at += LANES
        counts += popcounts((right & ~lost) | (nearly & load(correct, last * num_words + w)))
    return int(total(counts))


@inlined
def _last_two(
    state: Words, correct: Words, agree: Words, pairs_S: IntArray, last: int, num_words: int
) -> tuple[int, int]:
    """Return the same for `last` and the agent after it, whose planes follow, in one pass over the state.

    With four members before it is unrolled: size 5 is what exhaustive search spends its time on.
    """
    before = pairs_S.shape[0]
    counts = zeros()
    nexts = zeros()
    at = 0
    if before == 4:
        a, b, c, d = pairs_S[0], pairs_S[1], pairs_S[2], pairs_S[3]
        for w in range(0, num_words, LANES):
            v = w + num_words
            right = load(state, at)
            nearly = load(state, at + LANES)
            fa = ~load(state, at + 2 * LANES)
            fb = ~load(state, at + 3 * LANES)
            fc = ~load(state, at + 4 * LANES)
            fd = ~load(state, at + 5 * LANES)
            at += 6 * LANES
            lost = (load(agree, a + w) & fa) | (load(agree, b + w) & fb)
            lost |= (load(agree, c + w) & fc) | (load(agree, d + w) & fd)
            counts += popcounts((right & ~lost) | (nearly & load(correct, last * num_words + w)))
            lost = (load(agree, a + v) & fa) | (load(agree, b + v) & fb)
            lost |= (load(agree, c + v) & fc) | (load(agree, d + v) & fd)
            nexts += popcounts((right & ~lost) | (nearly & load(correct, last * num_words + v)))
        return int(total(counts)), int(total(nexts))
    for w in range(0, num_words, LANES):
        v = w + num_words
        right = load(state, at)
        nearly = load(state, at + LANES)
        at += 2 * LANES
        lost = zeros()
        also = zeros()
        for i in range(before):
            fragile = ~load(state, at)
            at += LANES
            lost |= load(agree, pairs_S[i] + w) & fragile
            also |= load(agree, pairs_S[i] + v) & fragile
        counts += popcounts((right & ~lost) | (nearly & load(correct, last * num_words + w)))
        nexts += popcounts((right & ~also) | (nearly & load(correct, last * num_words + v)))
    return int(total(counts)), int(total(nexts))


@inlined
def _find_pairs(pairs_S: IntArray, members: IntArray, count: int, new: int, num_agents: int, num_words: int) -> None:
    """Write where the planes of the agreement of `new` with each of the first `count` members begin."""
    for i in range(count):
        pairs_S[i] = pair_of(members[i], new, num_agents) * num_words


@compiled
def vote_block(correct_MW: Words, wrong_MW: Words, agree_QW: Words, members_PS: IntArray, right_P: IntArray) -> None:
    """Add to `right_P` on how many questions of a block the plurality vote of each sub-ensemble is right.

    Args:
        correct_MW: Where each agent is right, agents in the order in which they settle ties; W is a multiple of 8.
        wrong_MW: Where each agent names a wrong option.
        agree_QW: Where two agents name the same wrong option.
        members_PS: Sub-ensembles of at least two agents, every row ascending.
        right_P: Counts so far.
    """
    num_subsets, size = members_PS.shape
    num_agents, num_words = correct_MW.shape
    correct, wrong, agree = correct_MW.reshape(-1), wrong_MW.reshape(-1), agree_QW.reshape(-1)
    lead = _aligned((size - 2) * size * (2 * size + 3) * num_words)
    hits = _aligned((size - 2) * (size + 1) * num_words)
    state = _aligned((size + 1) * num_words)
    pairs_S = np.empty(size - 1, np.int64)
    p = 0
    while p < num_subsets:
        members = members_PS[p]
        for depth in range(shared_members(members_PS, p, size - 1), size - 1):
            new = int(members[depth])
            _find_pairs(pairs_S, members, depth, new, num_agents, num_words)
            if depth < size - 2:
                _extend(lead, hits, correct, wrong, agree, pairs_S, new, depth, size, num_words)
            else:
                _close(lead, hits, state, correct, wrong, agree, pairs_S, new, size, num_words)
        last = int(members[size - 1])
        _find_pairs(pairs_S, members, size - 1, last, num_agents, num_words)
        two = p + 1 < num_subsets and members_PS[p + 1, size - 1] == last + 1
        if two and shared_members(members_PS, p + 1, size - 1) == size - 1:
            count, following = _last_two(state, correct, agree, pairs_S, last, num_words)
            right_P[p] += count
            right_P[p + 1] += following
            p += 2
        else:
            right_P[p] += _last(state, correct, agree, pairs_S, last, num_words)
            p += 1
