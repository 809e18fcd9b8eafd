"""Files of questions: Parquet, CSV or JSON Lines with question_id, answer, and maybe question, category and options."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fusion.data._assemble import QuestionInfo
from fusion.data._records import Kind, Record, read_rows
from fusion.errors import InvalidTable

_COLUMNS = ("question_id", "question", "answer", "category", "options")
_QUESTION = Kind(
    "a question",
    "give Parquet, CSV or JSON Lines with question_id, answer and, as wanted, question, category and options",
)


def read_questions(path: Path) -> dict[str, QuestionInfo]:
    """Return the questions in `path` by id.

    Raises:
        UnreadableTable: When the file is missing, empty or of another kind.
        InvalidTable: When an id occurs twice, or an answer is not among the options.
    """
    found: dict[str, QuestionInfo] = {}
    for record in read_rows(path, _QUESTION, columns=_COLUMNS):
        id = record.content.get("question_id")
        if not isinstance(id, str | int) or id == "":
            record.wrong("question_id", "text or a whole number")
        answer = record.content.get("answer")
        if not isinstance(answer, str | int | float) or answer == "":
            record.wrong("answer", "text or a number")
        if str(id) in found:
            raise InvalidTable(f"{record.place}: question {id!r} occurs twice; keep one of them")
        category = record.content.get("category")
        options = _options(record)
        info = QuestionInfo(
            id=str(id),
            source=record.place,
            category=str(category or ""),
            options=options,
            text=str(record.content.get("question") or ""),
        )
        found[info.id] = _with_answer(info, answer)
    return found


def _with_answer(info: QuestionInfo, answer: str | int | float) -> QuestionInfo:
    text = str(answer)
    if not info.options:
        # GSM8K keeps the number after the working.
        reference = text.rpartition("####")[2].strip()
        return replace(info, references=(reference,))
    label = answer if isinstance(answer, int) else option_index(text, info.options)
    if label is None and len(text) == 1 and text.isascii() and text.isalpha():
        # Published keys have such rows: the right answer is not among the options, wrong for everybody.
        label = -1
    if label is None or not -1 <= label < len(info.options):
        raise InvalidTable(
            f"{info.source}: the answer to question {info.id!r} must be a letter from A to "
            f"{chr(ord('A') + len(info.options) - 1)}, the text of an option or its index from 0, got {answer!r}"
        )
    return replace(info, label=label)


def option_index(text: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that `text` names by its letter or its words; None when it names none."""
    place = ord(text.upper()) - ord("A") if len(text) == 1 and text.isascii() else -1
    if 0 <= place < len(options):
        return place
    return options.index(text) if text in options else None


def _options(record: Record) -> tuple[str, ...]:
    options = record.content.get("options")
    if isinstance(options, str) and options:
        try:
            options = json.loads(options)
        except ValueError:
            record.wrong("options", "a JSON list of texts")
    if options is None or options == "":
        return ()
    if not isinstance(options, list) or not all(isinstance(text, str) for text in options):
        record.wrong("options", "a list of texts")
    return tuple(map(str, options))
