"""What becomes a Mixtral: attention without biases, and feed-forward blocks with silu."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from fusion.moe._layout import Finding, kept, only_silu, switched_off

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LETTERS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


class Mixtral:
    """Names and configuration of MixtralForCausalLM."""

    sparse: ClassVar[str] = "MixtralForCausalLM"

    def unfit(self, config: "PretrainedConfig") -> Iterator[Finding]:
        """Yield what Mixtral cannot express."""
        biases = {"attention_bias": "attention has biases", "mlp_bias": "the feed-forward blocks have biases"}
        yield from switched_off(config, biases)
        yield from only_silu(config)

    def config(self, config: "PretrainedConfig", *, num_experts: int, top_k: int) -> "PretrainedConfig":
        """Return the configuration of the merged model."""
        from transformers import MixtralConfig

        fields = kept(config, "attention_bias", "mlp_bias", "pretraining_tp")
        fields.setdefault("sliding_window", None)
        merged = MixtralConfig(**fields, num_local_experts=num_experts, num_experts_per_tok=top_k)
        merged.architectures = [self.sparse]
        return merged

    def gate(self, layer: int) -> str:
        """Return the name of a layer's gate."""
        return f"model.layers.{layer}.block_sparse_moe.gate.weight"

    def expert(self, layer: int, expert: int, projection: str) -> str:
        """Return the name of one expert's matrix."""
        return f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{_LETTERS[projection]}.weight"
