"""How well logs tell what a policy would be worth: off-policy estimates against the truth, on recorded answers.

    python benchmarks/marl/off_policy.py [--quick] [--json FILE] [--logs 200] [--questions 2000]
    python benchmarks/marl/off_policy.py --tables FILE

Policies are fitted on half of the questions of MMLU-Pro. From the other half questions are drawn, with replacement, and
a log of them in which every agent was asked with a known probability; what the estimators make of it is held against
what the policy is really worth on them. The recorded answers are looked for in FUSION_DATA, else in ../shared/data.
--tables prints the tables from a file that --json wrote. --quick draws few logs; its figures mean little.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.marl import command
from benchmarks.pruning.run import hardware
from benchmarks.topla.run import NEAR_PAPER, Line
from fusion.data import PredictionTable, folds, read_table, split
from fusion.ensemble import Ensemble, ask
from fusion.evaluation import OffPolicyValue, estimate_value, explored, versions
from fusion.evaluation._logged import follow
from fusion.evaluation._off_policy import valued
from fusion.evaluation._value_models import Estimator, learn
from fusion.protocols import Selector
from fusion.schema import FloatArray, IntArray, Sees, Selection

POLICIES = ("marl_focal(price=0.005)", "marl_focal(price=0.02)", "top_k(k=3)", "all_agents")
FUSER = "weighted_vote"
PRICE = 0.005
"""Of the reward, for all policies."""
SHARES = (0.3, 0.5, 0.8)
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
FIGURES = ("accuracy", "calls", "reward")
LOGS, QUICK_LOGS, CHECKED_LOGS = 200, 10, 2
QUESTIONS = 2000
FOLDS = 5
DOUBTED = 0.1
"""Share of logs with a note that doubts the value up to which intervals are held to what they promise."""
COVERAGE = 0.90, 0.98
_APART = 1_000_000


@dataclass
class Remembered:
    """A selector whose choices on a table's questions were written down: what it would ask is looked up.

    Drawn questions are called like theirs, with a number behind a #.

    Args:
        rounds: int [N, M], in which round each agent is asked; the number of agents where never.
        places: Row of each question.
        inner: The selector.
    """

    sees: ClassVar[Sees] = "answers"

    rounds: IntArray
    places: dict[str, int]
    inner: Selector

    @classmethod
    def of(cls, selector: Selector, table: PredictionTable) -> Self:
        """Write down what a fitted selector asks on complete records."""
        rounds_NM = np.full((len(table), table.num_agents), table.num_agents)
        if selector.sees != "answers":
            rounds_NM[ask(selector, table)[1]] = 0
        else:
            asked_NM = np.zeros((len(table), table.num_agents), dtype=bool)
            for number in range(table.num_agents):
                more_NM = selector.select(table.blind().revealed(asked_NM)).mask & ~asked_NM
                rounds_NM[more_NM] = number
                asked_NM |= more_NM
        return cls(rounds_NM, {name: n for n, name in enumerate(table.question_ids.tolist())}, selector)

    def fit(self, table: PredictionTable) -> Self:
        """Do nothing: it was fitted before it was written down."""
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return who was asked, and those of the next round."""
        rows_B = [self.places[name.split("#")[0]] for name in table.question_ids.tolist()]
        rounds_BM = self.rounds[rows_B]
        asked_BM = np.ones(rounds_BM.shape, dtype=bool) if table.asked is None else table.asked
        last_B1 = np.where(asked_BM, rounds_BM, -1).max(axis=1, keepdims=True)
        return Selection(rounds_BM <= np.minimum(last_B1 + 1, table.num_agents - 1))


def drawn(table: PredictionTable, count: int, *, seed: int) -> tuple[PredictionTable, IntArray]:
    """Return `count` questions drawn with replacement, and their rows."""
    rows_B = np.random.default_rng(seed).integers(len(table), size=count)
    assert table.labels is not None, "recorded answers are labelled"
    assert table.categories is not None, "recorded answers have categories"
    found = PredictionTable(
        question_ids=[f"{table.question_ids[row]}#{draw}" for draw, row in enumerate(rows_B)],
        agents=table.agents,
        answers=table.answers[rows_B],
        labels=table.labels[rows_B],
        num_options=table.num_options[rows_B],
        categories=table.categories[rows_B],
    )
    return found, rows_B


