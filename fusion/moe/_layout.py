"""How a dense architecture becomes a sparse one: names of tensors, configuration, and what cannot be expressed."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PROJECTIONS = "gate_proj", "up_proj", "down_proj"
"""The three matrices of a gated feed-forward block, as Llama and those after it call them."""
_FEED_FORWARD = re.compile(r"model\.layers\.(\d+)\.mlp\.(gate_proj|up_proj|down_proj)\.weight")


class Finding(NamedTuple):
    """Something that does not fit, or is worth knowing.

    Attributes:
        where: The field or the tensors.
        what: What was found.
        done: What was done about it, or is to be done by who is refused.
        kind: "refused" where it cannot be merged.
    """

    where: str
    what: str
    done: str
    kind: Literal["refused", "settled", "note"] = "note"


class FeedForward(NamedTuple):
    """One matrix of a feed-forward block.

    Attributes:
        layer: From 0.
        projection: One of `PROJECTIONS`.
    """

    layer: int
    projection: str


def feed_forward(name: str) -> FeedForward | None:
    """Return which matrix of a feed-forward block a tensor of the dense model is; None for all others."""
    matched = _FEED_FORWARD.fullmatch(name)
    return FeedForward(int(matched[1]), matched[2]) if matched else None


@runtime_checkable
class MoELayout(Protocol):
    """A dense architecture, and the stock sparse one whose attention is the same."""

    dense: ClassVar[str]
    """`model_type` of the dense model."""
    sparse: ClassVar[str]
    """The class of transformers and of vLLM that the merged checkpoint is loaded by."""

    def unfit(self, config: "PretrainedConfig") -> Iterator[Finding]:
        """Yield what of a dense model's configuration the sparse architecture cannot express, or does otherwise."""
        ...

    def config(self, config: "PretrainedConfig", *, num_experts: int, top_k: int) -> "PretrainedConfig":
        """Return the configuration of the merged model."""
        ...

    def gate(self, layer: int) -> str:
        """Return the name of a layer's gate, [E, D]."""
        ...

    def expert(self, layer: int, expert: int, projection: str) -> str:
        """Return the name of one expert's matrix."""
        ...


def kept(config: "PretrainedConfig", *dropped: str) -> dict[str, Any]:
    """Return the fields of a configuration that another architecture takes over."""
    fields: dict[str, Any] = config.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "_name_or_path", *dropped):
        fields.pop(name, None)
    return fields


def switched_off(config: "PretrainedConfig", names: dict[str, str]) -> Iterator[Finding]:
    """Yield a refusal for each of some fields, by name and what it means, that is set."""
    for name, meaning in names.items():
        value = getattr(config, name, None)
        if value:
            yield Finding(name, f"{name}={value!r}: {meaning}", "no stock architecture has it; not merged", "refused")


def only_silu(config: "PretrainedConfig") -> Iterator[Finding]:
    """Yield a refusal where the activation is another than that of the sparse kernels."""
    if config.hidden_act != "silu":
        yield Finding(
            "hidden_act",
            f"the activation is {config.hidden_act}",
            "the sparse kernels have silu; not merged",
            "refused",
        )
