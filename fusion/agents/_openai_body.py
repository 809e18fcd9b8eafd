"""What is sent to an OpenAI-compatible server: one JSON body per call."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fusion.agents._prompt import plain_prompt
from fusion.errors import EngineError
from fusion.schema import Json, Request

Api = Literal["chat", "completions"]
Means = Literal["prompt_logprobs", "echo", "top_logprobs", "top_logprobs_5"]

PER_TEXT: frozenset[str] = frozenset({"prompt_logprobs", "echo"})
"""The means that take one call for each continuation."""
MEANS: dict[Api, tuple[Means, ...]] = {
    "chat": ("top_logprobs", "top_logprobs_5", "prompt_logprobs"),
    "completions": ("prompt_logprobs", "echo", "top_logprobs"),
}
"""The means that each of the two APIs can offer, best first.

On chat the likeliest first tokens go first: one call gives all labels, and the server renders the very prompt that it
would answer, whereas templates may lay out a turn to continue differently.
"""
TOPS: dict[tuple[Api, str], int] = {
    ("chat", "top_logprobs"): 20,
    ("chat", "top_logprobs_5"): 5,
    ("completions", "top_logprobs"): 5,
}
"""How many likeliest tokens are asked for: the most that OpenAI's own API gives, and what smaller servers give."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a server is spoken to.

    Args:
        api: Which of the two APIs.
        max_tokens_field: Name of the field for the most tokens to write.
        think_end: Text that ends inline reasoning; "" to leave texts as they are.
    """

    api: Api = "chat"
    max_tokens_field: str = "max_tokens"
    think_end: str = "</think>"


def check_request(request: Request, dialect: Dialect) -> None:
    """Check that the server can be asked this.

    Raises:
        EngineError: When it cannot, whatever server it is.
    """
    if dialect.api == "chat" and request.template == "":
        raise EngineError(
            f"question {request.question_id!r}: template is '' (plain text), but chat endpoints always apply a "
            "template; use openai(api=completions), or leave template out"
        )
    if dialect.api == "completions" and request.template:
        raise EngineError(
            f"question {request.question_id!r}: a template is given, but the completions API takes plain text; "
            "use openai(api=chat) with a server that accepts chat_template, or template: ''"
        )
    if request.extra.get("stream") or request.extra.get("n", 1) not in (1, None):
        raise EngineError("extra must not contain stream or n: one request gives one whole answer")
    if request.continuations and request.scoring and request.scoring not in MEANS[dialect.api]:
        raise EngineError(
            f"the {dialect.api} API cannot score by {request.scoring!r}, only by {', '.join(MEANS[dialect.api])}"
        )


def generation_body(request: Request, dialect: Dialect) -> bytes:
    """Return the body that asks for an answer."""
    body = _start(request, dialect)
    body[dialect.max_tokens_field] = request.max_tokens
    body["temperature"] = request.temperature
    body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.top_k is not None:
        body["top_k"] = request.top_k
    return _encoded(body, request)


def scoring_body(request: Request, dialect: Dialect, continuation: str) -> bytes:
    """Return the body that asks for the log-probabilities of a continuation, or of all when the means gives all."""
    body = _start(request, dialect)
    body["temperature"] = request.temperature
    means = request.scoring
    if means in PER_TEXT:
        if dialect.api == "completions":
            body["prompt"] = scored_text(request, dialect, continuation)
        else:
            turns = body["messages"]
            assert isinstance(turns, list), "a chat has messages"
            turns.append({"role": "assistant", "content": continuation.strip()})
            body["add_generation_prompt"], body["continue_final_message"] = False, True
        if means == "echo":
            body["echo"], body["logprobs"] = True, 1
        else:
            body["prompt_logprobs"] = 0
    elif dialect.api == "completions":
        body["logprobs"] = TOPS[dialect.api, means]
    else:
        body["logprobs"], body["top_logprobs"] = True, TOPS[dialect.api, means]
    body[dialect.max_tokens_field] = 1
    return _encoded(body, request)


def scored_text(request: Request, dialect: Dialect, continuation: str) -> str:
    """Return the end of the prompt that is scored: on the completions API all of it, on chat the continuation."""
    if dialect.api == "chat":
        return continuation.strip()
    return plain_prompt(request.messages) + joined(continuation)


def joined(continuation: str) -> str:
    """Return the continuation as it follows a plain prompt: after one blank."""
    return f" {continuation.strip()}"


def _start(request: Request, dialect: Dialect) -> dict[str, Json]:
    body: dict[str, Json] = {"model": request.adapter or request.model}
    if dialect.api == "completions":
        body["prompt"] = plain_prompt(request.messages)
        return body
    turns: list[Json] = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    body["messages"] = turns
    if request.template:
        body["chat_template"] = request.template
    return body


def _encoded(body: dict[str, Json], request: Request) -> bytes:
    if request.extra:
        body.update(request.extra)
        for name, value in request.extra.items():
            if value is None:
                del body[name]
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def served_name(request: Request) -> str:
    """Return the name under which the server knows the model: the adapter's when there is one."""
    return request.adapter or request.model


def is_labels(texts: Sequence[str]) -> bool:
    """Return whether continuations are labels, of one or two characters, that a model may say in one token."""
    return all(1 <= len(text.strip()) <= 2 for text in texts)
