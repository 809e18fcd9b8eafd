"""Asking a pool about one question: whom the selector wants, until the fuser can answer.

The table that the decision saw is part of the answer, so that replaying it gives the same decision.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from fusion.agents import (
    Agent,
    AgentPool,
    Allowance,
    Asker,
    Budget,
    Engines,
    RecordKey,
    RecordStore,
    allowing,
    paid_answers,
    sum_usage,
    sum_usd,
    usd,
)
from fusion.answer import Member, answer_text
from fusion.data import Call, PredictionTable, Reader, tabulate
from fusion.errors import (
    ConfigError,
    FusionError,
    NoQuorum,
    NotFitted,
    OutputError,
    StoreError,
    TableMismatch,
    UsageError,
)
from fusion.protocols import Fuser, SettlingFuser, is_slow
from fusion.schema import FINAL, BoolArray, Completion, Decision, Question, Request, Selection

_PAUSE_S = 0.01
"""How long nothing must arrive before it is worth finding out whether the rest can be cancelled."""

Choose = Callable[[PredictionTable, BoolArray], Selection]
"""Whom a selector listens to, given what has been answered so far and bool [1, M], who has been asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to stop asking.

    Money and time are those of the whole question. What the members leave of them is for the calls that a fuser makes
    itself (`synthesize`, `rank`): it makes only those that surely fit, waits for none of them any longer, and lets
    votes decide where one is missing. A fuser that runs a model of its own (`topla_summary`) costs no money, and
    cannot be interrupted: it may end after the deadline.

    Args:
        quorum: Answers that are needed: a number, or a share of the agents asked (a float up to 1).
        deadline_s: Seconds after which those who have not answered are left out, whoever asked them.
        max_cost: USD that one question may cost at most; agents that might exceed it are not asked. All need prices,
            one that the fuser asks too.
        settle: Cancel the calls that cannot change the answer any more.
    """

    quorum: int | float = 0.5
    deadline_s: Annotated[float, Gt(0)] | None = None
    max_cost: Annotated[float, Ge(0)] | None = None
    settle: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.quorum, bool) or not isinstance(self.quorum, int | float):
            raise ConfigError(f"quorum must be a number of agents, or a share from 0.0 to 1.0, got {self.quorum!r}")
        if not self.quorum >= 0 or (isinstance(self.quorum, float) and self.quorum > 1):
            raise ConfigError(f"quorum must be a number of agents, or a share from 0.0 to 1.0, got {self.quorum}")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(f"deadline_s must be more than 0 seconds, got {self.deadline_s}")
        if self.max_cost is not None and not self.max_cost >= 0:
            raise ConfigError(f"max_cost must be at least 0 USD, got {self.max_cost}")

    def needed(self, num_asked: int) -> int:
        """Return how many of `num_asked` agents must answer."""
        return math.ceil(self.quorum * num_asked) if isinstance(self.quorum, float) else self.quorum


@dataclass(kw_only=True)
class Round:
    """The calls about one question.

    Args:
        pool: The agents.
        engines: Their engines.
        asker: Makes requests and keys.
        question: What is asked.
        reader: Reads what comes back.
        limits: When to stop.
        store: Where answers are looked up and kept; None to keep none.
    """

    pool: AgentPool
    engines: Engines
    asker: Asker
    question: Question
    reader: Reader
    limits: Limits
    store: RecordStore | None = None
    calls: dict[tuple[int, int], Completion] = field(default_factory=dict, init=False)
    keys: dict[tuple[int, int], RecordKey] = field(default_factory=dict, init=False)
    known: set[tuple[int, int]] = field(default_factory=set, init=False)
    _adaptive: bool = field(default=False, init=False)

    async def run(self, choose: Choose, fuser: Fuser, *, adaptive: bool) -> tuple[PredictionTable, Selection, Decision]:
        """Ask whom `choose` wants, until nobody new is wanted, and fuse.

        Args:
            choose: The selector, already given what it may see.
            fuser: Settles the answer.
            adaptive: Whether the selector looks at answers, and so may want to ask more after some came.

        Raises:
            NoQuorum: When too few of the agents asked gave an answer.
            ConfigError: When there is a limit on the cost, and an agent or whom the fuser asks has no prices.
        """
        started = time.monotonic()
        budget = Budget(self.pool, self.limits.max_cost)
        asked_M = np.zeros(len(self.pool), dtype=bool)
        self._adaptive = adaptive
        nothing = self.table()
        selection = choose(nothing, asked_M[None])
        self._check(nothing, selection, fuser)
        while True:
            new_M = selection.mask[0] & ~asked_M
            left = None if self.limits.deadline_s is None else self.limits.deadline_s - (time.monotonic() - started)
            if not new_M.any() or (left is not None and left <= 0):
                break
            asked_M |= new_M
            await self._ask(_in_order(selection, new_M), selection, fuser, budget, left)
            if not adaptive:
                break
            selection = choose(self.table(), asked_M[None])
        table = self.table()
        self._require_quorum(table, asked_M)
        left = None if self.limits.deadline_s is None else self.limits.deadline_s - (time.monotonic() - started)
        allowance, blind = Allowance(usd=budget.left, seconds=left), table.blind()
        if is_slow(fuser):
            return table, selection, await _apart(lambda: _fused(fuser, blind, selection, allowance))
        return table, selection, _fused(fuser, blind, selection, allowance)

    def _check(self, nothing: PredictionTable, selection: Selection, fuser: Fuser) -> None:
        """Find out before anybody is paid what could not work anyway.

        Raises:
            UsageError: When the quorum is larger than what is asked, or the reader cannot read this question.
            NotFitted, TableMismatch, ConfigError: When the fuser says so.
        """
        wanted = len(self.pool) if self._adaptive else int(selection.mask[0].sum())
        if self.limits.needed(wanted) > wanted:
            raise UsageError(f"a quorum of {self.limits.quorum} cannot be met: {wanted} agents are asked")
        self.reader.parse("", self.question)
        try:
            _fused(fuser, nothing.blind(), selection, Allowance(usd=self.limits.max_cost))
        except (NotFitted, TableMismatch, UsageError):
            raise
        except FusionError:
            # An empty table may lack what answers will bring: probabilities, draws.
            return

    def table(self) -> PredictionTable:
        """Return what is known so far, one row."""
        calls = [Call(0, agent, sample, completion) for (agent, sample), completion in self.calls.items()]
        draws = max(agent.samples for agent in self.pool)
        return tabulate([self.question], self.pool.names, calls, reader=self.reader, draws=draws)

    def members(self, table: PredictionTable) -> tuple[Member, ...]:
        """Return what every agent that was wanted contributed."""
        found = []
        for m, agent in enumerate(self.pool):
            mine = {r: self.calls[m, r] for r in range(agent.samples) if (m, r) in self.calls}
            if not mine:
                continue
            draws_R = table.answers[0, m : m + 1] if table.sample_answers is None else table.sample_answers[0, m]
            shown = next((r for r in mine if r < len(draws_R) and draws_R[r] >= 0), next(iter(mine)))
            final = [completion for completion in mine.values() if completion.status in FINAL]
            found.append(
                Member(
                    agent=agent.name,
                    status=mine[shown].status,
                    answer=answer_text(table, int(draws_R[shown])) if shown < len(draws_R) else None,
                    text=mine[shown].text,
                    calls=len(final),
                    recorded=sum(position == m for position, _ in self.known),
                    usage=sum_usage([completion.usage for completion in final]),
                    cost=sum_usd([usd(agent, completion.usage) for completion in final]),
                    seconds=max(completion.seconds for completion in mine.values()),
                    detail=mine[shown].detail,
                )
            )
        return tuple(found)

    async def _ask(
        self, wanted: Sequence[int], selection: Selection, fuser: Fuser, budget: Budget, left: float | None
    ) -> None:
        """Ask the agents at the positions `wanted`; return when all have ended or the rest cannot matter."""
        started = time.monotonic()
        tasks = {asyncio.create_task(self._ask_one(m, budget)): m for m in wanted}
        pending: set[asyncio.Task[None]] = set(tasks)
        why: Completion | None = None
        unchecked = False
        try:
            while pending and why is None:
                until = None if left is None else left - (time.monotonic() - started)
                if until is not None and until <= 0:
                    why = Completion(status="timeout", detail=f"no answer within {self.limits.deadline_s} s")
                    break
                pause = _PAUSE_S if unchecked else None
                wait = pause if until is None else until if pause is None else min(pause, until)
                done, pending = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if done:
                    unchecked = self.limits.settle
                elif unchecked:
                    unchecked = False
                    if self._settled(selection, fuser, {tasks[task] for task in pending}):
                        why = Completion(status="cancelled", detail="the others had decided the answer")
        finally:
            for task in tasks:
                task.cancel()
            # Their connections are closed before anything else is done; what they raise was asked for, or is raised
            # by the first of them.
            await asyncio.gather(*tasks, return_exceptions=True)
            if why is not None:
                self._leave_out([tasks[task] for task in pending], why, time.monotonic() - started)

    async def _ask_one(self, m: int, budget: Budget) -> None:
        """Ask one agent all its draws; a failure of its engine is a status of its calls."""
        agent = self.pool.agents[m]
        open_samples: dict[int, Request] = {}
        try:
            await self.asker.scoring(agent, self.question)
            for r in range(agent.samples):
                request = self.asker.request(agent, self.question, r)
                if not self._recorded(m, r, request):
                    open_samples[r] = request
            requests, places = list(open_samples.values()), list(open_samples)
            async with aclosing(paid_answers(budget, agent, requests, self._answer)) as answers:
                async for index, completion in answers:
                    self._keep(m, places[index], completion)
        except (UsageError, StoreError, OutputError):
            raise
        except FusionError as error:
            for r in range(agent.samples):
                if (m, r) not in self.calls:
                    self._keep(m, r, Completion(status="engine_error", detail=str(error)), store=False)

    def _answer(self, agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        return self.engines.engine_of(agent).generate(requests)

    def _recorded(self, m: int, sample: int, request: Request) -> bool:
        if self.store is None:
            return False
        key = self.keys[m, sample] = self.asker.key(self.pool.agents[m], request)
        digest = key.digest
        known = self.store.get([digest]).get(digest)
        if known is None or known.status not in FINAL:
            return False
        self.calls[m, sample] = known
        self.known.add((m, sample))
        return True

    def _keep(self, m: int, sample: int, completion: Completion, *, store: bool = True) -> None:
        agent = self.pool.agents[m]
        self.calls[m, sample] = completion
        if self.store is not None and store:
            # A call that is left out before its key was made is kept under the key that it would have had.
            key = self.keys.get((m, sample)) or self.asker.key(agent, self.asker.request(agent, self.question, sample))
            self.calls[m, sample] = self.store.put(key, completion, agent=agent.name)

    def _leave_out(self, positions: Sequence[int], why: Completion, seconds: float) -> None:
        for m in positions:
            for r in range(self.pool.agents[m].samples):
                if (m, r) not in self.calls:
                    # An engine whose model is missing cannot say what its key would have been.
                    with suppress(FusionError):
                        self._keep(m, r, dataclasses.replace(why, seconds=seconds))

    def _settled(self, selection: Selection, fuser: Fuser, pending: set[int]) -> bool:
        # A selector that looks at answers may want others after those that are missing.
        if self._adaptive or not isinstance(fuser, SettlingFuser):
            return False
        table = self.table()
        if int(table.answered[0].sum()) < self.limits.needed(int(selection.mask[0].sum())):
            return False
        pending_NM = np.zeros((1, len(self.pool)), dtype=bool)
        pending_NM[0, sorted(pending)] = True
        return bool(fuser.settled(table.blind(), selection, pending_NM)[0])

    def _require_quorum(self, table: PredictionTable, asked_M: BoolArray) -> None:
        answered_M = table.answered[0]
        if table.sample_answers is not None:
            answered_M = answered_M | (table.sample_answers[0] >= 0).any(axis=1)
        answered = int((answered_M & asked_M).sum())
        needed = self.limits.needed(int(asked_M.sum()))
        if answered >= needed:
            return
        causes = {
            member.agent: f"{member.status}{f' ({member.detail})' if member.detail else ''}"
            if member.status not in ("ok", "truncated")
            else f"{member.status}, but no answer can be read in {member.text[:60]!r}"
            for member in self.members(table)
            if member.answer is None
        }
        raise NoQuorum(self.question.id, needed=needed, answered=answered, causes=causes)


def _fused(fuser: Fuser, table: PredictionTable, selection: Selection, allowance: Allowance) -> Decision:
    with allowing(allowance):
        return fuser.fuse(table, selection)


async def _apart(work: Callable[[], Decision]) -> Decision:
    """Do what takes long in a thread of its own.

    The event loop's few threads will not do: engines and connections want them too while a fuser waits for what it
    asked, and a question whose time is running must not queue behind those that have plenty.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fusion-fuser")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    finally:
        pool.shutdown(wait=False)


def _in_order(selection: Selection, new_M: BoolArray) -> list[int]:
    positions = np.flatnonzero(new_M)
    if selection.order is not None:
        positions = positions[np.argsort(selection.order[0][positions], kind="stable")]
    return [int(m) for m in positions]
