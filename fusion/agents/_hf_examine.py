"""What would go wrong with a model, an adapter and a prompt, and how much memory they need; no weights are loaded."""

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from fusion.agents._hf_library import AdapterCard, Card, Library, Place, Settings, first_line
from fusion.agents._hf_prompt import Encoded, encode, render, template_of
from fusion.errors import ConfigError, EngineError, FusionError
from fusion.schema import Finding, Request

_INSTRUCT_NAME = re.compile(r"instruct|chat|-it\b", re.IGNORECASE)
_ROLE_TOKEN = re.compile(
    r"im_start|start_of_turn|start_header_id|\[/?INST\]|<\|(user|assistant|system)\|>|<end_of_turn>"
)
_GIB = 2**30


class Size(NamedTuple):
    """Bytes that answering takes.

    Attributes:
        weights: Of the model and the adapter.
        cache: Keys and values of a full batch.
    """

    weights: int
    cache: int


class Outline(NamedTuple):
    """A model's weights without their values.

    Attributes:
        shapes: Shape of every weight by name; tied ones under each of their names.
        num_weights: How many numbers they are, tied ones counted once.
    """

    shapes: Mapping[str, tuple[int, ...]]
    num_weights: int


class Scales:
    """Sizes models by building them without memory; remembers what it found."""

    def __init__(self) -> None:
        self._outlines: dict[Place, Outline] = {}

    def outline(self, card: Card) -> Outline:
        """Return the weights of a model.

        Raises:
            EngineError: When transformers has no causal language model of that configuration.
        """
        if card.place not in self._outlines:
            self._outlines[card.place] = _outline(card)
        return self._outlines[card.place]

    def size(
        self, card: Card, adapter: AdapterCard | None, encoded: Encoded | None, request: Request, settings: Settings
    ) -> Size:
        """Return what answering `request` in full batches takes; a prompt that cannot be encoded counts nothing.

        Raises:
            EngineError: When transformers has no causal language model of that configuration.
        """
        width = 4 if card.dtype(settings.dtype) == "float32" else 2
        num_tokens = request.max_tokens
        if encoded:
            longest = max((len(tokens) for tokens in encoded.continuations), default=request.max_tokens)
            num_tokens = len(encoded.prompt) + longest
        num_tokens = min(num_tokens, card.context or num_tokens)
        return Size(
            weights=self.outline(card).num_weights * width + (_adapter_bytes(adapter) if adapter else 0),
            cache=settings.batch_size * num_tokens * _cached_per_token(card) * width,
        )


def findings(
    library: Library, scales: Scales, request: Request, settings: Settings, *, loaded: bool
) -> Iterator[Finding]:
    """Yield what is wrong with requests like this one.

    Args:
        library: Where models are looked up.
        scales: Where their sizes are.
        request: An example.
        settings: How models are loaded.
        loaded: Whether the model is in memory already.
    """
    yield from about_model(library, scales, request)
    try:
        card, adapter = library.card(request), library.adapter(request)
    except FusionError:
        return
    if not loaded:
        try:
            encoded = encode(card, request)
        except FusionError:
            encoded = None
        yield from _about_memory(card, adapter, encoded, scales, request, settings)


def about_model(library: Library, scales: Scales, request: Request) -> Iterator[Finding]:
    """Yield what is wrong with model, adapter, template or length of requests like this one, wherever it is loaded."""
    try:
        card, adapter = library.card(request), library.adapter(request)
    except FusionError as error:
        yield Finding("error", str(error))
        return
    yield from _about_vocabulary(card)
    yield from _about_template(card, request)
    try:
        encoded = encode(card, request)
    except ConfigError as error:
        yield Finding("error", str(error), "mend extra in the pool file")
    except EngineError as error:
        yield Finding("error", str(error), "change the template or the questions")
    else:
        yield from _about_length(card, request, encoded)
    if adapter is not None:
        yield from _about_adapter(card, adapter, scales)


def _about_vocabulary(card: Card) -> Iterator[Finding]:
    known, given = card.vocabulary, len(card.tokenizer)
    if known is not None and given > known:
        yield Finding(
            "error",
            f"the tokeniser of model {card.name!r} has {given} tokens, the model {known}",
            "use the tokeniser that the model was trained with, or resize the model's embeddings and save it",
        )


def _about_template(card: Card, request: Request) -> Iterator[Finding]:
    try:
        template = template_of(card, request)
    except EngineError:
        return
    if template is None:
        special = [str(token) for token in card.tokenizer.get_added_vocab()]
        roles = [token for token in special if _ROLE_TOKEN.search(token)]
        if _INSTRUCT_NAME.search(Path(card.name).name) or roles:
            chosen = request.template == ""
            yield Finding(
                "note" if chosen else "warning",
                f"model {card.name!r} seems to be trained for chats ({', '.join(roles[:3]) or 'by its name'}) and is "
                f"asked in plain text{', as its template is empty' if chosen else ', as it has no chat template'}",
                "give the agent the model's chat template, as Jinja text",
            )
        return
    bos = card.tokenizer.bos_token
    try:
        text = render(card, request).text
    except FusionError:
        return
    if card.prefix and isinstance(bos, str) and not text.startswith(bos):
        yield Finding(
            "note",
            f"the chat template of model {card.name!r} does not begin with {bos}, which its tokeniser puts before text",
            "if the model expects it, begin the template with {{ bos_token }}",
        )


