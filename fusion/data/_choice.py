"""What multiple-choice tasks share: options under letters, reading the chosen one, scoring it.

`parse` of a question with options returns a letter, whatever the prompt shows: "A" stands for options[0].
`meta["continuations"]` holds, for each option, the text that an engine scores when it answers by option
log-probabilities: after the prompt and one blank.
"""

import re
import string
from collections.abc import Sequence

import numpy as np

from fusion.data._parse import get_extractor
from fusion.errors import UsageError
from fusion.schema import FloatArray, Json, Message, Question

LETTERS = string.ascii_uppercase


def list_options(options: Sequence[str]) -> str:
    r"""Return the options as lines.

    Example:
        >>> list_options(["one", "two"])
        'A. one\nB. two\n'
    """
    return "".join(f"{letter}. {option}\n" for letter, option in zip(LETTERS, options, strict=False))


def choice_question(
    question_id: str,
    messages: tuple[Message, ...],
    options: Sequence[str],
    *,
    label: int | None,
    reference: str,
    category: str = "",
    text: str = "",
    continuations: Sequence[str] | None = None,
    **meta: Json,
) -> Question:
    """Return a multiple-choice question; the continuations are the letters unless others are given.

    A label beyond the last option, which data sets do have, becomes None: nobody can be right.
    """
    if label is not None and not 0 <= label < len(options):
        label = None
    if continuations is None:
        continuations = LETTERS[: len(options)]
    return Question(
        id=question_id,
        messages=messages,
        options=tuple(options),
        reference=reference,
        label=label,
        category=category,
        text=text,
        meta={"continuations": list(continuations), **meta},
    )


def read_choice(text: str, question: Question, *, extractor: str | None) -> str | None:
    """Return the letter of the option that `text` chooses, or None.

    Text that is one option word for word, but for case, outer blanks and a full stop, chooses that option;
    a lone letter never counts as the text of an option while there is an extractor.

    Args:
        text: What an agent wrote.
        question: A question with options.
        extractor: Rule that reads a letter; None when the prompt shows no letters.
    """
    said = _folded(text)
    lone_letter = re.fullmatch(r"\(?[a-z]\)?", said) is not None
    if extractor is None or not lone_letter:
        exact = [i for i, option in enumerate(question.options) if _folded(option) == said]
        if len(exact) == 1:
            return LETTERS[exact[0]]
    if extractor is None:
        return None
    return get_extractor(extractor)(text, num_options=len(question.options)).value


def score_choice(answer: str | None, question: Question) -> float:
    """Return 1 when `answer` is the letter of the right option, else 0."""
    return float(answer is not None and question.label is not None and answer == LETTERS[question.label])


def best_option(logprobs: Sequence[float] | FloatArray, question: Question) -> int:
    """Return the index of the likeliest option, the first among equals."""
    return int(np.argmax(_checked(logprobs, question)))


def option_probabilities(logprobs: Sequence[float] | FloatArray, question: Question) -> FloatArray:
    """Return float [K], the probabilities of the options given that one of them is said."""
    logprobs_K = _checked(logprobs, question)
    weights_K: FloatArray = np.exp(logprobs_K - logprobs_K.max())
    probs_K: FloatArray = weights_K / weights_K.sum()
    return probs_K


def _checked(logprobs: Sequence[float] | FloatArray, question: Question) -> FloatArray:
    logprobs_K = np.asarray(logprobs, dtype=np.float64)
    if logprobs_K.shape != (len(question.options),):
        raise UsageError(
            f"question {question.id} has {len(question.options)} options but got log-probabilities of shape "
            f"{logprobs_K.shape}; pass one per option, in nats"
        )
    if np.isnan(logprobs_K).any() or not np.isfinite(logprobs_K.max()):
        raise UsageError(
            f"question {question.id}: at least one log-probability must be finite and none NaN or +inf, "
            f"got {logprobs_K.tolist()}"
        )
    return logprobs_K


def _folded(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().casefold()
