"""What scoring a sub-ensemble costs: plain Python, NumPy, the kernels of fusion; and how far these are from a bound.

Run with: python benchmarks/pruning/run.py [--quick] [--threads 2] [--json FILE]. A score is the accuracy of the
plurality vote and the focal diversity. The recorded answers (FUSION_DATA, else ../shared/data) are used where there
are any, else random ones of the same shape. README.md explains the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.pruning.baselines import FOCALS, VOTES, Plain
from benchmarks.pruning.bound import Stream, word_operations
from benchmarks.pruning.tables import RECORDED_SHAPE, random_table, recorded_path
from fusion.data import PredictionTable, read_table
from fusion.evaluation import versions
from fusion.schema import IntArray
from fusion.selectors import DEFAULT_OBJECTIVE, BitTable, Objective, Scorer, Space, search
from fusion.selectors._bitset import focal_diversities

Row = tuple[int, ...]
Value = TypeVar("Value", int, float)

SIZE, SIZES = 5, (2, 3, 4, 5)
PLAIN_SAMPLE, SAMPLE = 6, 200
RATIOS = {"plain": (5_000, 20_000), "NumPy": (250, 1_000)}
"""How many times faster than each the kernels are to be, and are hoped to be."""

ALL_SECONDS = 0.25


class Case(NamedTuple):
    """What is searched, and the most seconds and MiB that it is to take."""

    num_agents: int
    num_questions: int
    sizes: tuple[int, ...]
    seconds: float
    mib: float


CASES = (
    Case(*RECORDED_SHAPE, SIZES, math.inf, math.inf),
    Case(60, 12_000, SIZES, 20.0, math.inf),
    Case(24, 1_000_000, (2, 3, 4), 10.0, 2048.0),
)


class Spread(NamedTuple):
    """Seconds over repeats; `processor` is the median of what the threads of this process spent, not waiting.

    It is the guide where other work takes turns on the same cores; 0 where it was not measured.
    """

    median: float
    best: float
    worst: float
    processor: float = 0.0


class Side(NamedTuple):
    """What is timed: `work` scores so many sub-ensembles."""

    name: str
    num_subsets: int
    work: Callable[[], object]


def timed(sides: Sequence[Side], repeats: int) -> dict[str, Spread]:
    """Return seconds a sub-ensemble by name; the sides take turns, and the first turn is not counted."""
    seconds: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    for turn in range(repeats + 1):
        for side in sides:
            start, spent = time.perf_counter(), time.process_time()
            side.work()
            took = time.perf_counter() - start, time.process_time() - spent
            if turn:
                seconds[side.name].append((took[0] / side.num_subsets, took[1] / side.num_subsets))
    found = {}
    for name, pairs in seconds.items():
        walls, spents = zip(*pairs, strict=True)
        found[name] = spread(walls)._replace(processor=statistics.median(spents))
    return found


def spread(values: Sequence[float]) -> Spread:
    """Return median, best and worst."""
    return Spread(statistics.median(values), min(values), max(values))


def each(score: Callable[[Row], Value], rows: Sequence[Row]) -> list[Value]:
    """Return the scores of sub-ensembles, one after another."""
    return [score(row) for row in rows]


def all_rows(num_agents: int, size: int) -> IntArray:
    """Return all sub-ensembles of a size, [P, S], in lexicographic order."""
    space = Space(num_agents=num_agents, sizes=(size,), free=tuple(range(num_agents)))
    return np.vstack([space.rows(chunk) for chunk in space.chunks()])


class Contest:
    """All sides on one table, scoring sub-ensembles of size 5.

    Args:
        table: Labelled answers.
    """

    def __init__(self, table: PredictionTable) -> None:
        self.scorer = Scorer.of(table, Objective.parse(DEFAULT_OBJECTIVE), threads=1)
        self.bits, self.counts = self.scorer.bits, self.scorer.co_errors
        answers_NM = np.ascontiguousarray(table.answers[:, self.bits.ranked])
        labels_N = table.require_labels().astype(answers_NM.dtype)
        self.plain = Plain(answers_NM, labels_N)
        # As the kernels do, NumPy leaves out the questions that all agents get right, or none.
        right_N = (answers_NM == labels_N[:, None]).sum(axis=1)
        open_N = (right_N > 0) & (right_N < table.num_agents)
        self.voters = [make(answers_NM[open_N], labels_N[open_N]) for make in VOTES]
        self.focals = [make(answers_NM == labels_N[:, None]) for make in FOCALS]
        self.rows_PS = all_rows(table.num_agents, SIZE)
        self.drawn = np.random.default_rng(0).choice(len(self.rows_PS), SAMPLE, replace=False)
        self.sample: list[Row] = [tuple(row) for row in self.rows_PS[self.drawn].tolist()]
        self.few = self.sample[:PLAIN_SAMPLE]

    def check(self) -> float:
        """Return by how much focal diversities differ at most; exits where votes do, or these beyond 1e-12."""
        right = self.bits.votes(self.rows_PS)[self.drawn].tolist()
        focal_P = focal_diversities(self.counts, self.rows_PS)[self.drawn]
        furthest = 0.0
        votes = [(self.plain.votes, self.few, 0)]
        votes += [(voter.votes, self.sample, self.bits.solved) for voter in self.voters]
        for voted, rows, solved in votes:
            if [solved + count for count in each(voted, rows)] != right[: len(rows)]:
                sys.exit(f"{voted.__qualname__} differs from the votes of the kernels")
        focals = [(self.plain.focal, self.few), *((scorer.focal, self.sample) for scorer in self.focals)]
        for scored, rows in focals:
            furthest = max(furthest, float(np.abs(each(scored, rows) - focal_P[: len(rows)]).max()))
        if furthest > 1e-12:
            sys.exit(f"focal diversities differ by up to {furthest}, expected at most 1e-12")
        return furthest

    def times(self, threads: Sequence[int], repeats: int) -> dict[str, Spread]:
        """Return seconds a sub-ensemble of all sides."""
        sides = [
            Side("plain, votes", len(self.few), partial(each, self.plain.votes, self.few)),
            Side("plain, focal", len(self.few), partial(each, self.plain.focal, self.few)),
        ]
        sides += [Side(voter.name, SAMPLE, partial(each, voter.votes, self.sample)) for voter in self.voters]
        sides += [Side(scorer.name, SAMPLE, partial(each, scorer.focal, self.sample)) for scorer in self.focals]
        sides += [
            Side("kernels, votes", len(self.rows_PS), partial(self.bits.votes, self.rows_PS)),
            Side("kernels, focal", len(self.rows_PS), partial(focal_diversities, self.counts, self.rows_PS)),
        ]
        for count in threads:
            both = partial(dataclasses.replace(self.scorer, threads=count), self.rows_PS)
            sides += [Side(f"kernels, {named(count)}", len(self.rows_PS), both)]
        return timed(sides, repeats)


def named(threads: int) -> str:
    """Return a number of threads as text."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def total(times: Mapping[str, Spread], *names: str) -> Spread:
    """Return the sum of several sides; of its spread, an upper bound."""
    return Spread(*(sum(values) for values in zip(*(times[name] for name in names), strict=True)))


