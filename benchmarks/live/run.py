"""A pool of language models through three benchmarks, with the commands that a user types.

    python benchmarks/live/run.py [--limit N] [--work DIR] [--json FILE] [--quick] [--samples]

Writes the data sets of mmlu, gsm8k and truthfulqa_mc1 as folders in hub layout, trains four small models, and then runs
`fusion doctor`, and for every task `fusion record --plan`, `fusion record`, the same once more, which must ask nothing
that has its answer, and `fusion bench`: each as a process of its own, as it is printed. At the end come the members
with what failed, the ensembles with their verdicts, and the seconds of every stage.

The models know next to nothing, so accuracies are near chance; README.md says how the same commands are run on real
checkpoints. --quick takes models that are trained for seconds and 20 questions a task.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.data import load_task
from fusion.significance import wilson_interval

HERE = Path(__file__).parent
SIZES = {"mmlu": 300, "gsm8k": 100, "truthfulqa_mc1": 200}
QUICK_SIZE, QUICK_TOKENS = 20, 16
SYSTEMS = ("all_agents+vote", "all_agents+weighted_vote", "top_k(k=2)+weighted_vote")
OPTION_SYSTEMS = (*SYSTEMS, "all_agents+mean_probability")
STAGES = ("data", "train", "doctor", "plan", "record", "record again", "bench")
FINAL = {"ok", "truncated", "empty", "refused"}


@dataclass(kw_only=True)
class Stages:
    """Runs commands, prints them with what they say, and keeps how long they took."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, stage: str, words: Sequence[str | Path], *, task: str = "", expected: Sequence[int] = (0,)) -> str:
        """Run a command and return its standard output.

        Raises:
            SystemExit: When it ends with another code than those expected.
        """
        shown = " ".join(_quoted(str(word)) for word in words)
        print(f"\n$ {shown}", flush=True)
        program = [sys.executable, "-m", "fusion"] if words[0] == "fusion" else [sys.executable]
        start = time.perf_counter()
        done = subprocess.run([*program, *map(str, words[1:])], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        for said in (done.stdout, done.stderr):
            if said.strip():
                print(said.rstrip(), flush=True)
        print(f"[{seconds:.1f} s, exit {done.returncode}]", flush=True)
        self.rows.append({"stage": stage, "task": task, "seconds": round(seconds, 1), "exit": done.returncode})
        if done.returncode not in expected:
            sys.exit(f"{stage} ended with {done.returncode}, expected {' or '.join(map(str, expected))}: {shown}")
        return done.stdout


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w./:=@%+-]+", word) else f"'{word}'"


