"""What the answers so far say: probabilities of the options, whoever has been asked.

The conditional logit of `fusion.logit`, learned from questions of which every second was heard from random agents
alone, so that it is calibrated for few answers as for many. An option's score is a sum over the agents asked, and a
curve of how many named it, so one answer more is one addition; nothing depends on an option's place.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable, accuracy_when_answering, category_places, folds, is_open
from fusion.logit import (
    NUM_COUNTS,
    Model,
    Rows,
    Worth,
    candidates,
    centred,
    count_curves,
    fit,
    joined,
    kinds,
    probabilities,
    scales,
)
from fusion.schema import BoolArray, FloatArray, IntArray, Selection

_MOST = 20_000
"""Questions that are learned from, evenly over the categories, where a table has more."""
_FOLDS = 5
_CHUNK = 10_000
_PENALTY = 300.0
_STEPS = 60


class Beliefs(NamedTuple):
    """Weights of what agents say.

    Attributes:
        weights: float64 [C + 1, D], of the features of `fusion.logit.candidates` in each category; the last row is for
            categories that were not there.
        probs: Whether probabilities are among the features.
    """

    weights: FloatArray
    probs: bool

    @classmethod
    def learn(
        cls,
        table: PredictionTable,
        categories: Sequence[str],
        *,
        rng: np.random.Generator,
        among: BoolArray | None = None,
        worth_NK: FloatArray | None = None,
    ) -> Self:
        """Learn from labelled answers.

        Args:
            table: Questions, with labels.
            categories: Those that are told apart, sorted; none where all questions are of one kind.
            rng: Draws who is heard.
            among: bool [M], who may be heard at all; everybody by default.
            worth_NK: What each option is worth, instead of 1 for the right one; see `advantages`.

        Raises:
            InvalidTable: When the table has no labels.
        """
        counted_NK = _counted(table, worth_NK)
        rows, probs = _rows(table, categories, rng=rng, among=among, counted_NK=counted_NK), table.probs is not None
        scale_D = scales(rows.candidates.features, table.num_agents, probs=probs)
        scaled = rows.candidates._replace(features=rows.candidates.features / scale_D)
        model = Model(
            _direction(table, len(scale_D), counted_NK), kinds(table.num_agents, probs=probs), len(categories) > 1
        )
        learned = fit(dataclasses.replace(rows, candidates=scaled), model)
        return cls(np.vstack([learned.groups, learned.common]) / scale_D, probs)

    def views(self, table: PredictionTable, category_N: IntArray) -> "Views":
        """Return what they say of the questions of a table, which are in categories `category_N`; -1 is none of fit."""
        num_agents, weights_ND = table.num_agents, self.weights[category_N]
        gains_NMK = np.zeros((len(table), num_agents, table.max_options), dtype=np.float32)
        n_A, m_A = np.nonzero(table.answers >= 0)
        gains_NMK[n_A, m_A, table.answers[n_A, m_A]] = weights_ND[n_A, m_A]
        if self.probs and table.probs is not None:
            _, likely, logs, _ = kinds(num_agents, probs=True)
            everyone = np.ones((len(table), num_agents), dtype=bool)
            for low in range(0, len(table), _CHUNK):
                part = slice(low, low + _CHUNK)
                for values_BKM, columns in zip(centred(table, everyone[part], part), (likely, logs), strict=True):
                    gains_NMK[part] += np.moveaxis(values_BKM * weights_ND[part, None, columns], 1, 2)
        curves = count_curves(np.arange(num_agents + 1.0), num_agents)
        return Views(gains_NMK, weights_ND[:, -NUM_COUNTS:] @ curves.T)


class Views(NamedTuple):
    """What beliefs say of each question.

    Attributes:
        gains: float32 [N, M, K], what an agent's answer adds to the score of each option.
        curves: float64 [N, M + 1], what the number of votes for an option adds.
    """

    gains: FloatArray
    curves: FloatArray


def rewarded(
    beliefs: Beliefs,
    table: PredictionTable,
    categories: Sequence[str],
    *,
    rng: np.random.Generator,
    among: BoolArray | None = None,
    worth_NK: FloatArray | None = None,
) -> Beliefs:
    """Return weights that maximise the expected reward sum_n P(right), less a penalty about those that are given.

    Args:
        beliefs: Where to begin.
        table: Labelled questions.
        categories: Those of the beliefs.
        rng: Draws who is heard.
        among: bool [M], who may be heard at all.
        worth_NK: What each option is worth, instead of 1 for the right one.
    """
    from scipy.optimize import minimize

    counted_NK = _counted(table, worth_NK)
    rows = _rows(table, categories, rng=rng, among=among, counted_NK=counted_NK)
    found, worth = rows.candidates, rows.counted()
    counts_N, question_R, group_N = np.diff(found.start), found.question, rows.group
    start = beliefs.weights

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        weights_CD = flat.reshape(start.shape)
        scores_R = np.einsum("rd,rd->r", found.features, weights_CD[group_N[question_R]])
        probs_R, log_sums_N = probabilities(scores_R, counts_N, found.unnamed)
        reward_N = worth.unnamed * found.unnamed * np.exp(-log_sums_N)
        np.add.at(reward_N, question_R, worth.named * probs_R)
        slope_R = (reward_N[question_R] - worth.named) * probs_R
        slope_CD = _PENALTY * (weights_CD - start)
        np.add.at(slope_CD, group_N[question_R], slope_R[:, None] * found.features)
        return float(_PENALTY / 2 * ((weights_CD - start) ** 2).sum() - reward_N.sum()), slope_CD.ravel()

    reached = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return beliefs._replace(weights=reached.reshape(start.shape))


def advantages(answers_NM: IntArray, worth_NK: FloatArray) -> FloatArray:
    """Return how much more than the worst one given each option is worth, float64 [N, K]; 0 for those nobody gave.

    What is taken off all options of a question does not change which is worth most on average, and leaves what differs.
    """
    given_NK = np.zeros(worth_NK.shape, dtype=bool)
    n_A, m_A = np.nonzero(answers_NM >= 0)
    given_NK[n_A, answers_NM[n_A, m_A]] = True
    least_N1 = np.where(given_NK, worth_NK, np.inf).min(axis=1, keepdims=True)
    return np.where(given_NK, worth_NK - np.where(np.isfinite(least_N1), least_N1, 0), 0.0)


def _counted(table: PredictionTable, worth_NK: FloatArray | None) -> FloatArray | None:
    """Return how often options count as right, float64 [N, K], once on the mean question."""
    if worth_NK is None:
        return None
    gained_NK = advantages(table.answers, worth_NK)
    return np.asarray(gained_NK / (gained_NK.sum(axis=1).mean() or 1.0))


def cross_fitted(
    table: PredictionTable,
    categories: Sequence[str],
    *,
    seed: int,
    worth_NK: FloatArray | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Views:
    """Return what beliefs that were learned from other questions say of each labelled question.

    Args:
        table: The questions.
        categories: Those that are told apart, sorted.
        seed: Of folds, and of who is heard.
        worth_NK: What each option is worth, instead of 1 for the right one.
        told: Told how many folds are done, and how many there are.

    Raises:
        InvalidTable: When the table has no labels.
    """
    category_N = category_places(table, categories)
    num_folds = min(_FOLDS, len(table))
    if num_folds < 2:
        beliefs = Beliefs.learn(table, categories, rng=np.random.default_rng(seed), worth_NK=worth_NK)
        return beliefs.views(table, category_N)
    fold_N = folds(table, num_folds, seed=seed)
    found = Views(
        np.zeros((len(table), table.num_agents, table.max_options), dtype=np.float32),
        np.zeros((len(table), table.num_agents + 1)),
    )
    for fold in range(num_folds):
        if told is not None:
            told(fold, num_folds)
        mine_N = fold_N == fold
        if not mine_N.any():
            continue
        worth_XK = None if worth_NK is None else worth_NK[~mine_N]
        rng = np.random.default_rng([seed, fold])
        beliefs = Beliefs.learn(table.rows(~mine_N), categories, rng=rng, worth_NK=worth_XK)
        own = beliefs.views(table.rows(mine_N), category_N[mine_N])
        width = own.gains.shape[2]
        found.gains[mine_N, :, :width], found.curves[mine_N] = own
    return found


def _rows(
    table: PredictionTable,
    categories: Sequence[str],
    *,
    rng: np.random.Generator,
    among: BoolArray | None,
    counted_NK: FloatArray | None,
) -> Rows:
    """Return labelled questions as every second is heard from random agents alone."""
    labels_N, absent = table.require_labels(), is_open(table)
    category_N = category_places(table, categories)
    # Where the right answer is not among the options of a closed question, no option is.
    known_N = np.flatnonzero((category_N >= 0) & (absent | (labels_N >= 0)))
    order_N = known_N[np.argsort(category_N[known_N], kind="stable")]
    if len(order_N) > _MOST:
        order_N = order_N[np.linspace(0, len(order_N) - 1, _MOST).astype(np.intp)]
    ordered = table.rows(order_N)
    heard = Selection(_heard(len(ordered), table.num_agents, rng) & (True if among is None else among))
    parts = candidates(ordered, heard, probs=table.probs is not None, samples=1, absent=absent)
    found = joined([part for _, part in parts])
    bounds = np.searchsorted(category_N[order_N], np.arange(max(1, len(categories)) + 1))
    worth = None
    if counted_NK is not None:
        own_NK = counted_NK[order_N]
        named_R = own_NK[found.question, found.option]
        unnamed_N = own_NK.sum(axis=1)
        np.subtract.at(unnamed_N, found.question, named_R)
        worth = Worth(named_R, np.where(found.unnamed > 0, np.maximum(unnamed_N, 0), 0))
    return Rows(candidates=found, right=found.place(labels_N[order_N]), bounds=bounds, worth=worth)


def _heard(num_questions: int, num_agents: int, rng: np.random.Generator) -> BoolArray:
    """Return bool [N, M], who is heard: everybody on every second question, else a random share, at least one."""
    heard_NM = rng.random((num_questions, num_agents)) < rng.random((num_questions, 1))
    heard_NM[np.arange(num_questions), rng.integers(0, num_agents, num_questions)] = True
    heard_NM[::2] = True
    return heard_NM


def _direction(table: PredictionTable, num_features: int, counted_NK: FloatArray | None) -> FloatArray:
    """Return the direction that weights are shrunk towards, [1, D]: votes by the log odds of being right."""
    most = max(table.max_options, 2)
    right_M = accuracy_when_answering(table) if counted_NK is None else _share_counted(table, counted_NK)
    right_M = np.clip(right_M, 1.02 / most, 0.99)
    direction_1D = np.zeros((1, num_features))
    direction_1D[0, : table.num_agents] = np.log(right_M * (most - 1) / (1 - right_M))
    return np.asarray(direction_1D / np.linalg.norm(direction_1D))


def _share_counted(table: PredictionTable, counted_NK: FloatArray) -> FloatArray:
    """Return each agent's share of what counts as right on the questions that it answers, float64 [M]."""
    said_NM = table.answers >= 0
    place_NM = np.maximum(table.answers, 0).astype(np.intp)
    own_M = np.where(said_NM, np.take_along_axis(counted_NK, place_NM, axis=1), 0).sum(axis=0)
    all_M = (said_NM * counted_NK.sum(axis=1)[:, None]).sum(axis=0)
    return np.asarray(own_M / np.where(all_M > 0, all_M, 1))