def compared(contest: Contest, threads: Sequence[int], repeats: int) -> dict[str, Any]:
    """Print and return what each side takes for a sub-ensemble of size 5, and the ratios."""
    furthest = contest.check()
    print(f"votes agree on {SAMPLE} sub-ensembles ({PLAIN_SAMPLE} with plain), focal diversities to {furthest:.1e}")
    times = contest.times(threads, repeats)
    print(
        f"\nmicroseconds a sub-ensemble of size {SIZE}: median (best to worst; median of processor time) of {repeats}"
    )
    for name, seconds in times.items():
        print(f"  {name:55} {told(seconds, 1e6)}")
    names = {"plain": ("plain, votes", "plain, focal")}
    best = min((voter.name for voter in contest.voters), key=lambda name: times[name].median)
    usual = "counts over options, np.bincount"
    quick = min((scorer.name for scorer in contest.focals), key=lambda name: times[name].median)
    names |= {"NumPy, fastest": (best, quick), "NumPy, usual": (usual, quick)}
    sums = {name: total(times, *parts) for name, parts in names.items()}
    print("votes and focal diversity together")
    for name, seconds in sums.items():
        print(f"  {name:55} {told(seconds, 1e6)}   {' + '.join(names[name])}")
    sums |= {f"kernels, {named(count)}": times[f"kernels, {named(count)}"] for count in threads}
    ratios = {}
    for count in threads:
        mine = sums[f"kernels, {named(count)}"]
        for other in ("plain", "NumPy, fastest", "NumPy, usual"):
            low, high = RATIOS[other.split(",")[0]]
            ratio, of_bests = sums[other].median / mine.median, sums[other].best / mine.best
            of_processor = sums[other].processor / mine.processor
            figures = {"medians": ratio, "bests": of_bests, "processor": of_processor, "target": low, "hoped": high}
            ratios[f"{other} / kernels, {named(count)}"] = figures
            print(
                f"  {ratio:9,.0f} x as fast as {other:14} with {named(count):9} ({of_bests:,.0f} x by bests, "
                f"{of_processor:,.0f} x by processor time; target {low:,}, hoped for {high:,})"
            )
    return {"seconds": {n: s._asdict() for n, s in (times | sums).items()}, "ratios": ratios, "furthest": furthest}


