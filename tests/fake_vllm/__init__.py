"""A stand-in for vLLM 0.32, for tests: `FakeVllm` is a Python environment that seems to have it installed.

The servers that it starts are real processes with real ports, at half a second each: what they answer is computed with
transformers and peft from the checkpoint that they were told to serve, by a thread of the test's own process
(`fake_vllm.brain`), so that no server has to import torch.

A server goes wrong on demand (`FakeVllm.go_wrong`), and everything that was started, asked and answered is on record.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from fake_vllm.brain import Brain
from fusion.agents._server_guard import processes


class FakeVllm:
    """A `python` in which `-m vllm.entrypoints.openai.api_server` serves; a context that ends what is left of it."""

    def __init__(self) -> None:
        # Short, as the path of a Unix socket takes 100 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="vllm-"))
        self._brain = Brain(str(self.folder / "brain"))
        self.python = str(self.folder / "python")
        wrapper = (
            "#!/bin/sh\n"
            f"PYTHONPATH='{Path(__file__).parent}' FAKE_VLLM='{self.folder}' exec '{sys.executable}' -S \"$@\"\n"
        )
        Path(self.python).write_text(wrapper)
        Path(self.python).chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for group in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._brain.close()
        shutil.rmtree(self.folder)

    def go_wrong(self, **faults: Any) -> None:
        """Have servers go wrong from now on, those that run as well; nothing of it without arguments.

        Args:
            **faults:
                lives: How many starts the others are about; all by default.
                since: From which start on, as a number from 0; by default the next where `lives` is given, else 0.
                exit_at_start: What to say before ending.
                loading_s: Seconds until healthy.
                die_after: Prompts to answer before dying.
                die_by: "exit" or "kill".
                error_first: Whether to answer 500 and die a moment later.
                abort: Whether to break answers off, with status 200, and die a moment later.
                refuse_token: Answer 400 to a prompt that has it.
                hide: Names left out of the list of models.
                taken: Whether to say that the port is in use, and end.
                ignore_adapters: Answer as the base, whatever is asked.
                slow_s: Seconds before an answer.
                hang: Never answer what is asked, and say of /health that it is bad.
        """
        part = self.folder / "faults.part"
        part.write_text(json.dumps({"since": len(self.starts()) if "lives" in faults else 0, **faults}))
        part.rename(self.folder / "faults.json")

    def starts(self) -> list[dict[str, Any]]:
        """Return what was started: pid, group, argv, key, env, others (groups of servers that lived then)."""
        return self._lines("starts")

    def calls(self, start: int | None = None) -> list[dict[str, Any]]:
        """Return the bodies of the completions calls so far, those to one server or all."""
        return [row["body"] for row in self._lines("calls") if start is None or row["start"] == start]

    def alive(self) -> set[int]:
        """Return the process groups of servers of which anything lives."""
        groups = {start["group"] for start in self.starts()}
        return {found.group for found in processes().values() if found.group in groups and not found.ended}

    def wait_for(self, starts: int) -> None:
        """Wait until so many servers have begun to start."""
        deadline = time.monotonic() + 20
        while len(self.starts()) < starts:
            assert time.monotonic() < deadline, "no server was started"
            time.sleep(0.02)

    @contextlib.contextmanager
    def serving(self, *words: str, key: str = "") -> Iterator[str]:
        """Run a server that nobody supervises; yields the URL of its API."""
        env = {**os.environ, "VLLM_API_KEY": key}
        num = len(self.starts())
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--port", "0", *words]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_for(num + 1)
            ready = self.folder / f"ready-{process.pid}"
            deadline = time.monotonic() + 20
            while not ready.exists():
                assert process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the server did not become ready"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{ready.read_text()}/v1"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def option(argv: Sequence[str], name: str) -> str | None:
    """Return what follows an option on a command line; None when it is not there."""
    return argv[argv.index(name) + 1] if name in argv else None
