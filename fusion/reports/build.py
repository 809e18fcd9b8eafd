"""From runs to the data of a report: their tables are read again, and their systems fitted as they were."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion.data import PredictionTable, Split, read_table, split
from fusion.ensemble import Ensemble
from fusion.errors import InputError, TableMismatch
from fusion.evaluation import BenchResult
from fusion.protocols import is_slow
from fusion.pruning import PruneOptions, PruneResult, Setting, prepare
from fusion.reports._build_policy import policy_tables
from fusion.reports._build_trust import confidence_rows, weight_tables
from fusion.reports._page_data import MemberWorth, ReportData, RowRole, StabilityRow, SubsetCloud, SystemRow
from fusion.reports.tables import evidence_sentences
from fusion.schema import IntArray, RunRecord
from fusion.selectors import BUDGET, BitTable, Scores, search
from fusion.significance import accuracy_interval

MAX_POINTS = 60_000
"""Sub-ensembles drawn at most; of more, a sample."""

MAX_ENSEMBLES = 8
"""Ensembles shown question by question at most."""

_SLOW = "runs or asks models, which is not done again for this page: it is not shown question by question"

Result = BenchResult | PruneResult


class Run(NamedTuple):
    """A result and the file it came from."""

    file: Path
    result: Result


def read_runs(paths: Sequence[str | os.PathLike[str]]) -> tuple[Run, ...]:
    """Read results of `fusion bench` and `fusion prune`; of a folder, all that are in it.

    Raises:
        InputError: When a file is missing or is neither, or a folder has none.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"no run in the folder {path}: expected files that bench or prune --json wrote")
        files += found
    if not files:
        raise InputError("a report needs a run: a file that fusion bench --json or fusion prune --json wrote")
    return tuple(Run(file, _read(file)) for file in files)


def build_report(
    runs: Sequence[Run],
    *,
    table: PredictionTable | None = None,
    test: PredictionTable | None = None,
    title: str | None = None,
) -> ReportData:
    """Gather what a report shows of runs that were fitted and evaluated on the same questions.

    Args:
        runs: The first one's verdict is the headline.
        table: The table the runs were made from; read from where they found it when None.
        test: The table they were evaluated on, where that is another; likewise.
        title: Of the page; by default the table's name.

    Raises:
        InputError: When the table is not found, or is no longer what it was.
        TableMismatch: When runs were fitted or evaluated on different questions.
    """
    _require_same_tables(runs)
    parts = _parts(runs[0], table, test)
    benches = [run.result for run in runs if isinstance(run.result, BenchResult)]
    notes: dict[str, None] = {}
    ensembles: dict[str, IntArray] = {}
    rows: dict[str, SystemRow] = {row.name: row for row in _members(parts.test)}
    subsets = worth = stability = None
    for run in runs:
        if isinstance(run.result, BenchResult):
            rows |= {row.name: row for row in _bench_rows(run.result)}
            asked = [system.name for system in run.result.systems if system.role == "system"]
            slow = [name for name in asked if is_slow(Ensemble(parts.fit.agents, *name.rsplit("+", 1)).fuser)]
            notes |= dict.fromkeys(f"{name} {_SLOW}" for name in slow)
            ensembles |= {name: _answers(parts, *name.rsplit("+", 1)) for name in asked if name not in slow}
        else:
            rows |= {row.name: row for row in _prune_rows(run.result)}
            agents = run.result.subsets[0].agents
            subset = f"fixed_subset(agents={_listed(agents)})"
            ensembles[_label(run.result)] = _answers(parts, subset, run.result.fuser)
            if subsets is None and run.result.complete:
                subsets = _cloud(run.result, parts)
                worth, stability = _worth(run.result), _stability(run.result)
                if sum(isinstance(other.result, PruneResult) for other in runs) > 1:
                    notes[f"scored sub-ensembles, worth of members and stability are those of {run.file.name}"] = None
        notes |= dict.fromkeys(_notes(run.result))
    return ReportData(
        title=title or _title(runs[0]),
        verdict=tuple(dict.fromkeys(sentence for run in runs for sentence in _sentences(run.result))),
        agents=parts.test.agents,
        answers=parts.test.answers,
        question_ids=tuple(parts.test.question_ids.tolist()),
        labels=parts.test.require_labels(),
        categories=None if parts.test.categories is None else tuple(parts.test.categories.tolist()),
        option_texts=parts.test.options,
        ensembles=dict(list(ensembles.items())[:MAX_ENSEMBLES]),
        systems=tuple(rows.values()),
        subsets=subsets,
        worth=worth,
        stability=stability,
        confidences=confidence_rows(benches),
        weights=weight_tables(benches),
        policies=policy_tables(benches),
        notes=tuple(notes),
        provenance=_provenance(runs),
    )


