"""One line of a sample file of lm-evaluation-harness."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fusion.data._records import Kind, Record
from fusion.errors import InvalidTable
from fusion.schema import Json

SAMPLE = Kind(
    "a sample of lm-evaluation-harness",
    "give samples_<task>_<time>.jsonl, or the folder it is in, as lm_eval writes it with --log_samples",
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_BINARY_METRICS = ("exact_match", "acc", "em")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What is kept of one line.

    Args:
        place: File and line.
        doc_id: Position of the document in its split.
        own_id: The document's own id; "" when it has none.
        category: The document's subject; "" when it has none.
        filter: Name of the filter.
        question: What the document asks, where it has a field of that name; "" otherwise.
        target: The right answer as the task writes it.
        outcome: The score that the task gave, in [0, 1]; None when it gave none that counts right answers.
        options: Texts of the options; empty for open answers.
        names: What the options are called: the continuations that were scored, or letters.
        logprobs: Log-likelihoods of the options; empty when the answers are generated.
        filtered: Generated answers after the filter, one a repeat.
        raw: Generated texts, one a repeat.
    """

    place: str
    doc_id: int
    own_id: str
    category: str
    filter: str
    question: str
    target: str
    outcome: float | None
    options: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    filtered: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()


class _Request(NamedTuple):
    """A prompt and what was scored after it (text) or how it was continued (settings)."""

    context: Json
    continuation: Json


class _Options(NamedTuple):
    texts: tuple[str, ...]
    letters: tuple[str, ...]


def read_sample(record: Record) -> Sample:
    """Read one line.

    Raises:
        UnreadableTable: When a field is missing or of another form.
        InvalidTable: When its task leaves nothing to choose from (perplexity, a single continuation).
    """
    doc = record.child("doc").content
    target = record.content.get("target")
    if not isinstance(target, str | int):
        record.wrong("target", "text")
    subjects = [doc.get(name) for name in ("subject", "category")]
    own_id, asked = doc.get("question_id"), doc.get("question")
    filter_name = record.content.get("filter")
    sample = Sample(
        place=record.place,
        doc_id=record.integer("doc_id"),
        own_id=str(own_id) if isinstance(own_id, str | int) else "",
        category=next((subject for subject in subjects if isinstance(subject, str) and subject), ""),
        filter=filter_name if isinstance(filter_name, str) else "none",
        question=asked if isinstance(asked, str) else "",
        target=str(target),
        outcome=None,
    )
    requests = _requests(record)
    if any(request.continuation is None for request in requests):
        raise InvalidTable(
            f"{record.place}: the likelihood of a whole text (a perplexity task) is no answer to a question; "
            "leave this task out"
        )
    if all(isinstance(request.continuation, str) for request in requests):
        return _with_logprobs(sample, record, requests, _doc_options(doc))
    return _with_generated(sample, record, _doc_options(doc))


def _requests(record: Record) -> list[_Request]:
    """Return prompts and continuations; older versions wrote lists instead of objects."""
    arguments = record.content.get("arguments")
    if isinstance(arguments, dict):
        requests = [
            _Request(value.get("arg_0"), value.get("arg_1")) for value in arguments.values() if isinstance(value, dict)
        ]
    elif isinstance(arguments, list):
        requests = [
            _Request(value[0], value[1] if len(value) > 1 else None)
            for value in arguments
            if isinstance(value, list) and value
        ]
    else:
        requests = []
    return requests or record.wrong("arguments", "an object or list of requests")


