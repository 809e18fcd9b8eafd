"""What a pruning found: plain data that goes to JSON and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fusion.evaluation import JsonFile, PairedResult
from fusion.pruning._evidence import Evidence
from fusion.schema import RunRecord


@dataclass(frozen=True, kw_only=True)
class SubsetResult:
    """One sub-ensemble.

    Args:
        agents: Its members, in pool order.
        size: How many they are.
        objective: What it was chosen by, on the questions to fit on.
        focal_diversity: On those questions; None for a single member.
        accuracy: Of the plurality vote, on those questions.
        cv_accuracy: Of the fuser, cross-validated on those questions; None without a fuser.
        test_accuracy: On other questions, of the fuser, or without one of the plurality vote.
        test_ci95: 95 % interval of it.
        usd_per_question: What asking all members costs; None when prices or tokens are unknown.
        seconds_per_question: Mean seconds of the slowest member; None when not recorded.
    """

    agents: tuple[str, ...]
    size: int
    objective: float
    focal_diversity: float | None
    accuracy: float
    cv_accuracy: float | None
    test_accuracy: float
    test_ci95: tuple[float, float]
    usd_per_question: float | None
    seconds_per_question: float | None


@dataclass(frozen=True, kw_only=True)
class RivalResult:
    """What the best sub-ensemble is compared with.

    Args:
        name: What it is in words.
        agents: Its members.
        test_accuracy: On the questions that nothing was fitted on.
        test_ci95: 95 % interval of it.
    """

    name: str
    agents: tuple[str, ...]
    test_accuracy: float
    test_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PruneResult(JsonFile):
    """The best sub-ensembles of a pool, and what they are worth on other questions.

    Args:
        n: Questions evaluated on.
        n_fit: Questions that the sub-ensembles were chosen on.
        pool: All agents.
        objective: What they were chosen by.
        fuser: What settles their answers.
        subsets: The best, best first.
        rivals: The best single member, the whole pool, and as many members by accuracy alone.
        paired: The best sub-ensemble against each of them.
        front: Sub-ensembles that none of as few members and as low a price beats on the questions to fit on.
        searched: How many sub-ensembles were scored.
        total: How many there are, before limits on price and latency.
        method: How they were searched.
        exhaustive: Whether all of them were scored.
        complete: False when the search was interrupted.
        seconds: Wall time of the search.
        evidence: What speaks for and against the best sub-ensemble; None when not asked for.
        verdict: What came out, in one sentence.
        notes: What else is worth knowing.
        run: What made the result.
    """

    n: int
    n_fit: int
    pool: tuple[str, ...]
    objective: str
    fuser: str
    subsets: tuple[SubsetResult, ...]
    rivals: tuple[RivalResult, ...]
    paired: tuple[PairedResult, ...]
    front: tuple[SubsetResult, ...]
    searched: int
    total: int
    method: str
    exhaustive: bool
    complete: bool
    seconds: float
    verdict: str
    notes: tuple[str, ...]
    run: RunRecord
    evidence: Evidence | None = None
    command: ClassVar[str] = "fusion prune"
    format: Literal["fusion.prune/1"] = "fusion.prune/1"
