"""Conversations as the text, and the tokens, that a model reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fusion.agents._hf_library import Card, first_line
from fusion.agents._prompt import plain_prompt
from fusion.errors import ConfigError, EngineError
from fusion.schema import Message, Request

_EXTRA = "chat_template_kwargs"


class Prompt(NamedTuple):
    """A prompt as text.

    Attributes:
        text: As the model reads it, but for the BOS token, which the tokeniser puts before plain text.
        plain: Whether no template laid it out.
    """

    text: str
    plain: bool


class Encoded(NamedTuple):
    """A prompt, and what may follow it, as tokens.

    Attributes:
        prompt: Tokens of the prompt, at least one.
        continuations: Tokens of each continuation, at least one each.
    """

    prompt: list[int]
    continuations: list[list[int]]


def template_of(card: Card, request: Request) -> str | None:
    """Return the chat template that lays out `request`; None when it is laid out as plain text.

    Raises:
        EngineError: When the model has several templates and none of them is the default.
    """
    if request.template is not None:
        return request.template or None
    if not card.tokenizer.chat_template:
        return None
    try:
        return card.tokenizer.get_chat_template()
    except ValueError as error:
        raise EngineError(f"model {card.name!r}: {first_line(error)}; give the agent a template") from error


def render(card: Card, request: Request) -> Prompt:
    """Return the prompt of `request` as text.

    A template that refuses a system prompt, or leaves it out, gets it at the head of the first question instead.

    Raises:
        ConfigError: When `request.extra` has fields that are not known.
        EngineError: When the template cannot be read or refuses the conversation.
    """
    template, fields = template_of(card, request), _template_fields(request)
    if template is None:
        return Prompt(plain_prompt(request.messages), plain=True)
    text = _fill(card, template, request.messages, fields)
    system = next((message.content.strip() for message in request.messages if message.role == "system"), "")
    if isinstance(text, EngineError) or system not in text:
        merged = _without_system(request.messages)
        retried = _fill(card, template, merged, fields) if merged else None
        if isinstance(retried, str) and system in retried:
            return Prompt(retried, plain=False)
    if isinstance(text, EngineError):
        raise text
    return Prompt(text, plain=False)


def encode(card: Card, request: Request) -> Encoded:
    """Return `request` as tokens.

    After a plain prompt a continuation follows one blank, and blanks at the end of the prompt count to the
    continuation; after a template's generation prompt it follows directly. Prompt and continuation are encoded
    together and divided where the prompt alone would end, as lm-evaluation-harness does it; where the two share a
    token, which no dividing could undo, the continuation is encoded by itself.

    Raises:
        ConfigError: As `render`.
        EngineError: As `render`, and when a continuation, or a prompt without a BOS token, is empty.
    """
    prompt = render(card, request)
    prefix = _prefix(card, prompt)
    text, gap = prompt.text, ""
    if prompt.plain and request.continuations:
        text = prompt.text.rstrip()
        gap = prompt.text[len(text) :] + " "
    endings = [gap + continuation for continuation in request.continuations]
    with card.lock:
        tokenize = card.tokenizer
        head = tokenize(text, add_special_tokens=False).input_ids
        wholes = [tokenize(text + ending, add_special_tokens=False).input_ids for ending in endings]
        tails = [
            whole[len(head) :] if whole[: len(head)] == head else tokenize(ending, add_special_tokens=False).input_ids
            for whole, ending in zip(wholes, endings, strict=True)
        ]
    ids = head if tuple(head[: len(prefix)]) == prefix else [*prefix, *head]
    if not ids:
        raise EngineError(f"the prompt is empty, and model {card.name!r} has no BOS token to start from; ask something")
    for tail, continuation in zip(tails, request.continuations, strict=True):
        if not tail or not continuation:
            raise EngineError(f"the continuation {continuation!r} has no tokens; give every option a text")
    return Encoded(ids, tails)


def decode(card: Card, ids: Sequence[int]) -> str:
    """Return the text of tokens, special ones left out."""
    with card.lock:
        text = card.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str), "one sequence of tokens is one text"
    return text


def special_tokens(card: Card, texts: Sequence[str]) -> frozenset[int]:
    """Return the tokens that are spelled like one of the texts and that `decode` may leave out."""
    if not texts:
        return frozenset()
    with card.lock:
        added = card.tokenizer.get_added_vocab()
    return frozenset(added[text] for text in texts if text in added)


def _prefix(card: Card, prompt: Prompt) -> tuple[int, ...]:
    # A template writes the special tokens itself; what the tokeniser adds would come twice.
    if not prompt.plain:
        return ()
    if card.prefix or prompt.text.strip():
        return card.prefix
    start = next((i for i in (card.tokenizer.bos_token_id, card.tokenizer.eos_token_id) if i is not None), None)
    return () if start is None else (start,)


def _template_fields(request: Request) -> dict[str, Any]:
    fields = request.extra.get(_EXTRA, {})
    unknown = sorted(set(request.extra) - {_EXTRA})
    if unknown or not isinstance(fields, dict):
        raise ConfigError(
            f"extra of an agent on the engine hf may hold {_EXTRA}, an object that goes to the chat template; got "
            f"{', '.join(unknown) or repr(fields)}"
        )
    return fields


def _fill(card: Card, template: str, messages: Sequence[Message], fields: dict[str, Any]) -> str | EngineError:
    """Return the text, or why there is none."""
    from jinja2 import TemplateError

    turns = [message._asdict() for message in messages]
    try:
        with card.lock:
            text = card.tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=True, **fields
            )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        return EngineError(
            f"the chat template of model {card.name!r} cannot lay out a conversation of the roles "
            f"{', '.join(message.role for message in messages) or 'of nobody'}: {first_line(error)}. Change the "
            'conversation, or give the agent a template of its own ("" for plain text)'
        )
    assert isinstance(text, str), "one conversation is one text"
    return text


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with its system prompt at the head of the first question; empty when it has none."""
    if not messages or messages[0].role != "system":
        return []
    system, rest = messages[0].content, list(messages[1:])
    if rest and rest[0].role == "user":
        return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]
    return [Message("user", system), *rest]
