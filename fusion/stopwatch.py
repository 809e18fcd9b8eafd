"""What made a result: versions, hardware and time."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from fusion._version import __version__
from fusion.schema import RunRecord

_PACKAGES = ("numpy", "scipy", "pyarrow", "pandas")
_WHEN_USED = ("httpx", "numba", "torch", "transformers", "peft", "vllm", "ray")


class Stopwatch:
    """Started when made; `record` stops it."""

    def __init__(self) -> None:
        self.started = datetime.datetime.now(datetime.UTC)
        self._start = time.perf_counter()

    def record(self, command: Mapping[str, object], tables: Mapping[str, str]) -> RunRecord:
        """Return the record of a run that began when this was made and ends now."""
        return RunRecord(
            command=command,
            tables=tables,
            versions=versions(),
            commit=_commit(Path(__file__).parents[1]),
            hardware=f"{platform.machine()}, {os.cpu_count()} cores",
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - self._start, 3),
        )


def versions() -> dict[str, str]:
    """Return the versions of fusion, Python and the packages that compute."""
    found = {"fusion": __version__, "python": platform.python_version()}
    for name in (*_PACKAGES, *(name for name in _WHEN_USED if name in sys.modules)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
