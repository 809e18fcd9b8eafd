"""Many prunings from one file: a result a job, each made once, however often the work is interrupted."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fusion.data import PredictionTable, read_table
from fusion.errors import FusionError, InputError
from fusion.evaluation import PairedResult, as_json
from fusion.files import check_writable
from fusion.protocols import Executor
from fusion.pruning._jobs_file import Job, read_jobs
from fusion.pruning._options import PruneOptions
from fusion.pruning._prune import Progress, marks_of, prune
from fusion.pruning._result import PruneResult
from fusion.schema import Json


@dataclass(frozen=True, kw_only=True)
class JobFound:
    """What a job found: the best of its sub-ensembles, and how it stands against the best single member.

    Args:
        agents: Its members, in pool order.
        objective: What it was chosen by.
        fuser: What settles its members' answers.
        n: Questions evaluated on.
        test_accuracy: On them.
        test_ci95: 95 % interval of it.
        paired: Against the best single member; None when that is the best sub-ensemble.
    """

    agents: tuple[str, ...]
    objective: str
    fuser: str
    n: int
    test_accuracy: float
    test_ci95: tuple[float, float]
    paired: PairedResult | None

    @classmethod
    def of(cls, result: PruneResult) -> JobFound:
        """Return the gist of a result."""
        best = result.subsets[0]
        return cls(
            agents=best.agents,
            objective=result.objective,
            fuser=result.fuser,
            n=result.n,
            test_accuracy=best.test_accuracy,
            test_ci95=best.test_ci95,
            paired=next((pair for pair in result.paired if pair.family == "best single"), None),
        )


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What became of a job.

    Args:
        name: Of the job.
        status: `made`; `replaced`: made anew, because the result that was there was made from something else;
            `reused`: the result was there; `failed`; or `waiting`: interrupted before it was done.
        file: Where its result is, or will be; `PruneResult.load` reads it.
        reason: Why it was replaced, or failed; else empty.
        found: The gist of the result; None where there is none.
    """

    name: str
    status: Literal["made", "replaced", "reused", "failed", "waiting"]
    file: str
    reason: str = ""
    found: JobFound | None = None


@dataclass(frozen=True, kw_only=True)
class JobsResult:
    """What became of many prunings.

    Args:
        file: The file that describes them.
        folder: Where the results are.
        jobs: Each, in the order of the file.
        complete: False when interrupted; the same call goes on from there.
        seconds: Wall time.
    """

    file: str
    folder: str
    jobs: tuple[JobResult, ...]
    complete: bool
    seconds: float
    format: Literal["fusion.prune-jobs/1"] = "fusion.prune-jobs/1"

    def to_json(self) -> dict[str, Json]:
        """Return the summary as JSON values; docs/pruning.md describes them."""
        return as_json(self)

    def having(self, *statuses: str) -> tuple[JobResult, ...]:
        """Return the jobs with one of these statuses."""
        return tuple(job for job in self.jobs if job.status in statuses)


