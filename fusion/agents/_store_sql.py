"""Reading and writing the rows of a record store through a connection that is already open."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from fusion.agents._key import RecordKey, sha256
from fusion.agents._store_rows import (
    CONTENT,
    Cell,
    Content,
    Incoming,
    Record,
    checksum,
    completion_of,
    content_of,
    digest_of,
    fact_checksum,
    from_cells,
    pack,
    plain,
    question_of,
    safe_cells,
    text_cell,
    to_cells,
    unpack,
)
from fusion.schema import FINAL, Completion

CHUNK = 500
"""How many rows are read or written in one go."""

_CELLS = ", ".join(CONTENT)
_COLUMNS = ("digest", "sender", "asked", "sample", "seed", "checksum", *CONTENT)
_HELD = f"SELECT digest, checksum, {_CELLS} FROM answers WHERE digest IN"
_PAGE = f"SELECT id, digest, sender, asked, sample, seed, checksum, {_CELLS} FROM answers WHERE"
_PUT = (
    f"INSERT INTO answers ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (digest) "
    f"DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in ('checksum', *CONTENT))}"
)
_SUMMARY = (
    "SELECT agent, task, status, count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), "
    "coalesce(sum(seconds), 0.0), min(recorded), max(recorded) FROM answers GROUP BY agent, task, status"
)
_RECORDED = CONTENT.index("recorded")


class Tally(NamedTuple):
    """Answers of one agent to one task that ended alike.

    Attributes:
        agent: Who answered.
        task: What the questions belong to.
        status: How the calls ended.
        answers: How many there are.
        tokens_in: Tokens read; unknown ones count as 0.
        tokens_out: Tokens written; likewise.
        seconds: From sending to the end, summed.
        first: When the first was recorded, UTC, ISO 8601.
        last: When the last was.
    """

    agent: str
    task: str
    status: str
    answers: int
    tokens_in: int
    tokens_out: int
    seconds: float
    first: str
    last: str


class Place(NamedTuple):
    """How far a reading of all answers has come: they are read by the numbers of what was asked and of the answer."""

    asked: int = -1
    answer: int = -1


class Part(NamedTuple):
    """A part of keys, as it was put there.

    Attributes:
        text: Who was asked and how, or what was asked, as canonical JSON.
        hash: SHA-256 of it.
        question_id: The question, of what was asked.
    """

    text: str
    hash: str
    question_id: str = ""


class PartReader:
    """Gives the parts of keys in clear by their numbers; of what was asked it remembers the last one only."""

    def __init__(self) -> None:
        self._senders: dict[int, Part] = {}
        self._asked: tuple[int, Part] = (-1, Part("", ""))

    def sender(self, connection: sqlite3.Connection, id: int) -> Part:
        """Return who was asked and how.

        Raises:
            ValueError: When it is not what was put there.
        """
        if id not in self._senders:
            self._senders[id] = _part(connection, "senders", id)
        return self._senders[id]

    def asked(self, connection: sqlite3.Connection, id: int) -> Part:
        """Return what was asked.

        Raises:
            ValueError: When it is not what was put there.
        """
        if self._asked[0] != id:
            part = _part(connection, "asked", id)
            self._asked = (id, part._replace(question_id=question_of(part.text)))
        return self._asked[1]


class PartWriter:
    """The parts of keys that one transaction has met: their hashes, and their numbers in the store."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection = connection
        self._table = table
        self._hashes: dict[str, str] = {}
        self._ids: dict[str, int] = {}

    def hash(self, text: str) -> str:
        """Return the SHA-256 of a part."""
        found = self._hashes.get(text)
        if found is None:
            found = self._hashes[text] = sha256(text)
        return found

    def id(self, text: str) -> int:
        """Return the number of a part, which is added when it is new."""
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = self._found(text)
        return found

    def _found(self, text: str) -> int:
        key = bytes.fromhex(self.hash(text))
        row = self._connection.execute(f"SELECT id FROM {self._table} WHERE hash = ?", (key,)).fetchone()
        if row is not None:
            return int(row[0])
        question = (text_cell(question_of(text)),) if self._table == "asked" else ()
        columns = "hash, json, question_id" if question else "hash, json"
        cells = (key, pack(text), *question)
        query = f"INSERT INTO {self._table} ({columns}) VALUES ({', '.join('?' * len(cells))})"
        return cast("int", self._connection.execute(query, cells).lastrowid)


