"""Damage to a record store: every flipped bit is found, or does not matter; full disks and full memory cost nothing."""

import collections
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_rows import NASTY, filled, key, said

from fusion.agents._store import RecordStore
from fusion.agents._store_gc import gc_store
from fusion.agents._store_rows import CONTENT
from fusion.agents._store_verify import Problem, damaged_rows, verify_store
from fusion.errors import FusionError, OutputError, StoreError

FLIPS = 250


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of sixty answers, to be copied: making one waits for the disk several times."""
    with RecordStore.open(tmp_path_factory.mktemp("made")) as store:
        filled(store)
    return store.file


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Iterator[RecordStore]:
    (tmp_path / "run").mkdir()
    shutil.copy(made, tmp_path / "run")
    with RecordStore.open(tmp_path / "run") as opened:
        yield opened


def content(store: RecordStore) -> dict[str, Any]:
    """Return everything that a store says."""
    rows = list(store.rows())
    found = store.get(row.digest for row in rows)
    return {"rows": rows, "found": found, "facts": dict(store.facts), "summary": store.summary(), "count": len(store)}


def changed(store: RecordStore, statement: str, *values: Any) -> list[Problem]:
    """Return what is found after somebody changed the store by SQL."""
    with store.writing() as connection:
        connection.execute(statement, values)
    return verify_store(store)


def examined(file: Path, whole: dict[str, Any]) -> str:
    """Return whether a file is "found" damaged, still says the "same", or says something else unnoticed: "missed"."""
    try:
        with RecordStore.open(file, create=False, readonly=True) as store:
            if verify_store(store):
                return "found"
            return "same" if content(store) == whole else "missed"
    except FusionError:
        return "found"


class TestFlippedBits:
    @pytest.fixture
    def file(self, store: RecordStore) -> Path:
        store.close()
        assert os.listdir(store.file.parent) == ["answers.sqlite"]
        return store.file

    @pytest.fixture
    def whole(self, file: Path) -> dict[str, Any]:
        with RecordStore.open(file, readonly=True) as store:
            return content(store)

    def test_anywhere(self, file: Path, whole: dict[str, Any], tmp_path: Path) -> None:
        rng = random.Random(0)
        good = file.read_bytes()
        outcomes: dict[str, list[int]] = collections.defaultdict(list)
        for i in range(FLIPS):
            # Every third in the first pages, which say how the rest is to be read.
            position = rng.randrange(len(good) if i % 3 else 4096 * 3)
            damaged = bytearray(good)
            damaged[position] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            outcomes[examined(file, whole)].append(position)
        assert outcomes["missed"] == []
        assert len(outcomes["found"]) > FLIPS / 5

    def test_within_texts_all_are_found(self, file: Path, whole: dict[str, Any]) -> None:
        rng = random.Random(1)
        good = file.read_bytes()
        texts = [row.completion.text.encode("utf-8", "surrogatepass") for row in whole["rows"]]
        places = [good.index(text[:200]) + rng.randrange(min(len(text), 200)) for text in texts if text]
        assert len(places) > 40
        for position in places:
            damaged = bytearray(good)
            damaged[position] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            with RecordStore.open(file, readonly=True) as store:
                problems = verify_store(store)
                assert len(damaged_rows(problems)) == 1
                assert problems[0].agent.startswith("agent-")
                assert problems[0].question_id.startswith("q")

    def test_a_missing_page(self, file: Path, whole: dict[str, Any]) -> None:
        good = file.read_bytes()
        for pages in range(1, len(good) // 4096):
            file.write_bytes(good[: 4096 * pages])
            assert examined(file, whole) == "found"

    def test_a_page_of_zeros(self, file: Path, whole: dict[str, Any]) -> None:
        good = file.read_bytes()
        for start in range(0, len(good), 4096):
            file.write_bytes(good[:start] + bytes(4096) + good[start + 4096 :])
            assert examined(file, whole) in ("found", "same"), start


class TestTampering:
    @pytest.mark.parametrize("name", CONTENT)
    def test_every_column_of_an_answer(self, name: str, store: RecordStore) -> None:
        value = {"attempts": 99, "seconds": 0.25, "option_logprobs": bytes(8), "status": "empty"}.get(name, "other")
        problems = changed(store, f"UPDATE answers SET {name} = ? WHERE id = 12", 99 if "tokens" in name else value)
        (problem,) = problems
        assert problem.rows == (12,)
        assert problem.question_id == "q3"
        assert problem.agent == ("other" if name == "agent" else "agent-2")
        assert "not what was recorded" in str(problem)
        assert str(problem).startswith(f"agent '{problem.agent}', question 'q3'")

    @pytest.mark.parametrize("name", CONTENT)
    @pytest.mark.parametrize("value", [b"\xff\xfe\x00", "text", -1, 0.5], ids=repr)
    def test_values_of_the_wrong_kind(self, name: str, value: Any, store: RecordStore) -> None:
        for problem in changed(store, f"UPDATE answers SET {name} = ? WHERE id = 12", value):
            if problem.rows:
                assert problem.rows == (12,)
                break
        else:
            pytest.fail("nothing was found")

    def test_text_that_is_none_names_the_field(self, store: RecordStore) -> None:
        problems = changed(store, "UPDATE answers SET text = CAST(? AS TEXT) WHERE id = 12", b"\xff\xfe yes")
        (problem,) = [problem for problem in problems if problem.rows]
        assert (problem.agent, problem.question_id, problem.field, problem.rows) == ("agent-2", "q3", "text", (12,))

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("UPDATE answers SET digest = zeroblob(32) WHERE id = 12", "field 'digest': its key is not the one"),
            ("UPDATE answers SET sample = 1 WHERE id = 12", "field 'digest': its key is not the one"),
            ("UPDATE answers SET seed = 99 WHERE id = 12", "field 'digest': its key is not the one"),
            ("UPDATE answers SET seed = 'x' WHERE id = 12", "field 'digest': its key is not the one"),
            ("UPDATE answers SET sender = 1 WHERE id = 12", "field 'digest': its key is not the one"),
            ("UPDATE answers SET sender = 99 WHERE id = 12", "field 'sender': a part of its key is missing"),
            ("UPDATE answers SET asked = 99 WHERE id = 12", "field 'asked': a part of its key is missing"),
            ("UPDATE answers SET checksum = zeroblob(32) WHERE id = 12", "not what was recorded"),
        ],
    )
    def test_keys(self, statement: str, told: str, store: RecordStore) -> None:
        problems = [problem for problem in changed(store, statement) if problem.rows]
        with pytest.raises(StoreError, match=r"fusion store verify|must be a whole number"):
            content(store)
        assert [problem.rows for problem in problems] == [(12,)] * len(problems)
        assert any(told in str(problem) for problem in problems), problems

    @pytest.mark.parametrize("value", ["'{}'", "zeroblob(9)", "hash", "5"])
    def test_parts_of_keys(self, value: str, store: RecordStore) -> None:
        problems = changed(store, f"UPDATE asked SET json = {value} WHERE id = 2")
        (problem,) = [problem for problem in problems if problem.rows]
        assert "what was asked is not what was recorded, for 3 answers" in str(problem)
        assert problem.question_id == "q1"
        problems = changed(store, f"UPDATE senders SET json = {value} WHERE id = 2")
        (problem,) = [problem for problem in problems if problem.field == "sender"]
        assert "who was asked and how is not what was recorded, for 20 answers" in str(problem)
        assert problem.agent == "agent-1"

    def test_the_id_of_a_question(self, store: RecordStore) -> None:
        (problem,) = changed(store, "UPDATE asked SET question_id = 'q7' WHERE id = 2")
        assert "it names the question 'q7' instead of 'q1'" in str(problem)

    def test_parts_that_are_left_over(self, store: RecordStore) -> None:
        (problem,) = changed(store, "DELETE FROM answers WHERE agent = 'agent-1'")
        assert "1 rows of senders, parts of keys, belong to no answer; fusion store gc drops them" in str(problem)
        gc_store(store)
        assert verify_store(store) == []

    @pytest.mark.parametrize("statement", ["UPDATE facts SET value = 'echo'", "UPDATE facts SET name = 'other'"])
    def test_facts(self, statement: str, store: RecordStore) -> None:
        (problem,) = changed(store, statement)
        assert "is not what was remembered" in str(problem)

    @pytest.mark.parametrize("statement", ["DROP INDEX answers_asked", "DROP TABLE facts"])
    def test_tables(self, statement: str, store: RecordStore) -> None:
        (problem,) = changed(store, statement)
        assert f"table or index {statement.split()[-1]} is not as the format says" in str(problem)

    def test_what_is_found_can_be_printed(self, store: RecordStore) -> None:
        changed(store, "UPDATE answers SET agent = ? WHERE id = 12", NASTY.encode("utf-8", "surrogatepass"))
        assert all(str(problem).isprintable() for problem in verify_store(store))

    def test_dropping_what_is_damaged_mends_the_store(self, store: RecordStore) -> None:
        changed(store, "UPDATE answers SET text = 'no' WHERE id = 12")
        problems = changed(store, "UPDATE asked SET json = '' WHERE id = 2")
        before = len(store)
        swept = gc_store(store, damaged=damaged_rows(problems), dry_run=True)
        assert len(store) == before
        assert swept.answers[("", "damaged")] == 4
        assert gc_store(store, damaged=damaged_rows(problems)).answers == swept.answers
        assert verify_store(store) == []


def test_progress(store: RecordStore) -> None:
    told: list[tuple[str, int, int]] = []
    verify_store(store, progress=lambda *step: told.append(step))
    assert {step for step, _, _ in told} == {
        "checking the file",
        "checking senders",
        "checking asked",
        "checking answers",
    }
    assert all(0 <= done <= total for _, done, total in told)


def test_a_store_that_is_recorded_into_is_whole(store: RecordStore) -> None:
    with RecordStore.open(store.file) as other, other.writing():
        assert verify_store(store) == []


def limited(code: str, folder: Path) -> str:
    """Run `code` in a process that finds store_rows, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120).stdout


