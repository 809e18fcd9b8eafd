"""Policies that decide whom to ask: the worlds that they act in, and how they are learned."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.policies._beliefs import Beliefs, fit_beliefs
    from fusion.policies._ppo import Layers, PpoOptions, play_out, train_policy
    from fusion.policies._world import State, Views, World

_HOMES = {
    "Beliefs": "fusion.policies._beliefs",
    "Layers": "fusion.policies._ppo",
    "PpoOptions": "fusion.policies._ppo",
    "State": "fusion.policies._world",
    "Views": "fusion.policies._world",
    "World": "fusion.policies._world",
    "fit_beliefs": "fusion.policies._beliefs",
    "play_out": "fusion.policies._ppo",
    "train_policy": "fusion.policies._ppo",
}

__all__ = [
    "Beliefs",
    "Layers",
    "PpoOptions",
    "State",
    "Views",
    "World",
    "fit_beliefs",
    "play_out",
    "train_policy",
]

__getattr__ = lazy(__name__, _HOMES)
