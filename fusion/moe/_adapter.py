"""LoRA adapters, as PEFT writes them: what they add to which weights of the base model."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import InputError
from fusion.moe._checkpoint import ADAPTER_CONFIG, Checkpoint, read_json

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "modules_to_save": ((), [], None),
    "trainable_token_indices": ([], {}, None),
}
"""Settings of PEFT that add something else than a product of two matrices, and the values with which they do not."""


class LowRank(NamedTuple):
    """What an adapter adds to one weight: scale up @ down.

    Attributes:
        down: float [r, in], PEFT's lora_A.
        up: float [out, r], PEFT's lora_B.
        scale: alpha / r, or alpha / sqrt(r) where the adapter is rank-stabilised.
    """

    down: "torch.Tensor"
    up: "torch.Tensor"
    scale: float

    def delta(self) -> "torch.Tensor":
        """Return what is added, float32 [out, in]."""
        return self.scale * (self.up.float() @ self.down.float())


class Adapter:
    """A folder with a LoRA adapter.

    Args:
        folder: Where it is.
        what: What it is, for messages.

    Raises:
        InputError: When it is no LoRA adapter, does more than add a product of two matrices, or is damaged.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder, self.what = folder, what
        self.config = read_json(folder / ADAPTER_CONFIG, what)
        self._weights = Checkpoint(folder, what)
        if self.config.get("peft_type") != "LORA":
            raise InputError(f"{what} ({folder}) is a {self.config.get('peft_type')} adapter; experts are made of LORA")
        wrong = [
            f"{key}={self.config[key]!r}"
            for key, fine in _REFUSED.items()
            if key in self.config and self.config[key] not in fine
        ]
        if wrong:
            raise InputError(
                f"{what} ({folder}) adds more than a product of two matrices: {', '.join(wrong)}; merge it into its "
                "base with PEFT (merge_and_unload), and give the full model as the expert"
            )

    @cached_property
    def names(self) -> dict[str, tuple[str, str]]:
        """The weights of the base that it changes, and the names of its two matrices for each, down then up."""
        halves: dict[str, dict[str, str]] = {}
        for name in self._weights.entries:
            matched = re.fullmatch(r"(.+)\.lora_(A|B)\.weight", name)
            if matched is None:
                raise InputError(
                    f"{self.what} ({self.folder}) has a tensor {name}, which is not of LoRA on linear layers"
                )
            halves.setdefault(f"{matched[1].removeprefix(_PREFIX)}.weight", {})[matched[2]] = name
        alone = [name for name, pair in halves.items() if len(pair) < 2]
        if alone:
            raise InputError(f"{self.what} ({self.folder}) has only one of the two matrices for {', '.join(alone[:3])}")
        return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of the weight of the base that it wants to change."""
        down, up = (self._weights.entries[half].shape for half in self.names[name])
        return up[0], down[1]

    def read(self, name: str) -> LowRank:
        """Return what it adds to a weight of the base."""
        down, up = (self._weights.read(half) for half in self.names[name])
        rank, alpha = down.shape[0], self._alpha(name)
        return LowRank(down, up, alpha / (rank**0.5 if self.config.get("use_rslora") else rank))

    @property
    def fingerprint(self) -> str:
        """Changes with its weights and its configuration."""
        return f"{self._weights.fingerprint} {sorted(self.config.items(), key=str)}"

    def _alpha(self, name: str) -> float:
        """Return alpha for a weight; PEFT lets a pattern for the end of a module's name give another."""
        module = name.removesuffix(".weight")
        patterns: dict[str, Any] = self.config.get("alpha_pattern") or {}
        for pattern, alpha in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(alpha)
        return float(self.config["lora_alpha"])
