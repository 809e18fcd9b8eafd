"""An ensemble on disk: what its methods learned, and enough to make them again."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusion.agents import AgentPool
from fusion.discovery import spec_of
from fusion.errors import FusionError, InputError, UsageError, suggest
from fusion.files import replacing, write_text
from fusion.protocols import FolderMethod
from fusion.schema import Json, Spec

FORMAT = "fusion.ensemble/1"


class Saved(NamedTuple):
    """What a folder holds.

    Attributes:
        folder: The folder.
        pool, selector, fuser: What the ensemble is made of.
        arrays, plain: What its methods learned, by role and field.
    """

    folder: Path
    pool: AgentPool
    selector: Spec
    fuser: Spec
    arrays: Mapping[str, npt.NDArray[Any]]
    plain: Mapping[str, Json]

    def restore(self, methods: Mapping[str, object]) -> None:
        """Give methods what those of the same role had learned.

        Raises:
            InputError: When something is missing.
        """
        for role, method in methods.items():
            for key in _learned(method):
                name = f"{role}.{key}"
                if name not in self.arrays and name not in self.plain:
                    raise InputError(f"the ensemble in {self.folder} was saved without {name}; fit and save it again")
                value = self.arrays[name] if name in self.arrays else self.plain[name]
                setattr(method, key, _frozen(value))
            if isinstance(method, FolderMethod):
                method.load_files(self.folder / role)


def lookup(pool: AgentPool, names: Sequence[str], *, whose: str) -> AgentPool:
    """Return the agents of `names`, in that order, as `pool` has them.

    Args:
        pool: Where they are looked up; it may have more.
        names: Whom to return.
        whose: Where the names come from, for the message.

    Raises:
        UsageError: When `pool` lacks some.
    """
    agents = {agent.name: agent for agent in pool}
    missing = [name for name in names if name not in agents]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise UsageError(
            f"the pool lacks the agent{plural} {', '.join(map(repr, missing))} of {whose}"
            f"{suggest(missing[0], pool.names)}; an agent of the pool answers for the one of the same name"
        )
    return AgentPool(tuple(agents[name] for name in names))


def write_saved(folder: Path, pool: AgentPool, methods: Mapping[str, object]) -> None:
    """Write a pool and the methods "selector" and "fuser" with what they learned.

    Raises:
        OutputError: When the folder cannot be written.
        FusionError: When a method learned something that is neither an array of numbers nor JSON.
    """
    arrays, plain = _sorted_out(methods)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes the flag allow_pickle for an array
    with replacing(folder / "state.npz") as temporary:
        temporary.write_bytes(buffer.getvalue())
    for role, method in methods.items():
        if isinstance(method, FolderMethod):
            method.save_files(folder / role)
    manifest: dict[str, Json] = {
        "format": FORMAT,
        "pool": pool.to_json(),
        **{role: spec_of(method).to_json() for role, method in methods.items()},
        "learned": plain,
    }
    manifest["state_sha256"] = _checksum(buffer.getvalue(), manifest)
    write_text(folder / "ensemble.json", json.dumps(manifest, indent=2) + "\n")


def read_saved(folder: Path) -> Saved:
    """Read what `write_saved` wrote.

    Raises:
        InputError: When the folder holds no ensemble, or a damaged one.
    """
    manifest, arrays = _contents(folder)
    return Saved(
        folder=folder,
        pool=AgentPool.from_json(manifest["pool"]),
        selector=Spec.from_json(manifest["selector"]),
        fuser=Spec.from_json(manifest["fuser"]),
        arrays=arrays,
        plain=manifest["learned"],
    )


def _learned(method: object) -> dict[str, Any]:
    """Return the fields whose names end with an underscore: what fit wrote."""
    learned = {}
    for field in dataclasses.fields(method):  # type: ignore[arg-type]  # every method is a dataclass
        if field.name.endswith("_"):
            value = getattr(method, field.name)
            learned[field.name] = list(value) if isinstance(value, tuple) else value
    return learned


def _sorted_out(methods: Mapping[str, object]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Json]]:
    """Return what the methods learned: the arrays, and what goes to JSON."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    plain: dict[str, Json] = {}
    for role, method in methods.items():
        for key, value in _learned(method).items():
            if isinstance(value, np.ndarray) and not value.dtype.hasobject:
                arrays[f"{role}.{key}"] = value
                continue
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise FusionError(
                    f"cannot save the {role} {spec_of(method)}: {key} is a {type(value).__name__} ({error}); "
                    "a method must keep what it learned in arrays of numbers, numbers, strings, and lists of these"
                ) from error
            plain[f"{role}.{key}"] = value
    return arrays, plain


def _frozen(value: object) -> object:
    """Return the tuples that JSON made lists of."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _checksum(state: bytes, manifest: Mapping[str, Json]) -> str:
    """Return the SHA-256 of the arrays and of everything in the manifest but itself."""
    rest = {key: value for key, value in manifest.items() if key != "state_sha256"}
    return hashlib.sha256(state + json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]:
    path = folder / "ensemble.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        state = (folder / "state.npz").read_bytes()
    except OSError as error:
        raise InputError(
            f"no ensemble in {folder}: {error.strerror}; expected the files ensemble.json and state.npz"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}; save the ensemble again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not an ensemble of the format {FORMAT}; save it again with this version")
    missing = {"pool", "selector", "fuser", "learned", "state_sha256"} - set(manifest)
    if missing:
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}; save the ensemble again")
    if not isinstance(manifest["learned"], dict) or _checksum(state, manifest) != manifest["state_sha256"]:
        raise InputError(
            f"what {folder} holds was changed after it was saved: {folder / 'state.npz'} and the learned part of "
            f"{path.name} do not have the checksum that {path.name} states; save the ensemble again"
        )
    with np.load(io.BytesIO(state), allow_pickle=False) as archive:
        return manifest, dict(archive.items())
