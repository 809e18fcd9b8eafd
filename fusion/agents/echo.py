"""Echo: a scripted engine that needs no model; the double that tests and examples use.

A request is answered by one of `replies`, chosen by a hash of everything in it, so the same request always gets the
same answer; without replies the last message is sent back. Continuations get log-probabilities from the same hash. A
share of the requests fails, chosen by the hash too.

Example:
    >>> import asyncio
    >>> from fusion.schema import Message, Request
    >>> async def ask(engine, request):
    ...     return [completion async for _, completion in engine.generate([request])]
    >>> request = Request(question_id="q", messages=(Message("user", "A or B?"),))
    >>> asyncio.run(ask(Echo(replies=("B",)), request))[0].text
    'B'
    >>> asyncio.run(ask(Echo(fail_share=1.0, fail_status="timeout"), request))[0].status
    'timeout'
"""

import asyncio
import dataclasses
import hashlib
import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from fusion.agents._prompt import plain_prompt
from fusion.schema import Completion, Finding, Json, Request, Usage

__all__ = ["Echo"]

_Failure = Literal["empty", "refused", "timeout", "rate_limited", "http_error", "engine_error"]


@dataclass(kw_only=True)
class Echo:
    """The scripted engine.

    Args:
        replies: Texts to choose from; none sends the last message back.
        delay_s: Seconds before each answer; requests given together are answered one after another.
        fail_share: Share of the requests that fail.
        fail_status: The status of those.
    """

    replies: tuple[str, ...] = ()
    delay_s: Annotated[float, Ge(0)] = 0.0
    fail_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    fail_status: _Failure = "http_error"

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return the script: replies, share and kind of failures."""
        return {"engine": "echo", "replies": list(self.replies), "fails": [self.fail_share, self.fail_status]}

    def render(self, request: Request) -> str:
        """Return the conversation as plain text."""
        return plain_prompt(request.messages)

    async def scoring(self, request: Request) -> str | None:
        """Return "hash"."""
        return "hash"

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer by the script."""
        for index, request in enumerate(requests):
            await asyncio.sleep(self.delay_s)
            yield index, self._answer(request)

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Find nothing."""
        return ()

    def prompt_tokens(self, request: Request) -> int | None:
        """Return the number of words."""
        return len(self.render(request).split())

    def memory_bytes(self, request: Request) -> int | None:
        """Return 0."""
        return 0

    async def aclose(self) -> None:
        """Do nothing."""

    def _answer(self, request: Request) -> Completion:
        seed = _hash(request)
        if seed / 2**64 < self.fail_share:
            return Completion(status=self.fail_status, detail="scripted failure", seconds=self.delay_s)
        logprobs = None
        if request.continuations:
            shares = [1 + _hash(request, text) % 1000 for text in request.continuations]
            logprobs = tuple(math.log(share / sum(shares)) for share in shares)
            text = request.continuations[logprobs.index(max(logprobs))]
        elif self.replies:
            text = self.replies[seed % len(self.replies)]
        else:
            text = request.messages[-1].content if request.messages else ""
        words = len(text.split())
        cut = not request.continuations and words > request.max_tokens
        if cut:
            text = " ".join(text.split()[: request.max_tokens])
        return Completion(
            status="truncated" if cut else "ok" if text.strip() else "empty",
            text=text if text.strip() else "",
            option_logprobs=logprobs,
            usage=Usage(tokens_in=self.prompt_tokens(request), tokens_out=min(words, request.max_tokens)),
            seconds=self.delay_s,
            finish_reason="length" if cut else "stop",
            served_by="echo",
        )


def _hash(request: Request, salt: str = "") -> int:
    said = json.dumps([salt, dataclasses.asdict(request)], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())
