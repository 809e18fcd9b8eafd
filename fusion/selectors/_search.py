"""Finding the best sub-ensembles: all of them where that is affordable, else beam and genetic search.

Exhaustive search scores every sub-ensemble that is allowed. Beyond a budget, `beam` grows the best sub-ensembles by one
member at a time and then exchanges single members while that helps; `genetic` (what LLM-TOPLA uses, arXiv 2410.03953)
recombines good ones. `random` scores a sample: what a search must beat to be worth anything.

An executor spreads the chunks of exhaustive and random search, and the islands of genetic search, over its workers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from fusion.errors import UnknownName, UsageError
from fusion.protocols import Executor
from fusion.schema import FloatArray, IntArray
from fusion.selectors._evolve import evolve, grow
from fusion.selectors._objective import TERMS
from fusion.selectors._score import Scorer, Scores
from fusion.selectors._subsets import CHUNK, Best, Chunk, Front, Scored, Space

Method = Literal["exhaustive", "beam", "genetic", "beam+genetic", "random"]
METHODS: tuple[str, ...] = ("auto", *get_args(Method))

BUDGET = 20_000_000
"""Sub-ensembles that exhaustive search scores without being asked to: about ten seconds on two cores."""

_ISLANDS = 4
_REMOTE_CHUNK = CHUNK * 8

Told = Callable[[int, int], None]
"""Told how many sub-ensembles are done, and how many there are to do as far as is known."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Sub-ensembles kept for plots, in the order in which they were scored.

    Attributes:
        members: int16 [P, S], ranks; -1 beyond the members of smaller ones.
        scores: Columns.
        sampled_from: Number of sub-ensembles of which these are a sample, evenly over all; None when they are all.
    """

    members: IntArray
    scores: Scores
    sampled_from: int | None


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        best: Sub-ensembles by rank, best first.
        method: How it searched.
        searched: Number of different sub-ensembles scored.
        total: Number of sub-ensembles that are allowed, before limits on price and latency.
        complete: False when it was interrupted.
        front: The sub-ensembles that are accurate for their size and price, as far as they were scored (`Front`).
        cloud: Sub-ensembles kept for plots; None when none were asked for.
    """

    best: Scored
    method: Method
    searched: int
    total: int
    complete: bool
    front: Scored
    cloud: Cloud | None = None

    @property
    def exhaustive(self) -> bool:
        """Whether every sub-ensemble that is allowed was scored."""
        return self.method == "exhaustive" and self.complete


class Job(NamedTuple):
    """A piece of a search, for a worker.

    Attributes:
        scorer, space: What is searched.
        most: How many of the best to return.
        piece: A chunk of all sub-ensembles, random ones, or the sub-ensembles that an island starts from.
        seed: Of random draws.
    """

    scorer: Scorer
    space: Space
    most: int
    piece: "Chunk | _Draw | tuple[tuple[int, ...], ...]"
    seed: int


class Piece(NamedTuple):
    """What a worker found.

    Attributes:
        best, front: Sub-ensembles.
        searched: How many it scored.
        seen: Which, where workers may come across the same ones.
    """

    best: Scored
    front: Scored
    searched: int
    seen: set[tuple[int, ...]] | None


class _Draw(NamedTuple):
    """Sub-ensembles of one size drawn at random, `start` being the number of those drawn before."""

    size: int
    start: int
    length: int


