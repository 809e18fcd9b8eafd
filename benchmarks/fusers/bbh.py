"""Recorded option scores of 22 tasks of BIG-Bench Hard: tasks as categories, against a stacker of each task's own."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from benchmarks.fusers.systems import (
    BEST_PER_CATEGORY,
    LEARNED,
    ONE_FOR_ALL,
    POSITIONS,
    STACKER,
    Told,
    outcome,
)
from fusion.data import PredictionTable, folds
from fusion.fusers.topla_weighted import ToplaWeighted
from fusion.schema import BoolArray, FloatArray, IntArray

AGENTS = ("Llama-2-70b-chat", "Mixtral-8x7B-Instruct", "gemma-7b", "phi-2", "Mistral-7B")
FOLDS, INNER_FOLDS = 5, 3
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""C of scikit-learn: what the stackers of single tasks choose from."""

PER_TASK = "stacker of each task"
PLAIN = ("majority class", "vote", "mean score", BEST_PER_CATEGORY, PER_TASK)
LIBRARY = (STACKER, ONE_FOR_ALL, LEARNED, POSITIONS)


class Scores(NamedTuple):
    """The scores of all tasks as a table, and as they are.

    Attributes:
        table: Tasks are its categories; probabilities are the softmax of the scores over the options.
        scores: float64 [N, M, K], 0 beyond the options of a question.
    """

    table: PredictionTable
    scores: FloatArray

    def first(self, count: int) -> "Scores":
        """Return the first tasks alone."""
        tasks_N = self.table.require_categories()
        kept_N = np.isin(tasks_N, np.unique(tasks_N)[:count])
        return Scores(self.table.rows(kept_N), self.scores[kept_N])


