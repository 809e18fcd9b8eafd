"""Servers end with their owner, whatever is killed and how; with real processes throughout."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fusion.agents import _server_guard
from fusion.agents._server_guard import Identity, _from_ps, family, look, processes
from fusion.agents._server_process import Launch, Leftover, ServerProcess, leftovers, reap, state_folder
from fusion.errors import EngineError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="servers are started on Linux and macOS only")

SERVER = """
import json, os, signal, sys, time

told, mode = sys.argv[1:]
pids = {"main": os.getpid()}
reports, report = os.pipe()

def child(name, *, session=False, deaf=False, orphan=False):
    if os.fork():
        pids.update(json.loads(os.read(reports, 4096)))
        return
    if session:
        os.setsid()
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if orphan and os.fork():
        os._exit(0)
    os.write(report, json.dumps({name: os.getpid()}).encode())
    time.sleep(120)
    os._exit(0)

child("core")
if mode != "gentle":
    child("deaf", deaf=True)
child("elsewhere", session=True)
child("orphan", session=True, orphan=True)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
with open(told + ".part", "w") as handle:
    json.dump(pids, handle)
os.rename(told + ".part", told)
time.sleep(120)
"""
"""A server with children: an ordinary one, one deaf to SIGTERM, one with a session of its own, and an orphan."""

OWNER = """
import os, signal, sys, time
from pathlib import Path
from fusion.agents._server_process import Launch, ServerProcess

here = Path(sys.argv[1])
command = (sys.executable, str(here / "server.py"), str(here / "pids"), sys.argv[2])
launch = Launch(command=command, env=dict(os.environ), log=here / "log", name="fake")
server = ServerProcess.start(launch, folder=here / "records")
while not (here / "pids").exists():
    time.sleep(0.02)
