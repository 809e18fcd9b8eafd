"""A server as a child process that cannot outlive its owner.

Between the owner and the server stands a guard, a small process of its own (`fusion.agents._server_guard`). It ends
the server, with everything that the server started, when it is told to, when the main process of the server ends, and
when the owner is gone, be it by kill -9. Servers whose guard was killed as well are found again by their records
(`fusion.agents._server_reap`).
"""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusion.agents import _server_guard
from fusion.agents._server_guard import KILL_S, Identity, Order, end, family, look, processes
from fusion.agents._server_reap import Leftover, leftovers, make_private, place, read_record, reap, state_folder
from fusion.errors import EngineError

__all__ = ["Launch", "Leftover", "ServerProcess", "leftovers", "reap", "state_folder"]

_START_S = 60.0
_POLL_S = 0.1
_TAIL = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How to start a server.

    Attributes:
        command: Program and arguments; the program is looked for on the PATH in `env`.
        env: The whole environment of the server.
        log: Where its output goes; appended to, and made with its folder if missing, for this user alone.
        name: What messages and records call it, for instance the model.
        stop_s: Seconds from SIGTERM to SIGKILL; positive.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    name: str
    stop_s: float = 15.0


class ServerProcess:
    """A running server; made by `start`, usable from any thread.

    In a fork of the process that started it, it can be looked at, but `stop` does nothing.

    Attributes:
        pid: The main process of the server.
        group: Its process group and session.
    """

    def __init__(self, launch: Launch, guard: "subprocess.Popen[bytes]", *, record: Path, log_begin: int) -> None:
        self.pid = self.group = 0
        self._launch = launch
        self._guard = guard
        self._record = record
        self._log_begin = log_begin
        self._owner = os.getpid()
        self._leader = Identity(0, "")
        self._reading = threading.Lock()
        self._stopping = threading.Lock()
        self._unread = b""
        self._told: dict[str, object] = {}
        self._guard_gone = False
        self._stopped = False

    @classmethod
    def start(cls, launch: Launch, *, folder: Path | None = None) -> "ServerProcess":
        """Start a server under a guard.

        Args:
            launch: What to start.
            folder: Where it is recorded while it runs; `state_folder()` when it is None.

        Raises:
            EngineError: On Windows; when the command cannot be started, or the log or the record cannot be written.
        """
        if sys.platform == "win32":
            raise EngineError(
                "servers can be started on Linux and macOS only, this is Windows; "
                "start the server yourself, or under WSL, and give its address"
            )
        if not launch.command:
            raise EngineError(f"cannot start {launch.name}: its command is empty; name a program")
        record = _record_folder(folder) / f"{uuid.uuid4().hex}.json"
        log = _open_log(launch)
        try:
            log_begin = os.fstat(log).st_size
            guard = _start_guard(launch, log)
        finally:
            os.close(log)
        server = cls(launch, guard, record=record, log_begin=log_begin)
        try:
            server._send_order()
        except BaseException:
            # Whatever came between, Ctrl-C for instance: what the guard has begun ends here.
            server.stop()
            raise
        return server

    def exited(self) -> str | None:
        """Return None while the server runs, else how it ended, as in "exit status 1" or "killed by SIGKILL".

        It has ended when its main process has; whatever that left behind is killed before, or, should the guard have
        been killed, by `stop`.
        """
        if os.getpid() == self._owner:
            self._listen(0.0)
            if "exit" in self._told:
                return _in_words(self._told["exit"])
            if not self._guard_gone:
                return None
        # What a guard that was killed would have told is lost.
        row = look(self.pid)
        if row is not None and row.identity == self._leader and not row.ended:
            return None
        return "ended, status unknown"

    def last_lines(self, count: int = 20) -> str:
        """Return the end of what this server, and none before it, wrote to its log.

        Args:
            count: How many lines, at most; of lines beyond 64 KiB in all the beginning is left out.

        Returns:
            Lines without a line end at the end; bytes that are not UTF-8 are replaced; empty if there is nothing.
        """
        try:
            with self._launch.log.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                # Shorter than at the start: somebody emptied it since.
                begin = self._log_begin if self._log_begin <= size else 0
                handle.seek(max(begin, size - _TAIL))
                text = handle.read(_TAIL).decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-count:]) if count > 0 else ""

    def stop(self) -> None:
        """End the server and everything that it started, and wait until nothing of it is left.

        SIGTERM goes to its group; what is left after `stop_s` gets SIGKILL. May be called again, from any thread.
        """
        if os.getpid() != self._owner:
            return
        with self._stopping:
            if self._stopped:
                return
            left = self._stop_guard()
            if left is None:
                left = self._end_without_guard()
            if left:
                _log.warning(
                    "server %s: processes %s did not end %g s after SIGKILL, which is up to the system or a driver; "
                    "what they hold stays in use until they do (fusion doctor shows them)",
                    self._launch.name, ", ".join(map(str, left)), KILL_S,
                )  # fmt: skip
            else:
                with contextlib.suppress(OSError):
                    self._record.unlink()
            self._stopped = True

    def _send_order(self) -> None:
        """Tell the guard what to start, and wait until it has."""
        launch = self._launch
        order = Order(launch.name, list(launch.command), dict(launch.env), str(launch.log.absolute()),
                      str(self._record), place(), launch.stop_s)  # fmt: skip
        assert self._guard.stdin is not None, "a pipe was asked for"
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
            self._guard.stdin.flush()
        deadline = time.monotonic() + _START_S
        while not self._told and not self._guard_gone and time.monotonic() < deadline:
            self._listen(_POLL_S)
        match self._told:
            case {"started": int(pid), "since": str(since)}:
                self.pid = self.group = pid
                self._leader = Identity(pid, since)
            case {"failed": "command", "error": int(number)}:
                raise EngineError(_why_not(launch, number))
            case {"failed": "record", "error": int(number)}:
                raise EngineError(
                    f"cannot start {launch.name}: running servers are recorded in {self._record.parent}, which cannot "
                    f"be written to ({os.strerror(number)}); set XDG_STATE_HOME to a folder with space"
                )
            case _:
                raise EngineError(
                    f"cannot start {launch.name}: {sys.executable}, which was to guard it, "
                    f"{'ended' if self._guard_gone else f'said nothing for {_START_S:g} s'}; see {launch.log}. "
                    f"{self.last_lines(3)}"
                )

    def _listen(self, seconds: float) -> None:
        """Take in what the guard says within so many seconds."""
        with self._reading:
            if self._guard_gone:
                return
            assert self._guard.stdout is not None, "a pipe was asked for"
            pipe = self._guard.stdout.fileno()
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            while poll.poll(seconds * 1000):
                seconds = 0.0
                said = os.read(pipe, 65536)
                if not said:
                    self._guard_gone = True
                    break
                *lines, self._unread = (self._unread + said).split(b"\n")
                for line in lines:
                    self._told.update(json.loads(line))

    def _stop_guard(self) -> list[int] | None:
        """Have the guard end the server; return what it could not end, or None when it was killed."""
        assert self._guard.stdin is not None, "a pipe was asked for"
        # The guard may have ended by itself.
        with contextlib.suppress(OSError, ValueError):
            self._guard.stdin.write(b"stop\n")
            self._guard.stdin.flush()
        deadline = time.monotonic() + self._launch.stop_s + 2 * KILL_S
        while not self._guard_gone and time.monotonic() < deadline:
            self._listen(_POLL_S)
        self._close()
        match self._told:
            case {"left": [*left]}:
                return [pid for pid in left if isinstance(pid, int)]
        return None

    def _end_without_guard(self) -> list[int]:
        leader, known = self._leader, {self._leader}
        with contextlib.suppress(FileNotFoundError):
            if record := read_record(self._record):
                leader, known = record.server, {record.server, *record.members}
        left = end(lambda seen: family(processes(), seen), known, leader=leader.pid, stop_s=self._launch.stop_s)
        return [member.pid for member in left]

    def _close(self) -> None:
        """Let go of the guard; one that hangs is killed."""
        with self._reading:
            self._guard_gone = True
            for pipe in (self._guard.stdin, self._guard.stdout):
                assert pipe is not None, "a pipe was asked for"
                with contextlib.suppress(OSError):
                    pipe.close()
            try:
                self._guard.wait(KILL_S)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()