def values_of(system: Ensemble, log: PredictionTable, given_NM: FloatArray) -> dict[str, OffPolicyValue] | None:
    """Return what each estimator says; None where no path is wholly on record."""
    paths = follow(system.selector, system.fuser, log, given_NM)
    if not paths.reached.any():
        return None
    models = learn(paths, folds(log, FOLDS))
    return {
        name: valued(paths, None if name == "weighted" else models, estimator=name, price=PRICE) for name in ESTIMATORS
    }


def check(fitted: Ensemble, remembered: Ensemble, table: PredictionTable) -> None:
    """Stop where what is written down, or taking the parts of `estimate_value`, changes an estimate."""
    for seed in range(CHECKED_LOGS):
        log, given_NM = explored(table, share=SHARES[-1], seed=seed)
        own = values_of(remembered, log, given_NM)
        for name in ESTIMATORS:
            plain = estimate_value(fitted, log, given_NM, price=PRICE, estimator=name)
            if own is None or not np.allclose(own[name].reward, plain.reward):
                sys.exit(f"{fitted.system}: {name} is {plain.reward} for the policy, another as written down")


def one_policy(spec: str, fit: PredictionTable, rest: PredictionTable, chosen: argparse.Namespace, line: Line) -> Any:
    """Return by share what the estimators said on every log, and the truth."""
    line(f"{spec}: fitting")
    fitted = Ensemble(rest.agents, spec, FUSER).fit(fit)
    system = Ensemble(rest.agents, Remembered.of(fitted.selector, rest), fitted.fuser)
    check(fitted, system, rest)
    replay = fitted.replay(rest)
    right_N, calls_N = replay.decision.answers == rest.require_labels(), replay.asked.sum(axis=1)
    outcomes_N3 = np.column_stack([right_N, calls_N, right_N - PRICE * calls_N])
    found: dict[str, Any] = {"truth": outcomes_N3.mean(axis=0).tolist(), "shares": {}}
    for share in SHARES:
        logs: list[Any] = []
        for number in range(chosen.logs):
            line(f"{spec}: share {share}, log {number + 1} of {chosen.logs}")
            seed = chosen.seed * _APART + number
            table, rows_B = drawn(rest, chosen.questions, seed=seed)
            values = values_of(system, *explored(table, share=share, seed=seed))
            if values is not None:
                logs.append((outcomes_N3[rows_B].mean(axis=0), values))
        found["shares"][str(share)] = summary(logs, found["truth"]) | {"refused": chosen.logs - len(logs)}
    return found


def summary(logs: list[tuple[FloatArray, dict[str, OffPolicyValue]]], truth: list[float]) -> dict[str, Any]:
    """Return bias, RMSE and coverage of every estimator over the logs of one share."""
    if not logs:
        return {"logs": 0}
    some = [values[ESTIMATORS[0]] for _, values in logs]
    found: dict[str, Any] = {
        "logs": len(logs),
        "reached": float(np.mean([value.reached for value in some])),
        "effective": float(np.median([value.effective_sample_size for value in some])),
        "doubted": float(np.mean([bool(value.notes) for value in some])),
        "estimators": {},
    }
    for name in ESTIMATORS:
        figures = {}
        for place, figure in enumerate(FIGURES):
            ends_L3 = np.array([getattr(values[name], figure) for _, values in logs])
            own_L = np.array([means[place] for means, _ in logs])
            error_L = ends_L3[:, 0] - own_L
            figures[figure] = {
                "bias": float(error_L.mean()),
                "bias_error": float(error_L.std() / np.sqrt(len(logs))),
                "rmse": float(np.sqrt((error_L**2).mean())),
                "covers": _covered(ends_L3, np.full(len(logs), truth[place])),
                "covers_own": _covered(ends_L3, own_L),
                "width": float((ends_L3[:, 2] - ends_L3[:, 1]).mean()),
            }
        found["estimators"][name] = figures
    return found


def _covered(ends_L3: FloatArray, truth_L: FloatArray) -> float:
    # A static policy's calls are known but for rounding.
    return float(((ends_L3[:, 1] <= truth_L + 1e-9) & (truth_L <= ends_L3[:, 2] + 1e-9)).mean())


