"""Qwen3 becomes Qwen3MoeForCausalLM."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fusion.moe._layout import Finding, kept, only_silu, switched_off

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Qwen3ToQwen3Moe:
    """Qwen3's attention, with its norms of queries and keys, is Qwen3Moe's."""

    dense: ClassVar[str] = "qwen3"
    sparse: ClassVar[str] = "Qwen3MoeForCausalLM"

    def unfit(self, config: "PretrainedConfig") -> Iterator[Finding]:
        """Yield what Qwen3Moe cannot express."""
        yield from switched_off(config, {"use_sliding_window": "some layers attend to a window only"})
        yield from only_silu(config)

    def config(self, config: "PretrainedConfig", *, num_experts: int, top_k: int) -> "PretrainedConfig":
        """Return the configuration of the merged model."""
        from transformers import Qwen3MoeConfig

        # There is no window, and so no layers of two kinds.
        fields = kept(config, "layer_types", "max_window_layers", "sliding_window")
        merged = Qwen3MoeConfig(
            **fields,
            num_experts=num_experts,
            num_experts_per_tok=top_k,
            moe_intermediate_size=config.intermediate_size,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        )
        merged.architectures = [self.sparse]
        return merged

    def gate(self, layer: int) -> str:
        """Return the name of a layer's gate."""
        return f"model.layers.{layer}.mlp.gate.weight"

    def expert(self, layer: int, expert: int, projection: str) -> str:
        """Return the name of one expert's matrix."""
        return f"model.layers.{layer}.mlp.experts.{expert}.{projection}.weight"


__all__ = ["Qwen3ToQwen3Moe"]
