"""Asking one vLLM server: tokens in, tokens and log-probabilities out, several prompts in a call.

Prompts are laid out and tokenised here, as the engine hf does it, so the server reads the very tokens that a model in
this process would. Every sampling field is sent, as a server fills what is left out from the checkpoint.

Continuations are scored by `logprob_token_ids`: what the model gives certain tokens in the next place, whatever the
temperature. A longer one takes a prompt for each of its tokens but the first, which all share; the server's prefix
cache spares it reading them again. (`prompt_logprobs` would need one only, but ends servers that have adapters: in vLLM
0.32 the logits of a LoRA layer take one row a request.)
"""

import json
import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeGuard

from fusion.agents._concurrent import as_done
from fusion.agents._hf_library import Card
from fusion.agents._hf_prompt import decode, special_tokens
from fusion.agents._http_caller import Caller, Sent
from fusion.agents._http_retry import Fault, Limits, WrongShapeError
from fusion.agents._tokens import Prepared, as_scored, as_written, ended
from fusion.errors import EngineError
from fusion.schema import Completion, Json, Request

_MOST_TOKENS = 128
"""Tokens whose log-probabilities vLLM tells in one call."""
_SCORING: dict[str, Json] = {
    "temperature": 0.0,
    "max_tokens": 1,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
}


@dataclass(kw_only=True)
class Job:
    """A request on its way.

    Args:
        index: Its place in the caller's list.
        request: What is asked.
        card: The model.
        prepared: The request as tokens.
        ends: Tokens that end an answer.
        logprobs: Of the tokens that were told so far, by what precedes them, themselves last.
        seconds: Of its calls so far.
        attempts: Of its calls so far.
    """

    index: int
    request: Request
    card: Card
    prepared: Prepared
    ends: frozenset[int]
    logprobs: dict[tuple[int, ...], float] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0


class _Item(NamedTuple):
    """What one prompt of a call is for: an answer, or the log-probabilities of what may follow.

    Attributes:
        job: Whose it is.
        begun: Tokens of a continuation that follow the prompt.
        wanted: Tokens that may come next, whose log-probabilities are asked for; none to have an answer written.
    """

    job: Job
    begun: tuple[int, ...] = ()
    wanted: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        return [*self.job.prepared.prompt, *self.begun]


class _Call(NamedTuple):
    """Prompts that go out together, and what else is sent: the same for all of them."""

    items: Sequence[_Item]
    fields: Mapping[str, Json]


class Told(NamedTuple):
    """What a server tells of one prompt.

    Attributes:
        tokens: Written, the one that ended the answer included.
        finish: "stop" or "length"; anything else when the server broke the answer off, as it does when it dies.
        logprobs: Of the tokens that were asked for, in the first place.
    """

    tokens: Sequence[int]
    finish: str
    logprobs: Mapping[int, float]


