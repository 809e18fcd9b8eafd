"""From questions and completions to a table: the one path that live answers and recordings take."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from fusion.data._assemble import Answer, QuestionInfo, assemble, chosen
from fusion.data._choice import LETTERS, read_choice, score_choice
from fusion.data._open import canonical
from fusion.data._table import PredictionTable
from fusion.schema import Completion, FloatArray, Json, Question


class Reader(Protocol):
    """How a completion's text is read and scored: a task, or `FreeForm`."""

    def parse(self, text: str, question: Question) -> str | None:
        """Return the answer that `text` states, normalised; None when it states none."""
        ...

    def score(self, text: str, question: Question) -> float:
        """Return how right `text` is, in [0, 1]."""
        ...


@runtime_checkable
class OptionReader(Reader, Protocol):
    """A task with a rule of its own for scored options."""

    def score_options(self, logprobs: Sequence[float] | FloatArray, question: Question) -> float:
        """Return how right the options' log-probabilities are, in [0, 1]."""
        ...


@runtime_checkable
class RightReader(Reader, Protocol):
    """A task whose graded score does not tell what is right: half of the words of a name are not half the name."""

    def right(self, text: str, question: Question) -> bool:
        """Return whether `text` answers an open question right."""
        ...


@runtime_checkable
class OptionAdjuster(Protocol):
    """A task that compares options by something else than their log-probability."""

    def adjusted(self, logprobs: Sequence[float], question: Question) -> Sequence[float]:
        """Return what is compared, one number an option."""
        ...


class FreeForm:
    """Reads questions that belong to no task: a letter where there are options, else the whole text."""

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter of the chosen option, or the text."""
        if question.options:
            return read_choice(text, question, extractor="letter/flexible@1")
        return text.strip() or None

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` chooses the right option or equals the reference but for its form."""
        answer = self.parse(text, question)
        if question.options:
            return score_choice(answer, question)
        return float(answer is not None and canonical(answer) == canonical(question.reference))


class Call(NamedTuple):
    """One completion and whose it is.

    Attributes:
        question: Position of the question.
        agent: Position of the agent.
        sample: Number of the draw.
        completion: What came back.
    """

    question: int
    agent: int
    sample: int
    completion: Completion


def tabulate(
    questions: Sequence[Question],
    agents: Sequence[str],
    calls: Iterable[Call],
    *,
    reader: Reader,
    draws: int = 1,
    provenance: Mapping[str, Json] | None = None,
) -> PredictionTable:
    """Return the table of what `agents` answered to `questions`.

    A completion that failed is an abstention. An agent without a call to a question was not asked it, nor was one
    whose call had no budget left.

    Args:
        questions: N questions with unique ids.
        agents: M unique names.
        calls: At most one for each question, agent and draw.
        reader: Reads and scores the texts.
        draws: Draws that were asked for; with several the table has samples.
        provenance: What the table shall remember of its origin.

    Raises:
        InvalidTable: When ids or names repeat, or a call occurs twice.
    """
    infos = [_info(question, reader) for question in questions]
    notes = dict(provenance or {})
    if num_open := sum(not question.options for question in questions):
        notes["open"] = num_open
    answers, asked_NM = [], np.zeros((len(questions), len(agents)), dtype=bool)
    scores_NM = np.zeros(asked_NM.shape, dtype=np.float32)
    graded = False
    for call in calls:
        if call.completion.status == "over_budget":
            continue
        question = questions[call.question]
        asked_NM[call.question, call.agent] = True
        answer, score = _read(question, agents[call.agent], call, reader)
        answers.append(answer)
        if answer.logprobs is not None and isinstance(reader, OptionAdjuster):
            notes["adjusted"] = True
        if score is not None and call.sample == 0:
            scores_NM[call.question, call.agent] = score
            graded = graded or (question.label is not None and score != float(answer.choice == question.label))
            graded = graded or 0 < score < 1 or (answer.right is not None and score != float(answer.right))
    table = assemble(answers, questions=infos, provenance=notes, agents=agents, draws=draws)
    if not asked_NM.all():
        # Nobody answers without being asked, so nothing needs to be checked again.
        table = table._with(asked=asked_NM)
    return dataclasses.replace(table, scores=scores_NM) if graded else table


def _info(question: Question, reader: Reader) -> QuestionInfo:
    asked = next((message.content for message in reversed(question.messages) if message.role == "user"), "")
    info = QuestionInfo(
        id=question.id, source=question.id, category=question.category, text=_encodable(question.text or asked)
    )
    if question.options:
        label = question.label if question.label is not None else -1 if question.reference else None
        return dataclasses.replace(info, options=question.options, label=label)
    reference = (reader.parse(question.reference, question) or question.reference) if question.reference else ""
    references = (reference,) if reference else ()
    return dataclasses.replace(info, references=references)


def _read(question: Question, agent: str, call: Call, reader: Reader) -> tuple[Answer, float | None]:
    """Return the answer, and its score where the truth is known."""
    completion = call.completion
    spoke = completion.status in ("ok", "truncated")
    text = _encodable(completion.text)
    choice, said, logprobs = None, None, None
    if completion.option_logprobs is not None:
        logprobs = completion.option_logprobs
        if isinstance(reader, OptionAdjuster):
            logprobs = tuple(reader.adjusted(logprobs, question))
        choice = chosen(logprobs)
    elif spoke and question.options:
        letter = reader.parse(text, question)
        # A reader that is not made for questions with options may say anything.
        choice = LETTERS.find(letter) if letter is not None and len(letter) == 1 else -1
        choice = choice if 0 <= choice < len(question.options) else None
    elif spoke:
        said = reader.parse(text, question)
    score = _score(question, completion, text, reader) if spoke and _known(question) else None
    return Answer(
        question_id=question.id,
        agent=agent,
        source=question.id,
        sample=call.sample,
        choice=choice,
        text=said,
        right=None if question.options or score is None else _right(question, text, score, reader),
        logprobs=logprobs,
        raw=text if spoke else None,
        tokens_in=completion.usage.tokens_in,
        tokens_out=completion.usage.tokens_out,
        seconds=completion.seconds,
        # Scores that say nothing are no answer, and no reason to give up the others' probabilities.
        failed=not spoke or (logprobs is not None and choice is None),
    ), score


def _score(question: Question, completion: Completion, text: str, reader: Reader) -> float:
    if completion.option_logprobs is not None and isinstance(reader, OptionReader):
        if chosen(completion.option_logprobs) is None:
            return 0.0
        return reader.score_options(completion.option_logprobs, question)
    return reader.score(text, question)


def _right(question: Question, text: str, score: float, reader: Reader) -> bool:
    return reader.right(text, question) if isinstance(reader, RightReader) else score > 0.5


def _known(question: Question) -> bool:
    return question.label is not None or bool(question.reference)


def _encodable(text: str) -> str:
    """Return the text with lone surrogates, which JSON can carry and UTF-8 cannot, replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


__all__ = ["Call", "FreeForm", "OptionAdjuster", "OptionReader", "Reader", "RightReader", "tabulate"]
