"""Questions a second at which MARL-Focal's decider is trained: many streams in matrices against one question at a time.

    python benchmarks/marl/speed.py [--quick] [--json FILE]
    python benchmarks/marl/speed.py --tables FILE

Both sides learn the same game with the same network, clipped ratio, value baseline and number of passes, in one process
on one thread, and take turns. The loop is what the published code is: a question, a step of `DeciderEnv`, a call of the
network; an update every 100 questions. It runs here without that code's detours: windows are counted up, not over, and
its gradient is the fast one in closed form. --tables prints the table of a file that --json wrote.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.fusers import bbh
from benchmarks.marl import command
from benchmarks.pruning.run import hardware
from benchmarks.topla.run import NEAR_PAPER
from fusion.data import PredictionTable, read_table
from fusion.evaluation import versions
from fusion.policies import DeciderEnv, DeciderOptions, DiversityWeights, Recorded, train_decider
from fusion.policies._paper import training_game
from fusion.policies._paper_net import Net, Played, adam, chances_of, improve, play, seeded
from fusion.policies._streams import ordered

HIDDEN = 128
EVERY = 100
"""Questions between two updates of the loop, as in the published code."""
GOAL, AIM = 50, 200


class Case(NamedTuple):
    """A table, and what a pool's score is made of there."""

    name: str
    table: PredictionTable
    options: DeciderOptions


class Loop:
    """One stream, question by question."""

    def __init__(self, case: Case) -> None:
        options = case.options
        self.options, self.draws = options, seeded(options.seed)
        self.env = DeciderEnv(
            case.table,
            alpha=options.alpha,
            weights=options.weights,
            window=options.window,
            accuracies=case.table.accuracies,
            seed=options.seed,
        )
        num_agents = case.table.num_agents
        self.net = Net((num_agents + 2, HIDDEN, num_agents), self.draws)
        self.optimizer = adam(self.net, options.learning_rate)
        self.seen = torch.from_numpy(self.env.reset()[0])

    def run(self, num_updates: int, *, learns: bool) -> int:
        """Play until so many updates are done, or could have been; return how many questions that took."""
        for _ in range(num_updates):
            played = self.play()
            if learns:
                improve(
                    self.net,
                    self.optimizer,
                    played,
                    groups=1,
                    gamma=self.options.gamma,
                    passes=self.options.passes,
                    entropy=self.options.entropy,
                    draws=self.draws,
                    batches=1,
                )
        return num_updates * EVERY

    def play(self) -> Played:
        """Play the questions between two updates."""
        seen, chosen, logprobs, values, earned = [], [], [], [], []
        with torch.inference_mode():
            for _ in range(EVERY):
                scores, value = self.net(self.seen[None])
                pool = (torch.rand(scores.shape, generator=self.draws) < scores.sigmoid()).float()
                seen.append(self.seen)
                chosen.append(pool[0])
                logprobs.append(chances_of(scores, pool))
                values.append(value)
                found, reward, over, _, _ = self.env.step(pool[0].numpy())
                earned.append(reward)
                self.seen = torch.from_numpy(self.env.reset()[0] if over else found)
            values.append(self.net(self.seen[None])[1])
            return Played(
                torch.stack(seen)[:, None],
                torch.stack(chosen)[:, None],
                torch.stack(logprobs),
                torch.stack(values),
                torch.tensor(earned)[:, None],
            )


class Batched:
    """Many streams, as `train_decider` plays and learns them."""

    def __init__(self, case: Case) -> None:
        self.case, options = case, case.options
        rng, self.draws = np.random.default_rng(options.seed), seeded(options.seed)
        recorded = Recorded.of(case.table, accuracies=case.table.accuracies)
        orders = [ordered(len(case.table), options.order, rng) for _ in range(options.groups)]
        self.streams = training_game(recorded, np.stack(orders), options)
        num_agents = case.table.num_agents
        self.net = Net((num_agents + 2, HIDDEN, num_agents), self.draws)

    def play(self, num_updates: int) -> int:
        """Play what so many updates would learn from; return how many questions that is."""
        for _ in range(num_updates):
            play(self.net, self.streams, self.case.options.horizon, self.draws)
        return num_updates * self.case.options.streams * self.case.options.horizon

    def train(self, num_updates: int) -> int:
        """Train anew, setting up and looking at validation questions included; return how many questions it learned."""
        options = self.case.options
        chosen = DeciderOptions(
            alpha=options.alpha, weights=options.weights, updates=num_updates, patience=num_updates, seed=options.seed
        )
        train_decider(self.case.table, options=chosen)
        return num_updates * chosen.streams * chosen.horizon


def rate(work: Callable[[], int]) -> tuple[float, float]:
    """Return how many questions some work does in a second by the clock, and in a second of the processor."""
    start, spent = time.perf_counter(), time.process_time()
    num_questions = work()
    return num_questions / (time.perf_counter() - start), num_questions / (time.process_time() - spent)


