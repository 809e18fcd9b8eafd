"""Loaded models: which are in memory, which adapter is at work, and who goes when room is needed."""

import contextlib
import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_file

from fusion.agents._hf_library import AdapterCard, Card, Place, Settings, first_line, weight_files
from fusion.agents._hf_rows import Lent, lendable
from fusion.errors import EngineError

if TYPE_CHECKING:
    from peft import PeftModel

_Key = tuple[Place, Place | None, str, str, str]
"""A base, the adapter that has it for itself (None when it is shared), and device, number format and attention."""

_HARMLESS_INITS = (True, False, "gaussian")
"""Ways to begin a LoRA that leave the weights of the base alone; PiSSA, OLoRA and others change them on loading."""

_UNREADABLE = (OSError, ValueError, RuntimeError, ImportError, LookupError, TypeError, AttributeError, SafetensorError)
"""What transformers and peft raise on checkpoints that they cannot load."""


@dataclass
class _Loaded:
    lent: Lent
    peft: "PeftModel | None" = None
    adapters: dict[Place, str] = field(default_factory=dict)


class _Refusal(NamedTuple):
    why: str
    lasting: bool


class Store:
    """Keeps models in memory, the least recently used going first. For use by one thread."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[_Key, _Loaded] = OrderedDict()
        self._refused: dict[tuple[Place, Place], _Refusal] = {}

    def holds(self, card: Card) -> bool:
        """Return whether the model is in memory."""
        return any(key[0] == card.place for key in self._loaded)

    @contextlib.contextmanager
    def lend(self, card: Card, adapter: AdapterCard | None, settings: Settings) -> Iterator[Lent]:
        """Load what is not in memory yet, and lend the model with `adapter`, or with none, at work.

        Raises:
            EngineError: When the model or the adapter cannot be loaded, or the device is not there.
        """
        if adapter is not None and (refusal := self._refused.get((card.place, adapter.place))):
            raise _misfit(card, adapter, refusal.why)
        owner = adapter.place if adapter is not None and not _separable(adapter) else None
        key = (card.place, owner, settings.device, card.dtype(settings.dtype), settings.attn)
        loaded = self._base(card, key, settings)
        if adapter is None:
            with loaded.peft.disable_adapter() if loaded.peft is not None else contextlib.nullcontext():
                yield loaded.lent
        else:
            self._activate(loaded, card, adapter)
            yield loaded.lent

    @contextlib.contextmanager
    def threads(self, count: int | None) -> Iterator[None]:
        """Compute with so many threads; None for as many as there are now."""
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def clear(self) -> None:
        """Give all memory back."""
        self._refused.clear()
        if self._loaded:
            self._loaded.clear()
            release_memory()

    def _base(self, card: Card, key: _Key, settings: Settings) -> _Loaded:
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        while len(self._loaded) >= settings.max_models:
            self._loaded.popitem(last=False)
        release_memory()
        try:
            self._loaded[key] = _load(card, settings)
        except EngineError as error:
            if not self._loaded or error.__cause__ is None or not out_of_memory(error.__cause__):
                raise
        if key not in self._loaded:
            # Here, and not in the handler, where the exception still holds what was loaded of the model.
            self._loaded.clear()
            release_memory()
            self._loaded[key] = _load(card, settings)
        return self._loaded[key]

    def _activate(self, loaded: _Loaded, card: Card, adapter: AdapterCard) -> None:
        if adapter.place not in loaded.adapters and (refusal := _add_adapter(loaded, adapter)):
            # Half an adapter may be in the layers by now, so this base must not answer anything any more.
            self._loaded = OrderedDict((key, other) for key, other in self._loaded.items() if other is not loaded)
            if refusal.lasting:
                self._refused[card.place, adapter.place] = refusal
            raise _misfit(card, adapter, refusal.why)
        assert loaded.peft is not None
        loaded.peft.set_adapter(loaded.adapters[adapter.place], inference_mode=True)


def release_memory() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the accelerator when there is one.

    Raises:
        EngineError: When there is no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"device {name!r} is not one that torch knows: {first_line(error)}; try auto") from error
    if device.type != "cpu" and (found is None or device.type != found.type):
        raise EngineError(
            f"device {name!r} is not there: torch {torch.__version__} finds {found or 'no accelerator'}; use "
            "device: auto or cpu, or install a build of torch for your accelerator"
        )
    return device


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    # Untyped in transformers.
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _load(card: Card, settings: Settings) -> _Loaded:
    device, dtype = pick_device(settings.device), card.dtype(settings.dtype)
    load = cast("Callable[..., tuple[PreTrainedModel, dict[str, set[str]]]]", AutoModelForCausalLM.from_pretrained)
    try:
        with _no_progress_bars():
            model, told = load(
                card.place.source,
                revision=card.place.commit,
                dtype=getattr(torch, dtype),
                attn_implementation=None if settings.attn == "auto" else settings.attn,
                trust_remote_code=False,
                output_loading_info=True,
            )
        torch.nn.Module.to(model, device)
    except _UNREADABLE as error:
        raise EngineError(
            f"model {card.name!r} cannot be loaded from {card.place.source} as {dtype} on {device}: "
            f"{first_line(error)}. Is the download complete, is there memory for it (fusion doctor says how much it "
            "needs), and is it a causal language model?"
        ) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise EngineError(
            f"model {card.name!r} holds an adapter beside its weights; keep the two apart, and give it as the adapter"
        )
    absent = sorted(told["missing_keys"])
    if absent:
        raise EngineError(
            f"the checkpoint of model {card.name!r} lacks {len(absent)} of its weights ({', '.join(absent[:3])}, ...), "
            "which would be random; is it complete, and is it the checkpoint of a causal language model?"
        )
    model.train(False)
    pad = card.tokenizer.pad_token_id
    pad = next(iter(sorted(card.ends)), 0) if pad is None or pad >= (card.vocabulary or pad + 1) else pad
    # Sampling defaults that come with the checkpoint would change answers behind the request's back.
    model.generation_config = cast("Any", GenerationConfig)()
    return _Loaded(lendable(model, card.ends, pad))


def _separable(adapter: AdapterCard) -> bool:
    """Return whether a base stays as it was when the adapter is switched off.

    Adapters that bring biases, embeddings or whole layers write some of them into the base.
    """
    config = adapter.config
    if config.get("bias", "none") != "none" or config.get("layer_replication") or config.get("modules_to_save"):
        return False
    if config.get("init_lora_weights", True) not in _HARMLESS_INITS:
        return False
    names = adapter_shapes(adapter)
    return bool(names) and all(".lora_" in name for name in names)


def adapter_weights(adapter: AdapterCard) -> Path | None:
    """Return the file with the adapter's weights; None when there is none, or none that can be had."""
    if adapter.place.commit is None:
        return next(iter(weight_files(Path(adapter.place.source), "adapter")), None)
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        with contextlib.suppress(OSError):
            found = cached_file(adapter.place.source, name, revision=adapter.place.commit)
            if found:
                return Path(found)
    return None


