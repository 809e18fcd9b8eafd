"""Looking for damage in a record store: in the file, in every answer, and in every key."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

from fusion.agents._key import sha256
from fusion.agents._store import RecordStore
from fusion.agents._store_open import expected_schema, reading_connection, schema_of
from fusion.agents._store_rows import (
    CONTENT,
    Cell,
    checksum,
    digest_of,
    fact_checksum,
    from_cells,
    plain,
    question_of,
    unpack,
    wrong_types,
)
from fusion.errors import StoreError

Tell = Callable[[str, int, int], None]
"""Is told of progress: what is done, how much of it, of how much."""

_PAGE = 500
_LISTED = 100
_SHOWN = 200
_ANSWERS = (
    "SELECT a.id, a.digest, s.hash, k.hash, k.question_id, a.sample, a.seed, a.checksum, "
    f"{', '.join(f'a.{name}' for name in CONTENT)} FROM answers AS a "
    "LEFT JOIN senders AS s ON s.id = a.sender LEFT JOIN asked AS k ON k.id = a.asked"
)
_LEAD = 8
_PARTS = {
    "senders": "SELECT a.id, a.hash, a.json, '' FROM senders AS a",
    "asked": "SELECT a.id, a.hash, a.json, a.question_id FROM asked AS a",
}
_NAMED = (
    "SELECT a.agent, k.question_id FROM answers AS a LEFT JOIN asked AS k ON k.id = a.asked WHERE a.id = ?",
    "SELECT agent, '' FROM answers WHERE id = ?",
)

_Row = tuple[Cell, ...]


class Problem(NamedTuple):
    """Something in a store that is not what was put there.

    Attributes:
        what: What is wrong, in words.
        agent: Whose answer it concerns; "" when that is unknown.
        question_id: To which question; likewise.
        field: Which of its fields; likewise.
        rows: The numbers, in the file, of the answers that it concerns.
    """

    what: str
    agent: str = ""
    question_id: str = ""
    field: str = ""
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        named = (("agent", self.agent), ("question", self.question_id), ("field", self.field))
        where = ", ".join(f"{name} {value!r}" for name, value in named if value)
        return f"{where}: {self.what}" if where else self.what


def verify_store(store: RecordStore, *, progress: Tell | None = None) -> list[Problem]:
    """Return everything in `store` that is not what was put there; empty when it is whole.

    Checked are the file's structure, the checksum of every answer and fact, every hash of a key's part, every digest,
    and that no part of a key is missing or left over.

    Args:
        store: The store; it may be recorded into meanwhile.
        progress: Is told what is checked and how far it is.
    """
    tell = progress or (lambda step, done, total: None)
    problems: list[Problem] = []
    with store.reading():
        connection = reading_connection(store.file)
    with contextlib.closing(connection):
        for check in (_schema, _structure, _facts, _parts, _answers, _left_over):
            try:
                for problem in check(connection, tell):
                    problems.append(problem)
            except sqlite3.Error as error:
                problems.append(Problem(f"the file is damaged: {_short(error)}"))
            if check is _schema and problems:
                # What other tables hold cannot be judged.
                break
    # Damage to the file's structure makes several checks stumble over the same thing.
    return list(dict.fromkeys(problems))


def damaged_rows(problems: Iterable[Problem]) -> list[int]:
    """Return the numbers of the answers that problems concern."""
    return sorted({row for problem in problems for row in problem.rows})


def _schema(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    found = schema_of(connection)
    for name, statement in expected_schema().items():
        if found.get(name) != statement:
            yield Problem(f"the file is damaged: its table or index {name} is not as the format says")


def _structure(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    tell("checking the file", 0, 1)
    for (told,) in connection.execute(f"PRAGMA integrity_check({_LISTED})"):
        if told != "ok":
            yield Problem(f"the file is damaged: {_short(told)}")
    tell("checking the file", 1, 1)


def _facts(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    for name, value, summed in connection.execute("SELECT name, value, checksum FROM facts"):
        try:
            right = fact_checksum(plain(name), plain(value)) == summed
        except ValueError:
            right = False
        if not right:
            yield Problem(f"the fact {name!r} is not what was remembered")


def _parts(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    """Hash the parts of keys again."""
    for table, query in _PARTS.items():
        for id, row in _each(connection, table, query, tell):
            what = f"it cannot be read: {_short(row)}" if isinstance(row, sqlite3.Error) else _wrong_part(*row[1:])
            if what:
                yield _part_problem(connection, table, id, what)


def _part_problem(connection: sqlite3.Connection, table: str, id: int, what: str) -> Problem:
    column = "asked" if table == "asked" else "sender"
    rows = [row[0] for row in connection.execute(f"SELECT id FROM answers WHERE {column} = ? ORDER BY id", (id,))]
    agent, question = _named(connection, rows[0]) if rows else ("", "")
    kind = "what was asked" if table == "asked" else "who was asked and how"
    said = f"{kind} is not what was recorded, for {len(rows)} answers: {what}"
    return Problem(said, "" if table == "asked" else agent, question if table == "asked" else "", column, tuple(rows))


def _wrong_part(hash: Cell, json: Cell, question: Cell) -> str:
    try:
        text = unpack(json)
        if not isinstance(hash, bytes) or sha256(text) != hash.hex():
            return "it has another hash"
        if question and plain(question) != question_of(text):
            return f"it names the question {_shown(question)!r} instead of {question_of(text)!r}"
    except ValueError as error:
        return _short(error)
    return ""


def _answers(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    for id, row in _each(connection, "answers", _ANSWERS, tell):
        if isinstance(row, sqlite3.Error):
            column = re.search(r"column '(\w+)'", str(row))
            agent, question = _named(connection, id)
            yield Problem(f"cannot be read: {_short(row)}", agent, question, column[1] if column else "", (id,))
        else:
            agent, question = _shown(row[_LEAD]), _shown(row[4])
            for field, what in _wrong_answer(row):
                yield Problem(what, agent, question, field, (id,))


def _wrong_answer(row: _Row) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an answer: the field, where it can be told, and in words."""
    _, digest, sender, asked, _, sample, seed, summed = row[:_LEAD]
    if sender is None or asked is None:
        yield "sender" if sender is None else "asked", "a part of its key is missing"
    elif not _is_digest(digest, (sender, asked, sample, seed)):
        yield "digest", "its key is not the one of who was asked, what was asked and which draw it was"
    try:
        content = from_cells(row[_LEAD:])
    except ValueError as error:
        yield "", f"not what was recorded: {_short(error)}"
        return
    wrong = list(wrong_types(content))
    for field in wrong:
        yield field, f"not what was recorded: {_shown(row[_LEAD + CONTENT.index(field)])!r}"
    if not wrong and (not isinstance(digest, bytes) or checksum(digest.hex(), content) != _shown(summed)):
        yield "", "not what was recorded: it has another checksum"


