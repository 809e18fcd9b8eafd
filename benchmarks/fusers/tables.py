"""The tables of a run, as Markdown."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.fusers.bbh import LIBRARY, PER_TASK, PLAIN
from benchmarks.fusers.systems import BEST_SINGLE, LEARNED, POSITIONS, STACKER, VOTES
from benchmarks.topla.judge import over_splits
from benchmarks.topla.tables import _difference, _points, _table

Figures = dict[str, Any]


def markdown(result: Figures) -> str:
    """Return the tables of all parts that a run has."""
    parts: list[str] = []
    for name, pool in result.get("mmlu_pro", {}).items():
        parts += [f"### MMLU-Pro: {name}, {len(pool['agents'])} models", _splits(pool)]
    for name, sizes in result.get("few_labels", {}).items():
        parts += [f"### Few labels, MMLU-Pro: {name}", _few(sizes, result["overlap"])]
    if "bbh" in result:
        parts += ["### BIG-Bench Hard, scores of 5 models on 22 tasks", _bbh(result["bbh"]), _bbh_tasks(result["bbh"])]
    if "gsm8k" in result:
        parts += ["### GSM8K, 6 systems, cross-validated", _gsm8k(result["gsm8k"])]
    if "growth" in result:
        parts += ["### Growth: seconds by the clock (processor seconds)", _growth(result["growth"])]
    return "\n\n".join(parts)


def _splits(pool: Figures) -> str:
    ratio = pool["n_test"] / pool["n_fit"]

    def rows() -> Iterator[Sequence[str]]:
        for system, figures in pool["systems"].items():
            calibrated = [found for found in figures["calibration"] if found]
            yield [
                _code(system),
                f"{100 * _mean(figures['accuracy']):.2f}",
                "" if system == BEST_SINGLE else _difference(over_splits(figures["less_best"], ratio)),
                "" if system == LEARNED else _difference(over_splits(figures["learned_less"], ratio)),
                _calibration(calibrated),
                _seconds(figures["fit_s"]),
                _seconds(figures["fuse_s"]),
            ]

    head = ["system", "accuracy, %", "less best single", f"{LEARNED} less this", "ECE (excess)", "fit, s", "fuse, s"]
    told = f"{len(pool['best_single'])} splits, {pool['n_fit']:,} questions to fit on, {pool['n_test']:,} others."
    return f"{_table(head, rows())}\n\n{told}"


def _few(sizes: Figures, ratio: float) -> str:
    """One row a number of labels; differences are means over draws, then over splits."""

    def less(accuracies: Figures, a: str, b: str) -> str:
        per_split = [_mean(own) - _mean(other) for own, other in zip(accuracies[a], accuracies[b], strict=True)]
        found = over_splits([[value, value, value, 1.0] for value in per_split], ratio)
        # No test is made on a split: its draws differ.
        return _difference(found).split(",")[0]

    def rows() -> Iterator[Sequence[str]]:
        for size, accuracies in sizes.items():
            # The hardest rival: the vote that turns out best on the other questions.
            best_vote = max(VOTES, key=lambda vote: _mean([_mean(own) for own in accuracies[vote]]))
            for system in (LEARNED, STACKER, *VOTES):
                yield [
                    f"{int(size):,}",
                    _code(system),
                    f"{100 * _mean([_mean(own) for own in accuracies[system]]):.2f}",
                    less(accuracies, system, BEST_SINGLE),
                    "the best vote" if system == best_vote else less(accuracies, system, best_vote),
                ]

    return _table(["labels", "system", "accuracy, %", "less best single", "less best vote"], rows())


def _bbh(found: Figures) -> str:
    pairs = {(pair["a"], pair["b"]): pair for pair in found["pairs"]}

    def rows() -> Iterator[Sequence[str]]:
        for system in (*PLAIN, *LIBRARY):
            cells = [_two(pairs.get((rival, system))) for rival in (LEARNED, POSITIONS)]
            yield [_code(system), f"{100 * _mean(list(found['accuracy'][system].values())):.2f}", *cells]

    head = ["system", "mean over tasks, %", f"`{LEARNED}` less this", f"`{POSITIONS}` less this"]
    return f"{_table(head, rows())}\n\nIntervals: over questions; over tasks."


def _two(pair: Figures | None) -> str:
    if pair is None:
        return ""
    spans = "; ".join(f"{_points(pair[kind][0])} to {_points(pair[kind][1])}" for kind in ("questions", "tasks"))
    return f"{_points(pair['mean'])} ({spans})"


def _bbh_tasks(found: Figures) -> str:
    def rows() -> Iterator[Sequence[str]]:
        for task, used in found["positions_used"].items():
            shown = [f"{100 * found['accuracy'][system][task]:.1f}" for system in (PER_TASK, LEARNED, POSITIONS)]
            yield [task, str(found["tasks"][task]), *shown, f"{used} of {found['fits']}"]

    return _table(["task", "n", PER_TASK, _code(LEARNED), _code(POSITIONS), "positions used in fits"], rows())


def _gsm8k(found: Figures) -> str:
    def rows() -> Iterator[Sequence[str]]:
        for system, figures in found["systems"].items():
            yield [
                _code(system),
                f"{100 * figures['accuracy']:.2f}",
                "" if system == BEST_SINGLE else _interval(figures["less_best"]),
                "" if system == LEARNED else _interval(figures["learned_less"]),
                "" if figures["excess"] is None else _points(figures["excess"]),
            ]

    told = (
        f"{found['n']:,} questions, {found['folds']} folds, mean of {found['repetitions']} repetitions; "
        f"on {found['nobody_right']} nobody is right, and they stay."
    )
    head = ["system", "accuracy, %", "less best single", f"{LEARNED} less this", "confidence less accuracy"]
    return f"{_table(head, rows())}\n\n{told}"


def _growth(found: Figures) -> str:
    def rows() -> Iterator[Sequence[str]]:
        for system in (LEARNED, STACKER):
            for kind in ("questions", "agents"):
                for row in found[system][kind]:
                    sizes = [f"{row['fitted']:,}", f"{row['fused']:,}", str(row["agents"])]
                    yield [_code(system), *sizes, _pair(row["fit"]), _pair(row["fuse"])]

    lines = [_table(["system", "questions fitted", "fused", "agents", "fit", "fuse"], rows())]
    for system in (LEARNED, STACKER):
        by_questions = found[system]["questions"]
        first, last = by_questions[0], by_questions[-1]
        orders = {
            kind: math.log(last[kind][1] / max(first[kind][1], 1e-6)) / math.log(last["fitted"] / first["fitted"])
            for kind in ("fit", "fuse")
        }
        goals = found[system]["goals"]
        lines.append(
            f"`{system}`: {goals['agents']} agents, fit on {goals['fitted']:,} questions {_pair(goals['fit'])} s (goal "
            f"{found['fit_goal']:g}), {goals['fused']:,} questions fused {_pair(goals['fuse'])} s (goal "
            f"{found['fuse_goal']:g}). Processor time grows with questions to the power {orders['fit']:.2f} (fit) and "
            f"{orders['fuse']:.2f} (fuse)."
        )
    return "\n\n".join(lines)


def _interval(found: Sequence[float]) -> str:
    mean, low, high, p = found
    if mean == low == high == 0:
        return "same"
    return f"{_points(mean)} ({_points(low)} to {_points(high)}), p {f'= {p:.2g}' if p >= 1e-3 else '< 0.001'}"


def _calibration(found: Sequence[Figures]) -> str:
    if not found:
        return ""
    return f"{_mean([part['ece'] for part in found]):.3f} ({_mean([part['excess'] for part in found]):+.3f})"


def _seconds(took: Sequence[Sequence[float]]) -> str:
    return f"{_mean([wall for wall, _ in took]):.2f}"


def _pair(took: Sequence[float]) -> str:
    return f"{took[0]:.2f} ({took[1]:.2f})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _code(system: str) -> str:
    return system if " " in system else f"`{system}`"
