"""Learning a network until nothing better comes, in a run that can go on where it was cut short."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from fusion.policies._run import Kept, TrainingRun, one_torch_thread
from fusion.schema import FloatArray

if TYPE_CHECKING:
    import torch

    from fusion.policies._paper_net import Net
    from fusion.policies._streams import Streams

_EVERY = 5
Weights = tuple[list[FloatArray], list[FloatArray]]
"""Weights and biases of a network, layer by layer."""


class Ways(Protocol):
    """How long is learned, and with which entropy bonus."""

    @property
    def updates(self) -> int:
        """At most."""
        ...

    @property
    def entropy(self) -> float:
        """Weight of the bonus at the beginning; it falls to 0."""
        ...

    @property
    def patience(self) -> int:
        """Looks at the validation questions without a better one before it ends."""
        ...


class Learner(NamedTuple):
    """A network that learns, and all that its next update depends on.

    Attributes:
        net: The network.
        optimizer: Of its parameters.
        draws: Every draw comes from it.
        streams: What it plays; None for what plays nothing.
    """

    net: "Net"
    optimizer: "torch.optim.Optimizer"
    draws: "torch.Generator"
    streams: "Streams | None" = None

    def kept(self) -> dict[str, Any]:
        """Return what is needed to go on."""
        import torch

        games = {} if self.streams is None else self.streams.kept()
        return {
            "net": [part.detach() for part in self.net.parameters],
            "optimizer": self.optimizer.state_dict(),
            "draws": self.draws.get_state(),
            "streams": {name: torch.from_numpy(array) for name, array in games.items()},
        }

    def take(self, kept: Kept) -> None:
        """Go on from what was kept."""
        import torch

        with torch.no_grad():
            for part, value in zip(self.net.parameters, kept["net"], strict=True):
                part.copy_(value)
        self.optimizer.load_state_dict(kept["optimizer"])
        self.draws.set_state(kept["draws"])
        if self.streams is not None:
            self.streams.take({name: tensor.numpy() for name, tensor in kept["streams"].items()})


def learned(
    learner: Learner,
    learn: Callable[[float], Mapping[str, float]],
    looked_at: Callable[[], float],
    *,
    what: str,
    ways: Ways,
    run: TrainingRun,
) -> Weights:
    """Learn until nothing better comes, and return what did best on the validation questions, as a copy.

    Args:
        learner: What learns.
        learn: Takes an update; is given the weight of the entropy bonus, and returns how it went.
        looked_at: Returns how good the weights are on the validation questions.
        what: What is learned, for who watches.
        ways: How many updates, and how long to wait for a better one.
        run: Told of every update, and keeps it.
    """
    look = Look(ways.patience)
    if run.kept is not None:
        look.take(run.kept["look"])
        if run.over:
            return look.kept
        learner.take(run.kept)

    def kept() -> Kept:
        return {**learner.kept(), "look": look.state()}

    update = run.done
    while update < ways.updates and not look.over:
        with one_torch_thread():
            figures = dict(learn(ways.entropy * (1 - update / ways.updates)))
            update += 1
            if update % _EVERY == 0 or update == ways.updates:
                figures["validation"] = looked_at()
                look.see(figures["validation"], learner.net.weights())
        run.step(what, update, ways.updates, figures, kept)
    run.finish(update, lambda: {"look": look.state()})
    return look.kept


class Look:
    """Keeps what does best on the validation questions, as a copy.

    Args:
        patience: Looks without a better one before it is over.
    """

    kept: Weights

    def __init__(self, patience: int) -> None:
        self._patience, self._since, self._best = patience, 0, -np.inf

    @property
    def over(self) -> bool:
        """Whether it is time to end."""
        return self._since >= self._patience

    def see(self, value: float, weights: Weights) -> None:
        """Take note of how good weights are, which must be copies of what the network goes on with."""
        self._since += 1
        if value > self._best:
            self._best, self.kept, self._since = value, weights, 0

    def state(self) -> dict[str, Any]:
        """Return it as numbers and tensors."""
        import torch

        found: Weights = getattr(self, "kept", ([], []))
        parts = [[torch.from_numpy(np.ascontiguousarray(part)) for part in parts] for parts in found]
        return {"since": self._since, "best": float(self._best), "kept": parts}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`."""
        self._since, self._best = int(state["since"]), float(state["best"])
        weights, biases = ([part.numpy() for part in parts] for parts in state["kept"])
        self.kept = weights, biases
