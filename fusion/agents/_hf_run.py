"""The work of one `generate` call: requests into batches, batches through models, completions out."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fusion.agents._hf_library import AdapterCard, Card, Library, Place, Settings, first_line, require
from fusion.agents._hf_prompt import decode, special_tokens
from fusion.agents._tokens import Prepared, Written, as_scored, as_written, prepare
from fusion.errors import EngineError, FusionError
from fusion.schema import Completion, Request

if TYPE_CHECKING:
    from fusion.agents._hf_rows import Lent
    from fusion.agents._hf_store import Store
    from fusion.agents._hf_write import Draft

Answer = tuple[int, Completion]
Emit = Callable[[Answer], None]

_BROKEN = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
"""What models raise on input that they cannot take."""


@dataclass(kw_only=True)
class _Job:
    """A request on its way.

    Args:
        index: Its place in the call.
        request: The request.
        card: Its model.
        prepared: The same as tokens.
        logprobs: Of the continuations scored so far, by position.
        seconds: Wall time of its batches so far.
    """

    index: int
    request: Request
    card: Card
    prepared: Prepared
    logprobs: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


class _Unit(NamedTuple):
    """What goes into a batch as a whole: an answer to write, or some continuations of one prompt to score."""

    job: _Job
    options: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        # Continuations of a single token are read off the prompt's own row.
        return max(1, sum(len(self.job.prepared.continuations[k]) > 1 for k in self.options))


class _Trouble(NamedTuple):
    said: str
    memory: bool


class Runner:
    """Answers requests; owns the models. All but `library` is for the worker's thread."""

    def __init__(self) -> None:
        self.library = Library()
        self._store: Store | None = None

    def store(self) -> "Store":
        """Return the loaded models.

        Raises:
            MissingDependency: When torch or transformers is not installed.
        """
        if self._store is None:
            require("torch", "transformers")
            from fusion.agents._hf_store import Store

            self._store = Store()
        return self._store

    def holds(self, request: Request) -> bool:
        """Return whether the request's model is in memory."""
        try:
            return self._store is not None and self._store.holds(self.library.card(request))
        except FusionError:
            return False

    def close(self) -> None:
        """Give all models back and forget what was read of them."""
        if self._store is not None:
            self._store.clear()
        self.library.clear()

    def answer(self, settings: Settings, requests: Sequence[Request], emit: Emit, stop: threading.Event) -> None:
        """Answer every request once; those that are left when `stop` is set are cancelled.

        Raises:
            FusionError: When no request can be answered for want of its package, model or adapter.
        """
        store = self.store()
        with store.threads(settings.threads):
            _Call(self, settings, requests, emit, stop).run()


