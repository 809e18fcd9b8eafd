"""All ways to fuse recorded answers, against each other, the best single member and an independent model.

    python benchmarks/fusers/run.py [--quick] [--json FILE] [--only PART]
    python benchmarks/fusers/run.py --tables FILE

The recorded answers are looked for in FUSION_DATA, else in ../shared/data. --tables prints the tables from a file that
--json wrote. --quick takes one split and small sizes, to see that everything runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from threadpoolctl import threadpool_limits

from benchmarks.fusers import bbh, growth, gsm8k, mmlu_pro, tables
from benchmarks.pruning.run import hardware
from benchmarks.pruning.tables import recorded_path
from benchmarks.topla.run import FIT_FRACTION, Line
from fusion.data import read_table
from fusion.evaluation import versions

SEEDS, QUICK_SEEDS = 5, 1
BBH_REPETITIONS, GSM8K_REPETITIONS = 2, 3
QUICK_TASKS = 3
REPEATS = 3
DIGITS = 5


def parts(data: Path, line: Line, *, quick: bool) -> dict[str, Callable[[], Any]]:
    """Return what measures each part."""
    recorded = read_table(data / "mmlu_pro" / "predictions.csv.gz")
    table = mmlu_pro.small(recorded) if quick else recorded
    seeds = QUICK_SEEDS if quick else SEEDS
    draws = mmlu_pro.QUICK_DRAWS if quick else mmlu_pro.DRAWS

    def of_bbh() -> Any:
        scores = bbh.read(data / "bbh" / "scores_train_mended.npz")
        return bbh.compared(
            scores.first(QUICK_TASKS) if quick else scores, repetitions=1 if quick else BBH_REPETITIONS, told=line
        )

    def of_gsm8k() -> Any:
        repetitions = 1 if quick else GSM8K_REPETITIONS
        return gsm8k.compared(gsm8k.read(data / "gsm8k"), repetitions=repetitions, told=line)

    return {
        "mmlu_pro": lambda: mmlu_pro.compared(table, seeds=seeds, told=line),
        "few_labels": lambda: mmlu_pro.few_labels(table, seeds=seeds, draws=draws, told=line),
        "bbh": of_bbh,
        "gsm8k": of_gsm8k,
        "growth": lambda: growth.compared(recorded, quick=quick, repeats=1 if quick else REPEATS, told=line),
    }


def rounded(value: Any) -> Any:
    """Return JSON values with no more digits than mean something."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="one split, small sizes")
    parser.add_argument("--only", choices=("mmlu_pro", "few_labels", "bbh", "gsm8k", "growth"), action="append")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of results, and measure nothing")
    chosen = parser.parse_args()
    if chosen.tables:
        print(tables.markdown(json.loads(chosen.tables.read_text(encoding="utf-8"))))
        return
    path = recorded_path()
    if path is None:
        sys.exit("the recorded answers mmlu_pro/predictions.csv.gz are not there; set FUSION_DATA to their folder")
    line, loads = Line(), [os.getloadavg()[0]]
    start = time.perf_counter()
    result: dict[str, Any] = {
        "format": "fusion.fusers/1",
        "versions": versions() | {name: version(name) for name in ("scikit-learn", "torch")},
        "hardware": hardware(),
        "quick": chosen.quick,
        "overlap": (1 - FIT_FRACTION) / FIT_FRACTION,
        "part_seconds": {},
    }
    # One thread everywhere: more gain nothing on matrices of this size, and times can be compared.
    with threadpool_limits(1):
        for name, measure in parts(path.parents[1], line, quick=chosen.quick).items():
            if chosen.only and name not in chosen.only:
                continue
            begun = time.perf_counter()
            result[name] = rounded(measure())
            result["part_seconds"][name] = round(time.perf_counter() - begun, 1)
            loads.append(os.getloadavg()[0])
    sys.stderr.write("\n")
    result["hardware"]["loads"] = [round(load, 1) for load in loads]
    result["seconds"] = round(time.perf_counter() - start, 1)
    print(tables.markdown(result))
    print(f"\n{result['seconds']:.0f} seconds; load at the start and after each part: {result['hardware']['loads']}")
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1)
        # A list of numbers or names stays on one line.
        text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
