"""prune: from a record of a pool to its best small sub-ensembles, with what they are worth on other questions."""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np

from fusion.data import (
    PredictionTable,
    Split,
    read_table,
    table_notes,
)
from fusion.errors import UnknownName, UsageError
from fusion.evaluation import BenchOptions, PairedResult, compare_pairs, file_name, fit_and_test, p_value, points, said
from fusion.protocols import Executor
from fusion.pruning._evidence import gather
from fusion.pruning._options import PruneOptions
from fusion.pruning._outcomes import Members, Outcomes, in_pool_order, make_fuser
from fusion.pruning._prices import mean_prices
from fusion.pruning._refit import judged
from fusion.pruning._result import PruneResult, RivalResult, SubsetResult
from fusion.schema import BoolArray
from fusion.selectors import BUDGET, Found, Objective, Scored, Scorer, Space, search, warm_up
from fusion.significance import accuracy_interval
from fusion.stopwatch import Stopwatch

Progress = Callable[[str, int, int], None]
"""Told what is done, how many steps of it are done, and how many there are (0 when that is not known)."""

Table = PredictionTable | str | os.PathLike[str]

RANDOM_BUDGET = 100_000
"""Sub-ensembles that random search scores when no budget is given."""

_SINGLE = "the best single member"


class Setting(NamedTuple):
    """A pruning with everything read and checked.

    Attributes:
        parts: The tables to choose on and to evaluate on, without excluded agents.
        scorer: What makes a sub-ensemble good, on the first.
        space: Which are allowed.
        options: How; excluded agents are out of the tables already.
        marks: Fingerprints of the tables by role, with all agents.
        unpriced: Why costs are not known; "" when they are.
    """

    parts: Split
    scorer: Scorer
    space: Space
    options: PruneOptions
    marks: Mapping[str, str]
    unpriced: str

    def names(self, ranks: Sequence[int]) -> Members:
        """Return the agents at `ranks`, in pool order."""
        places = sorted(int(self.scorer.bits.ranked[rank]) for rank in ranks)
        return tuple(self.parts.fit.agents[place] for place in places)


