"""One record store, several processes: they do not get in each other's way, and killing one loses nothing."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from store_rows import key, said

from fusion.agents._store import RecordStore
from fusion.agents._store_verify import verify_store

KILLS = 10


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on `code`, which finds store_rows."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: subprocess.Popen[str], told: str = "") -> str:
    """Return what a process prints, once it is told something; it must end well."""
    out, error = process.communicate(told, timeout=120)
    assert process.returncode == 0, error
    return out


def test_two_processes_record_the_same_and_other_answers(tmp_path: Path) -> None:
    """The first asks questions 0 to 1999, the second 1000 to 2999; whose answer to a common one is kept, both say."""
    code = """
        import sys
        from fusion.agents._store import RecordStore
        from store_rows import key, said
        folder, start, name = sys.argv[1:]
        with RecordStore.open(folder) as store:
            print("open", flush=True)
            sys.stdin.readline()
            order = range(int(start), int(start) + 2000)
            for i in order if name == "one" else reversed(order):
                held = store.put(key(i), said(f"{name} {i}"), agent="ann")
                print(i, held.text, sep=",")
    """
    processes = [started(code, tmp_path, start, name) for start, name in ((0, "one"), (1000, "two"))]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said_by = [dict(line.split(",") for line in ended(process).splitlines()) for process in processes]
    assert [len(said) for said in said_by] == [2000, 2000]
    with RecordStore.open(tmp_path, create=False) as store:
        assert len(store) == 3000
        assert verify_store(store) == []
        found = store.get(key(i).digest for i in range(3000))
        texts = {str(i): found[key(i).digest].text for i in range(3000)}
    assert said_by[0] | said_by[1] == texts == said_by[1] | said_by[0]


def test_processes_that_make_a_store_at_once(tmp_path: Path) -> None:
    code = """
        import sys
        from fusion.agents._store import RecordStore
        from store_rows import key, said
        number = int(sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
        for i in range(30):
            with RecordStore.open(f"{sys.argv[1]}/{i}") as store:
                store.put(key(number), said(), agent="ann")
                store.put(key(99), said(), agent="ann")
                store.set_fact("scoring", "echo")
    """
    processes = [started(code, tmp_path, number) for number in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        ended(process)
    for i in range(30):
        with RecordStore.open(tmp_path / str(i), create=False) as store:
            assert len(store) == 4
            assert verify_store(store) == []


def test_reading_while_another_process_records(tmp_path: Path) -> None:
    code = """
        import sys
        from fusion.agents._store import RecordStore
        from store_rows import key, said
        with RecordStore.open(sys.argv[1]) as store:
            for i in range(1500):
                store.put(key(i), said(), agent="ann")
                if i == 0:
                    print("open", flush=True)
    """
    process = started(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    looks = 0
    with RecordStore.open(tmp_path, create=False, readonly=True) as reader:
        while process.poll() is None:
            before = len(reader)
            assert len({record.digest for record in reader.rows()}) >= before
            assert verify_store(reader) == []
            looks += 1
        assert len(reader) == 1500
    ended(process)
    assert looks


def test_killing_loses_nothing_that_was_put(tmp_path: Path) -> None:
    """At ten moments a recording is killed; each answer whose put had returned is there, and the next goes on."""
    code = """
        import sys
        from fusion.agents._store import RecordStore
        from fusion.agents._store_rows import Incoming
        from store_rows import key, said
        folder, turn = sys.argv[1], int(sys.argv[2])
        with RecordStore.open(folder) as store:
            i = len(store)
            while True:
                if turn % 2:
                    store.put(key(i), said(f"answer {i} " * (1 + i % 50)), agent="ann")
                    print(i, flush=True)
                    i += 1
                else:
                    store.put_many(Incoming(key(j), said(f"answer {j}"), "ann") for j in range(i, i + 20))
                    print(*range(i, i + 20), sep="\\n", flush=True)
                    i += 20
    """
    rng = random.Random(0)
    put: set[int] = set()
    for turn in range(KILLS):
        with started(code, tmp_path, turn) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 40)):
                put.add(int(process.stdout.readline()))
            # Somewhere within a put, not always behind one.
            time.sleep(rng.random() / 50)
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().split("\n")
        # What comes after the last line's end was cut off by the kill.
        put |= {int(line) for line in lines[:-1]}
        with RecordStore.open(tmp_path, create=False) as store:
            found = store.get(key(i).digest for i in put)
            assert len(found) == len(put)
            assert all(found[key(i).digest].text.startswith(f"answer {i}") for i in put)
            assert len(store) >= len(put)
            assert verify_store(store) == []
            assert store.put(key(10**6 + turn), said(), agent="ann") == said()
            assert len(list(store.rows())) == len(store)
