"""What a recording would take: calls, tokens, USD, memory, time. Nothing is asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusion.agents._agent import Agent
from fusion.agents._budget import most_usd, usd
from fusion.agents._engines import Engines
from fusion.agents._plan import AgentPlan, Asker
from fusion.agents._store import RecordStore
from fusion.errors import FusionError
from fusion.protocols import SharedEngine
from fusion.schema import FINAL, Question, Request, Usage

_EXAMPLES = 64
"""Prompts that are counted, spread over all, to estimate the tokens of all."""
_BYTES_PER_TOKEN = 4
"""Of English text under common tokenisers; used where the engine cannot count without asking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What asking one agent would take.

    Args:
        agent: Its name.
        calls: All its calls.
        recorded: Of these, how many have a final answer on record.
        means: How its answers are found: "generate", or by what means options are scored.
        tokens_in: Tokens to read, estimated from some of the prompts.
        counted: Whether a tokeniser counted these prompts; else a token is taken for four bytes.
        tokens_out: Tokens to write, by the mean of the answers on record; None when there are none.
        most_tokens_out: Tokens that can be written at most.
        cost: USD for tokens_in and tokens_out; None when prices or tokens_out are unknown.
        most_cost: USD that it can cost at most; None when prices are unknown.
        memory: Bytes needed in this process; None when the model is elsewhere.
        seconds: Time of the calls one after another, by the mean of those on record; None when there are none.
        where: Where it is answered, in words; "" where the engine has nothing to say about it.
        error: Why it cannot be asked; "" when it can.
    """

    agent: str
    calls: int = 0
    recorded: int = 0
    means: str = ""
    tokens_in: int | None = None
    counted: bool = False
    tokens_out: int | None = None
    most_tokens_out: int | None = None
    cost: float | None = None
    most_cost: float | None = None
    memory: int | None = None
    seconds: float | None = None
    where: str = ""
    error: str = ""


async def estimate(
    plan: AgentPlan, asker: Asker, engines: Engines, store: RecordStore, questions: Sequence[Question]
) -> Estimate:
    """Return what the open calls of a plan would take."""
    agent = plan.agent
    if plan.error:
        return Estimate(agent=agent.name, error=plan.error)
    known = store.get(job.digest for job in plan.jobs)
    final = [completion for completion in known.values() if completion.status in FINAL]
    means = ", ".join(sorted(name or "generate" for name in plan.means))
    recorded = len(plan.jobs) - len(plan.open)
    base = Estimate(agent=agent.name, calls=len(plan.jobs), recorded=recorded, means=means)
    if not plan.open:
        return replace(
            base, tokens_in=0, counted=True, tokens_out=0, most_tokens_out=0, cost=0.0, most_cost=0.0, seconds=0
        )
    step = max(len(plan.open) // _EXAMPLES, 1)
    jobs = [plan.jobs[i] for i in plan.open[::step]]
    requests = [asker.request(agent, questions[job.question], job.sample) for job in jobs]
    try:
        # Counting and sizing read files, and may import torch.
        counts, counted, memory, where = await asyncio.to_thread(_measure, agent, requests, engines)
    except FusionError as error:
        return replace(base, means="", error=str(error))
    scale = len(plan.open) / len(requests)
    tokens_in = round(sum(counts) * scale)
    most_out = round(sum(_most_out(request) for request in requests) * scale)
    written = _mean([completion.usage.tokens_out for completion in final])
    tokens_out = None if written is None else round(written * len(plan.open))
    taken = _mean([completion.seconds for completion in final])
    return replace(
        base,
        tokens_in=tokens_in,
        counted=counted,
        tokens_out=tokens_out,
        most_tokens_out=most_out,
        cost=usd(agent, Usage(tokens_in=tokens_in, tokens_out=tokens_out)),
        most_cost=None if None in agent.prices else scale * sum(most_usd(agent, request) for request in requests),
        memory=memory,
        seconds=None if taken is None else taken * len(plan.open),
        where=where,
    )


def _measure(agent: Agent, requests: Sequence[Request], engines: Engines) -> tuple[list[int], bool, int | None, str]:
    """Return the prompts' tokens, whether a tokeniser counted them, the bytes of memory needed here, and where."""
    engine = engines.engine_of(agent)
    counts = [engine.prompt_tokens(request) for request in requests]
    counted = None not in counts
    sizes = [
        count
        if count is not None
        else sum(len(message.content.encode()) for message in request.messages) // _BYTES_PER_TOKEN
        for count, request in zip(counts, requests, strict=True)
    ]
    where = engine.placement(requests[0]) if isinstance(engine, SharedEngine) else ""
    return sizes, counted, engine.memory_bytes(requests[0]), where


def _most_out(request: Request) -> int:
    return 0 if request.continuations else request.max_tokens


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
