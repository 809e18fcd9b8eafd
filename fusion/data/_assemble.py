"""From single foreign answers to a table."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from fusion.data._open import canonical, options_from_answers
from fusion.data._table import TEXT, PredictionTable, StrArray
from fusion.errors import InvalidTable
from fusion.schema import FloatArray, IntArray, Json


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionInfo:
    """What one file says of one question.

    Args:
        id: The question's id.
        source: Where that stands, for messages.
        options: Texts of the options; empty for an open question.
        label: Index of the right option, -1 when it is not among them; None when unknown or open.
        references: Spellings of the right answer to an open question, the usual one first.
        category: Subject or subtask; "" when there is none.
        text: What is asked, without shots and options; "" when that is not known.
    """

    id: str
    source: str
    options: tuple[str, ...] = ()
    label: int | None = None
    references: tuple[str, ...] = ()
    category: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of one agent to one question.

    Args:
        question_id: Id of the question.
        agent: Name of the agent.
        source: Where it stands, for messages.
        sample: Number of the draw, from 0.
        choice: Index of the chosen option; None when the question is open or nothing could be read.
        text: The answer to an open question; None when nothing could be read.
        right: Whether the foreign tool's scorer took an open answer for right; None when it does not say.
        logprobs: Log-likelihood of every option, in nats, in the options' order.
        raw: All that the agent wrote.
        tokens_in: Tokens read.
        tokens_out: Tokens written.
        seconds: Time taken.
        failed: There was an error instead of an answer: the agent abstains, and what it took may be unknown.
    """

    question_id: str
    agent: str
    source: str
    sample: int = 0
    choice: int | None = None
    text: str | None = None
    right: bool | None = None
    logprobs: tuple[float, ...] | None = None
    raw: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float | None = None
    failed: bool = False


def assemble(
    answers: Sequence[Answer],
    *,
    questions: Iterable[QuestionInfo],
    provenance: Mapping[str, Json],
    agents: Sequence[str] | None = None,
    draws: int = 1,
) -> PredictionTable:
    """Put single answers into one table.

    Questions stand in the order of their first appearance, and so do agents unless `agents` lists them. An agent
    abstains where it has no answer. With several draws `sample_answers` holds all of them and `answers` the first.
    When every answer to a question with options comes with log-likelihoods, `probs` is their softmax over the options;
    an answer to an open question is then certain of itself. Of tokens
    and seconds the table holds the mean over the draws, and nothing at all when they are unknown for some answer. Open
    answers become options by `options_from_answers`; the answers that the foreign scorer took for right, or that equal
    a reference, count as one and the same option.

    Args:
        answers: In any order, at most one for each question, agent and draw.
        questions: At least the questions that were answered; one may be told of several times.
        provenance: What the table shall remember of its origin.
        agents: The columns; by default the agents that answered.
        draws: Draws that were asked for, where some may be missing.

    Raises:
        InvalidTable: When two sources disagree on a question, an answer occurs twice, or the right answer
            is known for some questions only.
    """
    infos = _merged(questions)
    rows = {info.id: n for n, info in enumerate(infos)}
    agents = tuple(dict.fromkeys(answer.agent for answer in answers) if agents is None else agents)
    columns = {agent: m for m, agent in enumerate(agents)}
    num_draws = max(draws, 1 + max((answer.sample for answer in answers), default=0))
    placed: dict[tuple[int, int, int], Answer] = {}
    for answer in answers:
        cell = (rows[answer.question_id], columns[answer.agent], answer.sample)
        if cell in placed:
            raise _answered_twice(placed[cell], answer)
        placed[cell] = answer
    samples_NMR = np.full((len(infos), len(agents), num_draws), -1, dtype=np.int16)
    for cell, answer in placed.items():
        if answer.choice is not None:
            samples_NMR[cell] = answer.choice
    options = [info.options for info in infos]
    labels = [info.label for info in infos]
    _place_open(placed, infos, options, labels, samples_NMR)
    categories = [info.category for info in infos]
    asked = [info.text for info in infos]
    shape = samples_NMR.shape[:2]
    return PredictionTable(
        question_ids=_text_array([info.id for info in infos]),
        agents=agents,
        answers=samples_NMR[:, :, 0],
        sample_answers=samples_NMR if num_draws > 1 else None,
        labels=_labels(infos, labels),
        options=tuple(options),
        num_options=np.array([max(len(row), 1) for row in options], dtype=np.int16),
        probs=_probs(placed, infos, samples_NMR[:, :, 0], max((len(row) for row in options), default=1)),
        categories=_text_array(categories) if any(categories) else None,
        references=_references(infos),
        questions=_text_array(asked) if any(asked) else None,
        texts=_texts(placed, shape),
        tokens_in=_whole(_means(placed, shape, "tokens_in")),
        tokens_out=_whole(_means(placed, shape, "tokens_out")),
        seconds=_means(placed, shape, "seconds"),
        provenance=provenance,
    )


