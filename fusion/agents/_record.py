"""Recording: ask a pool every question once, keep every answer, go on where it stopped."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from fusion.agents._agent import Agent
from fusion.agents._budget import Budget, paid_answers
from fusion.agents._engines import Engines
from fusion.agents._estimate import Estimate, estimate
from fusion.agents._plan import AgentPlan, Asker, plan_agent
from fusion.agents._pool import AgentPool
from fusion.agents._store import RecordStore
from fusion.data import Call
from fusion.errors import FusionError
from fusion.schema import FINAL, Completion, Question, Request, Status

_CHUNK = 1024
"""Requests handed to an engine at once; between chunks the store is looked at again, as others may record too."""
_BUDGET_CHUNK = 64
"""The same under a budget: what a chunk may cost at most is set aside before it is sent."""


class Progress(Protocol):
    """Is told of every call that ended."""

    def __call__(self, agent: str, *, done: int, total: int, failed: int) -> None:
        """Of `total` calls of `agent`, `done` have ended and `failed` of these have no final answer."""
        ...


class Answerer(Protocol):
    """Where requests are answered: this process by default, or an executor's workers."""

    def __call__(self, agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Yield (index, completion) as they come."""
        ...


@dataclass(kw_only=True)
class Recording:
    """What a recording found.

    Args:
        plans: The calls of every agent, in the pool's order.
        recorded: Calls that had their answer on record before, by agent.
        statuses: How the calls of every agent ended, those on record included.
        calls: What the store holds of the calls, agent by agent; calls never made are left out.
        errors: Agents that could not be asked at all or stopped answering, and why.
    """

    plans: list[AgentPlan]
    calls: list[Call] = field(default_factory=list)
    recorded: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, dict[Status, int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def failed_share(self, agent: str) -> float:
        """Return the share of the agent's calls that have no final answer; 1 when it has no calls."""
        counts = self.statuses.get(agent, {})
        total = sum(counts.values())
        return sum(count for status, count in counts.items() if status not in FINAL) / total if total else 1.0


class Recorder:
    """Asks a pool and keeps the answers.

    Args:
        pool: Who is asked.
        engines: Its engines.
        store: Where answers are kept.
        task: The task's spec, for the record.
        answerer: Where requests are answered; by default by the engines in this process.
        max_cost: USD that may be spent at most; None for no limit.

    Raises:
        ConfigError: When there is a limit and an agent without prices.
    """

    def __init__(
        self,
        pool: AgentPool,
        engines: Engines,
        store: RecordStore,
        *,
        task: str = "",
        answerer: Answerer | None = None,
        max_cost: float | None = None,
    ) -> None:
        self._pool = pool
        self._engines = engines
        self._store = store
        self._task = task
        self._answer = answerer or self._answer_here
        self._elsewhere = answerer is not None
        self._asker = Asker(engines, store)
        self._budget = Budget(pool, max_cost)

    async def plan(self, questions: Sequence[Question]) -> list[AgentPlan]:
        """Return the calls of every agent, and which of them are still open. Asks no model to answer."""
        return [
            await plan_agent(self._asker, self._store, agent, questions, position=m)
            for m, agent in enumerate(self._pool)
        ]

    async def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """Return what recording would take, agent by agent. Asks no model to answer."""
        return [
            await estimate(plan, self._asker, self._engines, self._store, questions)
            for plan in await self.plan(questions)
        ]

    async def record(self, questions: Sequence[Question], *, progress: Progress | None = None) -> Recording:
        """Ask every agent every question that has no final answer on record.

        Agents of one engine are asked one after another, so that a machine holds one model at a time; engines
        that are elsewhere work side by side. An agent whose engine fails is left, the others go on.
        """
        plans = await self.plan(questions)
        recording = Recording(plans=plans)
        for plan in plans:
            recording.recorded[plan.agent.name] = len(plan.jobs) - len(plan.open)
            if plan.error:
                recording.errors[plan.agent.name] = plan.error
        work = [asyncio.create_task(self._work(queue, questions, recording, progress)) for queue in self._queues(plans)]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        for plan in plans:
            recording.statuses[plan.agent.name] = self._collect(plan, recording.calls)
        return recording

    def _queues(self, plans: Sequence[AgentPlan]) -> list[list[AgentPlan]]:
        """Return agents that must take turns: those of one engine, and all whose models are in this process."""
        if self._elsewhere:
            return [[plan] for plan in plans if plan.open and not plan.error]
        queues: dict[int, list[AgentPlan]] = {}
        for plan in plans:
            if plan.error or not plan.open:
                continue
            engine = self._engines.engine_of(plan.agent)
            here = engine.memory_bytes(plan.agent.request(Question(id="", messages=()))) is not None
            queues.setdefault(0 if here else id(engine), []).append(plan)
        return [_by_model(queue) for queue in queues.values()]

    async def _work(
        self,
        queue: Sequence[AgentPlan],
        questions: Sequence[Question],
        recording: Recording,
        progress: Progress | None,
    ) -> None:
        for plan in queue:
            try:
                await self._ask(plan, questions, progress)
            except FusionError as error:
                recording.errors[plan.agent.name] = str(error)

    async def _ask(self, plan: AgentPlan, questions: Sequence[Question], progress: Progress | None) -> None:
        agent, total = plan.agent, len(plan.jobs)
        done, failed = total - len(plan.open), 0
        size = _CHUNK if self._budget.limit is None else _BUDGET_CHUNK
        while plan.open:
            chunk, plan.open = plan.open[:size], plan.open[size:]
            done += len(chunk)
            chunk = self._still_open(plan, chunk)
            done -= len(chunk)
            jobs = [plan.jobs[i] for i in chunk]
            requests = [self._asker.request(agent, questions[job.question], job.sample) for job in jobs]
            async with aclosing(paid_answers(self._budget, agent, requests, self._answer)) as answers:
                async for index, completion in answers:
                    kept = self._store.put(
                        self._asker.key(agent, requests[index]), completion, agent=agent.name, task=self._task
                    )
                    done, failed = done + 1, failed + (kept.status not in FINAL)
                    if progress:
                        progress(agent.name, done=done, total=total, failed=failed)

    def _still_open(self, plan: AgentPlan, chunk: Sequence[int]) -> list[int]:
        found = self._store.get(plan.jobs[i].digest for i in chunk)
        return [i for i in chunk if (kept := found.get(plan.jobs[i].digest)) is None or kept.status not in FINAL]

    def _answer_here(self, agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        return self._engines.engine_of(agent).generate(requests)

    def _collect(self, plan: AgentPlan, calls: list[Call]) -> dict[Status, int]:
        """Add the plan's calls to `calls`; return how they ended."""
        found = self._store.get(job.digest for job in plan.jobs)
        counts: dict[Status, int] = {}
        for job in plan.jobs:
            status: Status = "cancelled"
            if job.digest in found:
                status = found[job.digest].status
                calls.append(Call(job.question, plan.position, job.sample, found[job.digest]))
            counts[status] = counts.get(status, 0) + 1
        return counts


def _by_model(queue: Sequence[AgentPlan]) -> list[AgentPlan]:
    """Return the agents with those of one model next to each other, so that it is loaded once."""
    first: dict[tuple[str, str, str | None], int] = {}
    for plan in queue:
        agent = plan.agent
        first.setdefault((str(agent.engine), agent.model, agent.revision), len(first))
    return sorted(queue, key=lambda plan: first[str(plan.agent.engine), plan.agent.model, plan.agent.revision])


def statuses_json(recording: Recording) -> Mapping[str, Mapping[str, int]]:
    """Return how calls ended, agent by agent, as JSON."""
    return {name: dict(sorted(counts.items())) for name, counts in recording.statuses.items()}
