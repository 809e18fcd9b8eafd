"""Methods by name: the file is the registration.

In a plug-in package a module without a leading underscore is a method; its stem is its name, dashes
and underscores alike, and its `__all__` holds exactly one class. Names are listed from file names, so
listing imports nothing. Third parties register modules or classes under the entry-point group
`fusion.<package>` and are found the same way.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fusion._spec_text import write
from fusion.errors import FusionError, InvalidSpec, UnknownName, suggest
from fusion.schema import Param, Spec

PLUGINS: Mapping[str, str] = {
    "agents": "engine",
    "data": "task",
    "selectors": "selector",
    "fusers": "fuser",
    "executors": "executor",
    "moe": "layout",
}
"""Plug-in packages, and what one of their methods is called."""


def names(package: str) -> tuple[str, ...]:
    """Return the method names of a plug-in package, sorted, without importing any of them.

    Args:
        package: A key of `PLUGINS`.

    Raises:
        FusionError: When an installed package claims a name that is already taken.
    """
    return tuple(sorted(_targets(package)))


def summary(package: str, name: str) -> str:
    """Return the first line of a method's documentation, with its parameters and their defaults."""
    cls = load(package, name)
    module = importlib.import_module(cls.__module__)
    first = (module.__doc__ or cls.__doc__ or "").strip().partition("\n")[0]
    shown = [
        field.name if _required(field) else f"{field.name}={_written(_default(field))}" for field in _parameters(cls)
    ]
    return f"{first} ({', '.join(shown)})" if shown else first


def load(package: str, name: str) -> type[object]:
    """Import the method `name` of `package` and return its class.

    Raises:
        UnknownName: When nothing has that name.
        FusionError: When its module cannot be imported, or does not export exactly one class.
    """
    targets = _targets(package)
    target = targets.get(name.replace("-", "_"))
    if target is None:
        raise UnknownName(kind=PLUGINS[package], name=name, known=sorted(targets))
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise FusionError(
            f"{PLUGINS[package]} {name!r} is in {module_name}, which cannot be imported: {error}; "
            "install what it needs, or uninstall the package that offers it"
        ) from error
    exported = (attribute,) if attribute else tuple(getattr(module, "__all__", ()))
    found = getattr(module, exported[0], None) if len(exported) == 1 else None
    if not isinstance(found, type):
        raise FusionError(f"{module_name} must name exactly one class in __all__, it names {exported or 'nothing'}")
    return found


def build(package: str, spec: Spec | str) -> object:
    """Make the method that `spec` describes, its parameters checked against the field types.

    Raises:
        UnknownName: When nothing has that name.
        InvalidSpec: When a parameter is unknown, missing, of the wrong type or out of range.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    cls = load(package, spec.name)
    known = {field.name: field for field in _parameters(cls)}
    for key in spec.params:
        if key not in known:
            raise InvalidSpec(f"{PLUGINS[package]} {spec.name!r} has no parameter {key!r}{suggest(key, known)}")
    missing = [name for name, field in known.items() if _required(field) and name not in spec.params]
    if missing:
        raise InvalidSpec(
            f"{PLUGINS[package]} {spec.name!r} needs {', '.join(missing)}; write {spec.name}({missing[0]}=...)"
        )
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {key: _checked(spec.name, key, value, hints[key]) for key, value in spec.params.items()}
    return cls(**values)


def spec_of(method: object) -> Spec:
    """Return the spec that rebuilds `method`: its name and its init fields that differ from the default."""
    params: dict[str, Param] = {}
    for field in _parameters(type(method)):
        value = getattr(method, field.name)
        if _required(field) or value != _default(field):
            params[field.name] = list(value) if isinstance(value, tuple) else value
    return Spec(_name_of(type(method)), params)


def _name_of(cls: type[object]) -> str:
    """Return the name under which `cls` is found: of a class that nobody registered, its module's stem."""
    module_name, _, stem = cls.__module__.rpartition(".")
    if module_name not in {f"fusion.{package}" for package in PLUGINS}:
        for package in PLUGINS:
            for name, target in _targets(package).items():
                module, _, attribute = target.partition(":")
                # A class under another's roof was imported from there, under whatever name it is registered.
                exported = attribute or cls.__name__
                if getattr(sys.modules.get(module), exported, None) is cls:
                    return name
    return stem


def _targets(package: str) -> dict[str, str]:
    if package not in PLUGINS:
        raise UnknownName(kind="plug-in package", name=package, known=PLUGINS)
    folder = Path(__file__).parent / package
    found = {
        path.stem: f"fusion.{package}.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_")
    }
    for entry in importlib.metadata.entry_points(group=f"fusion.{package}"):
        name = entry.name.replace("-", "_")
        if name in found:
            raise FusionError(
                f"{PLUGINS[package]} {name!r} is offered twice, by {found[name]} and by {entry.value}; "
                "uninstall one of the two packages"
            )
        found[name] = f"{entry.module}:{entry.attr}" if entry.attr else entry.module
    return found


def _parameters(cls: type[object]) -> tuple["dataclasses.Field[object]", ...]:
    if not dataclasses.is_dataclass(cls):
        raise FusionError(f"{cls.__module__}.{cls.__qualname__} must be a dataclass")
    return tuple(field for field in dataclasses.fields(cls) if field.init)


def _required(field: "dataclasses.Field[object]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: "dataclasses.Field[object]") -> object:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _written(value: object) -> str:
    # As it is written in a spec, so that it can be taken from here into one.
    return write(cast("Param", list(value) if isinstance(value, tuple) else value))


def _checked(name: str, key: str, value: Param, hint: object) -> object:
    # pydantic costs 0.1 s to import and is wanted only when parameters are given.
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[object] = TypeAdapter(cast("type[object]", hint))
    try:
        # As JSON, where strictness refuses true and "3" for a number but takes a list for a tuple.
        return adapter.validate_json(json.dumps(value), strict=True)
    except TypeError as error:
        raise InvalidSpec(f"{name}({key}={value!r}): a parameter must be a number, word or list") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidSpec(f"{name}({key}={value!r}): {reason[0].lower()}{reason[1:]}") from error
