"""Figures of learning, step by step, written down: a CSV, and TensorBoard's log for those who watch there."""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.errors import InputError, MissingDependency
from fusion.files import replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD = "tensorboard"
"""Where in a folder TensorBoard's log is."""
_FILE = "curves.csv"


class Curves:
    """Figures by step, in `folder`/curves.csv.

    Args:
        folder: Where they go; what steps after `since` have left there is dropped.
        since: The step after which learning goes on; 0 for learning anew.
        tensorboard: Whether they go to TensorBoard too.

    Raises:
        InputError: When what is there cannot be read.
        MissingDependency: When TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, *, since: int = 0, tensorboard: bool = False) -> None:
        self._path = folder / _FILE
        self._rows = [row for row in read_curves(folder) if row["step"] <= since] if since else []
        self._writer = tensorboard_writer(folder, since=since) if tensorboard else None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step; the file is written by `write`."""
        self._rows.append({"step": step, **figures})
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def write(self) -> None:
        """Write the file.

        Raises:
            OutputError: When it cannot be written.
        """
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with replacing(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self._rows)
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write the file, and end TensorBoard's log.

        Raises:
            OutputError: When the file cannot be written.
        """
        self.write()
        if self._writer is not None:
            self._writer.close()


def read_curves(folder: Path) -> list[dict[str, float]]:
    """Return the figures in a folder, a dictionary a step, "step" among them; none where there is no file.

    Raises:
        InputError: When the file is damaged.
    """
    path = folder / _FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it") from error


def tensorboard_writer(folder: Path, *, since: int = 0) -> "SummaryWriter":
    """Return a writer of TensorBoard's log in `folder`/tensorboard.

    Args:
        folder: Of the training.
        since: The step after which learning goes on; what the log has of later ones is hidden. With 0 the log that is
            there is removed.

    Raises:
        MissingDependency: When TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise MissingDependency("tensorboard", purpose="its logs", extra="tensorboard") from error
    if not since:
        # Logs of several runs would be drawn as one.
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    return SummaryWriter(str(folder / TENSORBOARD), purge_step=since + 1 if since else None)


__all__ = ["TENSORBOARD", "Curves", "read_curves", "tensorboard_writer"]
