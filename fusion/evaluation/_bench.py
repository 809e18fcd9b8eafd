"""bench: fit systems on one part of the questions, evaluate them on another, beside the default baselines."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import numpy as np

from fusion.agents import AgentPool
from fusion.data import PredictionTable, Split, describe_difference, read_table, require_disjoint, split, table_notes
from fusion.errors import InvalidTable, TableMismatch, UsageError
from fusion.evaluation._baselines import BEST_SINGLE, ORACLE, Plan, plan
from fusion.evaluation._confidence import CALIBRATE_FRACTION
from fusion.evaluation._evaluator import Evaluated, Evaluator
from fusion.evaluation._options import BenchOptions
from fusion.evaluation._result import (
    BenchResult,
    Outcomes,
    PairedResult,
    digits,
    gold_marks,
)
from fusion.evaluation._trust import weights_notes
from fusion.evaluation._verdict import verdict
from fusion.schema import BoolArray, IntArray, System
from fusion.significance import holm, paired_difference
from fusion.stopwatch import Stopwatch

DEFAULT_SYSTEMS = "all_agents+weighted_vote, all_agents+vote, top_k(k=3)+weighted_vote"

Progress = Callable[[str, int, int], None]
"""Told what is done next, how many steps are done and how many there are; the last grows once baselines are known."""


def bench(
    table: PredictionTable | str | os.PathLike[str],
    systems: str | Sequence[System | str] = DEFAULT_SYSTEMS,
    *,
    test: PredictionTable | str | os.PathLike[str] | None = None,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Evaluate systems on questions they were not fitted on, beside baselines of equal cost.

    Args:
        table: Labelled answers, or the file they are in: all of them, to be split, or those to fit on when
            `test` is given.
        systems: `selector+fuser` specs. The verdict is about these.
        test: Labelled answers of the same agents to other questions, to evaluate on.
        options: How; see `BenchOptions`.
        progress: Told before each step.

    Returns:
        Accuracy, intervals and cost of every system and member, paired comparisons and the verdict.

    Raises:
        UsageError: When a system, fraction or price is wrong.
        TableMismatch: When the two tables' agents differ.
        Leakage: When the two tables share questions.
        InvalidTable: When there are no labels, or too few questions to split.
    """
    watch = Stopwatch()
    options = options or BenchOptions()
    files = {"table": file_name(table), "test": file_name(test)}
    table = table if isinstance(table, PredictionTable) else read_table(table)
    test = test if test is None or isinstance(test, PredictionTable) else read_table(test)
    pool = AgentPool.of(table.agents, prices=options.prices)
    asked, dropped = _asked(systems, table.num_agents)
    parts = fit_and_test(table, test, fit_fraction=options.fit_fraction, seed=options.seed, stratify=options.stratify)
    marks = {"fit": parts.fit.fingerprint, "test": parts.test.fingerprint}
    kept = None
    if options.abstain_at_risk is not None:
        halves = split(parts.fit, fit_fraction=1 - CALIBRATE_FRACTION, seed=options.seed, stratify=options.stratify)
        parts, kept = Split(fit=halves.fit, test=parts.test), halves.test
    evaluate = Evaluator(pool, parts, kept, options)
    told = progress or (lambda step, done, total: None)
    evaluated, planned = _evaluated(asked, evaluate, told)
    total = len(evaluated) + 1
    told("paired statistics", total - 1, total)
    paired = _paired(evaluated, planned.rivals, evaluate.clusters_N, options)
    results = tuple(item.result for item in evaluated.values())
    limits = weights_notes(results, evaluate.groups)
    told("done", total, total)
    return BenchResult(
        n=len(parts.test),
        n_fit=len(parts.fit),
        systems=results,
        members=evaluate.members(),
        paired=paired,
        verdict=verdict(results, paired, best=evaluate.best_single()),
        notes=tuple(dict.fromkeys([*_reading_notes(table, test), *dropped, *planned.notes, *limits, *evaluate.notes])),
        run=watch.record({**_command(asked, test, options), **files}, marks),
        outcomes=Outcomes(
            question_ids=tuple(parts.test.question_ids.tolist()),
            categories=None if parts.test.categories is None else tuple(parts.test.categories.tolist()),
            correct={name: digits(item.correct) for name, item in evaluated.items()},
            gold=gold_marks(parts.test),
        ),
    )


def file_name(table: PredictionTable | str | os.PathLike[str] | None) -> str | None:
    """Return the file that a table is given by; None for a table in memory, or none at all."""
    return None if table is None or isinstance(table, PredictionTable) else os.fspath(table)


def _evaluated(asked: Sequence[System], evaluate: Evaluator, told: Progress) -> tuple[dict[str, Evaluated], Plan]:
    """Evaluate the systems, then the baselines that go with what they cost."""
    found: dict[str, Evaluated] = {}
    for done, system in enumerate(asked):
        told(str(system), done, len(asked) + 5)
        found[str(system)] = evaluate(system, "system")
    planned = plan(
        {system: found[str(system)].cost for system in asked if not _is_bound(found[str(system)])}, evaluate.parts
    )
    further = [system for system in (*planned.baselines, ORACLE) if str(system) not in found]
    for done, system in enumerate(further, start=len(asked)):
        told(str(system), done, len(asked) + len(further) + 1)
        found[str(system)] = evaluate(system, "baseline")
    return found, planned


