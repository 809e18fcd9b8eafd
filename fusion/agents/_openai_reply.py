"""What an OpenAI-compatible server answers, read into a completion."""

from typing import NamedTuple

from fusion.agents._http_retry import WrongShapeError
from fusion.agents._openai_body import Dialect
from fusion.schema import Status, Usage


class Choice(NamedTuple):
    """One decoded answer.

    Attributes:
        body: All of it.
        first: Its first choice.
        message: The message of the choice; empty on the completions API.
    """

    body: dict[str, object]
    first: dict[str, object]
    message: dict[str, object]


class Reply(NamedTuple):
    """A generated answer; the fields are those of a completion."""

    status: Status
    text: str
    reasoning: str
    usage: Usage
    finish_reason: str
    detail: str
    served_by: str


def choice_of(content: object, dialect: Dialect) -> Choice:
    """Return the first choice of an answer.

    Raises:
        WrongShapeError: When there is none.
    """
    body = _object(content, "an object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise WrongShapeError("no choices")
    first = _object(choices[0], "a choice")
    if dialect.api == "chat":
        message = _object(first.get("message"), "a message")
    elif "text" in first:
        message = {}
    else:
        raise WrongShapeError("no text")
    return Choice(body, first, message)


def reply_of(content: object, dialect: Dialect) -> Reply:
    """Read a generated answer.

    Raises:
        WrongShapeError: When it is not one.
    """
    choice = choice_of(content, dialect)
    finish = choice.first.get("finish_reason")
    finish = finish if isinstance(finish, str) else ""
    if dialect.api == "chat":
        text, reasoning = _joined_parts(choice.message.get("content")), _reasoning(choice.message)
        refusal = choice.message.get("refusal")
    else:
        text, reasoning, refusal = _joined_parts(choice.first.get("text")), "", None
    if dialect.think_end:
        thought, text = split_thought(text, dialect.think_end)
        reasoning = "\n".join(part for part in (reasoning, thought) if part)
    status: Status
    detail = ""
    if isinstance(refusal, str) and refusal:
        status, text, detail = "refused", "", refusal
    elif finish == "content_filter":
        status, text, detail = "refused", "", "the server's filter stopped the answer"
    elif finish == "length":
        status = "truncated"
    elif not text.strip():
        status, text = "empty", ""
    else:
        status = "ok"
    return Reply(status, text, reasoning, usage_of(choice.body), finish, detail, served_by(choice.body))


def split_thought(text: str, think_end: str) -> tuple[str, str]:
    r"""Return inline reasoning and what follows it.

    Everything up to the last `think_end` is reasoning, whether or not the text starts with the opening tag, which many
    chat templates put into the prompt. A text with an opening tag that is never closed is reasoning as a whole.

    Example:
        >>> split_thought("<think>2+2 is 4</think>\n\n4", "</think>")
        ('2+2 is 4', '4')
        >>> split_thought("<think>2+2", "</think>"), split_thought("4", "</think>")
        (('2+2', ''), ('', '4'))
    """
    opening = think_end.replace("/", "", 1)
    head, found, tail = text.rpartition(think_end)
    if found:
        return head.lstrip().removeprefix(opening).strip(), tail.lstrip()
    if opening != think_end and text.lstrip().startswith(opening):
        return text.lstrip().removeprefix(opening).strip(), ""
    return "", text


def usage_of(body: dict[str, object]) -> Usage:
    """Return the tokens that an answer states."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        tokens_cached=_count(read.get("cached_tokens")) if isinstance(read, dict) else None,
        tokens_reasoning=_count(written.get("reasoning_tokens")) if isinstance(written, dict) else None,
    )


def served_by(body: dict[str, object]) -> str:
    """Return model name and system fingerprint, as far as the answer states them."""
    stated = (body.get("model"), body.get("system_fingerprint"))
    return " ".join(word for word in stated if isinstance(word, str) and word)


def _reasoning(message: dict[str, object]) -> str:
    # vLLM renamed the field; providers use either, and some send both with the same text.
    for name in ("reasoning", "reasoning_content"):
        said = message.get(name)
        if isinstance(said, str) and said:
            return said
    return ""


def _joined_parts(content: object) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise WrongShapeError("the content is neither text nor parts")
    parts = []
    for part in content:
        said = part.get("text") if isinstance(part, dict) else part
        if isinstance(said, str):
            parts.append(said)
    return "".join(parts)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise WrongShapeError(f"expected {what}")
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