def read(path: Path) -> Scores:
    """Read an archive with an array [n, 5 K + 1] for every task: K scores of each model in turn, then the label."""
    with np.load(path) as archive:
        arrays = {task: archive[task] for task in sorted(archive.files)}
    sizes = {task: (values.shape[1] - 1) // len(AGENTS) for task, values in arrays.items()}
    most = max(sizes.values())
    scores, ids, tasks = [], [], []
    for task, values in arrays.items():
        own_nMK = values[:, :-1].reshape(len(values), len(AGENTS), sizes[task])
        scores.append(np.pad(own_nMK, ((0, 0), (0, 0), (0, most - sizes[task]))))
        ids += [f"{task}/{n}" for n in range(len(values))]
        tasks += [task] * len(values)
    scores_NMK = np.concatenate(scores)
    num_options_N = np.array([sizes[task] for task in tasks])
    masses_NMK = np.exp(scores_NMK) * (np.arange(most) < num_options_N[:, None, None])
    table = PredictionTable(
        question_ids=ids,
        agents=AGENTS,
        probs=masses_NMK / masses_NMK.sum(axis=2, keepdims=True),
        labels=np.concatenate([values[:, -1] for values in arrays.values()]).astype(np.int64),
        num_options=num_options_N,
        categories=tasks,
    )
    return Scores(table, scores_NMK)


def compared(data: Scores, *, repetitions: int, told: Told) -> dict[str, Any]:
    """Return accuracies by system and task, comparisons with the stacker of each task, and where positions are used."""
    table = data.table
    right = {system: np.zeros(len(table)) for system in (*PLAIN, *LIBRARY)}
    used = dict.fromkeys(sorted(set(table.require_categories().tolist())), 0)
    for repetition in range(repetitions):
        fold_N = folds(table, FOLDS, seed=repetition)
        for fold in range(FOLDS):
            told(f"BBH, repetition {repetition + 1}, fold {fold + 1} of {FOLDS}")
            test_N = fold_N == fold
            fit, test = table.rows(~test_N), table.rows(test_N)
            for system in ("vote", BEST_PER_CATEGORY, *LIBRARY):
                result = outcome(system, fit, test)
                right[system][test_N] += result.correct
                if system == POSITIONS:
                    for task in _with_positions(result.fuser):
                        used[task] += 1
            for system, correct_n in _by_task(data, test_N).items():
                right[system][test_N] += correct_n
    shares = {system: right_N / repetitions for system, right_N in right.items()}
    means = {system: _task_means(share_N, table) for system, share_N in shares.items()}
    pairs = [(a, b) for a in (LEARNED, POSITIONS) for b in shares if a != b]
    return {
        "tasks": {task: int((table.require_categories() == task).sum()) for task in used},
        "positions_used": used,
        "fits": repetitions * FOLDS,
        "accuracy": means,
        "pairs": [{"a": a, "b": b, **_paired(shares[a] - shares[b], table)} for a, b in pairs],
    }


def _with_positions(fuser: ToplaWeighted) -> list[str]:
    """Return the tasks whose weights on log-probabilities less preferences are not all 0."""
    assert fuser.weights_ is not None
    own_CM = fuser.weights_[:, -len(AGENTS) :]
    return [task for task, own_M in zip(fuser.categories_, own_CM, strict=False) if own_M.any()]


def _by_task(data: Scores, test_N: BoolArray) -> dict[str, BoolArray]:
    """Return where the rules are right that this file has itself, bool [n] each."""
    table, labels_N = data.table, data.table.require_labels()
    tasks_N = table.require_categories()
    found = {system: np.zeros(len(table), dtype=bool) for system in ("majority class", "mean score", PER_TASK)}
    for task in sorted(set(tasks_N.tolist())):
        fit_F, test_T = np.flatnonzero((tasks_N == task) & ~test_N), np.flatnonzero((tasks_N == task) & test_N)
        scores_NMK = data.scores[:, :, : int(table.num_options[test_T[0]])]
        found["majority class"][test_T] = labels_N[test_T] == np.bincount(labels_N[fit_F]).argmax()
        found["mean score"][test_T] = labels_N[test_T] == scores_NMK[test_T].mean(axis=1).argmax(axis=1)
        told_T = stacked(scores_NMK[fit_F], labels_N[fit_F], scores_NMK[test_T])
        found[PER_TASK][test_T] = labels_N[test_T] == told_T
    return {system: right_N[test_N] for system, right_N in found.items()}


def stacked(scores_FMK: FloatArray, labels_F: IntArray, scores_TMK: FloatArray) -> IntArray:
    """Return what a multinomial logistic regression of one task says, int [T].

    It reads the scores less their means over the options of the question, all agents and options of them, so it can
    learn what agents prefer. C is chosen by cross-validation on accuracy, the smallest of equals.
    """
    fit_FX, test_TX = (_centred(scores) for scores in (scores_FMK, scores_TMK))
    inner = list(KFold(INNER_FOLDS, shuffle=True, random_state=0).split(fit_FX))

    def hits(strength: float) -> int:
        total = 0
        for train, check in inner:
            model = LogisticRegression(C=strength, max_iter=2_000).fit(fit_FX[train], labels_F[train])
            total += int((model.predict(fit_FX[check]) == labels_F[check]).sum())
        return total

    model = LogisticRegression(C=max(STRENGTHS, key=hits), max_iter=2_000).fit(fit_FX, labels_F)
    told_T: IntArray = model.predict(test_TX)
    return told_T


def _centred(scores_NMK: FloatArray) -> FloatArray:
    centred_NMK: FloatArray = scores_NMK - scores_NMK.mean(axis=2, keepdims=True)
    return centred_NMK.reshape(len(centred_NMK), -1)


def _task_means(values_N: FloatArray, table: PredictionTable) -> dict[str, float]:
    tasks_N = table.require_categories()
    return {task: float(values_N[tasks_N == task].mean()) for task in sorted(set(tasks_N.tolist()))}


def _paired(differences_N: FloatArray, table: PredictionTable) -> dict[str, Any]:
    """Return the mean over tasks, with 95 % intervals over questions of these tasks, and over tasks."""
    tasks_N = table.require_categories()
    groups = [differences_N[tasks_N == task] for task in sorted(set(tasks_N.tolist()))]
    means_T = np.array([own.mean() for own in groups])
    mean, count = float(means_T.mean()), len(groups)
    questions = 1.96 * float(np.sqrt(sum(own.var(ddof=1) / len(own) for own in groups))) / count
    tasks = float(stdtrit(count - 1, 0.975) * means_T.std(ddof=1) / np.sqrt(count))
    return {"mean": mean, "questions": [mean - questions, mean + questions], "tasks": [mean - tasks, mean + tasks]}
