"""What every criterion chooses, and what that is worth on the other questions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.topla.columns import Columns, Told
from benchmarks.topla.judge import FUSERS, Judge
from benchmarks.topla.refit import FUSER, Refit
from fusion.pruning._outcomes import Members
from fusion.selectors import Objective

CRITERIA: Mapping[str, tuple[str, bool]] = {
    "top k": ("mean_accuracy", False),
    "focal": ("focal", False),
    "focal 0.5, accuracy 0.5": ("focal=0.5,accuracy=0.5", False),
    "focal 0.1, accuracy 0.9": ("accuracy=0.9,focal=0.1", False),
    "accuracy": ("accuracy", False),
    "accuracy, ties by focal": ("accuracy=1,focal=1e-6", False),
    "weighted accuracy": ("weighted_accuracy", False),
    "weighted accuracy, ties by focal": ("weighted_accuracy=1,focal=1e-6", False),
    "second stage on accuracy": ("accuracy", True),
    "second stage on weighted accuracy": ("weighted_accuracy", True),
}
"""By name: the objective, and whether the best by it are ordered by `weighted_vote`, cross-validated."""

SPACES: Mapping[str, tuple[int, ...]] = {
    "2": (2,),
    "3": (3,),
    "5": (5,),
    "8": (8,),
    "2-5": (2, 3, 4, 5),
    "2-8": (2, 3, 4, 5, 6, 7, 8),
}

PAIRS = (
    ("focal", "accuracy"),
    ("focal", "top k"),
    ("focal 0.5, accuracy 0.5", "accuracy"),
    ("focal 0.5, accuracy 0.5", "top k"),
    ("focal 0.1, accuracy 0.9", "accuracy"),
    ("accuracy, ties by focal", "accuracy"),
    ("weighted accuracy", "accuracy"),
    ("weighted accuracy, ties by focal", "weighted accuracy"),
    ("second stage on accuracy", "accuracy"),
    ("second stage on weighted accuracy", "weighted accuracy"),
    ("second stage on weighted accuracy", "second stage on accuracy"),
    ("second stage on accuracy", "focal 0.5, accuracy 0.5"),
)
"""Criteria that are compared with each other."""

CHECKED = 3
"""How many sub-ensembles of every size are also cross-validated by `fusion.pruning`."""


def choices(columns: Columns, *, seed: int, candidates: int, threads: int, told: Told) -> dict[str, Any]:
    """Choose by every criterion from every space, and measure what was chosen.

    Args:
        columns: What is known of all sub-ensembles.
        seed: Of the folds.
        candidates: How many a second stage compares.
        threads: How many work at a time.
        told: Told what is done.

    Returns:
        Test accuracies of the rivals; and by space what all its sub-ensembles are worth on average and at best, what
        each criterion chose, and the comparisons of `PAIRS`.
    """
    judge = Judge(columns.parts)
    refit = Refit(columns.parts.fit, seed, threads=threads)
    refit.check([columns.names(rows_PS[place]) for rows_PS in columns.rows.values() for place in _some(len(rows_PS))])
    best_single, full_pool = columns.leaders[:1], columns.parts.fit.agents
    spaces: dict[str, Any] = {}
    for space, sizes in SPACES.items():
        if not set(sizes) <= columns.rows.keys():
            continue
        told(f"choosing from sizes {space}")
        chosen = {
            name: _chosen(columns, refit, criterion, sizes, candidates)
            for name, criterion in CRITERIA.items()
            if len(sizes) == 1 or name != "top k"
        }
        found: dict[str, Any] = {}
        for name, (members, objective) in chosen.items():
            rivals = {
                "best single": best_single,
                "full pool": full_pool,
                "top k": columns.names(range(len(members))),
            }
            found[name] = {
                "agents": list(members),
                "objective": objective,
                "fit": _known(columns, refit, members),
                "test": {fuser: judge.accuracy(members, fuser) for fuser in FUSERS},
                "against": {
                    fuser: {rival: judge.difference(members, other, fuser) for rival, other in rivals.items()}
                    for fuser in FUSERS
                },
            }
        pairs = {
            f"{a} - {b}": {fuser: judge.difference(chosen[a][0], chosen[b][0], fuser) for fuser in FUSERS}
            for a, b in PAIRS
            if a in chosen and b in chosen
        }
        spaces[space] = {"all": _scale(columns, sizes), "chosen": found, "pairs": pairs}
    return {
        "best single": {"agent": best_single[0], "accuracy": judge.accuracy(best_single, "vote")},
        "full pool": {fuser: judge.accuracy(full_pool, fuser) for fuser in FUSERS},
        "spaces": spaces,
    }


def _chosen(
    columns: Columns, refit: Refit, criterion: tuple[str, bool], sizes: Sequence[int], candidates: int
) -> tuple[Members, float]:
    """Return the sub-ensemble that a criterion prefers, and the value that it does so for."""
    text, second_stage = criterion
    best = columns.best(Objective.parse(text), sizes, top=candidates if second_stage else 1)
    if not second_stage:
        return columns.names(best.members[0]), float(best.scores.objective[0])
    subsets = [columns.names(members) for members in best.members]
    accuracies = refit.accuracies(subsets)
    # max takes the first of equals: the better one by objective.
    first = max(range(len(subsets)), key=lambda place: accuracies[place])
    return subsets[first], accuracies[first]


def _known(columns: Columns, refit: Refit, members: Members) -> dict[str, float]:
    """Return what is known of a sub-ensemble when choosing."""
    ranks = sorted(columns.leaders.index(name) for name in members)
    place = int(np.flatnonzero((columns.rows[len(ranks)] == ranks).all(axis=1))[0])
    terms = columns.fit[len(ranks)]
    found = {name: float(terms[name][place]) for name in ("focal", "mean_accuracy", "accuracy", "weighted_accuracy")}
    return found | {FUSER: refit.accuracies([members])[0]}


def _scale(columns: Columns, sizes: Sequence[int]) -> dict[str, float]:
    """Return the plurality vote's accuracy over all sub-ensembles: what chance gives, and what nobody could choose."""
    fit_P = np.concatenate([columns.fit[size]["accuracy"] for size in sizes])
    test_P = np.concatenate([columns.test[size]["accuracy"] for size in sizes])
    return {
        "count": len(fit_P),
        "mean fit": float(fit_P.mean()),
        "mean test": float(test_P.mean()),
        "best on test": float(test_P.max()),
    }


def _some(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, CHECKED).astype(int).tolist()))