def run_jobs(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> JobsResult:
    """Do the prunings that a file describes, each whose result is not there yet.

    A result is reused when it was made from the same options and the same content of the tables. A job that fails
    does not keep the others from being done.

    Args:
        file: The file, YAML; docs/pruning.md describes it.
        out: Folder of the results, NAME.json each; by default a folder beside the file, named like it.
        overrides: Values that win over the file's, by dotted key ("defaults.seed").
        executor: Where to search; here when None.
        progress: Told what is done, the number of jobs that are through, and how many there are.

    Returns:
        What became of each; when interrupted (KeyboardInterrupt), of those that were through. The others wait.

    Raises:
        ConfigError: When the file cannot be read, or a key or value in it is refused.
        OutputError: When a result cannot be written.
    """
    start = time.perf_counter()
    jobs = read_jobs(file, overrides=overrides)
    folder = Path(file).with_suffix("") if out is None else Path(out)
    check_writable(_home(folder, jobs[0]))
    told = progress or (lambda step, done, total: None)
    shelf = _Shelf(jobs)
    results: list[JobResult] = []
    with contextlib.suppress(KeyboardInterrupt):
        for done, job in enumerate(jobs):
            results.append(_do(job, _home(folder, job), shelf, executor, _inner(told, job, done, len(jobs))))
            shelf.finished(job)
            told(f"done with {job.name}", done + 1, len(jobs))
    waiting = jobs[len(results) :]
    results += [JobResult(name=job.name, status="waiting", file=str(_home(folder, job))) for job in waiting]
    return JobsResult(
        file=os.fspath(file),
        folder=str(folder),
        jobs=tuple(results),
        complete=not waiting,
        seconds=round(time.perf_counter() - start, 3),
    )


def _home(folder: Path, job: Job) -> Path:
    return folder / f"{job.name}.json"


def _inner(told: Progress, job: Job, done: int, total: int) -> Progress:
    """Return what tells of a step of a job, beside the jobs that are through."""

    def inner(step: str, part: int, parts: int) -> None:
        share = f" {100 * part // parts} %" if parts > 1 else ""
        told(f"{step}{share}, {job.name}", done, total)

    return inner


class _Shelf:
    """Tables that several jobs read: each is read once, and kept while a job still needs it."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._uses = collections.Counter(os.path.realpath(path) for job in jobs for path in job.paths)
        self._tables: dict[str, PredictionTable] = {}

    def read(self, path: str) -> PredictionTable:
        """Return a table.

        Raises:
            TableError: When it cannot be read.
        """
        key = os.path.realpath(path)
        if key not in self._tables:
            self._tables[key] = read_table(path)
        return self._tables[key]

    def finished(self, job: Job) -> None:
        """Take note that a job needs its tables no longer."""
        for path in map(os.path.realpath, job.paths):
            self._uses[path] -= 1
            if not self._uses[path]:
                self._tables.pop(path, None)


def _do(job: Job, home: Path, shelf: _Shelf, executor: Executor | None, told: Progress) -> JobResult:
    """Do a job, unless its result is there.

    Raises:
        KeyboardInterrupt: When interrupted, also where `prune` has something to show for it.
    """
    try:
        told("reading", 0, 1)
        options = job.config.options()
        table = shelf.read(job.config.table)
        test = None if job.config.test is None else shelf.read(job.config.test)
        old = PruneResult.load(home) if home.exists() else None
        reason = "" if old is None else "; ".join(_changes(old, table, test, options))
        if old is not None and not reason:
            return JobResult(name=job.name, status="reused", file=str(home), found=JobFound.of(old))
        result = prune(table, test=test, options=options, executor=executor, progress=told)
    except InputError as error:
        reason = f"{error}; what is there stays: move it away, or give another folder"
        return JobResult(name=job.name, status="failed", file=str(home), reason=reason)
    except FusionError as error:
        return JobResult(name=job.name, status="failed", file=str(home), reason=str(error))
    if not result.complete:
        raise KeyboardInterrupt
    files = {"table": job.config.table, "test": job.config.test}
    run = dataclasses.replace(result.run, command={**result.run.command, **files})
    dataclasses.replace(result, run=run).save(home)
    status: Literal["made", "replaced"] = "made" if old is None else "replaced"
    return JobResult(name=job.name, status=status, file=str(home), reason=reason, found=JobFound.of(result))


def _changes(
    old: PruneResult, table: PredictionTable, test: PredictionTable | None, options: PruneOptions
) -> Iterator[str]:
    """Yield what else than the options and the tables a result was made from."""
    recorded = old.run.command.get("prune")
    before = recorded if isinstance(recorded, dict) else {}
    now = json.loads(json.dumps(dataclasses.asdict(options)))
    changed = [key for key in now if key not in before or before[key] != now[key]]
    if not old.complete:
        yield "it was interrupted"
    if changed:
        yield f"its {', '.join(changed)} changed"
        return
    # The fingerprints of the parts, not of the whole: these differ as well when it is split otherwise.
    if dict(old.run.tables) != marks_of(table, test, options):
        yield "its table changed"
