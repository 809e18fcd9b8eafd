"""One member of a pool, and the requests that it makes of its engine."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fusion.errors import ConfigError
from fusion.schema import Json, Message, Question, Request, Spec

Mode = Literal["auto", "generate", "options"]
"""How an agent answers a question that has continuations: by scoring them where its engine can (`auto`; with several
samples it generates, as scores are not drawn), never (`generate`), or always (`options`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """One member of a pool.

    Args:
        name: Unique in the pool; the name of its column in a table.
        engine: Who answers for it; None when its answers are only on record.
        model: Name or path of the model, in the engine's words.
        revision: Commit, branch or tag of the model; None for its default.
        adapter: Name or path of a LoRA adapter; None for none.
        template: Chat template as Jinja text; None for the model's own, "" for none: plain text.
        system: System prompt, put before the one of the question.
        mode: How it answers questions with continuations.
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability mass to sample from, in (0, 1].
        top_k: Number of tokens to sample from; None for all.
        max_tokens: Most tokens to write, at least 1.
        stop: Texts at which writing stops.
        seed: Of its draws. Every draw of every question has a seed of its own, made from this one.
        samples: Draws per question, at least 1.
        extra: Further fields for the engine, as JSON.
        input_price: USD per million tokens read; None when unknown.
        output_price: USD per million tokens written; None when unknown.

    Raises:
        ConfigError: When a value is out of range, or several samples are to be drawn at temperature 0.
    """

    name: str
    engine: Spec | None = None
    model: str = ""
    revision: str | None = None
    adapter: str | None = None
    template: str | None = None
    system: str = ""
    mode: Mode = "auto"
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    samples: int = 1
    extra: Mapping[str, Json] = field(default_factory=dict)
    input_price: float | None = None
    output_price: float | None = None

    def __post_init__(self) -> None:
        rules = (
            (bool(self.name.strip()), "name must not be blank"),
            (0 <= self.temperature < float("inf"), f"temperature must be at least 0, got {self.temperature}"),
            (0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}"),
            (self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}"),
            (self.max_tokens >= 1, f"max_tokens must be at least 1, got {self.max_tokens}"),
            (self.samples >= 1, f"samples must be at least 1, got {self.samples}"),
            (self.samples == 1 or self.temperature > 0, "several samples at temperature 0 would all be the same"),
            (self.samples == 1 or self.mode != "options", "scored options are not drawn; take one sample, or generate"),
            *((price is None or price >= 0, f"prices must be at least 0, got {price}") for price in self.prices),
        )
        broken = [message for holds, message in rules if not holds]
        if broken:
            raise ConfigError(f"agent {self.name!r}: {'; '.join(broken)}")

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """USD per million tokens read and written."""
        return self.input_price, self.output_price

    def request(self, question: Question, *, sample: int = 0, scoring: str = "") -> Request:
        """Return what this agent asks its engine about `question`.

        Args:
            question: The question.
            sample: Number of the draw.
            scoring: By what means to score the question's continuations; "" to generate.
        """
        return Request(
            question_id=question.id,
            messages=_with_system(self.system, question.messages),
            continuations=continuations(question) if scoring else (),
            scoring=scoring,
            model=self.model,
            revision=self.revision,
            adapter=self.adapter,
            template=self.template,
            temperature=0.0 if scoring else self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            stop=self.stop,
            sample=sample,
            seed=None if scoring or self.temperature == 0 else self._seed_of(question, sample),
            extra=self.extra,
        )

    def _seed_of(self, question: Question, sample: int) -> int:
        # One seed for all questions would give all of them the same stream of random numbers, and twins in a pool
        # the same answers.
        said = f"{self.seed}/{self.name}/{question.id}/{sample}".encode()
        return int.from_bytes(hashlib.blake2b(said, digest_size=4).digest()) >> 1


def continuations(question: Question) -> tuple[str, ...]:
    """Return the texts an engine may score as answers to `question`; empty when it is open."""
    listed = question.meta.get("continuations")
    return tuple(str(text) for text in listed) if isinstance(listed, list) else ()


def _with_system(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not system:
        return messages
    if messages and messages[0].role == "system":
        return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", system), *messages)
