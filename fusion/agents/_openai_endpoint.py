"""One OpenAI-compatible server: requests out, completions back."""

import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from fusion.agents._concurrent import as_done
from fusion.agents._http_caller import LOOPBACK, Caller, Headers, Sent
from fusion.agents._http_retry import Fault, Limits, WrongShapeError
from fusion.agents._openai_body import (
    PER_TEXT,
    Dialect,
    check_request,
    generation_body,
    scoring_body,
    served_name,
)
from fusion.agents._openai_reply import Choice, Reply, choice_of, reply_of, served_by, usage_of
from fusion.agents._openai_score import NoLabelError, scores_of
from fusion.errors import EngineError, suggest
from fusion.schema import Completion, Request, Usage

DEFAULT_KEY = "OPENAI_API_KEY"
_LONGEST_DETAIL = 500


class _Job(NamedTuple):
    """One call: of a request, or of the part of it that scores one continuation."""

    place: int
    part: int


class _Scored(NamedTuple):
    """What one call of a scored request gave."""

    logprobs: tuple[float, ...]
    usage: Usage
    served_by: str
    finish_reason: str


@dataclass(slots=True)
class _Parts:
    """The calls of one scored request so far."""

    missing: int
    scored: dict[int, _Scored] = field(default_factory=dict)
    attempts: int = 0
    started: float = float("inf")


@dataclass(slots=True)
class _Run:
    """One use of `generate`."""

    requests: Sequence[Request]
    headers: Headers
    parts: dict[int, _Parts] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


