"""The training of a policy: told, written down, and kept in a folder, where it goes on after a kill.

training.json says whose it is, checkpoint.pt where it stands, and curves.csv how it went. A run that goes on ends as it
would have ended: weights, moments of the optimiser, draws and games are all in the checkpoint.
"""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion.curves import Curves
from fusion.errors import InputError
from fusion.files import check_writable, replacing, write_text
from fusion.logit import one_thread

Told = Callable[[str, int, int], None]
"""Told what is done, how many steps are done and how many there are."""
Kept = Mapping[str, Any]
"""Tensors, numbers and texts by name, in lists and dictionaries."""
_FORMAT = "fusion.policy-training/1"
_STARTED, _CHECKPOINT = "training.json", "checkpoint.pt"
_SECONDS = 10.0


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute with one thread inside the context: networks this small lose by more, on a busy machine tenfold."""
    import torch

    with one_thread():
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class TrainingRun:
    """One training run, update by update.

    Args:
        folder: Where it is kept; None keeps nothing.
        told: Told of every update, and of what comes before them.
        tensorboard: Whether its figures go to TensorBoard's log in the folder too.
        seconds: A checkpoint is written after the first update, when the last is older than this, and at the end.

    Attributes:
        kept: What was kept last, by a run of the same marks; None where nothing was.
        done: Updates that it has behind it.
        over: Whether it has ended.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        told: Told | None = None,
        tensorboard: bool = False,
        seconds: float = _SECONDS,
    ) -> None:
        self._folder, self._told, self._tensorboard, self._seconds = folder, told, tensorboard, seconds
        # The first update is kept, so that it shows at once where a folder cannot be written.
        self._mark, self._since = "", -math.inf
        self._curves: Curves | None = None
        self.kept: Kept | None = None
        self.done, self.over = 0, False

    def say(self, what: str, done: int, total: int) -> None:
        """Tell what is done."""
        if self._told is not None:
            self._told(what, done, total)

    def begin(self, *marks: str) -> None:
        """Begin, or go on where a run of the same marks was cut short or ended; one of others is dropped.

        Args:
            marks: Name everything that the result depends on.

        Raises:
            InputError: When the checkpoint is damaged.
            MissingDependency: When TensorBoard is wanted and not installed.
            OutputError: When the folder cannot be written.
        """
        self.kept, self.done, self.over = None, 0, False
        if self._folder is None:
            return
        self._mark = hashlib.sha256(json.dumps([_FORMAT, *marks]).encode()).hexdigest()
        check_writable(self._folder / _STARTED)
        # Who is cut short before the first checkpoint has begun all the same.
        write_text(self._folder / _STARTED, json.dumps({"format": _FORMAT, "mark": self._mark}) + "\n")
        self.kept = _read(self._folder / _CHECKPOINT, self._mark)
        if self.kept is not None:
            self.done, self.over = int(self.kept["update"]), bool(self.kept["ended"])
        self._curves = Curves(self._folder, since=self.done, tensorboard=self._tensorboard)
        self._since = -math.inf

    def step(
        self, what: str, update: int, updates: int, figures: Mapping[str, float], kept: Callable[[], Kept]
    ) -> None:
        """Take note of an update.

        Args:
            what: What is learned.
            update: Updates done.
            updates: Updates there are, at most.
            figures: How it went.
            kept: Returns everything that is needed to go on.

        Raises:
            OutputError: When the folder cannot be written.
        """
        self.say(what, update, updates)
        if self._curves is not None:
            self._curves.add(update, figures)
            if time.monotonic() - self._since >= self._seconds:
                self._keep({**kept(), "update": update, "ended": False})

    def finish(self, update: int, kept: Callable[[], Kept]) -> None:
        """Keep what was learned, so that it is not learned again.

        Args:
            update: Updates done.
            kept: Returns all that is needed of it.

        Raises:
            OutputError: When the folder cannot be written.
        """
        if self._curves is not None:
            self._keep({**kept(), "update": update, "ended": True})
            self._curves.close()
        self.kept = None

    def _keep(self, kept: Kept) -> None:
        import torch

        assert self._folder is not None, "begun"
        assert self._curves is not None, "begun"
        self._curves.write()
        with replacing(self._folder / _CHECKPOINT) as temporary:
            torch.save({**kept, "mark": self._mark}, temporary)
        self._since = time.monotonic()


def _read(path: Path, mark: str) -> Kept | None:
    """Return a checkpoint, if there is one of that mark.

    Raises:
        InputError: When it is damaged.
    """
    import pickle

    import torch

    try:
        kept: Kept = torch.load(path, weights_only=True)
        return kept if kept["mark"] == mark else None
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is damaged; remove {path.parent} and fit again") from error
