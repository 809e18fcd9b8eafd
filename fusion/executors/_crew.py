"""Workers shared by everybody who maps: who gets which item, and what happens when a worker is lost.

Each `Crew.map` is driven by the thread that iterates over it; the workers' threads only report what ended. What is
said to workers is said outside the lock, as a worker may report at any moment.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from fusion.errors import EngineError
from fusion.executors._call import Dumps, check_function, pack, unpack

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 0.5
"""How long a worker is kept for items of the kind it had last, before it takes those of another kind."""


class WorkerLost(Exception):
    """A worker ended before it answered; the message says what is known of why."""


class Worker(Protocol):
    """One process somewhere."""

    @property
    def ready(self) -> "Future[None]":
        """Ends when it has started; WorkerLost when it could not, another error when none like it can."""
        ...

    def submit(self, call: bytes) -> "Future[bytes]":
        """Have a packed call answered; WorkerLost when the worker ends before. One call at a time."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def end(self) -> None:
        """End it; it has nothing to do."""
        ...

    def join(self) -> None:
        """Wait until it has ended."""
        ...


@dataclass(kw_only=True, eq=False)
class _Member:
    """A worker and what it does: `run` is None while it is idle, `kind` that of the items it had last."""

    worker: Worker | None = None
    ready: bool = False
    kind: str = ""
    run: "_Run | None" = None
    kept: float = 0.0


@dataclass(kw_only=True)
class _Job:
    """A packed item, and how many workers were lost over it."""

    index: int
    call: bytes
    lost: int = 0


class _Done(NamedTuple):
    """An item that came back, or did not."""

    job: _Job
    reply: "Future[bytes]"
    member: _Member


@dataclass(kw_only=True, eq=False)
class _Run:
    """One map: how many workers it can use, how many work for it, and what they are done with."""

    kind: str
    width: int
    wanting: bool = False
    closed: bool = False
    busy: int = 0
    done: deque[_Done] = field(default_factory=deque)