def _about_length(card: Card, request: Request, encoded: Encoded) -> Iterator[Finding]:
    if card.context is None:
        return
    prompt = len(encoded.prompt)
    ahead = max((len(tokens) - 1 for tokens in encoded.continuations), default=1)
    if prompt + ahead > card.context:
        yield Finding(
            "error",
            f"the prompt has {prompt} tokens, the context of model {card.name!r} {card.context}",
            "put fewer examples in the prompt, or choose a model with a longer context",
        )
    elif not encoded.continuations and prompt + request.max_tokens > card.context:
        yield Finding(
            "warning",
            f"the prompt has {prompt} tokens, which leaves {card.context - prompt} of the {request.max_tokens} of an "
            f"answer in the context of model {card.name!r}",
            "lower max_tokens, or put fewer examples in the prompt",
        )


def _about_adapter(card: Card, adapter: AdapterCard, scales: Scales) -> Iterator[Finding]:
    from fusion.agents._hf_store import adapter_shapes

    trained_for = str(adapter.config.get("base_model_name_or_path") or "")
    # The folder of a model in the hub's cache is .../models--org--name/snapshots/COMMIT.
    if Path(trained_for).name.casefold() not in re.split(r"/|\\|--", card.place.source.casefold()):
        yield Finding(
            "warning",
            f"adapter {adapter.name!r} was trained for {trained_for!r} and is used on {card.name!r}",
            "use it on the model that it was trained for",
        )
    try:
        wanted, given = adapter_shapes(adapter), scales.outline(card).shapes
    except EngineError as error:
        yield Finding("error", str(error), "save the adapter again with save_pretrained")
        return
    misfits = list(_misfits(wanted, given))
    if misfits:
        yield Finding(
            "error",
            f"adapter {adapter.name!r} does not fit model {card.name!r}: {'; '.join(misfits[:3])}"
            + (f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""),
            f"use it on the model that it was trained for, {trained_for!r}",
        )


def _misfits(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield where LoRA factors, A [r, in] and B [out, r], have no layer [out, in], or one of other sizes."""
    for name, shape in wanted.items():
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])(?:\.\w+)?\.weight", name)
        if found is None or len(shape) != 2:
            continue
        layer, factor = found.groups()
        weight = given.get(f"{layer}.weight")
        if weight is None:
            yield f"the model has no layer {layer}"
        # Some models store [in, out], so either of the two sizes will do.
        elif (shape[1] if factor == "A" else shape[0]) not in weight:
            yield f"layer {layer} is {' x '.join(map(str, weight))} and its factor {factor} {shape[0]} x {shape[1]}"


def _about_memory(
    card: Card,
    adapter: AdapterCard | None,
    encoded: Encoded | None,
    scales: Scales,
    request: Request,
    settings: Settings,
) -> Iterator[Finding]:
    from fusion.agents._hf_store import pick_device

    try:
        size = scales.size(card, adapter, encoded, request, settings)
        device = pick_device(settings.device)
    except EngineError as error:
        yield Finding("error", str(error), "choose another model or device")
        return
    free, total = memory(device.type)
    needed = size.weights + size.cache
    if needed > free:
        yield Finding(
            "error" if size.weights > total else "warning",
            f"model {card.name!r} needs about {needed / _GIB:.1f} GiB ({size.weights / _GIB:.1f} for weights in "
            f"{card.dtype(settings.dtype)}, {size.cache / _GIB:.1f} for {settings.batch_size} answers at a time); "
            f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB are free on {device}",
            "lower batch_size or max_tokens, choose dtype: bfloat16 or a smaller model",
        )


def memory(device: str) -> tuple[int, int]:
    """Return bytes free and bytes in all on a device; limits of a container count."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return int(free), int(total)
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    try:
        # What the cache of the disk holds is free for the asking, and the system's count above leaves it out.
        told = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        free = int(told.group(1)) * 1024 if told else free
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return free, total
    if limit.isdigit() and used.isdigit():
        total, free = min(total, int(limit)), min(free, max(int(limit) - int(used), 0))
    return free, total


def _outline(card: Card) -> Outline:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            build = cast("Callable[..., torch.nn.Module]", AutoModelForCausalLM.from_config)
            model = build(copy.deepcopy(card.config), trust_remote_code=False)
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError) as error:
        raise EngineError(
            f"model {card.name!r} is none that transformers knows as a causal language model: {first_line(error)}; "
            "choose another, or serve it and ask it through its server"
        ) from error
    named = model.named_parameters(remove_duplicate=False)
    return Outline(
        {name: tuple(weight.shape) for name, weight in named}, sum(weight.numel() for weight in model.parameters())
    )


def _cached_per_token(card: Card) -> int:
    """Return how many numbers are kept of every token: keys and values of every layer, 0 when there is no telling."""
    config = card.text_config
    heads = getattr(config, "num_attention_heads", 0) or 0
    width = getattr(config, "head_dim", None) or (getattr(config, "hidden_size", 0) // heads if heads else 0)
    groups = getattr(config, "num_key_value_heads", None) or heads
    return 2 * int(getattr(config, "num_hidden_layers", 0) or 0) * int(groups) * int(width)


def _adapter_bytes(adapter: AdapterCard) -> int:
    from fusion.agents._hf_store import adapter_weights

    path = adapter_weights(adapter)
    return path.stat().st_size if path else 0
