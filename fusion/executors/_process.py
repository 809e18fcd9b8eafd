"""A worker that is a process on this machine: a pipe to it, and a thread here that waits for what comes back."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue

from fusion.executors._call import answer
from fusion.executors._crew import WorkerLost

_GRACE_S = 5.0
"""How long a process that was told to end may take."""


class ProcessWorker:
    """One process, spawned: it shares nothing with this one.

    Args:
        num_threads: Threads that numerical libraries shall use in it, unless OMP_NUM_THREADS says otherwise.
    """

    def __init__(self, num_threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, num_threads), daemon=True)
        self._there: Connection | None = there
        self._ready: Future[None] = Future()
        self._calls: SimpleQueue[tuple[bytes, Future[bytes]] | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._killed = False
        self._thread = threading.Thread(target=self._work, name="fusion-worker", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> "Future[None]":
        """Ends when the process listens."""
        return self._ready

    def submit(self, call: bytes) -> "Future[bytes]":
        """Have a packed call answered."""
        reply: Future[bytes] = Future()
        self._calls.put((call, reply))
        return reply

    def kill(self) -> None:
        """End the process at once."""
        with self._guard:
            self._killed = True
            if self._process.pid is not None:
                self._process.kill()
        self._calls.put(None)

    def end(self) -> None:
        """Let the process end."""
        self._calls.put(None)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _work(self) -> None:
        with self._here:
            try:
                self._start()
                self._receive()
            except (OSError, RuntimeError, WorkerLost) as error:
                # RuntimeError: a process that is starting itself, as of a script without a guard, must start none.
                self._gone(self._ready, error)
            else:
                self._ready.set_result(None)
                self._serve_calls()
        if self._process.pid is not None:
            self._process.join(_GRACE_S)
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        with self._guard:
            if self._killed:
                raise WorkerLost("it was not wanted any more")
            try:
                self._process.start()
            finally:
                # The process alone holds the other end, so that its end is the end of the pipe.
                assert self._there is not None, "a process is started once"
                self._there.close()
                self._there = None

    def _serve_calls(self) -> None:
        while (given := self._calls.get()) is not None:
            call, reply = given
            try:
                self._here.send_bytes(call)
                answered = self._receive()
            except (OSError, WorkerLost) as error:
                self._gone(reply, error)
                return
            reply.set_result(answered)

    def _receive(self) -> bytes:
        # The sentinel as well: a process that it started may hold the pipe open after its end.
        wait([self._here, self._process.sentinel])
        try:
            if self._here.poll():
                return self._here.recv_bytes()
        except EOFError:
            pass
        raise WorkerLost("the pipe to it is closed")

    def _gone(self, future: "Future[None] | Future[bytes]", error: Exception) -> None:
        if self._process.pid is None:
            future.set_exception(WorkerLost(f"no process could be started: {error}"))
            return
        self._process.join(_GRACE_S)
        future.set_exception(WorkerLost(f"process {self._process.pid} {_ending(self._process.exitcode)}"))


def serve(connection: Connection, num_threads: int) -> None:
    """Answer calls until the other side closes the pipe: what runs in the process."""
    # Ctrl-C reaches the whole group of processes; what becomes of the work is for the caller to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    connection.send_bytes(b"ready")
    while True:
        try:
            call = connection.recv_bytes()
        except EOFError:
            return
        try:
            connection.send_bytes(answer(call))
        except OSError:
            return


def _ending(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"was ended by signal {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
