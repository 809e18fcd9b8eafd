"""The base model and its experts, opened: which weights each expert has of its own."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fusion.discovery import build, names
from fusion.errors import InputError, MissingDependency
from fusion.moe._adapter import Adapter
from fusion.moe._checkpoint import ADAPTER_CONFIG, Checkpoint, located
from fusion.moe._layout import Finding, MoELayout, feed_forward
from fusion.moe._recipe import MoERecipe

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_SAME = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
)
"""Fields of a configuration without which no expert fits the base."""
_BEHAVIOUR = "rope_parameters", "rms_norm_eps", "sliding_window"
"""Fields that change what the same weights compute."""
_TAKEN = "vocab_size", "tie_word_embeddings", "max_position_embeddings"
"""Fields outside of the experts' blocks: the base's hold."""


class Expert(Protocol):
    """One expert, whatever it is given as."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Changes with its content."""
        ...

    def findings(self, base: "Base") -> Iterator[Finding]:
        """Yield what of it does not fit the base."""
        ...

    def touched(self) -> set[str]:
        """Return the weights of the base that it may have changed."""
        ...

    def weight(self, name: str, base: "torch.Tensor") -> "torch.Tensor":
        """Return its weight of that name, float32; `base` is the base's, which it may be."""
        ...


class Base(NamedTuple):
    """The dense model.

    Attributes:
        weights: Its checkpoint.
        config: Its configuration.
        layout: What it becomes.
    """

    weights: Checkpoint
    config: "PretrainedConfig"
    layout: MoELayout


class LoraExpert:
    """An expert that is given as an adapter.

    Args:
        name: What it is called.
        adapter: Its adapter.
    """

    def __init__(self, name: str, adapter: Adapter) -> None:
        self.name, self.adapter = name, adapter

    @property
    def fingerprint(self) -> str:
        """Changes with its content."""
        return self.adapter.fingerprint

    def findings(self, base: Base) -> Iterator[Finding]:
        """Yield weights that the base lacks, or has in another shape."""
        entries = base.weights.entries
        for name in self.adapter.names:
            wanted = self.adapter.shape(name)
            if name not in entries:
                yield Finding(name, f"{self.name} changes a weight that the base lacks", "not merged", "refused")
            elif entries[name].shape != wanted:
                shapes = f"{list(wanted)}, the base's is {list(entries[name].shape)}"
                yield Finding(name, f"{self.name} changes a weight of shape {shapes}", "not merged", "refused")
        told = self.adapter.config.get("base_model_name_or_path")
        if told and told not in (str(base.weights.folder), getattr(base.config, "_name_or_path", "")):
            yield Finding(
                f"expert {self.name}",
                f"trained on {told}",
                f"merged into {base.weights.folder}: see that they are the same",
            )
        if not any(map(feed_forward, self.adapter.names)):
            yield Finding(
                f"expert {self.name}", "changes no feed-forward block", "its experts are copies of the base's"
            )

    def touched(self) -> set[str]:
        """Return the weights that it changes."""
        return set(self.adapter.names)

    def weight(self, name: str, base: "torch.Tensor") -> "torch.Tensor":
        """Return the base's weight, and what the adapter adds to it."""
        whole = base.float()
        return whole + self.adapter.read(name).delta() if name in self.adapter.names else whole


class ModelExpert:
    """An expert that is given as a full model.

    Args:
        name: What it is called.
        weights: Its checkpoint.
        config: Its configuration.
    """

    def __init__(self, name: str, weights: Checkpoint, config: "PretrainedConfig") -> None:
        self.name, self.weights, self.config = name, weights, config

    @property
    def fingerprint(self) -> str:
        """Changes with its content."""
        return self.weights.fingerprint

    def findings(self, base: Base) -> Iterator[Finding]:
        """Yield fields and weights that are not like the base's."""
        for field in (*_SAME, *_BEHAVIOUR, *_TAKEN):
            own, others = getattr(self.config, field, None), getattr(base.config, field, None)
            if own == others:
                continue
            what = f"{self.name} has {own!r}, the base {others!r}"
            if field in _TAKEN:
                yield Finding(field, what, "the base's holds", "settled")
            else:
                yield Finding(field, what, "not merged: the expert computes something else with it", "refused")
        for name, entry in base.weights.entries.items():
            if feed_forward(name) is None:
                continue
            own_entry = self.weights.entries.get(name)
            if own_entry is None or own_entry.shape != entry.shape:
                found = "lacks it" if own_entry is None else f"has it as {list(own_entry.shape)}"
                yield Finding(name, f"{self.name} {found}, the base's is {list(entry.shape)}", "not merged", "refused")

    def touched(self) -> set[str]:
        """Return all weights that it has."""
        return set(self.weights.entries)

    def weight(self, name: str, base: "torch.Tensor") -> "torch.Tensor":
        """Return its own weight; the base's where it has none of that shape."""
        entry = self.weights.entries.get(name)
        if entry is None or entry.shape != tuple(base.shape):
            return base.float()
        return self.weights.read(name).float()


def open_base(recipe: MoERecipe) -> Base:
    """Open the base model of a recipe.

    Raises:
        InputError: When it cannot be found or read, or no layout is for it.
        MissingDependency: When transformers is not installed.
    """
    weights = Checkpoint(located(recipe.base_model, "base_model"), "base_model")
    config = _config(weights)
    layouts = [layout for name in names("moe") if isinstance(layout := build("moe", name), MoELayout)]
    fitting = [layout for layout in layouts if layout.dense == config.model_type]
    if not fitting:
        known = ", ".join(sorted(layout.dense for layout in layouts))
        raise InputError(
            f"base_model {recipe.base_model} is a {config.model_type}; no stock mixture of experts has its attention. "
            f"Known are {known}"
        )
    return Base(weights, config, fitting[0])


def open_experts(recipe: MoERecipe) -> list[Expert]:
    """Open the experts of a recipe, in its order.

    Raises:
        InputError: When one cannot be found or read.
    """
    found: list[Expert] = []
    for source in recipe.experts:
        what = f"expert {source.called}"
        folder = located(source.source_model, what)
        if (folder / ADAPTER_CONFIG).exists():
            found.append(LoraExpert(source.called, Adapter(folder, what)))
        else:
            weights = Checkpoint(folder, what)
            found.append(ModelExpert(source.called, weights, _config(weights)))
    return found


def _config(weights: Checkpoint) -> "PretrainedConfig":
    try:
        from transformers import AutoConfig
    except ModuleNotFoundError as error:
        raise MissingDependency("transformers", purpose="merging models", extra="hf") from error
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(weights.folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{weights.what}: transformers cannot read {weights.folder}/config.json: {error}") from error
    return config
