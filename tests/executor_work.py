"""What tests have workers do: functions at the top level of a module, which workers can import."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fusion.errors import MissingDependency, UnknownName, UsageError


class Slot(NamedTuple):
    """Where an item was worked on, and of which kind it was."""

    pid: int
    kind: str


class Odd(Exception):
    """An exception that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("odd", lambda: None)


def double(item: int) -> int:
    return 2 * item


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def slot(kind: str) -> Slot:
    time.sleep(0.01)
    return Slot(os.getpid(), kind)


def linger(folder: str) -> None:
    """Say who works, in a file, and go on for a minute."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def linger_unless_quick(folder: str) -> None:
    time.sleep(0.5)
    if folder:
        linger(folder)


def fail(name: str) -> None:
    errors: dict[str, Callable[[], Exception]] = {
        "unknown": lambda: UnknownName(kind="agent", name="a", known=["b"]),
        "missing": lambda: MissingDependency("torch", purpose="the engine hf", extra="hf"),
        "usage": lambda: UsageError("said so"),
        "value": lambda: ValueError("no number"),
        "file": lambda: FileNotFoundError(2, "No such file", "there"),
        "odd": Odd,
    }
    raise errors[name]()


def fail_once(folder: str) -> None:
    Path(folder, str(time.monotonic_ns())).touch()
    raise ValueError("once is enough")


def lambdas(item: int) -> Callable[[], int]:
    return lambda: item


def die_first(item: tuple[str, int]) -> int:
    """Return the number; the first time that it is 3, kill the worker instead."""
    folder, number = item
    if number == 3:
        tries = len(list(Path(folder).iterdir()))
        Path(folder, f"try {tries}").touch()
        if tries == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(folder: str) -> None:
    """Kill the worker, unless there is no folder to say so in."""
    if not folder:
        return
    Path(folder, str(time.monotonic_ns())).touch()
    os._exit(7)


def node_id() -> str:
    """Return the node of the Ray cluster on which this runs."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


class Seen(NamedTuple):
    """A result, and where it was made."""

    pid: int
    node: str
    result: object


def watched(function: Callable[[object], object], item: object) -> Seen:
    return Seen(os.getpid(), node_id(), function(item))