def adapter_shapes(adapter: AdapterCard) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the adapter, reading no more than a header; empty for a pickle.

    Raises:
        EngineError: When there are no weights, or the file is damaged.
    """
    path = adapter_weights(adapter)
    if path is None:
        raise EngineError(f"adapter {adapter.name!r} has no weights in {adapter.place.source}; download it again")
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path} cannot be read: {first_line(error)}; download or save it again") from error


def _misfit(card: Card, adapter: AdapterCard, why: str) -> EngineError:
    return EngineError(
        f"adapter {adapter.name!r} cannot be loaded into model {card.name!r}: {why}. It was trained for "
        f"{adapter.config.get('base_model_name_or_path')!r}; run fusion doctor on the pool"
    )


def _add_adapter(loaded: _Loaded, adapter: AdapterCard) -> _Refusal | None:
    """Put an adapter beside those that are there; return what went wrong."""
    from peft import PeftConfig, PeftModel

    name = f"adapter_{len(loaded.adapters)}"
    device, source = str(loaded.lent.model.device), adapter.place.source
    try:
        config = PeftConfig.from_pretrained(source, revision=adapter.place.commit)
        config.inference_mode = True
        if loaded.peft is None:
            loaded.peft = PeftModel(loaded.lent.model, config, adapter_name=name)
        told = loaded.peft.load_adapter(source, name, torch_device=device, revision=adapter.place.commit)
    except _UNREADABLE as error:
        return _Refusal(first_line(error), lasting=not out_of_memory(error))
    if told.missing_keys or told.unexpected_keys:
        odd = [*told.missing_keys, *told.unexpected_keys]
        return _Refusal(f"{len(odd)} of its weights have no counterpart ({', '.join(odd[:3])})", lasting=True)
    loaded.peft.eval()
    loaded.adapters[adapter.place] = name
    return None
