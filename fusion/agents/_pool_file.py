"""Pool files: YAML that says who answers (docs/pools.md describes every key).

A file goes through five steps: it is read and `--set` is applied; secrets are refused; environment variables are put
in for `${NAME}`; keys and values are checked against the classes below; every agent takes what `defaults` says, its
engine is looked up and its relative paths are followed from the folder of the file.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from fusion import discovery
from fusion.agents._agent import Agent, Mode
from fusion.agents._pool import AgentPool
from fusion.agents._secrets import interpolated, refuse_secrets
from fusion.config import Config, make_config, read_config
from fusion.errors import ConfigError, FusionError, UnknownName, UsageError, suggest
from fusion.schema import Json, Param, Spec

ENGINE_SCHEMA = {"$comment": "engine"}
"""Stands for what an engine may be in the JSON Schema of a pool, until the kinds of engines are looked up."""


def _as_engine(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("kind"), str)):
        return value
    form = "the name of an engine, a text such as hf or openai(base_url=...), or a mapping with a kind"
    raise PydanticCustomError("engine", cast("Literal['']", f"expected {form}"))


def _as_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise PydanticCustomError("json", "expected numbers that are finite") from error
    return value


EngineRef = Annotated[str | dict[str, JsonValue], BeforeValidator(_as_engine), WithJsonSchema(ENGINE_SCHEMA)]
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class AgentFields(Config):
    """What `defaults` may say of every agent."""

    engine: Annotated[EngineRef | None, Field(description="who answers: a name from engines, a kind, or a mapping")] = (
        None
    )
    model: Annotated[str, Field(description="name or path of the model, in the engine's words")] = ""
    revision: Annotated[str | None, Field(description="commit, branch or tag of the model")] = None
    adapter: Annotated[str | None, Field(description="name or path of a LoRA adapter")] = None
    template: Annotated[
        str | None, Field(description="chat template as Jinja text; none for plain text; null for the model's own")
    ] = None
    template_file: Annotated[str | None, Field(description="file with the chat template")] = None
    system: Annotated[str, Field(description="system prompt, put before the one of the question")] = ""
    mode: Annotated[
        Mode,
        Field(description="questions with options: score them (options), write (generate), or what the engine can"),
    ] = "auto"
    temperature: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="0 takes the likeliest token, always the same")
    ] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, description="share of the probability mass to sample from")] = 1.0
    top_k: Annotated[Annotated[int, Field(ge=1)] | None, Field(description="tokens to sample from; null for all")] = (
        None
    )
    max_tokens: Annotated[int, Field(ge=1, description="most tokens to write")] = 512
    stop: Annotated[list[str], Field(description="texts at which writing stops", default_factory=list)]
    seed: Annotated[int, Field(description="of the draws")] = 0
    samples: Annotated[int, Field(ge=1, description="draws per question; several need a temperature above 0")] = 1
    extra: Annotated[
        dict[str, JsonValue],
        AfterValidator(_as_json),
        Field(description="further fields for the engine, as they are", default_factory=dict),
    ]
    input_price: Annotated[_Price | None, Field(description="USD per million tokens read")] = None
    output_price: Annotated[_Price | None, Field(description="USD per million tokens written")] = None


class AgentConfig(AgentFields):
    """One agent; what it does not say, `defaults` says."""

    name: Annotated[str, Field(min_length=1, description="unique in the pool; the agent's column in tables")]


class PoolConfig(Config):
    """A pool of agents."""

    version: Annotated[Literal[1], Field(description="version of this format")] = 1
    engines: Annotated[
        dict[str, EngineRef], Field(description="engines by name, for agents to share", default_factory=dict)
    ]
    defaults: Annotated[
        AgentFields, Field(description="for every agent that says nothing else", default_factory=AgentFields)
    ]
    agents: Annotated[list[AgentConfig], Field(description="the members, in order", json_schema_extra={"minItems": 1})]


def read_pool(path: str | os.PathLike[str], *, overrides: Mapping[str, object] | None = None) -> AgentPool:
    """Read a pool file.

    Args:
        path: The file (YAML).
        overrides: Values that win over the file's, by dotted key: "defaults.temperature", "engines.local.base_url",
            "agents.NAME.model" (or the agent's position instead of its name).

    Raises:
        ConfigError: When the file is missing or a key or value in it is wrong, is a secret, or names an environment
            variable that is not set.
    """
    return AgentPool(tuple(entry.agent for entry in _entries(Path(path), overrides)))


def show_pool(path: str | os.PathLike[str], *, overrides: Mapping[str, object] | None = None) -> dict[str, Json]:
    """Return a pool file with `defaults` and every other default filled in; itself a pool file that reads the same.

    Values that stand as `${NAME}` in the file stay so: what is in the environment is not shown.

    Raises:
        ConfigError: As `read_pool`.
    """
    entries = _entries(Path(path), overrides)
    shown = [cast("Json", _masked(_described(entry), entry.written)) for entry in entries]
    return {"version": 1, "agents": shown}


def is_pool_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a YAML file describes a pool: whether it has agents.

    Raises:
        ConfigError: When it cannot be read.
    """
    return "agents" in _content(Path(path))


class _Entry(NamedTuple):
    """An agent, what was checked of it, and what stands in the file."""

    agent: Agent
    config: AgentConfig
    written: Mapping[str, object]


class _Content(Config):
    """A file before it is known what its keys mean."""

    model_config = ConfigDict(extra="allow")


def _content(source: Path) -> dict[str, object]:
    return dict(read_config(source, _Content).model_extra or {})


def _entries(source: Path, overrides: Mapping[str, object] | None) -> list[_Entry]:
    content = _overridden(_content(source), overrides or {}, str(source))
    refuse_secrets(content, str(source))
    filled = interpolated(content, str(source))
    refuse_secrets(filled, str(source))
    config = make_config(filled, PoolConfig, source=str(source))
    found = []
    for i, (agent, written) in enumerate(zip(config.agents, _written(content), strict=True)):
        place = f"{source}: agent {agent.name!r} (agents.{i})"
        merged = AgentConfig.model_validate(_merged(_given(config.defaults), _given(agent)))
        if merged.template_file is not None:
            merged = merged.model_copy(update={"template_file": _followed(merged.template_file, source.parent)})
        found.append(_Entry(_agent(merged, config.engines, source.parent, place), merged, written))
    for name, ref in config.engines.items():
        _checked_spec(ref, (), source.parent, f"{source}: engines.{name}")
    try:
        AgentPool(tuple(entry.agent for entry in found))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    return found


def _overridden(content: dict[str, object], overrides: Mapping[str, object], source: str) -> dict[str, object]:
    """Return the content with `overrides` applied; those of agents name them, as positions are hard to count."""
    named = _by_name(content.get("agents"))
    changed: dict[str, object] = {}
    for key, value in overrides.items():
        position = re.match(r"agents\.(\d+)(?=\.)", key)
        if position and position[1] not in named and int(position[1]) < len(named):
            key = f'agents."{list(named)[int(position[1])]}"{key[position.end() :]}'
        changed[key] = value
    if named:
        content = {**content, "agents": named}
    merged = dict(make_config(content, _Content, source=source, overrides=changed).model_extra or {})
    if named and isinstance(merged["agents"], dict):
        for name in merged["agents"]:
            if name not in named:
                raise ConfigError(f"{source}: no agent {str(name)!r} to override{suggest(str(name), named)}")
        merged["agents"] = list(merged["agents"].values())
    return merged


def _by_name(agents: object) -> dict[str, object]:
    """Return the agents by name; empty when they are no list of agents with names of their own."""
    if not isinstance(agents, list) or not all(isinstance(agent, dict) for agent in agents):
        return {}
    named = {agent["name"]: agent for agent in agents if isinstance(agent.get("name"), str)}
    return named if len(named) == len(agents) else {}


def _written(content: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield what the file says of every agent, named engines written out."""
    engines = cast("Mapping[str, object]", content.get("engines") or {})
    defaults = cast("Mapping[str, object]", content.get("defaults") or {})
    for agent in cast("list[Mapping[str, object]]", content["agents"]):
        merged = _merged(defaults, agent)
        yield {**merged, "engine": engines.get(str(merged.get("engine")), merged.get("engine"))}


def _given(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in type(config).model_fields if name in config.model_fields_set}


def _merged(defaults: Mapping[str, object], agent: Mapping[str, object]) -> dict[str, object]:
    # The two ways to give a template are one setting: an agent's own replaces whichever the defaults use.
    ways = {"template", "template_file"}
    kept = {key: value for key, value in defaults.items() if not (key in ways and ways & set(agent))}
    return {**kept, **agent}


def _agent(config: AgentConfig, engines: Mapping[str, object], folder: Path, place: str) -> Agent:
    spec = _engine(config.engine, engines, folder, place)
    values = {name: getattr(config, name) for name in type(config).model_fields if name != "template_file"}
    values |= {"engine": spec, "template": _template(config, place), "stop": tuple(config.stop)}
    if not _on_a_server(spec):
        values |= {"model": _beside(config.model, folder), "adapter": _beside(config.adapter, folder)}
    try:
        return Agent(**values)
    except ConfigError as error:
        raise ConfigError(f"{place}: {str(error).removeprefix(f'agent {config.name!r}: ')}") from error


def _engine(ref: object, engines: Mapping[str, object], folder: Path, place: str) -> Spec:
    if ref is None:
        raise ConfigError(
            f"{place}: the key 'engine' is required; name one of engines, or a kind: "
            f"{', '.join(discovery.names('agents'))}"
        )
    if isinstance(ref, str) and ref in engines:
        return _checked_spec(engines[ref], (), folder, f"{place}, engines.{ref}")
    return _checked_spec(ref, tuple(engines), folder, place)


def _checked_spec(ref: object, named: tuple[str, ...], folder: Path, place: str) -> Spec:
    try:
        spec = _spec(ref, named)
        refuse_secrets(spec.params, place)
        spec = Spec(spec.name, {key: _param(value, folder) for key, value in spec.params.items()})
        discovery.build("agents", spec)
    except ConfigError:
        raise
    except UsageError as error:
        raise ConfigError(f"{place}: {error}") from error
    except FusionError:
        # The file is right; that a package is missing here is for fusion doctor to say, and for who asks the agent.
        pass
    return spec


def _spec(ref: object, named: tuple[str, ...]) -> Spec:
    if isinstance(ref, dict):
        params = {key: value for key, value in ref.items() if key != "kind"}
        return Spec.from_json({"name": ref["kind"], "params": params})
    text, kinds = str(ref), discovery.names("agents")
    if "(" not in text and text.replace("-", "_") not in kinds:
        raise UnknownName(kind="engine", name=text, known=[*named, *kinds])
    return Spec.parse(text)


def _template(config: AgentConfig, place: str) -> str | None:
    if config.template_file is None:
        text = config.template
        if text is None or text == "" or text.lower() == "none":
            return None if text is None else ""
        if "{" not in text:
            raise ConfigError(
                f"{place}: template: expected Jinja text, or none for plain text, got {text[:60]!r}; "
                "a file is named with template_file"
            )
        return text
    if config.template is not None:
        raise ConfigError(f"{place}: template and template_file say the same thing twice; give one of them")
    path = config.template_file
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{place}: template_file: {path} cannot be read: {reason}") from error
    if not text.strip():
        raise ConfigError(f"{place}: template_file: {path} is empty; for plain text write template: none")
    return text


def _on_a_server(spec: Spec) -> bool:
    """Tell whether names of models are a server's own, which may look like paths and are none."""
    if "base_url" in spec.params:
        return bool(spec.params["base_url"])
    try:
        fields = dataclasses.fields(cast("type", discovery.load("agents", spec.name)))
    except FusionError:
        return False
    return any(field.name == "base_url" and isinstance(field.default, str) and field.default for field in fields)


def _beside(text: str | None, folder: Path) -> str | None:
    """Return a path from the folder of the pool file; names of models that are no paths stay as they are."""
    explicit = text and re.match(r"\.{1,2}(/|$)|~/", text)
    return _followed(text, folder) if text and (explicit or os.path.exists(folder / text)) else text


def _param(value: Param, folder: Path) -> Param:
    """Return an engine's parameter; where it is the path of a file there, from the folder of the pool file."""
    if isinstance(value, str) and re.search(r"[./]", value) and os.path.exists(folder / value):
        return _followed(value, folder)
    return value


def _followed(path: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expanduser(path))


def _described(entry: _Entry) -> dict[str, object]:
    agent, config = entry.agent, entry.config
    assert agent.engine is not None, "agents of a pool file have engines"
    told: dict[str, object] = {"name": agent.name, "engine": _engine_described(agent.engine)}
    for field in type(config).model_fields:
        if field not in told:
            told[field] = getattr(config, field)
    told |= {"model": agent.model, "adapter": agent.adapter}
    if config.template_file is None:
        told |= {"template": "none" if agent.template == "" else agent.template}
        del told["template_file"]
    else:
        del told["template"]
    return told


def _engine_described(spec: Spec) -> dict[str, object]:
    try:
        engine = discovery.build("agents", spec)
    except FusionError:
        return {"kind": spec.name, **spec.params}
    fields = [field.name for field in dataclasses.fields(cast("type", type(engine))) if field.init]
    values = {name: getattr(engine, name) for name in fields}
    return {"kind": spec.name} | {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _masked(value: object, written: object) -> object:
    """Return `value` with texts that stand as ${NAME} in the file as they stand there."""
    if isinstance(written, str) and "${" in written:
        return written
    if isinstance(value, dict) and isinstance(written, dict):
        # Of an engine's parameters, dashes and underscores are alike.
        plain = {str(key).replace("-", "_"): item for key, item in written.items()}
        return {key: _masked(item, plain.get(key.replace("-", "_"))) for key, item in value.items()}
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        return [_masked(item, other) for item, other in zip(value, written, strict=True)]
    return value
