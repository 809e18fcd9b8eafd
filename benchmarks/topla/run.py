"""The claims of LLM-TOPLA (arXiv 2410.03953) about focal diversity and pruning, on recorded answers of 24 models.

    python benchmarks/topla/run.py [--json FILE] [--splits 5] [--quick]
    python benchmarks/topla/run.py --tables FILE [--all]

All sub-ensembles of two to eight members of two pools are measured on 70 % of the questions of MMLU-Pro, and what is
chosen there is evaluated on the others. The recorded answers are looked for in FUSION_DATA, else in ../shared/data.
--tables prints the Markdown tables of README.md from a file that --json wrote. --quick stops at sizes of five and two
splits.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.pruning.run import hardware
from benchmarks.pruning.tables import recorded_path
from benchmarks.topla import tables
from benchmarks.topla.choices import CRITERIA, SPACES, choices
from benchmarks.topla.columns import measure
from benchmarks.topla.correlations import correlations, shared
from fusion.data import PredictionTable, Split, read_table, split
from fusion.evaluation import versions

FIT_FRACTION = 0.7
SIZES = (2, 3, 4, 5, 6, 7, 8)
QUICK_SIZES = (2, 3, 4, 5)
NEAR_PAPER = (
    "Llama-2-7b-hf",
    "Llama-2-13b-hf",
    "Llama-2-70b-hf",
    "Mixtral-8x7B-Instruct-v0.1",
    "gemma-7b",
    "Mistral-7B-Instruct-v0.2",
    "Phi-3-mini-4k-instruct",
    "Meta-Llama-3-8B",
)
"""The models of the table that are those of the paper's pool, or the nearest to them."""


class Line:
    """A line on the terminal that says what is done."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.prefix = ""

    def __call__(self, doing: str) -> None:
        """Say what is being done."""
        sys.stderr.write(f"\r{time.perf_counter() - self.start:5.0f} s  {self.prefix}{doing:<44}")
        sys.stderr.flush()


def one_split(parts: Split, seed: int, chosen: argparse.Namespace, line: Line) -> dict[str, Any]:
    """Return the correlations and the choices of one pool on one split."""
    sizes = QUICK_SIZES if chosen.quick else SIZES
    columns = measure(parts, sizes, threads=chosen.threads, told=line)
    line("correlations")
    found: dict[str, Any] = {"correlations": {}}
    for label, group in {**{str(size): (size,) for size in sizes}, "2-5": SIZES[:4], "2-8": SIZES}.items():
        if set(group) <= columns.rows.keys() and (figures := correlations(columns, group)):
            found["correlations"][label] = figures
    found |= choices(columns, seed=seed, candidates=chosen.candidates, threads=chosen.threads, told=line)
    return found


def joined(values: list[Any]) -> Any:
    """Return results of the same form over splits as one: a list, one value a split, at every leaf."""
    if isinstance(values[0], dict):
        return {key: joined([value[key] for value in values]) for key in values[0]}
    return [_rounded(value) for value in values]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value


def measured(table: PredictionTable, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return everything that the claims are tested with."""
    line = Line()
    pools: dict[str, Any] = {}
    num_fit = num_test = 0
    for pool, agents in {"whole pool": table.agents, "near-paper pool": NEAR_PAPER}.items():
        own = table.columns(agents)
        results = []
        for seed in range(chosen.splits):
            line.prefix = f"{pool}, split {seed + 1} of {chosen.splits}: "
            parts = split(own, fit_fraction=FIT_FRACTION, seed=seed)
            num_fit, num_test = len(parts.fit), len(parts.test)
            results.append(one_split(parts, seed, chosen, line))
        for result, figures in zip(results, shared([result["correlations"] for result in results]), strict=True):
            result["correlations"] = figures
        pools[pool] = {"agents": list(agents)} | joined(results)
    sys.stderr.write("\n")
    return {
        "format": "fusion.topla/1",
        "seconds": round(time.perf_counter() - line.start, 1),
        "table": table.fingerprint,
        "splits": chosen.splits,
        "n_fit": num_fit,
        "n_test": num_test,
        "candidates": chosen.candidates,
        "criteria": {name: {"objective": text, "refit": refit} for name, (text, refit) in CRITERIA.items()},
        "spaces": {name: list(sizes) for name, sizes in SPACES.items()},
        "pools": pools,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=200, help="sub-ensembles that a second stage compares")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="sizes 2 to 5, two splits")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of results, and measure nothing")
    parser.add_argument("--all", action="store_true", help="with --tables: every size, space and fuser")
    chosen = parser.parse_args()
    if chosen.tables:
        print(tables.markdown(json.loads(chosen.tables.read_text(encoding="utf-8")), everything=chosen.all))
        return
    path = recorded_path()
    if path is None:
        sys.exit("the recorded answers mmlu_pro/predictions.csv.gz are not there; set FUSION_DATA to their folder")
    chosen.splits = 2 if chosen.quick else chosen.splits
    load = os.getloadavg()[0]
    head = {"versions": versions(), "hardware": hardware() | {"load": round(load, 1)}}
    result = head | measured(read_table(path), chosen)
    print(tables.markdown(result, everything=False))
    if chosen.json:
        text = json.dumps(result, indent=1)
        # A list of numbers or names stays on one line.
        text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