def _require_same_tables(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if run.result.run.tables != runs[0].result.run.tables:
            raise TableMismatch(
                f"{runs[0].file.name} and {run.file.name} were not fitted and evaluated on the same questions and "
                "answers; make a report of each, or run them with the same tables, --seed and --fit-fraction"
            )


def _read(file: Path) -> Result:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"no run {file}: {error.strerror}; give a file that bench or prune --json wrote") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}; give a file that bench or prune --json wrote") from error
    kind = str(content.get("format")) if isinstance(content, dict) else ""
    if kind.startswith("fusion.bench/"):
        return BenchResult.load(file)
    if kind.startswith("fusion.prune/"):
        return PruneResult.load(file)
    raise InputError(f"{file} is no result of fusion bench or fusion prune: its format is {kind or 'not given'}")


def _parts(run: Run, table: PredictionTable | None, test: PredictionTable | None) -> Split:
    """Split the table of a run as the run did."""
    record = run.result.run
    options = record.command.get("prune", record.command)
    assert isinstance(options, dict)
    fit = table if table is not None else read_table(_found(run, "table"))
    if options["fit_fraction"] is None and record.command.get("test") is None and test is None:
        raise InputError(f"{run.file} does not say which file it was evaluated on; give it with --test")
    if record.command.get("test") is None and test is None:
        parts = split(fit, fit_fraction=options["fit_fraction"], seed=options["seed"], stratify=options["stratify"])
    else:
        other = test if test is not None else read_table(_found(run, "test"))
        parts = Split(fit=fit, test=other.columns(fit.agents))
    for role, part in (("fit", parts.fit), ("test", parts.test)):
        if part.fingerprint != record.tables[role]:
            raise InputError(
                f"{run.file} was made from another table: what it {'was fitted' if role == 'fit' else 'is evaluated'} "
                f"on has fingerprint {record.tables[role][:12]}, now it is {part.fingerprint[:12]}; run it again, or "
                "give the tables it was made from with --table and --test"
            )
    return parts


def _found(run: Run, role: str) -> Path:
    """Return the file that a run read a table from: as the run named it, or beside the run's own file."""
    named = run.result.run.command.get(role)
    if not isinstance(named, str):
        raise InputError(f"{run.file} does not say which file its table was read from; give it with --{role}")
    for candidate in (Path(named), run.file.parent / named, run.file.parent / Path(named).name):
        if candidate.exists():
            return candidate
    raise InputError(f"{run.file} was made from {named}, which is not there; give its place with --{role}")


def _members(test: PredictionTable) -> list[SystemRow]:
    rows = []
    for j, name in enumerate(test.agents):
        low, high = accuracy_interval(test.correct[:, j])
        rows.append(_row(name, name, "member", float(test.accuracies[j]), (low, high), 1.0, None))
    return rows


def _bench_rows(result: BenchResult) -> list[SystemRow]:
    return [
        _row(
            item.name,
            item.label,
            item.role,
            item.accuracy,
            item.ci95,
            item.calls_per_question,
            item.usd_per_question,
        )
        for item in (*result.members, *result.systems)
    ]


def _prune_rows(result: PruneResult) -> list[SystemRow]:
    """Return the best sub-ensemble and what it is compared with, but for single members, which have rows already."""
    best = result.subsets[0]
    label = _label(result)
    return [
        _row(label, label, "subset", best.test_accuracy, best.test_ci95, best.size, best.usd_per_question),
        *(
            _row(
                f"{rival.name}, {result.fuser}",
                f"{rival.name}, {result.fuser}",
                "baseline",
                rival.test_accuracy,
                rival.test_ci95,
                len(rival.agents),
                None,
            )
            for rival in result.rivals
            if len(rival.agents) > 1
        ),
    ]


def _row(
    name: str,
    label: str,
    role: RowRole,
    accuracy: float,
    interval: tuple[float, float],
    calls: float,
    usd: float | None,
) -> SystemRow:
    return SystemRow(
        name=name,
        label=label,
        role=role,
        accuracy=accuracy,
        low=interval[0],
        high=interval[1],
        calls_per_question=calls,
        usd_per_question=usd,
    )


def _answers(parts: Split, selector: str, fuser: str) -> IntArray:
    """Fit a system as it was fitted, and return what it answers to the questions evaluated on, int [N]."""
    return Ensemble(parts.fit.agents, selector, fuser).fit(parts.fit).replay(parts.test).decision.answers


