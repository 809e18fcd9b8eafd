"""The guard of a server: starts it, and ends all of it when its owner or its main process is gone.

A server forks: the API server of vLLM has engine cores and workers, which hold the accelerator after it was killed.
The guard stands between the owner (the process that uses the server) and the server, in a session of its own:

    owner --pipe--> guard --fork--> server (leader of its session) --> engine cores, workers

It is run by the path of this file with `python -I -S`, and so it uses the standard library alone: importing
`fusion.agents` would cost every server numpy's memory and threads, and what lies in the working folder or on
PYTHONPATH could keep it from starting.

Protocol, one JSON object or word a line. Owner to guard: the `Order`, later "stop". Guard to owner:
{"started": pid, "since": ...} or {"failed": "command" | "record", "error": errno}; at the end {"exit": status or null,
"left": [pids]}, where `left` is what outlived SIGKILL.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OWNER_S = 5.0  # from SIGTERM to SIGKILL, at most, when nobody waits for the server any more
KILL_S = 10.0  # to end after SIGKILL: a process inside a driver call takes a while
_ORPHAN_S = 1.0  # for the rest, when the main process has ended after SIGTERM
_LOOK_S = 0.5
_POLL_S = 0.03
_NOTE_MOST_S = 30.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Identity(NamedTuple):
    """A process for good: its pid alone may belong to another one later."""

    pid: int
    since: str


class Process(NamedTuple):
    """One row of the process table."""

    pid: int
    parent: int
    group: int
    session: int
    user: int
    ended: bool
    since: str
    """When it started: clock ticks since boot on Linux, a date elsewhere; only ever compared for equality."""

    @property
    def identity(self) -> Identity:
        """What tells it from a later process of the same pid."""
        return Identity(self.pid, self.since)


def look(pid: int) -> Process | None:
    """Return the process of this pid, or None when there is none."""
    if not has_proc():
        return _from_ps("-p", str(pid)).get(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            user = os.fstat(handle.fileno()).st_uid
            text = handle.read()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; fields are counted from the one after it, number 3.
    state, parent, group, session, *rest = text[text.rindex(b")") + 2 :].split()
    # A main thread that ended while others go on, perhaps inside a driver, looks like a zombie, but is none.
    ended = state in b"ZXx" and int(rest[13]) <= 1
    return Process(pid, int(parent), int(group), int(session), user, ended, rest[15].decode())


def processes() -> dict[int, Process]:
    """Return the process table by pid."""
    if not has_proc():
        return _from_ps("-ax")
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def has_proc() -> bool:
    """Whether the process table is to be had as files, as on Linux; if not, ps is asked."""
    return os.path.exists("/proc/self/stat")


def _from_ps(*which: str) -> dict[int, Process]:
    """Ask ps, where there is no /proc; the date of start has a resolution of one second."""
    command = ["ps", *which, "-o", "pid=,ppid=,pgid=,uid=,stat=,lstart="]
    with subprocess.Popen(
        command, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as ps:
        told = ps.communicate()[0].decode(errors="replace")
    found = {}
    for line in told.splitlines():
        pid, parent, group, user, state, since = line.split(maxsplit=5)
        # The session that ps prints is an address on macOS.
        with contextlib.suppress(OSError):
            ids = (int(pid), int(parent), int(group), os.getsid(int(pid)), int(user))
            found[ids[0]] = Process(*ids, ended=state[0] == "Z", since=since.strip())
    found.pop(ps.pid, None)
    return found


def family(
    table: Mapping[int, Process], known: Collection[Identity], *, parent: int = -1, leader: Identity | None = None
) -> list[Process]:
    """Return the living processes that are proven to belong to a server.

    Proven are those in `known`, the children of `parent`, and the session of `leader`; further the children of proven
    ones, and the members of their sessions: a process cannot join a session that is there, and while a session has
    members no new one gets its number, so that one proven member, be it a zombie, stands for all.

    Args:
        table: The process table.
        known: Processes of the server that were seen earlier.
        parent: A process, if any, that has no children but the server's.
        leader: The main process, if it ended a moment ago at most, so that its session cannot be another one's yet.

    Returns:
        No zombies, nothing of another user, nothing of the caller's own session, no pid below 2.
    """
    own = os.getsid(0)
    others = [row for row in table.values() if row.pid > 1 and row.session not in (0, 1, own)]
    found = {row.pid for row in others if row.identity in known or row.parent == parent}
    if leader is not None and (leader.pid not in table or table[leader.pid].identity == leader):
        found |= {row.pid for row in others if row.session == leader.pid}
    size = -1
    while size != len(found):
        size = len(found)
        sessions = {table[pid].session for pid in found}
        found |= {row.pid for row in others if row.parent in found or row.session in sessions}
    return [table[pid] for pid in sorted(found) if not table[pid].ended and table[pid].user == os.getuid()]


def send(members: Sequence[Process], number: int) -> None:
    """Signal processes, each if it is still the one that was seen."""
    for member in members:
        if (now := look(member.pid)) and now.identity == member.identity:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, number)


def end(
    find: Callable[[set[Identity]], list[Process]],
    known: Collection[Identity],
    *,
    leader: int,
    stop_s: float,
    hurry: Callable[[], bool] = lambda: False,
) -> list[Process]:
    """End a server: SIGTERM to the group of its leader, SIGKILL to whatever is left, until nothing is.

    Args:
        find: Returns what is left of it now, given what was seen of it earlier.
        known: What was seen of it until now.
        leader: The pid of its main process.
        stop_s: Seconds from the one signal to the other; 0 leaves the first one out.
        hurry: Whether nobody waits for it any more: then there are no more than `OWNER_S`.

    Returns what was alive `KILL_S` after SIGKILL, usually nothing.
    """
    begun = time.monotonic()
    limit = begun + stop_s
    seen, told, empty = set(known), stop_s <= 0, 0
    # Twice, as a table is not read in one instant: a process may fork and end meanwhile.
    while empty < 2:
        left = find(seen)
        # What is known by its parent alone may lose it.
        seen.update(member.identity for member in left)
        if not told:
            send([member for member in left if member.group == leader], signal.SIGTERM)
            told = True
        empty = 0 if left else empty + 1
        now = time.monotonic()
        if hurry():
            limit = min(limit, begun + OWNER_S)
        if all(member.pid != leader for member in left):
            limit = min(limit, now + _ORPHAN_S)
        if now >= limit + KILL_S:
            return left
        if now >= limit:
            send(left, signal.SIGKILL)
        time.sleep(_POLL_S)
    return []


class Order(NamedTuple):
    """What the owner wants started; `place` is where its pids mean something, for the record."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: str
    record: str
    place: str
    stop_s: float


