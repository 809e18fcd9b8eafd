"""kill -9 in the middle of a recording, for real: nothing that was answered is lost, or asked again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from http_server import HttpServer

from fusion.agents import RecordStore
from fusion.data import read_table

QUESTIONS = 150
MEMBERS = 2
CONCURRENCY = 4
KILLS = 10

POOL = """
version: 1
engines:
  server: {{kind: openai, base_url: "{url}", concurrency: {concurrency}}}
agents:
  - {{name: first, engine: server, model: letter, mode: generate, max_tokens: 4}}
  - {{name: second, engine: server, model: ok, mode: generate, max_tokens: 4}}
"""


def recording(folder: Path) -> subprocess.Popen[bytes]:
    """Start `fusion record` in a process group of its own."""
    command = [sys.executable, "-m", "fusion", "record", "--pool", str(folder / "pool.yaml"), "--task", "micro"]
    command += ["--limit", str(QUESTIONS), "--out", str(folder / "out")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    """Each life of the recording is cut at a random moment of its asking; the eleventh ends.

    What was on its way when a process died is asked again: at most `CONCURRENCY` calls for each life. Everything else
    is asked once, so the server sees at most QUESTIONS * MEMBERS + KILLS * CONCURRENCY calls.
    """
    clock = random.Random(7)
    with HttpServer() as server:
        server.configure(delay_s=0.02)
        (tmp_path / "pool.yaml").write_text(POOL.format(url=server.url, concurrency=CONCURRENCY))
        before = 0
        for life in range(KILLS):
            process = recording(tmp_path)
            asked = server.stats()["total"]
            # Killed after some of the answers of this life, before the last of all.
            wanted = asked + clock.randint(1, 20)
            while process.poll() is None and server.stats()["total"] < wanted:
                time.sleep(clock.uniform(0.001, 0.02))
            os.killpg(process.pid, signal.SIGKILL)
            _, told = process.communicate()
            assert process.returncode == -signal.SIGKILL, told.decode()
            with RecordStore.open(tmp_path / "out") as store:
                kept = len(store)
                answered = server.stats()["answered"].get("200", 0)
                assert before <= kept, "an answer was lost"
                assert kept >= answered - CONCURRENCY * (life + 1), "more was lost than what was on its way"
                before = kept
        process = recording(tmp_path)
        shown, told = process.communicate(timeout=120)
        assert process.returncode == 0, told.decode()
        seen = server.stats()["total"]
    assert QUESTIONS * MEMBERS <= seen <= QUESTIONS * MEMBERS + KILLS * CONCURRENCY
    table = read_table(tmp_path / "out" / "table.parquet")
    assert table.texts is not None
    assert all(text for row in table.texts.tolist() for text in row)
    assert f"{QUESTIONS} questions" in shown.decode()
    with RecordStore.open(tmp_path / "out") as store:
        assert len(store) == QUESTIONS * MEMBERS
        assert {tally.status for tally in store.summary()} == {"ok"}
    check = [sys.executable, "-m", "fusion", "store", "verify", str(tmp_path / "out")]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C says what to do next, exits with 130 and closes its connections."""
    with HttpServer() as server:
        server.configure(delay_s=0.05)
        (tmp_path / "pool.yaml").write_text(POOL.format(url=server.url, concurrency=CONCURRENCY))
        process = recording(tmp_path)
        while server.stats()["total"] < 10:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 130, told.decode()
        assert "the same command goes on" in told.decode()
        assert "Traceback" not in told.decode()
        deadline = time.monotonic() + 10
        # The look itself takes a connection.
        while server.stats()["connections_open"] > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.stats()["connections_open"] <= 1
        kept = RecordStore.open(tmp_path / "out")
        with kept:
            assert len(kept) >= 10 - CONCURRENCY
