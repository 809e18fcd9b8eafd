"""Log-probabilities of continuations, from what a server says about the tokens of a prompt or the likeliest next ones.

By `prompt_logprobs` (vLLM) or `echo` the server tells the tokens it read with their log-probabilities; those of the
continuation are summed. They are found by their text: the tokens, put together, spell the prompt, perhaps after a
start-of-text token and before a generated one. A token that straddles the end of the prompt counts as part of the
continuation, and so do tokens without text of their own (the first bytes of a character) that stand at its start.
Where tokens are told without their blanks, blanks are left out of the comparison.

By `top_logprobs` the server tells the likeliest first tokens of its answer. The probability of a label is the sum over
the tokens that are this label but for blanks around it (" A", "A"). Of a label that is not among the tokens no more is
known than that it is less likely than each: it gets a stand-in, the smallest log-probability told minus 1.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeGuard

from fusion.agents._http_retry import WrongShapeError
from fusion.agents._openai_body import PER_TEXT, Dialect, joined, scored_text
from fusion.agents._openai_reply import Choice, usage_of
from fusion.schema import Request

_BLANKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
"""How tokenizers write blanks in their vocabularies."""


class TokensTold(NamedTuple):
    """Tokens that a server read.

    Attributes:
        texts: Their texts, "" where the server tells none.
        logprobs: Their log-probabilities in nats; None where there is none, as of the first.
        generated: How many at the end were generated, at most.
    """

    texts: Sequence[str]
    logprobs: Sequence[float | None]
    generated: int


def scores_of(choice: Choice, request: Request, dialect: Dialect, part: int) -> tuple[float, ...]:
    """Return the log-probabilities that an answer tells: of one continuation, or of all.

    Args:
        choice: The answer.
        request: What was asked for; `scoring` names the means.
        dialect: How the server is spoken to.
        part: Which continuation was asked about, where each takes a call.

    Raises:
        WrongShapeError: When the answer does not tell them.
    """
    if request.scoring not in PER_TEXT:
        return label_logprobs(_tops(choice, dialect), request.continuations)
    told = _echoed(choice) if request.scoring == "echo" else _prompt_tokens(choice)
    text = request.continuations[part]
    tail = text.strip() if dialect.api == "chat" else joined(text)
    return (tail_logprob(told, scored_text(request, dialect, text), tail),)


def tail_logprob(told: TokensTold, whole: str, tail: str) -> float:
    r"""Return the log-probability of `tail`, the end of the prompt, in nats.

    Args:
        told: The tokens of the prompt.
        whole: The prompt as far as it is known, `tail` included.
        tail: Its end.

    Raises:
        WrongShapeError: When the tokens do not spell it.

    Example:
        >>> tail_logprob(TokensTold(["2+2=", " 4", "\n"], [None, -0.5, -0.1], 1), "2+2= 4", " 4")
        -0.5
    """
    counted = _tail_tokens(told, whole, tail) or _tail_tokens(told, whole, tail, blanks=False)
    if not counted:
        raise WrongShapeError(f"the tokens told do not spell {tail!r} at the end of the prompt")
    values = [told.logprobs[i] for i in counted]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise WrongShapeError(f"a token of {tail!r} has no log-probability; the prompt must not be empty")
    return math.fsum(known)


def label_logprobs(tops: Iterable[tuple[str, float]], labels: Sequence[str]) -> tuple[float, ...]:
    """Return the log-probability of each label being the first token, in nats; see the module for those not told.

    Args:
        tops: The likeliest tokens with their log-probabilities.
        labels: The labels; blanks around them do not count.

    Raises:
        NoLabelError: When none of the labels is among the tokens.

    Example:
        >>> label_logprobs([("A", -1.0), (" A", -1.0), ("The", -3.0)], ["A", "B"])[1]
        -4.0
    """
    told: dict[str, list[float]] = {}
    lowest = 0.0
    for token, value in tops:
        told.setdefault(token.translate(_BLANKS).strip(), []).append(value)
        lowest = min(lowest, value)
    names = [label.strip() for label in labels]
    if not any(name in told for name in names):
        raise NoLabelError(f"none of the labels {', '.join(names)} is among the likeliest first tokens: {list(told)}")
    return tuple(_log_sum(told[name]) if name in told else lowest - 1 for name in names)


class NoLabelError(Exception):
    """The model would begin with something else than a label."""


def untold(choice: Choice, dialect: Dialect, labels: Sequence[str]) -> list[str]:
    """Return the labels that are not among the likeliest first tokens."""
    told = {token.translate(_BLANKS).strip() for token, _ in _tops(choice, dialect)}
    return [label for label in labels if label.strip() not in told]


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _tail_tokens(told: TokensTold, whole: str, tail: str, *, blanks: bool = True) -> list[int]:
    """Return the places of the tokens of `tail`; none when the tokens do not spell it."""
    texts = [_compared(text, blanks=blanks) for text in told.texts]
    whole, tail = _compared(whole, blanks=blanks), _compared(tail, blanks=blanks)
    spelt = "".join(texts)
    place = spelt.find(whole)
    if place >= 0 and whole != tail:
        end = place + len(whole)
    else:
        # The text of the first token may not be told, and on chat only the tail is known.
        prompt = texts[: len(texts) - told.generated]
        end = len("".join(prompt))
        if not spelt[:end].endswith(tail):
            return []
    start, begins, counted = end - len(tail), 0, list[int]()
    for i, text in enumerate(texts):
        ends = begins + len(text)
        inside = begins < end and (ends > start if text else begins > start or (blanks and begins == start and i > 0))
        if inside:
            counted.append(i)
        begins = ends
    return counted


def _compared(text: str, *, blanks: bool) -> str:
    return text if blanks else "".join(text.translate(_BLANKS).split())


def _tops(choice: Choice, dialect: Dialect) -> list[tuple[str, float]]:
    logprobs = choice.first.get("logprobs")
    listed = (
        logprobs.get("content" if dialect.api == "chat" else "top_logprobs") if isinstance(logprobs, dict) else None
    )
    first = listed[0] if isinstance(listed, list) and listed else None
    if dialect.api == "chat":
        tops = first.get("top_logprobs") if isinstance(first, dict) else None
        pairs = [(top.get("token"), top.get("logprob")) for top in tops or () if isinstance(top, dict)]
    else:
        pairs = list(first.items()) if isinstance(first, dict) else []
    found = [(token, float(value)) for token, value in pairs if isinstance(token, str) and _is_number(value)]
    if not found:
        raise WrongShapeError("no likeliest tokens were told")
    return found


def _echoed(choice: Choice) -> TokensTold:
    logprobs = choice.first.get("logprobs")
    texts = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        raise WrongShapeError("no tokens of the prompt were told")
    generated = usage_of(choice.body).tokens_out
    return TokensTold(
        [text if isinstance(text, str) else "" for text in texts],
        [float(value) if _is_number(value) else None for value in values],
        1 if generated is None else min(generated, len(texts)),
    )


def _prompt_tokens(choice: Choice) -> TokensTold:
    # vLLM puts them beside the choices on chat, into the choice on completions.
    listed = choice.first.get("prompt_logprobs", choice.body.get("prompt_logprobs"))
    if not isinstance(listed, list) or not listed:
        raise WrongShapeError("no log-probabilities of the prompt were told")
    texts: list[str] = []
    values: list[float | None] = []
    for position in listed:
        # The token that was read comes first, before any likelier ones.
        told = next(iter(position.values()), None) if isinstance(position, dict) else None
        text, value = (told.get("decoded_token"), told.get("logprob")) if isinstance(told, dict) else ("", None)
        texts.append(text if isinstance(text, str) else "")
        values.append(float(value) if _is_number(value) else None)
    return TokensTold(texts, values, 0)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value)
