"""Logs of inspect (`.eval` and `.json`).

A sample with choices is a multiple-choice question when its target is one of them; everything else is
an open question. Epochs become samples. A sample that ended with an error abstains, and so counts as
wrong, where inspect leaves it out of its accuracy.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fusion.data._assemble import Answer, QuestionInfo, assemble
from fusion.data._inspect_log import Log, log_files, read_log
from fusion.data._records import Paths, Record, as_count, as_paths, given_names
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable, UnknownName
from fusion.schema import Json

_MAX_EPOCHS = 10_000


def read_inspect(paths: Paths, *, agents: Sequence[str] | None = None, scorer: str | None = None) -> PredictionTable:
    """Read logs of one or several models.

    Question ids are `task/sample id`. Categories are the sample's metadata `category` or `subject`, else
    the task's name. Answers are what the scorer read, `texts` what the model wrote; an open answer that
    the scorer took for right counts as right however it is spelt. `seconds` is inspect's total_time.

    Args:
        paths: Logs and folders of them (searched through).
        agents: Names of the agents, one for each path; by default the evaluated models.
        scorer: Whose reading of the answers to take; by default the first scorer of each log.

    Raises:
        UnreadableTable: When a file is missing, empty, cut off or of another kind.
        InvalidTable: When logs contradict each other, or hold no scored samples.
        UnknownName: When a log has no such scorer.
        UsageError: When there are no paths, or not as many names.
    """
    entries: list[_Entry] = []
    notes: list[Json] = []
    sources = as_paths(paths)
    for source, name in zip(sources, given_names(sources, agents), strict=True):
        for path in log_files(source):
            log = read_log(path)
            used, found = _read_log(log, name, scorer)
            entries.extend(found)
            notes.append({"file": path.name, "status": log.header.content.get("status"), "scorer": used})
    return assemble(
        [entry.answer for entry in entries],
        questions=[entry.question for entry in entries],
        provenance={"format": "inspect", "logs": notes},
    )


class _Entry(NamedTuple):
    """A sample of a log, and where the data set has it."""

    position: int
    question: QuestionInfo
    answer: Answer


def _read_log(log: Log, agent: str | None, scorer: str | None) -> tuple[str | None, list[_Entry]]:
    """Return the scorer that was used, and the samples as the data set orders them."""
    evaluated = log.header.child("eval")
    task, model = evaluated.text("task"), evaluated.text("model")
    dataset = evaluated.content.get("dataset")
    ids = dataset.get("sample_ids") if isinstance(dataset, dict) else None
    position = {str(id): number for number, id in enumerate(ids)} if isinstance(ids, list) else {}
    entries: list[_Entry] = []
    for sample in log.samples:
        scores = sample.content.get("scores")
        if isinstance(scores, dict) and scores:
            scorer = scorer or next(iter(scores))
            if scorer not in scores:
                raise UnknownName(kind=f"scorer (in {sample.place})", name=scorer, known=scores)
        score = scores.get(scorer or "") if isinstance(scores, dict) else None
        question = _question(sample, task)
        answer = _answer(sample, question, agent=agent or model, model=model, score=score)
        entries.append(_Entry(position.get(str(sample.content["id"]), len(position)), question, answer))
    if not entries:
        raise InvalidTable(f"{log.path} holds no samples; run inspect with its samples logged")
    if scorer is None and not all(entry.answer.failed for entry in entries):
        raise InvalidTable(f"{log.path} holds no scores, so its answers cannot be read; run inspect score on it")
    return scorer, sorted(entries, key=lambda entry: (entry.position, entry.answer.sample))


def _question(sample: Record, task: str) -> QuestionInfo:
    id = sample.content.get("id")
    if not isinstance(id, str | int):
        sample.wrong("id", "text or a whole number")
    target = sample.content.get("target")
    targets = [target] if isinstance(target, str) else target
    if not isinstance(targets, list) or not all(isinstance(text, str) for text in targets):
        sample.wrong("target", "text or a list of texts")
    spellings = tuple(str(text) for text in targets if text)
    metadata = sample.content.get("metadata")
    subjects = [metadata.get(name) for name in ("category", "subject")] if isinstance(metadata, dict) else []
    info = QuestionInfo(
        id=f"{task}/{id}",
        source=sample.place,
        category=next((subject for subject in subjects if isinstance(subject, str) and subject), task),
        text=_asked(sample.content.get("input")),
    )
    choices = sample.content.get("choices")
    if not isinstance(choices, list) or not choices:
        return replace(info, references=spellings)
    options = tuple(map(str, choices))
    right = _options_in(spellings, options)
    if len(right) > 1:
        # Several options are right together: each set of letters is an answer of its own.
        return replace(info, references=(_letters(right),))
    label = right[0] if right else -1 if spellings else None
    return replace(info, options=options, label=label)


def _asked(told: Json) -> str:
    """Return what a sample asks: a text, or what the user says last."""
    if isinstance(told, list):
        said = [
            message.get("content") for message in told if isinstance(message, dict) and message.get("role") == "user"
        ]
        told = said[-1] if said else ""
    return told if isinstance(told, str) else ""


def _answer(sample: Record, question: QuestionInfo, *, agent: str, model: str, score: Json) -> Answer:
    raw = _written(sample)
    tokens_in, tokens_out = _usage(sample, model)
    seconds = sample.content.get("total_time")
    epoch = sample.integer("epoch")
    if not 1 <= epoch <= _MAX_EPOCHS:
        sample.wrong("epoch", f"from 1 to {_MAX_EPOCHS}")
    answer = Answer(
        question_id=question.id,
        agent=agent,
        source=sample.place,
        sample=epoch - 1,
        raw=raw,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        seconds=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else None,
        failed=sample.content.get("error") is not None,
    )
    if answer.failed or not isinstance(score, dict):
        return answer
    right = _is_right(score.get("value"))
    told = score.get("answer")
    text = told if isinstance(told, str) else raw
    choices = sample.content.get("choices")
    if not isinstance(choices, list) or not choices:
        return replace(answer, text=text, right=right)
    named = _options_in([text], tuple(map(str, choices)))
    if not question.options:
        return replace(answer, text=_letters(named) if named else None, right=right)
    choice = named[0] if len(named) == 1 else question.label if right else None
    return replace(answer, choice=choice if choice != -1 else None)


def _options_in(texts: Sequence[str], options: Sequence[str]) -> list[int]:
    """Return the options that letters ("B", "A, C", "AC", after Z 1, 2, ...) or an option's text stand for."""
    found: set[int] = set()
    for text in texts:
        tokens = text.replace(",", " ").split()
        places = [place for token in tokens for place in _places(token)]
        if tokens and all(0 <= place < len(options) for place in places):
            found.update(places)
        elif text in options:
            found.add(options.index(text))
    return sorted(found)


