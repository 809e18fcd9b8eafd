"""The vLLM servers of one engine: which run, who uses them, who waits for whom."""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fusion.agents._hf_examine import Scales
from fusion.agents._hf_library import AdapterCard, Card, Library, Place, check_unchanged
from fusion.agents._server_process import Launch, ServerProcess
from fusion.agents._server_reap import reap
from fusion.agents._vllm_command import (
    BASE,
    Accelerator,
    Settings,
    Share,
    accelerator,
    command,
    environment,
    free_port,
    is_free,
    require_vllm,
    shares,
)
from fusion.agents._vllm_health import NotOursError, check_served, is_healthy
from fusion.agents._vllm_logs import new_log
from fusion.errors import EngineError, FusionError
from fusion.schema import Request

_log = logging.getLogger("fusion.progress")

_POLL_S = 0.2
_LINES_SHOWN = 20
_FAILED_S = 30.0
"""How long a server that did not start is not tried again."""
_PORTS_TRIED = 3
"""Another process may take a free port before the server does."""
_OTHER_PORT = "set the engine's port to a free one, or leave it out to have one found"


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        process: It, with all its children.
        port: Where it listens, on this machine.
        key: What it wants to be shown.
        names: Under which it serves the model ("") and its adapters, by where these are.
        context: Most tokens of prompt and answer; None when it does not say.
        fraction: Of the accelerator's memory.
    """

    process: ServerProcess
    port: int
    key: str
    names: Mapping[str, str]
    context: int | None
    fraction: float

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def is_up(self) -> bool:
        """Whether its main process runs."""
        return self.process.exited() is None


@dataclass(eq=False)
class _Room:
    """One base model: the adapters that are wanted of it, and its server while there is one.

    Args:
        card: The model.
        adapters: Wanted so far, by where they are.
        server: Runs, or has died since.
        users: How many are asking it.
        failure: Why it did not start the last time, and when that was; None when it did.
    """

    card: Card
    adapters: dict[str, AdapterCard] = field(default_factory=dict)
    server: Server | None = None
    users: int = 0
    failure: tuple[EngineError, float] | None = None

    def serves(self, wanted: str) -> bool:
        return self.server is not None and wanted in self.server.names and self.server.is_up


class _Move(NamedTuple):
    room: _Room
    done: "Future[None]"


@dataclass(eq=False, frozen=True)
class _Wish:
    """Somebody who wants to be served: of which base, and with what adapter ("" for none)."""

    room: _Room
    wanted: str

    @property
    def is_met(self) -> bool:
        return self.room.serves(self.wanted)


class Placement(NamedTuple):
    """Where a model is served.

    Attributes:
        share: What it gets of the accelerator.
        adapters: How many adapters are served beside it.
        bases: How many models the engine serves.
        accelerator: What they run on.
    """

    share: Share
    adapters: int
    bases: int
    accelerator: Accelerator


class Fleet:
    """Starts servers when they are wanted, one at a time, and ends them.

    Args:
        settings: How servers are started.
        library: Where models are looked up.

    Attributes:
        closed: Set once all that is open now has been closed; what is opened afterwards has another one.
    """

    def __init__(self, settings: Settings, library: Library) -> None:
        self.closed = threading.Event()
        self._settings = settings
        self._library = library
        self._scales = Scales()
        self._rooms: dict[Place, _Room] = {}
        self._lock = threading.Lock()
        self._queue: list[_Wish] = []
        self._move: _Move | None = None
        self._mover: ThreadPoolExecutor | None = None
        self._accelerator: Accelerator | None = None

    def expect(self, request: Request) -> None:
        """Take note that requests like this one will come, so that one server is made ready for all of them.

        Raises:
            EngineError: When model or adapter cannot be found.
        """
        self._room(self._library.card(request), self._library.adapter(request))

    def placement(self, card: Card) -> Placement:
        """Return where the model is served, as far as it is known who else wants to be."""
        room = self._room(card, None)
        return Placement(self._plan()[room], len(room.adapters), len(self._rooms), self._device())

    def port_of(self, card: Card) -> int | None:
        """Return where the model's server would listen; None for any free port."""
        if self._settings.port is None:
            return None
        room = self._room(card, None)
        return self._settings.port + list(self._rooms.values()).index(room)

    def weights(self, card: Card) -> int:
        """Return the bytes of the model's weights.

        Raises:
            EngineError: When transformers has no causal language model of that configuration.
        """
        width = 4 if card.dtype(self._settings.dtype) == "float32" else 2
        return self._scales.outline(card).num_weights * width

    @contextlib.asynccontextmanager
    async def lent(self, card: Card, adapter: AdapterCard | None, *, closed: threading.Event) -> AsyncIterator[Server]:
        """Lend the server of a model, with the adapter; it is started, or another one ended, when that is needed.

        Args:
            card: The model.
            adapter: The adapter, if any.
            closed: What `closed` was when the borrower came; once it is set nothing is started for it.

        Raises:
            EngineError: When the server does not start, or the engine is closed.
        """
        room = self._room(card, adapter)
        wish = _Wish(room, adapter.place.source if adapter else "")
        self._queue.append(wish)
        try:
            server = await self._turn(wish, closed)
        finally:
            self._queue.remove(wish)
        try:
            yield server
        finally:
            with self._lock:
                room.users -= 1

    async def _turn(self, wish: _Wish, closed: threading.Event) -> Server:
        """Return the server that serves what is wished for, one user more counted, when it is its turn."""
        room = wish.room
        while True:
            # Sizing models may take seconds.
            plan = await asyncio.to_thread(self._plan)
            if room not in plan:
                raise EngineError(f"the engine was closed while {room.card.name!r} was waiting for its vLLM server")
            move = None
            with self._lock:
                if closed.is_set():
                    raise EngineError(f"the engine was closed while {room.card.name!r} was asked")
                if room.failure and time.monotonic() - room.failure[1] < _FAILED_S:
                    # Agents of one base would each wait for the same failure anew.
                    raise room.failure[0]
                if room.server is None or not wish.is_met:
                    leaving = [other for other in self._rooms.values() if _is_in_the_way(other, room, plan)]
                    if self._move is None and not any(other.users for other in leaving):
                        self._move = _Move(room, self._submit(room, leaving, plan[room]))
                    move = self._move
                elif not self._gives_way(wish, plan):
                    room.users += 1
                    return room.server
            if move is None:
                await asyncio.sleep(_POLL_S)
                continue
            try:
                # Whoever waits may leave; the server goes on starting for those who stay.
                await asyncio.shield(asyncio.wrap_future(move.done))
            except FusionError:
                if move.room is room:
                    raise

    def _gives_way(self, wish: _Wish, plan: Mapping[_Room, Share]) -> bool:
        """Return whether somebody who came earlier waits for this server to be ended.

        Without this, questions that overlap would keep a server for ever from those who need another one.
        """
        earlier = self._queue[: self._queue.index(wish)]
        waiting = (other for other in earlier if not other.is_met and other.room in plan)
        return any(_is_in_the_way(wish.room, other.room, plan) for other in waiting)

    def live(self) -> set[str]:
        """Return the addresses of the servers that run."""
        with self._lock:
            return {room.server.url for room in self._rooms.values() if room.server is not None}

    def close(self) -> None:
        """End all servers, and the one that is starting; may be called twice, and the fleet used again."""
        with self._lock:
            self.closed.set()
            self.closed = threading.Event()
            rooms, self._rooms = list(self._rooms.values()), {}
            mover, self._mover = self._mover, None
        if mover is not None:
            mover.shutdown(wait=True)
        for room in rooms:
            if room.server is not None:
                room.server.process.stop()

    def _room(self, card: Card, adapter: AdapterCard | None) -> _Room:
        with self._lock:
            room = self._rooms.setdefault(card.place, _Room(card))
            if adapter is not None:
                room.adapters.setdefault(adapter.place.source, adapter)
            return room

    def _plan(self) -> dict[_Room, Share]:
        """Return what each base gets."""
        with self._lock:
            rooms = list(self._rooms.values())
        if len(rooms) == 1:
            return {rooms[0]: Share(False, self._settings.gpu_memory_utilization)}
        # One after another, sizes make no difference, and vLLM serves models that cannot be sized here.
        in_turn = self._settings.schedule == "sequential"
        sizes = [0 if in_turn else self.weights(room.card) for room in rooms]
        return dict(zip(rooms, shares(sizes, self._settings, total=self._device().total), strict=True))

    def _device(self) -> Accelerator:
        if self._accelerator is None:
            self._accelerator = accelerator(self._settings.devices)
        return self._accelerator

    def _submit(self, room: _Room, leaving: Sequence[_Room], share: Share) -> "Future[None]":
        if self._mover is None:
            self._mover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fusion-vllm")
        # From now on nobody is lent a server that is about to end.
        ending = [other.server for other in leaving if other.server is not None]
        for other in leaving:
            other.server = None
        return self._mover.submit(self._bring_up, room, ending, share, self.closed)

    def _bring_up(self, room: _Room, ending: Sequence[Server], share: Share, closed: threading.Event) -> None:
        """End the servers that are in the way and start that of `room`; runs in the mover's thread."""
        try:
            for server in ending:
                server.process.stop()
            room.failure = None
            room.server = self._started(room, share, closed)
        except EngineError as error:
            room.failure = error, time.monotonic()
            raise
        finally:
            with self._lock:
                self._move = None

    def _started(self, room: _Room, share: Share, closed: threading.Event) -> Server:
        require_vllm(self._settings)
        check_unchanged(room.card.place, "model")
        for adapter in room.adapters.values():
            check_unchanged(adapter.place, "adapter")
        # Servers whose owner and guard were both killed would hold the memory that this one needs.
        for leftover in reap():
            _log.warning("ended a server that was left behind: %s (process %d)", leftover.name, leftover.pid)
        adapters = dict(room.adapters)
        names = {"": BASE} | {source: f"adapter-{i}" for i, source in enumerate(adapters)}
        served = {names[source]: adapter for source, adapter in adapters.items()}
        key = secrets.token_hex(16)
        for attempt in range(_PORTS_TRIED):
            port = self._port(room)
            line = command(room.card, served, self._settings, share=share.fraction, port=port)
            log = new_log(room.card.name, port, self._settings.logs)
            beside = f" with {len(adapters)} adapters" if adapters else ""
            _log.info("starting vLLM for %s%s on port %d; its log: %s", room.card.name, beside, port, log)
            process = ServerProcess.start(
                Launch(command=line, env=environment(key, self._settings), log=log, name=room.card.name)
            )
            try:
                self._wait(process, port, room.card.name, log, closed)
                context = check_served(port, key, names, room.card.name)
            except BaseException as error:
                said = process.last_lines(200).lower()
                lost = isinstance(error, NotOursError) or "address already in use" in said
                process.stop()
                if lost and self._settings.port is None and attempt + 1 < _PORTS_TRIED:
                    continue
                raise
            return Server(process, port, key, names, context, share.fraction)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, process: ServerProcess, port: int, model: str, log: Path, closed: threading.Event) -> None:
        """Wait until the server is ready.

        Raises:
            EngineError: When it ends before, or takes too long; with the last lines of its log.
        """
        began = time.monotonic()
        while not is_healthy(port):
            said = f"; the last lines of its log, {log}:\n{process.last_lines(_LINES_SHOWN)}"
            if closed.is_set():
                raise EngineError(f"the engine was closed while the vLLM server of {model!r} was starting")
            if (how := process.exited()) is not None:
                raise EngineError(f"the vLLM server of {model!r} did not start: {how}{said}")
            if time.monotonic() - began > self._settings.start_s:
                waited = f"was not ready after start_s = {self._settings.start_s:g}"
                raise EngineError(f"the vLLM server of {model!r} {waited}; give it longer if it was loading{said}")
            time.sleep(_POLL_S)
        _log.info("vLLM for %s is ready after %.0f s", model, time.monotonic() - began)

    def _port(self, room: _Room) -> int:
        port = self.port_of(room.card)
        if port is None:
            return free_port()
        if not is_free(port):
            raise EngineError(f"port {port}, for the vLLM server of {room.card.name!r}, is in use; {_OTHER_PORT}")
        return port


def _is_in_the_way(other: _Room, room: _Room, plan: Mapping[_Room, Share]) -> bool:
    """Return whether the server of `other` must be ended before that of `room` can start."""
    if other.server is None:
        return False
    # One that was started alone holds more than its share.
    return other is room or plan[room].sequential or other.server.fraction > plan[other].fraction + 1e-3
