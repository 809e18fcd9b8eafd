"""A question and its candidates as one sequence of tokens: what a fuser that reads and writes text is fed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import ConfigError, InvalidTable
from fusion.fusers._models import plain_tokens
from fusion.schema import Selection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Keep = Literal["start", "end", "both"]
GLOBAL = "[BOQ]", "[EOQ]"
ANSWER = "[ANS]"


class Cuts(NamedTuple):
    """What did not fit.

    Attributes:
        candidates: Candidates given.
        cut: Of these, how many were cut.
        questions: Questions given.
        questions_cut: Of these, how many were cut.
        dropped: Tokens left out, of both.
    """

    candidates: int = 0
    cut: int = 0
    questions: int = 0
    questions_cut: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        return (
            f"{self.cut} of {self.candidates} candidates and {self.questions_cut} of {self.questions} questions were "
            f"cut ({self.dropped} tokens left out)"
        )


class Row(NamedTuple):
    """One question as tokens.

    Attributes:
        tokens: What is read.
        asked: How many of them, from the first on, are the question with its delimiters.
    """

    tokens: list[int]
    asked: int


def delimiters(num_agents: int) -> tuple[str, ...]:
    """Return the tokens that a model has to learn: around the question, each candidate, and before the answer."""
    around = tuple(f"[{side}{m}]" for m in range(num_agents) for side in ("BOC", "EOC"))
    return (*GLOBAL, *around, ANSWER)


@dataclass(kw_only=True)
class Reader:
    """Lays out questions and candidates as tokens.

    Args:
        tokenizer: Knows the delimiters as tokens of their own.
        order: Positions of the agents in the table, candidate 0 first.
        limit: Tokens that the model can read.
        question_tokens: Most tokens of a question.
        candidate_tokens: Most tokens of a candidate.
        keep: Which end of what is too long stays.
        answers_follow: Whether the sequence ends with the token that calls for the answer, as causal models need.
    """

    tokenizer: "PreTrainedTokenizerBase"
    order: Sequence[int]
    limit: int
    question_tokens: int
    candidate_tokens: int
    keep: Keep
    answers_follow: bool
    cuts: Cuts = field(default=Cuts(), init=False)

    def rows(self, table: PredictionTable, selection: Selection) -> Iterator[Row]:
        """Yield every question; agents outside the selection, and those that abstain, are left empty.

        Raises:
            InvalidTable: When the table lacks the texts of questions or answers.
            ConfigError: When not even the delimiters fit.
        """
        questions, texts = texts_of(table)
        heard_NM = selection.mask & table.answered
        for n in range(len(table)):
            candidates = [str(texts(n, m)) if heard_NM[n, m] else "" for m in self.order]
            yield self._row(questions[n], candidates)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of plain text: what looks like a delimiter in it is none."""
        return plain_tokens(self.tokenizer, text)

    def _row(self, question: str, candidates: Sequence[str]) -> Row:
        marks = [int(self.tokenizer.convert_tokens_to_ids(token)) for token in delimiters(len(candidates))]  # type: ignore[arg-type]
        opened, closed, *around, answer = marks
        asked = self.tokens(question)
        said = [self.tokens(text) for text in candidates]
        spare = self.limit - len(marks)
        if spare < 1:
            raise ConfigError(
                f"the model reads {self.limit} tokens, and the delimiters of {len(candidates)} candidates alone take "
                f"{len(marks)}; prune the pool, or take a model that reads more"
            )
        # Where candidates are many, the question keeps half of the room at least.
        asked_kept = self._cut(asked, min(self.question_tokens, max(spare // 2, spare - sum(map(len, said)))))
        rooms = _rooms([min(len(ids), self.candidate_tokens) for ids in said], spare - len(asked_kept))
        said_kept = [self._cut(ids, room) for ids, room in zip(said, rooms, strict=True)]
        before, after = sum(map(len, said)) + len(asked), sum(map(len, said_kept)) + len(asked_kept)
        self.cuts = Cuts(
            self.cuts.candidates + sum(map(bool, said)),
            self.cuts.cut + sum(len(kept) < len(ids) for kept, ids in zip(said_kept, said, strict=True)),
            self.cuts.questions + 1,
            self.cuts.questions_cut + (len(asked_kept) < len(asked)),
            self.cuts.dropped + before - after,
        )
        tokens = [opened, *asked_kept, closed]
        for m, ids in enumerate(said_kept):
            tokens += [around[2 * m], *ids, around[2 * m + 1]]
        return Row([*tokens, answer] if self.answers_follow else tokens, len(asked_kept) + 2)

    def _cut(self, ids: list[int], room: int) -> list[int]:
        if len(ids) <= room:
            return ids
        if self.keep == "start":
            return ids[:room]
        if self.keep == "end":
            return ids[len(ids) - room :]
        head = (room + 1) // 2
        return [*ids[:head], *ids[len(ids) - (room - head) :]]


def _rooms(wanted: Sequence[int], room: int) -> list[int]:
    """Share `room` tokens out: nobody gets more than is wanted, and what some do not want the others get.

    Example:
        >>> _rooms([2, 9, 9], 12)
        [2, 5, 5]
    """
    given = [0] * len(wanted)
    left = room
    for place, m in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[m] = min(wanted[m], left // (len(wanted) - place))
        left -= given[m]
    return given


def texts_of(table: PredictionTable) -> tuple[list[str], Callable[[int, int], str]]:
    """Return the questions, and what looks up what an agent said: all that it wrote, else the option's text.

    Raises:
        InvalidTable: When the table lacks either.
    """
    if table.questions is None:
        raise InvalidTable(
            "topla_summary reads the questions, and the table does not have them; record it anew, or import it with a "
            "column question"
        )
    if table.texts is not None:
        written_NM = table.texts
        return table.questions.tolist(), lambda n, m: str(written_NM[n, m])
    if table.options is None:
        raise InvalidTable(
            "topla_summary reads what agents wrote, and the table has neither texts nor options; import one that does"
        )
    options, answers_NM = table.options, table.answers
    return table.questions.tolist(), lambda n, m: options[n][int(answers_NM[n, m])]


def targets(table: PredictionTable) -> list[str | None]:
    """Return what is to be written for every question: the reference, else the right option; None where unknown."""
    labels_N = table.require_labels()
    if table.references is not None:
        return [str(text) or None for text in table.references.tolist()]
    if table.options is None:
        raise InvalidTable(
            "topla_summary learns to write right answers, and the table has only their numbers; import one with "
            "references or options"
        )
    return [table.options[n][k] if k >= 0 else None for n, k in enumerate(np.asarray(labels_N).tolist())]
