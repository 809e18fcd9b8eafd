"""Executors by their specs."""

import contextlib
from collections.abc import Iterator

from fusion.discovery import build
from fusion.errors import FusionError
from fusion.protocols import Executor

HERE = "here"


@contextlib.contextmanager
def open_executor(spec: str) -> Iterator[Executor | None]:
    """Yield an executor that has somewhere to work, and close it; None for this process ("here").

    Args:
        spec: "here", or the spec of an executor, such as "local" or "ray(num_gpus=1)".

    Raises:
        UnknownName: When there is no such executor.
        InvalidSpec: When it refuses a parameter.
        FusionError: When it has nowhere to work.
    """
    if spec == HERE:
        yield None
        return
    made = build("executors", spec)
    if not isinstance(made, Executor):
        raise FusionError(f"executor {spec!r} is a {type(made).__name__}, which lacks part of fusion.protocols")
    with made:
        # Before anything is prepared, which may take long and would be for nothing without a cluster.
        made.count()
        yield made