def bounded(contest: Contest, repeats: int) -> dict[str, Any]:
    """Print and return how near the votes of one thread are to the rate at which words can be worked on."""
    blocks, num_agents, width = contest.bits.correct.shape
    per_word = word_operations(num_agents, SIZE)
    stream = Stream(width)
    times = timed(
        [
            Side("votes", len(contest.rows_PS), partial(contest.bits.votes, contest.rows_PS)),
            Side("operation", stream.operations, stream.work),
        ],
        repeats,
    )
    operations = sum(per_word) * blocks * width
    votes = times["votes"]
    least = Spread(*(seconds * operations for seconds in times["operation"]))
    fraction, of_bests = least.median / votes.median, least.best / votes.best
    of_processor = least.processor / votes.processor
    rate = 1e-9 / times["operation"].median
    print(
        f"\n{per_word.last} word operations of the last member and {per_word.shared:.1f} of those before it, times "
        f"{blocks * width} words = {operations:,.0f} a sub-ensemble of size {SIZE}\n"
        f"  at {rate:.1f} billion a second: {told(least, 1e6)} us; the votes take {told(votes, 1e6)} us\n"
        f"  so one thread reaches {100 * fraction:.0f} % of the bound, {100 * of_bests:.0f} % by bests, "
        f"{100 * of_processor:.0f} % by processor time"
    )
    return {
        "operations_a_word": per_word._asdict(),
        "words": blocks * width,
        "seconds": {name: seconds._asdict() for name, seconds in times.items()},
        "fraction": fraction,
        "fraction_of_bests": of_bests,
        "fraction_of_processor": of_processor,
    }


def everything(table: PredictionTable, threads: int, repeats: int) -> dict[str, Any]:
    """Print and return seconds of all sub-ensembles of sizes 2 to 5 in a process that has done it before."""
    space = Space(num_agents=table.num_agents, sizes=SIZES, free=tuple(range(table.num_agents)))
    objective = Objective.parse(DEFAULT_OBJECTIVE)
    bits = BitTable.of(table)
    scorer = Scorer.of(table, objective, threads=threads)

    def whole() -> None:
        search(Scorer.of(table, objective, threads=threads), space, top=10)

    sides = [
        Side("packing", 1, partial(BitTable.of, table)),
        Side("counting joint failures", 1, bits.co_errors),
        Side("Scorer.of: both, and what else it derives", 1, partial(Scorer.of, table, objective, threads=threads)),
        Side("search", 1, partial(search, scorer, space, top=10)),
        Side("Scorer.of and search", 1, whole),
    ]
    times = timed(sides, repeats)
    print(f"\nmilliseconds of all {space.total:,} sub-ensembles of sizes 2 to 5, {threads} threads, best 10 kept")
    for name, seconds in times.items():
        limit = f"   target {1000 * ALL_SECONDS:g}" if name == sides[-1].name else ""
        print(f"  {name:55} {told(seconds, 1e3)}{limit}")
    return {"subsets": space.total, "target": ALL_SECONDS} | {n: s._asdict() for n, s in times.items()}


def told(seconds: Spread, unit: float) -> str:
    """Return a spread as text."""
    median, best, worst, processor = (f"{value * unit:.{3 if value * unit < 10 else 1}f}" for value in seconds)
    return f"{median:>10} ({best} to {worst}" + (f"; processor {processor})" if seconds.processor else ")")


