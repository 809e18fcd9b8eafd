"""Asks members alone and as a pool, through the engines that users name in pool files, and takes the time."""

import asyncio
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, NamedTuple

import torch

from benchmarks.gpu.models import WORDS, Member
from fusion import Agent, AgentPool, Spec
from fusion.agents import Engines
from fusion.errors import FusionError
from fusion.protocols import Engine
from fusion.schema import FINAL, Completion, Message, Question, Request

__all__ = [
    "POOL",
    "WORKLOADS",
    "Bench",
    "EngineName",
    "Setup",
    "Timed",
    "Visit",
    "answers",
    "nvidia_smi",
    "pool_of",
    "requests_of",
    "setups",
]

EngineName = Literal["hf", "vllm"]
Way = Literal["alone", "together", "sequential"]
"""A member by itself; the pool's members asked at the same time; one after another."""

POOL = "pool"
WORKLOADS: Mapping[str, tuple[str, ...]] = {"options": ("A", "B", "C", "D"), "generation": ()}
"""The continuations to score; none to write."""
WARM_PROMPTS, WARM_TOKENS = 256, 16
LENGTHS = (160, 220)
"""Fewest and most words of a prompt, beside its head of about a dozen tokens."""
_GIB = 2**30
_POLL_S = 0.5


class Setup(NamedTuple):
    """Who is asked through which engine.

    Attributes:
        engine: The engine's name.
        who: The member's name, or POOL.
        members: Who is asked.
        ways: How, in the order of the first repeat.
    """

    engine: EngineName
    who: str
    members: tuple[Member, ...]
    ways: tuple[Way, ...]


class Timed(NamedTuple):
    """One workload, asked once.

    Attributes:
        workload: Of WORKLOADS.
        way: How it was asked.
        seconds: Wall time.
        requests: How many, over all members.
        prompt_tokens: In all prompts, each counted once.
        generated_tokens: In all answers.
    """

    workload: str
    way: Way
    seconds: float
    requests: int
    prompt_tokens: int
    generated_tokens: int


class Visit(NamedTuple):
    """A setup, once started, asked and ended.

    Attributes:
        start_seconds: Until every member had answered once: weights loaded, servers started.
        peak_gib: Most memory of the GPU; None where it cannot be had.
        timed: What was asked.
    """

    start_seconds: float
    peak_gib: float | None
    timed: list[Timed]


def setups(engines: Sequence[EngineName], members: Sequence[Member]) -> list[Setup]:
    """Return every side of the comparison."""
    found = []
    for engine in engines:
        found += [Setup(engine, member.name, (member,), ("alone",)) for member in members]
        # Hf has one thread: it answers in turn, however it is asked.
        ways: tuple[Way, ...] = ("together",) if engine == "hf" else ("together", "sequential")
        found.append(Setup(engine, POOL, tuple(members), ways))
    return found


