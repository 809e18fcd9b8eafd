"""PredictionTable: what every agent answered to every question."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fusion.data._columns import TEXT as TEXT
from fusion.data._columns import Array, as_booleans, as_floats, as_integers, as_texts
from fusion.data._fingerprint import fingerprint
from fusion.data._invariants import check
from fusion.errors import InvalidTable, TableMismatch, UnknownName
from fusion.schema import BoolArray, FloatArray, IntArray, Json

if TYPE_CHECKING:
    import pandas

StrArray = np.ndarray[tuple[int, ...], np.dtypes.StringDType]
MAX_OPTIONS = np.iinfo(np.int16).max
_KINDS: Mapping[str, Callable[[str, npt.ArrayLike], Array]] = {
    "asked": as_booleans,
    "labels": functools.partial(as_integers, dtype=np.int64),
    "sample_answers": as_integers,
    "tokens_in": functools.partial(as_integers, dtype=np.int32),
    "tokens_out": functools.partial(as_integers, dtype=np.int32),
    "probs": as_floats,
    "scores": as_floats,
    "seconds": as_floats,
    "categories": as_texts,
    "references": as_texts,
    "questions": as_texts,
    "texts": as_texts,
}

_PER_QUESTION = ("question_ids", "num_options", "labels", "categories", "references", "questions")
_PER_ANSWER = ("answers", "asked", "probs", "sample_answers", "scores", "tokens_in", "tokens_out", "seconds", "texts")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PredictionTable:
    """Questions x agents x options, read-only.

    Two forms of the same thing: votes only (`answers`), small enough for millions of questions, or
    with the agents' probabilities over the options (`probs`), from which `answers` follow when they
    are not given.

    Args:
        question_ids: str [N], unique.
        agents: M unique names; column j of every per-agent field belongs to agents[j].
        answers: int [N, M], index of the option an agent chose, -1 where it abstained (was not asked,
            failed, or said nothing that can be read as an answer). Kept as int8 where that is enough.
        asked: bool [N, M], who was asked at all; None when everybody was. Tells an agent that said nothing from one
            that is yet to be asked.
        labels: int64 [N], index of the right option; -1 when the right answer is not among the
            options: counted as wrong for everybody, never dropped. None when unlabelled.
        num_options: int16 [N], options of each question, at least 1. By default the number of its `options`,
            else K of `probs`, else the largest index seen plus one.
        options: N tuples with the options' texts, one for each of `num_options` (or none at all, for an open
            question that nobody answered); None when only their indices are known.
        probs: float32 [N, M, K]; each row sums to 1, or is all 0 where the agent abstained; 0 beyond the
            options of the question.
        sample_answers: int [N, M, R], answers of R draws from each agent, -1 where one abstained.
        categories: str [N], subject or subtask of each question.
        references: str [N], right answers to open questions as the data set writes them, so that texts can
            be scored again.
        questions: str [N], what was asked, without shots and options.
        texts: str [N, M], what each agent wrote.
        scores: float32 [N, M] in [0, 1], graded quality of each answer to an open question.
        tokens_in, tokens_out: int32 [N, M], tokens read and written for one answer, at least 0.
        seconds: float32 [N, M], time one answer took, at least 0.
        provenance: Where the table came from; not part of the fingerprint.

    Arrays that already have the right type are not copied: do not change them afterwards.

    Raises:
        InvalidTable: When a type, shape, range or uniqueness rule above is broken.
    """

    question_ids: StrArray
    agents: tuple[str, ...]
    answers: IntArray
    asked: BoolArray | None
    labels: IntArray | None
    num_options: IntArray
    options: tuple[tuple[str, ...], ...] | None
    probs: FloatArray | None
    sample_answers: IntArray | None
    categories: StrArray | None
    references: StrArray | None
    questions: StrArray | None
    texts: StrArray | None
    scores: FloatArray | None
    tokens_in: IntArray | None
    tokens_out: IntArray | None
    seconds: FloatArray | None
    provenance: Mapping[str, Json]

    def __init__(
        self,
        *,
        question_ids: npt.ArrayLike,
        agents: Iterable[str],
        answers: npt.ArrayLike | None = None,
        asked: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        num_options: npt.ArrayLike | None = None,
        options: Iterable[Iterable[str]] | None = None,
        probs: npt.ArrayLike | None = None,
        sample_answers: npt.ArrayLike | None = None,
        categories: npt.ArrayLike | None = None,
        references: npt.ArrayLike | None = None,
        questions: npt.ArrayLike | None = None,
        texts: npt.ArrayLike | None = None,
        scores: npt.ArrayLike | None = None,
        tokens_in: npt.ArrayLike | None = None,
        tokens_out: npt.ArrayLike | None = None,
        seconds: npt.ArrayLike | None = None,
        provenance: Mapping[str, Json] | None = None,
    ) -> None:
        put = functools.partial(object.__setattr__, self)
        given = {"asked": asked, "labels": labels, "probs": probs, "sample_answers": sample_answers, "scores": scores}
        given |= {"tokens_in": tokens_in, "tokens_out": tokens_out, "seconds": seconds}
        given |= {"categories": categories, "references": references, "questions": questions, "texts": texts}
        put("question_ids", as_texts("question_ids", question_ids))
        put("agents", _names(agents))
        put("options", None if options is None else tuple(map(tuple, options)))
        put("provenance", dict(provenance or {}))
        for name, value in given.items():
            put(name, None if value is None else _KINDS[name](name, value))
        put("answers", as_integers("answers", _derived_answers(self) if answers is None else answers))
        num_options = _derived_num_options(self) if num_options is None else num_options
        put("num_options", as_integers("num_options", num_options, np.int16))
        check(self, per_question=_PER_QUESTION, per_answer=_PER_ANSWER)
        narrow = np.int8 if self.max_options <= np.iinfo(np.int8).max else np.int16
        put("answers", as_integers("answers", self.answers, narrow))
        if self.sample_answers is not None:
            put("sample_answers", as_integers("sample_answers", self.sample_answers, narrow))

    def __len__(self) -> int:
        return len(self.question_ids)

    def __repr__(self) -> str:
        form = "probabilities" if self.probs is not None else "votes"
        labelled = "labelled" if self.labels is not None else "unlabelled"
        return f"PredictionTable({len(self)} questions x {len(self.agents)} agents, {form}, {labelled})"

    @property
    def num_agents(self) -> int:
        """M."""
        return len(self.agents)

    @property
    def max_options(self) -> int:
        """K, the largest number of options of any question (at least 1)."""
        return max(int(self.num_options.max(initial=1)), 1)

    @property
    def answered(self) -> BoolArray:
        """Bool [N, M], True where an agent gave an answer that could be read."""
        return self.answers >= 0

    @functools.cached_property
    def correct(self) -> BoolArray:
        """Bool [N, M], True where an agent's answer is the labelled one; abstaining is wrong.

        Raises:
            InvalidTable: When the table has no labels.
        """
        correct_NM: BoolArray = (self.answers == self.require_labels()[:, None]) & (self.answers >= 0)
        correct_NM.flags.writeable = False
        return correct_NM

    @functools.cached_property
    def accuracies(self) -> FloatArray:
        """Share of all questions that each agent answers right, float64 [M]; abstaining is wrong.

        Raises:
            InvalidTable: When the table has no labels or no questions.
        """
        if len(self) == 0:
            raise InvalidTable("the accuracy of no questions is undefined; the table is empty")
        accuracies_M: FloatArray = self.correct.mean(axis=0)
        accuracies_M.flags.writeable = False
        return accuracies_M

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the provenance, as 64 hexadecimal digits."""
        return fingerprint(self, _PER_QUESTION + _PER_ANSWER)

    def require_labels(self) -> IntArray:
        """Return `labels`.

        Raises:
            InvalidTable: When the table has none.
        """
        if self.labels is None:
            raise InvalidTable(
                "this needs a labelled table, and the table has no labels; "
                "import it with an answer column, or use it only where nothing is scored"
            )
        return self.labels

    def require_agents(self, agents: Sequence[str]) -> None:
        """Check that this table's agents are exactly `agents`, in that order.

        Raises:
            TableMismatch: When they are not; the message names the difference.
        """
        if self.agents != tuple(agents):
            raise TableMismatch(f"the tables' agents differ: {describe_difference(agents, self.agents)}")

    def blind(self) -> Self:
        """Return the table without labels, references and scores: what a selector or fuser may see."""
        return self._with(labels=None, references=None, scores=None)

    def unanswered(self) -> Self:
        """Return the questions alone: every agent abstains, nothing is known of what it said or took."""
        answers_NM = np.broadcast_to(np.int8(-1), (len(self), self.num_agents))
        dropped = dict.fromkeys(("probs", "sample_answers", "texts", "tokens_in", "tokens_out", "seconds"))
        return self.blind()._with(answers=answers_NM, asked=np.broadcast_to(False, answers_NM.shape), **dropped)

    def unseen(self) -> Self:
        """Return what is known before a question is looked at: its id, and who could be asked."""
        same_N = np.broadcast_to(np.int16(self.max_options), (len(self),))
        return self.unanswered()._with(categories=None, questions=None, options=None, num_options=same_N)

    def revealed(self, asked: BoolArray) -> Self:
        """Return the table as somebody sees it who has asked only the agents in `asked`, bool [N, M]."""
        hidden_NM = ~asked
        fills: dict[str, object] = {"answers": -1, "sample_answers": -1, "texts": ""}
        changed: dict[str, object] = {"asked": asked}
        for name in _PER_ANSWER:
            value = getattr(self, name)
            if value is not None:
                value = value.copy()
                value[hidden_NM] = fills.get(name, 0)
                changed[name] = value
        return self._with(**changed)

    def rows(self, index: BoolArray | IntArray | slice) -> Self:
        """Return the questions at `index`, a boolean mask, distinct positions or a slice, in the order given.

        Raises:
            InvalidTable: When a position is given twice.
        """
        index = np.arange(len(self))[index]
        if len(np.unique(index)) < len(index):
            raise InvalidTable("every question can be taken once; the positions given repeat some")
        changed = self._map(_PER_QUESTION + _PER_ANSWER, lambda value: value[index])
        options = None if self.options is None else tuple(self.options[i] for i in index)
        return self._with(options=options, **changed)

    def columns(self, agents: Iterable[str]) -> Self:
        """Return the table with only `agents`, in the order given.

        Raises:
            UnknownName: When the table has no such agent.
            InvalidTable: When an agent is named twice, or none is.
        """
        wanted = tuple(agents)
        if not wanted or len(set(wanted)) < len(wanted):
            raise InvalidTable(f"every agent can be taken once, and one at least, got {', '.join(wanted) or 'none'}")
        position = {name: j for j, name in enumerate(self.agents)}
        for name in wanted:
            if name not in position:
                raise UnknownName(kind="agent", name=name, known=self.agents)
        index = np.array([position[name] for name in wanted], dtype=np.intp)
        changed = self._map(_PER_ANSWER, lambda value: value[:, index])
        return self._with(agents=wanted, **changed)

    def in_category(self, *names: str) -> Self:
        """Return the questions whose category is one of `names`.

        Raises:
            InvalidTable: When the table has no categories.
            UnknownName: When no question has such a category.
        """
        categories = self.require_categories()
        known = set(categories.tolist())
        for name in names:
            if name not in known:
                raise UnknownName(kind="category", name=name, known=sorted(known))
        return self.rows(np.isin(categories, np.array(names, dtype=TEXT)))

    def with_ids(self, ids: Iterable[str]) -> Self:
        """Return the questions with these ids, in the order given.

        Raises:
            UnknownName: When the table has no such question.
        """
        position = {name: n for n, name in enumerate(self.question_ids.tolist())}
        wanted = list(ids)
        for name in wanted:
            if name not in position:
                raise UnknownName(kind="question id", name=name, known=position)
        return self.rows(np.array([position[name] for name in wanted], dtype=np.intp))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a wide data frame: question_id, category, question, answer, then a column per agent with its answer.

        Open questions are written as texts, others as letters; an abstention is an empty string.

        Raises:
            InvalidTable: When an agent is named like one of the first columns.
        """
        import pandas

        columns: dict[str, object] = {"question_id": self.question_ids.tolist()}
        known = {"category": self.categories, "question": self.questions}
        columns |= {name: value.tolist() for name, value in known.items() if value is not None}
        if self.labels is not None:
            texts = None if self.options is None else self.references
            columns["answer"] = self._written(self.labels) if texts is None else texts.tolist()
        for name in self.agents:
            if name in columns:
                raise InvalidTable(f"an agent is named {name!r}, like a column of the questions; name it otherwise")
        columns |= {name: self._written(self.answers[:, j]) for j, name in enumerate(self.agents)}
        return pandas.DataFrame(columns)

    def _written(self, index_N: IntArray) -> list[str]:
        if self.references is None or self.options is None:
            return [_letter(k) for k in index_N.tolist()]
        return [row[k] if k >= 0 else "" for row, k in zip(self.options, index_N.tolist(), strict=True)]

    def require_categories(self) -> StrArray:
        """Return `categories`.

        Raises:
            InvalidTable: When the table has none.
        """
        if self.categories is None:
            raise InvalidTable("the table has no categories; import it with a category column")
        return self.categories

    def _with(self, **changed: Any) -> Self:
        """Return a copy with fields changed in a way that cannot break an invariant, so nothing is checked again."""
        derived = object.__new__(type(self))
        for field in dataclasses.fields(self):
            value = changed.get(field.name, getattr(self, field.name))
            if isinstance(value, np.ndarray):
                value = value.view()
                value.flags.writeable = False
            object.__setattr__(derived, field.name, value)
        return derived

    def _map(self, fields: Iterable[str], change: Callable[[Array], Array]) -> dict[str, object]:
        present = ((name, getattr(self, name)) for name in fields)
        return {name: change(value) for name, value in present if value is not None}


def _letter(index: int) -> str:
    return "" if index < 0 else chr(ord("A") + index) if index < 26 else str(index)


def describe_difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """Say in words how two lists of agents differ."""
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    parts = [f"missing {', '.join(missing)}"] if missing else []
    if extra:
        parts.append(f"not expected {', '.join(extra)}")
    return "; ".join(parts) or f"same names in another order, {', '.join(expected)} against {', '.join(found)}"


def _names(agents: Iterable[str]) -> tuple[str, ...]:
    if isinstance(agents, str):
        raise InvalidTable(f"agents must be a sequence of names, got the text {agents!r}; write [{agents!r}]")
    return tuple(as_texts("agents", [str(name) for name in agents]).tolist())


def _derived_answers(table: PredictionTable) -> IntArray:
    probs_NMK, samples_NMR = table.probs, table.sample_answers
    if probs_NMK is not None:
        if probs_NMK.ndim != 3 or probs_NMK.shape[2] == 0:
            raise InvalidTable(f"probs must have shape [N, M, K] with K >= 1, got {list(probs_NMK.shape)}")
        return np.where(probs_NMK.any(axis=2), probs_NMK.argmax(axis=2), -1).astype(np.int16)
    if samples_NMR is not None and samples_NMR.ndim == 3 and samples_NMR.shape[2] > 0:
        return samples_NMR[:, :, 0]
    raise InvalidTable("a table needs answers [N, M], probs [N, M, K] or sample_answers [N, M, R >= 1]; got none")


def _derived_num_options(table: PredictionTable) -> IntArray:
    if table.options is not None:
        return np.array([max(len(row), 1) for row in table.options], dtype=np.int64)
    if table.probs is not None and table.probs.ndim == 3:
        largest = table.probs.shape[2]
    else:
        seen = (table.answers, table.sample_answers, table.labels)
        largest = max((int(array.max()) for array in seen if array is not None and array.size), default=0) + 1
    if largest > MAX_OPTIONS:
        raise InvalidTable(f"at most {MAX_OPTIONS} options a question are supported, got {largest}")
    return np.broadcast_to(np.int16(max(largest, 1)), (len(table.question_ids),))