class Writer:
    """Puts answers within one transaction."""

    def __init__(self, connection: sqlite3.Connection, now: str) -> None:
        self._connection = connection
        self._now = now
        self._senders = PartWriter(connection, "senders")
        self._asked = PartWriter(connection, "asked")

    def put(self, rows: Sequence[Incoming]) -> list[Completion]:
        """Write at most `CHUNK` answers and return what is then held, row by row."""
        digests = [
            digest_of(self._senders.hash(key.sender), self._asked.hash(key.asked), key.sample, key.seed)
            for key, *_ in rows
        ]
        there = held(self._connection, [bytes.fromhex(digest) for digest in digests])
        kept = {digest: completion_of(content) for digest, content in there.items()}
        cells: dict[str, Sequence[Cell]] = {}
        for row, digest in zip(rows, digests, strict=True):
            if digest not in kept or kept[digest].status not in FINAL:
                cells[digest] = self._cells(row, digest)
                kept[digest] = row.completion
        try:
            self._connection.executemany(_PUT, cells.values())
        except UnicodeEncodeError:
            # Lone surrogates are rare: looking for them beforehand would slow down every other put.
            self._connection.executemany(_PUT, map(safe_cells, cells.values()))
        return [kept[digest] for digest in digests]

    def _cells(self, row: Incoming, digest: str) -> Sequence[Cell]:
        key, completion, agent, task, recorded = row
        content = content_of(completion, agent=agent, task=task, recorded=recorded or self._now)
        parts = (self._senders.id(key.sender), self._asked.id(key.asked), key.sample, key.seed)
        return (bytes.fromhex(digest), *parts, bytes.fromhex(checksum(digest, content)), *to_cells(content))


def held(connection: sqlite3.Connection, digests: Sequence[bytes]) -> dict[str, Content]:
    """Return the content under each of at most `CHUNK` digests that are there.

    Raises:
        ValueError: When it is not what was put there.
    """
    found: dict[str, Content] = {}
    for key, summed, *cells in connection.execute(f"{_HELD} ({', '.join('?' * len(digests))})", digests):
        digest = key.hex()
        found[digest] = content = from_cells(cells)
        _check(digest, content, summed)
    return found


def page(connection: sqlite3.Connection, after: Place, parts: PartReader) -> tuple[list[Record], Place | None]:
    """Return the next answers, and where the ones behind them begin; None at the end.

    Raises:
        ValueError: When one of them is not what was put there.
    """
    records = []
    # Two questions, as SQLite would read all answers to one prompt for each page of them to compare pairs.
    rows = connection.execute(f"{_PAGE} asked = ? AND id > ? ORDER BY id LIMIT ?", (*after, CHUNK)).fetchall()
    if len(rows) < CHUNK:
        rest = f"{_PAGE} asked > ? ORDER BY asked, id LIMIT ?"
        rows += connection.execute(rest, (after.asked, CHUNK - len(rows))).fetchall()
    for id, key, sender_id, asked_id, sample, seed, summed, *cells in rows:
        after = Place(asked_id, id)
        content = from_cells(cells)
        sender, asked = parts.sender(connection, sender_id), parts.asked(connection, asked_id)
        digest = digest_of(sender.hash, asked.hash, sample, seed)
        if key != bytes.fromhex(digest):
            raise ValueError(f"an answer of agent {content[0]!r} has a key that is not its own")
        _check(digest, content, summed)
        records.append(
            Record(
                digest=digest,
                key=RecordKey(sender.text, asked.text, sample, seed),
                agent=cast("str", content[0]),
                task=cast("str", content[1]),
                question_id=asked.question_id,
                completion=completion_of(content),
                recorded=cast("str", content[_RECORDED]),
                checksum=summed.hex(),
            )
        )
    return records, after if len(rows) == CHUNK else None


def tallies(connection: sqlite3.Connection) -> list[Tally]:
    """Return the answers counted by agent, task and status."""
    return [
        Tally(plain(agent), plain(task), plain(status), *rest)
        for agent, task, status, *rest in connection.execute(_SUMMARY).fetchall()
    ]


def facts_of(connection: sqlite3.Connection) -> Mapping[str, str]:
    """Return what was remembered.

    Raises:
        ValueError: When it is not what was put there.
    """
    facts = {}
    for name, value, summed in connection.execute("SELECT name, value, checksum FROM facts"):
        facts[plain(name)] = plain(value)
        if fact_checksum(plain(name), plain(value)) != summed:
            raise ValueError(f"the fact {plain(name)!r} is not what was remembered")
    return facts


def put_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Remember a fact."""
    row = (text_cell(name), text_cell(value), fact_checksum(name, value))
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", row)


def _check(digest: str, content: Content, summed: bytes) -> None:
    if bytes.fromhex(checksum(digest, content)) != summed:
        raise ValueError(f"the answer {digest[:16]} of agent {content[0]!r} is not what was recorded")


def _part(connection: sqlite3.Connection, table: str, id: int) -> Part:
    row = connection.execute(f"SELECT hash, json FROM {table} WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise ValueError(f"row {id} of {table}, a part of keys, is missing")
    text = unpack(row[1])
    hash = sha256(text)
    if bytes.fromhex(hash) != row[0]:
        raise ValueError(f"row {id} of {table}, a part of keys, is not what was put there")
    return Part(text, hash)
