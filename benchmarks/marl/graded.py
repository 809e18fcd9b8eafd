"""Whom to ask for texts that are better or worse rather than right: scores against calls, beside what is simpler.

    python benchmarks/marl/graded.py [--quick] [--only PART] [--json FILE]
    python benchmarks/marl/graded.py --tables FILE

Four parts, five splits of 70 % to fit on each; every figure is of questions that nothing was fitted or chosen on.

* reports: generated texts of six facts. How many of them a member knows depends on the kind of the question; what it
  does not know it invents or leaves out, half of the members say nothing rather than next to nothing, and all write in
  their own words, so that no two texts are the same. Scored by ROUGE-L.
* inventory: the questions of the task `inventory`, answered as benchmarks/fusers/summary teaches its members to answer.
  Members that are right in the same parts write the same text. Scored by ROUGE-L.
* GSM8K texts, GSM8K numbers: recorded solutions of six systems (FUSION_DATA, else ../shared/data), scored by the share
  of the reference solution's results that they name. Every text is an answer of its own, or those with the same final
  number are one answer.

Where several members gave the answer that a system takes, it hands over the text of the one with the best mean score on
the questions of fit. What was fitted on scores was fitted a second time on those of imperfect judges.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.fusers.systems import difference
from benchmarks.marl import command
from benchmarks.marl.graded_worlds import PARTS, made
from benchmarks.marl.rivals import of
from benchmarks.pruning.run import hardware
from fusion.data import PredictionTable, best_rated, category_names, category_places, split
from fusion.ensemble import ask
from fusion.evaluation import versions
from fusion.fusers.marl_aggregator import MarlAggregator
from fusion.fusers.topla_weighted import ToplaWeighted
from fusion.fusers.vote import Vote
from fusion.schema import BoolArray, FloatArray, IntArray
from fusion.selectors.cascade import Cascade
from fusion.selectors.marl_focal import MarlFocal
from fusion.selectors.random_subset import RandomSubset

QUESTIONS, QUICK_QUESTIONS = 3000, 240
CALLS = (1, 1.5, 2, 3)
EVERYBODY, ROUTER, MARL = "all agents", "best member per category", "marl_focal"
BY_MEAN, SPEAKING = "best on average", "first of the category that says something"
JUDGED_CALLS = 2
LENGTH = "likes length"
JUDGES = {"noise 0.1": 0.1, "noise 0.2": 0.2, "noise 0.4": 0.4, LENGTH: 0.1}
"""Standard deviations of what is added to scores: noise for each text, or what longer texts have ahead."""


class Found(NamedTuple):
    """What a system did on N questions: the scores of its texts, and the calls it took, both [N]."""

    score: FloatArray
    calls: Any


def worth(table: PredictionTable, answers_N: IntArray, asked_NM: BoolArray, mean_M: FloatArray) -> FloatArray:
    """Return the score of the text handed over, [N]: by who of those asked gave the answer and is best on average."""
    assert table.scores is not None, "a graded table"
    gave_NM = asked_NM & (table.answers == answers_N[:, None]) & (table.answers >= 0)
    author_N = np.where(gave_NM, mean_M, -1).argmax(axis=1)
    scores_N = table.scores[np.arange(len(table)), author_N].astype(np.float64)
    return np.where(gave_NM.any(axis=1), scores_N, 0.0)


class Averages(NamedTuple):
    """Mean scores on the questions of fit: of each member [M], and by category [C + 1, M], the last row of all."""

    overall: FloatArray
    within: FloatArray
    categories: tuple[str, ...]

    @classmethod
    def of(cls, fit: PredictionTable) -> Averages:
        """Return those of a table."""
        assert fit.scores is not None, "a graded table"
        categories = category_names(fit)
        place_N, overall_M = category_places(fit, categories), fit.scores.mean(axis=0, dtype=np.float64)
        rows = [fit.scores[place_N == c].mean(axis=0) for c in range(max(len(categories), 1))]
        return cls(overall_M, np.array([*rows, overall_M]), categories)

    def first(self, table: PredictionTable, asked_NM: BoolArray) -> IntArray:
        """Return who of those asked that said something is best on average in the question's category, [N]."""
        mean_NM = self.within[category_places(table, self.categories)]
        spoke_NM = asked_NM & (table.answers >= 0)
        return np.asarray(np.where(spoke_NM, mean_NM, -1).argmax(axis=1))


