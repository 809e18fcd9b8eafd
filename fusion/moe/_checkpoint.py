"""Checkpoints in safetensors, read tensor by tensor."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import InputError, MissingDependency

if TYPE_CHECKING:
    import torch

INDEX, SINGLE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
DTYPES: Mapping[str, str] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Names that safetensors gives to the types that weights can have, and torch's."""


class Entry(NamedTuple):
    """Where a tensor is.

    Attributes:
        file: Its file.
        shape: Its shape.
        dtype: Its type, as torch calls it.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """A folder of safetensors; nothing but headers is read until a tensor is asked for.

    Args:
        folder: Where it is.
        what: What it is, for messages.

    Raises:
        InputError: When the folder holds no safetensors, or damaged ones.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder, self.what = folder, what

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every tensor, by name."""
        found: dict[str, Entry] = {}
        for file in self._files():
            for name, told in _header(file, self.what).items():
                dtype = DTYPES.get(told["dtype"], told["dtype"])
                found[name] = Entry(file, tuple(told["shape"]), dtype)
        return found

    def read(self, name: str) -> "torch.Tensor":
        """Return a tensor, in memory of its own.

        Raises:
            InputError: When there is none of that name.
        """
        if name not in self.entries:
            raise InputError(f"{self.what} ({self.folder}) has no tensor {name}")
        return read_tensor(self.entries[name].file, name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        return read_json(self.folder / CONFIG, self.what)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration, and of names, sizes and times of the weights: a change shows at once."""
        digest = hashlib.sha256()
        for file in sorted({self.folder / CONFIG, *self._files()}):
            if file.exists():
                told = file.stat()
                digest.update(f"{file.name}\0{told.st_size}\0{told.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        index = self.folder / INDEX
        if index.exists():
            files = sorted({self.folder / name for name in read_json(index, self.what)["weight_map"].values()})
        else:
            files = [path for name in (SINGLE, ADAPTER) if (path := self.folder / name).exists()]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise InputError(f"{self.what} ({self.folder}) lacks {', '.join(missing)}, which its index names")
        if not files:
            raise InputError(
                f"{self.what} ({self.folder}) has no safetensors; other formats can run code and are not read: load it "
                "with transformers and save it again"
            )
        return files


def read_tensor(file: Path, name: str) -> "torch.Tensor":
    """Return a tensor of a file, in memory of its own."""
    from safetensors import safe_open

    # Opened anew for each, so that no more of a file than this stays in memory.
    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name).clone()
    return tensor


def located(source: str, what: str) -> Path:
    """Return the folder of a model or adapter: itself, or the copy of what the hub has.

    Raises:
        InputError: When there is neither.
        MissingDependency: When it is on the hub, and huggingface-hub is not installed.
    """
    folder = Path(source)
    if folder.is_dir():
        if not any((folder / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
            raise InputError(
                f"{what}: {source} holds neither {CONFIG} nor {ADAPTER_CONFIG}; give a model or an adapter"
            )
        return folder
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingDependency("huggingface-hub", purpose="models on the hub", extra="hf") from error
    try:
        return Path(snapshot_download(source, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"{what}: there is no folder {source}, and the hub has none of that name ({first})") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return what a file of JSON holds.

    Raises:
        InputError: When it is not there, or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path} holds no object of JSON")
    return content


def _header(file: Path, what: str) -> dict[str, Any]:
    """Return names, types and shapes of the tensors of a file."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if size > file.stat().st_size:
                raise ValueError("it is cut off")
            content = json.loads(opened.read(size))
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {file} is no safetensors file: {error}") from error
    return {name: told for name, told in content.items() if name != "__metadata__"}
