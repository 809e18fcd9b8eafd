"""Recording on a Ray cluster of two nodes: work goes to both, and nothing is lost with a worker or a node."""

import functools
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import executor_work as work
import pytest
import yaml
from ray_cluster import two_nodes

from fusion.agents import Agent, AgentPool, RemoteAnswerer
from fusion.data import PredictionTable
from fusion.discovery import build
from fusion.errors import EngineError, MissingDependency, UsageError
from fusion.protocols import Executor
from fusion.recording import RecordOptions, RecordResult, record
from fusion.schema import Spec

POOL = AgentPool(
    (
        Agent(name="ash", engine=Spec("echo", {"replies": ["A", "B", "C"], "delay_s": 0.01})),
        Agent(name="birch", engine=Spec("echo", {"replies": ["The answer is B", "D", "?"], "delay_s": 0.01})),
    )
)
LIMIT = "200"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> RecordResult:
    return record(POOL, "micro", tmp_path_factory.mktemp("here"), options=RecordOptions(limit=LIMIT))


class Watched:
    """An executor that notes where results were made, and does something after some of them."""

    def __init__(self, executor: Executor, *, after: int = 0, then: Callable[["Watched"], None] | None = None) -> None:
        self.executor = executor
        self.after = after
        self.then = then
        self.seen: list[work.Seen] = []

    def count(self) -> int:
        return self.executor.count()

    def map(self, function: Any, items: Any, *, kind: str = "") -> Any:
        return WatchedResults(self, self.executor.map(functools.partial(work.watched, function), items, kind=kind))

    def note(self, seen: work.Seen) -> None:
        self.seen.append(seen)
        if self.then and len(self.seen) == self.after:
            self.then(self)

    def close(self) -> None:
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WatchedResults:
    """Results as they were before they were watched."""

    def __init__(self, watched: Watched, results: Any) -> None:
        self.watched = watched
        self.results = results

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Any]:
        index, seen = next(self.results)
        self.watched.note(seen)
        return index, seen.result

    def close(self) -> None:
        self.results.close()


def executor_of(cluster: Any, **params: Any) -> Executor:
    made = build("executors", Spec("ray", {"address": cluster.address, **params}))
    assert isinstance(made, Executor)
    return made


def recorded(watched: Watched, folder: Path) -> RecordResult:
    """Record, with both workers awake from the start."""
    while len({pid for _, pid in watched.executor.map(work.sleep, [0.05] * 6)}) < 2:
        pass
    options = RecordOptions(limit=LIMIT, answerer=RemoteAnswerer(watched, POOL))
    return record(POOL, "micro", folder, options=options)


def assert_same(there: RecordResult, here: RecordResult) -> None:
    """Check that nothing was lost, and that it does not matter where it was answered."""

    def content(table: PredictionTable) -> tuple[Any, ...]:
        assert table.texts is not None
        return table.question_ids.tolist(), table.agents, table.answers.tolist(), table.texts.tolist()

    assert content(there.table) == content(here.table)
    assert [member.statuses for member in there.members] == [member.statuses for member in here.members]
    assert [member.error for member in there.members] == ["", ""]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(120)
