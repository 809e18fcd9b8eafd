"""Asking a pool about one question: whom the selector wants, until the fuser can answer.

The table that the decision saw is part of the answer, so that replaying it gives the same decision.
"""

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from fusion.agents import AgentPool, Asker, Budget, Engines, RecordKey, RecordStore, sum_usage, usd
from fusion.data import Call, PredictionTable, Reader, tabulate
from fusion.errors import ConfigError, FusionError, NoQuorum, UsageError
from fusion.protocols import Fuser, SettlingFuser
from fusion.schema import FINAL, BoolArray, Completion, Decision, Json, Question, Request, Selection, Status, Usage

_PAUSE_S = 0.01
"""How long nothing must arrive before it is worth finding out whether the rest can be cancelled."""

Choose = Callable[[PredictionTable, BoolArray], Selection]
"""Whom a selector listens to, given what has been answered so far and bool [1, M], who has been asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to stop asking.

    Args:
        quorum: Answers that are needed: a number, or a share of the agents asked (a float up to 1).
        deadline_s: Seconds after which those who have not answered are left out.
        max_cost: USD that one question may cost at most; agents that might exceed it are not asked.
        settle: Cancel the calls that cannot change the answer any more.
    """

    quorum: int | float = 0.5
    deadline_s: Annotated[float, Gt(0)] | None = None
    max_cost: Annotated[float, Ge(0)] | None = None
    settle: bool = True

    def __post_init__(self) -> None:
        share = isinstance(self.quorum, float)
        if (share and not 0 <= self.quorum <= 1) or self.quorum < 0:
            raise ConfigError(
                f"quorum must be a number of agents or a share of them from 0.0 to 1.0, got {self.quorum}"
            )
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(f"deadline_s must be more than 0 seconds, got {self.deadline_s}")

    def needed(self, num_asked: int) -> int:
        """Return how many of `num_asked` agents must answer."""
        return math.ceil(self.quorum * num_asked) if isinstance(self.quorum, float) else self.quorum


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What one agent contributed.

    Args:
        agent: Its name.
        status: How its call ended; of several draws the first's.
        answer: The answer that was read from what it said; None when there is none.
        text: What it said.
        usage: Tokens, of all its draws.
        cost: USD; None when prices or tokens are unknown.
        seconds: Time its slowest call took.
        detail: What went wrong, for people.
    """

    agent: str
    status: Status
    answer: str | None
    text: str
    usage: Usage
    cost: float | None
    seconds: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The ensemble's answer to one question.

    Args:
        question: What was asked.
        text: The fused answer: an option's text, or the open answer; None when everybody abstained.
        label: The letter of the chosen option; None for open questions.
        probs: Probability of every option or open answer, by its text; None when the fuser says none.
        votes: Who gave which answer, by its text.
        agreement: Share of the agents that answered who gave the fused answer.
        members: Every agent that was selected, in the pool's order.
        seconds: From the question to the answer.
        table: What the decision saw, one row; replaying it gives the same decision.
        decision: The fused answer as the fuser returned it.
    """

    question: Question
    text: str | None
    label: str | None
    probs: Mapping[str, float] | None
    votes: Mapping[str, tuple[str, ...]]
    agreement: float
    members: tuple[Member, ...]
    seconds: float
    table: PredictionTable
    decision: Decision

    @property
    def usage(self) -> Usage:
        """Sum of the members' tokens; None where one of those that answered does not say."""
        return sum_usage([member.usage for member in self.members if member.status in FINAL])

    @property
    def cost(self) -> float | None:
        """Sum of the members' costs in USD; None when one of those that answered is unknown."""
        costs = [member.cost for member in self.members if member.status in FINAL]
        return None if None in costs else math.fsum(cost for cost in costs if cost is not None)

    def to_json(self) -> dict[str, Json]:
        """Return everything but the table and the prompt, for machines."""
        value = {
            "question_id": self.question.id,
            "text": self.text,
            "label": self.label,
            "probs": None if self.probs is None else dict(self.probs),
            "votes": {answer: list(agents) for answer, agents in self.votes.items()},
            "agreement": self.agreement,
            "usage": dataclasses.asdict(self.usage),
            "cost_usd": self.cost,
            "seconds": self.seconds,
            "members": [dataclasses.asdict(member) for member in self.members],
        }
        plain: dict[str, Json] = json.loads(json.dumps(value))
        return plain


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

    async def run(self, choose: Choose, fuser: Fuser, *, adaptive: bool) -> tuple[PredictionTable, Selection, Decision]:
        """Ask whom `choose` wants, until nobody new is wanted, and fuse.

        Args:
            choose: The selector, already given what it may see.
            fuser: Settles the answer.
            adaptive: Whether the selector looks at answers, and so may want to ask more after some came.

        Raises:
            NoQuorum: When too few of the agents asked gave an answer.
        """
        started = time.monotonic()
        budget = Budget(self.pool, self.limits.max_cost)
        asked_M = np.zeros(len(self.pool), dtype=bool)
        selection = choose(self.table(), asked_M[None])
        while True:
            new_M = selection.mask[0] & ~asked_M
            if not new_M.any():
                break
            asked_M |= new_M
            left = None if self.limits.deadline_s is None else self.limits.deadline_s - (time.monotonic() - started)
            await self._ask(_in_order(selection, new_M), selection, fuser, budget, left)
            if not adaptive:
                break
            selection = choose(self.table(), asked_M[None])
        table = self.table()
        self._require_quorum(table, asked_M)
        return table, selection, fuser.fuse(table.blind(), selection)

    def table(self) -> PredictionTable:
        """Return what is known so far, one row."""
        calls = [Call(0, agent, sample, completion) for (agent, sample), completion in self.calls.items()]
        draws = max(agent.samples for agent in self.pool)
        return tabulate([self.question], self.pool.names, calls, reader=self.reader, draws=draws)

    def members(self, table: PredictionTable) -> tuple[Member, ...]:
        """Return what every agent that was wanted contributed."""
        found = []
        for m, agent in enumerate(self.pool):
            mine = [completion for (position, _), completion in sorted(self.calls.items()) if position == m]
            if mine:
                costs = [usd(agent, completion.usage) for completion in mine]
                found.append(
                    Member(
                        agent=agent.name,
                        status=mine[0].status,
                        answer=answer_text(self.question, table, int(table.answers[0, m])),
                        text=mine[0].text,
                        usage=sum_usage([completion.usage for completion in mine]),
                        cost=None if None in costs else math.fsum(cost for cost in costs if cost is not None),
                        seconds=max(completion.seconds for completion in mine),
                        detail=mine[0].detail,
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
            for task in pending:
                task.cancel()
            # Their connections are closed before anything else is done; what they raise was asked for.
            await asyncio.gather(*pending, return_exceptions=True)
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
            requests = list(open_samples.values())
            places = list(open_samples)
            paid = budget.set_aside(agent, requests)
            for r in places[paid:]:
                self._keep(m, r, Completion(status="over_budget", detail=budget.reason))
            if paid:
                async with aclosing(self.engines.engine_of(agent).generate(requests[:paid])) as answers:
                    async for index, completion in answers:
                        budget.settle(agent, requests[index], completion.usage)
                        self._keep(m, places[index], completion)
        except UsageError:
            raise
        except FusionError as error:
            for r in range(agent.samples):
                if (m, r) not in self.calls:
                    self._keep(m, r, Completion(status="engine_error", detail=str(error)), store=False)

    def _recorded(self, m: int, sample: int, request: Request) -> bool:
        if self.store is None:
            return False
        key = self.keys[m, sample] = self.asker.key(self.pool.agents[m], request)
        digest = key.digest
        known = self.store.get([digest]).get(digest)
        if known is None or known.status not in FINAL:
            return False
        self.calls[m, sample] = known
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
        if not isinstance(fuser, SettlingFuser):
            return False
        table = self.table()
        if int(table.answered[0].sum()) < self.limits.needed(int(selection.mask[0].sum())):
            return False
        pending_NM = np.zeros((1, len(self.pool)), dtype=bool)
        pending_NM[0, sorted(pending)] = True
        return bool(fuser.settled(table.blind(), selection, pending_NM)[0])

    def _require_quorum(self, table: PredictionTable, asked_M: BoolArray) -> None:
        answered = int((table.answered[0] & asked_M).sum())
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


def answer_text(question: Question, table: PredictionTable, index: int) -> str | None:
    """Return the text of answer number `index` of a one-row table; None for -1."""
    if index < 0:
        return None
    assert table.options is not None, "tabulate always gives the options' texts"
    return table.options[0][index]


def _in_order(selection: Selection, new_M: BoolArray) -> list[int]:
    positions = np.flatnonzero(new_M)
    if selection.order is not None:
        positions = positions[np.argsort(selection.order[0][positions], kind="stable")]
    return [int(m) for m in positions]


def summarise(
    question: Question,
    members: tuple[Member, ...],
    *,
    seconds: float,
    table: PredictionTable,
    decision: Decision,
) -> Answer:
    """Return the answer that a decision amounts to."""
    index = int(decision.answers[0])
    text = decision.texts[0] if decision.texts is not None else answer_text(question, table, index)
    options = table.options[0] if table.options is not None else ()
    votes: dict[str, tuple[str, ...]] = {}
    for member in members:
        if member.answer is not None:
            votes[member.answer] = (*votes.get(member.answer, ()), member.agent)
    said = sum(map(len, votes.values()))
    fused = answer_text(question, table, index)
    probs = None
    if decision.probs is not None:
        probs = {option: float(decision.probs[0, k]) for k, option in enumerate(options)}
    return Answer(
        question=question,
        text=text,
        label=chr(ord("A") + index) if question.options and index >= 0 else None,
        probs=probs,
        votes=votes,
        agreement=len(votes.get(fused, ())) / said if said and fused is not None else 0.0,
        members=members,
        seconds=seconds,
        table=table,
        decision=decision,
    )
