"""What an evaluation found: plain data that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import InputError, UnknownName
from fusion.evaluation._policy import PolicyCard
from fusion.files import write_text
from fusion.schema import BoolArray, Json, RunRecord

Role = Literal["system", "baseline", "upper_bound", "member"]


@dataclass(frozen=True, kw_only=True)
class SelectiveResult:
    """A system that answers only from some confidence on.

    The threshold was chosen on questions that nothing was fitted on, so that with 95 % probability over these the share
    of wrong answers among those given is at most `risk` (`fusion.calibration.threshold_at_risk`).

    Args:
        risk: Share of wrong answers that is allowed among those given.
        threshold: The least confidence to answer with; None where no threshold keeps to the risk for sure.
        n_calibration: Questions that it was chosen on.
        coverage: Share of the questions evaluated on that it answers.
        error: Share of wrong answers among these; None where it answers none.
        error_ci95: 95 % interval of that (Wilson).
    """

    risk: float
    threshold: float | None
    n_calibration: int
    coverage: float
    error: float | None
    error_ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """Answers of similar confidence.

    Args:
        n: Their number, at least 1.
        confidence: Their mean confidence.
        accuracy: Share of right ones.
        ci95: 95 % interval of that (Wilson).
    """

    n: int
    confidence: float
    accuracy: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RiskCoverageCurve:
    """What answering only the surer questions buys; abstentions come last, and are wrong.

    Args:
        coverage: Share of the questions answered at P thresholds, rising to 1.
        risk: Share of wrong answers among these, at the same thresholds.
        aurc: Area under the curve, of all thresholds; low is good.

    Raises:
        InputError: When the lengths differ.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float

    def __post_init__(self) -> None:
        if len(self.coverage) != len(self.risk):
            raise InputError(f"{len(self.coverage)} coverages, but {len(self.risk)} risks")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a vote of each agent adds to the score of the option that it is for, by category.

    Args:
        agents: M names.
        categories: C categories, the most frequent first; one "" where questions have none.
        counts: Questions evaluated on of each.
        values: C rows of M weights, each the mean over the questions where the agent is listened to; None where it
            never is.

    Raises:
        InputError: When the lengths differ.
    """

    agents: tuple[str, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    values: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.categories) == len(self.counts) == len(self.values):
            raise InputError(
                f"weights: {len(self.categories)} categories, but {len(self.counts)} counts and {len(self.values)} rows"
            )
        for row in self.values:
            if len(row) != len(self.agents):
                raise InputError(f"weights: {len(self.agents)} agents, but a row of {len(row)}")


@dataclass(frozen=True, kw_only=True)
class SystemResult:
    """How one system did on the questions it was evaluated on.

    Args:
        name: Its spec, `selector+fuser`; for a member the agent's name.
        label: The same in words.
        role: What it stands in the table for; upper bounds read labels and are no contestants.
        n: Questions it was evaluated on.
        accuracy: Share answered right; abstaining is wrong.
        ci95: 95 % interval of the accuracy.
        abstained: Share of questions without an answer.
        fit_accuracy: Accuracy on the questions it was fitted on; None when not measured.
        calls_per_question: Mean number of answers asked for.
        tokens_per_question: Mean number of tokens read and written, or None when not recorded.
        usd_per_question: Mean price, or None when prices or tokens are unknown.
        calibration_error: Mean distance between what it says of its answers, their confidence or share of the
            votes, and how often they are right (15 bins of equal mass); None where it says nothing.
        calibration_ci95: 95 % interval of that, or None.
        selective: What is left when it answers only where it is sure enough; None unless asked for.
        reliability: The bins of the calibration error, from low confidence to high; None where that is.
        risk_coverage: What answering only the surer questions buys; None where it says nothing.
        weights: Of the votes; None where its fuser does not say what one adds.
        policy: Whom it asks, where it asks one after another; None for others.
    """

    name: str
    label: str
    role: Role
    n: int
    accuracy: float
    ci95: tuple[float, float]
    abstained: float
    fit_accuracy: float | None
    calls_per_question: float
    tokens_per_question: float | None
    usd_per_question: float | None
    calibration_error: float | None = None
    calibration_ci95: tuple[float, float] | None = None
    selective: SelectiveResult | None = None
    reliability: tuple[ConfidenceBin, ...] | None = None
    risk_coverage: RiskCoverageCurve | None = None
    weights: Weights | None = None
    policy: PolicyCard | None = None


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Two systems on the same questions.

    Args:
        a, b: Names of the systems; differences are a minus b.
        family: The question the comparison belongs to; p-values are adjusted within it.
        n: Questions.
        difference: Accuracy of a minus accuracy of b.
        ci95: 95 % interval of the difference (paired bootstrap; cluster-robust with clusters).
        only_a, only_b: Questions that only one of the two answers right.
        mcnemar_p: Exact two-sided McNemar test, which takes the questions as independent.
        test: The test that counts: McNemar's, or a cluster-robust one with clusters.
        p: Its p-value.
        holm_p: `p` adjusted over the family (Holm 1979).
        minimum_detectable_difference: What this many questions find with 80 % power at the 5 % level; None
            when not even a difference of 1 is within reach, or a t test sees no spread.
    """

    a: str
    b: str
    family: str
    n: int
    difference: float
    ci95: tuple[float, float]
    only_a: int
    only_b: int
    mcnemar_p: float | None
    test: Literal["exact McNemar", "paired t", "cluster-robust t"]
    p: float
    holm_p: float
    minimum_detectable_difference: float | None


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Question by question, so that runs can be compared later.

    Args:
        question_ids: N ids.
        categories: N categories, or None.
        correct: For each system a string of N digits, 1 where it is right.
        gold: Four hexadecimal digits a question, made from its right answer: runs with other ones are of other data.

    Raises:
        InputError: When the lengths differ.
    """

    question_ids: tuple[str, ...]
    categories: tuple[str, ...] | None
    correct: dict[str, str]
    gold: str = ""

    def __post_init__(self) -> None:
        if self.categories is not None and len(self.categories) != len(self.question_ids):
            raise InputError(f"{len(self.question_ids)} question ids, but {len(self.categories)} categories")
        for name, correct in self.correct.items():
            if len(correct) != len(self.question_ids) or set(correct) - {"0", "1"}:
                raise InputError(f"{name}: expected a digit, 0 or 1, for each of {len(self.question_ids)} question ids")

    def of(self, system: str) -> BoolArray:
        """Return bool [N], where `system` is right.

        Raises:
            UnknownName: When the run has no such system.
        """
        if system not in self.correct:
            raise UnknownName(kind="system", name=system, known=self.correct)
        correct_N: BoolArray = np.frombuffer(self.correct[system].encode("ascii"), dtype=np.uint8) == ord("1")
        return correct_N


class JsonFile:
    """A result dataclass that a command writes as JSON, and that can be read back."""

    command: ClassVar[str]

    def to_json(self) -> dict[str, Json]:
        """Return the whole result as JSON values; docs/bench-json.md and docs/prune-json.md describe them."""
        return as_json(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON, whole or not at all.

        Raises:
            OutputError: When the file cannot be written.
        """
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: When the file is missing or is not such a result.
        """
        # Costs 0.1 s to import, and only reading needs it.
        from pydantic import TypeAdapter, ValidationError

        source = Path(path)
        try:
            return TypeAdapter(cls).validate_json(source.read_bytes())
        except OSError as error:
            raise InputError(
                f"no run {source}: {error.strerror}; give a file that {cls.command} --json wrote"
            ) from error
        except InputError as error:
            raise InputError(f"{source} is damaged: {error}; run the evaluation again") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"{source} is not the JSON of {cls.command}: {place}: {first['msg']}; write one with: "
                f"{cls.command} TABLE --json FILE"
            ) from error


@dataclass(frozen=True, kw_only=True)
class BenchResult(JsonFile):
    """An evaluation of systems against each other and against the default baselines.

    Args:
        n: Questions evaluated on.
        n_fit: Questions fitted on.
        systems: The systems asked for, in order, then baselines, then upper bounds.
        members: Each agent of the pool alone.
        paired: Systems against baselines and against each other.
        verdict: What came out, in one sentence.
        notes: What was left out and why, and other things worth knowing.
        run: What made the result.
        outcomes: Question by question.
    """

    n: int
    n_fit: int
    systems: tuple[SystemResult, ...]
    members: tuple[SystemResult, ...]
    paired: tuple[PairedResult, ...]
    verdict: str
    notes: tuple[str, ...]
    run: RunRecord
    outcomes: Outcomes
    command: ClassVar[str] = "fusion bench"
    format: Literal["fusion.bench/1"] = "fusion.bench/1"

    def system(self, name: str) -> SystemResult:
        """Return the result of one system.

        Raises:
            UnknownName: When there is none of that name.
        """
        for result in self.systems:
            if result.name == name:
                return result
        raise UnknownName(kind="system", name=name, known=[result.name for result in self.systems])


def as_json(value: object) -> dict[str, Json]:
    """Return a result dataclass as JSON values, `format` first."""
    fields: dict[str, Json] = json.loads(json.dumps(dataclasses.asdict(value)))  # type: ignore[call-overload]
    return {"format": fields.pop("format"), **fields}


def digits(correct_N: BoolArray | Sequence[bool]) -> str:
    """Return a string with 1 for True and 0 for False."""
    return (np.asarray(correct_N, dtype=np.uint8) + ord("0")).tobytes().decode("ascii")


def gold_marks(table: PredictionTable) -> str:
    """Return four hexadecimal digits a question, made from its right answer."""
    answers = table.require_labels().tolist() if table.references is None else table.references.tolist()
    return "".join(f"{zlib.crc32(str(answer).encode()) & 0xFFFF:04x}" for answer in answers)
