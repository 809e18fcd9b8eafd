"""Folders that hold a model, and the library that reads them."""

import contextlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fusion.errors import InputError, MissingDependency, OutputError


def load_library(purpose: str) -> ModuleType:
    """Return the package transformers.

    Raises:
        MissingDependency: When it, torch or accelerate is not installed.
    """
    try:
        import accelerate  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), purpose=purpose, extra="hf") from error
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars of its own and from telling of every weight."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class OwnFolder:
    """A new folder that goes when nobody holds this any more; copies in the process share it.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fusion-training-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, memo: object) -> "OwnFolder":
        return self


def keep_folder(source: Path, target: Path) -> None:
    """Copy a folder to `target`, whole or not at all; what was there is replaced.

    Raises:
        InputError: When there is no folder `source`.
        OutputError: When it cannot be written.
    """
    if not source.is_dir():
        raise InputError(f"there is no folder {source} with a trained model; fit again")
    if target.exists() and source.resolve() == target.resolve():
        return
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, beside)
        if target.exists():
            shutil.rmtree(target)
        os.replace(beside, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; give a folder that can be") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
