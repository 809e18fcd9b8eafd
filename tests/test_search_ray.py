"""Searching on workers finds what searching here finds, also when a worker or a node is lost in the middle."""

import contextlib
import itertools
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import executor_work as work
import numpy as np
import pytest
from ray_cluster import two_nodes
from tables import random_table

from fusion import discovery
from fusion.protocols import Executor
from fusion.selectors import Found, Objective, Prices, Scorer, Space, _search, search

AGENTS = tuple(f"agent {number}" for number in range(12))
SIZES = (2, 3, 4, 5)
TOTAL = 66 + 220 + 495 + 792
METHODS = ("exhaustive", "random", "beam+genetic")
RAY = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(120)]


def built(spec: str) -> Executor:
    made = discovery.build("executors", spec)
    assert isinstance(made, Executor)
    return made


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=RAY)])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The spec of an executor with two workers, and the cluster that they are on."""
    with contextlib.ExitStack() as stack:
        if request.param == "local":
            yield "local(workers=2)", None
        else:
            cluster = stack.enter_context(two_nodes())
            yield f'ray(address="{cluster.address}")', cluster


@pytest.fixture(scope="module")
def workers(place: tuple[str, Any]) -> Iterator[Executor]:
    with built(place[0]) as executor:
        yield executor


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """Two threads here; a worker uses one."""
    table = random_table(0, questions=300, agents=AGENTS)
    prices = Prices(np.linspace(0.1, 1.2, 12), np.linspace(1, 2, 12))
    return Scorer.of(table, Objective.parse("focal=0.5,accuracy=0.5,cost=-0.01"), prices=prices, threads=2)


@pytest.fixture(scope="module")
def space(scorer: Scorer) -> Space:
    return Space(num_agents=12, sizes=SIZES, free=tuple(range(12)), usd=scorer.usd, max_usd=4.0)


@pytest.fixture(autouse=True, scope="module")
def _small_chunks() -> Iterator[None]:
    """Many pieces here, and others on workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_search, "CHUNK", 60)
        patch.setattr(_search, "_REMOTE_CHUNK", 100)
        yield


@pytest.fixture(scope="module")
def here(scorer: Scorer, space: Space) -> dict[str, Found]:
    """What is found without an executor."""
    return {method: searched(scorer, space, method) for method in METHODS}


def searched(scorer: Scorer, space: Space, method: str, **options: Any) -> Found:
    return search(scorer, space, top=50, method=method, budget=600, seed=5, **options)


def both_awake(executor: Executor) -> set[int]:
    """Return the ids of both worker processes, started and idle."""
    pids: set[int] = set()
    while len(pids) < 2:
        pids = {pid for _, pid in executor.map(work.sleep, [0.05] * 6)}
    return pids


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def after(count: int, then: Callable[[], object]) -> Callable[[int, int], None]:
    """Return what does something when it is told of progress for the n-th time."""
    calls = itertools.count(1)

    def told(done: int, total: int) -> None:
        if next(calls) == count:
            then()

    return told


def interrupt() -> None:
    raise KeyboardInterrupt


def assert_same(there: Found, here: Found) -> None:
    for name in ("method", "searched", "total", "complete"):
        assert getattr(there, name) == getattr(here, name), name
    for one, other in ((there.best, here.best), (there.front, here.front)):
        assert one.members == other.members
        for column, same in zip(one.scores, other.scores, strict=True):
            np.testing.assert_array_equal(column, same, strict=True)


@pytest.mark.parametrize("method", METHODS)
def test_same_as_here(method: str, workers: Executor, scorer: Scorer, space: Space, here: dict[str, Found]) -> None:
    told: list[tuple[int, int]] = []
    there = searched(scorer, space, method, executor=workers, told=lambda done, total: told.append((done, total)))
    assert_same(there, here[method])
    assert len(here[method].best.members) == 50
    assert told[-1][0] == told[-1][1]
    if method == "exhaustive":
        assert told[-1] == (TOTAL, TOTAL)
        assert len(told) == 1 + 3 + 5 + 8, "100 a piece"
        assert there.searched < TOTAL, "the limit on the price counts"


def test_interrupted(workers: Executor, scorer: Scorer, space: Space) -> None:
    """What was found until then is returned, and the workers are there for the next search."""
    for method in METHODS:
        told = after(2, interrupt)
        found = searched(scorer, space, method, executor=workers, told=told)
        assert not found.complete
        assert found.best.members
    assert_same(searched(scorer, space, "exhaustive", executor=workers), searched(scorer, space, "exhaustive"))


@pytest.mark.parametrize("method", ["exhaustive", "random"])
def test_worker_that_is_killed(
    method: str,
    workers: Executor,
    scorer: Scorer,
    space: Space,
    here: dict[str, Found],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pids = both_awake(workers)
    victim = min(pids)
    with caplog.at_level(logging.WARNING, "fusion"):
        told = after(3, lambda: os.kill(victim, signal.SIGKILL))
        there = searched(scorer, space, method, executor=workers, told=told)
    assert_same(there, here[method])
    assert "goes to another (retry 1 of 3)" in caplog.text
    assert victim not in both_awake(workers)


def test_work_can_be_sent(scorer: Scorer, space: Space) -> None:
    """A piece of work is little more than the scorer; a worker uses one thread, and what it returns is small."""
    job = _search.Job(scorer, space, 50, next(space.chunks(500)), 0)
    assert len(pickle.dumps(job)) < len(pickle.dumps(scorer)) + 2048
    piece = _search.work(pickle.loads(pickle.dumps(job)))
    assert piece.searched == 66
    assert len(piece.best.members) == 50
    assert len(pickle.dumps(piece)) < 8192


@pytest.mark.parametrize("place", [pytest.param("ray", marks=RAY)], indirect=True)
def test_node_that_is_lost(
    place: tuple[str, Any],
    workers: Executor,
    scorer: Scorer,
    space: Space,
    here: dict[str, Found],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other node does the rest. The last test: it leaves the cluster with one node."""
    _, cluster = place
    (node,) = cluster.worker_nodes
    pids = both_awake(workers)

    def lose() -> None:
        """A worker that has lost its node goes on for a moment; wait until it has ended, too."""
        cluster.remove_node(node, allow_graceful=False)
        deadline = time.monotonic() + 30
        while all(map(alive, pids)):
            assert time.monotonic() < deadline, "the worker outlives its node"
            time.sleep(0.02)

    with caplog.at_level(logging.WARNING, "fusion"):
        told = after(3, lose)
        there = searched(scorer, space, "exhaustive", executor=workers, told=told)
    assert_same(there, here["exhaustive"])
    assert "goes to another" in caplog.text
