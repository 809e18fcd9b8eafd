"""Llama becomes MixtralForCausalLM."""

from dataclasses import dataclass
from typing import ClassVar

from fusion.moe._mixtral import Mixtral


@dataclass(frozen=True)
class LlamaToMixtral(Mixtral):
    """Llama's attention is Mixtral's."""

    dense: ClassVar[str] = "llama"


__all__ = ["LlamaToMixtral"]