def simple(fit: PredictionTable, test: PredictionTable) -> dict[str, Found]:
    """Return what needs no policy: one member, the next one where it says nothing, the best text there is."""
    assert test.scores is not None, "a graded table"
    averages, rows_N = Averages.of(fit), np.arange(len(test))
    scores_NM = np.where(test.answers >= 0, test.scores, 0).astype(np.float64)
    place_N = category_places(test, averages.categories)
    order_NM = np.argsort(-averages.within[place_N], axis=1, kind="stable")
    silent_NM = np.take_along_axis(test.answers, order_NM, axis=1) < 0
    tries_N = np.where(silent_NM.all(axis=1), test.num_agents, silent_NM.argmin(axis=1) + 1)
    spoke_N = order_NM[rows_N, tries_N - 1]
    one_N = np.ones(len(test))
    return {
        "best member": Found(scores_NM[:, averages.overall.argmax()], one_N),
        ROUTER: Found(scores_NM[rows_N, order_NM[:, 0]], one_N),
        SPEAKING: Found(scores_NM[rows_N, spoke_N], tries_N),
        "oracle, best text": Found(scores_NM.max(axis=1), np.full(len(test), test.num_agents)),
    }


def policy(fit: PredictionTable, test: PredictionTable, calls: float, *, seed: int) -> dict[str, Found]:
    """Return what marl_focal(reward=score) reaches with each of three ways to take one of the texts that it got."""
    averages, rated = Averages.of(fit), best_rated(fit)[0]
    chooser = MarlFocal(reward="score", calls=max(0.97 * calls, 1), seed=seed).fit(fit)
    asked_on_fit = ask(chooser, fit)[0]
    chosen, asked_NM = ask(chooser, test)
    fusers: dict[str, Any] = {
        "marl_aggregator": MarlAggregator(target="score", seed=seed).fit(fit, asked_on_fit),
        "topla_weighted": ToplaWeighted().fit(rated, asked_on_fit),
    }
    taken = {name: fuser.fuse(test.blind(), chosen).answers for name, fuser in fusers.items()}
    taken[BY_MEAN] = test.answers[np.arange(len(test)), averages.first(test, asked_NM)]
    spent_N = asked_NM.sum(axis=1)
    return {
        f"{MARL}+{name} @{calls:g}": Found(worth(test, answers_N, asked_NM, averages.overall), spent_N)
        for name, answers_N in taken.items()
    }


def together(fit: PredictionTable, test: PredictionTable, *, seed: int) -> dict[str, Found]:
    """Return what everybody reaches, fused by the same fuser and by others."""
    rated, mean_M = best_rated(fit)[0], Averages.of(fit).overall
    whole, everybody = of(fit, range(fit.num_agents)), of(test, range(fit.num_agents))
    fusers: dict[str, Any] = {
        EVERYBODY: MarlAggregator(target="score", seed=seed).fit(fit, whole),
        f"{EVERYBODY}, objective=reward": MarlAggregator(target="score", objective="reward", seed=seed).fit(fit, whole),
        f"{EVERYBODY}, topla_weighted": ToplaWeighted().fit(rated, whole),
        f"{EVERYBODY}, vote": Vote().fit(rated, whole),
    }
    spent_N = np.full(len(test), fit.num_agents)
    return {
        name: Found(worth(test, fuser.fuse(test.blind(), everybody).answers, everybody.mask, mean_M), spent_N)
        for name, fuser in fusers.items()
    }


def compared(fit: PredictionTable, test: PredictionTable, *, seed: int) -> dict[str, Found]:
    """Return what every system did on the questions of `test`; a name ends with the calls that it was to spend."""
    rated, mean_M = best_rated(fit)[0], Averages.of(fit).overall
    found = together(fit, test, seed=seed) | simple(fit, test)
    for calls in CALLS:
        found |= policy(fit, test, calls, seed=seed)
        # What learns from right answers alone takes the best text for right.
        rivals: dict[str, Any] = {
            f"cascade @{calls:g}": Cascade(calls=max(0.97 * calls, 1)),
            f"{MARL}(reward=label) @{calls:g}": MarlFocal(calls=max(0.97 * calls, 1), seed=seed),
        }
        if calls == round(calls):
            rivals[f"random @{calls:g}"] = RandomSubset(size=round(calls), seed=seed)
        for name, selector in rivals.items():
            selector.fit(rated)
            fuser = MarlAggregator(target="score", seed=seed).fit(fit, ask(selector, fit)[0])
            chosen, asked_NM = ask(selector, test)
            answers_N = fuser.fuse(test.blind(), chosen).answers
            found[name] = Found(worth(test, answers_N, asked_NM, mean_M), asked_NM.sum(axis=1))
    return found


