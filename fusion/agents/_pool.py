"""Pools of agents."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self, get_type_hints

from fusion.agents._agent import Agent
from fusion.errors import ConfigError, UnknownName, suggest
from fusion.schema import Json, Spec


@dataclass(frozen=True, slots=True)
class AgentPool:
    """An ordered set of agents with unique names.

    Args:
        agents: At least one; the order settles ties between equally accurate agents.

    Raises:
        ConfigError: When there is none, or a name occurs twice.
    """

    agents: tuple[Agent, ...]

    def __post_init__(self) -> None:
        names = [agent.name for agent in self.agents]
        if not names:
            raise ConfigError("a pool needs at least one agent")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"agent names must be unique in a pool, but {', '.join(repeated)} occurs more than once")

    @classmethod
    def of(cls, names: Iterable[str], *, prices: Mapping[str, tuple[float, float]] | None = None) -> Self:
        """Make a pool from names, and prices (input, output) in USD per million tokens for some of them.

        Raises:
            UnknownName: When a price is given for an agent that is not in the pool.
        """
        prices = prices or {}
        listed = tuple(names)
        for name in prices:
            if name not in listed:
                raise UnknownName(kind="agent (in the prices)", name=name, known=listed)
        return cls(
            tuple(
                Agent(name=name, input_price=prices[name][0], output_price=prices[name][1])
                if name in prices
                else Agent(name=name)
                for name in listed
            )
        )

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: When `value` is anything else.
        """
        if not isinstance(value, list):
            raise ConfigError(f"expected a list of agents, {_FORM}, got {value!r}")
        return cls(tuple(_agent(row, str(i)) for i, row in enumerate(value)))

    def to_json(self) -> list[Json]:
        """Return one object per agent with the fields that differ from their defaults."""
        return [_changed_fields(agent) for agent in self.agents]

    @property
    def names(self) -> tuple[str, ...]:
        """The agents' names in order."""
        return tuple(agent.name for agent in self.agents)

    def __len__(self) -> int:
        return len(self.agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self.agents)


_FORM = '{"name": ..., "engine": ..., "model": ...}'


def _agent(row: Json, place: str) -> Agent:
    if not isinstance(row, dict) or "name" not in row:
        raise ConfigError(f"expected a list of agents, {_FORM}; {place}: an agent has a name, got {row!r}")
    known = [field.name for field in fields(Agent)]
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key not in known:
            raise ConfigError(f"{place}: an agent has no field {key!r}{suggest(key, known)}")
        if key == "engine":
            values[key] = None if value is None else Spec.from_json(value)
        elif key == "extra":
            values[key] = value
        else:
            values[key] = _checked(key, value, place)
    return Agent(**values)


def _checked(key: str, value: Json, place: str) -> object:
    # pydantic costs 0.1 s to import, and only reading needs it.
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[object] = TypeAdapter(get_type_hints(Agent)[key])
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ConfigError(f"expected a list of agents, {_FORM}; {place}.{key}: {message}, got {value!r}") from error


def _changed_fields(agent: Agent) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for field in fields(agent):
        value = getattr(agent, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            found[field.name] = value.to_json() if isinstance(value, Spec) else value
    return found
