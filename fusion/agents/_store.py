"""The record store: every answer as it arrives, in one SQLite file, so that nothing is asked twice.

An answer is kept under the key of `fusion.agents._key`: everything that can change it, and whose it is. A put is
committed before it returns, and SQLite's write-ahead log keeps what was committed when the process is killed. Several
threads and several processes may use one store at once.
"""

import contextlib
import datetime
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fusion.agents._key import RecordKey
from fusion.agents._store_open import connect, patiently, store_file, translated
from fusion.agents._store_rows import Incoming, Record, completion_of
from fusion.agents._store_sql import (
    CHUNK,
    PartReader,
    Place,
    Tally,
    Writer,
    facts_of,
    held,
    page,
    put_fact,
    tallies,
)
from fusion.errors import OutputError, StoreError
from fusion.schema import Completion


class RecordStore:
    """Recorded answers by key, in one file; made with `RecordStore.open`.

    Any thread of the process that opened it may use it, and other processes may open it too.

    Attributes:
        file: The SQLite file.
        readonly: Whether nothing can be put.
    """

    def __init__(self, file: Path, connection: sqlite3.Connection, *, readonly: bool) -> None:
        self.file = file
        self.readonly = readonly
        self._connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()
        self._process = os.getpid()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True, readonly: bool = False) -> Self:
        """Open the store at `path`, a folder or the file in it.

        Args:
            path: Where it is; where nothing is, a name that ends with .sqlite stands for the file.
            create: Whether to make it when it is missing.
            readonly: Only read, also from a folder that cannot be written to.

        Raises:
            InputError: When there is none and none is to be made.
            OutputError: When it cannot be made or written to.
            StoreError: When it is damaged, locked, of another version or no record store at all.
        """
        file = store_file(path)
        return cls(file, connect(file, create=create, readonly=readonly), readonly=readonly)

    def close(self) -> None:
        """Close the file; what was put is kept."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        with self.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def get(self, digests: Iterable[str]) -> dict[str, Completion]:
        """Return the answers that are there by digest, final or not.

        Raises:
            StoreError: When one of them is not what was put there.
        """
        wanted = [bytes.fromhex(digest) for digest in digests]
        found: dict[str, Completion] = {}
        for start in range(0, len(wanted), CHUNK):
            with self.reading() as connection:
                there = held(connection, wanted[start : start + CHUNK])
                found.update((digest, completion_of(content)) for digest, content in there.items())
        return found

    def put(self, key: RecordKey, completion: Completion, *, agent: str, task: str = "") -> Completion:
        """Keep an answer, for good when this returns, and return what the store now holds under its key.

        A final answer is never replaced, another one by whatever comes.

        Args:
            key: What identifies the answer.
            completion: What came back.
            agent: Who answered.
            task: What the question belongs to.

        Raises:
            OutputError: When the disk is full or read-only; what was put before is kept.
            StoreError: When the store is damaged or locked, or cannot keep a value.
        """
        return self.put_many([Incoming(key, completion, agent, task)])[0]

    def put_many(self, rows: Iterable[Incoming]) -> list[Completion]:
        """Keep many answers, all or none, as `put` does, and return what the store now holds, row by row.

        Raises:
            OutputError: When the disk is full or read-only; what was put before is kept.
            StoreError: When the store is damaged or locked, or cannot keep a value.
        """
        incoming = list(rows)
        kept: list[Completion] = []
        with self.writing() as connection:
            writer = Writer(connection, utc_now())
            for start in range(0, len(incoming), CHUNK):
                kept += writer.put(incoming[start : start + CHUNK])
        return kept

    def fact(self, name: str) -> str | None:
        """Return a small finding that was remembered under `name`; None when there is none."""
        return self.facts.get(name)

    def set_fact(self, name: str, value: str) -> None:
        """Remember a small finding, for example by what means an endpoint scores options.

        Raises:
            OutputError: When the disk is full or read-only.
            StoreError: When the store is damaged or locked.
        """
        with self.writing() as connection:
            put_fact(connection, name, value)

    @property
    def facts(self) -> Mapping[str, str]:
        """All findings that were remembered, by name."""
        with self.reading() as connection:
            return facts_of(connection)

    def rows(self, *, agents: Collection[str] | None = None, task: str | None = None) -> Iterator[Record]:
        """Yield the answers, those to one question after each other; memory stays bounded.

        What is put meanwhile may or may not be among them.

        Args:
            agents: Only answers of these.
            task: Only answers to this task.

        Raises:
            StoreError: When an answer is not what was put there.
        """
        parts = PartReader()
        place: Place | None = Place()
        while place is not None:
            with self.reading() as connection:
                records, place = page(connection, place, parts)
            for record in records:
                if (agents is None or record.agent in agents) and (task is None or record.task == task):
                    yield record

    def summary(self) -> list[Tally]:
        """Return how many answers there are by agent, task and status, with tokens and seconds."""
        with self.reading() as connection:
            return tallies(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, to this thread alone; SQLite's errors become fusion's."""
        with self._lock:
            if self._connection is None:
                raise StoreError(f"the record store {self.file} is closed; open it again")
            if os.getpid() != self._process:
                raise StoreError(
                    f"the record store {self.file} was opened by another process, which this one was forked from; "
                    "open it again here"
                )
            with translated(self.file):
                yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection within a transaction, which is undone when the block raises."""
        if self.readonly:
            raise OutputError(
                f"cannot write to the record store {self.file}: it was opened read-only; open it to write"
            )
        with self.reading() as connection:
            # Begun as a writer: one that reads first could not become a writer once another process has written.
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