def _is_digest(digest: Cell, parts: _Row) -> bool:
    sender, asked, sample, seed = (part.hex() if isinstance(part, bytes) else part for part in parts)
    try:
        found = digest_of(cast("str", sender), cast("str", asked), cast("int", sample), cast("int | None", seed))
    except StoreError:
        return False
    return isinstance(digest, bytes) and found == digest.hex()


def _left_over(connection: sqlite3.Connection, tell: Tell) -> Iterator[Problem]:
    for table, column in (("senders", "sender"), ("asked", "asked")):
        query = f"SELECT count(*) FROM {table} WHERE id NOT IN (SELECT {column} FROM answers)"
        count = connection.execute(query).fetchone()[0]
        if count:
            yield Problem(f"{count} rows of {table}, parts of keys, belong to no answer; fusion store gc drops them")


def _each(
    connection: sqlite3.Connection, table: str, query: str, tell: Tell
) -> Iterator[tuple[int, _Row | sqlite3.Error]]:
    """Yield every row that `query` finds in `table`, with its number; for one that cannot be read, the reason.

    The rows of a page are asked for by number, so that one of them does not hide the others.
    """
    total = connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
    last = -1
    while True:
        tell(f"checking {table}", max(last, 0), total)
        numbers = f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        ids = [row[0] for row in connection.execute(numbers, (last,))]
        if not ids:
            return
        try:
            found = connection.execute(f"{query} WHERE a.id BETWEEN ? AND ?", (ids[0], ids[-1])).fetchall()
            yield from ((row[0], row) for row in found)
        except sqlite3.Error:
            for id in ids:
                try:
                    yield from ((id, row) for row in connection.execute(f"{query} WHERE a.id = ?", (id,)).fetchall())
                except sqlite3.Error as error:
                    yield id, error
        last = ids[-1]


def _named(connection: sqlite3.Connection, id: int) -> tuple[str, str]:
    """Return the agent and the question of an answer that cannot be read as a whole."""
    for query in _NAMED:
        with contextlib.suppress(sqlite3.Error):
            agent, question = connection.execute(query, (id,)).fetchone()
            return _shown(agent), _shown(question)
    return "", ""


def _shown(cell: Cell) -> str:
    if isinstance(cell, bytes):
        return cell.hex()[:_SHOWN]
    return "" if cell is None else str(cell)[:_SHOWN]


def _short(said: object) -> str:
    line = " ".join(str(said).split())
    cut = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
