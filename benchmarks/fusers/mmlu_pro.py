"""Recorded answers to MMLU-Pro: all systems on five splits, and those that learn from few labels."""

from typing import Any

import numpy as np

from benchmarks.fusers.systems import (
    BEST_SINGLE,
    LEARNED,
    REFERENCE,
    STACKER,
    SYSTEMS,
    VOTES,
    Told,
    calibration,
    difference,
    outcome,
)
from benchmarks.topla.run import FIT_FRACTION, NEAR_PAPER
from fusion.data import PredictionTable, split

WEAK = 0.6
"""Accuracy on the whole table below which a model is in the second pool."""

DRAWS = {50: 6, 200: 4, 1_000: 2, 5_000: 1}
"""How many labelled questions, and how often so many are drawn from the fit part of every split."""

QUICK_DRAWS = {50: 1, 200: 1}
QUICK_QUESTIONS = 1_500
FEW_SYSTEMS = (BEST_SINGLE, *VOTES, STACKER, LEARNED)


def pools(table: PredictionTable) -> dict[str, PredictionTable]:
    """Return the tables of the three pools."""
    weak = [name for name, value in zip(table.agents, table.accuracies, strict=True) if value < WEAK]
    return {"near paper": table.columns(NEAR_PAPER), "below 60 %": table.columns(weak), "all": table}


def compared(table: PredictionTable, *, seeds: int, told: Told) -> dict[str, Any]:
    """Return by pool and system what every split gave."""
    found: dict[str, Any] = {}
    for name, pool in pools(table).items():
        results = []
        for seed in range(seeds):
            parts = split(pool, fit_fraction=FIT_FRACTION, seed=seed, stratify="category")
            results.append(_one_split(parts.fit, parts.test, told, f"{name}, split {seed}: "))
        found[name] = {
            "agents": list(pool.agents),
            "n_fit": len(parts.fit),
            "n_test": len(parts.test),
            "best_single": [result["best_single"] for result in results],
            "reference_penalties": [result["penalties"] for result in results],
            "systems": {
                system: {
                    key: [result["systems"][system][key] for result in results] for key in results[0]["systems"][system]
                }
                for system in SYSTEMS
            },
        }
    return found


def _one_split(fit: PredictionTable, test: PredictionTable, told: Told, prefix: str) -> dict[str, Any]:
    outcomes = {}
    for system in SYSTEMS:
        told(prefix + system)
        outcomes[system] = outcome(system, fit, test)
    told(f"{prefix}comparing")
    best, learned = outcomes[BEST_SINGLE].correct, outcomes[LEARNED].correct
    figures: dict[str, Any] = {}
    for system, result in outcomes.items():
        figures[system] = {
            "accuracy": float(result.correct.mean()),
            "less_best": difference(result.correct, best),
            "learned_less": difference(learned, result.correct),
            "calibration": calibration(result),
            "fit_s": list(result.fit),
            "fuse_s": list(result.fuse),
        }
    return {
        "best_single": fit.agents[int(fit.accuracies.argmax())],
        "penalties": list(outcomes[REFERENCE].fuser.penalties),
        "systems": figures,
    }


def few_labels(table: PredictionTable, *, seeds: int, draws: dict[int, int], told: Told) -> dict[str, Any]:
    """Return by pool, number of labels and system the accuracies, [seeds, draws]; everything is chosen on the draw."""
    found: dict[str, Any] = {}
    for name, pool in pools(table).items():
        found[name] = {}
        for size, count in draws.items():
            accuracies: dict[str, list[list[float]]] = {system: [] for system in FEW_SYSTEMS}
            for seed in range(seeds):
                told(f"{name}, {size} labels, split {seed}")
                parts = split(pool, fit_fraction=FIT_FRACTION, seed=seed, stratify="category")
                drawn = [_drawn(parts.fit, size, np.random.default_rng([seed, size, draw])) for draw in range(count)]
                for system in FEW_SYSTEMS:
                    rights = [outcome(system, few, parts.test).correct for few in drawn]
                    accuracies[system].append([float(right_N.mean()) for right_N in rights])
            found[name][str(size)] = accuracies
    return found


def _drawn(table: PredictionTable, size: int, rng: np.random.Generator) -> PredictionTable:
    return table.rows(np.sort(rng.permutation(len(table))[:size]))


def small(table: PredictionTable) -> PredictionTable:
    """Return some of the questions, for a quick run."""
    return _drawn(table, QUICK_QUESTIONS, np.random.default_rng(0))
