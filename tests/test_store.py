"""The record store: what is put is kept, exactly, once, and by key."""

import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_rows import NASTY, failed, filled, key, said

from fusion.agents import _store_open
from fusion.agents._key import canonical_json, sha256
from fusion.agents._store import RecordStore
from fusion.agents._store_rows import Incoming, checksum, content_of
from fusion.agents._store_sql import CHUNK
from fusion.agents._store_verify import verify_store
from fusion.errors import FusionError, InputError, OutputError, StoreError
from fusion.schema import FINAL, Completion, Status, Usage

STATUSES: tuple[Status, ...] = get_args(Status)

CHANGED: dict[str, Any] = {
    "status": "truncated",
    "text": NASTY,
    "option_logprobs": (float("-inf"), -0.1, -1e-300, 0.0),
    "reasoning": NASTY * 2,
    "usage": Usage(tokens_in=1, tokens_out=2, tokens_cached=3, tokens_reasoning=4),
    "seconds": 1 / 3,
    "finish_reason": NASTY * 3,
    "detail": NASTY * 4,
    "attempts": 9,
    "served_by": NASTY * 5,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    with RecordStore.open(tmp_path / "run") as opened:
        yield opened


def completion(status: Status, detail: str = "") -> Completion:
    return Completion(status=status, detail=detail, text="yes" if status in ("ok", "truncated") else "")


class TestContent:
    @pytest.mark.parametrize("name", [field.name for field in fields(Completion)])
    def test_every_field_of_a_completion_is_kept(self, name: str, store: RecordStore) -> None:
        """A new field of Completion needs a row in CHANGED, and with it a column in the store."""
        plain = Completion(status="ok", text="yes")
        put = replace(plain, **{name: CHANGED[name]})
        assert put != plain
        store.put(key(), put, agent="ann")
        store.close()
        with RecordStore.open(store.file, create=False) as again:
            assert again.get([key().digest]) == {key().digest: put}

    @pytest.mark.parametrize("name", [field.name for field in fields(Usage)])
    def test_every_kind_of_token_is_kept(self, name: str, store: RecordStore) -> None:
        put = said(usage=Usage(**{name: 2**63 - 1}))
        store.put(key(), put, agent="ann")
        assert store.get([key().digest])[key().digest] == put

    def test_huge_texts(self, store: RecordStore) -> None:
        put = said("y" * 30_000_000, reasoning=NASTY * 100_000)
        store.put(key(prompt="long " * 2_000_000), put, agent="ann")
        (record,) = store.rows()
        assert record.completion == put
        assert len(record.key.asked) > 10_000_000

    def test_numbers_of_numpy_become_plain(self, store: RecordStore) -> None:
        logprobs = tuple(np.array([-0.5, -np.inf]))
        store.put(key(), said(option_logprobs=logprobs, usage=Usage(tokens_in=np.int32(3))), agent="ann")  # type: ignore[arg-type]
        held = store.get([key().digest])[key().digest]
        assert held.option_logprobs == logprobs
        assert [type(value) for value in held.option_logprobs or ()] == [float, float]
        assert type(held.usage.tokens_in) is int

    @pytest.mark.parametrize("logprobs", [None, (), (float("nan"), -0.0)])
    def test_odd_log_probabilities(self, logprobs: tuple[float, ...] | None, store: RecordStore) -> None:
        store.put(key(), said(option_logprobs=logprobs, seconds=float("nan")), agent="ann")
        assert repr(store.get([key().digest])[key().digest]) == repr(
            said(option_logprobs=logprobs, seconds=float("nan"))
        )

    @pytest.mark.parametrize("seconds", [-0.0, 3.0, 1e300, -5e-324, float("inf"), 2.0**60])
    def test_odd_seconds(self, seconds: float, store: RecordStore) -> None:
        store.put(key(), said(seconds=seconds), agent="ann")
        assert store.get([key().digest]) == {key().digest: said(seconds=seconds)}

    def test_names_and_keys_of_any_kind(self, store: RecordStore) -> None:
        of = key(agent=NASTY, prompt=NASTY, question_id=NASTY, sample=2**63 - 1, seed=-(2**63))
        store.put(of, said(), agent=NASTY, task=NASTY)
        (record,) = store.rows()
        assert (record.key, record.agent, record.task, record.question_id) == (of, NASTY, NASTY, NASTY)
        assert record.digest == of.digest
        assert verify_store(store) == []

    @pytest.mark.parametrize(
        ("put", "of", "told"),
        [
            (said(usage=Usage(tokens_in=2**63)), key(), "tokens or attempts must fit in 64 bits"),
            (said(usage=Usage(tokens_in=1.5)), key(), "tokens or attempts must be a whole number"),  # type: ignore[arg-type]
            (said(attempts="2"), key(), "tokens or attempts must be a whole number"),
            (said(), key(seed=2**63), "seed must fit in 64 bits"),
            (said(), key(sample=1.0), "sample must be a whole number"),
        ],
    )
    def test_what_cannot_be_kept_is_refused_and_nothing_of_the_put_is_kept(
        self, put: Completion, of: Any, told: str, store: RecordStore
    ) -> None:
        with pytest.raises(StoreError, match=told):
            store.put_many([Incoming(key(1), said(), "ann"), Incoming(of, put, "ann"), Incoming(key(2), said(), "ann")])
        assert len(store) == 0
        store.put(key(), said(), agent="ann")
        assert verify_store(store) == []


NUMBERS = st.none() | st.integers(0, 2**63 - 1)
TEXTS = st.text(st.characters(), max_size=40)
COMPLETIONS = st.builds(
    Completion,
    status=st.sampled_from(["ok", "truncated"]),
    text=TEXTS.map(lambda text: text + "."),
    option_logprobs=st.none() | st.lists(st.floats(allow_nan=False), max_size=5).map(tuple),
    reasoning=TEXTS,
    usage=st.builds(Usage, tokens_in=NUMBERS, tokens_out=NUMBERS, tokens_cached=NUMBERS, tokens_reasoning=NUMBERS),
    seconds=st.floats(allow_nan=False),
    finish_reason=TEXTS,
    detail=TEXTS,
    attempts=st.integers(0, 2**63 - 1),
    served_by=TEXTS,
)


@given(rows=st.lists(st.tuples(COMPLETIONS, TEXTS, TEXTS), max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_put_comes_back(rows: list[tuple[Completion, str, str]], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        keys = [key(i, agent=agent, question_id=task) for i, (_, agent, task) in enumerate(rows)]
        with RecordStore.open(folder) as store:
            store.put_many([Incoming(of, *row) for of, row in zip(keys, rows, strict=True)])
        with RecordStore.open(folder) as store:
            found = store.get(of.digest for of in keys)
            assert [found[of.digest] for of in keys] == [row[0] for row in rows]
            assert {(r.key, r.agent, r.task, r.question_id) for r in store.rows()} == {
                (of, agent, task, task) for of, (_, agent, task) in zip(keys, rows, strict=True)
            }
            assert verify_store(store) == []


@given(given=COMPLETIONS, agent=TEXTS, task=TEXTS)
def test_the_checksum_is_over_canonical_json(given: Completion, agent: str, task: str) -> None:
    content = content_of(given, agent=agent, task=task, recorded="2026-01-01T00:00:00.000Z")
    assert checksum(key().digest, content) == sha256(canonical_json([key().digest, *content]))


class TestPutting:
    def test_a_final_answer_is_never_replaced_and_another_one_always(self, store: RecordStore) -> None:
        for i, (first, second) in enumerate(itertools.product(STATUSES, STATUSES)):
            one, other = completion(first, "one"), completion(second, "other")
            kept = one if first in FINAL else other
            assert store.put(key(i), one, agent="ann") == one
            assert store.put(key(i), other, agent="ann") == kept, (first, second)
            assert store.get([key(i).digest]) == {key(i).digest: kept}, (first, second)
        assert len(store) == len(STATUSES) ** 2

    def test_so_it_is_within_one_put(self, store: RecordStore) -> None:
        for i, (first, second) in enumerate(itertools.product(STATUSES, STATUSES)):
            one, other = completion(first, "one"), completion(second, "other")
            kept = one if first in FINAL else other
            rows = [Incoming(of, put, "ann") for of, put in ((key(i), one), (key(1000), said()), (key(i), other))]
            assert store.put_many(rows) == [kept, said(), kept], (first, second)
            assert store.get([key(i).digest]) == {key(i).digest: kept}, (first, second)

    def test_a_replaced_answer_is_replaced_as_a_whole(self, store: RecordStore) -> None:
        store.put(key(), failed("slow", seconds=9.0, attempts=5), agent="ann")
        store.put(key(), said(), agent="ann", task="t")
        (record,) = store.rows()
        assert (record.completion, record.task) == (said(), "t")
        assert verify_store(store) == []

    def test_many_come_back_row_by_row(self, store: RecordStore) -> None:
        rows = [Incoming(key(i % 700), said(f"answer {i}"), "ann") for i in range(2 * CHUNK + 1)]
        told = store.put_many(rows)
        assert [one.text for one in told] == [f"answer {i % 700}" for i in range(2 * CHUNK + 1)]
        assert len(store) == 700

    def test_nothing_put_is_nothing_done(self, store: RecordStore) -> None:
        assert store.put_many([]) == []
        assert (store.get([]), list(store.rows()), store.summary(), len(store)) == ({}, [], [], 0)

    def test_draws_and_twins_are_answers_of_their_own(self, store: RecordStore) -> None:
        keys = [key(), key(agent="bob"), key(sample=1), key(seed=0), key(sample=1, seed=0), key(temperature=0.7)]
        store.put_many(Incoming(of, said(str(i)), "ann") for i, of in enumerate(keys))
        found = store.get(of.digest for of in keys)
        assert [found[of.digest].text for of in keys] == list("012345")

    def test_prompts_are_kept_once_and_small(self, store: RecordStore) -> None:
        prompt = "".join(f"Question {i}: what is {i} + {i}? Answer: {2 * i}\n\n" for i in range(200))
        for agent in range(20):
            store.put(key(agent=f"agent-{agent}", prompt=prompt), said(), agent=f"agent-{agent}")
        store.close()
        assert store.file.stat().st_size < 20 * len(prompt) / 3

    def test_threads(self, store: RecordStore) -> None:
        def work(thread: int) -> None:
            for i in range(100):
                store.put(key(i), said(f"{thread}"), agent="ann")
                store.get([key(i).digest])
                store.set_fact(f"{thread}", f"{i}")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 100
        assert store.facts == {f"{i}": "99" for i in range(8)}
        assert verify_store(store) == []


class TestReading:
    def test_missing_ones_are_absent(self, store: RecordStore) -> None:
        rows = filled(store, 3)
        assert store.get([key(99).digest, rows[0].key.digest, key(98).digest]).keys() == {rows[0].key.digest}

    def test_more_than_a_chunk(self, store: RecordStore) -> None:
        keys = [key(i) for i in range(CHUNK + 3)]
        store.put_many(Incoming(of, said(of.digest), "ann") for of in keys)
        found = store.get(of.digest for of in [*keys, key(CHUNK + 3)])
        assert {digest: one.text for digest, one in found.items()} == {of.digest: of.digest for of in keys}

    def test_rows(self, store: RecordStore) -> None:
        rows = filled(store, CHUNK + 100)
        records = list(store.rows())
        assert {record.digest: record.completion for record in records} == {
            row.key.digest: row.completion for row in rows
        }
        # Those to one prompt stand together.
        prompts = [record.key.asked for record in records]
        assert sum(a != b for a, b in itertools.pairwise(prompts)) + 1 == len(set(prompts))

    @pytest.mark.parametrize("draws", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
    def test_rows_of_many_draws(self, draws: int, store: RecordStore) -> None:
        keys = [key(0), *(key(1, sample=i) for i in range(draws)), key(2)]
        store.put_many(Incoming(of, said(), "ann") for of in keys)
        assert [record.key for record in store.rows()] == keys

    def test_rows_of_some(self, store: RecordStore) -> None:
        filled(store)
        store.put(key(), said(), agent="ann", task="other")
        assert {record.agent for record in store.rows(agents={"agent-0", "agent-2"})} == {"agent-0", "agent-2"}
        assert [record.agent for record in store.rows(task="other")] == ["ann"]
        assert list(store.rows(agents=["nobody"])) == []

    def test_rows_while_others_are_put(self, store: RecordStore) -> None:
        store.put_many(Incoming(key(i), said(), "ann") for i in range(CHUNK + 1))
        seen = set()
        for i, record in enumerate(store.rows()):
            seen.add(record.digest)
            if i < 10:
                store.put(key(CHUNK + 1 + i), said(), agent="ann")
        assert seen >= {key(i).digest for i in range(CHUNK + 1)}

    def test_summary_by_hand(self, store: RecordStore) -> None:
        """ann: two answers of 11 tokens in and 7 out and 0.1 s each, and a failure without; bob: one answer."""
        store.put(key(0), said(), agent="ann", task="t")
        store.put(key(1), said(), agent="ann", task="t")
        store.put(key(2), failed(), agent="ann", task="t")
        store.put(key(0, agent="bob"), said(), agent="bob")
        found = [(*tally[:6], round(tally.seconds, 9)) for tally in store.summary()]
        assert found == [
            ("ann", "t", "ok", 2, 22, 14, 0.2),
            ("ann", "t", "timeout", 1, 0, 0, 0.0),
            ("bob", "", "ok", 1, 11, 7, 0.1),
        ]
        times = [time for tally in store.summary() for time in (tally.first, tally.last)]
        assert all(len(time) == len("2026-01-01T00:00:00.000Z") and time.endswith("Z") for time in times)

    def test_facts(self, store: RecordStore) -> None:
        assert store.fact("scoring") is None
        store.set_fact("scoring", "echo")
        store.set_fact("scoring", NASTY)
        store.set_fact(NASTY, "")
        assert (store.fact("scoring"), store.fact(NASTY)) == (NASTY, "")
        store.close()
        with RecordStore.open(store.file) as again:
            assert dict(again.facts) == {"scoring": NASTY, NASTY: ""}

    def test_a_damaged_answer_is_not_given_out(self, store: RecordStore) -> None:
        store.put(key(), said("yes"), agent="ann")
        with store.writing() as connection:
            connection.execute("UPDATE answers SET text = 'no'")
        for read in (lambda: store.get([key().digest]), lambda: list(store.rows())):
            with pytest.raises(StoreError, match=r"agent 'ann' is not what was recorded; fusion store verify lists"):
                read()


class TestOpening:
    def test_a_folder_or_the_file(self, tmp_path: Path) -> None:
        for name, file in (
            ("run", "run/answers.sqlite"),
            ("a/b/run.v1", "a/b/run.v1/answers.sqlite"),
            ("x.sqlite",) * 2,
        ):
            with RecordStore.open(tmp_path / name) as store:
                store.put(key(), said(), agent="ann")
                assert store.file == tmp_path / file
            with RecordStore.open(tmp_path / file, create=False) as store:
                assert len(store) == 1
        with RecordStore.open(tmp_path / "run", create=False) as store:
            assert len(store) == 1

    def test_the_file_is_whole_when_the_store_is_closed(self, store: RecordStore) -> None:
        filled(store)
        store.close()
        assert [path.name for path in store.file.parent.iterdir()] == ["answers.sqlite"]

    @pytest.mark.parametrize("options", [{"create": False}, {"readonly": True}], ids=str)
    def test_nothing_there(self, options: dict[str, bool], tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none", tmp_path / "none.sqlite"):
            with pytest.raises(InputError, match=r"there is no record store .*give the folder that was recorded into"):
                RecordStore.open(path, **options)
        (tmp_path / "answers.sqlite").touch()
        with pytest.raises(InputError, match=r"answers\.sqlite is empty"):
            RecordStore.open(tmp_path, **options)
        assert [path.name for path in tmp_path.rglob("*")] == ["answers.sqlite"]

    @pytest.mark.parametrize("readonly", [False, True])
    def test_something_else(self, readonly: bool, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("question_id,answer\n")
        with pytest.raises(StoreError, match=r"text is no record store \(no SQLite file\)"):
            RecordStore.open(tmp_path / "text", readonly=readonly)
        for name, table in (("other.sqlite", "notes"), ("odd.sqlite", "meta")):
            with sqlite3.connect(tmp_path / name) as connection:
                connection.execute(f"CREATE TABLE {table} (a)")
            connection.close()
            before = (tmp_path / name).read_bytes()
            with pytest.raises(StoreError, match="is an SQLite file but no record store"):
                RecordStore.open(tmp_path / name, readonly=readonly)
            assert (tmp_path / name).read_bytes() == before
        (tmp_path / "folder" / "answers.sqlite").mkdir(parents=True)
        with pytest.raises(InputError, match="is no file"):
            RecordStore.open(tmp_path / "folder", readonly=readonly)

    def test_another_version(self, store: RecordStore) -> None:
        with store.writing() as connection:
            connection.execute("UPDATE meta SET value = 'fusion.records/2'")
        store.close()
        with pytest.raises(StoreError, match=r"version 'fusion.records/2'.*'fusion.records/1'; upgrade fusion"):
            RecordStore.open(store.file)

    def test_cut_off(self, store: RecordStore) -> None:
        filled(store)
        store.close()
        os.truncate(store.file, store.file.stat().st_size // 2)
        try:
            with RecordStore.open(store.file) as again:
                assert verify_store(again)
        except StoreError as error:
            assert "fusion store verify" in str(error)  # noqa: PT017

    def test_closed(self, store: RecordStore) -> None:
        store.close()
        store.close()
        for use in (lambda: len(store), lambda: store.put(key(), said(), agent="ann"), lambda: list(store.rows())):
            with pytest.raises(StoreError, match="is closed; open it again"):
                use()

    def test_in_a_fork(self, store: RecordStore) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                len(store)
            except FusionError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        with os.fdopen(reader) as told:
            assert "was opened by another process" in told.read()

    def test_locked_for_too_long(self, store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_store_open, "BUSY_SECONDS", 0.2)
        with RecordStore.open(store.file) as other, RecordStore.open(store.file) as third, other.writing():
            with pytest.raises(StoreError, match=r"is locked: another process.*run the command again"):
                third.put(key(), said(), agent="ann")
            assert len(third) == 0
        assert store.put(key(), said(), agent="ann") == said()

    def test_read_only(self, store: RecordStore) -> None:
        rows = filled(store)
        with RecordStore.open(store.file, readonly=True) as reader:
            assert len(reader) == len(rows)
            with pytest.raises(OutputError, match=r"cannot write to the record store .*: it was opened read-only"):
                reader.put(key(), said(), agent="ann")
            with pytest.raises(OutputError, match="read-only"):
                reader.set_fact("a", "b")
        store.close()
        with RecordStore.open(store.file, readonly=True) as reader:
            assert len(reader) == len(rows)
        assert os.listdir(store.file.parent) == ["answers.sqlite"]


def test_folder_of_somebody_else() -> None:
    """Permissions do not bind an administrator, who becomes nobody first."""
    code = """
        import os, sys
        from fusion.agents._store import RecordStore
        from fusion.agents._store_verify import verify_store
        from fusion.errors import FusionError
        from store_rows import key, said
        folder = sys.argv[1]
        with RecordStore.open(folder) as store:
            store.put(key(), said(), agent="ann")
        os.chmod(folder, 0o555)
        os.chmod(folder + "/answers.sqlite", 0o444)
        if os.geteuid() == 0:
            os.seteuid(65534)
        for place in (folder, folder + "/new", folder + "/new.sqlite"):
            try:
                with RecordStore.open(place) as store:
                    store.put(key(1), said(), agent="ann")
            except FusionError as error:
                print(type(error).__name__, error)
        with RecordStore.open(folder, create=False, readonly=True) as store:
            print(len(store), store.get([key().digest]) == {key().digest: said()}, verify_store(store))
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        command = [sys.executable, "-c", textwrap.dedent(code), folder]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        told = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        os.chmod(folder, 0o755)
    assert told.stdout.count("OutputError") == 3, told.stdout + told.stderr
    assert "cannot write to the record store" in told.stdout
    assert told.stdout.splitlines()[-1] == "1 True []", told.stderr