def judged(table: PredictionTable, judge: str, *, seed: int) -> PredictionTable:
    """Return the table with the scores of an imperfect judge, the same for the same text."""
    assert table.scores is not None, "a graded table"
    assert table.texts is not None, "a table of texts"
    said_NM = table.answers >= 0
    if judge == LENGTH:
        letters_NM = np.array([[len(text) for text in row] for row in table.texts.tolist()], dtype=np.float64)
        added_NM = JUDGES[judge] * (letters_NM - letters_NM[said_NM].mean()) / letters_NM[said_NM].std()
    else:
        # Of texts that are the same, the first one's noise is that of all.
        texts_NM = table.texts
        same_NMM = texts_NM[:, :, None] == texts_NM[:, None, :]
        drawn_NM = np.random.default_rng(seed).normal(0, JUDGES[judge], said_NM.shape)
        added_NM = np.take_along_axis(drawn_NM, same_NMM.argmax(axis=2), axis=1)
    return dataclasses.replace(table, scores=np.where(said_NM, np.clip(table.scores + added_NM, 0, 1), 0))


def agreement(table: PredictionTable, other: PredictionTable) -> float:
    """Return the share of pairs of texts to one question, worth more and less, that two judges order alike."""
    assert table.scores is not None, "a graded table"
    assert other.scores is not None, "a graded table"
    one_NMM, two_NMM = (scores_NM[:, :, None] - scores_NM[:, None, :] for scores_NM in (table.scores, other.scores))
    said_NM = table.answers >= 0
    pairs_NMM = (one_NMM > 0) & said_NM[:, :, None] & said_NM[:, None, :]
    return float((two_NMM[pairs_NMM] > 0).mean())


def learned(fit: PredictionTable, test: PredictionTable, *, seed: int) -> dict[str, Found]:
    """Return what the systems did that learn from scores."""
    policies = policy(fit, test, JUDGED_CALLS, seed=seed)
    kept = {name: found for name, found in policies.items() if "topla" not in name}
    return {ROUTER: simple(fit, test)[ROUTER], EVERYBODY: together(fit, test, seed=seed)[EVERYBODY]} | kept


class Tally:
    """Scores and calls of systems, question by question, over several splits."""

    def __init__(self, table: PredictionTable) -> None:
        self.place = {name: n for n, name in enumerate(table.question_ids.tolist())}
        self.times = np.zeros(len(table))
        self.sums: dict[str, Any] = {}

    def add(self, test: PredictionTable, found: dict[str, Found]) -> None:
        """Count what was found on some questions."""
        rows_n = np.array([self.place[name] for name in test.question_ids.tolist()])
        self.times[rows_n] += 1
        for name, result in found.items():
            sums_2N = self.sums.setdefault(name, np.zeros((2, len(self.times))))
            sums_2N[:, rows_n] += result.score, result.calls

    def means(self) -> dict[str, Found]:
        """Return the means; a question that was tested several times counts once."""
        seen_N = self.times > 0
        return {name: Found(*(sums_2N[:, seen_N] / self.times[seen_N])) for name, sums_2N in self.sums.items()}