def chosen(logprobs: Sequence[float]) -> int | None:
    """Return the index of the first highest log-likelihood, None when that cannot be told (NaN, all -inf)."""
    if not logprobs or any(value != value for value in logprobs) or max(logprobs) == -np.inf:
        return None
    return int(np.argmax(logprobs))


_Placed = Mapping[tuple[int, int, int], Answer]


def _merged(questions: Iterable[QuestionInfo]) -> list[QuestionInfo]:
    known: dict[str, QuestionInfo] = {}
    for info in questions:
        first = known.setdefault(info.id, info)
        for name in ("options", "label", "references"):
            here, there = getattr(info, name), getattr(first, name)
            if here != there:
                raise InvalidTable(
                    f"question {info.id!r} has {name} {reprlib.repr(there)} in {first.source} but "
                    f"{reprlib.repr(here)} in {info.source}; import only files made from the same questions"
                )
    return list(known.values())


def _answered_twice(first: Answer, second: Answer) -> InvalidTable:
    draw = f" (draw {first.sample + 1})" if first.sample else ""
    return InvalidTable(
        f"agent {first.agent!r} answers question {first.question_id!r}{draw} twice, in {first.source} and "
        f"in {second.source}; leave one of them out, or, where these are two agents, give every path its "
        "agent's name (agents)"
    )


def _place_open(
    placed: _Placed,
    infos: Sequence[QuestionInfo],
    options: list[tuple[str, ...]],
    labels: list[int | None],
    samples_NMR: IntArray,
) -> None:
    """Fill in options, labels and answers of the open questions."""
    open_rows = [n for n, info in enumerate(infos) if not info.options]
    if not open_rows:
        return
    place = {n: i for i, n in enumerate(open_rows)}
    _, num_agents, num_draws = samples_NMR.shape
    cells_QC = np.full((len(open_rows), num_agents * num_draws), None, dtype=object)
    scored: dict[int, list[tuple[int, bool]]] = {}
    for (n, m, r), answer in placed.items():
        if n in place and answer.text is not None:
            column = m * num_draws + r
            cells_QC[place[n], column] = answer.text
            if answer.right is not None:
                scored.setdefault(place[n], []).append((column, answer.right))
    references: list[str | None] = []
    for i, n in enumerate(open_rows):
        right = [column for column, is_right in scored.get(i, ()) if is_right]
        references.append(_unify(cells_QC[i], infos[n].references, right))
    found = options_from_answers(cells_QC, references)
    assert found.labels is not None, "options_from_answers gives labels whenever it is given references"
    samples_NMR[open_rows] = found.answers.reshape(len(open_rows), num_agents, num_draws)
    for i, n in enumerate(open_rows):
        options[n] = found.options[i]
        if infos[n].references or i in scored:
            labels[n] = int(found.labels[i])