class Client:
    """Asks one server.

    Args:
        url: Where the API is, such as http://127.0.0.1:8000/v1.
        key: What the server wants to be shown; None for nothing.
        limits: What a call may take.
        batch: Most prompts in one call.
    """

    def __init__(self, url: str, *, key: str | None, limits: Limits, batch: int) -> None:
        self.url = url
        self._caller = Caller(url, limits)
        self._headers = self._caller.headers({"Authorization": f"Bearer {key}"} if key else {})
        self._batch = min(batch, limits.concurrency)
        self._at_once = limits.concurrency // self._batch

    async def generate(self, name: str, jobs: Sequence[Job]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Yield (index, completion) as they come; closing the generator makes the server leave off.

        Args:
            name: Under which the server knows the model, or model and adapter.
            jobs: All of that model.

        Raises:
            EngineError: When the server refuses the key, or knows no such model.
        """
        calls = self._calls(jobs)
        over: set[int] = set()
        async with aclosing(as_done(calls, partial(self._ask, name), at_once=self._at_once)) as parts:
            async for found in parts:
                for index, completion in found:
                    if index not in over:
                        over.add(index)
                        yield index, completion

    async def models(self) -> Sequence[Mapping[str, object]] | Fault:
        """Return what the server lists: id, root (where it was loaded from), parent, max_model_len."""
        found = await self._caller.get(f"{self.url}/models", self._headers)
        if isinstance(found, Fault):
            return found
        listed = found[0].get("data")
        return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._caller.aclose()

    def _calls(self, jobs: Sequence[Job]) -> Iterator[_Call]:
        """Yield the calls: prompts that want the same are sent together, neighbours in length as far as possible."""
        wanted: dict[str, tuple[Mapping[str, Json], list[_Item]]] = {}
        for job in jobs:
            for item, fields in _items(job):
                wanted.setdefault(repr(sorted(fields.items())), (fields, []))[1].append(item)
        for fields, items in wanted.values():
            queue = iter(sorted(items, key=lambda item: -len(item.tokens)))
            while batch := list(islice(queue, self._batch)):
                yield _Call(batch, fields)

    async def _ask(self, name: str, call: _Call) -> list[tuple[int, Completion]]:
        body: dict[str, Json] = {"model": name, "prompt": [[*item.tokens] for item in call.items], **call.fields}
        content = json.dumps(body, separators=(",", ":")).encode("ascii")
        sent = await self._caller.post(f"{self.url}/completions", content, self._headers, partial(_read, call))
        if sent.answer is None:
            assert sent.fault is not None, "a call is answered or has failed"
            return await self._failed(name, call, sent, sent.fault)
        found = []
        for item, told in zip(call.items, sent.answer, strict=True):
            item.job.seconds += sent.seconds
            item.job.attempts = max(item.job.attempts, sent.attempts)
            if (completion := _taken(item, told)) is not None:
                found.append((item.job.index, completion))
        return found

    async def _failed(
        self, name: str, call: _Call, sent: Sent[list[Told]], fault: Fault
    ) -> list[tuple[int, Completion]]:
        if fault.code in (401, 403):
            raise EngineError(f"{self.url} refuses the key ({fault.detail}); put the server's into api_key_env")
        if fault.code == 404:
            raise EngineError(f"{self.url} serves no model {name!r}: {fault.detail}")
        if fault.code in (400, 413, 422) and len(call.items) > 1:
            # One prompt that the server will not have must not take the others with it.
            alone = [await self._ask(name, _Call([item], call.fields)) for item in call.items]
            return [answer for answers in alone for answer in answers]
        failure = Completion(
            status=fault.status, detail=fault.detail[:500], seconds=sent.seconds, attempts=sent.attempts
        )
        return [(item.job.index, failure) for item in call.items]


def _items(job: Job) -> Iterator[tuple[_Item, Mapping[str, Json]]]:
    """Yield what has to be asked for a request, and the fields of the call that asks it."""
    prepared = job.prepared
    if not prepared.continuations:
        yield _Item(job), _writing(job)
        return
    following: dict[tuple[int, ...], set[int]] = {}
    for tokens in prepared.continuations:
        for t, token in enumerate(tokens):
            following.setdefault(tuple(tokens[:t]), set()).add(token)
    for begun, nexts in following.items():
        ordered = sorted(nexts)
        for start in range(0, len(ordered), _MOST_TOKENS):
            wanted = tuple(ordered[start : start + _MOST_TOKENS])
            yield _Item(job, begun, wanted), _SCORING | {"logprobs": len(wanted), "logprob_token_ids": [*wanted]}


def _writing(job: Job) -> dict[str, Json]:
    request = job.request
    fields: dict[str, Json] = {
        "max_tokens": job.prepared.room,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k or 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop": list(request.stop),
        "stop_token_ids": [*sorted(job.ends | special_tokens(job.card, request.stop))],
        "return_token_ids": True,
    }
    if request.temperature > 0 and request.seed is not None:
        fields["seed"] = request.seed
    return fields


def _taken(item: _Item, told: Told) -> Completion | None:
    """Keep what was told; the completion when nothing of its request is missing any more."""
    job = item.job
    request, prepared = job.request, job.prepared
    if told.finish not in ("stop", "length"):
        detail = f"the server broke the answer off (finish_reason {told.finish})"
        return Completion(status="engine_error", detail=detail, seconds=job.seconds, attempts=job.attempts)
    if not prepared.continuations:
        ends = job.ends | special_tokens(job.card, request.stop)
        tokens = told.tokens[:-1] if told.tokens and told.tokens[-1] in ends else told.tokens
        answer = ended(
            decode(job.card, tokens), len(told.tokens), "length" if told.finish == "length" else "stop", request.stop
        )
        return replace(as_written(prepared, job.card, answer, seconds=job.seconds), attempts=job.attempts)
    job.logprobs |= {(*item.begun, token): told.logprobs[token] for token in item.wanted}
    paths = [[tuple(tokens[: t + 1]) for t in range(len(tokens))] for tokens in prepared.continuations]
    if not all(place in job.logprobs for path in paths for place in path):
        return None
    logprobs = [math.fsum(job.logprobs[place] for place in path) for path in paths]
    scored = as_scored(prepared, job.card, request.continuations, logprobs, seconds=job.seconds)
    return replace(scored, attempts=job.attempts)


def _read(call: _Call, content: object) -> list[Told]:
    """Return what a response tells of each prompt of a call, in order.

    Raises:
        WrongShapeError: When it does not tell all that was asked for.
    """
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise WrongShapeError("no choices")
    by_index = {choice.get("index"): choice for choice in choices}
    if sorted(by_index, key=repr) != sorted(range(len(call.items)), key=repr) or len(choices) != len(call.items):
        raise WrongShapeError(f"{len(choices)} choices for {len(call.items)} prompts")
    return [_told(item, by_index[i]) for i, item in enumerate(call.items)]


def _told(item: _Item, choice: Mapping[str, object]) -> Told:
    tokens = choice.get("token_ids")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise WrongShapeError("no token_ids; vLLM 0.10 or newer tells them")
    logprobs = _tops(choice) if item.wanted else {}
    if not all(token in logprobs for token in item.wanted):
        raise WrongShapeError("not all of logprob_token_ids were told; vLLM 0.24 or newer tells them")
    return Told(tokens, str(choice.get("finish_reason")), logprobs)


def _tops(choice: Mapping[str, object]) -> dict[int, float]:
    logprobs = choice.get("logprobs")
    listed = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    pairs = first.items() if isinstance(first, dict) else ()
    return {
        int(name.removeprefix("token_id:")): float(value)
        for name, value in pairs
        if isinstance(name, str) and name.removeprefix("token_id:").isdigit() and _is_number(value)
    }


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value)
