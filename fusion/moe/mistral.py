"""Mistral becomes MixtralForCausalLM."""

from dataclasses import dataclass
from typing import ClassVar

from fusion.moe._mixtral import Mixtral


@dataclass(frozen=True)
class MistralToMixtral(Mixtral):
    """Mistral's attention is Mixtral's."""

    dense: ClassVar[str] = "mistral"


__all__ = ["MistralToMixtral"]