def study(table: PredictionTable, *, seeds: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Return by system its calls and mean score, how far it is ahead of others, and what judges cost."""
    tallies = {judge: Tally(table) for judge in ("", *JUDGES)}
    alike: dict[str, float] = {}
    for seed in range(seeds):
        told(f"split {seed}")
        parts = split(table, fit_fraction=0.7, seed=seed, stratify="category")
        tallies[""].add(parts.test, compared(parts.fit, parts.test, seed=seed))
        for judge in JUDGES:
            fit = judged(parts.fit, judge, seed=seed)
            alike[judge] = agreement(parts.fit, fit)
            tallies[judge].add(parts.test, learned(fit, parts.test, seed=seed))
    means = tallies[""].means()
    policies = {calls: f"{MARL}+marl_aggregator @{calls:g}" for calls in CALLS}
    pairs = [(name, SPEAKING) for name in policies.values()]
    beside = [(policies[calls], f"{name} @{calls:g}") for calls in CALLS for name in _BESIDE]
    pairs += [(a, b) for a, b in beside if b in means]
    texts_NM, said_NM = table.texts, table.answers >= 0
    assert texts_NM is not None, "a table of texts"
    both_NMM = said_NM[:, :, None] & said_NM[:, None, :] & ~np.eye(table.num_agents, dtype=bool)
    return {
        "agents": table.num_agents,
        "questions": len(next(iter(means.values())).score),
        "silent": float(1 - said_NM.mean()),
        "same_text": float((texts_NM[:, :, None] == texts_NM[:, None, :])[both_NMM].mean()),
        "same_answer": float((table.answers[:, :, None] == table.answers[:, None, :])[both_NMM].mean()),
        "systems": {name: _row(found, means) for name, found in means.items()},
        "pairs": [{"a": a, "b": b, "difference": difference(means[a].score, means[b].score)} for a, b in pairs],
        "judges": {
            judge: {
                "agreement": alike[judge],
                "systems": {
                    name: _row(found, {"scorer": means[name]}) for name, found in tallies[judge].means().items()
                },
            }
            for judge in JUDGES
        },
    }


_BESIDE = (f"{MARL}+{BY_MEAN}", f"{MARL}+topla_weighted", f"{MARL}(reward=label)", "cascade", "random")
_LESS = (EVERYBODY, ROUTER, "scorer")


def _row(found: Found, others: dict[str, Found]) -> dict[str, Any]:
    less = {name: difference(found.score, others[name].score) for name in _LESS if name in others}
    return {"score": float(found.score.mean()), "calls": float(np.mean(found.calls)), "less": less}


def tables(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of Markdown tables for every part."""
    for part, found in results["parts"].items():
        yield f"### {part}: {found['agents']} members, {found['questions']:,} questions"
        yield ""
        silent, texts, same = (f"{100 * found[key]:.1f} %" for key in ("silent", "same_text", "same_answer"))
        yield f"Said nothing: {silent}; pairs of texts that are the same: {texts}, that are one answer: {same}."
        yield ""
        yield f"| system | calls | score | less {EVERYBODY} | less {ROUTER} |"
        yield "|---|---|---|---|---|"
        for name, row in found["systems"].items():
            less = " | ".join("" if name == other else _points(row["less"][other]) for other in (EVERYBODY, ROUTER))
            yield f"| {name} | {row['calls']:.2f} | {100 * row['score']:.1f} | {less} |"
        yield ""
        yield "| a | b | a less b |"
        yield "|---|---|---|"
        for pair in found["pairs"]:
            yield f"| {pair['a']} | {pair['b']} | {_points(pair['difference'])} |"
        yield ""
        yield "Learned from a judge, evaluated by the scorer; in brackets less what is learned from the scorer:"
        yield ""
        names = list(next(iter(found["judges"].values()))["systems"])
        yield "| judge | pairs ordered alike | " + " | ".join(names) + " |"
        yield "|---|---|" + "---|" * len(names)
        for judge, rows in found["judges"].items():
            cells = [f"{100 * row['score']:.1f}, {_points(row['less']['scorer'])}" for row in rows["systems"].values()]
            yield f"| {judge} | {100 * rows['agreement']:.0f} % | " + " | ".join(cells) + " |"
        yield ""


def shown(results: dict[str, Any]) -> str:
    """Return the tables as one text."""
    return "\n".join(tables(results))


def _points(found: list[float]) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in found[:3]))


def main() -> None:
    """Measure, or print tables."""
    options = command.parser(__doc__, quick="one split, few questions; its figures mean nothing")
    options.add_argument("--only", action="append", choices=PARTS)
    given, path = command.begun(options, shown)
    started = time.perf_counter()
    results: dict[str, Any] = {"format": "fusion.benchmark.marl.graded/1", "parts": {}}
    with threadpool_limits(1):
        for part in given.only or PARTS:

            def told(what: str, part: str = part) -> None:
                print(f"{time.perf_counter() - started:5.0f} s  {part}, {what}", file=sys.stderr, flush=True)

            size = QUICK_QUESTIONS if given.quick else QUESTIONS
            table = made(part, path.parents[1], size=size)
            results["parts"][part] = study(table, seeds=1 if given.quick else 5, told=told)
    results |= {"quick": given.quick, "versions": versions(), "hardware": hardware()}
    results["seconds"] = time.perf_counter() - started
    command.ended(results, given, shown)


if __name__ == "__main__":
    main()
