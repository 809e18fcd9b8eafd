"""What the answers so far say: probabilities of the options, whoever has been asked.

A conditional logit in which every vote adds to the score of its option, with weights of agent and category, learned
from questions of which random sets of agents were heard, so that it is calibrated for few answers as for many. Nothing
in it depends on an option's place.
"""

from typing import NamedTuple

import numpy as np

from fusion.schema import BoolArray, FloatArray, IntArray

_COPIES = 4
"""How often every question is taken, each time with another set of agents heard."""
_WHOLE = 0.2
"""Share of these in which everybody is heard."""
_STEPS = 200


class Beliefs(NamedTuple):
    """Weights of votes.

    Attributes:
        votes: float64 [C, M], what a vote of each agent adds in each category.
        counts: float64 [M + 1], what the number of votes for an option adds, whoever cast them.
    """

    votes: FloatArray
    counts: FloatArray


def fit_beliefs(
    answers_NM: IntArray,
    labels_N: IntArray,
    category_N: IntArray,
    options_N: IntArray,
    *,
    num_categories: int,
    pooling: float,
    rng: np.random.Generator,
) -> Beliefs:
    """Learn from labelled answers, by maximum a posteriori.

    Args:
        answers_NM: Index of the option each agent chose, -1 where it abstained.
        labels_N: The right options; questions with -1 are left out.
        category_N: Category of every question, from 0.
        options_N: How many options each question has.
        num_categories: C.
        pooling: Precision of a category's weights about the common ones.
        rng: Draws who is heard.
    """
    from scipy.optimize import minimize

    known_N = labels_N >= 0
    times = np.tile(np.flatnonzero(known_N), _COPIES)
    num_agents = answers_NM.shape[1]
    share_R1 = rng.random((len(times), 1))
    heard_RM = (rng.random((len(times), num_agents)) < share_R1) | (rng.random((len(times), 1)) < _WHOLE)
    problem = _Problem(answers_NM[times], heard_RM, labels_N[times], category_N[times], options_N[times])
    start = np.concatenate([np.ones(num_agents), np.zeros(num_categories * num_agents + num_agents + 1)])
    found = minimize(
        problem.loss,
        start,
        args=(num_categories, pooling),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS},
    ).x
    common_M = found[:num_agents]
    own_CM = found[num_agents : num_agents + num_categories * num_agents].reshape(num_categories, num_agents)
    return Beliefs(common_M + own_CM, found[num_agents + num_categories * num_agents :])


class _Problem:
    """The negative log-posterior of R questions with who is heard, and its gradient."""

    def __init__(
        self,
        answers_RM: IntArray,
        heard_RM: BoolArray,
        labels_R: IntArray,
        category_R: IntArray,
        options_R: IntArray,
    ) -> None:
        said_RM = heard_RM & (answers_RM >= 0)
        self.row, self.agent = np.nonzero(said_RM)
        self.option = answers_RM[self.row, self.agent].astype(np.intp)
        self.labels, self.category = labels_R, category_R
        self.size = int(options_R.max(initial=1))
        self.valid = np.arange(self.size) < options_R[:, None]
        self.place = self.row * self.size + self.option
        self.counts = np.bincount(self.place, minlength=len(labels_R) * self.size)
        self.right = labels_R[self.row] == self.option
        self.num_agents = answers_RM.shape[1]

    def loss(self, weights: FloatArray, num_categories: int, pooling: float) -> tuple[float, FloatArray]:
        num_agents, rows = self.num_agents, len(self.labels)
        common_M, rest = weights[:num_agents], weights[num_agents:]
        own_CM = rest[: num_categories * num_agents].reshape(num_categories, num_agents)
        curve = rest[num_categories * num_agents :]
        cell = self.category[self.row] * num_agents + self.agent
        votes = (common_M + own_CM).reshape(-1)[cell]
        scores = np.bincount(self.place, weights=votes, minlength=rows * self.size) + curve[self.counts]
        scores_RK = np.where(self.valid, scores.reshape(rows, self.size), -np.inf)
        scores_RK -= scores_RK.max(axis=1, keepdims=True)
        probs_RK = np.exp(scores_RK)
        probs_RK /= probs_RK.sum(axis=1, keepdims=True)
        own_R = probs_RK[np.arange(rows), self.labels]
        value = -np.log(np.maximum(own_R, 1e-300)).sum() / _COPIES
        residual_RK = probs_RK.copy()
        residual_RK[np.arange(rows), self.labels] -= 1
        flat = residual_RK.reshape(-1) / _COPIES
        by_cell = np.bincount(cell, weights=flat[self.place], minlength=num_categories * num_agents)
        slope_CM = by_cell.reshape(num_categories, num_agents)
        by_count = np.bincount(self.counts, weights=flat * self.valid.reshape(-1), minlength=len(curve))
        # Common weights lean to one another, categories' to the common ones, the curve to nothing.
        apart_M = common_M - common_M.mean()
        value += 0.5 * (pooling * (own_CM**2).sum() + (apart_M**2).sum() + (curve**2).sum())
        slope = np.concatenate(
            [slope_CM.sum(axis=0) + apart_M, (slope_CM + pooling * own_CM).reshape(-1), by_count + curve]
        )
        return float(value), slope
