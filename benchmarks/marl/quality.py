"""What asking question by question buys: accuracy against calls, beside everything that is simpler.

    python benchmarks/marl/quality.py [--quick] [--only PART] [--json FILE]
    python benchmarks/marl/quality.py --tables FILE

Needs the recorded answers (FUSION_DATA, else ../shared/data). Parts: near paper, all (MMLU-Pro, five splits, 70 % to
fit on, stratified by category), BBH (22 tasks with mended labels, five folds, two repetitions). Every figure is of
questions that nothing was fitted or chosen on. --tables prints the tables from a file that --json wrote.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.fusers import bbh
from benchmarks.fusers.mmlu_pro import pools, small
from benchmarks.fusers.systems import difference
from benchmarks.marl import command
from benchmarks.marl.rivals import bandit, best_static, greedy_order, of
from benchmarks.pruning.run import hardware
from fusion.data import PredictionTable, folds, read_table, split
from fusion.ensemble import ask
from fusion.evaluation import versions
from fusion.fusers.marl_aggregator import MarlAggregator
from fusion.fusers.topla_weighted import ToplaWeighted
from fusion.schema import BoolArray, Selection
from fusion.selectors.cascade import Cascade
from fusion.selectors.knora import Knora
from fusion.selectors.marl_focal import MarlFocal
from fusion.selectors.random_subset import RandomSubset
from fusion.selectors.single_best import SingleBest
from fusion.selectors.single_best_per_category import SingleBestPerCategory

PARTS = ("near paper", "all", "BBH")
SHARES = {"near paper": (0.25, 0.375, 0.5), "all": (1 / 24, 2 / 24, 0.125, 0.25, 0.5), "BBH": (0.4, 0.6)}
"""Calls a question, as shares of the pool."""
UPDATES = 60
"""Of PPO."""
EVERYBODY = "all agents"
MARL = "marl_focal"


class Found(NamedTuple):
    """What a system did on some questions: where it was right, and the calls it took, both [N]."""

    right: BoolArray
    calls: Any


def compared(fit: PredictionTable, test: PredictionTable, *, part: str, seed: int, ppo: bool) -> dict[str, Found]:
    """Return what every system did on the questions of `test`; the name ends with the calls that it was to spend."""
    labels_N, num_agents = test.require_labels(), fit.num_agents
    rows_N = np.arange(len(test))

    def fused(fuser: Any, chosen: Selection, asked_NM: BoolArray) -> Found:
        return Found(fuser.fuse(test.blind(), chosen).answers == labels_N, asked_NM.sum(axis=1))

    def selected(selector: Any) -> Found:
        """Fit on whom the selector asks, and let both decide."""
        selector.fit(fit)
        fuser = ToplaWeighted().fit(fit, ask(selector, fit)[0])
        return fused(fuser, *ask(selector, test))

    whole = ToplaWeighted().fit(fit, of(fit, range(num_agents)))
    everybody = of(test, range(num_agents))
    found = {EVERYBODY: fused(whole, everybody, everybody.mask)}
    found["marl_aggregator, all agents"] = fused(
        MarlAggregator().fit(fit, of(fit, range(num_agents))), everybody, everybody.mask
    )
    found["marl_aggregator(objective=reward), all agents"] = fused(
        MarlAggregator(objective="reward").fit(fit, of(fit, range(num_agents))), everybody, everybody.mask
    )
    greedy = greedy_order(fit)
    network = MarlFocal(learner="ppo", updates=UPDATES, calls=2.0, seed=seed).fit(fit) if ppo else None
    for share in SHARES[part]:
        calls = share * num_agents
        size = max(round(calls), 1)
        static = best_static(fit, size, greedy)
        found[f"best static @{size}"] = fused(
            ToplaWeighted().fit(fit, of(fit, static)), of(test, static), of(test, static).mask
        )
        found[f"random @{size}"] = selected(RandomSubset(size=size, seed=seed))
        if calls < 1.5:
            continue
        # A little less than what the rivals spend, so that what is spent on new questions is not more.
        policy = MarlFocal(calls=0.97 * calls, seed=seed).fit(fit)
        chosen, asked_NM = ask(policy, test)
        found[f"{MARL} @{calls:g}"] = fused(ToplaWeighted().fit(fit, ask(policy, fit)[0]), chosen, asked_NM)
        settled = MarlAggregator(seed=seed).fit(fit, ask(policy, fit)[0])
        found[f"{MARL}+marl_aggregator @{calls:g}"] = fused(settled, chosen, asked_NM)
        found[f"cascade @{calls:g}"] = selected(Cascade(calls=0.97 * calls))
        if network is not None:
            network.price_ = _price(network, fit, 0.97 * calls)
            found[f"{MARL}(learner=ppo) @{calls:g}"] = fused(whole, *ask(network, test))
    found["knora"] = selected(Knora())
    one_N = np.ones(len(rows_N), dtype=np.intp)
    for name, selector in (("single best", SingleBest()), ("single best per category", SingleBestPerCategory())):
        chosen, _ = ask(selector.fit(fit), test)
        found[name] = Found(test.correct[rows_N, chosen.mask.argmax(axis=1)], one_N)
    found["bandit, one agent"] = Found(bandit(fit, test, seed=seed), one_N)
    return found


def _price(network: MarlFocal, fit: PredictionTable, calls: float) -> float:
    """Return the price at which a trained network, which has all prices in it, spends so many calls on some of fit."""
    # Evenly over the table, which goes category by category.
    some = fit.rows(np.linspace(0, len(fit) - 1, min(len(fit), 1_500)).astype(np.intp))
    low, high = np.log(1e-4), np.log(0.2)
    for _ in range(10):
        network.price_ = float(np.exp((low + high) / 2))
        spent = ask(network, some)[1].sum(axis=1).mean()
        low, high = ((low + high) / 2, high) if spent > calls else (low, (low + high) / 2)
    return float(np.exp(high))


def study(
    table: PredictionTable,
    parts: Iterator[tuple[PredictionTable, PredictionTable]],
    *,
    part: str,
    ppo: bool,
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Return by system its calls, its accuracy over all questions and how far it is ahead of others, with intervals.

    A question that was tested several times counts once, with its mean.
    """
    place = {name: n for n, name in enumerate(table.question_ids.tolist())}
    right: dict[str, Any] = {}
    calls: dict[str, Any] = {}
    times = np.zeros(len(table))
    for seed, (fit, test) in enumerate(parts):
        told(f"{part}, split {seed}")
        rows_n = np.array([place[name] for name in test.question_ids.tolist()])
        times[rows_n] += 1
        for name, found in compared(fit, test, part=part, seed=seed, ppo=ppo).items():
            right.setdefault(name, np.zeros(len(table)))[rows_n] += found.right
            calls.setdefault(name, np.zeros(len(table)))[rows_n] += found.calls
    seen = times > 0
    shares = {name: sums[seen] / times[seen] for name, sums in right.items()}
    spent = {name: float((sums[seen] / times[seen]).mean()) for name, sums in calls.items()}
    pairs = [(name, EVERYBODY) for name in shares if name != EVERYBODY]
    for name in shares:
        if name.startswith(MARL):
            size = name.rpartition("@")[2]
            pairs += [
                (name, other)
                for other in (f"best static @{size}", f"cascade @{size}", f"{MARL} @{size}", f"random @{size}")
                if other in shares and other != name
            ]
    return {
        "agents": table.num_agents,
        "questions": int(seen.sum()),
        "systems": {name: {"accuracy": float(shares[name].mean()), "calls": spent[name]} for name in shares},
        "tasks": {name: _by_task(table, seen, share) for name, share in shares.items()} if part == "BBH" else None,
        "pairs": [{"a": a, "b": b, "difference": difference(shares[a], shares[b])} for a, b in pairs],
    }