"""


class Servers:
    """Starts fake servers in one folder, and knows their processes."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.records = here / "records"
        self.members: dict[str, Identity] = {}
        self._owners: list[subprocess.Popen[str]] = []
        (here / "server.py").write_text(SERVER)

    def launch(self, mode: str = "polite") -> Launch:
        command = (sys.executable, str(self.here / "server.py"), str(self.here / "pids"), mode)
        return Launch(command=command, env=dict(os.environ), log=self.here / "log", name="fake")

    def start(self, mode: str = "polite", *, stop_s: float = 15.0) -> ServerProcess:
        server = ServerProcess.start(replace(self.launch(mode), stop_s=stop_s), folder=self.records)
        self._meet()
        return server

    def owned(self, then: str, *, mode: str = "polite") -> "subprocess.Popen[str]":
        """Start a server in another process, which goes on with the code `then`."""
        code = OWNER + textwrap.dedent(then)
        owner = subprocess.Popen(
            [sys.executable, "-c", code, str(self.here), mode],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._owners.append(owner)
        self._meet()
        return owner

    def alive(self) -> set[str]:
        """Return the names of the processes of the server that live."""
        return {name for name, identity in self.members.items() if lives(identity)}

    def record(self) -> Path:
        (path,) = self.records.glob("*.json")
        return path

    def noted(self) -> Path:
        """Wait until the record names every process of the server; return it."""

        def is_noted() -> bool:
            found = json.loads(self.record().read_text())
            return {tuple(self.members[name]) for name in self.members if name != "guard"} <= set(
                map(tuple, found["members"])
            )

        wait(is_noted)
        return self.record()

    def kill(self, name: str) -> None:
        if lives(self.members[name]):
            os.kill(self.members[name].pid, signal.SIGKILL)
        wait(lambda: name not in self.alive())

    def close(self) -> None:
        for identity in self.members.values():
            if lives(identity):
                os.kill(identity.pid, signal.SIGKILL)
        for owner in self._owners:
            owner.kill()
            owner.wait()
            assert owner.stdout is not None
            owner.stdout.close()

    def _meet(self) -> None:
        wait((self.here / "pids").exists)
        pids = json.loads((self.here / "pids").read_text())
        pids["guard"] = json.loads(self.record().read_text())["guard"][0]
        for name, pid in pids.items():
            row = look(pid)
            assert row is not None, name
            self.members[name] = row.identity


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    found = Servers(tmp_path)
    yield found
    found.close()


def lives(identity: Identity) -> bool:
    row = look(identity.pid)
    return row is not None and row.identity == identity and not row.ended


def wait(done: Callable[[], object], seconds: float = 9.0) -> float:
    """Return after how many seconds it was done."""
    begun = time.monotonic()
    while not done():
        assert time.monotonic() < begun + seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - begun


def plain(folder: Path, code: str, **changes: object) -> Launch:
    launch = Launch(command=(sys.executable, "-c", code), env=dict(os.environ), log=folder / "log", name="plain")
    return replace(launch, **changes)  # type: ignore[arg-type]


EVERYTHING = {"main", "core", "deaf", "elsewhere", "orphan", "guard"}


def test_stop_ends_everything(servers: Servers) -> None:
    server = servers.start()
    assert servers.alive() == EVERYTHING
    assert (server.pid, server.group) == (servers.members["main"].pid, os.getpgid(server.pid))
    assert os.getsid(server.pid) == server.pid
    assert server.exited() is None
    assert server.last_lines() == "ready"
    begun = time.monotonic()
    server.stop()
    assert servers.alive() == set()
    assert time.monotonic() - begun < 5, "a deaf child need not be waited for when the main process has ended"
    assert server.exited() == "killed by SIGTERM"
    assert list(servers.records.iterdir()) == []


def test_deaf_server_is_killed(servers: Servers) -> None:
    server = servers.start("deaf", stop_s=0.5)
    begun = time.monotonic()
    server.stop()
    assert 0.5 <= time.monotonic() - begun < 4
    assert servers.alive() == set()
    assert server.exited() == "killed by SIGKILL"


def test_stop_again_and_from_two_threads(servers: Servers) -> None:
    server = servers.start("gentle")
    left: list[set[str]] = []

    def stop() -> None:
        server.stop()
        left.append(servers.alive())

    threads = [threading.Thread(target=stop) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        server.exited()
    for thread in threads:
        thread.join()
    assert left == [set(), set()], "each returns when all has ended"
    server.stop()
    assert server.exited() == "killed by SIGTERM"


def test_stop_while_it_starts(tmp_path: Path) -> None:
    for _ in range(3):
        server = ServerProcess.start(plain(tmp_path, "import time; time.sleep(60)"), folder=tmp_path / "records")
        server.stop()
        assert look(server.pid) is None
        assert server.exited() == "killed by SIGTERM"


@pytest.mark.parametrize("mode", ["polite", "deaf"])
def test_owner_killed(servers: Servers, mode: str) -> None:
    owner = servers.owned("time.sleep(60)", mode=mode)
    owner.kill()
    # A deaf one gets five seconds between the two signals.
    assert wait(lambda: not servers.alive(), 15) < (9 if mode == "deaf" else 5)
    assert list(servers.records.iterdir()) == []


def test_owner_ends_without_stop(servers: Servers) -> None:
    owner = servers.owned("sys.exit(5)")
    assert owner.wait(10) == 5
    assert wait(lambda: not servers.alive()) < 5


@pytest.mark.parametrize("mode", ["polite", "deaf"])
def test_owner_and_guard_killed(servers: Servers, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = servers.owned("time.sleep(60)", mode=mode)
    record = servers.noted()
    assert leftovers(servers.records) == reap(servers.records) == [], "its owner is there"
    # The guard first, as it would do its work otherwise; the owner stays a zombie, which is as good as gone.
    servers.kill("guard")
    owner.kill()
    wait(lambda: (row := look(owner.pid)) and row.ended)
    if mode == "polite":
        servers.kill("main")
    kept = EVERYTHING - {"guard"} - ({"main"} if mode == "polite" else set())
    wait(lambda: servers.alive() == kept)
    main = servers.members["main"].pid
    expected = [Leftover(name="fake", pid=main, group=main, log=servers.here / "log")]
    assert leftovers(servers.records) == expected
    assert servers.alive() == kept
    assert record.exists()
    monkeypatch.setattr("fusion.agents._server_reap.OWNER_S", 2.0)
    begun = time.monotonic()
    assert reap(servers.records) == expected
    assert servers.alive() == set()
    assert time.monotonic() - begun < 6
    assert reap(servers.records) == leftovers(servers.records) == []
    assert list(servers.records.iterdir()) == []


def test_two_reap_at_a_time(servers: Servers) -> None:
    owner = servers.owned("time.sleep(60)")
    servers.noted()
    servers.kill("guard")
    owner.kill()
    owner.wait()
    servers.kill("main")
    code = (
        "import sys; from pathlib import Path; from fusion.agents._server_process import reap; reap(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(servers.records)]
    reapers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [reaper.communicate(timeout=15)[1] for reaper in reapers] == [b"", b""]
    assert servers.alive() == set()
    assert list(servers.records.iterdir()) == []


def test_main_process_killed(servers: Servers) -> None:
    server = servers.start()
    if not sys.platform.startswith("linux"):
        # Orphans come to the guard on Linux alone; elsewhere it has to see them before.
        servers.noted()
    os.kill(server.pid, signal.SIGKILL)
    assert wait(server.exited) < 4
    assert servers.alive() <= {"guard"}, "it has ended when all that it left behind has"
    assert server.exited() == "killed by SIGKILL"
    assert list(servers.records.iterdir()) == []
    server.stop()


def test_guard_killed(servers: Servers) -> None:
    server = servers.start()
    servers.noted()
    servers.kill("guard")
    if not sys.platform.startswith("linux"):
        servers.kill("main")
    # The main process hears SIGTERM when the guard dies.
    wait(server.exited)
    assert server.exited() == "ended, status unknown"
    assert servers.alive() == {"core", "deaf", "elsewhere", "orphan"}
    server.stop()
    assert servers.alive() == set()
    assert list(servers.records.iterdir()) == []


def test_guard_killed_and_server_deaf(servers: Servers) -> None:
    server = servers.start("deaf", stop_s=0.3)
    servers.noted()
    servers.kill("guard")
    assert server.exited() is None, "it runs"
    server.stop()
    assert servers.alive() == set()
    assert server.exited() == "ended, status unknown"


def test_guard_hangs(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that does not answer, here as it is stopped, is killed; the server ends all the same."""
    monkeypatch.setattr("fusion.agents._server_process.KILL_S", 0.2)
    server = servers.start(stop_s=0.2)
    servers.noted()
    os.kill(servers.members["guard"].pid, signal.SIGSTOP)
    server.stop()
    assert servers.alive() == set()


def test_guard_asked_to_end(servers: Servers) -> None:
    server = servers.start()
    os.kill(servers.members["guard"].pid, signal.SIGTERM)
    wait(server.exited)
    assert servers.alive() <= {"guard"}
    server.stop()


def test_fork_of_the_owner_holds_the_pipe(servers: Servers) -> None:
    owner = servers.owned(
        """
        child = os.fork()
        if child:
            print(child, flush=True)
        time.sleep(60)
    """,
        mode="gentle",
    )
    assert owner.stdout is not None
    child = look(int(owner.stdout.readline()))
    assert child is not None
    owner.kill()
    assert wait(lambda: not servers.alive(), 15) < 5
    assert lives(child.identity), "it holds the pipe to the guard still"
    os.kill(child.pid, signal.SIGKILL)


def test_fork_of_the_owner_ends(servers: Servers) -> None:
    owner = servers.owned(
        """
        child = os.fork()
        if not child:
            assert server.exited() is None and server.last_lines() == "ready"
            server.stop()
            del server
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        time.sleep(0.8)
        print(server.exited(), flush=True)
        server.stop()
        print(server.exited(), flush=True)
    """,
        mode="gentle",
    )
    assert owner.communicate(timeout=15)[0].split("\n")[:3] == ["3", "None", "killed by SIGTERM"]
    assert servers.alive() == set()


def test_ctrl_c_does_not_reach_the_server(servers: Servers) -> None:
    owner = servers.owned(
        """
        try:
            print("waits", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.7)
            print(server.exited(), flush=True)
            server.stop()
    """,
        mode="gentle",
    )
    assert owner.stdout is not None
    owner.stdout.readline()
    os.kill(servers.members["guard"].pid, signal.SIGINT)
    os.killpg(owner.pid, signal.SIGINT)
    assert owner.stdout.readline() == "None\n"
    assert owner.wait(10) == 0
    assert servers.alive() == set()


def test_reused_pids_are_left_alone(servers: Servers) -> None:
    """With other times of start the processes are strangers that got the recorded pids later."""
    owner = servers.owned("time.sleep(60)", mode="deaf")
    path = servers.noted()
    servers.kill("guard")
    owner.kill()
    owner.wait()
    left = servers.alive()
    true = json.loads(path.read_text())
    path.write_text(
        json.dumps({**true, "server": [true["server"][0], "1"], "members": [[p, "1"] for p, _ in true["members"]]})
    )
    assert leftovers(servers.records) == []
    assert path.exists(), "looking changes nothing"
    assert reap(servers.records) == []
    time.sleep(0.3)
    assert servers.alive() == left
    assert not path.exists()
    # One member is enough to prove whose session it is, and its children, but not orphans in another session.
    servers.kill("main")
    path.write_text(json.dumps({**true, "server": [true["server"][0], "1"], "members": [servers.members["core"]]}))
    assert len(reap(servers.records)) == 1
    assert servers.alive() == {"elsewhere", "orphan"}


def test_reused_pid_of_the_owner(servers: Servers) -> None:
    server = servers.start("gentle")
    path = servers.record()
    found = json.loads(path.read_text())
    assert found["owner"][0] == os.getpid()
    assert leftovers(servers.records) == []
    path.write_text(json.dumps({**found, "owner": [os.getpid(), "1"]}))
    assert [left.pid for left in leftovers(servers.records)] == [server.pid]
    server.stop()


def record_of(identity: Identity, path: Path, **changes: object) -> Path:
    """Write a record of a server whose owner is gone."""
    server = ServerProcess.start(plain(path.parent, "import time; time.sleep(60)"), folder=path.parent)
    (made,) = path.parent.glob("*.json")
    found = json.loads(made.read_text())
    server.stop()
    found |= {"server": identity, "members": [identity], "owner": [1 << 30, "1"], **changes}
    path.write_text(json.dumps(found))
    return path


def test_own_session_and_first_process_are_never_signalled(tmp_path: Path) -> None:
    for pid in (os.getpid(), os.getsid(0), 1, 0):
        row = look(pid)
        path = record_of(row.identity if row else Identity(pid, "0"), tmp_path / "x.json")
        assert reap(tmp_path) == []
        assert not path.exists()
    table = processes()
    own = [row.identity for row in table.values() if row.session == os.getsid(0)]
    assert family(table, own) == []


@pytest.mark.skipif(sys.platform != "win32" and os.getuid() != 0, reason="only root may signal other users' processes")
def test_processes_of_other_users_are_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], user=65534, start_new_session=True) as stranger:
        row = look(stranger.pid)
        assert row is not None
        path = record_of(row.identity, tmp_path / "x.json")
        assert reap(tmp_path) == []
        assert not path.exists()
        assert stranger.poll() is None
        stranger.kill()


def test_records_of_what_has_ended_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"], start_new_session=True) as ended:
        wait(lambda: (row := look(ended.pid)) is None or row.ended)
        row = look(ended.pid)
        assert row is not None, "a zombie is in the table"
        assert row.ended
        path = record_of(row.identity, tmp_path / "x.json")
        assert leftovers(tmp_path) == []
        assert path.exists()
        assert reap(tmp_path) == []
        assert not path.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"place": "x"}', b"[" * 5000, b'{"server": [1, 2, 3]}']
)
def test_damaged_records_are_removed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert leftovers(tmp_path) == []
    assert path.exists()
    assert reap(tmp_path) == []
    assert not path.exists()


def test_other_files_and_other_machines_are_left_alone(tmp_path: Path) -> None:
    """A home may be shared by machines, whose pids are not ours; months later nobody misses their records."""
    other = record_of(Identity(os.getpid(), "1"), tmp_path / "x.json", place="another machine")
    half, note = tmp_path / "y.part", tmp_path / "note.txt"
    half.touch()
    note.touch()
    assert reap(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == sorted([other, half, note, tmp_path / "log"])
    for path in (other, half, note):
        os.utime(path, (0, 0))
    assert reap(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == sorted([note, tmp_path / "log"])
    assert reap(tmp_path / "missing") == leftovers(tmp_path / "missing") == []


def test_exit_status_and_last_lines(tmp_path: Path) -> None:
    """Lines of an earlier server in the same file are not shown, undecodable bytes are replaced."""
    codes = [
        "import sys; print('first'); sys.exit(3)",
        "import os; os.write(1, b'second\\n\\xff third\\n'); os.write(2, b'fourth'); os.kill(os.getpid(), 11)",
        "print('x' * 300_000); [print(number) for number in range(50_000)]",
    ]
    made = []
    for code in codes:
        server = ServerProcess.start(plain(tmp_path, code), folder=tmp_path / "records")
        wait(server.exited)
        server.stop()
        made.append((server.exited(), server.last_lines(2)))
    assert made == [
        ("exit status 3", "first"),
        ("killed by SIGSEGV", "\ufffd third\nfourth"),
        ("exit status 0", "49998\n49999"),
    ]
    assert server.last_lines(0) == ""
    assert len(server.last_lines(10**9)) <= 1 << 16
    (tmp_path / "log").write_text("emptied and written anew\n")
    assert server.last_lines() == "emptied and written anew"
    (tmp_path / "log").unlink()
    assert server.last_lines() == ""
    assert stat.S_IMODE((tmp_path / "records").stat().st_mode) == 0o700


def test_what_the_server_is_given(tmp_path: Path) -> None:
    """Its environment is what was asked for, to the byte; signals that the owner ignores or blocks are not."""
    code = (
        "import os, signal, sys; print(sorted(os.environb.items()), os.getcwd(), sys.stdin.read(), "
        "signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.pthread_sigmask(0, []))"
    )
    env = {"LC_CTYPE": "C.UTF-8", "KEY": "a=b\n\u00e9\udcff", "PATH": "/nowhere"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    try:
        launch = plain(tmp_path, code, env=env, log=tmp_path / "deep" / "er" / "log")
        server = ServerProcess.start(launch, folder=tmp_path / "records")
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    wait(server.exited)
    server.stop()
    expected = sorted({key.encode(): os.fsencode(value) for key, value in env.items()}.items())
    assert server.last_lines() == f"{expected} {os.getcwd()}  True set()"
    assert stat.S_IMODE(launch.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(launch.log.parent.stat().st_mode) == 0o700


def test_record_is_private_and_complete(servers: Servers) -> None:
    server = servers.start("gentle")
    path = servers.noted()
    found = json.loads(path.read_text())
    own = look(os.getpid())
    assert own is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert found["name"] == "fake"
    assert found["command"] == list(servers.launch("gentle").command)
    assert found["log"] == str(servers.here / "log")
    assert tuple(found["server"]) == servers.members["main"]
    assert tuple(found["guard"]) == servers.members["guard"]
    assert tuple(found["owner"]) == own.identity
    assert "HOME" not in path.read_text(), "the environment may hold secrets"
    server.stop()


def test_orphans_leave_no_zombies(servers: Servers) -> None:
    server = servers.start("gentle")
    os.kill(servers.members["orphan"].pid, signal.SIGKILL)
    wait(lambda: look(servers.members["orphan"].pid) is None, 2)
    assert server.exited() is None
    server.stop()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"command": ("no-such-program", "x")}, r"'no-such-program' is not there; install it"),
        ({"command": ("/etc/passwd",)}, r"'/etc/passwd' may not be executed"),
        ({"command": ("nul\0",)}, r"fails: Invalid argument"),
        ({"command": ()}, r"its command is empty"),
        ({"log": Path("/dev/null/log")}, r"its log /dev/null/log cannot be written \((File exists|Not a directory)\)"),
        ({"log": Path("/")}, r"its log / cannot be written \(Is a directory\)"),
    ],
)
def test_start_fails(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(EngineError, match=f"cannot start plain: .*{told}"):
        ServerProcess.start(plain(tmp_path, "pass", **changes), folder=tmp_path / "records")
    assert list(tmp_path.glob("records/*")) == []


def test_start_fails_without_a_record_or_a_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="which cannot be used"):
        ServerProcess.start(plain(tmp_path, "pass"), folder=tmp_path / "file")
    (tmp_path / "broken.py").write_text("raise SystemExit('no guard today')")
    monkeypatch.setattr(_server_guard, "__file__", str(tmp_path / "broken.py"))
    with pytest.raises(EngineError, match=r"was to guard it, ended; see .*log\. no guard today"):
        ServerProcess.start(plain(tmp_path, "pass"), folder=tmp_path / "records")
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(EngineError, match="'/no/python', which is to guard it, cannot be started"):
        ServerProcess.start(plain(tmp_path, "pass"), folder=tmp_path / "records")


def test_record_folder_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be recorded does not run at all."""
    gone = tmp_path / "gone"
    monkeypatch.setattr("fusion.agents._server_process.make_private", lambda folder: folder)
    with pytest.raises(EngineError, match=r"recorded in .*gone, which cannot be written to \(No such file"):
        ServerProcess.start(plain(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')"), folder=gone)
    assert not (tmp_path / "ran").exists()


def test_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_folder() == tmp_path / "state" / "fusion" / "servers"
    assert stat.S_IMODE(state_folder().stat().st_mode) == 0o700
    state_folder().chmod(0o755)
    assert stat.S_IMODE(state_folder().stat().st_mode) == 0o700
    assert reap() == leftovers() == []
    # A relative one is to be ignored, says the standard.
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_folder() == tmp_path / "home" / ".local" / "state" / "fusion" / "servers"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    last = tmp_path / f"fusion-servers-{os.getuid()}"
    assert state_folder() == last
    assert stat.S_IMODE(last.stat().st_mode) == 0o700
    last.rmdir()
    last.symlink_to(tmp_path)
    with pytest.raises(EngineError, match="set XDG_STATE_HOME"):
        state_folder()


def test_guard_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It starts whatever lies in the working folder or on PYTHONPATH, in little memory."""
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sorted(name.split('.')[0] for name in sys.modules))"
    command = [sys.executable, "-I", "-S", "-c", code, _server_guard.__file__]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=env)
    assert set(told.stdout.split()) <= sys.stdlib_module_names | {"__main__"}


def test_guard_without_an_owner_ends() -> None:
    command = [sys.executable, "-I", "-S", _server_guard.__file__]
    for owner, said in (
        ("1", b""),
        (str(os.getpid()), b""),
        (str(os.getpid()), b'{"name": "half'),
        (str(os.getpid()), b'{"name": "half"stop\n'),
    ):
        told = subprocess.run([*command, owner], input=said, capture_output=True, timeout=10, check=True)
        assert told.stdout == told.stderr == b""


def test_ps_tells_the_same() -> None:
    """Where there is no /proc; the time of start is told otherwise there."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        row = look(sleeper.pid)
        with contextlib.suppress(FileNotFoundError):
            told = _from_ps("-ax")
            assert row is not None
            assert told[sleeper.pid]._replace(since=row.since) == row
            assert told[os.getpid()].session == os.getsid(0)
            assert _from_ps("-p", str(sleeper.pid))[sleeper.pid].since == told[sleeper.pid].since
        sleeper.kill()