def _is_bound(item: Evaluated) -> bool:
    return item.result.role == "upper_bound"


def _command(asked: Sequence[System], test: PredictionTable | None, options: BenchOptions) -> dict[str, object]:
    return {
        "bench": [str(system) for system in asked],
        "fit_fraction": None if test is not None else options.fit_fraction,
        "seed": options.seed,
        "stratify": options.stratify,
        "cluster": options.cluster,
        "repeats": options.repeats,
        "prices": {name: list(pair) for name, pair in options.prices.items()},
        "abstain_at_risk": options.abstain_at_risk,
    }


def _asked(systems: str | Sequence[System | str], num_agents: int) -> tuple[tuple[System, ...], tuple[str, ...]]:
    """Return the systems to evaluate, and notes on default ones that the pool is too small for."""
    if isinstance(systems, str):
        listed = System.parse_list(systems)
    else:
        listed = tuple(system if isinstance(system, System) else System.parse(system) for system in systems)
    if not listed:
        raise UsageError("bench needs at least one system, such as all_agents+vote")
    if systems != DEFAULT_SYSTEMS:
        return tuple(dict.fromkeys(listed)), ()
    large = tuple(system for system in listed if cast("int", system.selector.params.get("k", 1)) > num_agents)
    kept = tuple(system for system in listed if system not in large)
    return kept, tuple(f"{system} is left out: the pool has {num_agents} agents" for system in large)


def _reading_notes(table: PredictionTable, test: PredictionTable | None) -> list[str]:
    notes = list(table_notes(table))
    return notes if test is None else notes + [f"in the table to evaluate on: {note}" for note in table_notes(test)]


def fit_and_test(
    table: PredictionTable,
    test: PredictionTable | None,
    *,
    fit_fraction: float,
    seed: int,
    stratify: Literal["category", "none"],
) -> Split:
    """Return the part to fit on and the part to evaluate on: of `table`, or all of it and `test`.

    Raises:
        TableMismatch: When the two tables' agents differ.
        Leakage: When they share questions.
        InvalidTable: When there are no labels, or too few questions.
    """
    for part in (table, test):
        if part is not None:
            part.require_labels()
    if test is None:
        return split(table, fit_fraction=fit_fraction, seed=seed, stratify=stratify)
    if set(table.agents) != set(test.agents):
        raise TableMismatch(
            "the table to fit on and the table to evaluate on have different agents: "
            f"in the second {describe_difference(table.agents, test.agents)}; record the same agents in both"
        )
    if not len(test):
        raise InvalidTable("the table to evaluate on has no questions")
    require_disjoint(table, test)
    return Split(fit=table, test=test.columns(table.agents))


def _paired(
    evaluated: Mapping[str, Evaluated],
    rivals: Mapping[str, Sequence[str]],
    clusters_N: IntArray | None,
    options: BenchOptions,
) -> tuple[PairedResult, ...]:
    correct = {name: item.correct for name, item in evaluated.items()}
    best = str(BEST_SINGLE)
    families = {
        "best single": [(name, best) for name in rivals if name != best],
        "other baselines": [(name, other) for name, others in rivals.items() for other in others],
    }
    known = {pair for pairs in families.values() for pair in pairs}
    families["between systems"] = [
        (a, b) for a, b in itertools.combinations(rivals, 2) if (a, b) not in known and (b, a) not in known
    ]
    return tuple(
        found
        for family, pairs in families.items()
        for found in compare_pairs(family, pairs, correct, clusters_N, options)
    )


def compare_pairs(
    family: str,
    pairs: Sequence[tuple[str, str]],
    correct: Mapping[str, BoolArray],
    clusters_N: IntArray | None,
    options: BenchOptions,
) -> list[PairedResult]:
    """Compare pairs of systems on the same questions; p-values are adjusted over all of them (Holm).

    Args:
        family: What the comparisons are about.
        pairs: Names (a, b).
        correct: bool [N] by name.
        clusters_N: Cluster of every question, or None when questions are independent.
        options: Repeats and seed of the bootstrap.
    """
    raw = [
        paired_difference(
            correct[a],
            correct[b],
            clusters_N=clusters_N,
            repeats=options.repeats,
            rng=np.random.default_rng(options.seed),
        )
        for a, b in pairs
    ]
    adjusted = holm([found.p for found in raw])
    return [
        PairedResult(
            a=a,
            b=b,
            family=family,
            n=found.n,
            difference=found.difference,
            ci95=(float(found.interval.low), float(found.interval.high)),
            only_a=found.only_a,
            only_b=found.only_b,
            mcnemar_p=found.mcnemar_p,
            test=found.test,
            p=found.p,
            holm_p=float(holm_p),
            minimum_detectable_difference=found.minimum_detectable_difference,
        )
        for (a, b), found, holm_p in zip(pairs, raw, adjusted, strict=True)
    ]
