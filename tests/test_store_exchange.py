"""Answers moved between record stores as Parquet, and stores cleared out."""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import NASTY, failed, filled, key, said

from fusion.agents import _store_parquet
from fusion.agents._store import RecordStore
from fusion.agents._store_gc import gc_store
from fusion.agents._store_parquet import Merged, check_export, export_store, import_store
from fusion.agents._store_rows import Incoming
from fusion.agents._store_sql import CHUNK
from fusion.agents._store_verify import verify_store
from fusion.errors import InputError, OutputError, StoreError, UnknownName, UsageError
from fusion.schema import FINAL, Completion


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and its export x.parquet, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    with RecordStore.open(folder) as store:
        filled(store)
        store.put(key(5, agent=NASTY, prompt=NASTY, question_id=NASTY), said(NASTY), agent=NASTY, task=NASTY)
        store.put(key(6, sample=3), Completion(status="refused", detail=NASTY), agent="ann")
        store.put(key(7), said(option_logprobs=(), seconds=float("inf")), agent="ann")
        export_store(store, folder / "x.parquet")
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Iterator[RecordStore]:
    (tmp_path / "run").mkdir()
    shutil.copy(made / "answers.sqlite", tmp_path / "run")
    with RecordStore.open(tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def export(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "x.parquet", tmp_path))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RecordStore]:
    with RecordStore.open(tmp_path / "empty") as opened:
        yield opened


def everything(store: RecordStore) -> Any:
    return sorted(store.rows(), key=lambda row: row.digest), dict(store.facts), store.summary()