def prune(
    table: Table,
    *,
    test: Table | None = None,
    options: PruneOptions | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Find the best sub-ensembles on some questions, and measure them on others.

    Args:
        table: Labelled answers, or the file they are in: all of them, to be split, or those to choose on when
            `test` is given.
        test: Labelled answers of the same agents to other questions, to evaluate on.
        options: What to look for; see `PruneOptions`.
        executor: Where to search; here when None.
        progress: Told before and during each step.

    Returns:
        The best sub-ensembles; those found so far when interrupted (KeyboardInterrupt) while searching or comparing.

    Raises:
        UsageError: When an option does not fit the table.
        UnknownName: When an agent, term, fuser or method has an unknown name.
        TableMismatch: When the two tables' agents differ.
        Leakage: When the two tables share questions.
        InvalidTable: When there are no labels, or too few questions to split.
    """
    watch = Stopwatch()
    told = progress or (lambda step, done, total: None)
    told("reading", 0, 1)
    files = {"table": file_name(table), "test": file_name(test)}
    table, test = _read(table), None if test is None else _read(test)
    told("compiling, the first time only", 0, 0)
    warm_up()
    options = options or PruneOptions()
    setting = prepare(table, test, options)
    start = time.perf_counter()
    found, cv_accuracies = chosen(setting, executor, told)
    seconds = time.perf_counter() - start
    command = {"prune": asdict(options), **files}
    return _reported(setting, found, cv_accuracies, seconds, watch, (table, test), command, told)


def prepare(table: PredictionTable, test: PredictionTable | None, options: PruneOptions) -> Setting:
    """Split the table, and work out which sub-ensembles are allowed.

    Raises:
        FusionError: As `prune`.
    """
    parts = _parts(table, test, options)
    marks = _marks(parts)
    for name in (*options.include, *options.exclude, *options.prices):
        if name not in parts.fit.agents:
            raise UnknownName(kind="agent", name=name, known=parts.fit.agents)
    both = sorted(set(options.include) & set(options.exclude))
    if both:
        raise UsageError(f"{', '.join(both)} cannot be both included and excluded; name every agent in one place")
    if options.exclude:
        kept = [name for name in parts.fit.agents if name not in options.exclude]
        if not kept:
            raise UsageError(f"all {len(parts.fit.agents)} agents are excluded; leave some to choose from")
        parts = Split(*(part.columns(kept) for part in parts))
        options = replace(options, exclude=())
    fit = parts.fit
    objective = Objective.parse(options.objective)
    prices, unpriced = mean_prices(fit, options)
    if unpriced and (options.max_cost is not None or "cost" in objective.weights):
        raise UsageError(f"the cost of sub-ensembles is not known: {unpriced}")
    scorer = Scorer.of(fit, objective, prices=prices)
    rank_of = {fit.agents[place]: rank for rank, place in enumerate(scorer.bits.ranked.tolist())}
    include = sorted(rank_of[name] for name in set(options.include))
    sizes = tuple(size for size in options.sizes if size <= len(rank_of)) or options.sizes
    space = Space(
        num_agents=len(rank_of),
        sizes=tuple(size for size in sizes if size >= len(include)) or sizes,
        include=tuple(include),
        free=tuple(rank for rank in range(len(rank_of)) if rank not in include),
        usd=scorer.usd,
        max_usd=options.max_cost,
        seconds=scorer.seconds,
        max_seconds=options.max_latency,
    )
    objective.require_sizes(space.sizes)
    return Setting(parts, scorer, space, options, marks, unpriced)


def marks_of(table: PredictionTable, test: PredictionTable | None, options: PruneOptions) -> dict[str, str]:
    """Return the fingerprints of the parts that a pruning chooses and is evaluated on, by role.

    Raises:
        FusionError: As `prune`.
    """
    return _marks(_parts(table, test, options))


def chosen(setting: Setting, executor: Executor | None, told: Progress) -> tuple[Found, list[float] | None]:
    """Search, then compare the best by the fuser that will be used.

    Returns:
        What the search found, best first by objective; and the cross-validated accuracy of each, or None without a
        fuser.
    """
    options = setting.options
    # Before a long search, not after it: a name may be wrong.
    fuser = None if options.fuser is None else make_fuser(options.fuser)
    wanted = options.top if fuser is None else max(options.top, options.candidates)
    found = search(
        setting.scorer,
        setting.space,
        top=wanted,
        method=options.method,
        budget=options.budget or (RANDOM_BUDGET if options.method == "random" else BUDGET),
        seed=options.seed,
        executor=executor,
        told=lambda done, total: told("searching", done, total),
    )
    if not found.best.members and not found.complete:
        raise KeyboardInterrupt
    if not found.best.members:
        raise UsageError(_none_found(setting, found))
    if fuser is None:
        return found, None
    if not found.complete:
        # Who interrupts the search wants to see what there is, not to wait for the next stage.
        return found, [float("nan")] * len(found.best.members)
    subsets = [setting.names(ranks) for ranks in found.best.members]
    return found, judged(
        setting.parts.fit,
        subsets,
        fuser,
        count=options.folds,
        seed=options.seed,
        executor=executor,
        told=lambda done, total: told(f"{options.fuser} on the best", done, total),
    )


def _none_found(setting: Setting, found: Found) -> str:
    limits = {"--max-cost": setting.options.max_cost, "--max-latency": setting.options.max_latency}
    given = " and ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
    return f"none of {found.total} sub-ensembles is within {given}; allow more"


def _read(table: Table) -> PredictionTable:
    return table if isinstance(table, PredictionTable) else read_table(table)


def _parts(table: PredictionTable, test: PredictionTable | None, options: PruneOptions) -> Split:
    return fit_and_test(table, test, fit_fraction=options.fit_fraction, seed=options.seed, stratify=options.stratify)


def _marks(parts: Split) -> dict[str, str]:
    return {"fit": parts.fit.fingerprint, "test": parts.test.fingerprint}


def _reported(
    setting: Setting,
    found: Found,
    cv_accuracies: Sequence[float] | None,
    seconds: float,
    watch: Stopwatch,
    tables: tuple[PredictionTable, PredictionTable | None],
    command: Mapping[str, object],
    told: Progress,
) -> PruneResult:
    """Measure what was chosen on the other questions, and beside what could be had without choosing."""
    options = setting.options
    told("evaluating", 0, 1)
    outcomes = Outcomes(setting.parts, make_fuser(options.fuser or "vote"))
    order = list(range(len(found.best.members)))
    if cv_accuracies is not None:
        order.sort(key=lambda p: (-np.nan_to_num(cv_accuracies[p], nan=-1.0), p))
    best = found.best.take(order[: options.top])
    judged_by = None if cv_accuracies is None else [cv_accuracies[p] for p in order]
    subsets = _subsets(setting, best, judged_by, outcomes)
    rivals = _rivals(setting, subsets[0].agents, outcomes)
    correct = {" + ".join(subsets[0].agents): outcomes.right(subsets[0].agents)}
    correct |= {rival.name: outcomes.right(rival.agents) for rival in rivals}
    paired = _paired(list(correct), correct, BenchOptions(repeats=options.repeats, seed=options.seed))
    table, test = tables
    evidence = None
    if options.evidence and found.complete:
        evidence = gather(
            setting, subsets[0].agents, fuser=options.fuser or "vote", resamples=options.resamples, told=told
        )
    told("done", 1, 1)
    return PruneResult(
        n=len(setting.parts.test),
        n_fit=len(setting.parts.fit),
        pool=setting.parts.fit.agents,
        objective=str(setting.scorer.objective),
        fuser=options.fuser or "vote",
        subsets=subsets,
        rivals=rivals,
        paired=tuple(paired),
        front=_subsets(setting, found.front, None, outcomes),
        searched=found.searched,
        total=found.total,
        method=found.method,
        exhaustive=found.exhaustive,
        complete=found.complete
        and not any(np.isnan(value) for value in cv_accuracies or ())
        and (evidence is None or evidence.complete),
        seconds=round(seconds, 3),
        verdict=_verdict(subsets[0], paired, len(setting.parts.test)),
        notes=(*_notes(setting, found, cv_accuracies, (table, test)), *_pair_note(setting, subsets[0])),
        evidence=evidence,
        run=watch.record(command, setting.marks),
    )


def _subsets(
    setting: Setting, scored: Scored, cv_accuracies: Sequence[float] | None, outcomes: Outcomes
) -> tuple[SubsetResult, ...]:
    results = []
    for p, ranks in enumerate(scored.members):
        agents = setting.names(ranks)
        right_N = outcomes.right(agents)
        focal = float(scored.scores.focal[p])
        cv_accuracy = float("nan") if cv_accuracies is None else cv_accuracies[p]
        low, high = accuracy_interval(right_N)
        rows = list(ranks)
        usd, slow = setting.scorer.usd, setting.scorer.seconds
        results.append(
            SubsetResult(
                agents=agents,
                size=len(agents),
                objective=float(scored.scores.objective[p]),
                focal_diversity=None if np.isnan(focal) else focal,
                accuracy=float(scored.scores.accuracy[p]),
                cv_accuracy=None if np.isnan(cv_accuracy) else cv_accuracy,
                test_accuracy=float(right_N.mean()),
                test_ci95=(float(low), float(high)),
                usd_per_question=None if usd is None else float(usd[rows].sum()),
                seconds_per_question=None if slow is None else float(slow[rows].max()),
            )
        )
    return tuple(results)


def _rivals(setting: Setting, best: Members, outcomes: Outcomes) -> tuple[RivalResult, ...]:
    """Return the best single member, as many members by accuracy alone, and the whole pool."""
    fit = setting.parts.fit
    leaders = [fit.agents[place] for place in setting.scorer.bits.ranked.tolist()]
    wanted = {
        f"{_SINGLE}, {leaders[0]}": (leaders[0],),
        f"the {len(best)} most accurate members": in_pool_order(fit, leaders[: len(best)]),
        f"all {len(leaders)} members": fit.agents,
    }
    rivals: list[RivalResult] = []
    for name, agents in wanted.items():
        if agents != best and agents not in [rival.agents for rival in rivals]:
            right_N = outcomes.right(agents)
            low, high = accuracy_interval(right_N)
            rivals.append(
                RivalResult(
                    name=name, agents=agents, test_accuracy=float(right_N.mean()), test_ci95=(float(low), float(high))
                )
            )
    return tuple(rivals)


def _paired(names: Sequence[str], correct: Mapping[str, BoolArray], options: BenchOptions) -> list[PairedResult]:
    """Compare the first system with the others: with the best single member in a family of its own."""
    best, *others = names
    found = []
    # Where the best is that member, there is nothing to compare in its family.
    singles = [other for other in others if other.startswith(_SINGLE)]
    rest = [other for other in others if other not in singles]
    for family, rivals in (("best single", singles), ("other baselines", rest)):
        found += compare_pairs(family, [(best, other) for other in rivals], correct, None, options)
    return found


def _pair_note(setting: Setting, best: SubsetResult) -> tuple[str, ...]:
    if best.size != 2 or setting.options.fuser is not None or setting.space.sizes == (2,):
        return ()
    return (
        "the vote of two is that of the more accurate one wherever that one answers, at twice the calls; ask for sizes "
        "from 3 on, or for another objective, if that is not what is wanted",
    )


def _verdict(best: SubsetResult, paired: Sequence[PairedResult], num_questions: int) -> str:
    """Say how the best sub-ensemble stands against each rival on questions that it was not chosen on."""
    first = (
        f"{' + '.join(best.agents)} answers {100 * best.test_accuracy:.1f} % of {num_questions} other questions right"
    )
    clauses = []
    for pair in paired:
        interval = f"95 % CI {points(pair.ci95[0])} to {points(pair.ci95[1])}"
        clauses.append(f"{said(pair)} {pair.b}: {points(pair.difference)} points ({interval}, {p_value(pair)})")
    return "; ".join([first, *clauses]) + "."


def _notes(
    setting: Setting,
    found: Found,
    cv_accuracies: Sequence[float] | None,
    tables: tuple[PredictionTable, PredictionTable | None],
) -> tuple[str, ...]:
    options, space = setting.options, setting.space
    notes = list(itertools.chain.from_iterable(table_notes(table) for table in tables if table is not None))
    notes += setting.scorer.objective.warnings()
    if options.prices and setting.unpriced:
        notes.append(f"costs are not known: {setting.unpriced}")
    left_out = [size for size in options.sizes if size not in space.sizes]
    if left_out:
        notes.append(
            f"sizes {', '.join(map(str, left_out))} are left out: {len(space.include)} agents are included and "
            f"{len(space.free)} more may join"
        )
    if not found.complete:
        notes.append(f"interrupted: {found.searched} of {found.total} sub-ensembles were scored")
    elif found.method not in ("exhaustive", "random") and options.method == "auto":
        notes.append(
            f"{found.total} sub-ensembles are more than the budget of {options.budget or BUDGET}, so {found.method} "
            f"search scored {found.searched} of them; it need not have found the best"
        )
    if cv_accuracies is not None and np.isnan(cv_accuracies).any():
        done = len(cv_accuracies) - int(np.isnan(cv_accuracies).sum())
        notes.append(f"interrupted: {options.fuser} was cross-validated on {done} of {len(cv_accuracies)} candidates")
    return tuple(dict.fromkeys(notes))
