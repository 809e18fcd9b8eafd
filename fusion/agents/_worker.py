"""One thread that does an engine's work in turn, so that event loops stay responsive."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Callable[[T], None], threading.Event], None]
"""What runs in the thread: it hands results to its first argument and leaves off when the second is set."""


class Worker(Generic[T]):
    """A thread, started on first use, that streams results to whichever event loop asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[threading.Event] = set()

    async def stream(self, work: Work[T]) -> AsyncGenerator[T, None]:
        """Run `work` in the thread and yield what it hands over; closing the generator tells it to stop.

        Work waits for the work that was given before it. What it raises is raised here, after its results.
        """
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[T | _End] = asyncio.Queue()
        stop = threading.Event()

        def put(result: T | _End) -> None:
            # The loop may be gone when nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(results.put_nowait, result)

        self._running.add(stop)
        try:
            future = self._submit(lambda: work(put, stop))
            future.add_done_callback(lambda _: put(_End()))
            while not isinstance(result := await results.get(), _End):
                yield result
            if not future.cancelled():
                future.result()
        finally:
            stop.set()
            self._running.discard(stop)

    async def call(self, work: Callable[[], R]) -> R:
        """Run `work` in the thread, after the work that was given before it, and return what it returns."""
        return await asyncio.wrap_future(self._submit(work))

    async def close(self, last: Callable[[], None]) -> None:
        """Stop what runs, do `last` in the thread and end the thread; later work starts another."""
        for stop in tuple(self._running):
            stop.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wrap_future(pool.submit(last))
        finally:
            pool.shutdown(wait=False)

    def _submit(self, work: Callable[[], R]) -> "Future[R]":
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fusion-engine")
            return self._pool.submit(work)


class _End:
    """Marks the end of a stream."""
