"""Recorded answers as one Parquet file: to move them between machines, to merge stores, and for other tools.

A row is an answer with its key in clear; the columns are named after the fields. Texts that are no valid UTF-8 (lone
surrogates) stand in the columns with replacement characters, and exactly in the column `exact`: JSON of all texts of
that row. The file's metadata holds, under `fusion.records`, the format's version, the number of answers, a checksum
over theirs and what the store remembers beside them; under `fusion.records.sha256` is the checksum of these notes.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fusion.agents._key import RecordKey, sha256
from fusion.agents._store import RecordStore, utc_now
from fusion.agents._store_rows import (
    CONTENT,
    FORMAT,
    TEXTS,
    USAGE,
    Content,
    Incoming,
    Record,
    checksum,
    completion_of,
    content_of,
    digest_of,
    question_of,
    wrong_types,
)
from fusion.agents._store_sql import CHUNK, Writer, facts_of, held, put_fact
from fusion.errors import InputError
from fusion.files import replacing
from fusion.schema import FINAL

Tell = Callable[[str, int, int], None]
"""Is told of progress: what is done, how much of it, of how much."""

_NOTES = b"fusion.records"
_NOTES_SHA256 = b"fusion.records.sha256"
_LEAD = ("digest", "sender", "asked", "question_id", "sample", "seed", "checksum")
_WHOLE = ("sample", "seed", "attempts", *USAGE)
_EXACT = ("sender", "asked", "question_id", *TEXTS)
_OTHER = {
    **dict.fromkeys(_WHOLE, pa.int64()),
    "seconds": pa.float64(),
    "option_logprobs": pa.list_(pa.float64()),
}
_SCHEMA = pa.schema([(name, _OTHER.get(name, pa.string())) for name in (*_LEAD, *CONTENT, "exact")])
_AT = {name: position for position, name in enumerate(_SCHEMA.names)}
_STATUS = CONTENT.index("status")
_GROUP_ROWS = 10_000
_GROUP_CHARACTERS = 32_000_000
_READ_ROWS = 2_000
_LISTED = 100


class Merged(NamedTuple):
    """What an import did.

    Attributes:
        added: Answers that the store lacked.
        replaced: Answers of the store that were not final, replaced by final ones.
        same: Answers that the store keeps as they are: it had them, or had final ones.
        conflicts: Answers for which the store has another final answer, which it keeps.
        examples: Agent and question of the first conflicts.
    """

    added: int = 0
    replaced: int = 0
    same: int = 0
    conflicts: int = 0
    examples: tuple[tuple[str, str], ...] = ()


class Export(NamedTuple):
    """A file of `export_store` that has been checked, row by row.

    Attributes:
        path: Where it is.
        answers: How many answers it holds.
        checksums: SHA-256 over theirs.
        facts: What the store remembered beside them.
    """

    path: Path
    answers: int
    checksums: str
    facts: Mapping[str, str]


def export_store(store: RecordStore, path: str | os.PathLike[str], *, progress: Tell | None = None) -> int:
    """Write everything in `store` to the Parquet file `path`, whole or not at all, and return how many answers.

    Memory stays bounded by a row group: 10,000 answers, fewer where they are long.

    Raises:
        OutputError: When the file cannot be written.
        StoreError: When an answer is not what was recorded.
    """
    tell = progress or (lambda step, done, total: None)
    total = len(store)
    count, sums = 0, hashlib.sha256()
    with store.reading() as connection:
        facts = dict(facts_of(connection))
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, _SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        for group in _groups(store.rows()):
            writer.write_batch(_batch(group), row_group_size=len(group))
            count += len(group)
            for record in group:
                sums.update(bytes.fromhex(record.checksum))
            tell("exporting", count, max(total, count))
        writer.add_key_value_metadata(_metadata(count, sums.hexdigest(), facts))
    return count


def check_export(path: str | os.PathLike[str], *, progress: Tell | None = None) -> Export:
    """Check every row of a file of `export_store` against its checksum and its key.

    Raises:
        InputError: When the file is missing, damaged, of another version or no export; a bad row is named.
    """
    tell = progress or (lambda step, done, total: None)
    source = Path(path)
    export = _notes(source)
    count, sums = 0, hashlib.sha256()
    parts: dict[str, str] = {}
    for rows in _batches(source):
        for row in rows:
            wrong = _wrong(row, parts)
            if wrong:
                raise InputError(
                    f"{source}: row {count} (agent {row.content[0]!r}, question {row.question_id!r}, answer "
                    f"{row.digest!r}) is not what was exported: {wrong}; nothing was imported. Export or copy it again"
                )
            sums.update(bytes.fromhex(row.checksum))
            count += 1
        # Prompts stand one after another: a hash is not wanted again much later.
        parts.clear()
        tell(f"checking {source.name}", count, export.answers)
    if count != export.answers or sums.hexdigest() != export.checksums:
        raise InputError(
            f"{source} holds {count} answers that are not the {export.answers} that were exported; nothing was "
            "imported. Export or copy it again"
        )
    return export


def import_store(store: RecordStore, *sources: str | os.PathLike[str] | Export, progress: Tell | None = None) -> Merged:
    """Add to `store` what files of `export_store` hold.

    An answer that the store has already is left as it is, unless it is not final and the file's is. Where the store
    has another final answer under the same key, it keeps its own, which is counted. Every row of every file is checked
    before the first is added. Rows are added in batches: what a full disk or a kill interrupts can be run again.

    Raises:
        InputError: When a file is missing, damaged, of another version or no export; then nothing is added.
        OutputError: When the store cannot be written to.
        StoreError: When the store is damaged or locked.
    """
    tell = progress or (lambda step, done, total: None)
    exports = [source if isinstance(source, Export) else check_export(source, progress=progress) for source in sources]
    merged = Merged()
    for export in exports:
        done = 0
        for rows in _batches(export.path):
            with store.writing() as connection:
                writer = Writer(connection, utc_now())
                for start in range(0, len(rows), CHUNK):
                    merged = _merge(connection, writer, rows[start : start + CHUNK], merged)
            done += len(rows)
            tell(f"adding {export.path.name}", done, export.answers)
        with store.writing() as connection:
            there = facts_of(connection)
            for name, value in export.facts.items():
                if name not in there:
                    put_fact(connection, name, value)
    return merged


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield lists of answers that fit into a row group each."""
    group: list[Record] = []
    characters = 0
    for record in records:
        group.append(record)
        said = record.completion
        characters += len(record.key.asked) + len(said.text) + len(said.reasoning) + len(said.detail)
        if len(group) == _GROUP_ROWS or characters > _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _batch(records: Iterable[Record]) -> pa.RecordBatch:
    columns: list[list[Any]] = [[] for _ in _SCHEMA]
    for record in records:
        for column, cell in zip(columns, _cells(record), strict=True):
            column.append(cell)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def _cells(record: Record) -> list[Any]:
    key = record.key
    lead = (record.digest, key.sender, key.asked, record.question_id, key.sample, key.seed, record.checksum)
    content = content_of(record.completion, agent=record.agent, task=record.task, recorded=record.recorded)
    cells: list[Any] = [*lead, *content]
    texts = {name: cells[_AT[name]] for name in _EXACT}
    try:
        "".join(texts.values()).encode()
    except UnicodeEncodeError:
        for name, text in texts.items():
            cells[_AT[name]] = text.encode("utf-8", "replace").decode()
        return [*cells, json.dumps(texts)]
    return [*cells, None]


