"""Requests as tokens and tokens as completions: what every engine has in common that lays out prompts itself."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from fusion.agents._hf_library import Card
from fusion.agents._hf_prompt import encode
from fusion.errors import EngineError
from fusion.schema import Completion, Request, Usage

SCORING = "exact"
"""Log-probabilities of continuations of any length, summed over their tokens."""


class Prepared(NamedTuple):
    """A request as tokens.

    Attributes:
        prompt: Tokens of the prompt, at least one.
        continuations: Tokens of each continuation to score; empty to generate.
        room: Most tokens to write, at least 1.
    """

    prompt: list[int]
    continuations: list[list[int]]
    room: int


class Written(NamedTuple):
    """An answer that was written.

    Attributes:
        text: Up to the stop text, special tokens left out.
        num_tokens: Tokens written, the one that ended the answer included.
        finish: "stop" at the end of the answer or at a stop text, "length" when there was no more room.
    """

    text: str
    num_tokens: int
    finish: Literal["stop", "length"]


def prepare(request: Request, card: Card, *, context: int | None) -> Prepared:
    """Return `request` as tokens.

    Args:
        request: What is asked.
        card: The model.
        context: Most tokens that prompt and answer may have together; None when there is no limit.

    Raises:
        EngineError: When the model cannot be asked this: the prompt is too long, or not of its vocabulary.
        ConfigError: When `extra` has fields that are not known.
    """
    if request.continuations and request.scoring not in ("", SCORING):
        raise EngineError(f"the engine scores by {SCORING!r} means, not by {request.scoring!r}")
    if request.max_tokens < 1:
        raise EngineError(f"max_tokens must be at least 1, got {request.max_tokens}")
    prompt, continuations = encode(card, request)
    highest = max(token for tokens in (prompt, *continuations) for token in tokens)
    if card.vocabulary is not None and highest >= card.vocabulary:
        raise EngineError(
            f"the tokeniser of model {card.name!r} gives token {highest} and the model knows {card.vocabulary} tokens; "
            "use the tokeniser that the model was trained with"
        )
    # The last token of a continuation is predicted, never read; an answer wants room for one token at least.
    wanted = max(len(tokens) for tokens in continuations) - 1 if continuations else 1
    if context is not None and len(prompt) + wanted > context:
        longest = f", its longest continuation {wanted + 1}" if continuations else ""
        raise EngineError(
            f"the prompt has {len(prompt)} tokens{longest}, and the context of model {card.name!r} is {context} "
            "tokens for prompt and answer together; put fewer examples in the prompt or choose a model with a longer "
            "context"
        )
    room = request.max_tokens if context is None else min(request.max_tokens, context - len(prompt))
    return Prepared(prompt, continuations, room)


def ended(text: str, num_tokens: int, finish: Literal["stop", "length"], stops: Sequence[str]) -> Written:
    """Return an answer, cut off at the first stop text.

    Args:
        text: All of it, the token that ended it left out.
        num_tokens: Tokens written.
        finish: Why the model left off.
        stops: Texts at which an answer ends.
    """
    cuts = [cut for stop in stops if (cut := text.find(stop)) >= 0]
    return Written(text[: min(cuts)], num_tokens, "stop") if cuts else Written(text, num_tokens, finish)


def as_written(prepared: Prepared, card: Card, answer: Written, *, seconds: float) -> Completion:
    """Return the completion of a request that was answered by writing; `seconds` is what it took."""
    blank = not answer.text.strip()
    return Completion(
        status="truncated" if answer.finish == "length" else "empty" if blank else "ok",
        text="" if blank else answer.text,
        usage=Usage(tokens_in=len(prepared.prompt), tokens_out=answer.num_tokens),
        seconds=seconds,
        finish_reason=answer.finish,
        served_by=card.name,
    )


def as_scored(
    prepared: Prepared, card: Card, texts: Sequence[str], logprobs: Sequence[float], *, seconds: float
) -> Completion:
    """Return the completion of a request whose continuations were scored.

    Args:
        prepared: The request as tokens.
        card: The model.
        texts: The continuations.
        logprobs: Of each, in nats.
        seconds: What it took.
    """
    text = texts[logprobs.index(max(logprobs))]
    blank = not text.strip()
    return Completion(
        status="empty" if blank else "ok",
        text="" if blank else text,
        option_logprobs=None if blank else tuple(logprobs),
        usage=Usage(tokens_in=len(prepared.prompt), tokens_out=0),
        seconds=seconds,
        finish_reason="scored",
        served_by=card.name,
    )
