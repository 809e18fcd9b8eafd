"""bench: fit systems on one part of the questions, evaluate them on another, beside the default baselines."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import numpy as np

from fusion.agents import AgentPool
from fusion.data import PredictionTable, Split, describe_difference, read_table, require_disjoint, split, table_notes
from fusion.ensemble import Ensemble, Replay
from fusion.errors import InvalidTable, TableMismatch, UsageError
from fusion.evaluation._baselines import BEST_PER_CATEGORY, BEST_SINGLE, ORACLE, Cost, Plan, plan
from fusion.evaluation._result import BenchResult, Outcomes, PairedResult, Role, SystemResult, digits, gold_marks
from fusion.evaluation._verdict import verdict
from fusion.schema import BoolArray, IntArray, System
from fusion.significance import accuracy_interval, holm, paired_difference
from fusion.stopwatch import Stopwatch

DEFAULT_SYSTEMS = "all_agents+weighted_vote, all_agents+vote, top_k(k=3)+weighted_vote"

Progress = Callable[[str, int, int], None]
"""Told what is done next, how many steps are done and how many there are; the last grows once baselines are known."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How an evaluation is run.

    Args:
        fit_fraction: Share of the questions to fit on, in (0, 1).
        seed: Of the split and of the bootstrap.
        stratify: Whether the split keeps the shares of the categories.
        cluster: Whether questions of a category count as dependent: intervals and tests become
            cluster-robust, which needs many categories to say much.
        repeats: Bootstrap resamples.
        prices: USD per million tokens (read, written), by agent.

    Raises:
        UsageError: When a value is out of range.
    """

    fit_fraction: float = 0.7
    seed: int = 0
    stratify: Literal["category", "none"] = "category"
    cluster: Literal["none", "category"] = "none"
    repeats: int = 10_000
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.fit_fraction < 1:
            raise UsageError(f"fit_fraction must lie between 0 and 1, got {self.fit_fraction}")
        if self.seed < 0 or self.repeats < 100:
            raise UsageError(f"expected seed >= 0 and repeats >= 100, got seed {self.seed} and repeats {self.repeats}")
        for name, value in (("stratify", self.stratify), ("cluster", self.cluster)):
            if value not in ("category", "none"):
                raise UsageError(f"{name} must be category or none, got {value!r}")


class _Evaluated(NamedTuple):
    result: SystemResult
    correct: BoolArray
    cost: Cost


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
    evaluate = _Evaluator(pool, parts, options)
    told = progress or (lambda step, done, total: None)
    evaluated, planned = _evaluated(asked, evaluate, told)
    total = len(evaluated) + 1
    told("paired statistics", total - 1, total)
    paired = _paired(evaluated, planned.rivals, evaluate.clusters_N, options)
    results = tuple(item.result for item in evaluated.values())
    told("done", total, total)
    return BenchResult(
        n=len(parts.test),
        n_fit=len(parts.fit),
        systems=results,
        members=evaluate.members(),
        paired=paired,
        verdict=verdict(results, paired, best=evaluate.best_single()),
        notes=tuple(dict.fromkeys([*_reading_notes(table, test), *dropped, *planned.notes])),
        run=watch.record(
            {**_command(asked, test, options), **files}, {"fit": parts.fit.fingerprint, "test": parts.test.fingerprint}
        ),
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


def _evaluated(asked: Sequence[System], evaluate: "_Evaluator", told: Progress) -> tuple[dict[str, _Evaluated], Plan]:
    """Evaluate the systems, then the baselines that go with what they cost."""
    found: dict[str, _Evaluated] = {}
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


def _is_bound(item: _Evaluated) -> bool:
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


class _Evaluator:
    """Fits systems on one part and scores them on the other."""

    def __init__(self, pool: AgentPool, parts: Split, options: BenchOptions) -> None:
        self.pool = pool
        self.parts = parts
        self.clusters_N = None
        if options.cluster != "none":
            self.clusters_N = clusters(parts.test.require_categories().tolist(), options)
        self.prices_M = np.array(
            [[np.nan if p is None else p for p in (agent.input_price, agent.output_price)] for agent in pool]
        )

    def __call__(self, system: System, role: Role) -> _Evaluated:
        """Evaluate a system in a role; one that reads the labels is an upper bound, whatever it was asked for."""
        ensemble = Ensemble(self.pool, system.selector, system.fuser).fit(self.parts.fit)
        correct_N, replay = self._replay(ensemble, self.parts.test)
        fit_correct_N, _ = self._replay(ensemble, self.parts.fit)
        tokens, usd = self._token_cost(replay.asked, samples=replay.decision.samples)
        privileged = ensemble.selector.sees == "labels"
        result = SystemResult(
            name=str(system),
            label=self._label(system, replay, privileged=privileged),
            role="upper_bound" if privileged else role,
            n=len(correct_N),
            accuracy=float(correct_N.mean()),
            ci95=self._interval(correct_N),
            abstained=float((replay.decision.answers < 0).mean()),
            fit_accuracy=float(fit_correct_N.mean()),
            calls_per_question=float(replay.asked.sum(axis=1).mean()) * replay.decision.samples,
            tokens_per_question=tokens,
            usd_per_question=usd,
        )
        return _Evaluated(result, correct_N, Cost(result.calls_per_question, replay.decision.samples))

    def members(self) -> tuple[SystemResult, ...]:
        """Return each agent alone, in pool order."""
        test = self.parts.test
        found = []
        for j, name in enumerate(self.pool.names):
            mask_NM = np.broadcast_to(np.arange(len(self.pool)) == j, test.answers.shape)
            tokens, usd = self._token_cost(mask_NM, samples=1)
            found.append(
                SystemResult(
                    name=name,
                    label=name,
                    role="member",
                    n=len(test),
                    accuracy=float(test.correct[:, j].mean()),
                    ci95=self._interval(test.correct[:, j]),
                    abstained=float((~test.answered[:, j]).mean()),
                    fit_accuracy=float(self.parts.fit.accuracies[j]),
                    calls_per_question=1.0,
                    tokens_per_question=tokens,
                    usd_per_question=usd,
                )
            )
        return tuple(found)

    def best_single(self) -> str:
        """Return the agent that was most accurate on the fit part."""
        return self.pool.names[int(self.parts.fit.accuracies.argmax())]

    def _replay(self, ensemble: Ensemble, table: PredictionTable) -> tuple[BoolArray, Replay]:
        replay = ensemble.replay(table)
        answers_N = replay.decision.answers
        return (answers_N == table.require_labels()) & (answers_N >= 0), replay

    def _interval(self, correct_N: BoolArray) -> tuple[float, float]:
        low, high = accuracy_interval(correct_N, clusters_N=self.clusters_N)
        return float(low), float(high)

    def _label(self, system: System, replay: Replay, *, privileged: bool) -> str:
        samples = replay.decision.samples
        if system.selector == BEST_SINGLE.selector and (system == BEST_SINGLE or samples > 1):
            return f"best single{f' x {samples} samples' if samples > 1 else ''}: {self.best_single()}"
        if system == BEST_PER_CATEGORY:
            return "best single per category"
        if privileged:
            return f"{'oracle' if system == ORACLE else system} (reads the labels)"
        return str(system)

    def _token_cost(self, asked_NM: BoolArray, *, samples: int) -> tuple[float | None, float | None]:
        test = self.parts.test
        if test.tokens_in is None or test.tokens_out is None:
            return None, None
        read_M = np.where(asked_NM, test.tokens_in, 0).sum(axis=0) * samples
        written_M = np.where(asked_NM, test.tokens_out, 0).sum(axis=0) * samples
        usd_M = (read_M * self.prices_M[:, 0] + written_M * self.prices_M[:, 1]) / 1e6
        usd = float(usd_M[asked_NM.any(axis=0)].sum()) / len(test)
        return float(read_M.sum() + written_M.sum()) / len(test), None if np.isnan(usd) else usd


def clusters(categories: Sequence[str], options: BenchOptions) -> IntArray | None:
    """Return int [N], the cluster of every question; None when questions are independent.

    Raises:
        UsageError: When all questions are in one category.
    """
    if options.cluster == "none":
        return None
    names, clusters_N = np.unique(np.array(categories), return_inverse=True)
    if len(names) == 1:
        raise UsageError(
            f"all {len(categories)} questions are in the category {str(names[0])!r}: there is nothing to cluster by; "
            "leave cluster=category out"
        )
    return clusters_N


def _paired(
    evaluated: Mapping[str, _Evaluated],
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