def measured(case: Case, *, quick: bool) -> dict[str, Any]:
    """Return questions a second of all ways, which take turns."""
    repeats, loop_updates, updates = (1, 3, 2) if quick else (9, 20, 20)
    loop, batched = Loop(case), Batched(case)
    # The loop's window is full from here on, as are those of the streams.
    loop.run(-(-case.options.window // EVERY), learns=True)
    batched.play(1)
    sides: dict[str, Callable[[], int]] = {
        "loop, rollouts": lambda: loop.run(loop_updates, learns=False),
        "loop, learning": lambda: loop.run(loop_updates, learns=True),
        "batched, rollouts": lambda: batched.play(updates),
        "batched, learning": lambda: batched.train(updates),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            rates[name].append(rate(work))
    found: dict[str, Any] = {"questions": len(case.table), "agents": case.table.num_agents}
    for place, timer in enumerate(("clock", "processor")):
        own = {name: [pair[place] for pair in pairs] for name, pairs in rates.items()}
        medians = {name: statistics.median(values) for name, values in own.items()}
        found[timer] = {
            "rates": {name: [round(value) for value in values] for name, values in own.items()},
            "medians": {name: round(value) for name, value in medians.items()},
            "ratios": {kind: ratios(own, kind) for kind in ("rollouts", "learning")},
        }
    return found


def ratios(rates: dict[str, list[float]], kind: str) -> dict[str, float]:
    """Return the ratio of the medians, and the least and greatest of single turns."""
    loop, batched = rates[f"loop, {kind}"], rates[f"batched, {kind}"]
    each = [fast / slow for fast, slow in zip(batched, loop, strict=True)]
    middle = statistics.median(batched) / statistics.median(loop)
    return {"median": round(middle, 1), "least": round(min(each), 1), "greatest": round(max(each), 1)}


def cases(data: Path) -> list[Case]:
    """Return what is measured."""
    recorded = read_table(data / "mmlu_pro" / "predictions.csv.gz")
    mmlu = DeciderOptions()
    hard = DeciderOptions(alpha=0.6, weights=DiversityWeights(focal=0.5, fleiss_kappa=0.0, plurality=0.5))
    scores = bbh.read(data / "bbh" / "scores_train_mended.npz")
    return [
        Case("MMLU-Pro, all", recorded, mmlu),
        Case("MMLU-Pro, near the paper's", recorded.columns(NEAR_PAPER), mmlu),
        Case("BIG-Bench Hard", scores.table, hard),
    ]


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a run."""
    head = [
        "table",
        "agents",
        "",
        "loop, questions/s",
        "batched, questions/s",
        "ratio",
        "single turns",
        "ratio, processor",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * 3 + "---:|" * 5]
    for name, found in result["cases"].items():
        for kind in ("rollouts", "learning"):
            clock, processor = found["clock"], found["processor"]["ratios"][kind]
            loop, batched = (clock["medians"][f"{side}, {kind}"] for side in ("loop", "batched"))
            ratio = clock["ratios"][kind]
            what = "rollouts alone" if kind == "rollouts" else "with learning"
            turns = f"{ratio['least']:.0f} to {ratio['greatest']:.0f}"
            cells = [name, str(found["agents"]), what, f"{loop:,}", f"{batched:,}", f"{ratio['median']:.0f}", turns]
            lines.append(f"| {' | '.join(cells)} | {processor['median']:.0f} |")
    worst = {
        timer: min(found[timer]["ratios"]["learning"]["median"] for found in result["cases"].values())
        for timer in ("clock", "processor")
    }
    machine, made = result["hardware"], result["versions"]
    lines += [
        "",
        f"Least ratio with learning: {worst['clock']:.0f} by the clock, {worst['processor']:.0f} by the time of the "
        f"processor (goal {GOAL}, aim {AIM}). One thread of {machine['processor']}, {machine['cores']} cores, loads "
        f"{machine['loads']}; numpy {made['numpy']}, torch {made['torch']}, gymnasium {made['gymnasium']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    options = command.parser(__doc__, quick="one repeat and few updates, to see that everything runs")
    chosen, path = command.begun(options, markdown)
    torch.set_num_threads(1)
    loads = [os.getloadavg()[0]]
    result: dict[str, Any] = {
        "format": "fusion.marl_speed/1",
        "versions": versions() | {name: version(name) for name in ("gymnasium", "torch")},
        "hardware": hardware(),
        "quick": chosen.quick,
        "cases": {},
    }
    with threadpool_limits(1):
        for case in cases(path.parents[1]):
            result["cases"][case.name] = measured(case, quick=chosen.quick)
            loads.append(os.getloadavg()[0])
    result["hardware"]["loads"] = [round(load, 1) for load in loads]
    command.ended(result, chosen, markdown)


if __name__ == "__main__":
    main()