def exported(folder: Path, name: str, *rows: Incoming) -> Path:
    """Return an export of a store with `rows` alone."""
    with RecordStore.open(folder / name) as store:
        store.put_many(rows)
        export_store(store, folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


class TestRoundTrip:
    def test_it_is_exact(self, store: RecordStore, export: Path, empty: RecordStore) -> None:
        merged = import_store(empty, export)
        assert merged == Merged(added=len(store))
        assert everything(empty) == everything(store)
        assert verify_store(empty) == []

    def test_so_it_is_in_small_pieces(
        self, store: RecordStore, empty: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_store_parquet, "_GROUP_ROWS", 7)
        monkeypatch.setattr(_store_parquet, "_GROUP_CHARACTERS", 5_000)
        monkeypatch.setattr(_store_parquet, "_READ_ROWS", 5)
        told: list[tuple[str, int, int]] = []
        export_store(store, tmp_path / "x.parquet", progress=lambda *step: told.append(step))
        assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups > len(store) / 7
        import_store(empty, tmp_path / "x.parquet", progress=lambda *step: told.append(step))
        assert everything(empty) == everything(store)
        last = {step: (done, total) for step, done, total in told}
        assert last == dict.fromkeys(("exporting", "checking x.parquet", "adding x.parquet"), (len(store), len(store)))

    def test_an_empty_store(self, empty: RecordStore, tmp_path: Path) -> None:
        assert export_store(empty, tmp_path / "x.parquet") == 0
        assert import_store(empty, tmp_path / "x.parquet") == Merged()

    def test_more_than_a_chunk(self, empty: RecordStore, tmp_path: Path) -> None:
        rows = [Incoming(key(i), said(str(i)), "ann") for i in range(2 * CHUNK + 1)]
        export = exported(tmp_path, "many", *rows)
        assert import_store(empty, export).added == len(rows)
        assert empty.get(row.key.digest for row in rows).keys() == {row.key.digest for row in rows}

    def test_other_tools_can_read_it(self, store: RecordStore, export: Path) -> None:
        frame = pq.read_table(export).to_pandas()
        assert len(frame) == len(store)
        row = frame.set_index("digest").loc[key(7).digest]
        assert (row["agent"], row["text"], row["status"], row["tokens_out"]) == ("ann", "yes", "ok", 7)
        assert json.loads(row["sender"])["model"] == "org/model"
        # Only rows with lone surrogates need the exact texts beside the readable ones.
        assert 0 < frame["exact"].notna().sum() < len(store) / 5

    def test_a_shared_prompt_takes_place_once(self, tmp_path: Path) -> None:
        prompt = hashlib.shake_256(b"").hexdigest(20_000)
        rows = [Incoming(key(1, agent=f"a{i}", prompt=prompt), said(), f"a{i}") for i in range(50)]
        assert exported(tmp_path, "shared", *rows).stat().st_size < 3 * len(prompt)

    def test_it_is_written_whole_or_not_at_all(self, store: RecordStore, tmp_path: Path) -> None:
        (tmp_path / "x.parquet").write_text("old")
        with store.writing() as connection:
            connection.execute("UPDATE answers SET text = 'no' WHERE id = 40")
        with pytest.raises(StoreError, match="is not what was recorded"):
            export_store(store, tmp_path / "x.parquet")
        assert (tmp_path / "x.parquet").read_text() == "old"
        with pytest.raises(OutputError):
            export_store(store, tmp_path)

    def test_a_damaged_prompt_is_not_exported(self, store: RecordStore, tmp_path: Path) -> None:
        with store.writing() as connection:
            connection.execute("UPDATE asked SET json = '{}' WHERE id = 3")
        with pytest.raises(StoreError, match="row 3 of asked, a part of keys, is not what was put there"):
            export_store(store, tmp_path / "x.parquet")


class TestMerging:
    def test_what_is_there_is_left(self, store: RecordStore, export: Path) -> None:
        before = everything(store)
        assert import_store(store, export) == Merged(same=len(store))
        assert everything(store) == before

    @pytest.mark.parametrize("theirs", ["ok", "empty", "timeout", "http_error"])
    @pytest.mark.parametrize("own", ["ok", "empty", "timeout", "http_error"])
    def test_final_beats_not_final(self, own: Any, theirs: Any, empty: RecordStore, tmp_path: Path) -> None:
        first, second = (
            Completion(status=status, detail=detail, text="yes" if status == "ok" else "")
            for status, detail in ((own, "own"), (theirs, "theirs"))
        )
        empty.put(key(), first, agent="ann")
        merged = import_store(empty, exported(tmp_path, "other", Incoming(key(), second, "ann")))
        wins = own not in FINAL and theirs in FINAL
        clash = {own, theirs} == {"ok", "empty"}
        assert merged[:4] == (0, int(wins), int(not wins and not clash), int(clash))
        assert merged.examples == ((("ann", "q0"),) if clash else ())
        assert empty.get([key().digest]) == {key().digest: second if wins else first}
        assert verify_store(empty) == []

    @pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Completion)])
    def test_what_makes_another_answer(self, name: str, empty: RecordStore, tmp_path: Path) -> None:
        """That it took longer, or cost more, does not; the store keeps its own anyway."""
        other: dict[str, Any] = {"status": "truncated", "option_logprobs": (-1.0,), "attempts": 3, "seconds": 5.0}
        other |= {"usage": dataclasses.replace(said().usage, tokens_in=1)}
        theirs = said(**{name: other.get(name, "other")})
        empty.put(key(), said(), agent="ann")
        merged = import_store(empty, exported(tmp_path, "other", Incoming(key(), theirs, "ann")))
        assert merged.conflicts == int(name in ("status", "text", "option_logprobs", "reasoning"))
        assert merged.same == 1 - merged.conflicts
        assert empty.get([key().digest]) == {key().digest: said()}

    def test_facts_of_the_store_stay(self, empty: RecordStore, export: Path) -> None:
        empty.set_fact("scoring/org/model", "own")
        empty.set_fact("other", "own")
        import_store(empty, export)
        assert dict(empty.facts) == {"scoring/org/model": "own", "other": "own"}

    def test_several_files(self, empty: RecordStore, tmp_path: Path) -> None:
        one = exported(tmp_path, "one", Incoming(key(1), said("one"), "ann"), Incoming(key(2), failed(), "ann"))
        two = exported(tmp_path, "two", Incoming(key(2), said("two"), "ann"), Incoming(key(1), said("two"), "ann"))
        merged = import_store(empty, one, two)
        assert merged == Merged(added=2, replaced=1, conflicts=1, examples=(("ann", "q1"),))
        assert {of: one.text for of, one in empty.get([key(1).digest, key(2).digest]).items()} == {
            key(1).digest: "one",
            key(2).digest: "two",
        }

    def test_a_kill_in_the_middle_can_be_run_again(self, tmp_path: Path) -> None:
        rows = [Incoming(key(i), said(str(i)), "ann") for i in range(6000)]
        export = exported(tmp_path, "many", *rows)
        code = """
            import os, sys
            from fusion.agents._store import RecordStore
            from fusion.agents._store_parquet import import_store
            def kill(step, done, total):
                if step.startswith("adding") and done >= 2000:
                    os.kill(os.getpid(), 9)
            with RecordStore.open(sys.argv[1]) as store:
                import_store(store, sys.argv[2], progress=kill)
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "new"), str(export)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run(command, check=False, env=environment, timeout=120).returncode == -9
        with RecordStore.open(tmp_path / "new", create=False) as store:
            there = len(store)
            assert 2000 <= there < 6000
            assert verify_store(store) == []
            assert import_store(store, export) == Merged(added=6000 - there, same=there)


def rewritten(path: Path, column: str, change: Any) -> None:
    """Change one cell of the last row of an export, and keep the rest, notes included."""
    table = pq.read_table(path)
    metadata = pq.read_metadata(path).metadata
    at = table.schema.get_field_index(column)
    cells = table.column(column).to_pylist()
    cells[-1] = change(cells[-1])
    table = table.set_column(at, table.schema.field(at), pa.array(cells, type=table.schema.field(at).type))
    pq.write_table(table.replace_schema_metadata({k: v for k, v in metadata.items() if k != b"ARROW:schema"}), path)


class TestBadFiles:
    COLUMNS = tuple(name for name in _store_parquet._SCHEMA.names if name != "exact")

    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_changed_cell_is_found_and_nothing_is_imported(
        self, column: str, export: Path, empty: RecordStore, tmp_path: Path
    ) -> None:
        def change(cell: Any) -> Any:
            if isinstance(cell, list) or (cell is None and column == "option_logprobs"):
                return [*(cell or ()), -1.0]
            if cell is None or isinstance(cell, int | float):
                return 1 if cell != 1 else 2
            return f"{cell}x"

        plain = exported(tmp_path, "plain", *(Incoming(key(i), said(), "ann") for i in range(30)))
        rewritten(plain, column, change)
        with pytest.raises(InputError, match=r"plain\.parquet: row 29 .*; nothing was imported"):
            import_store(empty, export, plain)
        assert len(empty) == 0

    @pytest.mark.parametrize("column", COLUMNS)
    def test_missing_cells(self, column: str, empty: RecordStore, tmp_path: Path) -> None:
        rows = (Incoming(key(i, sample=1, seed=1), said(), "ann") for i in range(30))
        plain = exported(tmp_path, "plain", *rows)
        rewritten(plain, column, lambda cell: None)
        with pytest.raises(InputError, match="nothing was imported"):
            import_store(empty, plain)
        assert len(empty) == 0

    @pytest.mark.parametrize("change", [("answer", "reply"), ('"text"', '"txt"'), ("{", "["), ("}", "")], ids=str)
    def test_exact_texts(self, change: tuple[str, str], empty: RecordStore, tmp_path: Path) -> None:
        plain = exported(tmp_path, "plain", Incoming(key(), said(f"answer {NASTY}"), "ann"))
        rewritten(plain, "exact", lambda text: text.replace(*change))
        with pytest.raises(InputError, match="nothing was imported"):
            import_store(empty, plain)

    def test_missing_and_swapped_rows(self, export: Path, empty: RecordStore) -> None:
        table, metadata = pq.read_table(export), pq.read_metadata(export).metadata
        del metadata[b"ARROW:schema"]
        shorter, other = table.slice(1), pa.concat_tables([table.slice(1), table.slice(0, 1)])
        for changed in (shorter, other, pa.concat_tables([table, table.slice(0, 1)])):
            pq.write_table(changed.replace_schema_metadata(metadata), export)
            with pytest.raises(InputError, match=rf"holds {len(changed)} answers that are not the {len(table)}"):
                import_store(empty, export)
        assert len(empty) == 0

    def test_damaged_files(self, export: Path, empty: RecordStore) -> None:
        good = export.read_bytes()
        for position in range(0, len(good), max(len(good) // 60, 1)):
            damaged = bytearray(good)
            damaged[position] ^= 0x10
            export.write_bytes(damaged)
            try:
                assert check_export(export).answers == 63
            except InputError as error:
                assert str(export) in str(error)  # noqa: PT017
        for length in (0, 3, 100, len(good) // 2, len(good) - 1):
            export.write_bytes(good[:length])
            with pytest.raises(InputError, match=r"cannot be read as Parquet: .*Export or copy it again"):
                import_store(empty, export)
        assert len(empty) == 0

    def test_other_files(self, export: Path, empty: RecordStore, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
        (tmp_path / "text").write_text("text")
        wrong = {
            "other.parquet": "is a Parquet file but no export of a record store; give one of fusion store export",
            "text": "cannot be read as Parquet",
            "none": "no file .*none; give one that fusion store export wrote",
            "": "is no file; give one that fusion store export wrote",
        }
        for name, told in wrong.items():
            with pytest.raises(InputError, match=told):
                import_store(empty, tmp_path / name)
        assert len(empty) == 0

    def test_other_versions_and_notes(self, export: Path, empty: RecordStore) -> None:
        table, metadata = pq.read_table(export), pq.read_metadata(export).metadata
        del metadata[b"ARROW:schema"]
        notes = metadata[b"fusion.records"].replace(b"records/1", b"records/2")
        checksum = {b"fusion.records.sha256": hashlib.sha256(notes).hexdigest().encode()}
        for changed, told in (
            ({b"fusion.records": notes} | checksum, r"is of the version 'fusion\.records/2'.*upgrade fusion"),
            ({b"fusion.records": notes}, "is damaged: its notes are not what was written"),
        ):
            pq.write_table(table.replace_schema_metadata(metadata | changed), export)
            with pytest.raises(InputError, match=told):
                import_store(empty, export)
        pq.write_table(table.drop_columns(["exact"]).replace_schema_metadata(metadata), export)
        with pytest.raises(InputError, match="its columns are not those"):
            import_store(empty, export)


class TestClearingOut:
    def test_what_is_not_final_goes(self, store: RecordStore) -> None:
        before = everything(store)[0]
        swept = gc_store(store)
        # Of sixty answers the 3rd, 10th, ... 59th are failures: nine, three of every agent.
        assert swept.answers == {(f"agent-{i}", "timeout"): 3 for i in range(3)}
        assert everything(store)[0] == [row for row in before if row.completion.status in FINAL]
        assert verify_store(store) == []
        assert gc_store(store)[:3] == ({}, 0, 0)

    def test_agents_go(self, store: RecordStore) -> None:
        before = everything(store)[0]
        swept = gc_store(store, agents=["agent-1", NASTY])
        assert swept.answers[NASTY, "unwanted"] == 1
        # What it shares with others stays; its settings, and the prompt that it alone was asked, go.
        assert (swept.senders, swept.asked) == (2, 1)
        left = [row for row in before if row.completion.status in FINAL and row.agent not in ("agent-1", NASTY)]
        assert everything(store)[0] == left
        assert verify_store(store) == []

    @pytest.mark.parametrize("keep", [["ann"], ["ann", "agent-0"], []])
    def test_agents_stay(self, keep: list[str], store: RecordStore) -> None:
        gc_store(store, keep=keep)
        assert {row.agent for row in store.rows()} == set(keep)
        assert verify_store(store) == []

    @pytest.mark.parametrize(
        "wanted", [{}, {"agents": ["agent-1"]}, {"keep": ["ann"]}, {"damaged": [1, 2, 3]}], ids=str
    )
    def test_a_dry_run_says_what_would_go(self, wanted: Any, store: RecordStore) -> None:
        before = everything(store)
        with RecordStore.open(store.file, readonly=True) as reader:
            planned = gc_store(reader, dry_run=True, **wanted)
        assert everything(store) == before
        assert gc_store(store, **wanted)[:3] == planned[:3]

    def test_the_file_shrinks_by_about_what_was_said(self, tmp_path: Path) -> None:
        with RecordStore.open(tmp_path) as store:
            for agent in ("ann", "bob"):
                texts = (hashlib.shake_256(f"{agent}{i}".encode()).hexdigest(1500) for i in range(500))
                store.put_many(Incoming(key(i, agent=agent), said(text), agent) for i, text in enumerate(texts))
            planned = gc_store(store, agents=["bob"], dry_run=True)
            size = store.file.stat().st_size
            swept = gc_store(store, agents=["bob"])
            # Not all was in the file itself before.
            assert size - store.file.stat().st_size <= swept.bytes
        assert 0.7 * swept.bytes < planned.bytes < 1.3 * swept.bytes
        assert swept.bytes > 1_000_000

    def test_wrong_names(self, store: RecordStore) -> None:
        for dry_run, wanted in itertools.product((True, False), ({"agents": ["agnet-1"]}, {"keep": ["agnet-1"]})):
            with pytest.raises(UnknownName, match=r"unknown agent 'agnet-1'; did you mean 'agent-"):
                gc_store(store, dry_run=dry_run, **wanted)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="not both"):
            gc_store(store, agents=["ann"], keep=["ann"])
        assert gc_store(store, dry_run=True).answers

    def test_read_only(self, store: RecordStore) -> None:
        with RecordStore.open(store.file, readonly=True) as reader, pytest.raises(OutputError, match="read-only"):
            gc_store(reader)
