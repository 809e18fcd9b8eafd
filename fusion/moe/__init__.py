"""Merging aligned models into one mixture of experts of a stock architecture (H3Fusion)."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.moe._assemble import merge, preflight
    from fusion.moe._card import Merged
    from fusion.moe._delta import DeltaExperts, DeltaMoeBlock, DeltaProjection, router_logits
    from fusion.moe._delta_model import delta_weights, from_dense, state_for_layout
    from fusion.moe._examples import TuneExample, read_examples
    from fusion.moe._layout import Finding, MoELayout
    from fusion.moe._recipe import ExpertSource, MoERecipe
    from fusion.moe._tune import Tuned, TuneOptions, tune

_HOMES = {
    "DeltaExperts": "fusion.moe._delta",
    "DeltaMoeBlock": "fusion.moe._delta",
    "DeltaProjection": "fusion.moe._delta",
    "ExpertSource": "fusion.moe._recipe",
    "Finding": "fusion.moe._layout",
    "Merged": "fusion.moe._card",
    "MoELayout": "fusion.moe._layout",
    "MoERecipe": "fusion.moe._recipe",
    "TuneExample": "fusion.moe._examples",
    "TuneOptions": "fusion.moe._tune",
    "Tuned": "fusion.moe._tune",
    "delta_weights": "fusion.moe._delta_model",
    "from_dense": "fusion.moe._delta_model",
    "merge": "fusion.moe._assemble",
    "preflight": "fusion.moe._assemble",
    "read_examples": "fusion.moe._examples",
    "router_logits": "fusion.moe._delta",
    "state_for_layout": "fusion.moe._delta_model",
    "tune": "fusion.moe._tune",
}

__all__ = [
    "DeltaExperts",
    "DeltaMoeBlock",
    "DeltaProjection",
    "ExpertSource",
    "Finding",
    "Merged",
    "MoELayout",
    "MoERecipe",
    "TuneExample",
    "TuneOptions",
    "Tuned",
    "delta_weights",
    "from_dense",
    "merge",
    "preflight",
    "read_examples",
    "router_logits",
    "state_for_layout",
    "tune",
]

__getattr__ = lazy(__name__, _HOMES)
