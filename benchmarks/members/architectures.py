"""Stock architectures of the members, and the exact way from a trunk's weights to a relative's.

Llama, Mistral, Seed-OSS, Granite and Phi3 compute the same function where biases are zero, multipliers one and windows
wide. The trunk is a Llama; its weights are renamed or joined for its relatives, and grown or cut for other sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    SeedOssConfig,
    SeedOssForCausalLM,
)

from benchmarks.members.tokenizer import CONTEXT

INITIAL_SCALE = 0.08
"""Standard deviation of fresh weights; the usual 0.02 learns much later at widths below 100."""


@dataclass(frozen=True)
class Size:
    """Width, layers, heads and width within the feed-forward part."""

    hidden: int
    layers: int
    heads: int
    inner: int


def resized(weights: Mapping[str, torch.Tensor], old: Size, new: Size, vocabulary: int) -> dict[str, torch.Tensor]:
    """Return a Llama's weights at another depth or inner width.

    More of either leaves the function as it is: what is new is random and read with weight zero. Less inner width keeps
    the units with the largest weights.
    """
    told = build("llama", new, vocabulary).state_dict()
    for name, value in told.items():
        grown = int(name.split(".")[2]) >= old.layers if ".layers." in name else False
        if grown:
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                value.zero_()
            continue
        before = weights[name]
        if ".mlp." not in name or old.inner == new.inner:
            value.copy_(before)
            continue
        down = weights[name.rpartition("mlp.")[0] + "mlp.down_proj.weight"]
        kept = down.norm(dim=0).topk(min(old.inner, new.inner)).indices.sort().values
        if name.endswith("down_proj.weight"):
            value.zero_()
            value[:, : len(kept)] = before[:, kept]
        else:
            value[: len(kept)] = before[kept]
    return told


def build(architecture: str, size: Size, vocabulary: int) -> PreTrainedModel:
    """Return a fresh model of "llama", "mistral", "seed-oss", "granite" or "phi3"; token 0 ends and pads."""
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner,
        "max_position_embeddings": CONTEXT,
        "num_key_value_heads": size.heads,
        "rms_norm_eps": 1e-6,
        "initializer_range": INITIAL_SCALE,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    match architecture:
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**common))  # type: ignore[no-untyped-call]
        case "mistral":
            return MistralForCausalLM(MistralConfig(sliding_window=None, **common))  # type: ignore[no-untyped-call]
        case "seed-oss":
            head = size.hidden // size.heads
            rest: dict[str, Any] = {"head_dim": head, "attention_dropout": 0.0, "residual_dropout": 0.0}
            return SeedOssForCausalLM(SeedOssConfig(**rest, **common))  # type: ignore[no-untyped-call]
        case "granite":
            head = size.hidden // size.heads
            return GraniteForCausalLM(GraniteConfig(attention_multiplier=head**-0.5, **common))  # type: ignore[no-untyped-call]
    assert architecture == "phi3", f"no architecture {architecture!r} here"
    return Phi3ForCausalLM(Phi3Config(original_max_position_embeddings=CONTEXT, **common))  # type: ignore[no-untyped-call]


def converted(weights: Mapping[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """Return a trunk's weights under the names, and in the shapes, of `architecture`."""
    if architecture == "seed-oss":
        biases = {
            name.replace("weight", "bias"): torch.zeros(value.shape[0])
            for name, value in weights.items()
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
        }
        return {**weights, **biases}
    if architecture != "phi3":
        return dict(weights)
    told: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if name.endswith("q_proj.weight"):
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            told[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        elif name.endswith("gate_proj.weight"):
            told[name.replace("gate_proj", "gate_up_proj")] = torch.cat([value, weights[name.replace("gate", "up")]])
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            told[name] = value
    return told