class _Guard:
    """One server from its start to its end."""

    def __init__(self, order: Order, owner: Process, wake: int) -> None:
        self._order = order
        self._owner = owner
        self._wake = wake
        self._leader = Identity(0, "")
        self._known: set[Identity] = set()
        self._status: int | None = None
        self._asked = False
        self._unwanted = False
        self._note_at = self._note_after = 0.0

    def run(self) -> None:
        if not self._start():
            return
        _say({"started": self._leader.pid, "since": self._leader.since})
        stop_s = self._watch()
        left = end(self._find, self._known, leader=self._leader.pid, stop_s=stop_s, hurry=self._deserted)
        if not left:
            with contextlib.suppress(OSError):
                Path(self._order.record).unlink()
        _say({"exit": self._status, "left": [member.pid for member in left]})

    def _start(self) -> bool:
        """Fork, record, and only then let the server run, so that none runs without a record."""
        go, go_write = os.pipe()
        failure, failure_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            self._become_server(go, failure_write)
        os.close(go)
        os.close(failure_write)
        row = look(pid)
        assert row is not None, "a child that was not waited for is there"
        self._leader, self._known = row.identity, {row.identity}
        try:
            self._write_record()
        except OSError as error:
            os.close(go_write)
            os.waitpid(pid, 0)
            _say({"failed": "record", "error": error.errno})
            return False
        os.write(go_write, b"g")
        os.close(go_write)
        if number := os.read(failure, 16):
            os.waitpid(pid, 0)
            Path(self._order.record).unlink(missing_ok=True)
            _say({"failed": "command", "error": int(number)})
        return not number

    def _become_server(self, go: int, failure: int) -> None:
        """Turn this process, a fork of the guard, into the server."""
        try:
            # Ignored signals stay ignored in the program that is started; SIGPIPE and SIGXFSZ are by Python itself.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            # Should the guard be killed, the main process at least is told to end.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            if os.read(go, 1):
                os.execvpe(self._order.command[0], self._order.command, self._order.env)
        except OSError as error:
            os.write(failure, str(error.errno).encode())
        except ValueError:
            os.write(failure, str(errno.EINVAL).encode())
        finally:
            os._exit(127)

    def _watch(self) -> float:
        """Return, with the seconds from SIGTERM to SIGKILL, when the server is to be ended."""
        while True:
            self._bury()
            if self._status is not None:
                return 0.0
            if self._deserted():
                return min(self._order.stop_s, OWNER_S)
            if self._asked:
                return self._order.stop_s
            self._note()
            select.select([0, self._wake], [], [], _LOOK_S)

    def _deserted(self) -> bool:
        """Whether nobody waits for the server: the owner is gone, or somebody sent SIGTERM to the guard."""
        ready = [] if self._unwanted else select.select([0, self._wake], [], [], 0)[0]
        if 0 in ready:
            said = os.read(0, 4096)
            self._asked = self._asked or bool(said)
            self._unwanted = not said
        if self._wake in ready and signal.SIGTERM in os.read(self._wake, 4096):
            self._unwanted = True
        # Forks of the owner may hold the pipe open.
        return self._unwanted or os.getppid() != self._owner.pid

    def _bury(self) -> None:
        """Take in children that have ended: the server, and orphans of it that came to the guard."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._leader.pid:
                    self._status = os.waitstatus_to_exitcode(ended[1])

    def _find(self, known: set[Identity]) -> list[Process]:
        self._bury()
        return family(processes(), known, parent=os.getpid(), leader=self._leader)

    def _note(self) -> None:
        """Record processes that are new: they prove whose session it is when the main process has ended."""
        now = time.monotonic()
        if now < self._note_at:
            return
        seen = {self._leader, *(member.identity for member in self._find(self._known))}
        news, self._known = seen - self._known, seen
        self._note_after = _LOOK_S if news else min(2 * self._note_after, _NOTE_MOST_S)
        self._note_at = now + self._note_after
        if news:
            with contextlib.suppress(OSError):  # the record that is there still names the main process
                self._write_record()

    def _write_record(self) -> None:
        guard = look(os.getpid())
        assert guard is not None, "this process is in the table"
        content = {
            "place": self._order.place,
            "name": self._order.name,
            "command": self._order.command,
            "log": self._order.log,
            "server": self._leader,
            "guard": guard.identity,
            "owner": self._owner.identity,
            "members": sorted(self._known),
        }
        part = Path(self._order.record).with_suffix(".part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            json.dump(content, handle)
        part.replace(self._order.record)


def _say(message: Mapping[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner may be gone
        os.write(1, json.dumps(message).encode() + b"\n")


def _prctl(option: int, value: int) -> None:
    # Only Linux has it; elsewhere, or where it is refused, the guard does with less.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _prepare() -> int:
    """Set up signals; return a descriptor that becomes readable, with its number, when one comes."""
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to decide on
    # What the owner blocks in a thread is blocked in what that thread starts.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return wake


def _read_order(owner: int) -> Order | None:
    """Return what the owner sends, or None when it is gone, or wants no server any more, before that is all."""
    text = b""
    while not text.endswith(b"\n"):
        if os.getppid() != owner:
            return None
        if select.select([0], [], [], _LOOK_S)[0]:
            if not (more := os.read(0, 65536)):
                return None
            text += more
    with contextlib.suppress(ValueError):
        return Order(**json.loads(text))
    return None


def main() -> None:
    """Guard one server for the process whose pid is the argument."""
    wake = _prepare()
    pid = int(sys.argv[1])
    order, owner = _read_order(pid), look(pid)
    if order is not None and owner is not None:
        _Guard(order, owner, wake).run()


if __name__ == "__main__":
    main()