def search(
    scorer: Scorer,
    space: Space,
    *,
    top: int = 10,
    method: str = "auto",
    budget: int = BUDGET,
    seed: int = 0,
    executor: Executor | None = None,
    keep: int = 0,
    told: Told | None = None,
) -> Found:
    """Find the best sub-ensembles of a space.

    Args:
        scorer: What makes one good.
        space: Which are allowed.
        top: How many to return.
        method: One of `METHODS`; auto is exhaustive up to `budget` sub-ensembles, beyond it beam+genetic.
        budget: How many are affordable; random search scores as many.
        seed: Of random draws.
        executor: Where to search; here, with the scorer's threads, when None.
        keep: How many scored sub-ensembles to return for plots.
        told: Told of the progress.

    Returns:
        The best; what was found so far when interrupted (KeyboardInterrupt).

    Raises:
        UsageError: When the objective is undefined for one of the sizes.
        UnknownName: When there is no such method.
    """
    if method not in METHODS:
        raise UnknownName(kind="search method", name=method, known=METHODS)
    if top < 1 or budget < 1:
        raise UsageError(f"expected top >= 1 and budget >= 1, got top {top} and budget {budget}")
    scorer.objective.require_sizes(space.sizes)
    if method == "auto":
        method = "exhaustive" if space.total <= budget else "beam+genetic"
    repeats = "beam" in method or "genetic" in method
    recorder = _Recorder(scorer, top, keep if executor is None else 0, space, repeats=repeats)
    told = told or (lambda done, total: None)
    complete = True
    try:
        if method in ("exhaustive", "random"):
            total = budget if method == "random" else space.total
            _sweep(recorder, space, total, method == "random", seed, executor, told)
        if "beam" in method:
            grow(recorder.proposed(told), space, least=1 + any(TERMS[name].pairs for name in scorer.objective.weights))
        if "genetic" in method:
            _islands(recorder, space, seed, executor, told)
    except KeyboardInterrupt:
        complete = False
    return Found(
        best=recorder.best.found,
        method=cast("Method", method),
        searched=recorder.searched,
        total=space.total,
        complete=complete,
        front=recorder.front.found,
        cloud=recorder.cloud(),
    )


def work(job: Job) -> "Piece":
    """Do one piece of a search in a worker."""
    repeats = not isinstance(job.piece, Chunk | _Draw)
    recorder = _Recorder(dataclasses.replace(job.scorer, threads=1), job.most, 0, job.space, repeats=repeats)
    _do(recorder, job)
    return Piece(recorder.best.found, recorder.front.found, recorder.searched, recorder.seen)


class _Recorder:
    """Scores sub-ensembles and keeps the best, and some for plots."""

    def __init__(self, scorer: Scorer, top: int, keep: int, space: Space, *, repeats: bool) -> None:
        self.scorer = scorer
        self.best = Best(top)
        self.front = Front(scorer.usd)
        self.searched = 0
        self.keep = keep
        self.share = 1.0
        self._sizes = space.sizes
        # Beam and genetic search come across the same ones again.
        self.seen: set[tuple[int, ...]] | None = set() if repeats else None
        self._rows: list[IntArray] = []
        self._scores: list[Scores] = []

    def score(self, rows_PS: IntArray) -> FloatArray:
        """Score sub-ensembles of one size and return their objectives."""
        if not len(rows_PS):
            return np.empty(0)
        scores = self.scorer(rows_PS)
        # Beam search comes through sizes that nobody asked for.
        if rows_PS.shape[1] in self._sizes:
            self.best.add(rows_PS, scores)
            self.front.add(rows_PS, scores)
            self._count(rows_PS, scores)
        return scores.objective

    def add(self, piece: Piece) -> None:
        """Take over what a worker found."""
        self.best.merge(piece.best)
        self.front.merge(piece.front)
        if self.seen is None or piece.seen is None:
            self.searched += piece.searched
        else:
            self.searched += len(piece.seen - self.seen)
            self.seen |= piece.seen

    def proposed(self, told: Told) -> Callable[[IntArray], FloatArray]:
        """Return `score` for searches that cannot tell how many sub-ensembles they will look at."""

        def score(rows_PS: IntArray) -> FloatArray:
            objective_P = self.score(rows_PS)
            told(self.searched, 0)
            return objective_P

        return score

    def cloud(self) -> Cloud | None:
        """Return the sub-ensembles kept for plots."""
        if not self.keep:
            return None
        width = self._sizes[-1]
        padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in self._rows]
        members_PS = np.vstack([np.empty((0, width), np.int16), *padded])
        columns = zip(*self._scores, strict=True) if self._scores else ((), (), ())
        scores = Scores(*(np.concatenate([np.empty(0), *column]) for column in columns))
        sampled = self.share < 1
        if len(members_PS) > self.keep:  # Of a search that could not tell beforehand how many it would look at.
            sampled = True
            drawn = np.sort(np.random.default_rng(0).permutation(len(members_PS))[: self.keep])
            members_PS, scores = members_PS[drawn], Scores(*(column[drawn] for column in scores))
        return Cloud(members_PS, scores, self.searched if sampled else None)

    def _count(self, rows_PS: IntArray, scores: Scores) -> None:
        if self.seen is not None:
            rows = list(map(tuple, rows_PS.tolist()))
            fresh_P = np.array([row not in self.seen for row in rows])
            self.seen.update(rows)
            rows_PS, scores = rows_PS[fresh_P], Scores(*(column[fresh_P] for column in scores))
        if self.keep:
            self._sample(rows_PS, scores)
        self.searched += len(rows_PS)

    def _sample(self, rows_PS: IntArray, scores: Scores) -> None:
        if self.share < 1:
            count = max(1, round(self.share * len(rows_PS)))
            drawn = np.random.default_rng(self.searched).permutation(len(rows_PS))[:count]
            rows_PS, scores = rows_PS[drawn], Scores(*(column[drawn] for column in scores))
        self._rows.append(rows_PS)
        self._scores.append(scores)


