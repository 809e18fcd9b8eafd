"""Every executor keeps the same promises: each item once, in any order, whatever happens to the workers."""

import contextlib
import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import executor_work as work
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_cluster import two_nodes

from fusion import discovery
from fusion.errors import EngineError, MissingDependency, UnknownName, UsageError
from fusion.executors._call import answer, pack, unpack
from fusion.protocols import Executor

RAY = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(120)]


def built(spec: str) -> Executor:
    made = discovery.build("executors", spec)
    assert isinstance(made, Executor)
    return made


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=RAY)])
def workers(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Two workers, shared by the tests: what one test does to them must not disturb the next."""
    with contextlib.ExitStack() as stack:
        spec = "local(workers=2)"
        if request.param == "ray":
            spec = f'ray(address="{stack.enter_context(two_nodes()).address}")'
        yield stack.enter_context(built(spec))


def both_awake(executor: Executor) -> set[int]:
    """Return the ids of both worker processes, started and idle."""
    pids: set[int] = set()
    while len(pids) < 2:
        pids = {pid for _, pid in executor.map(work.sleep, [0.05] * 6)}
    return pids


def until(holds: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class TestResults:
    def test_each_item_once_with_its_index(self, workers: Executor) -> None:
        assert sorted(workers.map(work.double, range(300))) == [(i, 2 * i) for i in range(300)]

    def test_as_they_end(self, workers: Executor) -> None:
        """A worker sleeps over the first item, so the second comes first."""
        both_awake(workers)
        assert [index for index, _ in workers.map(work.sleep, [0.6, 0.0])] == [1, 0]

    def test_nothing_to_do(self, workers: Executor) -> None:
        results = workers.map(work.double, [])
        assert list(results) == []
        assert next(results, None) is None

    def test_all_workers_work(self, workers: Executor) -> None:
        assert workers.count() == 2
        assert len(both_awake(workers)) == 2

    def test_two_threads_map_at_a_time(self, workers: Executor) -> None:
        found: dict[int, list[tuple[int, int]]] = {}

        def ask(offset: int) -> None:
            found[offset] = sorted(workers.map(work.double, range(offset, offset + 50)))

        threads = [threading.Thread(target=ask, args=(offset,)) for offset in (0, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {offset: [(i, 2 * (offset + i)) for i in range(50)] for offset in (0, 1000)}


class TestLazy:
    def test_items_are_taken_when_a_worker_is_free(self, workers: Executor) -> None:
        """Of ten thousand items no more are taken than came back, are out with a worker, or wait for the next one."""
        taken = 0

        def items() -> Iterator[int]:
            nonlocal taken
            for item in range(10_000):
                taken += 1
                yield item

        results = workers.map(work.double, items())
        assert taken == 0
        for came in range(1, 51):
            next(results)
            assert taken <= came + workers.count() + 1
        results.close()
        assert taken < 60
        assert next(results, None) is None

    def test_items_that_fail(self, workers: Executor) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise KeyError("no more")

        with pytest.raises(KeyError, match="no more"):
            list(workers.map(work.double, items()))
        assert list(workers.map(work.double, [4])) == [(0, 8)]


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("unknown", UnknownName, "unknown agent 'a'"),
            ("missing", MissingDependency, r"install it with: pip install 'fusion\[hf\]'"),
            ("usage", UsageError, "said so"),
            ("value", ValueError, "no number"),
            ("file", FileNotFoundError, "No such file or directory: 'there'|No such file: 'there'"),
            ("odd", RuntimeError, "Odd: .*odd"),
        ],
    )
    def test_arrive_as_they_were_raised(
        self, workers: Executor, name: str, kind: type[Exception], message: str
    ) -> None:
        with pytest.raises(kind, match=message) as caught:
            list(workers.map(work.fail, [name]))
        assert type(caught.value) is kind
        assert "in fail" in caught.value.__notes__[0]

    def test_keep_their_fields(self, workers: Executor) -> None:
        with pytest.raises(UnknownName) as caught:
            list(workers.map(work.fail, ["unknown"]))
        assert (caught.value.name, caught.value.known, caught.value.exit_code) == ("a", ("b",), 2)

    def test_are_not_tried_again(self, workers: Executor, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="once is enough"):
            list(workers.map(work.fail_once, [str(tmp_path)]))
        assert len(list(tmp_path.iterdir())) == 1

    def test_function_that_cannot_be_sent(self, workers: Executor) -> None:
        inner = threading.Lock()

        def local(item: int) -> object:
            return inner

        with pytest.raises(UsageError, match="at the top level of a module"):
            workers.map(local, [1])

    def test_result_that_cannot_be_sent(self, workers: Executor) -> None:
        with pytest.raises((AttributeError, TypeError), match="pickle"):
            list(workers.map(work.lambdas, [1]))

    def test_item_that_cannot_be_sent(self, workers: Executor) -> None:
        with pytest.raises(TypeError, match="pickle"):
            list(workers.map(work.double, [threading.Lock()]))  # type: ignore[list-item]
        assert list(workers.map(work.double, [4])) == [(0, 8)]


class TestCancelling:
    @pytest.fixture
    def running(self, workers: Executor, tmp_path: Path) -> Iterator[tuple[Any, list[int]]]:
        """Two items that would take a minute, and who works on them."""
        results = workers.map(work.linger, [str(tmp_path)] * 5)
        thread = threading.Thread(target=lambda: list(results))
        thread.start()
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        yield results, [int(path.name) for path in tmp_path.iterdir()]
        results.close()
        thread.join()
        assert len(list(tmp_path.iterdir())) == 2

    def test_closing_ends_what_runs(self, workers: Executor, running: tuple[Any, list[int]]) -> None:
        """Another thread waits for a result meanwhile; it sees the end."""
        results, pids = running
        results.close()
        results.close()
        until(lambda: not any(map(alive, pids)))
        assert sorted(workers.map(work.double, [1, 2])) == [(0, 2), (1, 4)]

    def test_results_that_nobody_keeps(self, workers: Executor, tmp_path: Path) -> None:
        for index, _ in workers.map(work.linger_unless_quick, ["", *[str(tmp_path)] * 4]):
            assert index == 0
            until(lambda: len(list(tmp_path.iterdir())) >= 1)
            break
        gc.collect()
        pids = [int(path.name) for path in tmp_path.iterdir()]
        until(lambda: not any(map(alive, pids)))


class TestLostWorkers:
    def test_nothing_is_lost_with_a_worker(
        self, workers: Executor, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Item 3 kills its worker the first time; it is run once more, the others once."""
        with caplog.at_level(logging.WARNING, "fusion"):
            results = sorted(workers.map(work.die_first, [(str(tmp_path), i) for i in range(20)]))
        assert results == [(i, i) for i in range(20)]
        assert len(list(tmp_path.iterdir())) == 2
        assert "item 3 goes to another (retry 1 of 3)" in caplog.text

    def test_killed_from_outside(self, workers: Executor) -> None:
        pids = both_awake(workers)
        results = workers.map(work.sleep, [0.1] * 20)
        next(results)
        os.kill(pids.pop(), signal.SIGKILL)
        rest = list(results)
        assert len({index for index, _ in rest}) == len(rest) == 19
        assert len({pid for _, pid in rest} - pids) >= 1, "nobody took the place of the lost worker"

    def test_item_that_kills_every_worker(self, workers: Executor, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"item 1 was given to 4 workers and each was lost.*max_retries"):
            list(workers.map(work.die_always, ["", str(tmp_path)]))
        assert len(list(tmp_path.iterdir())) == 4
        assert list(workers.map(work.double, [4])) == [(0, 8)]


class TestKinds:
    def test_workers_stay_with_their_kind(self, workers: Executor) -> None:
        """Two kinds are mapped at a time on two workers, in blocks with pauses between them, as recordings do.

        Each worker takes a kind and stays with it. Were any worker as good as any other, they would change about
        thirty times.
        """
        both_awake(workers)
        found: list[work.Slot] = []

        def ask(kind: str) -> None:
            for _ in range(8):
                found.extend(slot for _, slot in workers.map(work.slot, [kind] * 8, kind=kind))
                time.sleep(0.02)

        threads = [threading.Thread(target=ask, args=(kind,)) for kind in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 128
        for pid in {slot.pid for slot in found}:
            kinds = [slot.kind for slot in found if slot.pid == pid]
            changes = sum(before != after for before, after in itertools.pairwise(kinds))
            assert changes <= 4, "".join(kinds)


class TestLocal:
    def test_workers_end_with_the_executor(self) -> None:
        with built("local(workers=2)") as executor:
            pids = both_awake(executor)
        assert not any(map(alive, pids))
        assert list(executor.map(work.double, [4])) == [(0, 8)]
        executor.close()
        executor.close()

    def test_closed_with_work_to_do(self) -> None:
        executor = built("local(workers=1)")
        results = executor.map(work.double, range(5))
        next(results)
        executor.close()
        with pytest.raises(EngineError, match="closed while it had work to do"):
            list(results)

    def test_no_more_workers_than_items(self) -> None:
        with built("local(workers=4)") as executor:
            before = _num_workers()
            assert len(list(executor.map(work.sleep, [0.2]))) == 1
            assert _num_workers() == before + 1

    def test_workers_do_not_outlive_a_caller_that_is_killed(self) -> None:
        code = """
            import os, signal
            import executor_work as work
            from fusion.executors.local import Local
            pids = {pid for _, pid in Local(workers=2).map(work.sleep, [0.1] * 4)}
            print(*pids, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
        told = _python(code)
        assert told.returncode == -signal.SIGKILL, told.stderr
        pids = [int(word) for word in told.stdout.split()]
        assert pids
        until(lambda: not any(map(alive, pids)))

    def test_script_without_a_guard(self, tmp_path: Path) -> None:
        """Every worker runs such a script again from its top."""
        script = tmp_path / "script.py"
        script.write_text(
            "import math\n"
            "from fusion.executors.local import Local\n"
            "print(list(Local(workers=1, max_retries=0).map(math.sqrt, [4])))\n"
        )
        told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
        assert told.returncode == 1
        assert 'below: if __name__ == "__main__":' in told.stderr.splitlines()[-1]

    @pytest.mark.parametrize("spec", ["local(workers=0)", "local(max_retries=-1)", "ray(num_gpus=-1)", "ray(wait_s=0)"])
    def test_out_of_range(self, spec: str) -> None:
        with pytest.raises(UsageError, match="greater than"):
            built(spec)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def _num_workers() -> int:
    """Return how many worker processes this process has at the moment."""
    return sum("spawn_main" in name for name in _children(os.getpid()))


def _children(pid: int) -> list[str]:
    """Return the command lines of a process's children."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.splitlines()


class TestCalls:
    @given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=8))
    def test_items_come_back_as_they_went(self, item: object) -> None:
        assert unpack(answer(pack(_same, item, _pickled))) == item

    def test_call_that_cannot_be_read(self) -> None:
        """As on a machine that lacks the module: that is raised where the call came from."""
        call = b"cno_such_module\nno_such_name\n."
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            unpack(answer(call))


def _same(item: object) -> object:
    return item


def _pickled(thing: object) -> bytes:
    import pickle

    return pickle.dumps(thing)