def measure(
    stages: Stages, task: str, work: Path, *, limit: int, overrides: Sequence[str], planned: bool
) -> dict[str, Any]:
    """Record a task and evaluate ensembles on it; return members, systems, verdict and what was asked again."""
    out = work / "runs" / task
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command: list[str | Path] = [
        "fusion",
        "record",
        "--pool",
        work / "pool.yaml",
        "--task",
        task,
        "--root",
        work / "data" / "hub",
    ]
    command += ["--limit", str(limit), "--out", out, *overrides]
    if planned:
        stages.run("plan", [*command, "--plan", "--json", out / "plan.json"], task=task)
    # 1 says that more calls of a member failed than --fail-on-error allows; that is a result here.
    stages.run("record", [*command, "--json", out / "first.json"], task=task, expected=(0, 1))
    stages.run("record again", [*command, "--json", out / "second.json"], task=task, expected=(0, 1))
    first, second = _read(out / "first.json"), _read(out / "second.json")
    systems = SYSTEMS if task == "gsm8k" else OPTION_SYSTEMS
    words: list[str | Path] = [
        "fusion",
        "bench",
        out / "table.parquet",
        "--systems",
        ", ".join(systems),
        "--json",
        out / "bench.json",
    ]
    stages.run("bench", words, task=task)
    return {
        "questions": first["questions"],
        "chance": _chance(task, work / "data" / "hub", first["questions"]),
        "plan": _read(out / "plan.json")["plan"] if planned else None,
        "members": [_member(member, first["questions"]) for member in first["members"]],
        "again": _again(first, second),
        **_systems(_read(out / "bench.json")),
        "versions": first["run"]["versions"],
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _chance(task: str, root: Path, size: int) -> float:
    method = load_task(task)
    questions = method.load(method.splits[0], root=root)[:size]
    return round(sum(1 / len(question.options) for question in questions if question.options) / size, 4)


def _member(member: Mapping[str, Any], questions: int) -> dict[str, Any]:
    right = round(member["accuracy"] * questions)
    interval = wilson_interval(right, questions)
    # Seconds of calls that were in one batch each tell the whole batch, so their sum says nothing.
    kept = {key: value for key, value in member.items() if key not in ("cost", "recorded", "seconds")}
    return {**kept, "ci95": [round(interval.low, 4), round(interval.high, 4)]}


def _again(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the second run asked: nothing but the calls that failed in the first."""
    asked, failed = {}, {}
    for before, after in zip(first["members"], second["members"], strict=True):
        asked[after["agent"]] = after["calls"] - after["recorded"]
        failed[after["agent"]] = sum(n for status, n in before["statuses"].items() if status not in FINAL)
    same = first["table"] == second["table"]
    return {"asked": asked, "failed_before": failed, "same_table": same, "as_expected": asked == failed and same}


def _systems(bench: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("name", "role", "accuracy", "ci95", "abstained", "calls_per_question")
    paired = ("a", "b", "difference", "ci95", "holm_p", "minimum_detectable_difference")
    return {
        "n": bench["n"],
        "n_fit": bench["n_fit"],
        "systems": [{key: system[key] for key in keys} for system in bench["systems"]],
        "paired": [{key: row[key] for key in paired} for row in bench["paired"] if row["family"] == "best single"],
        "verdict": bench["verdict"],
        "notes": bench["notes"],
    }


# ----------------------------------------------------------------------------------------------------------- report


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the summary."""
    for task, measured in result["tasks"].items():
        yield f"\n{task}: {measured['questions']} questions, chance {_percent(measured['chance'])} %"
        yield "  member            calls   right %      95 % CI  no answer %  how the calls ended"
        for member in measured["members"]:
            ended = ", ".join(f"{count} {status}" for status, count in sorted(member["statuses"].items()))
            yield (
                f"  {member['agent']:16}  {member['calls']:5}  {_percent(member['accuracy']):>8}  "
                f"{_interval(member['ci95']):>11}  {_percent(member['unread_share']):>11}  "
                f"{ended}{'; ' + member['error'] if member['error'] else ''}"
            )
        yield f"  system, fitted on {measured['n_fit']} and evaluated on {measured['n']} other questions"
        for system in measured["systems"]:
            label = f"{system['name']} ({system['role'].replace('_', ' ')})"
            yield f"    {label:64} {_percent(system['accuracy']):>6} %  {_interval(system['ci95']):>12}"
        yield f"  {measured['verdict']}"
        again = measured["again"]
        told = ", ".join(f"{agent} {count}" for agent, count in again["asked"].items() if count) or "nothing"
        for row in result["stages"]:
            if row["task"] == task and row["exit"]:
                yield f"  {row['stage']} ended with {row['exit']}: too many calls of a member failed (--fail-on-error)"
        yield f"  the second run asked: {told}; {'as expected' if again['as_expected'] else 'NOT AS EXPECTED'}"
    yield "\nseconds         " + "".join(f"{task:>16}" for task in ("", *result["tasks"]))
    for stage in STAGES:
        found = {row["task"]: row["seconds"] for row in result["stages"] if row["stage"] == stage}
        cells = (f"{found[task]:16.1f}" if task in found else " " * 16 for task in ("", *result["tasks"]))
        yield f"{stage:16}{''.join(cells)}".rstrip()
    yield f"{'all':16}{result['seconds']:16.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:.1f}-{100 * ends[1]:.1f}"


def hardware() -> dict[str, Any]:
    """Return processor, cores and memory."""
    try:
        told = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        told = None
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": told[1] if told else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
    }


def main() -> int:
    """Run everything, print it, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="questions of every task (default: 300, 100 and 200)")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for data, models and answers (default: work/full beside this file, work/quick with --quick)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="models trained for seconds, 20 questions of every task")
    parser.add_argument("--samples", action="store_true", help="use the tasks' own samples, whatever is on record")
    arguments = parser.parse_args()
    start, stages = time.perf_counter(), Stages()
    work = arguments.work or _near(HERE / "work" / ("quick" if arguments.quick else "full"))
    size = arguments.limit or (QUICK_SIZE if arguments.quick else None)
    limits = {task: size or full for task, full in SIZES.items()}
    quick = ["--quick"] if arguments.quick else []
    overrides = ["--set", f"defaults.max_tokens={QUICK_TOKENS}"] if arguments.quick else []
    samples = ["--samples"] if arguments.samples else []

    data, pool = work / "data", work / "pool.yaml"
    told = stages.run(
        "data", ["python", _near(HERE / "data.py"), "--out", data, "--mmlu", str(limits["mmlu"]), *samples]
    )
    trained = stages.run("train", ["python", _near(HERE / "train.py"), "--data", data, "--out", work, *quick])
    shutil.copyfile(HERE / "pool.yaml", pool)
    stages.run("doctor", ["fusion", "doctor", pool])
    tasks = {}
    for task, limit in limits.items():
        planned = task == "gsm8k" or not arguments.quick
        tasks[task] = measure(stages, task, work, limit=limit, overrides=overrides, planned=planned)
    result = {
        "format": "fusion.live/1",
        "quick": arguments.quick,
        "versions": next(iter(tasks.values()))["versions"],
        "hardware": hardware(),
        "data": json.loads(told),
        "training": json.loads(trained.splitlines()[-1]),
        "stages": stages.rows,
        "seconds": round(time.perf_counter() - start, 1),
        "tasks": {task: {key: value for key, value in row.items() if key != "versions"} for task, row in tasks.items()},
    }
    for line in report(result):
        print(line)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(measured["again"]["as_expected"] for measured in tasks.values()) else 1


def _near(path: Path) -> Path:
    """Return the path as seen from the current folder where that is shorter."""
    return Path(min(os.path.relpath(path), str(path), key=len))


if __name__ == "__main__":
    sys.exit(main())