def test_file_size_limit(tmp_path: Path) -> None:
    """What a full disk does, and what needs no rights: writing fails somewhere in the middle."""
    code = """
        import resource, sys
        from fusion.agents._store import RecordStore
        from fusion.errors import OutputError
        from store_rows import key, said
        with RecordStore.open(sys.argv[1]) as store:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
            kept = 0
            try:
                for i in range(1000):
                    store.put(key(i), said(f"answer {i} " * 100), agent="ann")
                    kept += 1
            except OutputError as error:
                print(error)
            print(kept, len(store), len(store.get(key(i).digest for i in range(1000))))
    """
    message, counts = limited(code, tmp_path).splitlines()
    assert "cannot write to the record store" in message
    assert "What was recorded is kept. Free some space" in message
    kept, *read = map(int, counts.split())
    assert kept > 10
    assert read == [kept, kept]
    with RecordStore.open(tmp_path, create=False) as store:
        assert len(store) == kept
        assert verify_store(store) == []
        store.put(key(5000), said(), agent="ann")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk(disk: Path) -> None:
    def put() -> int:
        for i in range(10_000):
            try:
                store.put(key(i), said(f"answer {i} " * 100), agent="ann")
            except OutputError as error:
                assert "Free some space" in str(error)  # noqa: PT017
                return i
        pytest.fail("the disk never was full")

    with RecordStore.open(disk) as store:
        kept = put()
        assert kept > 10
        assert len(store) == kept
        assert put() >= kept
        assert verify_store(store) == []
    with RecordStore.open(disk, create=False) as store:
        kept = len(store)
        assert verify_store(store) == []
        with pytest.raises(OutputError):
            store.put(key(20_000), said("y" * 2_000_000), agent="ann")
        assert len(store) == kept


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """32 MB of texts are read, checked and exported within a fraction of that."""
    code = """
        import resource, sys
        from fusion.agents._store import RecordStore
        from fusion.agents._store_rows import Incoming
        from fusion.agents._store_verify import verify_store
        from store_rows import key, said
        with RecordStore.open(sys.argv[1]) as store:
            for start in range(0, 3200, 100):
                store.put_many(Incoming(key(i), said("y" * 10_000), "ann") for i in range(start, start + 100))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert sum(1 for _ in store.rows()) == 3200
            assert verify_store(store) == []
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    assert int(limited(code, tmp_path)) * 1024 < 16_000_000
