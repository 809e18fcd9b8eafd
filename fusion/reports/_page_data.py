"""What the HTML report is made from: plain arrays, so that a page can be rendered without any other part of fusion.

Beyond the legend in `fusion.schema`: P sub-ensembles in a cloud or points of a curve, F sub-ensembles on the Pareto
front, E ensembles, B bins of similar confidence, C categories.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from fusion.errors import InputError
from fusion.schema import BoolArray, FloatArray, IntArray

RowRole = Literal["member", "system", "baseline", "upper_bound", "subset"]


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """One line of the overview: a member, a system, or what it is compared with.

    Args:
        name: Its spec, or the agent's name.
        label: The same in words.
        role: What it stands there for; upper bounds read the labels.
        accuracy: Share answered right, in [0, 1].
        low, high: Ends of the 95 % interval of the accuracy.
        calls_per_question: Mean number of answers asked for, or None when unknown.
        usd_per_question: Mean price, or None when unknown.

    Raises:
        InputError: When the role is unknown, or the interval is none.
    """

    name: str
    label: str
    role: RowRole
    accuracy: float
    low: float
    high: float
    calls_per_question: float | None = None
    usd_per_question: float | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(RowRole):
            raise InputError(f"{self.name}: role must be one of {', '.join(get_args(RowRole))}, got {self.role!r}")
        if not 0 <= self.low <= self.high <= 1 or not 0 <= self.accuracy <= 1:
            raise InputError(
                f"{self.name}: expected an accuracy and an interval in [0, 1], got {self.accuracy} and "
                f"[{self.low}, {self.high}]"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetCloud:
    """Scored sub-ensembles, all of them or a sample.

    Args:
        members: int [P, S], indices into the agents, padded with -1 behind the last member.
        focal: float [P], focal diversity.
        accuracy: float [P] in [0, 1], on the questions that were searched on.
        objective: float [P], what the search maximised.
        test_accuracy: float [P] in [0, 1] on other questions, or None.
        cost: float [P], price of a question in USD, or None.
        sampled_from: How many were scored when these are a sample of them; None when these are all.
        best: Index of the one that was chosen.
        pareto: int [F], indices of the Pareto front.

    Raises:
        InputError: When lengths differ, a value is not finite, or an index is out of range.
    """

    members: IntArray
    focal: FloatArray
    accuracy: FloatArray
    objective: FloatArray
    best: int
    pareto: IntArray
    test_accuracy: FloatArray | None = None
    cost: FloatArray | None = None
    sampled_from: int | None = None

    def __post_init__(self) -> None:
        if self.members.ndim != 2 or 0 in self.members.shape:
            raise InputError(f"subsets: members must have shape [P, S], got {list(self.members.shape)}")
        size = self.num_subsets
        if self.sizes.min() < 1 or (np.sort(self.members < 0, axis=1) != (self.members < 0)).any():
            raise InputError("subsets: every row of members needs one at least, and -1 only behind the last")
        for name, values in self.columns.items():
            if values.shape != (size,) or not np.isfinite(values).all():
                raise InputError(f"subsets: {name} must hold {size} finite numbers, got shape {list(values.shape)}")
        if not 0 <= self.best < size or (self.pareto.size and not 0 <= self.pareto.min() <= self.pareto.max() < size):
            raise InputError(f"subsets: best and pareto must be indices below {size}")

    @property
    def num_subsets(self) -> int:
        """P, the number of sub-ensembles at hand."""
        return len(self.members)

    @property
    def sizes(self) -> IntArray:
        """Int [P], members of each sub-ensemble."""
        sizes_P: IntArray = (self.members >= 0).sum(axis=1)
        return sizes_P

    @property
    def columns(self) -> dict[str, FloatArray]:
        """Every quantity that there is, by name, float [P] each."""
        found = {
            "focal": self.focal,
            "accuracy": self.accuracy,
            "test_accuracy": self.test_accuracy,
            "objective": self.objective,
            "cost": self.cost,
        }
        return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True, kw_only=True, eq=False)
class MemberWorth:
    """What each member adds to the ensemble, in accuracy.

    Args:
        agents: M names.
        loo: float [M], accuracy with everybody minus accuracy without the member.
        shapley: float [M], Shapley value.
        shapley_low, shapley_high: float [M], ends of its 95 % interval.

    Raises:
        InputError: When the lengths differ.
    """

    agents: tuple[str, ...]
    loo: FloatArray
    shapley: FloatArray
    shapley_low: FloatArray
    shapley_high: FloatArray

    def __post_init__(self) -> None:
        for name in ("loo", "shapley", "shapley_low", "shapley_high"):
            _expect(f"worth: {name}", getattr(self, name).shape, (len(self.agents),))


@dataclass(frozen=True, kw_only=True)
class StabilityRow:
    """How often one sub-ensemble is among the best when the questions are drawn anew.

    Args:
        agents: Its members.
        share: Share of the resamples in which it is among the ten best, in [0, 1].
    """

    agents: tuple[str, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class AnsweredPart:
    """What is left of a system that answers only where it is sure enough.

    Args:
        risk: Share of wrong answers that was allowed among those given.
        coverage: Share of the questions that it answers.
        error: Share of wrong answers among these; None where it answers none.
        low, high: Ends of the 95 % interval of that, or None.
    """

    risk: float
    coverage: float
    error: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfidenceRow:
    """What a system says of its answers, and how often they are right.

    Args:
        label: The system in words.
        role: What it stands there for.
        error: Calibration error, in [0, 1].
        low, high: Ends of its 95 % interval.
        counts: int [B], answers in each bin of similar confidence, from low to high.
        confidence: float [B], their mean confidence.
        accuracy: float [B], share of right ones.
        accuracy_low, accuracy_high: float [B], ends of its 95 % interval.
        coverage: float [P], share of the questions answered from some confidence on, rising to 1.
        risk: float [P], share of wrong answers among these.
        aurc: Area under risk against coverage.
        answered: What is left when it answers only where it is sure enough, or None.

    Raises:
        InputError: When lengths differ, a list is empty, or a value is no share.
    """

    label: str
    role: RowRole
    error: float
    low: float
    high: float
    counts: IntArray
    confidence: FloatArray
    accuracy: FloatArray
    accuracy_low: FloatArray
    accuracy_high: FloatArray
    coverage: FloatArray
    risk: FloatArray
    aurc: float
    answered: AnsweredPart | None = None

    def __post_init__(self) -> None:
        for name in ("confidence", "accuracy", "accuracy_low", "accuracy_high"):
            _expect(f"{self.label}: {name}", getattr(self, name).shape, (len(self.counts),))
        _expect(f"{self.label}: risk", self.risk.shape, (len(self.coverage),))
        columns = (self.confidence, self.accuracy, self.accuracy_low, self.accuracy_high, self.coverage, self.risk)
        if not len(self.counts) or not len(self.coverage):
            raise InputError(f"{self.label}: expected a bin and a point of the curve at least; leave the row out")
        if not all(((values >= 0) & (values <= 1)).all() for values in columns):
            raise InputError(f"{self.label}: confidences, accuracies, coverages and risks must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightTable:
    """What votes weigh in a system, by category.

    Args:
        label: The system in words.
        agents: M names.
        categories: C names; one "" where questions have none.
        counts: int [C], questions of each.
        value: float [C, M], mean weight of a vote; nan where the agent is never listened to.

    Raises:
        InputError: When lengths differ, or no weight is known.
    """

    label: str
    agents: tuple[str, ...]
    categories: tuple[str, ...]
    counts: IntArray
    value: FloatArray

    def __post_init__(self) -> None:
        _expect(f"{self.label}: counts", self.counts.shape, (len(self.categories),))
        _expect(f"{self.label}: weights", self.value.shape, (len(self.categories), len(self.agents)))
        if not np.isfinite(self.value).any():
            raise InputError(f"{self.label}: no weight is known; leave the table out")


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyTable:
    """Whom a system asks that asks one after another.

    Args:
        label: The system in words.
        agents: M names.
        rows: C names of categories; one "" where questions have none.
        counts: int [C], questions of each.
        asked: float [C, M], share of these on which each agent is asked.
        accuracy: float [C], share answered right.
        calls: float [C], mean number of answers asked for.
        first: float [M], share of all questions on which each agent is asked first.
        ends: float [M], share of all questions that end after 1, 2, ... agents.
        curve: float [P, 4]: calls, accuracy and the ends of its 95 % interval, stopped after 1, 2, ... calls at most;
            no rows where that was not measured.
        tokens: float [P], tokens beside `curve`, or None.
        left_out: Why there is no curve; None where there is one.

    Raises:
        InputError: When shapes do not agree, or there is no row.
    """

    label: str
    agents: tuple[str, ...]
    rows: tuple[str, ...]
    counts: IntArray
    asked: FloatArray
    accuracy: FloatArray
    calls: FloatArray
    first: FloatArray
    ends: FloatArray
    curve: FloatArray
    tokens: FloatArray | None = None
    left_out: str | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError(f"{self.label}: expected a category at least, one of all questions where there are none")
        _expect(f"{self.label}: asked", self.asked.shape, (len(self.rows), len(self.agents)))
        for name in ("counts", "accuracy", "calls"):
            _expect(f"{self.label}: {name}", getattr(self, name).shape, (len(self.rows),))
        for name in ("first", "ends"):
            _expect(f"{self.label}: {name}", getattr(self, name).shape, (len(self.agents),))
        _expect(f"{self.label}: curve", self.curve.shape, (len(self.curve), 4))
        if self.tokens is not None:
            _expect(f"{self.label}: tokens", self.tokens.shape, (len(self.curve),))


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """Everything that a report shows; what is None is left out of the page, and out of its contents.

    Args:
        title: Of the page.
        verdict: What came out, in sentences; the first is the headline.
        agents: M unique names.
        answers: int [N, M], index of the option chosen, -1 where the agent abstained.
        question_ids: N ids.
        labels: int [N], index of the right option, -1 when it is not among the options: wrong for everybody.
            None when unlabelled.
        categories: N subjects.
        option_texts: For each question the texts of its options, maybe none.
        question_texts: N texts.
        ensembles: int [N] answers of each ensemble shown beside the members, by name; the first is the main one.
        systems: Accuracies with intervals, in any order.
        subsets: Scored sub-ensembles.
        worth: What each member adds.
        stability: Sub-ensembles under resampling.
        confidences: What systems say of their answers.
        weights: What votes weigh in systems.
        policies: Whom systems ask that ask one after another.
        notes: What was left out and why, and other things worth knowing.
        provenance: What made the result (commands, fingerprints, versions, date), by name.

    Raises:
        InputError: When shapes do not agree, or there is no question or no agent.
    """

    title: str
    verdict: tuple[str, ...]
    agents: tuple[str, ...]
    answers: IntArray
    question_ids: tuple[str, ...]
    labels: IntArray | None = None
    categories: tuple[str, ...] | None = None
    option_texts: tuple[tuple[str, ...], ...] | None = None
    question_texts: tuple[str, ...] | None = None
    ensembles: Mapping[str, IntArray] = field(default_factory=dict)
    systems: tuple[SystemRow, ...] = ()
    subsets: SubsetCloud | None = None
    worth: MemberWorth | None = None
    stability: tuple[StabilityRow, ...] | None = None
    confidences: tuple[ConfidenceRow, ...] = ()
    weights: tuple[WeightTable, ...] = ()
    policies: tuple[PolicyTable, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_questions, num_agents = len(self.question_ids), len(self.agents)
        if not num_questions or not num_agents:
            raise InputError(f"a report needs questions and agents, got {num_questions} and {num_agents}")
        if len(set(self.agents)) != num_agents:
            raise InputError("a report needs unique names of agents; rename the ones that are there twice")
        _expect("answers", self.answers.shape, (num_questions, num_agents))
        if self.labels is not None:
            _expect("labels", self.labels.shape, (num_questions,))
        for name, answers_N in self.ensembles.items():
            _expect(f"ensemble {name}", answers_N.shape, (num_questions,))
        for name in ("categories", "option_texts", "question_texts"):
            if getattr(self, name) is not None:
                _expect(name, (len(getattr(self, name)),), (num_questions,))
        if self.subsets is not None and self.subsets.members.max() >= num_agents:
            raise InputError(f"subsets: member {self.subsets.members.max()}, but there are {num_agents} agents")

    def correct(self) -> BoolArray | None:
        """Return bool [N, M], where an agent is right; None without labels."""
        return None if self.labels is None else is_right(self.answers, self.labels[:, None])

    def ensembles_correct(self) -> BoolArray | None:
        """Return bool [N, E], where an ensemble is right; None without labels."""
        if self.labels is None:
            return None
        columns = [is_right(answers_N, self.labels) for answers_N in self.ensembles.values()]
        shape = (len(self.question_ids), len(columns))
        return np.stack(columns, axis=1) if columns else np.zeros(shape, dtype=np.bool_)


def is_right(answers: IntArray, labels: IntArray) -> BoolArray:
    """Return where an answer was given and is the right one; -1 is no answer, and no label that one could meet."""
    right: BoolArray = (answers == labels) & (answers >= 0)
    return right


def _expect(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise InputError(f"{what}: expected shape {list(expected)}, got {list(shape)}; give one for each")
