"""Recording a pool on a task: the questions, the store, the table, and what happened to every member."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusion.agents import (
    Agent,
    AgentPool,
    Answerer,
    Engines,
    Estimate,
    Progress,
    Recorder,
    Recording,
    RecordStore,
    RemoteAnswerer,
    statuses_json,
    store_file,
    sum_usage,
    sum_usd,
    usd,
)
from fusion.data import PredictionTable, load_task, read_table, tabulate, write_table
from fusion.discovery import spec_of
from fusion.errors import EngineError, InputError, UsageError
from fusion.executors import open_executor
from fusion.files import check_writable, write_text
from fusion.protocols import Task
from fusion.schema import FINAL, Completion, Json, Question, RunRecord, Status
from fusion.stopwatch import Stopwatch

TABLE = "table.parquet"
RECORD = "record.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOptions:
    """What to ask and how much.

    Args:
        split: Split of the task; by default test, or the task's last.
        limit: Which questions: a number from the start ("100"), a share of them ("0.1") or a range ("100-200").
        root: Folder in hub layout to read the questions from; by default the hub.
        samples: Draws per question, for every agent; by default each agent's own.
        max_cost: USD that may be spent at most; None for no limit.
        answerer: Where requests are answered; by default in this process.
    """

    split: str | None = None
    limit: str | None = None
    root: Path | None = None
    samples: int | None = None
    max_cost: float | None = None
    answerer: Answerer | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRecord:
    """How one agent did.

    Args:
        agent: Its name.
        calls: Calls that the table stands on.
        recorded: Of these, how many were on record before.
        statuses: How the calls ended.
        failed_share: Share of the calls without a final answer.
        reasons: Why calls failed and how many did, the most frequent first, at most five.
        unread_share: Share of the questions without an answer that could be read, failures included.
        accuracy: Share of all questions answered right; None when the right answers are unknown.
        tokens_in, tokens_out: Of all final calls; None when the engine does not say.
        cost: USD; None when prices or tokens are unknown.
        seconds: Time of all calls one after another.
        error: Why it could not be asked, or stopped answering; "" when nothing did.
    """

    agent: str
    calls: int
    recorded: int
    statuses: dict[Status, int]
    failed_share: float
    reasons: dict[str, int]
    unread_share: float
    accuracy: float | None
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    seconds: float
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordResult:
    """What a recording made.

    Args:
        table: The answers.
        members: How every agent did, in the pool's order.
        run: What made it.
    """

    table: PredictionTable
    members: tuple[MemberRecord, ...]
    run: RunRecord

    def to_json(self) -> dict[str, Json]:
        """Return all but the table."""
        value = {
            "format": "fusion.record/1",
            "questions": len(self.table),
            "table": self.table.fingerprint,
            "members": [dataclasses.asdict(member) for member in self.members],
            "run": dataclasses.asdict(self.run),
        }
        plain: dict[str, Json] = json.loads(json.dumps(value, default=str))
        return plain


def record(
    pool: AgentPool,
    task: str,
    out: str | os.PathLike[str],
    *,
    options: RecordOptions | None = None,
    progress: Progress | None = None,
) -> RecordResult:
    """Ask every agent of `pool` every question of `task` once, and write the table.

    The folder `out` then holds the store (answers.sqlite), the table (table.parquet) and what happened (record.json).
    Calling it again asks only what has no final answer yet; agents and samples may have been added since.

    Args:
        pool: Agents with engines.
        task: Spec of the task, such as "gsm8k" or "mmlu(num_fewshot=0)".
        out: The folder; made when it is missing.
        options: What to ask and how much.
        progress: Is told of every call that ended.

    Raises:
        UsageError: When an agent has no engine, the folder holds the record of another task or split, or the limit
            selects nothing.
        EngineError: When an agent that is in the table cannot be asked any more; the table is left as it is.
        ConfigError: When there is a limit on the cost and an agent without prices.
        OutputError: When the folder cannot be written.
    """
    return asyncio.run(arecord(pool, task, out, options=options, progress=progress))


async def arecord(
    pool: AgentPool,
    task: str,
    out: str | os.PathLike[str],
    *,
    options: RecordOptions | None = None,
    progress: Progress | None = None,
) -> RecordResult:
    """Do what `record` does, on the running event loop."""
    options = options or RecordOptions()
    watch = Stopwatch()
    work = _prepare(task, options)
    pool = _with_samples(pool, options.samples)
    folder = Path(out)
    _check_folder(folder, work.command)
    with RecordStore.open(folder) as store:
        async with Engines(pool) as engines:
            recorder = _recorder(pool, engines, store, work, options)
            recording = await recorder.record(work.questions, progress=progress)
    provenance: dict[str, Json] = {
        **work.command,
        "extractor": work.task.extractor,
        "statuses": {name: dict(counts) for name, counts in statuses_json(recording).items()},
        "means": {plan.agent.name: [*sorted(name or "generate" for name in plan.means)] for plan in recording.plans},
    }
    draws = max(agent.samples for agent in pool)
    table = tabulate(work.questions, pool.names, recording.calls, reader=work.task, draws=draws, provenance=provenance)
    completions: dict[int, list[Completion]] = {}
    for call in recording.calls:
        completions.setdefault(call.agent, []).append(call.completion)
    members = tuple(_member(recording, table, m, agent, completions.get(m, [])) for m, agent in enumerate(pool))
    command = {**work.command, "pool": pool.to_json()}
    result = RecordResult(table=table, members=members, run=watch.record(command, {"record": table.fingerprint}))
    _check_not_poorer(table, folder / TABLE, recording.errors)
    write_table(table, folder / TABLE)
    write_text(folder / RECORD, json.dumps(result.to_json(), indent=1) + "\n")
    return result


def plan(
    pool: AgentPool, task: str, out: str | os.PathLike[str], *, options: RecordOptions | None = None
) -> list[Estimate]:
    """Return what `record` would still have to ask, agent by agent. No model answers, nothing is written.

    Raises:
        UsageError: When an agent has no engine, or the limit selects nothing.
    """
    options = options or RecordOptions()
    work = _prepare(task, options)
    pool = _with_samples(pool, options.samples)
    _check_folder(Path(out), work.command)

    async def estimated(folder: Path) -> list[Estimate]:
        with RecordStore.open(folder) as store:
            async with Engines(pool) as engines:
                recorder = _recorder(pool, engines, store, work, options)
                return await recorder.estimate(work.questions)

    if store_file(out).exists():
        return asyncio.run(estimated(Path(out)))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(estimated(Path(folder)))


def take(questions: Sequence[Question], limit: str | None) -> Sequence[Question]:
    """Return the questions that a limit such as "100", "0.1" or "100-200" leaves.

    Raises:
        UsageError: When it cannot be read, or leaves none.
    """
    if limit is None:
        return questions
    if found := re.fullmatch(r"(\d+)-(\d+)", limit):
        taken = questions[int(found[1]) : int(found[2])]
    elif re.fullmatch(r"\d+", limit):
        taken = questions[: int(limit)]
    elif re.fullmatch(r"0?\.\d+|1\.0*", limit):
        taken = questions[: round(float(limit) * len(questions))]
    else:
        raise UsageError(f"a limit is a number, a share or a range, such as 100, 0.1 or 100-200; got {limit!r}")
    if not taken:
        raise UsageError(f"the limit {limit} leaves none of the {len(questions)} questions")
    return taken


@contextlib.contextmanager
def answerer(executor: str, pool: AgentPool) -> Iterator[Answerer | None]:
    """Yield where requests are answered: None for this process ("here"), else the workers of an executor.

    Args:
        executor: "here", or the spec of an executor, such as "local" or "ray(num_gpus=1)".
        pool: Whose requests.

    Raises:
        UnknownName: When there is no such executor.
        InvalidSpec: When it refuses a parameter.
        FusionError: When it has nowhere to work.
    """
    with open_executor(executor) as made:
        yield None if made is None else RemoteAnswerer(made, pool)


class _Work(NamedTuple):
    task: Task
    questions: Sequence[Question]
    command: dict[str, Json]


def _prepare(task: str, options: RecordOptions) -> _Work:
    method = load_task(task)
    split = options.split or ("test" if "test" in method.splits else method.splits[-1])
    questions = take(method.load(split, root=options.root), options.limit)
    command: dict[str, Json] = {
        "task": str(spec_of(method)),
        "revision": method.revision,
        "split": split,
        "limit": options.limit,
    }
    return _Work(method, questions, command)


def _with_samples(pool: AgentPool, samples: int | None) -> AgentPool:
    if samples is None:
        return pool
    cold = [agent.name for agent in pool if agent.temperature == 0]
    if samples > 1 and cold:
        raise UsageError(
            f"several samples of {', '.join(cold)} at temperature 0 would all be the same; give a temperature in the "
            "pool file, or here: --set defaults.temperature=0.7"
        )
    return AgentPool(tuple(dataclasses.replace(agent, samples=samples) for agent in pool))


def _recorder(pool: AgentPool, engines: Engines, store: RecordStore, work: _Work, options: RecordOptions) -> Recorder:
    return Recorder(
        pool,
        engines,
        store,
        task=str(work.command["task"]),
        answerer=options.answerer,
        max_cost=options.max_cost,
    )


def _check_folder(folder: Path, command: dict[str, Json]) -> None:
    """Refuse to replace the table of another task; the store itself could hold both."""
    check_writable(folder / TABLE)
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))["run"]["command"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / RECORD} is not the record of a run ({error}); give another --out") from error
    for key in ("task", "split"):
        if before.get(key) != command[key]:
            raise UsageError(
                f"{folder} holds a record of {key} {before.get(key)}, not {command[key]}; give another folder"
            )


def _check_not_poorer(table: PredictionTable, path: Path, errors: Mapping[str, str]) -> None:
    """Refuse to replace a table by one that lacks an agent's answers because its engine could not start.

    Raises:
        EngineError: When an agent that could not be asked has answers in the table that is there.
    """
    if not errors or not path.exists():
        return
    before = read_table(path)
    for name, why in errors.items():
        if name in before.agents:
            had = int(before.answered[:, before.agents.index(name)].sum())
            if had > int(table.answered[:, table.agents.index(name)].sum()):
                raise EngineError(
                    f"agent {name!r} cannot be asked ({why}), and {path} has {had} answers of it, more than there "
                    "would be now; the table was left as it is, new answers of the others are in the store. Mend the "
                    "engine, or take the agent out of the pool"
                )


def _member(
    recording: Recording, table: PredictionTable, m: int, agent: Agent, completions: Sequence[Completion]
) -> MemberRecord:
    final = [completion for completion in completions if completion.status in FINAL]
    usage = sum_usage([completion.usage for completion in final])
    return MemberRecord(
        agent=agent.name,
        calls=len(recording.plans[m].jobs),
        recorded=recording.recorded[agent.name],
        statuses=recording.statuses[agent.name],
        failed_share=recording.failed_share(agent.name),
        reasons=_reasons(completions),
        unread_share=float((~table.answered[:, m]).mean()),
        accuracy=None if table.labels is None else float(table.accuracies[m]),
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        cost=None if None in agent.prices else sum_usd([usd(agent, completion.usage) for completion in final]),
        seconds=sum(completion.seconds for completion in completions),
        error=recording.errors.get(agent.name, ""),
    )


def _reasons(completions: Sequence[Completion]) -> dict[str, int]:
    failed = (completion for completion in completions if completion.status not in FINAL)
    said = Counter(f"{completion.status}: {completion.detail}".partition("\n")[0] for completion in failed)
    return dict(said.most_common(5))