class Endpoint:
    """Asks one server; connections are made when they are first needed.

    Args:
        base_url: Where the API is, without a slash at the end.
        dialect: How the server is spoken to.
        limits: What a request may take.
        key_env: Name of the environment variable with the key; None for OPENAI_API_KEY, if it is set.
    """

    def __init__(self, base_url: str, *, dialect: Dialect, limits: Limits, key_env: str | None = None) -> None:
        self.base_url = base_url
        self.dialect = dialect
        self._limits = limits
        self._key_env = key_env
        self._url = base_url + ("/chat/completions" if dialect.api == "chat" else "/completions")
        self._caller = Caller(base_url, limits)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer requests as they come; closing the generator closes the connections of those still out.

        Raises:
            EngineError: When key, model or template are not accepted.
        """
        run = _Run(requests, self.headers())
        count = min(self._limits.concurrency, sum(_calls(request) for request in requests))
        async with aclosing(as_done(self._jobs(run), partial(self._work, run), at_once=count)) as answers:
            async for index, completion in answers:
                if completion is not None:
                    yield index, completion

    async def try_means(self, request: Request) -> Sent[Choice]:
        """Ask for the log-probabilities of the first continuation, or of all when one call gives all."""
        check_request(request, self.dialect)
        body = scoring_body(request, self.dialect, request.continuations[0])
        sent = await self._caller.post(self._url, body, self.headers(), self._read_choice)
        await self.raise_if_hopeless(sent.fault, request)
        return sent

    async def models(self) -> tuple[Sequence[str], str] | Fault:
        """Return the names that the server lists, and its Date header."""
        found = await self._caller.get(f"{self.base_url}/models", self.headers())
        if isinstance(found, Fault):
            return found
        listed = found[0].get("data")
        names = [model.get("id") for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
        return [name for name in names if isinstance(name, str)], found[1].get("date", "")

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._caller.aclose()

    def key(self) -> str | None:
        """Return the key to send; None for none.

        Raises:
            EngineError: When the variable that should hold it is unset, or cannot be sent.
        """
        name = self._key_env or DEFAULT_KEY
        key = os.environ.get(name, "").strip()
        if not key:
            if self._key_env:
                raise EngineError(f"the environment variable {name}, named by api_key_env, is not set; export it")
            return None
        if not (key.isascii() and key.isprintable()):
            raise EngineError(f"the environment variable {name} holds characters that no key has; export it anew")
        url = urlsplit(self.base_url)
        if not self._key_env and url.scheme == "http" and url.hostname not in LOOPBACK:
            return None
        return key

    def headers(self) -> Headers:
        """Return the headers of every request."""
        key = self.key()
        return self._caller.headers({"Authorization": f"Bearer {key}"} if key else {})

    def redacted(self, text: str) -> str:
        """Return a server's text without the key, which some servers repeat, and not at any length."""
        key = self.key()
        return (text.replace(key, "***") if key else text)[:_LONGEST_DETAIL]

    async def raise_if_hopeless(self, fault: Fault | None, request: Request) -> None:
        """Raise when no request like this one can be answered.

        Raises:
            EngineError: When the key is refused, the account is empty, or model or route are missing.
        """
        if fault is None or fault.status == "refused":
            return
        said = self.redacted(fault.detail)
        if fault.code in (401, 403):
            self._raise_refused(said)
        if fault.code == 402 or fault.word == "insufficient_quota":
            raise EngineError(f"{self.base_url} wants to be paid first ({said}); see to the account's credit")
        if fault.code == 404:
            found = await self.models()
            name = served_name(request)
            if isinstance(found, Fault):
                raise EngineError(
                    f"{self._url} was not found, or has no model {name!r} ({said}); check base_url, api and model"
                )
            if name in found[0]:
                raise EngineError(f"{self.base_url} lists the model {name!r} but refuses it at {self._url}: {said}")
            raise EngineError(f"{self.base_url} serves no model {name!r}{suggest(name, found[0])}")

    def _raise_refused(self, said: str) -> NoReturn:
        name = self._key_env or DEFAULT_KEY
        if self.key():
            raise EngineError(f"{self.base_url} refuses the key in {name} ({said}); put a valid one there")
        why = "is not set" if not os.environ.get(name) else "is not sent over plain http unless api_key_env names it"
        raise EngineError(
            f"{self.base_url} wants a key ({said}) and none was sent, as {name} {why}; "
            "set api_key_env to the name of a variable that holds one"
        )

    def _jobs(self, run: _Run) -> Iterator[_Job]:
        for index, request in enumerate(run.requests):
            for part in range(_calls(request)):
                yield _Job(index, part)

    async def _work(self, run: _Run, job: _Job) -> tuple[int, Completion | None]:
        """Make one call; no completion while other calls of the same request are out."""
        request = run.requests[job.place]
        if job.part == 0:
            check_request(request, self.dialect)
        if request.continuations and request.scoring:
            return job.place, await self._score(job, request, run)
        return job.place, await self._generate(request, run.headers)

    async def _generate(self, request: Request, headers: Headers) -> Completion:
        body = generation_body(request, self.dialect)
        sent = await self._caller.post(self._url, body, headers, self._read_reply)
        if sent.answer is None:
            return await self._failure(sent, request)
        reply = sent.answer
        return Completion(
            status=reply.status,
            text=reply.text,
            reasoning=reply.reasoning,
            usage=reply.usage,
            seconds=sent.seconds,
            finish_reason=reply.finish_reason,
            detail=self.redacted(reply.detail) if reply.detail else "",
            attempts=sent.attempts,
            served_by=reply.served_by,
        )

    async def _score(self, job: _Job, request: Request, run: _Run) -> Completion | None:
        """Make one call of a scored request; the completion when it was the last, or the first that failed."""
        if job.place in run.failed:
            return None
        parts = run.parts.setdefault(job.place, _Parts(_calls(request)))
        body = scoring_body(request, self.dialect, request.continuations[job.part])
        sent = await self._caller.post(self._url, body, run.headers, self._read_choice)
        parts.started = min(parts.started, time.monotonic() - sent.seconds)
        parts.attempts += sent.attempts
        parts.missing -= 1
        if job.place in run.failed:
            return None
        failure = await self._kept(job.part, sent, request, parts)
        if failure is not None:
            run.failed.add(job.place)
        if failure is None and parts.missing:
            return None
        del run.parts[job.place]
        return failure or _combined(request, parts)

    async def _kept(self, part: int, sent: Sent[Choice], request: Request, parts: _Parts) -> Completion | None:
        """Keep what a call told; a completion when it failed."""
        if sent.answer is None:
            failure = await self._failure(sent._replace(attempts=parts.attempts), request)
            return failure
        choice = sent.answer
        finish = choice.first.get("finish_reason")
        usage, server = usage_of(choice.body), served_by(choice.body)
        try:
            logprobs = scores_of(choice, request, self.dialect, part)
        except NoLabelError as error:
            status, detail = "empty", str(error)
        except WrongShapeError as error:
            status, detail = "http_error", f"scoring by {request.scoring}: {error}"
        else:
            parts.scored[part] = _Scored(logprobs, usage, server, finish if isinstance(finish, str) else "")
            return None
        return Completion(
            status="empty" if status == "empty" else "http_error",
            detail=self.redacted(detail),
            usage=usage,
            seconds=sent.seconds,
            attempts=parts.attempts,
            served_by=server,
        )

    async def _failure(self, sent: Sent[Reply] | Sent[Choice], request: Request) -> Completion:
        assert sent.fault is not None, "a request is answered or has failed"
        await self.raise_if_hopeless(sent.fault, request)
        return Completion(
            status=sent.fault.status,
            detail=self.redacted(sent.fault.detail),
            seconds=sent.seconds,
            attempts=sent.attempts,
        )

    def _read_reply(self, content: object) -> Reply:
        return reply_of(content, self.dialect)

    def _read_choice(self, content: object) -> Choice:
        return choice_of(content, self.dialect)


def _calls(request: Request) -> int:
    return len(request.continuations) if request.scoring in PER_TEXT and request.continuations else 1


def _combined(request: Request, parts: _Parts) -> Completion:
    scored = [parts.scored[part] for part in sorted(parts.scored)]
    logprobs = tuple(value for one in scored for value in one.logprobs)
    usages = [one.usage for one in scored]
    return Completion(
        status="ok",
        text=request.continuations[logprobs.index(max(logprobs))],
        option_logprobs=logprobs,
        usage=Usage(
            tokens_in=_sum([usage.tokens_in for usage in usages]),
            tokens_out=_sum([usage.tokens_out for usage in usages]),
            tokens_cached=_sum([usage.tokens_cached for usage in usages]),
            tokens_reasoning=_sum([usage.tokens_reasoning for usage in usages]),
        ),
        seconds=time.monotonic() - parts.started,
        finish_reason=scored[0].finish_reason,
        attempts=parts.attempts,
        served_by=scored[0].served_by,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
