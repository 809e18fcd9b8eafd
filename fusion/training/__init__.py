"""Training on transformers' Trainer, shared by everything here that is trained: resumable, and done once."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy
from fusion.training._options import Told, Trained, TrainOptions

if TYPE_CHECKING:
    from fusion.training._models import OwnFolder, keep_folder, load_library, quiet
    from fusion.training._progress import progress
    from fusion.training._run import finished, is_main, train

_HOMES = {
    "OwnFolder": "fusion.training._models",
    "finished": "fusion.training._run",
    "is_main": "fusion.training._run",
    "keep_folder": "fusion.training._models",
    "load_library": "fusion.training._models",
    "progress": "fusion.training._progress",
    "quiet": "fusion.training._models",
    "train": "fusion.training._run",
}

__all__ = [
    "OwnFolder",
    "Told",
    "TrainOptions",
    "Trained",
    "finished",
    "is_main",
    "keep_folder",
    "load_library",
    "progress",
    "quiet",
    "train",
]

__getattr__ = lazy(__name__, _HOMES)