class Crew:
    """Up to `size` workers, hired when there is work for them and replaced when they are lost.

    Args:
        make: Starts a worker.
        size: Most workers, and most items of one map that are out at a time.
        max_retries: How often an item whose worker was lost is given to another, and how often in a row a worker may
            fail to start.
        dumps: Pickles functions and items.
        wait_s: Seconds to wait while there is no worker at all; None to wait forever.
        hint: What to look at when workers do not start.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        *,
        size: int,
        max_retries: int,
        dumps: Dumps,
        wait_s: float | None = None,
        hint: str = "",
    ) -> None:
        self.size = size
        self.max_retries = max_retries
        self.dumps = dumps
        self._make = make
        self._wait_s = wait_s
        self._hint = hint
        self._changed = threading.Condition()
        self._members: list[_Member] = []
        self._runs: list[_Run] = []
        self._failed_starts = 0
        self._last_seen = time.monotonic()
        self._error: Exception | None = None
        self._closed = False

    def map(self, function: Callable[[T], R], items: Iterable[T], *, kind: str) -> "Results[T, R]":
        """Return what `function` makes of every item, as it comes."""
        check_function(function, self.dumps)
        return Results(self, function, items, kind=kind)

    def close(self) -> None:
        """End all workers and wait until they have ended."""
        with self._changed:
            self._closed = True
            members, self._members = self._members, []
            self._changed.notify_all()
        workers = [(member.run is None and member.ready, member.worker) for member in members if member.worker]
        for idle, worker in workers:
            worker.end() if idle else worker.kill()
        for _, worker in workers:
            worker.join()

    def join(self, run: _Run) -> None:
        """Take part in the handing out of workers."""
        with self._changed:
            if not self._runs:
                self._last_seen = time.monotonic()
            self._runs.append(run)

    def leave(self, run: _Run) -> None:
        """Stop what runs for `run`."""
        with self._changed:
            run.closed, run.wanting = True, False
            self._runs = [other for other in self._runs if other is not run]
            busy = [member for member in self._members if member.run is run]
            self._members = [member for member in self._members if member.run is not run]
            if busy:
                self._last_seen = time.monotonic()
            self._changed.notify_all()
        for member in busy:
            if member.worker:
                member.worker.kill()

    def next_event(self, run: _Run, *, wants: bool) -> _Member | _Done | None:
        """Wait for a worker, where one is wanted, or for an item to come back; None when there is nothing to wait for.

        Raises:
            FusionError: When there are no workers to be had.
        """
        while True:
            self._hire()
            with self._changed:
                if run.closed:
                    return None
                self._require_workers()
                run.wanting = wants and run.busy + len(run.done) < self.size
                member = self._free_member(run) if run.wanting else None
                if member or run.done or (not wants and not run.busy):
                    run.wanting = False
                    if member:
                        member.run, member.kind = run, run.kind or member.kind
                        run.busy += 1
                        return member
                    return run.done.popleft() if run.done else None
                self._changed.wait(_PATIENCE_S)

    def send(self, member: _Member, run: _Run, job: _Job) -> None:
        """Give `job` to a worker that `next_event` gave to `run`."""
        assert member.worker is not None, "only workers that have started are handed out"
        member.worker.submit(job.call).add_done_callback(partial(self._finished, member, run, job))

    def _hire(self) -> None:
        """Start the workers that are missing."""
        with self._changed:
            wanted = 0 if self._closed or self._error else min(self.size, sum(run.width for run in self._runs))
            hired = [_Member() for _ in range(wanted - len(self._members))]
            self._members += hired
        for member in hired:
            try:
                worker = self._make()
            except BaseException:
                with self._changed:
                    self._members = [other for other in self._members if other not in hired or other.worker]
                raise
            with self._changed:
                member.worker = worker
                stays = member in self._members
            if stays:
                worker.ready.add_done_callback(partial(self._started, member))
            else:
                worker.kill()

    def _started(self, member: _Member, ready: "Future[None]") -> None:
        error = ready.exception()
        with self._changed:
            if error is None:
                member.ready, self._failed_starts = True, 0
                self._last_seen = time.monotonic()
            elif member in self._members:
                self._members.remove(member)
                self._failed_starts += 1
                if not isinstance(error, WorkerLost):
                    assert isinstance(error, Exception), "a worker reports exceptions"
                    self._error = error
                elif self._failed_starts > self.max_retries:
                    tried = f"{self._failed_starts} workers in a row could not start; the last one: {error}"
                    self._error = EngineError(f"{tried}. {self._hint}".strip())
            self._changed.notify_all()

    def _finished(self, member: _Member, run: _Run, job: _Job, reply: "Future[bytes]") -> None:
        now = time.monotonic()
        with self._changed:
            member.run = None
            if isinstance(reply.exception(), WorkerLost):
                self._last_seen = now
                if member in self._members:
                    self._members.remove(member)
            elif member.kind == run.kind:
                member.kept = now
            run.busy -= 1
            run.done.append(_Done(job, reply, member))
            self._changed.notify_all()

    def _require_workers(self) -> None:
        if self._closed:
            raise EngineError("the executor was closed while it had work to do; close it after the last map")
        if self._error:
            raise self._error
        alone = time.monotonic() - self._last_seen
        if self._wait_s is not None and alone > self._wait_s and not any(member.ready for member in self._members):
            raise EngineError(f"no worker could be had for {self._wait_s:g} seconds. {self._hint}".strip())

    def _free_member(self, run: _Run) -> _Member | None:
        idle = [member for member in self._members if member.ready and member.run is None]
        if not idle:
            return None
        holders = Counter(member.run.kind if member.run else member.kind for member in self._members)
        wanting = [other for other in self._runs if other.wanting]
        for member in sorted(idle, key=lambda member: member.kind != run.kind):
            if _taker(member, wanting, holders) is run:
                return member
        return None


class Results(Generic[T, R]):
    """What a function makes of items: (index, result) as they come. Closing it, from any thread, stops what runs."""

    def __init__(self, crew: Crew, function: Callable[[T], R], items: Iterable[T], *, kind: str) -> None:
        width = min(crew.size, len(items)) if isinstance(items, Sized) else crew.size
        self._run = _Run(kind=kind, width=width)
        self._crew = crew
        self._function = function
        self._feed: Iterator[tuple[int, T]] | None = enumerate(items)
        self._joined = False
        self._again: deque[_Job] = deque()
        self._job: _Job | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, R]:
        if not self._joined:
            self._joined = True
            if not self._run.closed:
                self._crew.join(self._run)
        try:
            while not self._run.closed:
                self._look_ahead()
                event = self._crew.next_event(self._run, wants=self._job is not None)
                if event is None:
                    break
                if isinstance(event, _Member):
                    assert self._job is not None, "workers are handed out for an item only"
                    job, self._job = self._job, None
                    self._crew.send(event, self._run, job)
                elif not self._was_lost(event):
                    return event.job.index, unpack(event.reply.result())
            raise StopIteration
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what has not come back; may be called twice."""
        self._feed = None
        if not self._run.closed:
            self._crew.leave(self._run)

    def __del__(self) -> None:
        self.close()

    def _look_ahead(self) -> None:
        """Take the next item when there is none waiting for a worker: lost ones first."""
        if self._job is None and self._again:
            self._job = self._again.popleft()
        if self._job is not None or self._feed is None:
            return
        try:
            index, item = next(self._feed)
        except StopIteration:
            self._feed = None
        else:
            self._job = _Job(index=index, call=pack(self._function, item, self._crew.dumps))

    def _was_lost(self, done: _Done) -> bool:
        """Return whether an item's worker was lost, and see to it that another gets it.

        Raises:
            EngineError: When too many were lost over it.
        """
        error, job = done.reply.exception(), done.job
        if not isinstance(error, WorkerLost):
            return False
        if done.member.worker:
            # It may only be out of reach.
            done.member.worker.kill()
        job.lost += 1
        if job.lost > self._crew.max_retries:
            raise EngineError(
                f"item {job.index} was given to {job.lost} workers and each was lost over it, the last one because "
                f"{error}. If memory ran out, take fewer workers or smaller items; else raise max_retries"
            )
        _LOG.warning(
            "a worker was lost (%s); item %d goes to another (retry %d of %d)",
            error,
            job.index,
            job.lost,
            self._crew.max_retries,
        )
        self._again.append(job)
        return True


def _taker(member: _Member, wanting: Sequence[_Run], holders: Counter[str]) -> _Run | None:
    """Return who of those that want a worker gets this idle one.

    A worker stays with its kind, as it may have loaded a model for it, unless another kind has at least two workers
    less; and it waits a moment for more of its kind.
    """

    def need(run: _Run) -> tuple[int, int]:
        return holders[run.kind], run.busy

    same = [run for run in wanting if run.kind == member.kind]
    other = min((run for run in wanting if run.kind != member.kind), key=need, default=None)
    if same and (other is None or holders[other.kind] + 2 > holders[member.kind]):
        return min(same, key=need)
    if other and not same and member.kind and time.monotonic() - member.kept < _PATIENCE_S:
        return None
    return other