class TestRecording:
    """In this order: the last test leaves the cluster with one node."""

    def test_both_nodes_work(self, cluster: Any, here: RecordResult, tmp_path: Path) -> None:
        with Watched(executor_of(cluster)) as watched:
            assert watched.count() == 2
            there = recorded(watched, tmp_path)
        assert_same(there, here)
        nodes = Counter(seen.node for seen in watched.seen)
        assert len(nodes) == 2
        assert min(nodes.values()) >= 4, nodes
        assert len({seen.pid for seen in watched.seen}) == 2, "a worker keeps its process, and with it what it loaded"
        assert len(watched.seen) == 2 * 13, "200 requests in chunks of 16, for each of two agents"

    def test_on_the_command_line(self, cluster: Any, here: RecordResult, tmp_path: Path) -> None:
        pool = tmp_path / "pool.yaml"
        pool.write_text(yaml.safe_dump({"agents": [_row(agent) for agent in POOL]}))
        words = ["record", "--pool", str(pool), "--task", "micro", "--limit", LIMIT, "--out", str(tmp_path / "out")]
        told = subprocess.run(
            [sys.executable, "-m", "fusion", *words, "--executor", "ray"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "RAY_ADDRESS": cluster.address},
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert f"fingerprint {here.table.fingerprint[:16]}" in told.stdout

    def test_worker_that_is_killed(
        self, cluster: Any, here: RecordResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def kill(watched: Watched) -> None:
            os.kill(watched.seen[-1].pid, signal.SIGKILL)

        with caplog.at_level(logging.WARNING, "fusion"), Watched(executor_of(cluster), after=8, then=kill) as watched:
            there = recorded(watched, tmp_path)
        assert_same(there, here)
        assert "goes to another (retry 1 of 3)" in caplog.text
        assert watched.seen[7].pid not in {seen.pid for seen in watched.seen[12:]}

    def test_workers_that_are_not_to_be_had(self, cluster: Any) -> None:
        with (
            executor_of(cluster, num_gpus=1.0) as executor,
            pytest.raises(UsageError, match=r"own 1 CPU, 1 GPU, and no node has that \(nodes: 1 CPU, 0 GPU; 1 CPU"),
        ):
            executor.count()
        with executor_of(cluster, num_cpus=0.0) as executor, pytest.raises(UsageError, match="give workers"):
            executor.count()
        with executor_of(cluster, num_gpus=1.0, workers=1, wait_s=0.5) as executor:
            results = executor.map(work.double, [1])
            with pytest.raises(EngineError, match=r"no worker could be had for 0\.5 seconds.*ray status"):
                next(results)

    def test_node_with_another_version(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with executor_of(cluster) as executor:
            monkeypatch.setattr(f"{type(executor).__module__}.__version__", "99")
            results = executor.map(work.double, [1])
            with pytest.raises(EngineError, match=r"a node of the cluster has fusion .*, this is 99"):
                next(results)

    def test_connection_of_the_caller_stays(self, cluster: Any) -> None:
        import ray

        ray.init(address=cluster.address, log_to_driver=False)
        try:
            with executor_of(cluster) as executor:
                assert list(executor.map(work.double, [4])) == [(0, 8)]
            assert ray.is_initialized()
        finally:
            ray.shutdown()

    def test_node_that_is_lost(
        self, cluster: Any, here: RecordResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The other node does the rest."""
        (node,) = cluster.worker_nodes

        def remove(watched: Watched) -> None:
            cluster.remove_node(node, allow_graceful=False)

        with caplog.at_level(logging.WARNING, "fusion"), Watched(executor_of(cluster), after=8, then=remove) as watched:
            there = recorded(watched, tmp_path)
        assert_same(there, here)
        assert len({seen.node for seen in watched.seen[:8]}) == 2
        # What it had answered before may arrive after its end.
        assert len({seen.node for seen in watched.seen[16:]}) == 1
        assert "goes to another" in caplog.text


def _row(agent: Agent) -> dict[str, Any]:
    assert agent.engine is not None
    return {"name": agent.name, "engine": {"kind": agent.engine.name, **agent.engine.params}}


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "auto"])
def test_no_cluster(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there; Ray itself would try for more than five minutes."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'fusion[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    executor = build("executors", Spec("ray", {"address": address}))
    assert isinstance(executor, Executor)
    with pytest.raises(EngineError, match=f"cannot connect to a Ray cluster at '{address}'.*`ray start --head`"):
        executor.count()


def test_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    executor = build("executors", "ray")
    assert isinstance(executor, Executor)
    with pytest.raises(MissingDependency, match=r"the executor ray needs the package ray.*fusion\[ray\]"):
        executor.count()
