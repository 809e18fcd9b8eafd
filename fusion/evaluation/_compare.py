"""compare: two runs on the questions they share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fusion.errors import InputError, TableMismatch
from fusion.evaluation._bench import compare_pairs
from fusion.evaluation._evaluator import clusters
from fusion.evaluation._options import BenchOptions
from fusion.evaluation._result import BenchResult, PairedResult, as_json
from fusion.evaluation._verdict import beats, p_value, points
from fusion.schema import IntArray, Json

_REVISED = 0.05
"""Share of right answers that may differ between two runs: keys are revised (33 of MMLU-Pro's were)."""


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """Two systems of two runs on the questions they share.

    Args:
        n: Questions in both runs.
        only_in_a, only_in_b: Questions in one run alone; they are left out.
        accuracy_a, accuracy_b: On the shared questions.
        paired: The comparison; `a` is the system of the first run.
        verdict: What came out, in one sentence.
    """

    n: int
    only_in_a: int
    only_in_b: int
    accuracy_a: float
    accuracy_b: float
    paired: PairedResult
    verdict: str
    format: Literal["fusion.compare/1"] = "fusion.compare/1"

    def to_json(self) -> dict[str, Json]:
        """Return the whole result as JSON values."""
        return as_json(self)


def compare(
    run_a: BenchResult | str | os.PathLike[str],
    run_b: BenchResult | str | os.PathLike[str],
    *,
    system_a: str | None = None,
    system_b: str | None = None,
    options: BenchOptions | None = None,
) -> CompareResult:
    """Compare a system of one run with a system of another, question by question.

    Args:
        run_a: A run, or the file it is in.
        run_b: Another, or the same one with another system.
        system_a: A system of run_a; by default the first that was asked for.
        system_b: A system of run_b; likewise.
        options: Clustering, repeats and seed.

    Raises:
        UnknownName: When a run has no such system.
        TableMismatch: When the runs share no question, or have other right answers to those that they share.
    """
    options = options or BenchOptions()
    run_a, run_b = (run if isinstance(run, BenchResult) else read_run(run) for run in (run_a, run_b))
    name_a = system_a or run_a.systems[0].name
    name_b = system_b or run_b.systems[0].name
    correct_a, correct_b = run_a.outcomes.of(name_a), run_b.outcomes.of(name_b)
    where_a = {name: n for n, name in enumerate(run_a.outcomes.question_ids)}
    where_b = {name: n for n, name in enumerate(run_b.outcomes.question_ids)}
    shared = [name for name in where_a if name in where_b]
    if not shared:
        raise TableMismatch(
            f"the runs share no question: the first has {len(where_a)} such as {next(iter(where_a))!r}, the second "
            f"{len(where_b)} such as {next(iter(where_b))!r}; compare runs on the same questions"
        )
    rows_a = np.array([where_a[name] for name in shared])
    rows_b = np.array([where_b[name] for name in shared])
    _require_same_answers(run_a, run_b, rows_a, rows_b)
    clusters_N = None
    if options.cluster == "category":
        if run_a.outcomes.categories is None:
            raise InputError("the first run has no categories to cluster by; drop --cluster")
        clusters_N = clusters([run_a.outcomes.categories[row] for row in rows_a], options)
    key_a, key_b = (name_a, name_b) if name_a != name_b else (f"{name_a} (first run)", f"{name_b} (second run)")
    correct = {key_a: correct_a[rows_a], key_b: correct_b[rows_b]}
    paired = compare_pairs("two runs", [(key_a, key_b)], correct, clusters_N, options)[0]
    return CompareResult(
        n=len(shared),
        only_in_a=len(where_a) - len(shared),
        only_in_b=len(where_b) - len(shared),
        accuracy_a=float(correct[key_a].mean()),
        accuracy_b=float(correct[key_b].mean()),
        paired=paired,
        verdict=_verdict(paired),
    )


def _require_same_answers(run_a: BenchResult, run_b: BenchResult, rows_a: IntArray, rows_b: IntArray) -> None:
    """Refuse runs whose questions share ids by chance alone, as where every data set numbers its own from 0."""
    if not (run_a.outcomes.gold and run_b.outcomes.gold):
        return
    gold_a, gold_b = (
        [run.outcomes.gold[4 * row : 4 * row + 4] for row in rows.tolist()]
        for run, rows in ((run_a, rows_a), (run_b, rows_b))
    )
    differing = sum(a != b for a, b in zip(gold_a, gold_b, strict=True))
    if differing > _REVISED * len(gold_a):
        raise TableMismatch(
            f"the runs share {len(gold_a)} question ids, but the right answers differ on {differing} of them: these "
            "are not the same questions; compare runs of one data set"
        )


def read_run(path: str | os.PathLike[str]) -> BenchResult:
    """Read a run: the JSON of an evaluation, or a folder with exactly one.

    Raises:
        InputError: When there is none, or more than one.
    """
    source = Path(path)
    if not source.is_dir():
        return BenchResult.load(source)
    found = sorted(source.glob("*.json"))
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:6]) or "none"
        raise InputError(f"expected one JSON file in the folder {source}, found {len(found)} ({listed}); name one")
    return BenchResult.load(found[0])


def _verdict(pair: PairedResult) -> str:
    if beats(pair):
        said = "beats"
    else:
        said = "is worse than" if pair.difference < 0 and pair.holm_p < 0.05 else "is not shown to differ from"
    return (
        f"{pair.a} {said} {pair.b}: {points(pair.difference)} points "
        f"(95 % CI {points(pair.ci95[0])} to {points(pair.ci95[1])}, {p_value(pair)}, n = {pair.n})."
    )
