"""YAML files to typed objects: unknown keys refused with a did-you-mean, values overridden by `a.b=c`."""

import os
import re
import reprlib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fusion.errors import ConfigError, UsageError, suggest


class Config(BaseModel):
    """Root of every configuration object: frozen, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


_C = TypeVar("_C", bound=Config)


def read_config(path: str | os.PathLike[str], kind: type[_C], *, overrides: Mapping[str, object] | None = None) -> _C:
    """Read a YAML file as a `kind`.

    Args:
        path: The file.
        kind: What it describes.
        overrides: Values that win over the file's, by dotted key ("prices.a.input").

    Raises:
        ConfigError: When the file is missing, is not YAML, gives a key twice, or has a key or value that
            `kind` refuses.
    """
    source = Path(path)
    return make_config(_content(source), kind, source=str(source), overrides=overrides)


def read_keys(path: str | os.PathLike[str]) -> set[str]:
    """Return the keys at the top of a YAML file.

    Raises:
        ConfigError: As `read_config`, whatever the keys.
    """
    return set(_content(Path(path)))


def _content(source: Path) -> dict[str, object]:
    try:
        content = _load_yaml(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"no configuration {source}: {error.strerror}; give the path of a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source} cannot be read as YAML: {_reason(error)}; write lines such as seed: 1") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{source} must hold keys and values, got {reprlib.repr(content)}; write lines such as seed: 1"
        )
    return content


def make_config(
    content: Mapping[str, object], kind: type[_C], *, source: str, overrides: Mapping[str, object] | None = None
) -> _C:
    """Check `content` as a `kind`; `source` is where it came from, for messages.

    Raises:
        ConfigError: When a key or value is refused.
    """
    merged = dict(content)
    for key, value in (overrides or {}).items():
        merged = _with(merged, _path(key), value, key)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind, source)) from error


def choose_config(
    kind: type[_C],
    config: str | os.PathLike[str] | None,
    given: Mapping[str, object],
    *,
    sets: Iterable[str],
    verb: str,
) -> _C:
    """Return the configuration of a verb that works on a table: what was given wins over `sets`, that over the file.

    Args:
        kind: What it describes.
        config: The file, or None.
        given: Values of options, None where one was not given.
        sets: "a.b=c" pairs.
        verb: For the message when no table is given.

    Raises:
        ConfigError: As `read_config`.
        UsageError: When there is neither a file nor a table.
    """
    values = {**parse_overrides(sets), **{key: value for key, value in given.items() if value is not None}}
    if config:
        return read_config(config, kind, overrides=values)
    if "table" not in values:
        raise UsageError(f"give a TABLE, or --config FILE that names one; see fusion {verb} --help")
    return make_config({}, kind, source="the command line", overrides=values)


def parse_overrides(pairs: Iterable[str]) -> dict[str, object]:
    """Read "a.b=c" pairs; the values are YAML. A part of the key that holds dots is quoted: a."b.1"=c.

    Raises:
        ConfigError: When one has no "=".
    """
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not all(_path(key)):
            raise ConfigError(f"expected KEY=VALUE such as seed=1 or prices.a.input=0.5, got {pair!r}")
        try:
            found[key.strip()] = _load_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"the value in {pair!r} is not YAML: {_reason(error)}; quote it") from error
    return found


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that occurs twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            # "<<" merges other mappings and may be repeated; keys that are no scalars the parent refuses.
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(key_node)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} occurs twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # What PyYAML stumbles over, as in "\UFFFFFFFF", !!int '' or !!timestamp x, it lets out as it is.
        raise ValueError(f"it has a value that cannot be read ({error})") from error


def _reason(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"


def _path(key: str) -> list[str]:
    """Return the parts of a dotted key; a part in double quotes may hold dots."""
    return [
        quoted or plain.strip() for quoted, plain in re.findall(r'(?:^|\.)(?:"([^"]*)"(?=\.|$)|([^.]*))', key.strip())
    ]


def _with(content: Mapping[str, object], path: list[str], value: object, key: str) -> dict[str, object]:
    """Return `content` with the value at `path` replaced, everything else shared."""
    first, *rest = path
    if not rest:
        return {**content, first: value}
    inner = content.get(first) or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"cannot set {key}: {first} is {inner!r}, not a group of keys")
    return {**content, first: _with(cast("Mapping[str, object]", inner), rest, value, key)}


def _explain(error: ValidationError, kind: type[Config], source: str) -> str:
    reasons = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _keys(kind, item["loc"][:-1])
            reasons.append(f"unknown key {place!r}{suggest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            reasons.append(f"the key {place!r} is required")
        elif not item["loc"]:
            # Of the whole: what does not go together is said in full.
            reasons.append(str(item["msg"]).removeprefix("Value error, "))
        elif item["loc"][-1] == "[key]":
            inside = ".".join(str(part) for part in item["loc"][:-2])
            reasons.append(f"the keys in {inside} must be text, got {item['input']!r}; put it in quotes")
        else:
            reasons.append(f"{place}: {item['msg'][:1].lower()}{item['msg'][1:]}, got {reprlib.repr(item['input'])}")
    return f"{source}: {'; '.join(reasons)}"


def _keys(kind: type[Config], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known at `place`, following nested configurations."""
    current: object = kind
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = _nested(current.model_fields[str(part)].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _nested(annotation: object) -> object:
    """Return the configuration class inside an annotation such as dict[str, Price], or the annotation."""
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return annotation
