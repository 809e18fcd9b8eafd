"""Examining a pool before it is asked: what would go wrong, what may not be meant, how to mend it."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusion.agents._agent import Agent
from fusion.agents._engines import Engines
from fusion.agents._examine import LEVELS, PROBE, Outcome, as_finding, examine_engines
from fusion.agents._pool import AgentPool
from fusion.errors import FusionError
from fusion.protocols import Engine
from fusion.schema import Finding, Json

_SHORT = 64
"""Fewer tokens than this cut off an answer that reasons first."""
_WORTH_A_NOTE = 2**28
"""Bytes; models that need less are not worth a word about memory."""
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells how much memory a container may use, in versions 2 and 1 of control groups."""


class AgentFinding(NamedTuple):
    """A finding and whom it concerns.

    Attributes:
        agent: Name of the agent; "" for the pool as a whole.
        finding: What was found.
    """

    agent: str
    finding: Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What the examination of a pool found.

    Args:
        agents: Names of the agents, in order.
        findings: By agent in the pool's order, those of the whole pool last; of each the gravest first.
        needed_bytes: Memory that the models in this process need together, an estimate; None when nobody was asked.
        machine_bytes: Memory of this machine; None when unknown.
    """

    agents: tuple[str, ...]
    findings: tuple[AgentFinding, ...]
    needed_bytes: int | None = None
    machine_bytes: int | None = None

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.level == "error" for _, finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return sum(finding.level == "warning" for _, finding in self.findings)

    def to_json(self) -> dict[str, Json]:
        """Return all of it as JSON."""
        return {
            "format": "fusion.doctor/1",
            "agents": list(self.agents),
            "errors": self.errors,
            "warnings": self.warnings,
            "needed_bytes": self.needed_bytes,
            "machine_bytes": self.machine_bytes,
            "findings": [{"agent": agent, **finding._asdict()} for agent, finding in self.findings],
        }


def examine_pool(
    pool: AgentPool, *, engines: Engines | None = None, timeout_s: float = 20.0, network: bool = True
) -> Diagnosis:
    """Examine every agent of a pool. Nothing is generated, and no agent's trouble hides another's.

    Args:
        pool: The agents.
        engines: Their engines; by default they are made from the agents' specs. They are closed afterwards.
        timeout_s: Seconds for the examination of one agent.
        network: Whether engines are asked at all: they may look for servers and models elsewhere.
    """
    engines = engines or Engines(pool)
    found: dict[str, list[Finding]] = {agent.name: list(_alone(agent)) for agent in pool}
    asked: dict[int, tuple[Engine, list[Agent]]] = {}
    for agent in pool:
        try:
            engine = engines.engine_of(agent)
        except FusionError as error:
            found[agent.name].append(as_finding(error))
            continue
        # Without its key a server would only say once more that the key is missing.
        if not any(finding.level == "error" for finding in found[agent.name]):
            asked.setdefault(id(engine), (engine, []))[1].append(agent)
    outcomes = examine_engines(list(asked.values()), timeout_s=timeout_s) if network else {}
    for name, outcome in outcomes.items():
        found[name] += outcome.findings
    for name, finding in _twins(pool):
        found[name].append(finding)
    machine = machine_memory_bytes()
    needs = _needs(asked.values(), outcomes)
    found[""] = [*_unpriced(pool), *_memory(needs, machine)]
    return Diagnosis(
        agents=pool.names,
        findings=tuple(
            AgentFinding(name, finding)
            for name in (*pool.names, "")
            for finding in sorted(found[name], key=lambda finding: LEVELS.index(finding.level))
        ),
        needed_bytes=sum(needs.values()) if network else None,
        machine_bytes=machine,
    )


def machine_memory_bytes() -> int | None:
    """Return how much memory this machine, or the container on it, has; None when the system does not say."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not every system offers it
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        try:
            found.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # no limit
    return min(found, default=None)


def _alone(agent: Agent) -> Iterator[Finding]:
    """Yield what can be seen of an agent without asking its engine."""
    for key, value in agent.engine.params.items() if agent.engine else ():
        if key.endswith("_env") and isinstance(value, str) and not os.environ.get(value, "").strip():
            state = "is blank" if value in os.environ else "is not set"
            yield Finding("error", f"the environment variable {value} ({key}) {state}", f"export {value}=...")
    if agent.samples > 1:
        yield Finding("note", f"{agent.samples} draws per question: {agent.samples} calls where others make one")
    if agent.max_tokens < _SHORT and agent.mode != "options":
        what = f"at most {agent.max_tokens} tokens are written: an answer that reasons first is cut off"
        yield Finding("note", what, "raise max_tokens, unless only a letter is asked for")


def _twins(pool: AgentPool) -> Iterator[tuple[str, Finding]]:
    seen: list[tuple[object, str]] = []
    for agent in pool:
        if agent.temperature > 0:
            continue
        # Nothing is drawn at temperature 0, so what rules the draws makes no difference.
        request = dataclasses.replace(agent.request(PROBE), top_p=1.0, top_k=None)
        says = (agent.engine, agent.mode, request)
        twin = next((name for other, name in seen if other == says), None)
        seen.append((says, agent.name))
        if twin is not None:
            what = f"differs from {twin!r} in nothing but its name, and at temperature 0 both say the same"
            remedy = "give one of them another model, adapter, system prompt or temperature, or drop it"
            yield agent.name, Finding("warning", what, remedy)


def _unpriced(pool: AgentPool) -> Iterator[Finding]:
    unpriced = [agent.name for agent in pool if None in agent.prices]
    if unpriced:
        shown = ", ".join(unpriced[:5]) + (f" and {len(unpriced) - 5} more" if len(unpriced) > 5 else "")
        yield Finding(
            "note",
            f"no prices of {shown}: cost is counted in tokens, not in USD",
            "give input_price and output_price, USD per million tokens (0 for a model of your own)",
        )


def _needs(asked: Iterable[tuple[Engine, list[Agent]]], outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    """Return the memory of every model, in bytes, by the name of the first agent that needs it."""
    needs: dict[str, int] = {}
    for _, agents in asked:
        first: dict[tuple[str, str | None], str] = {}
        for agent in agents:
            size = outcomes[agent.name].memory_bytes if agent.name in outcomes else None
            if size is not None:
                # Adapters of one model share it: what counts is the largest estimate, not the sum.
                name = first.setdefault((agent.model, agent.revision), agent.name)
                needs[name] = max(needs.get(name, 0), size)
    return needs


def _memory(needs: Mapping[str, int], machine: int | None) -> Iterator[Finding]:
    total = sum(needs.values())
    if machine is None or total < _WORTH_A_NOTE:
        return
    what = f"{len(needs)} models in this process need about {_gib(total)} together"
    if len(needs) == 1:
        what = f"the model in this process needs about {_gib(total)}"
    what += f"; this machine has {_gib(machine)}, an accelerator's own memory not counted"
    if total <= machine:
        yield Finding("note", what)
    else:
        # Whether a single model fits is for its engine to say, which knows where it will run.
        remedy = "recording loads one after another; to ask them all at once, take fewer or smaller ones, or a server"
        yield Finding("warning", what, remedy)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