def _record_folder(folder: Path | None) -> Path:
    if folder is None:
        return state_folder()
    try:
        return make_private(folder.absolute())
    except OSError as error:
        raise EngineError(
            f"running servers are to be recorded in {folder}, which cannot be used ({error.strerror or error}); "
            "name a folder of your own"
        ) from error


def _open_log(launch: Launch) -> int:
    try:
        launch.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(launch.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise EngineError(
            f"cannot start {launch.name}: its log {launch.log} cannot be written ({error.strerror or error}); "
            "free some space or name another file"
        ) from error


def _start_guard(launch: Launch, log: int) -> "subprocess.Popen[bytes]":
    # The path of the file, not -m: see there.
    command = [sys.executable, "-I", "-S", _server_guard.__file__, str(os.getpid())]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=-1, start_new_session=True
        )
    except OSError as error:
        raise EngineError(
            f"cannot start {launch.name}: the interpreter {sys.executable!r}, which is to guard it, "
            f"cannot be started ({error.strerror or error}); run fusion with an ordinary Python"
        ) from error


def _why_not(launch: Launch, number: int) -> str:
    program = launch.command[0]
    cause = {FileNotFoundError: "is not there", PermissionError: "may not be executed"}
    kind = type(OSError(number, os.strerror(number)))
    return (
        f"cannot start {launch.name}: the command {program!r} {cause.get(kind, f'fails: {os.strerror(number)}')}; "
        "install it, or name the path of one that runs"
    )


def _in_words(status: object) -> str:
    if not isinstance(status, int):
        return "killed, but not ended by the system"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
