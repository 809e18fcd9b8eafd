"""Ray: the workers of a Ray cluster that is already running.

Reference: Moritz et al., Ray: A Distributed Framework for Emerging AI Applications, arXiv:1712.05889. Start a cluster
with `ray start --head`, on further machines `ray start --address=HEAD:6379`; fusion of the same version is installed on
all of them.

A worker is an actor that owns `num_cpus` and `num_gpus` as long as the executor is open, so a model is loaded once and
stays in its memory. Deviation from Ray's own retries (`max_task_retries`): fusion counts them itself, item by item, so
that both executors keep one promise. When a worker or a whole node is lost, its items go to others, and a new worker
takes the place of the old one as soon as the cluster has room.
"""

import logging
import os
import socket
import textwrap
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import ModuleType
from typing import Annotated, Any

from annotated_types import Ge, Gt

from fusion._version import __version__
from fusion.errors import EngineError, FusionError, MissingDependency, UsageError
from fusion.executors._actor import Actor
from fusion.executors._crew import Crew, WorkerLost
from fusion.executors._crewed import Crewed

__all__ = ["Ray"]

_HINT = (
    "`ray status` shows what the cluster has and what it is asked for; every node needs the same versions of fusion, "
    "Python and Ray"
)
_LISTENER_S = 10.0
_NOISE = ("class_name:", "actor_id:", "namespace:")


@dataclass(kw_only=True)
class Ray(Crewed):
    """The executor of an existing Ray cluster.

    Args:
        address: Of the cluster; "auto" finds the one of this machine, or that of RAY_ADDRESS.
        workers: Number of workers; by default as many as the cluster has room for when the work begins.
        num_cpus: Cores that a worker owns.
        num_gpus: GPUs that a worker owns; 0.5 puts two workers on one.
        max_retries: How often an item whose worker was lost is given to another.
        wait_s: Seconds to wait while the cluster has room for no worker at all.
    """

    address: str = "auto"
    workers: Annotated[int, Ge(1)] | None = None
    num_cpus: Annotated[float, Ge(0)] = 1.0
    num_gpus: Annotated[float, Ge(0)] = 0.0
    max_retries: Annotated[int, Ge(0)] = 3
    wait_s: Annotated[float, Gt(0)] = 300.0
    _connected: bool = field(default=False, init=False, repr=False, compare=False)

    def close(self) -> None:
        """End the workers, and the connection if it was made here; the next map makes others."""
        super().close()
        with self._lock:
            if self._connected:
                self._connected = False
                _ray().shutdown()

    def _hire(self) -> Crew:
        ray = _ray()
        if not ray.is_initialized():
            _connect(ray, self.address)
            self._connected = True
        actor = ray.remote(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(Actor)
        return Crew(
            lambda: ActorWorker(ray, actor),
            size=self.workers or self._room(ray),
            max_retries=self.max_retries,
            dumps=ray.cloudpickle.dumps,
            wait_s=self.wait_s,
            hint=_HINT,
        )

    def _room(self, ray: ModuleType) -> int:
        """Return how many workers fit on the cluster, whatever else it does at the moment."""
        wanted = {name: value for name, value in (("CPU", self.num_cpus), ("GPU", self.num_gpus)) if value}
        if not wanted:
            raise UsageError("a worker that owns neither cores nor GPUs fits any number of times; give workers")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(name, 0) / value + 1e-9) for name, value in wanted.items()) for node in nodes)
        if not room:
            has = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
            wants = ", ".join(f"{value:g} {name}" for name, value in wanted.items())
            raise UsageError(
                f"a worker is to own {wants}, and no node has that (nodes: {has}); lower num_cpus and num_gpus, or "
                "give workers to wait for a cluster that grows"
            )
        return room


class ActorWorker:
    """One actor.

    Args:
        ray: The package.
        actor: The actor's class, as Ray wants it.
    """

    def __init__(self, ray: ModuleType, actor: Any) -> None:
        self._ray = ray
        self._actor = actor.remote()
        self._ready: Future[None] = _reply(ray, self._actor.version.remote(), _check_version)

    @property
    def ready(self) -> "Future[None]":
        """Ends when the actor has its place on a node."""
        return self._ready

    def submit(self, call: bytes) -> "Future[bytes]":
        """Have a packed call answered."""
        return _reply(self._ray, self._actor.run.remote(call), bytes)

    def kill(self) -> None:
        """End the actor at once."""
        if self._ray.is_initialized():
            self._ray.kill(self._actor, no_restart=True)

    def end(self) -> None:
        """End the actor."""
        self.kill()

    def join(self) -> None:
        """Return at once: the cluster sees to it."""


def _reply(ray: ModuleType, reference: Any, read: Callable[[Any], Any]) -> "Future[Any]":
    """Return the future of a call, its errors in our words and its value as `read` reads it."""
    told: Future[Any] = Future()

    def hand_over(given: "Future[Any]") -> None:
        error = given.exception()
        if isinstance(error, ray.exceptions.RayTaskError):
            told.set_exception(
                EngineError(
                    f"a worker of the cluster cannot run fusion {__version__}: {error}; install it on every node"
                )
            )
        elif error:
            told.set_exception(WorkerLost(_said(error)))
        else:
            _settle(told, given.result(), read)

    reference.future().add_done_callback(hand_over)
    return told


def _settle(told: "Future[Any]", value: Any, read: Callable[[Any], Any]) -> None:
    try:
        told.set_result(read(value))
    except FusionError as error:
        told.set_exception(error)


def _said(error: BaseException) -> str:
    """Return what Ray says of a loss in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = " ".join(line for line in lines if not line.startswith(_NOISE))
    return textwrap.shorten(told, 300) or type(error).__name__


def _check_version(version: str) -> None:
    if version != __version__:
        raise EngineError(f"a node of the cluster has fusion {version}, this is {__version__}; install the same on all")


def _connect(ray: ModuleType, address: str) -> None:
    try:
        _require_listener(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        told = str(error).rstrip(".")
        raise EngineError(
            f"cannot connect to a Ray cluster at {address!r}: {told}. Start one with `ray start --head`, and join "
            "further machines with `ray start --address=HEAD:6379`; all need the same versions of Python and Ray"
        ) from error


def _require_listener(address: str) -> None:
    """Fail where nobody listens; Ray itself would try for more than five minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENER_S):
            pass


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", purpose="the executor ray", extra="ray") from error
    return ray
