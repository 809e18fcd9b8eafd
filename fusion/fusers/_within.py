"""Asking an agent within the money and the time that are left to a question."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from fusion.agents import Agent, AgentPool, Allowance, Engines, Recorder, RecordStore, paid_answers
from fusion.errors import EngineError
from fusion.schema import Completion, Question, Request

_LATE = Completion(status="timeout", detail="no answer in the time that the deadline left")


async def asked_within(
    allowance: Allowance,
    agent: Agent,
    engines: Engines,
    store: RecordStore,
    questions: Sequence[Question],
    *,
    task: str,
) -> list[Completion | None]:
    """Return the agent's answers, from the store where they are there.

    Calls that might cost more than the money left are `over_budget`. When time is up, those on their way are cancelled
    and count as `timeout`; answers that came before, or were on record, are kept. None where a call was never made.

    Args:
        allowance: What is left.
        agent: Who is asked.
        engines: Its engine.
        store: Where answers are kept.
        questions: What is asked.
        task: Who asks, for the record.

    Raises:
        ConfigError: When money is limited and the agent has no prices.
        EngineError: When the engine cannot answer; what it had answered is kept.
        StoreError, OutputError: When the store cannot be used.
    """
    budget = allowance.budget(agent)

    def generate(agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        return engines.engine_of(agent).generate(requests)

    def answer(agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        return paid_answers(budget, agent, requests, generate)

    recorder = Recorder(AgentPool((agent,)), engines, store, task=task, answerer=answer)
    if allowance.seconds == 0:
        return await _on_record(recorder, store, questions)
    try:
        async with asyncio.timeout(allowance.seconds) as clock:
            recording = await recorder.record(questions)
    except TimeoutError:
        if not clock.expired():
            raise
        return await _on_record(recorder, store, questions)
    if recording.errors:
        raise EngineError(
            f"agent {agent.name!r}, which {task} asks, cannot answer: {recording.errors[agent.name]}. What it had "
            "answered is kept; with store=FOLDER a later run goes on from there"
        )
    found: list[Completion | None] = [None] * len(questions)
    for call in recording.calls:
        found[call.question] = call.completion
    return found


async def _on_record(recorder: Recorder, store: RecordStore, questions: Sequence[Question]) -> list[Completion | None]:
    """Return what the store holds of the calls, `timeout` for the others; nobody is asked."""
    (plan,) = await recorder.plan(questions)
    kept = store.get(job.digest for job in plan.jobs)
    found: list[Completion | None] = [_LATE] * len(questions)
    for job in plan.jobs:
        found[job.question] = kept.get(job.digest, _LATE)
    return found
