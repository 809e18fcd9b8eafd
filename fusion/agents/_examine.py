"""Examining engines: side by side, each in a thread with an event loop of its own.

One that hangs, even without giving way to others, costs its own time alone and is reported like any other trouble.
"""

import asyncio
import importlib.metadata
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from fusion.agents._agent import Agent
from fusion.errors import FusionError
from fusion.protocols import Engine
from fusion.schema import Finding, Message, Question

PROBE = Question(
    id="fusion/doctor",
    messages=(Message("user", "Which of these is a colour?\nA. seven\nB. green\nAnswer:"),),
    options=("seven", "green"),
    reference="B",
    label=1,
    meta={"continuations": ["A", "B"]},
)
"""What agents are examined with; nobody is asked to answer it."""
LEVELS = ("error", "warning", "note")
"""Of findings, the gravest first."""
_GRACE_S = 1.0
"""How much longer than one agent's time an engine may be silent before it is given up."""


class Outcome(NamedTuple):
    """What the examination of an agent found.

    Attributes:
        findings: In the engine's order.
        memory_bytes: Memory that it needs here; None when it needs none here, or nobody knows.
    """

    findings: tuple[Finding, ...]
    memory_bytes: int | None = None


class _Told(NamedTuple):
    """A sign of life from the thread of an engine: an agent begun (no outcome) or finished, or all (no agent)."""

    number: int
    agent: str | None = None
    outcome: Outcome | None = None


def examine_engines(asked: Sequence[tuple[Engine, Sequence[Agent]]], *, timeout_s: float) -> dict[str, Outcome]:
    """Return what each engine finds out about each of its agents, by the agent's name.

    Args:
        asked: Engines, each once, with the agents that they answer for.
        timeout_s: Seconds for one agent.
    """
    told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
    heard: dict[int, float] = {}
    for number, (engine, agents) in enumerate(asked):
        heard[number] = time.monotonic()
        # A thread that hangs must not keep the process from ending.
        threading.Thread(target=_work, args=(number, engine, agents, timeout_s, told.put), daemon=True).start()
    outcomes: dict[str, Outcome] = {}
    while heard:
        patience = min(heard.values()) + timeout_s + _GRACE_S - time.monotonic()
        try:
            number, agent, outcome = told.get(timeout=max(patience, 0.0))
        except queue.Empty:
            del heard[min(heard, key=lambda number: heard[number])]
            continue
        if number not in heard:
            continue
        heard[number] = time.monotonic()
        if agent is None:
            del heard[number]
        elif outcome is not None:
            known = outcomes.get(agent, Outcome(()))
            outcomes[agent] = Outcome(known.findings + outcome.findings, outcome.memory_bytes or known.memory_bytes)
    lost = Outcome((_silence(timeout_s),))
    return {agent.name: outcomes.get(agent.name, lost) for _, agents in asked for agent in agents}


def as_finding(error: BaseException) -> Finding:
    """Return an error as a finding; what its message says after the last semicolon is the remedy."""
    what, _, remedy = str(error).rpartition("; ")
    if not isinstance(error, FusionError):
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        what, remedy = text, "this is an error in the engine: report it to who offers it"
    elif not what:
        what, remedy = remedy, ""
    module = _missing_module(error)
    return Finding("error", what, f"install it with: pip install {_target(module)}" if module else remedy)


def _work(
    number: int, engine: Engine, agents: Sequence[Agent], timeout_s: float, tell: Callable[[_Told], object]
) -> None:
    def told(agent: str | None = None, outcome: Outcome | None = None) -> None:
        tell(_Told(number, agent, outcome))

    asyncio.run(_examine(engine, agents, timeout_s, told))


class _Tell(Protocol):
    def __call__(self, agent: str | None = None, outcome: Outcome | None = None) -> None: ...


async def _examine(engine: Engine, agents: Sequence[Agent], timeout_s: float, tell: _Tell) -> None:
    async def one(agent: Agent) -> None:
        tell(agent.name)
        tell(agent.name, await _outcome(engine, agent, timeout_s))

    try:
        if _is_here(engine, agents[0]):
            # Models in this process are looked at in turn: they share the machine, and may not give way.
            for agent in agents:
                await one(agent)
        else:
            await asyncio.gather(*map(one, agents))
        async with asyncio.timeout(timeout_s):
            await engine.aclose()
    except (Exception, asyncio.CancelledError) as error:  # whatever it was, it must not hide what was found
        _, what, remedy = as_finding(error)
        tell(agents[0].name, Outcome((Finding("warning", f"the engine could not be closed: {what}", remedy),)))
    finally:
        tell()


def _is_here(engine: Engine, agent: Agent) -> bool:
    try:
        return engine.memory_bytes(agent.request(PROBE)) is not None
    except Exception:  # whatever is wrong is told by the examination
        return True


async def _outcome(engine: Engine, agent: Agent, timeout_s: float) -> Outcome:
    request = agent.request(PROBE)
    findings: list[Finding] = []
    memory_bytes = None
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            findings += [_checked(finding) for finding in await engine.examine(request)]
            if not any(finding.level == "error" for finding in findings):
                findings += await _on_scoring(engine, agent)
                memory_bytes = engine.memory_bytes(request)
    except (Exception, asyncio.CancelledError) as error:  # one agent's trouble, of whatever kind, is its own
        findings.append(_silence(timeout_s) if limit.expired() else as_finding(error))
    return Outcome(tuple(findings), memory_bytes)


async def _on_scoring(engine: Engine, agent: Agent) -> list[Finding]:
    if agent.mode == "generate" or await engine.scoring(agent.request(PROBE, scoring="auto")) is not None:
        return []
    if agent.mode == "options":
        what = "the mode is options, but the engine offers no means to score options"
        return [Finding("error", what, "write mode: auto, or choose an engine that can")]
    what = "options are not scored: the engine offers no means, so answers are read from what the model writes"
    return [Finding("note", what)]


def _checked(finding: object) -> Finding:
    if not isinstance(finding, Finding) or finding.level not in LEVELS:
        raise TypeError(f"examine must return findings of level {', '.join(LEVELS)}, got {finding!r}")
    return finding


def _silence(timeout_s: float) -> Finding:
    return Finding(
        "error",
        f"no answer within {timeout_s:g} s",
        "look whether the server is up, or give it longer: --timeout SECONDS",
    )


def _missing_module(error: BaseException) -> str | None:
    """Return the top-level name of the module that was missing, where that is what went wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name and not cause.name.startswith("fusion"):
            return cause.name.partition(".")[0]
        cause = cause.__cause__
    return None


def _target(module: str) -> str:
    """Return what to install for a module: the extra of fusion that brings it, else the package of that name."""
    package = module.replace("_", "-")
    try:
        wanted = importlib.metadata.requires("fusion") or ()
    except importlib.metadata.PackageNotFoundError:
        wanted = ()
    for line in wanted:
        extra = re.search(r"extra == [\"'](\w+)[\"']", line)
        if extra and extra[1] != "dev" and re.match(rf"{re.escape(package)}\b(?!-)", line, re.I):
            return f"'fusion[{extra[1]}]'"
    return package
