"""How long a user waits before anything happens: whole processes, medians over repeats.

Run with: python benchmarks/startup/run.py [--json FILE] [--check]. --check fails when a median is over its limit. The
last two rows need the recorded answers (FUSION_DATA, else ../shared/data) and are left out without them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fusion.evaluation import versions

ROOT = Path(__file__).parents[2]


def rows(folder: Path) -> list[tuple[str, list[str], float]]:
    """Return (what, command, limit in seconds) for everything that is timed."""
    fusion = [sys.executable, "-m", "fusion"]
    found = [
        ("python -c pass", [sys.executable, "-c", "pass"], float("inf")),
        ("import fusion", [sys.executable, "-c", "import fusion"], 0.3),
        ("fusion --help", [*fusion, "--help"], 0.6),
        ("fusion demo", [*fusion, "demo", "--out", str(folder / "demo")], 30.0),
    ]
    data = Path(os.environ.get("FUSION_DATA") or ROOT.parent / "shared" / "data")
    wide = data / "mmlu_pro" / "predictions.csv.gz"
    if wide.is_file():
        table = str(folder / "table.parquet")
        found += [
            ("fusion import, 24 agents x 8,386 questions", [*fusion, "import", "wide", str(wide), "--out", table], 2.0),
            (
                "fusion bench of votes on that table",
                [*fusion, "bench", table, "--systems", "all_agents+vote, all_agents+weighted_vote, top_k(k=5)+vote"],
                5.0,
            ),
        ]
    return found


def seconds(command: list[str]) -> float:
    """Return how long one process takes from start to exit."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    results = []
    slow = []
    with tempfile.TemporaryDirectory() as folder:
        for what, command, limit in rows(Path(folder)):
            seconds(command)  # fills the caches of the disk and of byte code
            times = [seconds(command) for _ in range(chosen.repeats)]
            median = statistics.median(times)
            slow += [what] if median > limit else []
            row = {"what": what, "median": median, "min": min(times), "max": max(times)}
            results.append(row | {"limit": None if limit == float("inf") else limit})
            print(f"{what:45} median {median:6.3f} s  ({min(times):.3f} to {max(times):.3f})  limit {limit:g} s")
    if chosen.json:
        chosen.json.write_text(json.dumps({"versions": versions(), "rows": results}, indent=1) + "\n")
    if chosen.check and slow:
        sys.exit(f"slower than the limit: {', '.join(slow)}")


if __name__ == "__main__":
    main()
