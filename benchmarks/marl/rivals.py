"""What a policy that asks question by question has to beat: static sub-ensembles, routers to one agent, chance."""

import itertools
from collections.abc import Sequence

import numpy as np

from fusion.data import PredictionTable, category_places, folds
from fusion.fusers.topla_weighted import ToplaWeighted
from fusion.policies import World, play
from fusion.schema import BoolArray, FloatArray, Selection

FOLDS = 3
MOST_SUBSETS = 12
"""Subsets that are compared by cross-validation, chosen by the accuracy of their vote on the questions of fit."""
EXPLORE = 0.5
"""Width of the confidence bound by which the bandit explores."""


def of(table: PredictionTable, members: Sequence[int]) -> Selection:
    """Return the selection of the same agents on every question."""
    mask_NM = np.zeros((len(table), table.num_agents), dtype=bool)
    mask_NM[:, list(members)] = True
    return Selection(mask_NM)


def greedy_order(fit: PredictionTable) -> list[int]:
    """Return agents in the order in which each makes right answers likeliest, given those before it."""
    categories = tuple(sorted(set(fit.require_categories().tolist())))
    world = World.to_learn_from(fit, categories, seed=0)
    courses = play(world, fit.require_labels(), costs_M=np.ones(fit.num_agents), most=fit.num_agents)
    return [int(m) for m in courses.order[-1]]


def best_static(fit: PredictionTable, size: int, greedy: Sequence[int]) -> tuple[int, ...]:
    """Return the best sub-ensemble of a size by what the questions of fit say.

    Candidates are the first agents of the greedy order, the most accurate ones, and those whose plurality vote is most
    accurate: among all subsets where these are few, else among those within two exchanges of the former. The one with
    the highest accuracy of `topla_weighted`, cross-validated, is taken.
    """
    accurate = np.argsort(-fit.accuracies, kind="stable")[:size].tolist()
    first = {tuple(sorted(greedy[:size])), tuple(sorted(accurate))}
    everybody = range(fit.num_agents)
    if fit.num_agents <= 10:
        others = set(itertools.combinations(everybody, size))
    else:
        others = set().union(*(_near(base, fit.num_agents) for base in first))
    votes = sorted(others - first, key=lambda members: -_vote_accuracy(fit, members))
    found = [*sorted(first), *votes[:MOST_SUBSETS]]
    return max(found, key=lambda members: _cross_validated(fit, members))


def _near(base: tuple[int, ...], num_agents: int) -> set[tuple[int, ...]]:
    outside = [m for m in range(num_agents) if m not in base]
    near = set()
    for count in (1, 2):
        for out in itertools.combinations(base, count):
            kept = [m for m in base if m not in out]
            near |= {tuple(sorted([*kept, *new])) for new in itertools.combinations(outside, count)}
    return near


def _vote_accuracy(fit: PredictionTable, members: Sequence[int]) -> float:
    answers_NS = fit.answers[:, list(members)]
    counts_NK = np.zeros((len(fit), fit.max_options), dtype=np.int16)
    for answers_N in answers_NS.T:
        said_N = np.flatnonzero(answers_N >= 0)
        counts_NK[said_N, answers_N[said_N]] += 1
    return float((counts_NK.argmax(axis=1) == fit.labels).mean())


def _cross_validated(fit: PredictionTable, members: Sequence[int]) -> float:
    table = fit.columns([fit.agents[m] for m in members])
    fold_N = folds(table, FOLDS, seed=0)
    right_N = np.zeros(len(table), dtype=bool)
    for fold in range(FOLDS):
        test_N = fold_N == fold
        train, test = table.rows(~test_N), table.rows(test_N)
        fuser = ToplaWeighted().fit(train, of(train, range(len(members))))
        right_N[test_N] = fuser.fuse(test.blind(), of(test, range(len(members)))).answers == test.labels
    return float(right_N.mean())


def bandit(fit: PredictionTable, test: PredictionTable, *, seed: int) -> BoolArray:
    """Return where a contextual bandit is right that asks one agent a question: disjoint LinUCB (Li et al. 2010).

    It goes through the questions of fit once, in random order, and sees the outcome of the agent that it asks alone.
    Its context is the category and the number of options. On the other questions it exploits, and learns nothing.
    """
    contexts = [_contexts(fit, part) for part in (fit, test)]
    width, num_agents = contexts[0].shape[1], fit.num_agents
    inverse_MDD = np.tile(np.eye(width), (num_agents, 1, 1))
    gained_MD = np.zeros((num_agents, width))
    right_NM = fit.correct
    for n in np.random.default_rng(seed).permutation(len(fit)).tolist():
        context_D = contexts[0][n]
        spread_MD = inverse_MDD @ context_D
        mean_M = np.einsum("md,md->m", spread_MD, gained_MD)
        agent = int((mean_M + EXPLORE * np.sqrt(spread_MD @ context_D)).argmax())
        step_D = spread_MD[agent]
        inverse_MDD[agent] -= np.outer(step_D, step_D) / (1 + context_D @ step_D)
        gained_MD[agent] += right_NM[n, agent] * context_D
    weights_MD = np.einsum("mij,mj->mi", inverse_MDD, gained_MD)
    chosen_N = (contexts[1] @ weights_MD.T).argmax(axis=1)
    return np.asarray(test.correct[np.arange(len(test)), chosen_N])


def _contexts(fit: PredictionTable, table: PredictionTable) -> FloatArray:
    categories = sorted(set(fit.require_categories().tolist()))
    kind_NC = np.eye(len(categories) + 1)[category_places(table, categories)]
    return np.column_stack([np.ones(len(table)), kind_NC, table.num_options / 10])
