"""Recorded solutions to GSM8K: open answers, read with the library's extractor and cross-validated."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fusers.systems import (
    BEST_SINGLE,
    LEARNED,
    ORACLE,
    STACKER,
    VOTES,
    Told,
    calibration,
    difference,
    outcome,
)
from fusion.data import PredictionTable, folds, import_records

EXTRACTOR = "gsm8k/flexible"
FOLDS = 5
SYSTEMS = (BEST_SINGLE, *VOTES, "dawid_skene", "naive_bayes", STACKER, LEARNED, ORACLE)


def read(folder: Path) -> PredictionTable:
    """Return the table of six systems; a question whose right answer nobody gave stays, with the label -1."""
    return import_records(
        "long", [folder / "generations.parquet"], questions=folder / "questions.parquet", extractor=EXTRACTOR
    )


def compared(table: PredictionTable, *, repetitions: int, told: Told) -> dict[str, Any]:
    """Return accuracies and differences over all questions, each decided by what was fitted without it."""
    right = {system: np.zeros(len(table)) for system in SYSTEMS}
    errors: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    for repetition in range(repetitions):
        told(f"GSM8K, repetition {repetition + 1}")
        fold_N = folds(table, FOLDS, seed=repetition)
        for system in SYSTEMS:
            for fold in range(FOLDS):
                test_N = fold_N == fold
                result = outcome(system, table.rows(~test_N), table.rows(test_N))
                right[system][test_N] += result.correct
                if (found := calibration(result)) is not None:
                    errors[system].append(found)
    shares = {system: right_N / repetitions for system, right_N in right.items()}
    return {
        "n": len(table),
        "agents": dict(zip(table.agents, table.accuracies.tolist(), strict=True)),
        "nobody_right": int((table.require_labels() < 0).sum()),
        "folds": FOLDS,
        "repetitions": repetitions,
        "systems": {
            system: {
                "accuracy": float(share_N.mean()),
                "less_best": difference(share_N, shares[BEST_SINGLE]),
                "learned_less": difference(shares[LEARNED], share_N),
                "excess": float(np.mean([found["excess"] for found in errors[system]])) if errors[system] else None,
            }
            for system, share_N in shares.items()
        },
    }