def measured(table: PredictionTable, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    line, pools = Line(), {}
    for pool, agents in {"near paper": NEAR_PAPER, "all 24": table.agents}.items():
        line.prefix = f"{pool}, "
        parts = split(table.columns(agents), fit_fraction=0.5, seed=chosen.seed)
        pools[pool] = {
            "n_fit": len(parts.fit),
            "n_rest": len(parts.test),
            "policies": {spec: one_policy(spec, parts.fit, parts.test, chosen, line) for spec in POLICIES},
        }
    sys.stderr.write("\n")
    return {
        "format": "fusion.off_policy_benchmark/1",
        "seconds": round(time.perf_counter() - line.start, 1),
        "table": table.fingerprint,
        "logs": chosen.logs,
        "questions": chosen.questions,
        "seed": chosen.seed,
        "price": PRICE,
        "pools": pools,
    }


def _cells(result: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for pool, own in result["pools"].items():
        for spec, figures in own["policies"].items():
            for share, cell in figures["shares"].items():
                yield pool, spec, share, cell


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    names = [name.replace("_", " ") for name in ESTIMATORS]
    lines = []
    for figure, unit, digits in (("reward", 100, 2), ("calls", 1, 3)):
        measure = "Reward, in points" if figure == "reward" else "Calls a question"
        lines += [
            f"{measure}: bias / RMSE / coverage of the 95 % interval (%)",
            "",
            f"| pool | policy | share | reached | effective | doubted | {' | '.join(names)} |",
            f"|---|---|---|---|---|---|{'---|' * len(names)}",
        ]
        for pool, spec, share, cell in _cells(result):
            head = f"| {pool} | `{spec}` | {share} |"
            if not cell["logs"]:
                lines.append(f"{head} 0 % | 0 | |{' refused |' * len(names)}")
                continue
            texts = []
            for name in ESTIMATORS:
                one = cell["estimators"][name][figure]
                texts.append(
                    f"{unit * one['bias']:+.{digits}f} / {unit * one['rmse']:.{digits}f} / {100 * one['covers']:.0f}"
                )
            refused = f" ({cell['refused']} refused)" if cell["refused"] else ""
            lines.append(
                f"{head} {100 * cell['reached']:.2g} %{refused} | {cell['effective']:.0f} | "
                f"{100 * cell['doubted']:.0f} % | {' | '.join(texts)} |"
            )
        lines.append("")
    return "\n".join([*lines, *verdicts(result)])


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return whether the doubly robust estimate meets its goals, where notes doubt few logs and elsewhere."""
    low, high = COVERAGE
    lines = []
    for figure in ("reward", "calls"):
        for doubted in (False, True):
            found = [cell for *_, cell in _cells(result) if cell["logs"] and (cell["doubted"] > DOUBTED) == doubted]
            # The calls of static policies are known.
            cells = [cell["estimators"] for cell in found if cell["estimators"]["weighted"][figure]["rmse"] > 1e-9]
            if not cells:
                continue
            covers = [cell["doubly_robust"][figure]["covers"] for cell in cells]
            ratios = [cell["doubly_robust"][figure]["rmse"] / cell["weighted"][figure]["rmse"] for cell in cells]
            held = sum(low <= share <= high for share in covers)
            lines.append(
                f"* {figure}, {'over' if doubted else 'up to'} {100 * DOUBTED:.0f} % of the logs doubted, "
                f"{len(cells)} settings: doubly robust covers {100 * min(covers):.1f} to {100 * max(covers):.1f} % "
                f"({held} of {len(cells)} within {100 * low:.0f} to {100 * high:.0f} %), mean "
                f"{100 * np.mean(covers):.1f} %; its RMSE is {min(ratios):.2f} to {max(ratios):.2f} of that of "
                f"weighting, median {np.median(ratios):.2f}."
            )
    return lines


def main() -> None:
    options = command.parser(__doc__, quick=f"{QUICK_LOGS} logs")
    options.add_argument("--logs", type=int, default=LOGS, help="drawn for each policy and share")
    options.add_argument("--questions", type=int, default=QUESTIONS, help="of each log")
    options.add_argument("--seed", type=int, default=0, help="of the split and of what is drawn")
    chosen, path = command.begun(options, markdown)
    chosen.logs = QUICK_LOGS if chosen.quick else chosen.logs
    head = {"versions": versions(), "hardware": hardware() | {"load": round(os.getloadavg()[0], 1)}}
    with threadpool_limits(1):
        result = head | measured(read_table(path), chosen)
    command.ended(result, chosen, markdown)


if __name__ == "__main__":
    main()
