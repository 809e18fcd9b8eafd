"""Records of running servers, and the ending of servers whose owner is gone.

Every server has a record, written by its guard before the server runs and removed when nothing of it is left. What
remains after the owner and the guard were both killed is found by it. A pid alone proves nothing, as it may have been
given to another process since: `family` says what does.
"""

import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fusion.agents._server_guard import OWNER_S, Identity, Process, end, family, has_proc, look, processes
from fusion.errors import EngineError

_FOREIGN_S = 30 * 86400.0
_PART_S = 3600.0
_LARGEST = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """A server, or what is left of it, whose owner is gone.

    Attributes:
        name: What it was started as, for instance the model.
        pid: Its main process, which need not be alive.
        group: Its process group and session.
        log: Where its output went.
    """

    name: str
    pid: int
    group: int
    log: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a guard wrote down about its server."""

    place: str
    name: str
    log: Path
    server: Identity
    owner: Identity
    members: frozenset[Identity]

    def family(self, table: Mapping[int, Process]) -> list[Process]:
        """Return what is alive of the server and proven to be."""
        return family(table, {self.server, *self.members})

    def orphaned(self, table: Mapping[int, Process]) -> bool:
        """Whether the owner is gone."""
        owner = table.get(self.owner.pid)
        return owner is None or owner.identity != self.owner or owner.ended

    def leftover(self) -> Leftover:
        """Return what a user is told about it."""
        return Leftover(name=self.name, pid=self.server.pid, group=self.server.pid, log=self.log)

    def end(self, stop_s: float) -> list[Process]:
        """End the server; return what outlived even SIGKILL, usually nothing."""
        known = {self.server, *self.members}
        return end(lambda seen: family(processes(), seen), known, leader=self.server.pid, stop_s=stop_s)


def state_folder() -> Path:
    """Return the folder where running servers are recorded, made if need be, for this user alone.

    It is fusion/servers in $XDG_STATE_HOME or ~/.local/state, or, where that cannot be made, a folder of this user's
    among the temporary files.

    Raises:
        EngineError: When neither can be made.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    with contextlib.suppress(OSError, RuntimeError):
        base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
        return make_private(base / "fusion" / "servers")
    last = Path(tempfile.gettempdir()) / f"fusion-servers-{os.getuid()}"
    try:
        return make_private(last)
    except OSError as error:
        raise EngineError(
            f"running servers are recorded in {last}, which cannot be used ({error.strerror or error}); "
            "set XDG_STATE_HOME to a folder of your own"
        ) from error


def make_private(folder: Path) -> Path:
    """Make a folder that nobody else can look into; return it.

    Raises:
        OSError: When it cannot be made or written to, is a link, or belongs to somebody else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is no folder of this user")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")
    return folder


def place() -> str:
    """Return what tells the pids of this machine, boot and container from those of another."""
    if not has_proc():
        first = look(1)
        return first.since if first else ""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Some sandboxes have neither.
        return os.uname().nodename


def read_record(path: Path) -> Record | None:
    """Return a record, or None when the file is damaged.

    Raises:
        FileNotFoundError: When it is gone.
    """
    try:
        with path.open("rb") as handle:
            found = json.loads(handle.read(_LARGEST))
        if not all(isinstance(found[key], str) for key in ("place", "name", "log")):
            return None
        return Record(
            place=found["place"],
            name=found["name"],
            log=Path(found["log"]),
            server=_identity(found["server"]),
            owner=_identity(found["owner"]),
            members=frozenset(_identity(member) for member in found["members"]),
        )
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def reap(folder: Path | None = None) -> list[Leftover]:
    """End every recorded server whose owner is gone, and tidy up the records.

    Several processes may do so at a time. SIGTERM comes first, SIGKILL at most `OWNER_S` seconds later.

    Args:
        folder: Where servers are recorded; `state_folder()` when it is None.

    Returns:
        What was ended.
    """
    found = list(_leftovers(folder, tidy=True))
    if not found:
        return []
    with ThreadPoolExecutor(max_workers=min(len(found), 8)) as pool:
        survivors = list(pool.map(lambda pair: pair[1].end(OWNER_S), found))
    ended = [pair for pair, left in zip(found, survivors, strict=True) if not left]
    for path, _ in ended:
        _remove(path)
    return [record.leftover() for _, record in ended]


def leftovers(folder: Path | None = None) -> list[Leftover]:
    """Return what `reap` would end, and leave everything as it is."""
    return [record.leftover() for _, record in _leftovers(folder, tidy=False)]


def _leftovers(folder: Path | None, *, tidy: bool) -> list[tuple[Path, Record]]:
    """Return the records of servers that go on without their owner; `tidy` removes those that mean nothing any more."""
    if sys.platform == "win32":
        return []
    folder = state_folder() if folder is None else folder
    records = dict(_read_all(folder)) if folder.is_dir() else {}
    if not records:
        return []
    # Later than the records: what is not in the table has ended, and is not about to start.
    here, table = place(), processes()
    found = []
    for path, record in records.items():
        if record is not None and record.place == here and record.family(table):
            if record.orphaned(table):
                found.append((path, record))
        # The pids of another boot, container or machine with the same home say nothing here.
        elif tidy and (record is None or record.place == here or _age_s(path) > _FOREIGN_S):
            _remove(path)
    return found


def _read_all(folder: Path) -> Iterator[tuple[Path, Record | None]]:
    """Yield every record, None for a damaged one or one that was left half-written."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            with contextlib.suppress(FileNotFoundError):
                yield path, read_record(path)
        elif path.suffix == ".part" and _age_s(path) > _PART_S:
            yield path, None


def _identity(value: object) -> Identity:
    match value:
        case [int(pid), str(since)]:
            return Identity(pid, since)
    raise ValueError(f"expected a pid and when it started, got {value!r}")


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    # Another process may tidy up as well.
    with contextlib.suppress(OSError):
        path.unlink()
