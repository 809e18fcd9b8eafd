"""Answering in the workers of an executor: requests go out in chunks, completions come back as they are ready.

Only the caller writes the record, so a worker that is lost takes with it no more than the chunk that it had, which is
given to another. Secrets do not travel: an engine reads the environment variable whose name it was given where it runs.
"""

import asyncio
import functools
import math
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, closing
from typing import NamedTuple

from fusion.agents._agent import Agent
from fusion.agents._engines import Engines
from fusion.agents._key import canonical_json
from fusion.agents._pool import AgentPool
from fusion.agents._worker import Worker
from fusion.errors import EngineError
from fusion.protocols import Engine, Executor, Results, SharedEngine
from fusion.schema import Completion, Request, Spec

CHUNK = 16
"""Most requests that a worker is given at a time."""
SERVED_CHUNK = 256
"""The same where the worker starts servers, which answer many at a time."""


class Chunk(NamedTuple):
    """What a worker is given.

    Attributes:
        agent: Who asks.
        requests: What it asks.
        identity: What the record takes its engine for, as canonical JSON.
        sharing: All agents of its engine, itself included: a server is started for all of them.
    """

    agent: Agent
    requests: tuple[Request, ...]
    identity: str
    sharing: tuple[Agent, ...]


class RemoteAnswerer:
    """Answers requests in the workers of an executor.

    Args:
        executor: Where to answer.
        pool: The agents.
        chunk: Most requests that a worker is given at a time; fewer when there are too few to keep all busy.
    """

    def __init__(self, executor: Executor, pool: AgentPool, *, chunk: int = CHUNK) -> None:
        self._executor = executor
        self._pool = pool
        self._engines = Engines(pool)
        self._chunk = chunk

    async def __call__(self, agent: Agent, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Yield (index, completion) as they come; closing the generator cancels the rest.

        Raises:
            EngineError: When the workers' engine is another one than the record takes it for.
            FusionError: When nothing at all can be answered, or workers are lost again and again.
        """
        if not requests:
            return
        thread: Worker[tuple[int, list[Completion]]] = Worker()
        results: Results[list[Completion]] | None = None
        try:
            chunk = SERVED_CHUNK if isinstance(self._engines.engine_of(agent), SharedEngine) else self._chunk
            size = min(chunk, math.ceil(len(requests) / await thread.call(self._executor.count)))
            results = await thread.call(lambda: self._map(agent, requests, size))
            async with aclosing(thread.stream(functools.partial(_hand_over, results))) as parts:
                async for part, completions in parts:
                    for i, completion in enumerate(completions):
                        yield part * size + i, completion
        finally:
            if results is not None:
                results.close()
            await thread.close(lambda: None)

    def _map(self, agent: Agent, requests: Sequence[Request], size: int) -> Results[list[Completion]]:
        engine = self._engines.engine_of(agent)
        identity = canonical_json(dict(engine.identity(requests[0])))
        # A worker that has loaded the model goes on with it; where models are elsewhere, any will do.
        kind = f"{agent.engine} {agent.model} {agent.revision}" if _is_heavy(engine, requests[0]) else ""
        sharing = tuple(other for other in self._pool if other.engine == agent.engine)
        chunks = [
            Chunk(agent, tuple(requests[start : start + size]), identity, sharing)
            for start in range(0, len(requests), size)
        ]
        return self._executor.map(answer_chunk, chunks, kind=kind)


def answer_chunk(chunk: Chunk) -> list[Completion]:
    """Return the completions of a chunk, in order: what runs in a worker.

    Raises:
        EngineError: When the engine is another one here than the record takes it for, or leaves a request unanswered.
        FusionError: When nothing at all can be answered.
    """
    return _desk().answer(chunk)


class _Desk:
    """The engines that one worker process made, and the event loop on which they answer."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._light: dict[Spec, Engine] = {}
        self._heavy: dict[Spec, Engine] = {}

    def answer(self, chunk: Chunk) -> list[Completion]:
        """Answer a chunk."""
        return self._runner.run(self._answer(chunk))

    async def _answer(self, chunk: Chunk) -> list[Completion]:
        engine = await self._engine(chunk)
        identity = canonical_json(dict(engine.identity(chunk.requests[0])))
        if identity != chunk.identity:
            raise EngineError(
                f"the engine of agent {chunk.agent.name!r} is not the same on all machines: here it is "
                f"{chunk.identity}, in a worker {identity}; give every machine the same files (copied with their "
                "times, as rsync -a does) or a shared folder"
            )
        found: list[Completion | None] = [None] * len(chunk.requests)
        async with aclosing(engine.generate(chunk.requests)) as answers:
            async for index, completion in answers:
                found[index] = completion
        completions = [completion for completion in found if completion is not None]
        if len(completions) < len(found):
            missing = chunk.requests[found.index(None)].question_id
            raise EngineError(f"engine {chunk.agent.engine} left question {missing!r} unanswered; it must not")
        return completions

    async def _engine(self, chunk: Chunk) -> Engine:
        """Return the chunk's engine; of those that hold models in memory only the last one keeps them."""
        spec = chunk.agent.engine
        made = (self._light.get(spec) or self._heavy.get(spec)) if spec else None
        if made:
            return made
        engines = Engines(AgentPool(chunk.sharing))
        for agent in chunk.sharing:
            engines.engine_of(agent)
        engine = engines.engine_of(chunk.agent)
        assert spec is not None, "an agent without an engine was refused"
        if not _is_heavy(engine, chunk.requests[0]):
            self._light[spec] = engine
            return engine
        for other in self._heavy.values():
            await other.aclose()
        self._heavy = {spec: engine}
        return engine


def _is_heavy(engine: Engine, request: Request) -> bool:
    """Return whether answering takes memory of the machine: in this process, or in a server of the engine's."""
    return bool(engine.memory_bytes(request)) or isinstance(engine, SharedEngine)


@functools.cache
def _desk() -> _Desk:
    """Return this process's desk."""
    return _Desk()


def _hand_over(
    results: Results[list[Completion]],
    put: Callable[[tuple[int, list[Completion]]], None],
    stop: threading.Event,
) -> None:
    with closing(results):
        for result in results:
            if stop.is_set():
                return
            put(result)