def _by_task(table: PredictionTable, seen: Any, share: Any) -> float:
    """Return the mean over tasks."""
    tasks = table.require_categories()[seen]
    return float(np.mean([share[tasks == task].mean() for task in np.unique(tasks)]))


def _splits(table: PredictionTable, seeds: int) -> Iterator[tuple[PredictionTable, PredictionTable]]:
    for seed in range(seeds):
        parts = split(table, fit_fraction=0.7, seed=seed, stratify="category")
        yield parts.fit, parts.test


def _folds(table: PredictionTable, repetitions: int) -> Iterator[tuple[PredictionTable, PredictionTable]]:
    for repetition in range(repetitions):
        fold_N = folds(table, bbh.FOLDS, seed=repetition)
        for fold in range(bbh.FOLDS):
            yield table.rows(fold_N != fold), table.rows(fold_N == fold)


def tables(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table for every part."""
    for part, found in results["parts"].items():
        yield f"### {part}: {found['agents']} agents, {found['questions']:,} questions"
        yield ""
        by_task = found["tasks"]
        yield f"| system | calls | accuracy |{' mean over tasks |' if by_task else ''} less all agents |"
        yield f"|---|---|---|{'---|' if by_task else ''}---|"
        less = {pair["a"]: pair["difference"] for pair in found["pairs"] if pair["b"] == EVERYBODY}
        for name, row in found["systems"].items():
            mean = f" {100 * by_task[name]:.1f} |" if by_task else ""
            yield f"| {name} | {row['calls']:.2f} | {100 * row['accuracy']:.1f} |{mean} {_points(less.get(name))} |"
        yield ""
        yield "| a | b | a less b |"
        yield "|---|---|---|"
        for pair in found["pairs"]:
            if pair["b"] != EVERYBODY:
                yield f"| {pair['a']} | {pair['b']} | {_points(pair['difference'])} |"
        yield ""


def shown(results: dict[str, Any]) -> str:
    """Return the tables as one text."""
    return "\n".join(tables(results))


def _points(found: list[float] | None) -> str:
    return "" if found is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in found[:3]))


def main() -> None:
    """Measure, or print tables."""
    options = command.parser(__doc__, quick="one split, few questions; its figures mean nothing")
    options.add_argument("--only", action="append", choices=PARTS)
    options.add_argument("--without-ppo", action="store_true", help="PPO takes half of the time")
    given, path = command.begun(options, shown)
    started = time.perf_counter()

    def told(what: str) -> None:
        print(f"{time.perf_counter() - started:5.0f} s  {what}", file=sys.stderr, flush=True)

    results: dict[str, Any] = {"format": "fusion.benchmark.marl.quality/1", "parts": {}}
    with threadpool_limits(1):
        for part in given.only or PARTS:
            if part == "BBH":
                table = bbh.read(path.parents[1] / "bbh" / "scores_train_mended.npz").table
                table = table.rows(slice(None, None, 4)) if given.quick else table
                parts = _folds(table, 1 if given.quick else 2)
            else:
                table = pools(read_table(path))[part]
                table = small(table) if given.quick else table
                parts = _splits(table, 1 if given.quick else 5)
            results["parts"][part] = study(table, parts, part=part, ppo=not given.without_ppo, told=told)
    results |= {"quick": given.quick, "versions": versions(), "hardware": hardware()}
    results["seconds"] = time.perf_counter() - started
    command.ended(results, given, shown)


if __name__ == "__main__":
    main()
