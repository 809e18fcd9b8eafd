"""What the report computes from answers and labels: who fails together, how much more than chance, who is good at what.

Beyond the legend in `fusion.schema`: C categories, F sets of failing members.
"""

from dataclasses import dataclass

import numpy as np

from fusion.schema import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Members two by two.

    Args:
        value: float [M, M], correlation of errors, or without labels the share of equal answers; nan where undefined.
        together: int [M, M], questions that both get wrong, or without labels both answer.
        same: int [M, M], of those, on how many they give the same answer.
        order: int [M], members so that alike ones are neighbours.
    """

    value: FloatArray
    together: IntArray
    same: IntArray
    order: IntArray


@dataclass(frozen=True, kw_only=True)
class FailingSet:
    """Members that fail together on a question while all others are right.

    Args:
        members: Their indices.
        count: On how many questions exactly these fail.
        expected: On how many they would if failures were independent.
    """

    members: tuple[int, ...]
    count: int
    expected: float


def error_pairs(wrong_NM: BoolArray, answers_NM: IntArray) -> Pairs:
    """Return how alike the members' errors are: the phi coefficient of the indicators of being wrong.

    An abstention is an error, but two abstentions are not the same wrong answer.
    """
    num = len(wrong_NM)
    wrong = wrong_NM.astype(np.float64)
    joint_MM = wrong.T @ wrong
    rate_M = wrong.mean(axis=0)
    covariance_MM = joint_MM / num - np.outer(rate_M, rate_M)
    spread_M = np.sqrt(rate_M * (1 - rate_M))
    scale_MM = np.outer(spread_M, spread_M)
    value_MM = np.full(scale_MM.shape, np.nan)
    np.divide(covariance_MM, scale_MM, out=value_MM, where=scale_MM > 0)
    value_MM = np.clip(value_MM, -1, 1)
    spoken_NM = wrong_NM & (answers_NM >= 0)
    same_MM = _same(answers_NM, spoken_NM)
    return Pairs(value=value_MM, together=joint_MM.astype(np.int64), same=same_MM, order=similar_order(value_MM))


def agreement_pairs(answers_NM: IntArray) -> Pairs:
    """Return how often two members give the same answer where both answer."""
    spoken_NM = answers_NM >= 0
    both_MM = (spoken_NM.T.astype(np.float64) @ spoken_NM.astype(np.float64)).astype(np.int64)
    same_MM = _same(answers_NM, spoken_NM)
    value_MM = np.full(both_MM.shape, np.nan)
    np.divide(same_MM, both_MM, out=value_MM, where=both_MM > 0)
    return Pairs(value=value_MM, together=both_MM, same=same_MM, order=similar_order(value_MM))


def _same(answers_NM: IntArray, counted_NM: BoolArray) -> IntArray:
    """Return int [M, M]: counted for both, and the same answer."""
    # One number for each answer, and a different one for each cell that does not count.
    num_agents = answers_NM.shape[1]
    coded_NM = np.where(counted_NM, answers_NM.astype(np.int32), -1 - np.arange(num_agents, dtype=np.int32))
    same_MM = np.stack([(coded_NM == coded_NM[:, [agent]]).sum(axis=0) for agent in range(num_agents)])
    np.fill_diagonal(same_MM, counted_NM.sum(axis=0))
    return same_MM.astype(np.int64)


def similar_order(value_MM: FloatArray) -> IntArray:
    """Return int [M], an order in which similar members stand together.

    Average linkage (Sokal and Michener 1958) on `value_MM`, undefined similarities taken as 0. Where two clusters are
    joined, the one ordering of the four (each may be turned round) is taken that puts the most similar ends together.
    """
    similar_MM = np.nan_to_num(value_MM, nan=0.0)
    clusters = [[agent] for agent in range(len(similar_MM))]
    linkage = similar_MM.copy()
    np.fill_diagonal(linkage, -np.inf)
    while len(clusters) > 1:
        first, second = sorted(np.unravel_index(np.argmax(linkage), linkage.shape))
        a, b = clusters[first], clusters[second]
        weights = len(a), len(b)
        clusters[first] = max(
            ([*left, *right] for left in (a, a[::-1]) for right in (b, b[::-1])),
            key=lambda joined: similar_MM[joined[len(a) - 1], joined[len(a)]],
        )
        mean = (weights[0] * linkage[first] + weights[1] * linkage[second]) / sum(weights)
        linkage[first], linkage[:, first] = mean, mean
        linkage[first, first] = -np.inf
        linkage = np.delete(np.delete(linkage, second, axis=0), second, axis=1)
        del clusters[second]
    return np.array(clusters[0], dtype=np.int64)


def failure_counts(wrong_NM: BoolArray) -> IntArray:
    """Return int [M + 1], on how many questions exactly k members fail."""
    return np.bincount(wrong_NM.sum(axis=1), minlength=wrong_NM.shape[1] + 1)


def independent_counts(rates_M: FloatArray, *, num_questions: int) -> FloatArray:
    """Return float [M + 1], how many questions exactly k members would fail on if failures were independent.

    The Poisson binomial distribution of members that fail with the probabilities `rates_M`, by convolution.
    """
    share = np.ones(1)
    for rate in rates_M:
        share = np.append(share * (1 - rate), 0.0) + np.append(0.0, share * rate)
    return share * num_questions


def failing_sets(wrong_NM: BoolArray, *, most: int) -> list[FailingSet]:
    """Return the sets of two or more members that fail together most often, the most frequent first."""
    packed = np.packbits(wrong_NM, axis=1)
    rows, counts = np.unique(packed, axis=0, return_counts=True)
    sets_FM = np.unpackbits(rows, axis=1, count=wrong_NM.shape[1]).astype(np.bool_)
    several = np.flatnonzero(sets_FM.sum(axis=1) >= 2)
    rates_M = wrong_NM.mean(axis=0)
    found = []
    for row in several[np.argsort(-counts[several], kind="stable")][:most]:
        chance = np.prod(np.where(sets_FM[row], rates_M, 1 - rates_M))
        members = tuple(np.flatnonzero(sets_FM[row]).tolist())
        found.append(FailingSet(members=members, count=int(counts[row]), expected=float(chance * len(wrong_NM))))
    return found


def category_strengths(right_NM: BoolArray, codes_N: IntArray, *, num_categories: int) -> FloatArray:
    """Return float [C, M], share of each category's questions that each column answers right."""
    right_CM = np.stack(
        [np.bincount(codes_N, weights=column_N, minlength=num_categories) for column_N in right_NM.T], axis=1
    )
    return right_CM / np.bincount(codes_N, minlength=num_categories)[:, None]
