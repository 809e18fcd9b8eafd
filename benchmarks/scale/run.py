"""A million questions and 24 agents: memory and time to load, vote and evaluate, each in a process of its own.

Run with: python benchmarks/scale/run.py [--questions N] [--json FILE]. The answers are drawn at random; what is
measured does not depend on what they say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fusion.data import PredictionTable, write_table
from fusion.evaluation import versions

AGENTS = 24
LOAD = "import sys; from fusion import read_table; table = read_table(sys.argv[1])"
STEPS = {
    "load": LOAD,
    "load and vote": f"{LOAD}; from fusion import Ensemble; Ensemble(table.agents, 'all_agents', 'vote').replay(table)",
    "load and evaluate (fusion bench, default systems)": f"{LOAD}; from fusion import bench; bench(table)",
}


def random_table(num_questions: int) -> PredictionTable:
    """Return a votes-only table of agents that are right on 20 to 70 % of the questions."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 10, num_questions)
    skill_M = rng.uniform(0.2, 0.7, AGENTS)
    shape = (num_questions, AGENTS)
    answers_NM = np.where(rng.random(shape) < skill_M, labels_N[:, None], rng.integers(0, 10, shape))
    answers_NM[rng.random(shape) < 0.05] = -1
    return PredictionTable(
        question_ids=[f"q{n}" for n in range(num_questions)],
        agents=[f"agent-{j}" for j in range(AGENTS)],
        answers=answers_NM.astype(np.int8),
        labels=labels_N,
        categories=np.array(["law", "maths", "physics"])[rng.integers(0, 3, num_questions)],
    )


def measured(code: str, path: Path) -> tuple[float, float]:
    """Return seconds and peak MiB of a fresh process that runs `code` on the table at `path`."""
    # Not ru_maxrss, in which what the process that started this one once held counts.
    peak = "re.search('VmHWM:[^0-9]*([0-9]+)', open('/proc/self/status').read())[1]"
    told = f"{code}\nimport re; print({peak})"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", told, str(path)], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write_table(random_table(chosen.questions), path)
        print(f"{chosen.questions:,} questions x {AGENTS} agents, {path.stat().st_size / 2**20:.0f} MiB of Parquet")
        for what, code in STEPS.items():
            seconds, mebibytes = measured(code, path)
            rows.append({"what": what, "seconds": round(seconds, 2), "peak_mib": round(mebibytes)})
            print(f"{what:52} {seconds:6.1f} s  {mebibytes:7.0f} MiB")
    if chosen.json:
        result = {"questions": chosen.questions, "agents": AGENTS, "versions": versions(), "rows": rows}
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
