"""Noticing that an agent has become worse: whether it is right less often on the latest questions than before.

Reference: STEPD (Nishida and Yamauchi 2007, Detecting concept drift using statistical testing, Discovery Science) with
Fisher's exact test (de Lima Cabral and de Barros 2018, Concept drift detection based on Fisher's exact test,
Information Sciences 442). Deviations:

- Several sizes of "the latest questions" are tried, those of the latest 1, 2, 4, ... looks, as ADWIN tries cuts of its
  window (Bifet and Gavalda 2007, Learning from time-changing data with adaptive windowing, SDM).
- Questions are compared within their category: the test is the exact conditional one of several 2 x 2 tables (Mantel
  and Haenszel 1959, JNCI 22; Mehta, Patel and Gray 1985, JASA 80), Fisher's where there is one. That the stream moves
  on to a category in which the agent is weaker is then no drift.
- The level is spent: look k may raise an alarm by chance with probability alpha / (k (k + 1)), shared by all agents and
  sizes. These sum to alpha, so at most a share alpha of streams without drift, however long, see any alarm (where an
  agent's outcomes within a category are exchangeable). STEPD's level is per test, and grows without bound.

Where a fall began is where the likelihood of one change is largest, in every category a share of right answers before
and one after it (Hinkley and Hinkley 1970, Biometrika 57).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from fusion.errors import UsageError
from fusion.schema import BoolArray, FloatArray, IntArray


class Fall(NamedTuple):
    """An agent that is right less often than before.

    Attributes:
        agent: Its position.
        begun: Outcomes before the fall, by the likeliest place of the change.
        before: Share that was right before that, back to the agent's last fall, on questions of the categories that
            occur since, in the proportions that they have since; from `n_before` outcomes.
        after: Share right since, of the `n_after` outcomes in categories that occurred before.
        p: One-sided p-value of the test that noticed it.
        level: What it had to be below.
    """

    agent: int
    begun: int
    before: float
    after: float
    n_before: int
    n_after: int
    p: float
    level: float


class _Look(NamedTuple):
    """What was known at a look: outcomes, and by category (C of them) their number [C] and the right ones [C, M]."""

    known: int
    num_C: IntArray
    right_CM: IntArray


class DriftDetector:
    """Looks at the outcomes of M agents as they become known.

    Args:
        num_agents: M.
        num_categories: C.
        alpha: Share of streams without drift in which an alarm is raised, at most; in (0, 1).

    Raises:
        UsageError: When alpha is out of range.
    """

    def __init__(self, num_agents: int, *, num_categories: int = 1, alpha: float = 0.01) -> None:
        if not 0 < alpha < 1:
            raise UsageError(f"alpha must lie between 0 and 1, got {alpha}; 0.01 is one false alarm in 100 streams")
        self.alpha = alpha
        shape = (num_categories, num_agents)
        self._looks = [_Look(0, np.zeros(num_categories, dtype=np.int64), np.zeros(shape, dtype=np.int64))]
        self._correct_NM = np.zeros((0, num_agents), dtype=bool)
        self._category_N = np.zeros(0, dtype=np.intp)
        self._since_M = np.zeros(num_agents, dtype=np.int64)

    def look(self, correct_NM: BoolArray, category_N: IntArray | None = None) -> list[Fall]:
        """Take in the outcomes that became known since the last look; return the agents that fell.

        An agent that fell starts anew where its fall began. The first outcomes have nothing to be compared with.

        Args:
            correct_NM: bool [N, M], whether each agent was right, in the order of the stream; N may be 0.
            category_N: int [N] in 0..C - 1; None for one category.
        """
        if not len(correct_NM):
            return []
        last = self._looks[-1]
        codes_N = np.zeros(len(correct_NM), dtype=np.intp) if category_N is None else category_N
        num_C, right_CM = _counts(correct_NM, codes_N, len(last.num_C))
        self._correct_NM = np.concatenate([self._correct_NM, correct_NM])
        self._category_N = np.concatenate([self._category_N, codes_N])
        self._looks.append(_Look(len(self._correct_NM), last.num_C + num_C, last.right_CM + right_CM))
        num_looks = len(self._looks) - 2
        if not num_looks:
            return []
        sizes = [1 << i for i in range(num_looks.bit_length())]
        level = self.alpha / (num_looks * (num_looks + 1)) / (len(self._since_M) * len(sizes))
        falls = []
        for agent in range(len(self._since_M)):
            p = min(self._p(agent, size, level) for size in sizes)
            if p <= level:
                falls.append(self._fall(agent, p, level))
        return falls

    def _p(self, agent: int, size: int, level: float) -> float:
        """Return the p-value of the outcomes of the latest `size` looks against those before; 1 when it is large."""
        now, cut, since = self._looks[-1], self._looks[-1 - size], int(self._since_M[agent])
        if cut.known <= since:
            return 1.0
        start_num_C, start_right_C1 = _counts(
            self._correct_NM[:since, agent : agent + 1], self._category_N[:since], len(now.num_C)
        )
        total_C, recent_C = now.num_C - start_num_C, now.num_C - cut.num_C
        right_C = now.right_CM[:, agent] - start_right_C1[:, 0]
        recent_right = int((now.right_CM - cut.right_CM)[:, agent].sum())
        # The exact test takes a while, and where the normal approximation is not even half way there, it says no.
        if _deviation(total_C, right_C, recent_C, recent_right) > NormalDist().inv_cdf(level) / 2:
            return 1.0
        return p_of_so_few(total_C.tolist(), right_C.tolist(), recent_C.tolist(), recent_right)

    def _fall(self, agent: int, p: float, level: float) -> Fall:
        since = int(self._since_M[agent])
        right_N, category_N = self._correct_NM[since:, agent], self._category_N[since:]
        begun = most_likely_fall(right_N, category_N)
        self._since_M[agent] = since + begun
        num_categories = len(self._looks[0].num_C)
        before_C, after_C = (np.bincount(part_N, minlength=num_categories) for part_N in np.split(category_N, [begun]))
        right_before_C = np.bincount(category_N[:begun], weights=right_N[:begun], minlength=num_categories)
        both_C = (before_C > 0) & (after_C > 0)
        n_before, n_after = int(before_C[both_C].sum()), int(after_C[both_C].sum())
        shares_C = right_before_C[both_C] / before_C[both_C]
        return Fall(
            agent=agent,
            begun=since + begun,
            before=float(shares_C @ after_C[both_C]) / n_after,
            after=float(right_N[begun:][both_C[category_N[begun:]]].mean()),
            n_before=n_before,
            n_after=n_after,
            p=p,
            level=level,
        )


def p_of_so_few(totals: Sequence[int], rights: Sequence[int], recents: Sequence[int], recent_right: int) -> float:
    """Return the probability that at most `recent_right` of the latest questions are right, were they any others.

    Given how many of each category are right in all, those among the latest are hypergeometric in each category, and
    independent between categories. With one category this is Fisher's exact test.

    Args:
        totals: Questions of each of C categories, the latest among them.
        rights: How many of these are right.
        recents: How many of these are the latest ones.
        recent_right: Right ones among the latest, over all categories.

    Example:
        Fisher's tea: 8 questions, 4 of them right, 4 of them the latest, one of which is right: (1 + 16) / 70.

        >>> round(p_of_so_few([8], [4], [4], 1), 6)
        0.242857
    """
    shares_T, lowest = np.ones(1), 0
    for total, right, recent in zip(totals, rights, recents, strict=True):
        if not recent:
            continue
        least, pmf_X = _hypergeometric(total, right, recent)
        lowest += least
        shares_T = np.convolve(shares_T, pmf_X)
    return min(1.0, float(shares_T[: max(recent_right - lowest + 1, 0)].sum()))


def _hypergeometric(total: int, right: int, recent: int) -> tuple[int, FloatArray]:
    """Return the least number of right ones among the recent, and the probabilities of it and all above."""
    from scipy.special import gammaln

    least, most = max(0, recent - (total - right)), min(recent, right)
    x_X = np.arange(least, most + 1, dtype=np.float64)

    def log_choose(n: float, k_X: FloatArray) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(k_X + 1) - gammaln(n - k_X + 1))

    logs_X = log_choose(right, x_X) + log_choose(total - right, recent - x_X)
    pmf_X = np.exp(logs_X - logs_X.max())
    return least, pmf_X / pmf_X.sum()


def most_likely_fall(right_N: BoolArray, category_N: IntArray) -> int:
    """Return how many outcomes came before the one place where the likelihood of a fall is largest, 1 to N - 1.

    A category has one share of right ones before that place and another after it. Places after which no more are
    wrong than before, in the categories that occur on both sides, are no falls.

    Args:
        right_N: bool [N], outcomes in order, N >= 2.
        category_N: int [N] from 0.

    Example:
        >>> outcomes = np.array([1, 1, 0, 1, 1, 0, 0, 0, 1, 0], dtype=bool)
        >>> most_likely_fall(outcomes, np.zeros(10, dtype=int))
        5
    """
    # Of N - 1 places C, one is between the outcomes C and C + 1.
    likelihood_C = np.zeros(len(right_N) - 1)
    missing_C = np.zeros(len(right_N) - 1)
    for code in np.unique(category_N):
        mine_N = category_N == code
        num_C = np.cumsum(mine_N)[:-1].astype(np.float64)
        right_C = np.cumsum(mine_N & right_N)[:-1].astype(np.float64)
        after_C, right_after_C = mine_N.sum() - num_C, (mine_N & right_N).sum() - right_C
        likelihood_C += _log_likelihood(right_C, num_C) + _log_likelihood(right_after_C, after_C)
        missing_C += np.where(num_C > 0, after_C * right_C / np.maximum(num_C, 1) - right_after_C, 0)
    likelihood_C[missing_C <= 0] = -math.inf
    return int(likelihood_C.argmax()) + 1


def _log_likelihood(right_C: FloatArray, num_C: FloatArray) -> FloatArray:
    """Return the log-likelihood of outcomes at the share that is right of them; 0 where there are none."""
    from scipy.special import xlogy

    some_C = np.maximum(num_C, 1.0)
    return np.asarray(xlogy(right_C, right_C / some_C) + xlogy(num_C - right_C, (num_C - right_C) / some_C))


def _counts(correct_NM: BoolArray, category_N: IntArray, num_categories: int) -> tuple[IntArray, IntArray]:
    """Return the number of outcomes in each category, int [C], and of right ones by agent, int [C, M]."""
    num_C = np.bincount(category_N, minlength=num_categories)
    right_CM = np.zeros((num_categories, correct_NM.shape[1]), dtype=np.int64)
    np.add.at(right_CM, category_N, correct_NM)
    return num_C, right_CM


def _deviation(total_C: IntArray, right_C: IntArray, recent_C: IntArray, recent_right: int) -> float:
    """Return how many standard deviations the right ones among the latest are above what is expected (Mantel 1963)."""
    recent_F, right_F = recent_C.astype(np.float64), right_C.astype(np.float64)
    # A category of one question has no variance, and an empty one nothing at all.
    total_F, more_F = np.maximum(total_C, 1.0), np.maximum(total_C - 1.0, 1.0)
    expected = float((recent_F * right_F / total_F).sum())
    variance_C = recent_F * (total_C - recent_F) * right_F * (total_C - right_F) / (total_F**2 * more_F)
    spread = math.sqrt(float(variance_C.sum()))
    return (recent_right - expected) / spread if spread else 0.0
