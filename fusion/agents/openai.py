"""Any OpenAI-compatible endpoint: OpenAI itself, vLLM, SGLang, llama.cpp, providers.

Requests go out `concurrency` at a time, over connections that are kept, and are sent again with growing waits when the
server is busy (408, 409, 425, 429, 5xx), unreachable, hangs up or answers something that is no answer. `Retry-After` is
the least that is waited, and a 429 makes all requests of the engine wait. What is final for one request is the status
of its completion; a refused key, a missing model or an empty account stop everything with an EngineError. Closing the
generator closes the connections, by which servers notice that nobody waits any more.

What is sent: model (the adapter's name when there is one: vLLM serves adapters as models), messages or the plain
prompt, max_tokens, temperature, top_p; seed, stop, top_k and chat_template when set. The last two are extensions of
vLLM and SGLang; vLLM takes a template only when started with --trust-request-chat-template. `extra` is merged last and
wins; null takes a field away, such as temperature for models that refuse it. The revision is not sent. vLLM fills what
is not sent (top_k, repetition_penalty) from the model's generation_config.json unless it is started with
--generation-config vllm.

Options are scored by the best means that a probe finds: on the completions API prompt_logprobs (vLLM), echo, or the
likeliest 5 first tokens; on chat the likeliest 20 (else 5) first tokens for labels of one or two characters, or
prompt_logprobs of a turn to continue (vLLM). On the completions API a continuation follows the plain prompt after one
blank, on chat it starts the assistant's turn. Among likeliest tokens, those that differ by blanks are summed; a label
that is not told gets the smallest log-probability told minus 1, a stand-in: no more is known than that it is below the
smallest; a request none of whose labels is told is `empty`. Sampling parameters other than temperature are not sent
with scored requests.

Proxies come from the environment (HTTPS_PROXY, NO_PROXY), but a server on this machine is asked directly.

Example:
    >>> from fusion.schema import Message, Request
    >>> engine = Openai(base_url="http://localhost:8000/v1")
    >>> request = Request(question_id="q", messages=(Message("user", "A or B?"),), model="qwen3-4b")
    >>> engine.identity(request)["server"]
    'localhost:8000/v1'
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt

from fusion.agents._http_retry import Limits
from fusion.agents._openai_body import MEANS, PER_TEXT, Api, Dialect, is_labels, served_name
from fusion.agents._prompt import plain_prompt
from fusion.errors import InvalidSpec
from fusion.schema import Completion, Finding, Json, Request

if TYPE_CHECKING:
    from fusion.agents._openai_endpoint import Endpoint

__all__ = ["Openai"]


@dataclass(kw_only=True)
class Openai:
    """The engine that asks a server.

    Args:
        base_url: Where the API is, without user name, password or query.
        api: "chat" (/chat/completions, the server applies the template) or "completions" (/completions, plain text).
        api_key_env: Name of the environment variable that holds the key. None: OPENAI_API_KEY when it is set, over
            https or to this machine.
        served_as: Name of what is served, in place of the address in the record's key, so that a server that moves
            keeps its records; None for the address.
        concurrency: Requests that may be out at the same time, for all agents that share the engine.
        connect_s: Seconds to make a connection.
        read_s: Seconds of silence after which an attempt is given up; tried again once.
        total_s: Seconds for all attempts and waits of a request, from its first sending on.
        retries: Times that a failed request is sent again.
        backoff_s: Bound of the random wait before the first retry; it doubles with every further one, up to 30 s.
        score_by: How options are scored: "auto" finds out, "none" (or None) never does, else the name of a means.
        max_tokens_field: Name of the field for the most tokens; newer OpenAI models want "max_completion_tokens".
        think_end: Text that ends reasoning within an answer: what stands before the last one is no part of the answer.
            "" leaves answers as they are.

    Raises:
        InvalidSpec: When base_url is not the address of a server, or the API has no such means to score.
    """

    base_url: str = "https://api.openai.com/v1"
    api: Api = "chat"
    api_key_env: str | None = None
    served_as: str | None = None
    concurrency: Annotated[int, Ge(1)] = 16
    connect_s: Annotated[float, Gt(0)] = 10.0
    read_s: Annotated[float, Gt(0)] = 120.0
    total_s: Annotated[float, Gt(0)] = 600.0
    retries: Annotated[int, Ge(0)] = 5
    backoff_s: Annotated[float, Gt(0)] = 0.5
    score_by: Literal["auto", "none", "prompt_logprobs", "echo", "top_logprobs", "top_logprobs_5"] | None = "auto"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    think_end: str = "</think>"

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            sound = False
        if not sound or "@" in parts.netloc or parts.query or parts.fragment:
            # It is not repeated here, as it may hold a password.
            raise InvalidSpec(
                "base_url must be the address of an API such as http://localhost:8000/v1, without user name, "
                "password, query or fragment; keys belong in an environment variable (api_key_env)"
            )
        offered = ("auto", "none", None, *MEANS[self.api])
        if self.score_by not in offered:
            raise InvalidSpec(f"the {self.api} API can score by {', '.join(MEANS[self.api])}, got {self.score_by!r}")
        standard = {"http": 80, "https": 443}[parts.scheme]
        port = "" if parts.port in (None, standard) else f":{parts.port}"
        self._address = f"{parts.hostname}{port}{parts.path.rstrip('/')}"
        self._made: Endpoint | None = None
        self._found: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return server (`served_as` or address), API, template, and what reads the answers."""
        template = "plain" if self.api == "completions" else "server"
        if request.template and self.api == "chat":
            template = hashlib.sha256(request.template.encode("utf-8", "surrogatepass")).hexdigest()
        return {
            "engine": "openai",
            "server": self._address if self.served_as is None else self.served_as,
            "api": self.api,
            "template": template,
            "max_tokens_field": self.max_tokens_field,
            "think_end": self.think_end,
        }

    def render(self, request: Request) -> str:
        """Return the plain prompt on the completions API, "" on chat, where the server renders it."""
        return plain_prompt(request.messages) if self.api == "completions" else ""

    async def scoring(self, request: Request) -> str | None:
        """Return the means; asks the server once for each model and kind of continuations: labels or texts.

        Raises:
            EngineError: When the server cannot be asked.
        """
        labels = is_labels(request.continuations)
        if self.score_by in ("none", None) or not request.continuations:
            return None
        if self.score_by != "auto":
            return self.score_by if labels or self.score_by in PER_TEXT else None
        # Whether a label of two characters is one token depends on the label.
        long = sorted({text.strip() for text in request.continuations if len(text.strip()) > 1}) if labels else ["text"]
        kind = (served_name(request), tuple(long))
        if kind not in self._found:
            from fusion.agents._openai_probe import best_means

            self._found[kind] = await best_means(self._endpoint, request)
        return self._found[kind]

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Ask the server.

        Raises:
            EngineError: When it refuses the key, has no such model, or cannot be asked with such a template.
        """
        return self._endpoint.generate(requests)

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Find out whether there is a key, the server answers and lists the model, and its clock agrees."""
        from fusion.agents._openai_probe import examine

        return await examine(self._endpoint, request)

    def prompt_tokens(self, request: Request) -> int | None:
        """Return None: only the server knows."""
        return None

    def memory_bytes(self, request: Request) -> int | None:
        """Return None: the memory is the server's."""
        return None

    async def aclose(self) -> None:
        """Close the connections that belong to the running event loop."""
        if self._made is not None:
            await self._made.aclose()

    @property
    def _endpoint(self) -> Endpoint:
        if self._made is None:
            # httpx costs 0.1 s to import, and listing engines imports this file.
            from fusion.agents._openai_endpoint import Endpoint

            self._made = Endpoint(
                self.base_url.rstrip("/"),
                dialect=Dialect(api=self.api, max_tokens_field=self.max_tokens_field, think_end=self.think_end),
                limits=Limits(
                    concurrency=self.concurrency,
                    connect_s=self.connect_s,
                    read_s=self.read_s,
                    total_s=self.total_s,
                    retries=self.retries,
                    backoff_s=self.backoff_s,
                ),
                key_env=self.api_key_env,
            )
        return self._made
