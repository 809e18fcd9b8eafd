"""Measure the members through the engine that ships: accuracies by category and facet, oracle and vote.

    python benchmarks/members/measure.py --work DIR

DIR keeps the recordings; results.json beside this file is written from them.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.members.mixtures import facet
from benchmarks.members.recipes import MEMBERS
from fusion import Ensemble
from fusion.agents import read_pool
from fusion.data import PredictionTable
from fusion.data._micro import SKILLS
from fusion.data.micro import Micro
from fusion.recording import RecordOptions, record

ROOT = Path(__file__).resolve().parents[2]
POOLS = ROOT / "fusion" / "demo" / "pools"
MEMBERS_FOLDER = ROOT / "fusion" / "demo" / "members"


def facets(variant: Any, split: str, count: int) -> list[tuple[str, str]]:
    """Return category and facet of the first `count` questions."""
    task = Micro(variant=variant)
    streams = {skill: task._items(skill, split) for skill in SKILLS}
    names = list(SKILLS)
    return [(name, facet(next(streams[name])[0])) for name in (names[i % len(names)] for i in range(count))]


def shares(correct_NM: np.ndarray[Any, Any], agents: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Return every agent's accuracy by group, to four places, in the order in which groups appear."""
    places: dict[str, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        places[group].append(n)
    return {
        agent: {group: round(float(correct_NM[rows, m].mean()), 4) for group, rows in sorted(places.items())}
        for m, agent in enumerate(agents)
    }


def describe(table: PredictionTable, vote: float, seconds: float, kinds: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the figures of one recording."""
    return {
        "questions": len(table),
        "accuracy": dict(zip(table.agents, np.round(table.accuracies, 4).tolist(), strict=True)),
        "oracle": round(float(table.correct.any(axis=1).mean()), 4),
        "vote": round(vote, 4),
        "right_of_first_200": dict(zip(table.agents, table.correct[:200].sum(axis=0).tolist(), strict=True)),
        "by_category": shares(table.correct, table.agents, [category for category, _ in kinds]),
        "by_facet": shares(table.correct, table.agents, [f"{category}: {name}" for category, name in kinds]),
        "recording_seconds": round(seconds, 1),
    }


def main() -> int:
    """Record what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for pool_name, variant, split in (
        ("micro", "a", "validation"),
        ("micro", "a", "test"),
        ("micro", "b", "test"),
        ("nested", "a", "test"),
    ):
        pool = read_pool(POOLS / f"{pool_name}.yaml")
        key = f"{pool_name}/{variant}/{split}"
        started = time.perf_counter()
        told = record(
            pool,
            "micro" if variant == "a" else f"micro(variant={variant})",
            arguments.work / key.replace("/", "-"),
            options=RecordOptions(split=split),
        )
        table = told.table
        answers_N = Ensemble(pool, "all_agents", "vote").replay(table).decision.answers
        right = float(((answers_N == table.require_labels()) & (answers_N >= 0)).mean())
        found[key] = describe(table, right, time.perf_counter() - started, facets(variant, split, len(table)))
        print(f"{key}: {found[key]['accuracy']}, oracle {found[key]['oracle']}, vote {right:.3f}", file=sys.stderr)
    made: Mapping[str, Any] = {
        recipe.name: json.loads((MEMBERS_FOLDER / recipe.name / "made.json").read_text()) for recipe in MEMBERS
    }
    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    report = {"members": made, "versions": versions, "results": found}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
