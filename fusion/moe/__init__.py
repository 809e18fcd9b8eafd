"""Merging aligned models into one mixture of experts of a stock architecture (H3Fusion)."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.moe._assemble import merge, preflight
    from fusion.moe._card import Merged
    from fusion.moe._layout import Finding, MoELayout
    from fusion.moe._recipe import ExpertSource, MoERecipe

_HOMES = {
    "ExpertSource": "fusion.moe._recipe",
    "Finding": "fusion.moe._layout",
    "Merged": "fusion.moe._card",
    "MoELayout": "fusion.moe._layout",
    "MoERecipe": "fusion.moe._recipe",
    "merge": "fusion.moe._assemble",
    "preflight": "fusion.moe._assemble",
}

__all__ = ["ExpertSource", "Finding", "Merged", "MoELayout", "MoERecipe", "merge", "preflight"]

__getattr__ = lazy(__name__, _HOMES)
