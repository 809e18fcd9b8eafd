"""The JSON Schema of pool files, for editors: every key described, every kind of engine with its parameters."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import cast

from pydantic import TypeAdapter

from fusion import discovery
from fusion.agents._pool_file import ENGINE_SCHEMA, PoolConfig
from fusion.errors import FusionError
from fusion.schema import Json


def pool_schema() -> dict[str, Json]:
    """Return the JSON Schema of a pool file, with the engines that are installed now."""
    schema = PoolConfig.model_json_schema()
    kinds = [_engine_schema(name) for name in discovery.names("agents")]
    text = {"type": "string", "description": "a name from engines, or a kind, or kind(key=value, ...)"}
    schema["$defs"]["Engine"] = {"anyOf": [text, *kinds]}
    filled = _with_engines(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cast("dict[str, Json]", filled)}


def _with_engines(value: object) -> object:
    if isinstance(value, dict):
        if all(value.get(key) == item for key, item in ENGINE_SCHEMA.items()):
            return {"$ref": "#/$defs/Engine"}
        return {key: _with_engines(item) for key, item in value.items()}
    return [_with_engines(item) for item in value] if isinstance(value, list) else value


def _engine_schema(name: str) -> dict[str, object]:
    kind: dict[str, object] = {"const": name, "description": "who answers"}
    shape: dict[str, object] = {"title": name, "type": "object", "required": ["kind"]}
    try:
        cls = discovery.load("agents", name)
        shape["description"] = discovery.summary("agents", name).partition(" (")[0]
    except FusionError as error:
        # An editor should still know the others, and let this one's parameters pass.
        return {**shape, "description": str(error), "properties": {"kind": kind}}
    hints, told = typing.get_type_hints(cls, include_extras=True), _described(cls)
    properties: dict[str, object] = {"kind": kind}
    required = ["kind"]
    for field in dataclasses.fields(cast("type", cls)):
        if not field.init:
            continue
        adapter: TypeAdapter[object] = TypeAdapter(hints[field.name])
        properties[field.name] = {**adapter.json_schema(), "description": told.get(field.name, "")}
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return {**shape, "required": required, "properties": properties, "additionalProperties": False}


def _described(cls: type[object]) -> Mapping[str, str]:
    """Return what a class's documentation says of its parameters."""
    _, _, arguments = (cls.__doc__ or "").partition("Args:\n")
    parts = re.findall(r"^        (\w+): (.+?)(?=^        \w|^    \S|\Z)", arguments, re.M | re.S)
    return {name: " ".join(text.split()) for name, text in parts}
