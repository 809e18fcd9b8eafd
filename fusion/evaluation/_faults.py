"""Faults on purpose: an agent of a recorded table answers wrongly, at random or not at all from some question on."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from fusion.data import LETTERS, PredictionTable, StrArray, name_keys
from fusion.errors import InvalidTable, UnknownName, UsageError
from fusion.schema import BoolArray, FloatArray, IntArray

FaultKind = Literal["wrong", "random", "abstain"]
"""What a faulty agent does: gives an option that is not the right one, any option, or none."""

KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to an agent.

    Args:
        agent: Its name.
        start: Questions before the fault, at least 0.
        kind: What it does from then on.
        share: Share of the questions that it does so on, in (0, 1].
        category: Only on questions of this category; None for all.

    Raises:
        UsageError: When a value is out of range.
    """

    agent: str
    start: int
    kind: FaultKind = "wrong"
    share: float = 1.0
    category: str | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise UsageError(f"a fault starts after 0 questions or more, got {self.start}")
        if not 0 < self.share <= 1:
            raise UsageError(f"the share of questions with a fault must lie in (0, 1], got {self.share}")
        if self.kind not in KINDS:
            raise UsageError(f"a fault is {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {self.kind!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `agent@question` or `agent@question:kind`, where `question` counts those before the fault.

        Raises:
            UsageError: When the text is not of that form.

        Example:
            >>> Fault.parse("gpt-4o@4000:random")
            Fault(agent='gpt-4o', start=4000, kind='random', share=1.0, category=None)
        """
        agent, _, when = text.rpartition("@")
        start, _, kind = when.partition(":")
        # No int(): it takes "1_0" and digits of other scripts.
        if not agent or not (start.isascii() and start.isdigit()):
            raise UsageError(
                f"a fault is written agent@question[:{'|'.join(KINDS)}], as in gemma-7b@4000, got {text!r}"
            )
        return cls(agent=agent, start=int(start), kind=kind or "wrong")  # type: ignore[arg-type]  # checked above


def inject(
    table: PredictionTable,
    *,
    agent: str,
    start: int,
    kind: FaultKind = "wrong",
    share: float = 1.0,
    category: str | None = None,
    seed: int = 0,
) -> PredictionTable:
    """Return the table with an agent that fails from the question in row `start` on; call again for more agents.

    Which questions fail and what is answered there depends on the question's id, the agent and the seed alone, not on
    the order of rows. Whoever was not asked still says nothing. Where the right answer is none of the options, or not
    known (label -1), every option counts as wrong; where the only option is right, a wrong agent abstains.

    What else is known of a faulty answer goes with it: the agent's probabilities are those that it gave, the largest
    having changed places with that of the new answer (all of it there, where it had abstained); draws are wrong, random
    or missing one by one, the first of them the new answer; scores are those of the new answer; texts are the option's,
    or its letter. Tokens and seconds stay.

    Args:
        table: Recorded answers to multiple-choice questions.
        agent: Whose answers change.
        start: Rows before the fault.
        kind: "wrong": an option that is not the right one, uniformly; "random": any option, uniformly; "abstain".
        share: Share of the questions from then on that are hit, in (0, 1].
        category: Only questions of this category; None for all.
        seed: Another seed, other faulty answers.

    Raises:
        UsageError: When a value is out of range, or `start` is behind the last question.
        UnknownName: When the table has no such agent or category.
        InvalidTable: When answers are open, or must be wrong and there are no labels.
    """
    fault = Fault(agent=agent, start=start, kind=kind, share=share, category=category)
    _check(table, fault)
    column = table.agents.index(agent)
    hit_N = _hit(table, fault, seed)
    answers_N = _drawn(table, fault, f"{seed} answer")
    changed: dict[str, object] = {"answers": _with_column(table.answers, column, answers_N, hit_N)}
    if table.probs is not None:
        probs_NK = _moved(table.probs[:, column], answers_N)
        changed["probs"] = _with_column(table.probs, column, probs_NK, hit_N)
    if table.sample_answers is not None:
        before_NR = table.sample_answers[:, column]
        others = [_drawn(table, fault, f"{seed} draw {r}") for r in range(1, before_NR.shape[1])]
        drawn_NR = np.stack([answers_N, *others], axis=1)[:, : before_NR.shape[1]]
        # Agents may have been sampled fewer times than there is room for.
        drawn_NR[:, ~(before_NR >= 0).any(axis=0)] = -1
        changed["sample_answers"] = _with_column(table.sample_answers, column, drawn_NR, hit_N)
    if table.scores is not None and table.labels is not None:
        right_N = (answers_N == table.labels) & (answers_N >= 0)
        changed["scores"] = _with_column(table.scores, column, right_N.astype(np.float32), hit_N)
    if table.texts is not None:
        changed["texts"] = _with_texts(table, table.texts, column, answers_N, hit_N)
    return dataclasses.replace(table, **changed)  # type: ignore[arg-type]  # each of the type of its field


def _check(table: PredictionTable, fault: Fault) -> None:
    if fault.agent not in table.agents:
        raise UnknownName(kind="agent", name=fault.agent, known=table.agents)
    if fault.start >= len(table):
        raise UsageError(
            f"the fault of {fault.agent} starts after {fault.start} questions, but there are {len(table)}; start it "
            f"after {max(len(table) - 1, 0)} at most"
        )
    if table.references is not None or table.provenance.get("cells") == "text":
        raise InvalidTable(
            "faults are injected into answers to multiple-choice questions, and those of this table are open: a wrong "
            "answer there is a text that somebody would have to write"
        )
    if fault.kind == "wrong":
        table.require_labels()
    if fault.category is not None:
        known = sorted(set(table.require_categories().tolist()))
        if fault.category not in known:
            raise UnknownName(kind="category", name=fault.category, known=known)


def _hit(table: PredictionTable, fault: Fault, seed: int) -> BoolArray:
    """Return bool [N], which answers of the agent are replaced."""
    hit_N: BoolArray = np.arange(len(table)) >= fault.start
    if fault.category is not None:
        hit_N &= table.require_categories() == fault.category
    if fault.share < 1:
        hit_N &= _uniform(table, fault, f"{seed} share") < fault.share
    if table.asked is not None:
        hit_N &= table.asked[:, table.agents.index(fault.agent)]
    return hit_N


def _uniform(table: PredictionTable, fault: Fault, what: str) -> FloatArray:
    """Return float64 [N] in [0, 1), drawn by the questions' ids."""
    keys_N = name_keys(table.question_ids.tolist(), f"fault of {fault.agent} {what}")
    # 53 bits are what a float64 holds; more would round up to 1.
    return (keys_N >> np.uint64(11)) / 2.0**53


def _drawn(table: PredictionTable, fault: Fault, what: str) -> IntArray:
    """Return int64 [N], what the faulty agent answers to each question."""
    if fault.kind == "abstain":
        return np.full(len(table), -1)
    options_N = table.num_options.astype(np.int64)
    uniform_N = _uniform(table, fault, what)
    if fault.kind == "random":
        return (uniform_N * options_N).astype(np.int64)
    labels_N = table.require_labels()
    wrong_N = options_N - (labels_N >= 0)
    answers_N = (uniform_N * wrong_N).astype(np.int64)
    answers_N += (labels_N >= 0) & (answers_N >= labels_N)
    return np.where(wrong_N > 0, answers_N, -1)


def _moved(probs_NK: FloatArray, answers_N: IntArray) -> FloatArray:
    """Return float [N, K], rows in which the largest probability and that of the answer have changed places."""
    moved_NK = probs_NK.copy()
    rows_N = np.arange(len(moved_NK))
    to_N, top_N = np.maximum(answers_N, 0), moved_NK.argmax(axis=1)
    silent_N = ~moved_NK.any(axis=1)
    moved_NK[rows_N, top_N], moved_NK[rows_N, to_N] = probs_NK[rows_N, to_N], probs_NK[rows_N, top_N]
    moved_NK[rows_N[silent_N], to_N[silent_N]] = 1
    moved_NK[answers_N < 0] = 0
    return moved_NK


def _with_column(values: npt.NDArray[np.generic], column: int, new: object, hit_N: BoolArray) -> object:
    """Return [N, M, ...] with the rows in `hit_N` of one agent taken from `new`, [N, ...]."""
    changed = values.copy()
    changed[hit_N, column] = np.asarray(new)[hit_N]
    return changed


def _with_texts(
    table: PredictionTable, texts: StrArray, column: int, answers_N: IntArray, hit_N: BoolArray
) -> StrArray:
    changed_NM = texts.copy()
    for n in np.flatnonzero(hit_N).tolist():
        answer = int(answers_N[n])
        named = LETTERS if table.options is None else table.options[n]
        changed_NM[n, column] = named[answer] if 0 <= answer < len(named) else ""
    return changed_NM