def _with_logprobs(
    sample: Sample, record: Record, requests: Sequence[_Request], doc_options: _Options | None
) -> Sample:
    logprobs = tuple(_loglikelihood(record, response) for response in record.items("resps"))
    metrics = record.content.get("metrics")
    if isinstance(metrics, list) and "acc_mutual_info" in metrics:
        # The second half are the same options without the question.
        logprobs, requests = logprobs[: len(logprobs) // 2], requests[: len(requests) // 2]
    if len(logprobs) != len(requests):
        record.wrong("resps", f"a list of {len(requests)} responses, one for each request")
    if len(logprobs) < 2:
        raise InvalidTable(
            f"{record.place}: the log-likelihood of a single continuation leaves nothing to choose from; "
            "leave this task out"
        )
    names = [str(request.continuation).strip() for request in requests]
    contexts = [str(request.context) for request in requests]
    if len(set(contexts)) > 1:
        # The options stand in the prompts, what follows is the same for all (winogrande).
        names = _differing_ends(contexts)
    lettered = all(_LETTER.fullmatch(name) for name in names)
    spelt_out = doc_options and lettered and len(doc_options.texts) == len(names)
    return replace(
        sample,
        options=doc_options.texts if doc_options and spelt_out else tuple(names),
        names=tuple(names),
        logprobs=logprobs,
        outcome=_number(record.content.get("acc")),
    )


def _with_generated(sample: Sample, record: Record, doc_options: _Options | None) -> Sample:
    first = (record.items("resps") or [None])[0]
    response = (record.items("filtered_resps") or [None])[0]
    filtered = _texts(record, "filtered_resps", response)
    outcomes = (_number(record.content.get(name)) for name in _BINARY_METRICS)
    # One score for several repeats does not tell which of them were right.
    outcome = next((value for value in outcomes if value is not None), None)
    by_letter = replace(
        sample,
        options=doc_options.texts if doc_options else (),
        names=doc_options.letters if doc_options else (),
    )
    return replace(
        sample if option_index(sample.target, by_letter) is None else by_letter,
        filtered=filtered,
        raw=_texts(record, "resps", first),
        outcome=outcome if len(filtered) == 1 else None,
    )


def _doc_options(doc: Mapping[str, Json]) -> _Options | None:
    for name in ("options", "choices"):
        value = doc.get(name)
        letters: Json = None
        if isinstance(value, dict):
            letters = value.get("label")
            value = value.get("text")
        if isinstance(value, list) and 2 <= len(value) <= 26 and all(isinstance(text, str) for text in value):
            if not isinstance(letters, list) or len(letters) != len(value):
                letters = [chr(ord("A") + k) for k in range(len(value))]
            return _Options(tuple(map(str, value)), tuple(map(str, letters)))
    return None


def _loglikelihood(record: Record, response: Json) -> float:
    """Read [[log-likelihood, greedy]]; older versions wrote numbers, newer ones text."""
    pair = response[0] if isinstance(response, list) and response else None
    value = _number(pair[0]) if isinstance(pair, list) and pair else None
    return record.wrong("resps", "a list of [[log-likelihood, greedy]]") if value is None else value


def _number(value: Json) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) else None


def _texts(record: Record, name: str, response: Json) -> tuple[str, ...]:
    texts = response if isinstance(response, list) else [response]
    if not texts or not all(isinstance(text, str) for text in texts):
        record.wrong(name, "a list of texts")
    return tuple(map(str, texts))


def _differing_ends(contexts: Sequence[str]) -> list[str]:
    """Cut off what all prompts begin with, whole words only."""
    shortest = min(contexts, key=len)
    end = next((i for i, symbols in enumerate(zip(*contexts, strict=False)) if len(set(symbols)) > 1), len(shortest))
    start = max(shortest.rfind(" ", 0, end), shortest.rfind("\n", 0, end)) + 1
    return [context[start:].strip() for context in contexts]


def references(target: str) -> tuple[str, ...]:
    """Return the spellings of the right answer: of GSM8K what follows ####, of a list its texts."""
    if target.startswith("[") and target.endswith("]"):
        try:
            listed = ast.literal_eval(target)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = []
        if isinstance(listed, list) and listed:
            return tuple(map(str, listed))
    return (target.rpartition("####")[2].strip(),)


def option_index(text: str, sample: Sample) -> int | None:
    """Return which option a letter or name stands for, None when it stands for none."""
    letter = _LETTER.fullmatch(text.strip())
    name = letter.group(1).upper() if letter else text.strip()
    return sample.names.index(name) if name in sample.names else None