@dataclass(kw_only=True)
class Bench:
    """What is the same for all sides.

    Args:
        prompts: Prompts a workload and member.
        new_tokens: Tokens of a written answer.
        specs: The engines.
    """

    prompts: int
    new_tokens: int
    specs: Mapping[EngineName, Spec]
    _serial: Iterator[int] = field(default_factory=count)

    def visit(self, setup: Setup, *, repeat: int) -> Visit:
        """Start a setup, warm it up, take the time of every workload and way, and end it.

        Raises:
            FusionError: When an engine cannot answer, or one call failed.
        """
        return asyncio.run(self._visit(setup, repeat))

    def questions(self, number: int, continuations: Sequence[str]) -> list[Question]:
        """Return prompts whose texts are the same in every call but for their heads.

        A server keeps what it read, so a prompt that comes again would cost it nothing; prompts with another head share
        nothing with it.
        """
        found = []
        for n in range(number):
            chance = random.Random(n)
            body = " ".join(chance.choices(WORDS, k=chance.randint(*LENGTHS)))
            message = Message("user", f"{next(self._serial):08d} Case: {body} Answer:")
            found.append(Question(id=str(n), messages=(message,), meta={"continuations": [*continuations]}))
        return found

    async def _visit(self, setup: Setup, repeat: int) -> Visit:
        pool = pool_of(setup.members, self.specs[setup.engine], max_tokens=self.new_tokens)
        ways = setup.ways if repeat % 2 == 0 else setup.ways[::-1]
        with peak_memory(setup.engine) as peak:
            async with Engines(pool) as engines:
                start = time.perf_counter()
                await self._warm_up(pool, engines, number=1, max_tokens=1)
                start_seconds = time.perf_counter() - start
                number = min(self.prompts, WARM_PROMPTS)
                await self._warm_up(pool, engines, number=number, max_tokens=min(self.new_tokens, WARM_TOKENS))
                timed = [await self._timed(pool, engines, name, way) for name in WORKLOADS for way in ways]
        return Visit(start_seconds, peak[0] if peak else None, timed)

    async def _warm_up(self, pool: AgentPool, engines: Engines, *, number: int, max_tokens: int) -> None:
        for continuations in WORKLOADS.values():
            questions = self.questions(number, continuations)
            asked = []
            for agent in pool:
                engine = engines.engine_of(agent)
                requests = await requests_of(replace(agent, max_tokens=max_tokens), engine, questions)
                asked.append(answers(engine, requests))
            # At the same time, so that a server has met batches of several adapters before the time is taken.
            await asyncio.gather(*asked)

    async def _timed(self, pool: AgentPool, engines: Engines, workload: str, way: Way) -> Timed:
        questions = self.questions(self.prompts, WORKLOADS[workload])
        asked = []
        for agent in pool:
            engine = engines.engine_of(agent)
            asked.append((engine, await requests_of(agent, engine, questions)))
        start = time.perf_counter()
        if way == "together":
            found = await asyncio.gather(*(answers(engine, requests) for engine, requests in asked))
        else:
            found = [await answers(engine, requests) for engine, requests in asked]
        seconds = time.perf_counter() - start
        completions = [completion for each in found for completion in each]
        written = sum(completion.usage.tokens_out or 0 for completion in completions)
        expected = 0 if WORKLOADS[workload] else self.new_tokens * len(completions)
        if written != expected:
            raise FusionError(
                f"{workload}: {expected} tokens were to be written, {written} were; the times cannot be compared. Were "
                "the members made by this script?"
            )
        read = sum(completion.usage.tokens_in or 0 for completion in completions)
        return Timed(workload, way, seconds, len(completions), read, written)


def pool_of(members: Sequence[Member], spec: Spec, *, max_tokens: int) -> AgentPool:
    """Return the members as agents of one engine."""
    return AgentPool(
        tuple(
            Agent(
                name=member.name,
                engine=spec,
                model=str(member.model),
                adapter=str(member.adapter) if member.adapter else None,
                max_tokens=max_tokens,
            )
            for member in members
        )
    )


async def requests_of(agent: Agent, engine: Engine, questions: Sequence[Question]) -> list[Request]:
    """Return what the agent asks."""
    open_ended = not questions[0].meta["continuations"]
    scoring = "" if open_ended else await engine.scoring(agent.request(questions[0], scoring="auto"))
    return [agent.request(question, scoring=scoring or "") for question in questions]


async def answers(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """Return the answers, in order.

    Raises:
        FusionError: When the engine cannot answer, or one call failed.
    """
    found: dict[int, Completion] = {}
    async with aclosing(engine.generate(requests)) as stream:
        async for index, completion in stream:
            if completion.status not in FINAL:
                raise FusionError(
                    f"every call must be answered, or times cannot be compared; one ended as {completion.status}: "
                    f"{completion.detail}"
                )
            found[index] = completion
    return [found[index] for index in range(len(requests))]


@contextmanager
def peak_memory(engine: EngineName) -> Iterator[list[float]]:
    """Fill the list with the most GiB of the GPU that were in use within the context, if that can be had.

    For hf it is what torch held in this process; for servers what the driver says is in use, less what was before.
    """
    peak: list[float] = []
    if engine == "hf":
        seen = torch.cuda.is_available()
        if seen:
            torch.cuda.reset_peak_memory_stats()
        yield peak
        if seen:
            peak.append(torch.cuda.max_memory_allocated() / _GIB)
        return
    before = _used_gib()
    if before is None:
        yield peak
        return
    readings = [before]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_S):
            if (used := _used_gib()) is not None:
                readings.append(used)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
    peak.append(max(readings) - before)


def _used_gib() -> float | None:
    """Return the memory in use on all GPUs of this machine; None where the driver does not say."""
    cells = [row[0] for row in nvidia_smi("memory.used")]
    if not cells or not all(cell.isdigit() for cell in cells):
        return None
    return sum(map(int, cells)) / 1024


def nvidia_smi(*fields: str) -> list[list[str]]:
    """Return what the driver says of each GPU; empty where it says nothing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.strip()]
