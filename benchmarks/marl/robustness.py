"""What members that turn against the pool cost: policies beside votes and learned fusers, with and without warning.

    python benchmarks/marl/robustness.py [--quick] [--json FILE]
    python benchmarks/marl/robustness.py --tables FILE

Recorded answers to MMLU-Pro (FUSION_DATA, else ../shared/data), the pool near the paper's, five splits of 70 % to fit
on. The adversary is the most accurate member, or the two most accurate: their answers become wrong options drawn at
random, on all questions, or in the category with most questions alone. Trained clean: they turn on the questions
evaluated alone, which nobody was warned of. Trained with them: on the questions of fit as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.fusers.mmlu_pro import pools, small
from benchmarks.fusers.systems import difference, outcome
from benchmarks.marl import command
from benchmarks.pruning.run import hardware
from fusion.data import PredictionTable, read_table, split
from fusion.evaluation import inject, versions

SYSTEMS = (
    "single_best+vote",
    "all_agents+vote",
    "all_agents+weighted_vote(weights=power)",
    "all_agents+dawid_skene",
    "all_agents+topla_weighted",
    "all_agents+marl_aggregator",
    "marl_focal(calls=2)+marl_aggregator",
    "marl_focal(calls=4)+marl_aggregator",
)
REFERENCE = "all_agents+topla_weighted"
ATTACKS = (("nobody", 0, False), ("one", 1, False), ("two", 2, False), ("one, in one category", 1, True))


def attacked(table: PredictionTable, members: list[str], category: str | None, *, seed: int) -> PredictionTable:
    """Return the table whose `members` are wrong, everywhere or in a category."""
    for m, name in enumerate(members):
        table = inject(table, agent=name, start=0, kind="wrong", category=category, seed=seed + m)
    return table


def study(table: PredictionTable, *, seeds: int) -> dict[str, Any]:
    """Return by attack, training and system the accuracy over all questions and how far it is from the reference."""
    categories, counts = np.unique(table.require_categories(), return_counts=True)
    largest = str(categories[counts.argmax()])
    place = {name: n for n, name in enumerate(table.question_ids.tolist())}
    found: dict[str, Any] = {}
    for attack, count, in_category in ATTACKS:
        for trained in ("clean", "with them") if count else ("clean",):
            right = {system: np.zeros(len(table)) for system in SYSTEMS}
            times = np.zeros(len(table))
            for seed in range(seeds):
                print(f"{attack}, trained {trained}, split {seed}", file=sys.stderr, flush=True)
                parts = split(table, fit_fraction=0.7, seed=seed, stratify="category")
                ranked = np.argsort(-parts.fit.accuracies, kind="stable")[:count]
                members, where = [table.agents[m] for m in ranked], largest if in_category else None
                test = attacked(parts.test, members, where, seed=seed)
                fit = parts.fit if trained == "clean" else attacked(parts.fit, members, where, seed=100 + seed)
                rows_n = np.array([place[name] for name in test.question_ids.tolist()])
                times[rows_n] += 1
                for system in SYSTEMS:
                    right[system][rows_n] += outcome(system, fit, test).correct
            seen = times > 0
            shares = {system: sums[seen] / times[seen] for system, sums in right.items()}
            found[f"{attack}, trained {trained}"] = {
                system: {"accuracy": float(share.mean()), "less": difference(share, shares[REFERENCE])}
                for system, share in shares.items()
            }
    return {"agents": list(table.agents), "category": largest, "attacks": found}


def tables(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table: accuracy, and the difference to `topla_weighted` with its interval."""
    attacks = results["attacks"]
    yield "| system | " + " | ".join(attacks) + " |"
    yield "|---|" + "---|" * len(attacks)
    for system in SYSTEMS:
        cells = []
        for rows in attacks.values():
            difference_, low, high, _ = (100 * value for value in rows[system]["less"])
            less = "" if system == REFERENCE else f" ({difference_:+.1f}, {low:+.1f} to {high:+.1f})"
            cells.append(f"{100 * rows[system]['accuracy']:.1f}{less}")
        yield f"| {system} | " + " | ".join(cells) + " |"


def shown(results: dict[str, Any]) -> str:
    """Return the table as one text."""
    return "\n".join(tables(results))


def main() -> None:
    """Measure, or print the table."""
    options = command.parser(__doc__, quick="one split, few questions; its figures mean nothing")
    given, path = command.begun(options, shown)
    started = time.perf_counter()
    table = pools(read_table(path))["near paper"]
    with threadpool_limits(1):
        results = study(small(table) if given.quick else table, seeds=1 if given.quick else 5)
    results |= {"format": "fusion.benchmark.marl.robustness/1", "quick": given.quick}
    results |= {"versions": versions(), "hardware": hardware(), "seconds": time.perf_counter() - started}
    command.ended(results, given, shown)


if __name__ == "__main__":
    main()
