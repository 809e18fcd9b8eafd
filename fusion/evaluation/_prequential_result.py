"""What a prequential evaluation found: plain data that goes to JSON and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fusion.evaluation._result import JsonFile, Outcomes, PairedResult
from fusion.schema import RunRecord
from fusion.significance import wilson_interval


@dataclass(frozen=True, kw_only=True)
class StreamScore:
    """How often a system was right.

    Args:
        n: Questions with a known label; on none of them nothing is known.
        accuracy: Share of these answered right; abstaining is wrong. None for n = 0.
        ci95: 95 % interval of that (Wilson).
        calls_per_question: Mean number of answers asked for, over all questions.
    """

    n: int
    accuracy: float | None
    ci95: tuple[float, float] | None
    calls_per_question: float

    @classmethod
    def of(cls, right: int, n: int, *, calls: float) -> StreamScore:
        """Return the score of `right` right answers to n questions."""
        if not n:
            return cls(n=0, accuracy=None, ci95=None, calls_per_question=calls)
        low, high = wilson_interval(right, n)
        return cls(n=n, accuracy=right / n, ci95=(float(low), float(high)), calls_per_question=calls)


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """Questions that were predicted between two fits.

    Args:
        start: Questions of the stream before the first of these.
        n: How many these are.
        fitted_from: Questions of the stream before the first that was fitted on.
        n_fit: Questions fitted on.
        system: How the system did.
        frozen: How the same system did, fitted after the warm-up and never again.
        plurality: How a vote of all agents did.
        cumulative: Accuracy of the system on all questions so far; None while no label is known.
        faded: The same with old questions counting less and less; None without the option `fade`.
        call_shares: Of the calls that the system made, the share of each agent; None where it asked nobody itself.
        weight_shares: Of the weights of votes in the system, in absolute value, the share of each agent, with the sign
            of its weight; None for agents that it never listened to, and where its fuser does not say weights.
    """

    start: int
    n: int
    fitted_from: int
    n_fit: int
    system: StreamScore
    frozen: StreamScore
    plurality: StreamScore
    cumulative: float | None
    faded: float | None
    call_shares: tuple[float, ...]
    weight_shares: tuple[float | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class DriftAlarm:
    """An agent that became worse in the middle of the stream, and what the system did about it.

    Args:
        agent: Its name.
        question: Questions of the stream before the alarm: all that had been predicted.
        begun: Questions of the stream before the likeliest beginning of the fall.
        before: Its accuracy before that, back to its last fall, from `n_before` questions with a known label: those of
            the categories that occur since, in the proportions that they have since.
        after: Its accuracy from then to the alarm, on the `n_after` questions of categories that occurred before.
        p: One-sided p-value of the test that noticed it.
        level: What it had to be below, adjusted over agents, looks and sizes of window.
        measure: Whether `share_before` and `share_after` are of the system's calls or of the weights of votes; weights
            where everybody is asked always and the fuser says weights.
        share_before: The agent's share in the block in which its fall began.
        share_after: In the first block after the alarm; None when there is none.
    """

    agent: str
    question: int
    begun: int
    before: float
    after: float
    n_before: int
    n_after: int
    p: float
    level: float
    measure: Literal["calls", "weights"]
    share_before: float | None
    share_after: float | None

    def sentence(self) -> str:
        """Return what happened in words; numbers of questions count those that came before."""
        fell = (
            f"{self.agent} fell from {_percent(self.before)} % right (of {self.n_before}) to {_percent(self.after)} % "
            f"(of {self.n_after}) from question {self.begun} on, noticed at question {self.question} "
            f"(p {_small(self.p)}, below {_small(self.level)[2:]})"
        )
        what = "its share of the calls" if self.measure == "calls" else "its share of the votes' weight"
        if self.share_before is None:
            return f"{fell}; the system did not listen to it"
        if self.share_after is None:
            return f"{fell}; {what} was {_percent(self.share_before)} %, and nothing was predicted after that"
        return f"{fell}; {what} went from {_percent(self.share_before)} to {_percent(self.share_after)} %"


@dataclass(frozen=True, kw_only=True)
class PrequentialResult(JsonFile):
    """A stream of questions, predicted block by block with what was learned from those before.

    Args:
        system: The system's spec.
        agents: M names.
        n: Questions predicted.
        n_warm_up: Questions before the first prediction.
        whole: How the system did on all questions that were predicted.
        frozen: How the same system did, fitted after the warm-up and never again.
        plurality: How a vote of all agents did; ties went by the accuracies of the warm-up.
        blocks: The same, block by block.
        alarms: Agents that became worse, in the order in which that was noticed.
        paired: The system against the frozen one, and against the vote, on the questions with a known label.
        verdict: What came out, in one sentence.
        notes: What else is worth knowing.
        run: What made the result.
        outcomes: Question by question, in the order of the stream, those with a known label.
    """

    system: str
    agents: tuple[str, ...]
    n: int
    n_warm_up: int
    whole: StreamScore
    frozen: StreamScore
    plurality: StreamScore
    blocks: tuple[BlockResult, ...]
    alarms: tuple[DriftAlarm, ...]
    paired: tuple[PairedResult, ...]
    verdict: str
    notes: tuple[str, ...]
    run: RunRecord
    outcomes: Outcomes
    command: ClassVar[str] = "fusion stream SYSTEM"
    format: Literal["fusion.prequential/1"] = "fusion.prequential/1"


def merged_blocks(blocks: Sequence[BlockResult], *, most: int) -> tuple[BlockResult, ...]:
    """Return at most `most` blocks, each made of as many that follow each other.

    Shares are means over the questions; what was fitted on, and accuracies so far, are those of the last.

    Args:
        blocks: Blocks of a result, in order.
        most: How many to return, at least 1.
    """
    size = -(-len(blocks) // most)
    return tuple(_joined(blocks[at : at + size]) for at in range(0, len(blocks), max(size, 1)))


def _joined(blocks: Sequence[BlockResult]) -> BlockResult:
    last = blocks[-1]
    if len(blocks) == 1:
        return last
    sizes_B = np.array([block.n for block in blocks])

    def mean(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
        values_BM = np.array(rows, dtype=np.float64)
        sums_M = np.where(np.isnan(values_BM), 0, values_BM * sizes_B[:, None]).sum(axis=0)
        heard_M = (~np.isnan(values_BM) * sizes_B[:, None]).sum(axis=0)
        return [float(a / b) if b else None for a, b in zip(sums_M, heard_M, strict=True)]

    weights = [block.weight_shares for block in blocks if block.weight_shares is not None]
    return BlockResult(
        start=blocks[0].start,
        n=int(sizes_B.sum()),
        fitted_from=last.fitted_from,
        n_fit=last.n_fit,
        system=_summed([block.system for block in blocks], sizes_B.tolist()),
        frozen=_summed([block.frozen for block in blocks], sizes_B.tolist()),
        plurality=_summed([block.plurality for block in blocks], sizes_B.tolist()),
        cumulative=last.cumulative,
        faded=last.faded,
        call_shares=tuple(share or 0.0 for share in mean([block.call_shares for block in blocks])),
        weight_shares=tuple(mean(weights)) if len(weights) == len(blocks) else None,
    )


def _summed(scores: Sequence[StreamScore], sizes: Sequence[int]) -> StreamScore:
    right = sum(round((score.accuracy or 0) * score.n) for score in scores)
    calls = sum(score.calls_per_question * size for score, size in zip(scores, sizes, strict=True)) / sum(sizes)
    return StreamScore.of(right, sum(score.n for score in scores), calls=calls)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _small(p: float) -> str:
    return "< 1e-12" if p < 1e-12 else f"= {p:.1g}"