def _sweep(
    recorder: _Recorder,
    space: Space,
    total: int,
    random: bool,
    seed: int,
    executor: Executor | None,
    told: Told,
) -> None:
    """Score all sub-ensembles of a space, or as many random ones."""
    recorder.share = min(1.0, recorder.keep / total)
    # Draws depend on the length of a piece, and shall not depend on the executor.
    most = CHUNK if executor is None or random else _REMOTE_CHUNK
    pieces = _draws(space, total, most) if random else space.chunks(most)
    lengths: list[int] = []

    def jobs() -> Iterator[Job]:
        for piece in pieces:  # Not listed beforehand: there may be millions.
            lengths.append(piece.length)
            yield Job(recorder.scorer, space, recorder.best.most, piece, seed)

    done = 0
    for index in _done(recorder, jobs(), executor):
        done += lengths[index]
        told(done, total)


def _islands(recorder: _Recorder, space: Space, seed: int, executor: Executor | None, told: Told) -> None:
    """Evolve several populations, each from the best found so far."""
    start = recorder.best.found.members
    jobs = [Job(recorder.scorer, space, recorder.best.most, start, seed + island) for island in range(_ISLANDS)]
    for done, _ in enumerate(_done(recorder, jobs, executor), start=1):
        told(done, len(jobs))


def _done(recorder: _Recorder, jobs: Iterable[Job], executor: Executor | None) -> Iterator[int]:
    """Do the jobs, here or on workers, and yield the position of each that is done."""
    if executor is None:
        for index, job in enumerate(jobs):
            _do(recorder, job)
            yield index
        return
    with closing(executor.map(work, jobs, kind="prune")) as results:
        for index, piece in results:
            recorder.add(piece)
            yield index


def _do(recorder: _Recorder, job: Job) -> None:
    if isinstance(job.piece, Chunk):
        recorder.score(job.space.rows(job.piece))
    elif isinstance(job.piece, _Draw):
        recorder.score(_drawn(job.space, job.piece, job.seed))
    else:
        evolve(recorder.score, job.space, seed=job.seed, seeds=job.piece)


def _draws(space: Space, total: int, most: int) -> Iterator[_Draw]:
    """Yield pieces of random sub-ensembles, as many of each size as its share of all."""
    for size, count in space.counts():
        wanted = min(count, max(1, round(total * count / space.total)))
        for start in range(0, wanted, most):
            yield _Draw(size, start, min(most, wanted - start))


def _drawn(space: Space, draw: _Draw, seed: int) -> IntArray:
    """Return the distinct sub-ensembles of a draw that are within the limits, int16 [P, S]."""
    rng = np.random.default_rng([seed, draw.size, draw.start])
    keys_PM = rng.random((draw.length, len(space.free)), dtype=np.float32)
    chosen = draw.size - len(space.include)
    picked_PS = np.argpartition(keys_PM, max(chosen - 1, 0), axis=1)[:, :chosen]
    rows_PS = np.array(space.free, np.int16)[picked_PS]
    fixed_PS = np.broadcast_to(np.array(space.include, np.int16), (draw.length, len(space.include)))
    return space.within(np.unique(np.sort(np.hstack([rows_PS, fixed_PS]), axis=1), axis=0))
