"""The engines of a pool: each is made once, however many agents share it."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from fusion import discovery
from fusion.agents._agent import Agent
from fusion.agents._pool import AgentPool
from fusion.errors import FusionError, UnknownName, UsageError
from fusion.protocols import Engine, SharedEngine
from fusion.schema import Question, Spec

_ANY = Question(id="", messages=())


class Engines:
    """Makes the engines of a pool when they are first wanted, and gives back what they hold.

    Agents whose specs say the same, defaults written out or not, share one engine. Entering the context makes all
    engines, so that what is wrong with one is known before any is used; leaving it closes them.

    Args:
        pool: The agents.
        given: Engines that are objects already, by the name of the agent; they win over the agent's spec.

    Raises:
        UnknownName: When an engine is given for an agent that is not in the pool.

    Example:
        >>> pool = AgentPool((Agent(name="a", engine=Spec("echo")), Agent(name="b", engine=Spec("echo"))))
        >>> engines = Engines(pool)
        >>> engines.engine_of(pool.agents[0]) is engines.engine_of(pool.agents[1])
        True
    """

    def __init__(self, pool: AgentPool, *, given: Mapping[str, Engine] | None = None) -> None:
        for name in given or {}:
            if name not in pool.names:
                raise UnknownName(kind="agent (for an engine)", name=name, known=pool.names)
        self._pool = pool
        self._by_agent: dict[str, Engine] = {
            name: checked(engine, f"the engine given for agent {name!r}") for name, engine in (given or {}).items()
        }
        self._by_spec: dict[Spec, Engine] = {}

    def engine_of(self, agent: Agent) -> Engine:
        """Return the engine that answers for `agent`.

        Raises:
            UnknownName: When no engine has the name that the agent's spec gives.
            InvalidSpec: When the engine refuses a parameter.
            UsageError: When the agent has no engine.
            FusionError: When the engine's module cannot be imported, or lacks what an engine must offer.
        """
        engine = self._by_agent.get(agent.name)
        if engine is None:
            engine = self._by_agent[agent.name] = self._made(agent)
            if isinstance(engine, SharedEngine):
                engine.expect(agent.request(_ANY))
        return engine

    async def aclose(self) -> None:
        """Close every engine that was made; one that fails does not keep the others open.

        The first error is raised in the end, with what others said as notes.
        """
        engines = list({id(engine): engine for engine in self._by_agent.values()}.values())
        outcomes = await asyncio.gather(*(engine.aclose() for engine in engines), return_exceptions=True)
        failed = [outcome for outcome in outcomes if outcome is not None]
        if failed:
            for other in failed[1:]:
                failed[0].add_note(f"another engine failed to close as well: {type(other).__name__}: {other}")
            raise failed[0]

    async def __aenter__(self) -> Self:
        for agent in self._pool:
            self.engine_of(agent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _made(self, agent: Agent) -> Engine:
        if agent.engine is None:
            raise UsageError(
                f"agent {agent.name!r} has no engine: its answers are only on record. Give it one in a pool file "
                f"(engine: hf, or engine: {{kind: openai, base_url: ...}}), or let the record answer: "
                f'engine: replay(table="TABLE"), model: {agent.name}'
            )
        engine = self._by_spec.get(agent.engine)
        if engine is None:
            made = checked(discovery.build("agents", agent.engine), f"engine {agent.engine.name!r}")
            # A spec that writes a default out means the same engine, which must not hold its models twice.
            engine = self._by_spec[agent.engine] = self._by_spec.setdefault(discovery.spec_of(made), made)
        return engine


def checked(engine: object, what: str) -> Engine:
    """Return `engine`; `what` it is, for the message.

    Raises:
        FusionError: When it lacks something that the Engine protocol asks for.
    """
    if not isinstance(engine, Engine):
        wanted = [name for name in vars(Engine) if not name.startswith("_")]
        missing = [name for name in wanted if not callable(getattr(engine, name, None))]
        raise FusionError(
            f"{what} is a {type(engine).__name__} without {', '.join(missing)}; an engine offers all of "
            "fusion.protocols.Engine"
        )
    return engine
