"""Policies that decide whom to ask: the worlds that they act in, and how they are learned."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.policies._beliefs import Beliefs, Views
    from fusion.policies._ppo import Layers, PpoOptions, play_out, train_policy
    from fusion.policies._stopping import Courses, Stopping, play, stop_when
    from fusion.policies._world import State, World

_HOMES = {
    "Beliefs": "fusion.policies._beliefs",
    "Courses": "fusion.policies._stopping",
    "Layers": "fusion.policies._ppo",
    "PpoOptions": "fusion.policies._ppo",
    "Stopping": "fusion.policies._stopping",
    "State": "fusion.policies._world",
    "Views": "fusion.policies._beliefs",
    "World": "fusion.policies._world",
    "play": "fusion.policies._stopping",
    "play_out": "fusion.policies._ppo",
    "stop_when": "fusion.policies._stopping",
    "train_policy": "fusion.policies._ppo",
}

__all__ = [
    "Beliefs",
    "Courses",
    "Layers",
    "PpoOptions",
    "State",
    "Stopping",
    "Views",
    "World",
    "play",
    "play_out",
    "stop_when",
    "train_policy",
]

__getattr__ = lazy(__name__, _HOMES)
