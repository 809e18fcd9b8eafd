"""Models and adapters as far as they are known without their weights: where they are, and what they are."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from fusion.errors import EngineError, MissingDependency
from fusion.schema import Json, Request

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_CONTENT_HASHED_BYTES = 256 * 2**20
"""Up to this size, together, weight files are identified by their content; reading more would take too long."""
_DESCRIBING = {".json", ".jinja", ".model", ".txt", ".tiktoken"}
_SANE_LENGTH = 10**7
"""Tokenisers that know no limit claim one of up to 1e30."""


class Settings(NamedTuple):
    """How models are loaded and run; as the fields of the engine."""

    device: str
    dtype: Dtype
    batch_size: int
    max_models: int
    attn: str
    threads: int | None = None


class Place(NamedTuple):
    """Where a model or an adapter is, and which content that is.

    Attributes:
        source: Folder, or name on the hub.
        commit: Commit on the hub; None for a folder.
        fingerprint: The commit, or a SHA-256 over the folder's files.
        config: Path of its configuration file.
    """

    source: str
    commit: str | None
    fingerprint: str
    config: Path


@dataclass(kw_only=True)
class Card:
    """A model without its weights.

    Args:
        name: As the request gives it.
        place: Where it is.
        config: Its configuration.
        tokenizer: Its tokeniser; to be used under `lock` only, as it is not safe to share between threads.
        prefix: Tokens that the tokeniser puts before plain text (BOS), often none.
        ends: Tokens that end an answer.
    """

    name: str
    place: Place
    config: "PreTrainedConfig"
    tokenizer: "PreTrainedTokenizerBase"
    prefix: tuple[int, ...] = ()
    ends: frozenset[int] = frozenset()
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def text_config(self) -> "PreTrainedConfig":
        """The part of the configuration that describes the language model."""
        return self.config.get_text_config(decoder=True)

    @property
    def context(self) -> int | None:
        """Most tokens that prompt and answer may have together; None when there is no limit."""
        positions = getattr(self.text_config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:
            return positions
        claimed = self.tokenizer.model_max_length
        return int(claimed) if 0 < claimed < _SANE_LENGTH else None

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens that the model has embeddings for; None when the configuration does not say."""
        size = getattr(self.text_config, "vocab_size", None)
        return size if isinstance(size, int) else None

    def dtype(self, wanted: Dtype) -> str:
        """Return the name of the number format to compute in: `wanted`, or for "auto" that of the checkpoint."""
        if wanted != "auto":
            return wanted
        stored = self.config.dtype or getattr(self.text_config, "dtype", None)
        return str(stored).removeprefix("torch.") if stored else "float32"


class AdapterCard(NamedTuple):
    """An adapter without its weights.

    Attributes:
        name: As the request gives it.
        place: Where it is.
        config: Its configuration file, parsed.
    """

    name: str
    place: Place
    config: Mapping[str, Json]


class Library:
    """Looks models and adapters up, each once, until it is cleared; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cards: dict[tuple[str, str | None], Card] = {}
        self._adapters: dict[str, AdapterCard] = {}

    def card(self, request: Request) -> Card:
        """Return the model that `request` names.

        Raises:
            EngineError: When it, or its revision, cannot be found or read.
            MissingDependency: When transformers or torch is not installed.
        """
        key = (request.model, request.revision)
        with self._lock:
            if key not in self._cards:
                self._cards[key] = _read_card(*key)
            return self._cards[key]

    def adapter(self, request: Request) -> AdapterCard | None:
        """Return the adapter that `request` names; None when it names none.

        Raises:
            EngineError: When it cannot be found or read, or is no LoRA adapter.
            MissingDependency: When peft is not installed.
        """
        name = request.adapter
        if name is None:
            return None
        with self._lock:
            if name not in self._adapters:
                self._adapters[name] = _read_adapter(name)
            return self._adapters[name]

    def clear(self) -> None:
        """Forget everything, so that changed files are seen."""
        with self._lock:
            self._cards.clear()
            self._adapters.clear()


def require(*packages: str) -> None:
    """Check that the packages are installed.

    Raises:
        MissingDependency: When one is not.
    """
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, purpose="reading a model", extra="hf")


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0].strip()}" if said else type(error).__name__


def _read_card(name: str, revision: str | None) -> Card:
    require("torch", "transformers")
    from transformers import AutoConfig, AutoTokenizer

    place = _locate(name, revision, file="config.json", what="model")
    try:
        # Code that comes with a checkpoint is never run.
        config = AutoConfig.from_pretrained(place.source, revision=place.commit, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place.source, revision=place.commit, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise EngineError(
            f"the configuration or tokeniser of model {name!r} cannot be read from {place.source}: "
            f"{first_line(error)}. Is it a causal language model of a kind that transformers knows without code of "
            "the checkpoint's own, and is the download complete?"
        ) from error
    bare = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a").input_ids
    starts = (i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return Card(
        name=name,
        place=place,
        config=config,
        tokenizer=tokenizer,
        prefix=tuple(full[: next(starts, 0)]),
        ends=_ends(place, config, tokenizer),
    )


def _ends(place: Place, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the tokens that end an answer: those of the generation defaults, and the tokeniser's own."""
    from transformers import GenerationConfig

    try:
        defaults = GenerationConfig.from_pretrained(place.source, revision=place.commit or "main")
    except (OSError, ValueError):
        # Many checkpoints come without them, and their configuration says it.
        defaults = GenerationConfig.from_model_config(config)
    listed = defaults.eos_token_id
    several = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if isinstance(token, int))


