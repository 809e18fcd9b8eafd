"""Asking a pool about one question: whom the selector wants, until the fuser can answer.

The table that the decision saw is part of the answer, so that replaying it gives the same decision.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import numpy as np

from fusion._limits import CallCount
from fusion._limits import Limits as Limits
from fusion._path import Cut, Step, Stop, Walk, answer_text, spoke
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
from fusion.answer import Member
from fusion.data import Call, PredictionTable, Reader, tabulate
from fusion.errors import (
    FusionError,
    NoQuorum,
    NotFitted,
    OutputError,
    StoreError,
    TableMismatch,
    UsageError,
)
from fusion.protocols import Fuser, SettlingFuser, Telling, is_slow
from fusion.schema import FINAL, BoolArray, Completion, Decision, Question, Request, Selection

_PAUSE_S = 0.01
"""How long nothing must arrive before it is worth finding out whether the rest can be cancelled."""

Choose = Callable[[PredictionTable, BoolArray], tuple[Selection, Telling | None]]
"""Whom a selector listens to, given what has been answered so far and bool [1, M], who has been asked; and what it says
of that."""


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
    path: list[Step] = field(default_factory=list, init=False)
    _adaptive: bool = field(default=False, init=False)
    _count: CallCount = field(init=False)
    _refused: set[str] = field(default_factory=set, init=False)
    _kept_out: dict[str, Stop] = field(default_factory=dict, init=False)
    _short: dict[str, Stop] = field(default_factory=dict, init=False)
    _late: list[str] = field(default_factory=list, init=False)
    _idle: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._count = CallCount(self.limits.max_calls)

    async def run(
        self, choose: Choose, fuser: Fuser, *, adaptive: bool, selector: str
    ) -> tuple[PredictionTable, Selection, Decision]:
        """Ask whom `choose` wants, until nobody new is wanted, and fuse.

        Whom a limit keeps from being asked stays unasked, but is not tried again; a selector that wants nobody else but
        these is done. It is so on replay, too.

        Args:
            choose: The selector, already given what it may see.
            fuser: Settles the answer.
            adaptive: Whether the selector looks at answers, and so may want to ask more after some came.
            selector: Its name.

        Raises:
            NoQuorum: When too few of the agents asked gave an answer.
            ConfigError: When there is a limit on the cost, and an agent or whom the fuser asks has no prices.
        """
        started = time.monotonic()
        budget = Budget(self.pool, self.limits.max_cost)
        asked_M = np.zeros(len(self.pool), dtype=bool)
        self._adaptive = adaptive
        walk = Walk(selector, num_agents=len(self.pool), adaptive=adaptive)
        table = self.table()
        selection, told = choose(table, asked_M[None])
        self._check(table, selection, fuser)
        while (new_M := selection.mask[0] & ~asked_M).any():
            wanted = _in_order(selection, new_M)
            asked_M |= new_M
            left = self._left(started)
            if left is None or left > 0:
                await self._ask(wanted, selection, fuser, budget, left)
                self._note_refused(wanted)
            else:
                self._kept_out |= dict.fromkeys(self._named(wanted), "deadline")
            agents = [name for name in self._named(wanted) if name not in self._kept_out]
            walk.ask(agents, table, wanted=len(wanted), told=told)
            table = self.table()
            if not adaptive:
                break
            selection, told = choose(table, asked_M[None])
        self._require_quorum(table, asked_M)
        walk.end(table, told=told, cut=Cut(self._kept_out, self._short, self._late, self._idle), limits=self.limits)
        self.path = walk.steps
        allowance, blind = Allowance(usd=budget.left, seconds=self._left(started)), table.blind()
        if is_slow(fuser):
            return table, selection, await _apart(lambda: _fused(fuser, blind, selection, allowance))
        return table, selection, _fused(fuser, blind, selection, allowance)

    def _left(self, started: float) -> float | None:
        """Return the seconds that are left; None for no limit."""
        return None if self.limits.deadline_s is None else self.limits.deadline_s - (time.monotonic() - started)

    def _named(self, positions: Sequence[int]) -> list[str]:
        return [self.pool.names[m] for m in positions]

    def _note_refused(self, positions: Sequence[int]) -> None:
        """Note whom a limit kept from being asked at all, or for all draws."""
        for m, name in zip(positions, self._named(positions), strict=True):
            refused = [call.status == "over_budget" for (agent, _), call in self.calls.items() if agent == m]
            if any(refused):
                noted = self._kept_out if all(refused) else self._short
                noted[name] = "max_calls" if name in self._refused else "max_cost"

    def _check(self, nothing: PredictionTable, selection: Selection, fuser: Fuser) -> None:
        """Find out before anybody is paid what could not work anyway.

        Raises:
            UsageError: When the quorum is larger than what is asked, or the reader cannot read this question.
            NotFitted, TableMismatch, ConfigError: When the fuser says so.
        """
        wanted = len(self.pool) if self._adaptive else int(selection.mask[0].sum())
        if self.limits.needed(wanted) > wanted:
            raise UsageError(f"a quorum of {self.limits.quorum} cannot be met: {wanted} agents are asked")
        most = self.limits.max_calls
        if most is not None and self.store is None and self.limits.needed(0) > most:
            raise UsageError(f"a quorum of {self.limits.quorum} cannot be met with {most} calls; raise max_calls")
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
                left_out = [tasks[task] for task in pending]
                noted = self._late if why.status == "timeout" else self._idle
                noted += self._named(sorted(left_out))
                self._leave_out(left_out, why, time.monotonic() - started)

    async def _ask_one(self, m: int, budget: Budget) -> None:
        """Ask one agent all its draws; a failure of its engine is a status of its calls."""
        agent = self.pool.agents[m]
        open_samples: dict[int, Request] = {}
        if self.store is None and self._count.is_up:
            # Not even by what means it scores is found out any more.
            for r in range(agent.samples):
                self._keep(m, r, self._too_many(agent))
            return
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

    async def _answer(self, agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer what the limit of calls allows; the rest comes back as `over_budget`."""
        granted = self._count.take(len(requests))
        if granted:
            async with aclosing(self.engines.engine_of(agent).generate(requests[:granted])) as answers:
                async for index, completion in answers:
                    yield index, completion
        for index in range(granted, len(requests)):
            yield index, self._too_many(agent)

    def _too_many(self, agent: Agent) -> Completion:
        self._refused.add(agent.name)
        return Completion(status="over_budget", detail=self._count.reason)

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
        self._note_refused([m for m in np.flatnonzero(selection.mask[0]).tolist() if m not in pending])
        table = self.table()
        if int(table.answered[0].sum()) < self._needed(selection.mask[0]):
            return False
        pending_NM = np.zeros((1, len(self.pool)), dtype=bool)
        pending_NM[0, sorted(pending)] = True
        return bool(fuser.settled(table.blind(), selection, pending_NM)[0])

    def _needed(self, wanted_M: BoolArray) -> int:
        """Return how many must answer of those wanted, bool [M], whom no limit has kept from being asked."""
        asked = sum(name not in self._kept_out for name in self._named(np.flatnonzero(wanted_M).tolist()))
        # Where nobody could be asked, a share of those asked still needs somebody.
        return self.limits.needed(max(asked, 1))

    def _require_quorum(self, table: PredictionTable, asked_M: BoolArray) -> None:
        answered = int((spoke(table) & asked_M).sum())
        needed = self._needed(asked_M)
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
