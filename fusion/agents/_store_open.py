"""Opening the SQLite file of a record store, and SQLite's errors in the words of fusion."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from fusion.agents._store_rows import FILE_NAME, FORMAT, SCHEMA
from fusion.errors import FusionError, InputError, OutputError, StoreError

BUSY_SECONDS = 30.0
"""How long a process waits for another one that writes."""

_CACHE_KIB = 16_384
_CHECKPOINT_PAGES = 4_096
_JOURNAL_BYTES = 64 * 2**20
_HEAD = b"SQLite format 3\0"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OUTPUT = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened for writing",
    sqlite3.SQLITE_IOERR: "the operating system refuses",
}
_Result = TypeVar("_Result")


def store_file(path: str | os.PathLike[str]) -> Path:
    """Return the file of the store at `path`, a folder or the file itself.

    A path where nothing is stands for a file when it ends with .sqlite, else for a folder.
    """
    given = Path(path)
    return given if given.is_file() or (given.suffix == ".sqlite" and not given.is_dir()) else given / FILE_NAME


def connect(file: Path, *, create: bool, readonly: bool) -> sqlite3.Connection:
    """Return a connection to the store in `file`, made when it is missing and `create` is true.

    Raises:
        InputError: When there is none and none is to be made.
        OutputError: When it cannot be made or written to.
        StoreError: When it is damaged, of another version or no record store at all.
    """
    if not file.exists() and (readonly or not create):
        raise InputError(f"there is no record store {file}; give the folder that was recorded into, or its {FILE_NAME}")
    if not file.exists():
        _make_folder(file)
    elif not file.is_file():
        raise InputError(f"{file} is no file; give the folder of a record store, or its {FILE_NAME}")
    with translated(file):
        _check_head(file)
        connection = _opened(file, readonly=readonly)
        try:
            _prepare(connection, file, create=create, readonly=readonly)
        except (FusionError, sqlite3.Error):
            connection.close()
            raise
        return connection


def reading_connection(file: Path) -> sqlite3.Connection:
    """Return one more connection to a store, which only reads."""
    return _opened(file, readonly=True)


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the record store {file}: {error.strerror or error}; choose another folder"
        ) from error


def _check_head(file: Path) -> None:
    try:
        with file.open("rb") as handle:
            head = handle.read(len(_HEAD))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{file} cannot be opened: {error.strerror}; give a store that you may read") from error
    if head and head != _HEAD:
        raise StoreError(f"{file} is no record store (no SQLite file); give the folder of one, or its {FILE_NAME}")


def _opened(file: Path, *, readonly: bool) -> sqlite3.Connection:
    place = f"file:{quote(os.path.abspath(file))}"
    if not readonly:
        return _connection(f"{place}?mode=rwc")
    # Not mode=ro, which leaves SQLite's two files beside the store behind.
    connection = _connection(f"{place}?mode=rw")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if code_of(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        # Reading in WAL mode writes beside the file, which is forbidden here; nobody else can be writing then either.
        journal = file.with_name(f"{file.name}-wal")
        if journal.exists() and journal.stat().st_size:
            raise StoreError(
                f"{file} is being recorded into, or was left behind in the middle of it, and its folder is read-only; "
                f"copy {file.name} and {journal.name} into another folder and read them there"
            ) from error
        return _connection(f"{place}?immutable=1")
    return connection


def _connection(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )


def _prepare(connection: sqlite3.Connection, file: Path, *, create: bool, readonly: bool) -> None:
    """Check the version, make the tables where there are none, and set the connection up."""
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if names:
        _check_format(connection, file, names)
    elif readonly or not create:
        raise InputError(f"{file} is empty; give the folder of a record store that something was recorded into")
    if readonly:
        return
    # Two processes that open a new store at once get in each other's way here, and SQLite does not wait by itself.
    patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    if not names:
        patiently(lambda: _create(connection))
        _check_format(connection, file, {"meta"})


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        _create_tables(connection)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)


def schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the statements that made the tables and indexes of a file, by name."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    return {str(name): str(statement) for name, statement in connection.execute(query)}


def expected_schema() -> dict[str, str]:
    """Return what `schema_of` gives for a new store."""
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        _create_tables(fresh)
        return schema_of(fresh)


def _check_format(connection: sqlite3.Connection, file: Path, names: set[str]) -> None:
    row = None
    if "meta" in names:
        with contextlib.suppress(sqlite3.OperationalError):
            row = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    if row is None:
        raise StoreError(
            f"{file} is an SQLite file but no record store; give the folder of one, or a name that is not taken"
        )
    if row[0] != FORMAT:
        raise StoreError(
            f"{file} is of the version {row[0]!r}, this version of fusion reads {FORMAT!r}; upgrade fusion, or record "
            "into another folder"
        )


def patiently(act: Callable[[], _Result]) -> _Result:
    """Return what `act` returns, trying again while another process is in the way."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if code_of(error) not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into ones that say what to do.

    Raises:
        OutputError: When the operating system refuses to write.
        StoreError: When the store is damaged, or in use for too long.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise translation(error, file) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise StoreError(f"{file} holds something that was not written to it: {error}; {_MEND}") from error


_MEND = (
    "fusion store verify lists what is damaged, fusion store gc --damaged drops those answers, so that they are asked "
    "again; or copy the store again"
)


def translation(error: sqlite3.Error, file: Path) -> FusionError:
    """Return the error of fusion that says what SQLite's means."""
    code = code_of(error)
    if code in _BUSY:
        return StoreError(
            f"{file} is locked: another process wrote to it for more than {BUSY_SECONDS:.0f} s; wait for it to end, "
            "then run the command again"
        )
    if code in _OUTPUT:
        return OutputError(
            f"cannot write to the record store {file}: {_OUTPUT[code]} ({error}). What was recorded is kept. Free some "
            "space or choose another folder, and run the command again"
        )
    if code in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT) or isinstance(error, sqlite3.InterfaceError):
        return StoreError(f"{file} cannot keep an answer: {error}; nothing of that put was kept")
    return StoreError(f"{file} is damaged or no record store: {error}; {_MEND}")


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 where the error is not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