def fresh(cache: Path, *arguments: object) -> dict[str, float]:
    """Return what a process of its own tells, and the seconds from its start to its end."""
    command = [sys.executable, str(Path(__file__).with_name("fresh.py")), *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures | {"process": time.perf_counter() - start}


def over(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of each figure over repeats."""
    return {name: spread([run[name] for run in runs])._asdict() for name in runs[0]}


def compiled(cache: Path, folder: Path, repeats: int) -> dict[str, Any]:
    """Print and return the seconds of a first search with nothing compiled before, and with a cache."""
    cold = over([fresh(folder / f"cold-{turn}", "compile") for turn in range(repeats)])
    fresh(cache, "compile")
    warm = over([fresh(cache, "compile") for _ in range(repeats)])
    print("\nseconds of the first search in a process (of 8 agents, 640 questions), and of the whole process")
    for name, figures in (("nothing compiled before", cold), ("compiled by an earlier process", warm)):
        parts = [told(Spread(**figures[part]), 1) for part in ("first", "process")]
        print(f"  {name:55} {parts[0]} {parts[1]}")
    return {"cold": cold, "cached": warm}


def grown(cache: Path, folder: Path, threads: int, recorded: Path | None, repeats: int) -> list[dict[str, Any]]:
    """Print and return seconds and peak memory of whole searches in processes of their own."""
    results = []
    print(f"\nseconds in processes of their own, {threads} threads, kernels compiled before")
    print(
        f"{'agents x questions, sizes':>34} {'sub-ensembles':>14} {'packing to best 10':>26} {'whole process':>26}  MiB"
    )
    for case in CASES:
        shape = case[:2]
        path = folder / "table.parquet"
        if shape == RECORDED_SHAPE and recorded:
            path = recorded
        else:
            fresh(cache, "write", *shape, path)
        asked = ("search", path, ",".join(map(str, case.sizes)), threads)
        fresh(cache, *asked)
        runs = [fresh(cache, *asked) for _ in range(repeats)]
        figures = over([run | {"both": run["prepare"] + run["search"]} for run in runs])
        limits = [f"target {case.seconds:g} s"] * (case.seconds < math.inf)
        limits += [f"{case.mib:g} MiB"] * (case.mib < math.inf)
        print(
            f"{f'{case.num_agents} x {case.num_questions:,}, {case.sizes[0]} to {case.sizes[-1]}':>34} "
            f"{figures['subsets']['median']:14,.0f} {told(Spread(**figures['both']), 1):>26} "
            f"{told(Spread(**figures['process']), 1):>26}  {figures['peak_mib']['worst']:.0f} {', '.join(limits)}"
        )
        # JSON has no infinity.
        sides = {key: None if value == math.inf else value for key, value in case._asdict().items()}
        results.append(sides | {"figures": figures})
    return results


def hardware() -> dict[str, Any]:
    """Return processor, cores and memory."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": found[1] if found else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one repeat, and no large tables")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    repeats = 1 if chosen.quick else 31
    loads = [os.getloadavg()]
    recorded = recorded_path()
    table = read_table(recorded) if recorded else random_table(*RECORDED_SHAPE)
    of = "recorded answers (MMLU-Pro)" if recorded else "random answers"
    print(f"{of}: {table.num_agents} agents x {len(table):,} questions; load {loads[0][0]:.1f}")
    threads = sorted({1, chosen.threads})
    contest = Contest(table)
    result: dict[str, Any] = {"table": f"{of}, {table.num_agents} x {len(table)}", "threads": chosen.threads}
    result["sub_ensemble"] = compared(contest, threads, repeats)
    result["bound"] = bounded(contest, repeats)
    result["all"] = everything(table, chosen.threads, repeats)
    loads.append(os.getloadavg())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["compiling"] = compiled(folder / "cache", folder, 1 if chosen.quick else 5)
        if not chosen.quick:
            result["growth"] = grown(folder / "cache", folder, chosen.threads, recorded, 5)
    loads.append(os.getloadavg())
    print(f"\nload over the last minute: {', '.join(f'{load[0]:.1f}' for load in loads)}")
    if chosen.json:
        told_versions = versions() | {"numba": numba.__version__}
        head = {"versions": told_versions, "hardware": hardware(), "repeats": repeats, "load": loads}
        chosen.json.write_text(json.dumps(head | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