def _unify(cells_C: npt.NDArray[np.object_], references: Sequence[str], right: Sequence[int]) -> str | None:
    """Give all right answers in a row the spelling of the first of them, and return the reference."""
    forms = {canonical(text) for text in (*references, *cells_C[list(right)])} - {""}
    if not forms:
        return None
    matching = [column for column, text in enumerate(cells_C) if text is not None and canonical(text) in forms]
    if not matching:
        return references[0]
    cells_C[matching] = cells_C[matching[0]]
    return str(cells_C[matching[0]])


def _labels(infos: Sequence[QuestionInfo], labels: Sequence[int | None]) -> IntArray | None:
    unknown = [info for info, label in zip(infos, labels, strict=True) if label is None]
    if len(unknown) == len(infos):
        return None
    if unknown:
        raise InvalidTable(
            f"{len(unknown)} of {len(infos)} questions have no right answer, the first is {unknown[0].id!r} "
            f"in {unknown[0].source}; give one for every question, or for none"
        )
    return np.array(labels, dtype=np.int64)


def _references(infos: Sequence[QuestionInfo]) -> StrArray | None:
    """Return the usual spelling of every right answer; None unless all questions are open and have one."""
    if not infos or not all(info.references for info in infos):
        return None
    return _text_array([info.references[0] for info in infos])


def _probs(placed: _Placed, infos: Sequence[QuestionInfo], answers_NM: IntArray, num_options: int) -> FloatArray | None:
    given = {cell: answer.logprobs for cell, answer in placed.items() if not answer.failed and infos[cell[0]].options}
    if not given or None in given.values():
        return None
    logprobs_PK = np.full((len(given), num_options), -np.inf)
    for p, values in enumerate(given.values()):
        logprobs_PK[p, : len(values or ())] = values
    weights_PK = np.exp(logprobs_PK - logprobs_PK.max(axis=1, keepdims=True))
    probs_NMK = np.zeros((*answers_NM.shape, num_options), dtype=np.float32)
    for (n, m, r), weights_K in zip(given, weights_PK / weights_PK.sum(axis=1, keepdims=True), strict=True):
        if r == 0:
            probs_NMK[n, m] = weights_K
    is_open_N = np.array([not info.options for info in infos])
    n_P, m_P = np.nonzero(is_open_N[:, None] & (answers_NM >= 0))
    probs_NMK[n_P, m_P, answers_NM[n_P, m_P]] = 1
    return probs_NMK


def _texts(placed: _Placed, shape: tuple[int, ...]) -> StrArray | None:
    texts_NM = np.full(shape, "", dtype=object)
    for (n, m, r), answer in placed.items():
        if r == 0 and answer.raw is not None:
            texts_NM[n, m] = answer.raw
    return _text_array(texts_NM) if any(answer.raw is not None for answer in placed.values()) else None


def _means(
    placed: _Placed, shape: tuple[int, ...], name: Literal["tokens_in", "tokens_out", "seconds"]
) -> FloatArray | None:
    """Return the mean over the draws of each cell; None when the value of some answer is unknown."""
    sums_NM = np.zeros(shape)
    counts_NM = np.zeros(shape, dtype=np.int64)
    for (n, m, _), answer in placed.items():
        value = getattr(answer, name)
        if value is None and not answer.failed:
            return None
        if value is not None:
            sums_NM[n, m] += value
            counts_NM[n, m] += 1
    if not counts_NM.any():
        return None
    return cast(FloatArray, sums_NM / np.maximum(counts_NM, 1))


def _whole(means_NM: FloatArray | None) -> IntArray | None:
    return None if means_NM is None else np.rint(means_NM).astype(np.int64)


def _text_array(values: Sequence[str] | npt.NDArray[np.object_]) -> StrArray:
    return cast(StrArray, np.array(values, dtype=TEXT))


__all__ = ["Answer", "QuestionInfo", "assemble", "chosen"]