def _cloud(result: PruneResult, parts: Split) -> SubsetCloud:
    """Score the sub-ensembles of a pruning again: all, or a sample with the best and the front among it."""
    options = result.run.command["prune"]
    assert isinstance(options, dict)
    setting = prepare(parts.fit, parts.test, _options(options))
    found = search(
        setting.scorer,
        setting.space,
        top=1,
        method=result.method,
        budget=options["budget"] or BUDGET,
        seed=options["seed"],
        keep=MAX_POINTS,
    )
    assert found.cloud is not None
    members_PS, scores = found.cloud.members, found.cloud.scores
    named = [_padded(_ranks(setting, agents), members_PS.shape[1]) for agents in _shown(result)]
    places = []
    for row_S in named:
        at = np.flatnonzero((members_PS == row_S).all(axis=1))
        if not len(at):  # It was not drawn into the sample.
            at = np.array([len(members_PS)])
            members_PS = np.vstack([members_PS, row_S])
            own = setting.scorer(row_S[row_S >= 0][None])
            scores = Scores(*(np.concatenate(pair) for pair in zip(scores, own, strict=True)))
        places.append(int(at[0]))
    test_bits = BitTable.of(setting.parts.test, ranked=setting.scorer.bits.ranked)
    # Agents that were excluded are on the page, but not in the search.
    places_M = np.array([parts.fit.agents.index(name) for name in setting.parts.fit.agents])
    usd = setting.scorer.usd
    return SubsetCloud(
        members=np.where(members_PS >= 0, places_M[setting.scorer.bits.ranked[members_PS]], -1).astype(np.int16),
        objective=scores.objective,
        accuracy=scores.accuracy,
        focal=np.nan_to_num(scores.focal),
        test_accuracy=_votes(test_bits, members_PS) / len(parts.test),
        cost=None if usd is None else np.where(members_PS >= 0, usd[members_PS], 0.0).sum(axis=1),
        sampled_from=found.cloud.sampled_from,
        best=places[0],
        pareto=np.array(sorted(set(places[1:])), np.intp),
    )


def _worth(result: PruneResult) -> MemberWorth | None:
    if result.evidence is None or result.evidence.worth is None:
        return None
    members = result.evidence.worth.members
    return MemberWorth(
        agents=tuple(member.agent for member in members),
        loo=np.array([member.leave_one_out for member in members]),
        shapley=np.array([member.shapley for member in members]),
        shapley_low=np.array([member.shapley_ci95[0] for member in members]),
        shapley_high=np.array([member.shapley_ci95[1] for member in members]),
    )


def _stability(result: PruneResult) -> tuple[StabilityRow, ...] | None:
    if result.evidence is None or result.evidence.stability is None:
        return None
    found = result.evidence.stability
    return tuple(StabilityRow(agents=item.agents, share=item.in_top / found.resamples) for item in found.subsets)


def _votes(bits: BitTable, rows_PS: IntArray) -> IntArray:
    """Return on how many questions the vote of each sub-ensemble is right; rows of several sizes, padded with -1."""
    right_P = np.zeros(len(rows_PS), np.int64)
    sizes_P = (rows_PS >= 0).sum(axis=1)
    for size in np.unique(sizes_P).tolist():
        right_P[sizes_P == size] = bits.votes(np.ascontiguousarray(rows_PS[sizes_P == size, :size]))
    return right_P


def _ranks(setting: Setting, agents: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(setting.parts.fit.agents)}
    ranks: list[int] = setting.scorer.bits.rank(np.array([[places[name] for name in agents]]))[0].tolist()
    return ranks


def _label(result: PruneResult) -> str:
    return f"{_name(result.subsets[0].agents)}, {result.fuser}"


def _shown(result: PruneResult) -> list[tuple[str, ...]]:
    """Return the sub-ensembles that are marked among all: the best, and the Pareto front."""
    return [result.subsets[0].agents, *(item.agents for item in result.front)]


def _padded(ranks: Sequence[int], width: int) -> IntArray:
    return np.array([*ranks, *[-1] * (width - len(ranks))], np.int16)


def _options(given: dict[str, Any]) -> PruneOptions:
    """Return options as they were before JSON made lists of their tuples."""
    prices = {name: (read, written) for name, (read, written) in given["prices"].items()}
    own: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    own["prices"] = prices
    return PruneOptions(**own)


def _name(agents: Sequence[str]) -> str:
    return " + ".join(agents)


def _listed(agents: Sequence[str]) -> str:
    return json.dumps(list(agents), ensure_ascii=False)


def _sentences(result: Result) -> list[str]:
    first, *others = result.verdict.rstrip(".").split("; ")
    if isinstance(result, BenchResult):
        return [f"{first}.", *(f"{clause}." for clause in others)]
    unfinished = [] if result.complete else ["The pruning was interrupted: this is the best of what it had looked at."]
    return [f"{first}.", *unfinished, *(f"It {clause}." for clause in others)]


def _notes(result: Result) -> tuple[str, ...]:
    if isinstance(result, PruneResult) and result.evidence is not None:
        return (*result.notes, *evidence_sentences(result.evidence), *result.evidence.notes)
    return result.notes


def _title(run: Run) -> str:
    named = run.result.run.command.get("table")
    stem = Path(named).name.partition(".")[0] if isinstance(named, str) else run.file.stem
    return f"{stem}: {run.result.n} questions"


def _provenance(runs: Sequence[Run]) -> dict[str, str]:
    found: dict[str, str] = {}
    for run in runs:
        record: RunRecord = run.result.run
        found[f"{run.file.name}: made"] = f"{record.started}, in {record.seconds:.1f} s on {record.hardware}"
        found[f"{run.file.name}: command"] = json.dumps(dict(record.command), ensure_ascii=False)
    record = runs[0].result.run
    found |= {f"table, {role}": mark for role, mark in record.tables.items()}
    found["versions"] = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    if record.commit:
        found["commit"] = record.commit
    return found
