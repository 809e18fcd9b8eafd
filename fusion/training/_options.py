"""How to train, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Told = Callable[[str, int, int], None]
"""Told what is done, how many steps are done and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """How to train.

    Args:
        epochs: Passes over the examples, at most.
        learning_rate: The highest; it rises over the warm-up and falls as a cosine to 0.
        batch_size: Examples a step, on every device.
        accumulate: Batches whose gradients are added up before the weights change.
        warmup: Share of the steps over which the learning rate rises.
        weight_decay: Of AdamW.
        evaluations: How often an epoch the loss on the held-out examples is measured, and a checkpoint written.
        patience: Evaluations without a lower loss after which training ends; the weights of the best are kept.
        precision: "auto" takes bfloat16 where a GPU has it, else float32.
        gradient_checkpointing: Compute activations anew instead of keeping them: less memory, more time.
        seed: Of the order of examples and of dropout.
    """

    epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 8
    accumulate: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    evaluations: int = 1
    patience: int = 3
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0


class Trained(NamedTuple):
    """What training came to.

    Attributes:
        steps: Updates made.
        epochs: Passes made.
        loss: Loss on the held-out examples of the weights that were kept, in nats a token; None without such examples.
        losses: (step, loss) at every evaluation.
        resumed: The step that training went on from; 0 when it began anew.
        stopped: Whether it ended early, because the loss no longer fell.
        seconds: Time of this run.
    """

    steps: int
    epochs: float
    loss: float | None
    losses: tuple[tuple[int, float], ...]
    resumed: int
    stopped: bool
    seconds: float
