"""Policies that decide whom to ask: the worlds that they act in, and how they are learned."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.policies._beliefs import Beliefs, Views, advantages, rewarded
    from fusion.policies._focal_game import focal_game
    from fusion.policies._paper import (
        Aggregator,
        AggregatorOptions,
        Decider,
        DeciderOptions,
        play_stream,
        train_aggregator,
        train_decider,
    )
    from fusion.policies._ppo import Layers, PpoOptions, play_out, train_policy
    from fusion.policies._run import TrainingRun
    from fusion.policies._stopping import Courses, Stopping, mean_tokens, play, stop_when
    from fusion.policies._streams import Order, Streams, opinions
    from fusion.policies._window import DiversityWeights, Recorded, Window
    from fusion.policies._world import State, World
    from fusion.policies.environments import AggregatorEnv, AskingEnv, DeciderEnv, DeciderVectorEnv

_HOMES = {
    "Aggregator": "fusion.policies._paper",
    "AggregatorEnv": "fusion.policies.environments",
    "AggregatorOptions": "fusion.policies._paper",
    "AskingEnv": "fusion.policies.environments",
    "Beliefs": "fusion.policies._beliefs",
    "TrainingRun": "fusion.policies._run",
    "Courses": "fusion.policies._stopping",
    "Decider": "fusion.policies._paper",
    "DeciderEnv": "fusion.policies.environments",
    "DeciderOptions": "fusion.policies._paper",
    "DeciderVectorEnv": "fusion.policies.environments",
    "DiversityWeights": "fusion.policies._window",
    "Layers": "fusion.policies._ppo",
    "Order": "fusion.policies._streams",
    "PpoOptions": "fusion.policies._ppo",
    "Recorded": "fusion.policies._window",
    "State": "fusion.policies._world",
    "Stopping": "fusion.policies._stopping",
    "Streams": "fusion.policies._streams",
    "Views": "fusion.policies._beliefs",
    "Window": "fusion.policies._window",
    "World": "fusion.policies._world",
    "advantages": "fusion.policies._beliefs",
    "focal_game": "fusion.policies._focal_game",
    "opinions": "fusion.policies._streams",
    "mean_tokens": "fusion.policies._stopping",
    "play": "fusion.policies._stopping",
    "play_out": "fusion.policies._ppo",
    "play_stream": "fusion.policies._paper",
    "rewarded": "fusion.policies._beliefs",
    "stop_when": "fusion.policies._stopping",
    "train_aggregator": "fusion.policies._paper",
    "train_decider": "fusion.policies._paper",
    "train_policy": "fusion.policies._ppo",
}

__all__ = [
    "Aggregator",
    "AggregatorEnv",
    "AggregatorOptions",
    "AskingEnv",
    "Beliefs",
    "Courses",
    "Decider",
    "DeciderEnv",
    "DeciderOptions",
    "DeciderVectorEnv",
    "DiversityWeights",
    "Layers",
    "Order",
    "PpoOptions",
    "Recorded",
    "State",
    "Stopping",
    "Streams",
    "TrainingRun",
    "Views",
    "Window",
    "World",
    "advantages",
    "focal_game",
    "mean_tokens",
    "opinions",
    "play",
    "play_out",
    "play_stream",
    "rewarded",
    "stop_when",
    "train_aggregator",
    "train_decider",
    "train_policy",
]

__getattr__ = lazy(__name__, _HOMES)
