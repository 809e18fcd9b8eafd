"""Dropping from a record store what is asked again anyway, or wanted no longer."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from fusion.agents._store import RecordStore
from fusion.agents._store_open import patiently
from fusion.agents._store_rows import plain, text_cell
from fusion.errors import UnknownName, UsageError
from fusion.schema import FINAL

UNWANTED = "unwanted"
DAMAGED = "damaged"

_PARTS = (("senders", "sender"), ("asked", "asked"))
_TEXTS = ("text", "reasoning", "detail", "option_logprobs", "served_by", "finish_reason", "agent", "task", "recorded")
# Of an answer: numbers, hashes and the entries in two indexes. Of a part of a key: its hash, twice, and its number.
_ANSWER_BYTES = 150
_PART_BYTES = 80


class Swept(NamedTuple):
    """What was dropped, or would be.

    Attributes:
        answers: How many answers by agent and reason: a status that is not final, "unwanted" or "damaged".
        senders: How many ways of asking (agent, model, sampling) no answer has any more.
        asked: How many prompts likewise.
        bytes: By how much the file became smaller; of a dry run, about by how much it would.
    """

    answers: dict[tuple[str, str], int]
    senders: int
    asked: int
    bytes: int


def gc_store(
    store: RecordStore,
    *,
    agents: Collection[str] = (),
    keep: Collection[str] | None = None,
    damaged: Collection[int] = (),
    dry_run: bool = False,
) -> Swept:
    """Drop answers that are not final, others as wanted, and what only they needed; then the file shrinks.

    Args:
        store: The store. Others that record into it wait meanwhile.
        agents: Also drop all answers of these.
        keep: Also drop all answers of agents that are not among these; None drops none.
        damaged: Also drop the answers of these numbers (`damaged_rows`).
        dry_run: Only count.

    Raises:
        UsageError: When both `agents` and `keep` are given, or the store has no answer of an agent that is named.
        OutputError: When the disk is full or read-only.
        StoreError: When the store is damaged or locked.
    """
    if agents and keep is not None:
        raise UsageError("give either the agents to drop or the agents to keep, not both")
    with store.reading() if dry_run else store.writing() as connection:
        try:
            _select(connection, agents, keep, damaged)
            answers = _counted(connection)
            freed = _bytes(connection) if dry_run else 0
            parts = [_drop_part(connection, *part, dry_run=dry_run) for part in _PARTS]
            if not dry_run:
                connection.execute("DELETE FROM answers WHERE id IN (SELECT id FROM temp.swept)")
        finally:
            connection.execute("DROP TABLE IF EXISTS temp.swept")
    if not dry_run:
        freed = _shrink(store)
    return Swept(answers, parts[0], parts[1], freed)


def _select(
    connection: sqlite3.Connection, agents: Collection[str], keep: Collection[str] | None, damaged: Collection[int]
) -> None:
    """List the answers to drop in the temporary table `swept`, each with the first reason that applies."""
    connection.execute("CREATE TEMP TABLE swept (id INTEGER PRIMARY KEY, agent, why)")
    add = "INSERT OR IGNORE INTO temp.swept"
    connection.executemany(f"{add} VALUES (?, '', '{DAMAGED}')", ((id,) for id in damaged))
    final = ", ".join(f"'{status}'" for status in sorted(FINAL))
    connection.execute(f"{add} SELECT id, agent, status FROM answers WHERE status NOT IN ({final})")
    named = sorted(agents if keep is None else keep)
    if named or keep is not None:
        _check_names(connection, named)
        marks = ", ".join("?" * len(named))
        condition = f"agent {'IN' if keep is None else 'NOT IN'} ({marks})"
        cells = [text_cell(name) for name in named]
        connection.execute(f"{add} SELECT id, agent, '{UNWANTED}' FROM answers WHERE {condition}", cells)


def _check_names(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    known = [plain(row[0]) for row in connection.execute("SELECT DISTINCT agent FROM answers ORDER BY agent")]
    for name in names:
        if name not in known:
            raise UnknownName(kind="agent", name=name, known=known)


def _counted(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    rows = connection.execute("SELECT agent, why, count(*) FROM temp.swept GROUP BY agent, why ORDER BY agent, why")
    return {(plain(agent), plain(why)): count for agent, why, count in rows}


def _bytes(connection: sqlite3.Connection) -> int:
    """Return about how many bytes the answers to drop take."""
    lengths = " + ".join(f"coalesce(length(CAST({name} AS BLOB)), 0)" for name in _TEXTS)
    query = f"SELECT coalesce(sum({lengths} + {_ANSWER_BYTES}), 0) FROM answers WHERE id IN (SELECT id FROM temp.swept)"
    total = int(connection.execute(query).fetchone()[0])
    for part in _PARTS:
        query = f"SELECT coalesce(sum(length(json) + {_PART_BYTES}), 0) {_orphans(*part)}"
        total += int(connection.execute(query).fetchone()[0])
    return total


def _drop_part(connection: sqlite3.Connection, table: str, column: str, *, dry_run: bool) -> int:
    """Drop the parts of keys that no answer has that stays, and return how many there are."""
    count = int(connection.execute(f"SELECT count(*) {_orphans(table, column)}").fetchone()[0])
    if count and not dry_run:
        connection.execute(f"DELETE {_orphans(table, column)}")
    return count


def _orphans(table: str, column: str) -> str:
    stays = f"SELECT {column} FROM answers WHERE id NOT IN (SELECT id FROM temp.swept)"
    return f"FROM {table} WHERE id NOT IN ({stays})"


def _shrink(store: RecordStore) -> int:
    """Give unused space back and return how much there was."""
    with store.reading() as connection:
        before = _size(store, connection)
        patiently(lambda: connection.execute("VACUUM"))
        return max(before - _size(store, connection), 0)


def _size(store: RecordStore, connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return store.file.stat().st_size