def _read_adapter(name: str) -> AdapterCard:
    require("peft")
    place = _locate(name, None, file="adapter_config.json", what="adapter")
    try:
        config = json.loads(place.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{place.config} cannot be read: {first_line(error)}; save the adapter again") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise EngineError(
            f"adapter {name!r} must be a LoRA adapter, its peft_type is {kind!r}; merge it into its model"
        )
    return AdapterCard(name, place, config)


def _locate(name: str, revision: str | None, *, file: str, what: str) -> Place:
    if not name:
        raise EngineError(f"the agent needs a {what}: a folder, or a name on the hub such as Qwen/Qwen3-0.6B")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(folder, name, revision, file=file, what=what)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise EngineError(f"{what} {name!r} looks like a folder, and there is no folder {folder.absolute()}")
    return _on_hub(name, revision, file=file, what=what)


def check_unchanged(place: Place, what: str) -> None:
    """Check that a folder holds what it held when it was looked up.

    Args:
        place: Where a model or an adapter is.
        what: "model" or "adapter".

    Raises:
        EngineError: When it does not, so that its answers would be recorded under the wrong content.
    """
    if place.commit is not None:
        return
    now = _in_folder(Path(place.source), place.source, None, file=place.config.name, what=what)
    if now.fingerprint != place.fingerprint:
        raise EngineError(f"the files of the {what} in {place.source} changed since it was looked up; start again")


def _in_folder(folder: Path, name: str, revision: str | None, *, file: str, what: str) -> Place:
    if revision is not None:
        raise EngineError(f"{what} {name!r} is a folder, which has no revisions; leave revision {revision!r} out")
    config = folder / file
    present = [other for other in ("config.json", "adapter_config.json") if (folder / other).is_file()]
    if file not in present:
        raise EngineError(
            f"{what} {name!r}: the folder {folder.absolute()} must hold {file}, it holds "
            f"{' and '.join(present) or 'no model or adapter'}. A base goes into model, a LoRA adapter into adapter"
        )
    if what == "model" and len(present) > 1:
        # Transformers would load the adapter with the model, and so change the base for everybody.
        raise EngineError(
            f"model {name!r} has an adapter beside it in {folder.absolute()}; give each a folder of its own"
        )
    if not (weights := weight_files(folder, what)):
        raise EngineError(f"{what} {name!r}: {folder.absolute()} holds no weights (*.safetensors or *.bin)")
    return Place(str(folder.resolve()), None, _fingerprint(folder, weights), config)


def _on_hub(name: str, revision: str | None, *, file: str, what: str) -> Place:
    require("transformers")
    from huggingface_hub import constants
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        config = cached_file(name, file, revision=revision)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{what} {name!r}, revision {revision or 'main'}, was not found: there is no folder of that name in "
            f"{Path.cwd()}, and neither the hub's cache {constants.HF_HUB_CACHE} nor the hub has it with a {file} "
            f"({first_line(error)}). Check the name and the revision; log in for a gated one (hf auth login); for a "
            f"machine without a network download it first (hf download {name}) and set HF_HUB_OFFLINE=1"
        ) from error
    commit = extract_commit_hash(config, None)
    if config is None or commit is None:
        raise EngineError(f"{what} {name!r}: the hub's cache gave {config}, which is in no snapshot; download it again")
    return Place(name, commit, commit, Path(config))


def weight_files(folder: Path, what: str) -> list[Path]:
    """Return the files with the weights of a model or an adapter, sorted; pickles only where no safetensors are."""
    stem = "adapter_model" if what == "adapter" else "*"
    return sorted(folder.glob(f"{stem}.safetensors")) or sorted(folder.glob(f"{stem}.bin"))


def _fingerprint(folder: Path, weights: Iterable[Path]) -> str:
    weights = list(weights)
    small = sum(path.stat().st_size for path in weights) < _CONTENT_HASHED_BYTES
    described = sorted(path for path in folder.iterdir() if path.suffix in _DESCRIBING and path.is_file())
    total = hashlib.sha256()
    for path in (*described, *weights):
        told = path.stat()
        content = _digest(path) if small or path in described else str(told.st_mtime_ns)
        total.update(f"{path.name}\0{told.st_size}\0{content}\n".encode())
    return total.hexdigest()


def _digest(path: str | os.PathLike[str]) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