class _Call:
    """One call of `generate`."""

    def __init__(
        self, runner: Runner, settings: Settings, requests: Sequence[Request], emit: Emit, stop: threading.Event
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._requests = requests
        self._emit = emit
        self._stop = stop
        self._waiting = set(range(len(requests)))

    def run(self) -> None:
        store = self._runner.store()
        unavailable: dict[int, FusionError] = {}
        groups = [] if self._stop.is_set() else self._groups(unavailable)
        # What is in memory comes first, before room is made for others.
        for card, adapter, indices in sorted(groups, key=lambda group: not store.holds(group[0])):
            if self._stop.is_set():
                break
            if jobs := list(self._jobs(card, indices)):
                try:
                    with store.lend(card, adapter, self._settings) as lent:
                        self._work(lent, jobs)
                except EngineError as error:
                    unavailable |= {job.index: error for job in jobs if job.index in self._waiting}
        if unavailable and len(unavailable) == len(self._requests):
            raise unavailable[min(unavailable)]
        for index, reason in unavailable.items():
            self._finish(index, Completion(status="engine_error", detail=str(reason)))
        for index in sorted(self._waiting):
            self._finish(index, Completion(status="cancelled", detail="the engine was closed"))

    def _groups(self, unavailable: dict[int, FusionError]) -> list[tuple[Card, AdapterCard | None, list[int]]]:
        """Return the requests by model and adapter, those of one model next to each other, bases first."""
        named: dict[tuple[str, str | None, str | None], list[int]] = {}
        for index, request in enumerate(self._requests):
            named.setdefault((request.model, request.revision, request.adapter), []).append(index)
        groups: dict[Place, list[tuple[Card, AdapterCard | None, list[int]]]] = {}
        for indices in named.values():
            first = self._requests[indices[0]]
            try:
                card, adapter = self._runner.library.card(first), self._runner.library.adapter(first)
            except FusionError as error:
                unavailable |= dict.fromkeys(indices, error)
                continue
            groups.setdefault(card.place, []).append((card, adapter, indices))
        return [group for same in groups.values() for group in sorted(same, key=lambda group: group[1] is not None)]

    def _jobs(self, card: Card, indices: Sequence[int]) -> Iterator[_Job]:
        """Yield what can be asked; the rest is finished with what is wrong with it."""
        for index in indices:
            if self._stop.is_set():
                return
            try:
                yield _job(index, self._requests[index], card)
            except FusionError as error:
                self._finish(index, Completion(status="engine_error", detail=str(error)))

    def _work(self, lent: "Lent", jobs: Sequence[_Job]) -> None:
        from fusion.agents._hf_score import Scoring, score
        from fusion.agents._hf_write import write

        def write_all(units: Sequence[_Unit]) -> None:
            card = units[0].job.card
            drafts = [_draft(unit.job) for unit in units]
            answers = write(lent, drafts, lambda ids: decode(card, ids), self._stop)
            if not self._stop.is_set():
                written.extend(zip(units, answers, strict=True))

        def score_all(units: Sequence[_Unit]) -> None:
            batch = [
                Scoring(job.prepared.prompt, [job.prepared.continuations[k] for k in options]) for job, options in units
            ]
            for (job, options), values in zip(units, score(lent, batch), strict=True):
                job.logprobs.update(zip(options, values, strict=True))

        written: list[tuple[_Unit, Written]] = []
        size = self._settings.batch_size
        open_ended = [_Unit(job) for job in jobs if not job.prepared.continuations]
        # Rows of like room and like length waste least; the longest first, so that memory runs out early or never.
        open_ended.sort(key=lambda unit: (-unit.job.prepared.room, -len(unit.job.prepared.prompt)))
        for _ in self._batches(open_ended, write_all, size=size if lent.pads_left else 1):
            for unit, answer in written:
                job = unit.job
                self._finish(job.index, as_written(job.prepared, job.card, answer, seconds=job.seconds))
            written.clear()
        scored = sorted((job for job in jobs if job.prepared.continuations), key=lambda job: -len(job.prepared.prompt))
        units = [
            unit
            for job in scored
            for unit in _units(job, range(len(job.prepared.continuations)), self._settings.batch_size)
        ]
        for done in self._batches(units, score_all, size=size):
            for job in {id(unit.job): unit.job for unit in done}.values():
                if len(job.logprobs) == len(job.prepared.continuations):
                    self._finish(job.index, _scored(job))

    def _batches(
        self, units: Sequence[_Unit], work: Callable[[Sequence[_Unit]], None], *, size: int
    ) -> Iterator[list[_Unit]]:
        """Do the work in batches of `size` rows at most, yielding what was done.

        A batch that memory does not suffice for is halved, for all that follow too. One that fails otherwise is done
        again unit by unit, so that only what is at fault fails.
        """
        pending = deque(units)
        alone: set[int] = set()
        while pending and not self._stop.is_set():
            batch = _take(pending, size, alone)
            if batch[0].job.index not in self._waiting:
                continue
            trouble = self._attempt(batch, work)
            num_rows = sum(unit.num_rows for unit in batch)
            if trouble is None:
                yield batch
            elif trouble.memory and num_rows > 1:
                size = max(1, num_rows // 2)
                pending.extendleft(reversed([part for unit in batch for part in _units(*unit, size)]))
            elif len(batch) > 1:
                alone.update(id(unit.job) for unit in batch)
                pending.extendleft(reversed(batch))
            else:
                job = batch[0].job
                what = "memory does not suffice for this request alone" if trouble.memory else "the model failed"
                detail = f"{what}: {trouble.said}"
                self._finish(job.index, Completion(status="engine_error", detail=detail, seconds=job.seconds))

    def _attempt(self, batch: Sequence[_Unit], work: Callable[[Sequence[_Unit]], None]) -> _Trouble | None:
        from fusion.agents._hf_store import out_of_memory, release_memory

        start = time.perf_counter()
        trouble = None
        try:
            work(batch)
        except _BROKEN as error:
            trouble = _Trouble(first_line(error), out_of_memory(error))
        if trouble is not None and trouble.memory:
            # Only now, as the exception held the batch's tensors.
            release_memory()
        seconds = time.perf_counter() - start
        for job in {id(unit.job): unit.job for unit in batch}.values():
            job.seconds += seconds
        return trouble

    def _finish(self, index: int, completion: Completion) -> None:
        if index in self._waiting:
            self._waiting.discard(index)
            self._emit((index, completion))


def _take(pending: deque[_Unit], size: int, alone: set[int]) -> list[_Unit]:
    """Take units off the front, of `size` rows at most, or one that is larger or must be alone."""
    batch = [pending.popleft()]
    num_rows = batch[0].num_rows
    while pending and id(batch[0].job) not in alone and id(pending[0].job) not in alone:
        num_rows += pending[0].num_rows
        if num_rows > size:
            break
        batch.append(pending.popleft())
    return batch


def _units(job: _Job, options: Sequence[int], size: int) -> list[_Unit]:
    """Return the work on `options` of a job in units of `size` rows at most."""
    longer = [k for k in options if len(job.prepared.continuations[k]) > 1]
    shorter = [k for k in options if len(job.prepared.continuations[k]) == 1]
    parts = [longer[i : i + size] for i in range(0, len(longer), size)] or [[]]
    parts[0] = shorter + parts[0]
    return [_Unit(job, tuple(part)) for part in parts]


def _job(index: int, request: Request, card: Card) -> _Job:
    prepared = prepare(request, card, context=card.context)
    return _Job(index=index, request=request, card=card, prepared=prepared)


def _draft(job: _Job) -> "Draft":
    from fusion.agents._hf_write import Draft

    request = job.request
    return Draft(
        prompt=job.prepared.prompt,
        room=job.prepared.room,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=request.stop,
        seed=request.seed,
        ends=special_tokens(job.card, request.stop),
    )


def _scored(job: _Job) -> Completion:
    texts = job.request.continuations
    logprobs = [job.logprobs[k] for k in range(len(texts))]
    return as_scored(job.prepared, job.card, texts, logprobs, seconds=job.seconds)
