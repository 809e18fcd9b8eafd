"""The file that describes many prunings."""

import collections
import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from fusion.config import Config, make_config, read_config
from fusion.errors import ConfigError, suggest
from fusion.pruning._config import PruneConfig

_MOST_JOBS = 10_000
_MOST_BYTES = 200
"""Of a name: files may have 255, and the ending must fit."""

_KEYS = tuple(key for key in PruneConfig.model_fields if key != "version")
_SPEAK_FOR_THEMSELVES = ("table", "test", "objective", "fuser", "search")
"""Keys whose values need no "key=" before them in a name."""

_ENDINGS = (".csv", ".tsv", ".gz", ".parquet")


class JobsConfig(Config):
    """Many prunings: what `fusion prune --jobs` takes."""

    version: Literal[1] = 1
    defaults: Annotated[dict[str, object], Field(description="keys of every job", default_factory=dict)]
    jobs: Annotated[dict[str, dict[str, object] | None], Field(description="keys by name", default_factory=dict)]
    matrix: Annotated[dict[str, list[object]], Field(description="jobs of every combination", default_factory=dict)]


class Job(NamedTuple):
    """A pruning with a name, which is that of its result's file.

    Attributes:
        name: Safe as the name of a file.
        config: What to do; its paths lead from the working folder.
    """

    name: str
    config: PruneConfig

    @property
    def paths(self) -> tuple[str, ...]:
        """The tables it reads."""
        return (self.config.table,) if self.config.test is None else (self.config.table, self.config.test)


def read_jobs(file: str | os.PathLike[str], *, overrides: Mapping[str, object] | None = None) -> tuple[Job, ...]:
    """Read a file of prunings: those under `jobs`, then every combination of the values under `matrix`.

    Args:
        file: The file; the paths in it start from its folder.
        overrides: Values that win over the file's, by dotted key.

    Raises:
        ConfigError: When it cannot be read, a key or value is refused, or a name is no file's name or given twice.
    """
    source = Path(file)
    content = read_config(source, JobsConfig, overrides=overrides)
    _require_known(content.defaults, f"{source}: defaults")
    _require_known(content.matrix, f"{source}: matrix")
    wanted = [(name, own or {}) for name, own in content.jobs.items()]
    for name, own in wanted:
        if not re.fullmatch(r"\w[\w.,=+-]*", name) or len(name.encode()) > _MOST_BYTES:
            raise ConfigError(
                f"{source}: {name!r} cannot be the name of a job, which is that of a file; "
                "use letters, digits and . , = + _ -, and start with a letter or digit"
            )
        _require_known(own, f"{source}: jobs.{name}")
    wanted += _combinations(content.matrix, source)
    if not wanted:
        raise ConfigError(f"{source} names no jobs; give jobs: {{NAME: {{table: FILE}}}} or matrix: {{table: [FILE]}}")
    # Some file systems take "A.json" for "a.json".
    for name, count in collections.Counter(name.casefold() for name, _ in wanted).items():
        if count > 1:
            raise ConfigError(
                f"{source}: {count} jobs would be called {name!r}; leave out values that are given twice, or list "
                "the jobs under jobs with names of their own"
            )
    return tuple(
        Job(name, _placed(make_config(content.defaults | own, PruneConfig, source=f"{source}, job {name}"), source))
        for name, own in wanted
    )


def _require_known(keys: Iterable[str], place: str) -> None:
    for key in keys:
        if key not in _KEYS:
            raise ConfigError(f"{place}: unknown key {key!r}{suggest(key, _KEYS, most=len(_KEYS))}")


def _combinations(matrix: Mapping[str, list[object]], source: Path) -> list[tuple[str, dict[str, object]]]:
    """Return the jobs that a matrix stands for, with names made of their values."""
    if not matrix:
        return []
    for key, values in matrix.items():
        if not values or any(isinstance(value, dict) for value in values):
            raise ConfigError(
                f"{source}: matrix.{key} needs values that a name can be made of, got {values!r}; "
                f"give some, or {key} under defaults or jobs"
            )
    count = math.prod(len(values) for values in matrix.values())
    if count > _MOST_JOBS:
        raise ConfigError(f"{source}: matrix makes {count} jobs, the most is {_MOST_JOBS}; use several files")
    labels = {key: _labels(key, values) for key, values in matrix.items()}
    named = (zip(labels[key], values, strict=True) for key, values in matrix.items())
    return [
        (_shortened("__".join(label for label, _ in chosen)), dict(zip(matrix, (v for _, v in chosen), strict=True)))
        for chosen in itertools.product(*named)
    ]


def _labels(key: str, values: list[object]) -> list[str]:
    """Return what stands for each value in a name: of paths only the last part, when that tells them apart."""
    texts = [",".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
    if key in ("table", "test"):
        stems = [_stem(text) for text in texts]
        texts = stems if len(set(stems)) == len(stems) else texts
    shown = [text if value not in (None, []) else "none" for text, value in zip(texts, values, strict=True)]
    plain = [key in _SPEAK_FOR_THEMSELVES and value is not None for value in values]
    return [
        re.sub(r"[^\w.,=+-]+", "-", text if alone else f"{key}={text}").strip("-.") or key
        for text, alone in zip(shown, plain, strict=True)
    ]


def _stem(path: str) -> str:
    name = Path(path).name
    while name.lower().endswith(_ENDINGS):
        name = name[: name.rindex(".")]
    return name


def _shortened(name: str) -> str:
    """Return a name of the length that a file's may have; what is cut off still counts in it."""
    if len(name.encode()) <= _MOST_BYTES:
        return name
    cut = name.encode()[: _MOST_BYTES - 9].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _placed(config: PruneConfig, source: Path) -> PruneConfig:
    """Return the configuration with paths that lead from the working folder."""
    placed = {
        key: str(source.parent / path)
        for key, path in {"table": config.table, "test": config.test}.items()
        if path is not None
    }
    return config.model_copy(update=placed)