def _places(token: str) -> list[int]:
    if re.fullmatch("[1-9][0-9]{0,3}", token):
        return [25 + int(token)]
    letters = token.upper() if re.fullmatch("[a-z]", token) else token
    return [ord(letter) - ord("A") if "A" <= letter <= "Z" else -1 for letter in letters]


def _letters(places: Sequence[int]) -> str:
    return ", ".join(chr(ord("A") + place) if place < 26 else str(place - 25) for place in places)


def _is_right(value: Json) -> bool | None:
    """Return whether a score is full marks; None when it is no mark (unscored samples are NaN)."""
    if isinstance(value, str):
        return value == "C"
    if isinstance(value, int | float):
        return value == 1 if value == value else None
    return None


def _written(sample: Record) -> str:
    """Return what the model wrote at last."""
    output = sample.content.get("output")
    completion = output.get("completion") if isinstance(output, dict) else None
    if not isinstance(completion, str):
        return ""
    attachments = sample.content.get("attachments")
    held = attachments.get(completion.removeprefix("attachment://")) if isinstance(attachments, dict) else None
    return held if isinstance(held, str) else completion


def _usage(sample: Record, model: str) -> tuple[int | None, int | None]:
    """Return the tokens that the evaluated model read and wrote, those in its cache included."""
    usage = sample.content.get("model_usage")
    own = usage.get(model) if isinstance(usage, dict) else None
    if not isinstance(own, dict):
        return None, None
    read = [as_count(own.get(f"input_tokens{kind}")) for kind in ("", "_cache_read", "_cache_write")]
    counts = [count for count in read if count is not None]
    return as_count(sum(counts)) if counts else None, as_count(own.get("output_tokens"))