def _metadata(answers: int, checksums: str, facts: Mapping[str, str]) -> dict[bytes, bytes]:
    notes = {"format": FORMAT, "answers": answers, "checksums": checksums, "facts": dict(facts)}
    text = json.dumps(notes).encode()
    return {_NOTES: text, _NOTES_SHA256: hashlib.sha256(text).hexdigest().encode()}


class _Row(NamedTuple):
    digest: str
    key: RecordKey
    question_id: str
    checksum: str
    content: Content


def _batches(source: Path) -> Iterator[list[_Row]]:
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            # A reading of all groups at once holds on to more and more memory.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=_READ_ROWS, row_groups=[group]):
                    yield [_row(cells) for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise _unreadable(source, error) from error


def _row(cells: tuple[Any, ...]) -> _Row:
    values = list(cells)
    exact = values.pop()
    if exact is not None:
        texts = json.loads(exact)
        for name in _EXACT:
            values[_AT[name]] = texts[name]
    digest, sender, asked, question, sample, seed, summed, *content = values
    return _Row(digest, RecordKey(sender, asked, sample, seed), question, summed, tuple(content))


def _wrong(row: _Row, parts: dict[str, str]) -> str:
    """Return what is wrong with a row; "" when nothing is."""
    for name, value in zip(("digest", "sender", "asked", "question_id", "checksum"), _texts(row), strict=True):
        if not isinstance(value, str):
            return f"it has no {name}"
    fields = list(wrong_types(row.content))
    if fields:
        return f"{', '.join(fields)} cannot be what an answer has there"
    for text in (row.key.sender, row.key.asked):
        if text not in parts:
            parts[text] = sha256(text)
    if digest_of(parts[row.key.sender], parts[row.key.asked], row.key.sample, row.key.seed) != row.digest:
        return "its key is not the one of who was asked, what was asked and which draw it was"
    if question_of(row.key.asked) != row.question_id:
        return "it names another question than was asked"
    return "" if checksum(row.digest, row.content) == row.checksum else "it has another checksum"


def _texts(row: _Row) -> tuple[object, ...]:
    return row.digest, row.key.sender, row.key.asked, row.question_id, row.checksum


def _merge(connection: sqlite3.Connection, writer: Writer, rows: list[_Row], merged: Merged) -> Merged:
    """Add at most `CHUNK` answers within a transaction, and return the new counts."""
    there = held(connection, [bytes.fromhex(row.digest) for row in rows])
    added, replaced, same, conflicts, examples = merged
    wanted = []
    for row in rows:
        own = there.get(row.digest)
        if own is None:
            added += 1
        elif own[_STATUS] not in FINAL and row.content[_STATUS] in FINAL:
            replaced += 1
        elif own[_STATUS] in FINAL and row.content[_STATUS] in FINAL and _says(own) != _says(row.content):
            conflicts += 1
            if len(examples) < _LISTED:
                examples = (*examples, (str(row.content[0]), row.question_id))
            continue
        else:
            same += 1
            continue
        there[row.digest] = row.content
        agent, task, recorded = (str(row.content[CONTENT.index(name)]) for name in ("agent", "task", "recorded"))
        wanted.append(Incoming(row.key, completion_of(row.content), agent, task, recorded))
    writer.put(wanted)
    return Merged(added, replaced, same, conflicts, examples)


def _says(content: Content) -> tuple[object, ...]:
    """Return what makes an answer another one; that it took longer does not."""
    return tuple(content[CONTENT.index(name)] for name in ("status", "text", "reasoning", "option_logprobs"))


def _notes(source: Path) -> Export:
    try:
        with pq.ParquetFile(source) as file:
            metadata, schema = file.metadata.metadata or {}, file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    raw = metadata.get(_NOTES)
    if raw is None:
        raise InputError(f"{source} is a Parquet file but no export of a record store; give one of fusion store export")
    if metadata.get(_NOTES_SHA256) != hashlib.sha256(raw).hexdigest().encode():
        raise InputError(f"{source} is damaged: its notes are not what was written; export or copy it again")
    notes = json.loads(raw)
    if notes["format"] != FORMAT:
        raise InputError(
            f"{source} is of the version {notes['format']!r}, this version of fusion reads {FORMAT!r}; upgrade fusion"
        )
    if not schema.equals(_SCHEMA):
        raise InputError(f"{source} is damaged: its columns are not those of {FORMAT}; export or copy it again")
    return Export(source, notes["answers"], notes["checksums"], notes["facts"])


def _unreadable(source: Path, error: Exception) -> InputError:
    if not source.exists():
        return InputError(f"no file {source}; give one that fusion store export wrote")
    if not source.is_file():
        return InputError(f"{source} is no file; give one that fusion store export wrote")
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(f"{source} cannot be read as Parquet: {line}; nothing was imported. Export or copy it again")
