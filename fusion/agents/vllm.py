"""Vllm: models on vLLM servers that this engine starts and ends, or on one that runs already.

Agents that are adapters of one base share its server through multi-LoRA. Several bases of one engine share the
accelerator: they are served together, each with a share of the memory by its size, or one after another (`schedule`;
`fusion record --plan` prints which). Engines with different `devices` work side by side.

Prompts are laid out and tokenised here, exactly as the engine `hf` does it, so greedy answers in float32 are the same,
and options are scored by the same definition ("exact"); `extra` may hold chat_template_kwargs. The tokeniser is read
from the model's own files, also when the server runs elsewhere. Needs the extra `hf`; vLLM itself may be installed in a
Python environment of its own (`python`).

A server listens on this machine only, and its API under /v1 wants a key that nobody else knows. It ends with this
process, however that ends, and one that dies is started again. What it wrote is kept under
~/.local/state/fusion/servers/logs, the last 50 files.

With `url` nothing is started: the server there must list the model, under its name or where it was loaded from, and
every adapter (--enable-lora --lora-modules NAME=PATH).

Example:
    >>> Vllm(devices="0", max_model_len=4096, enforce_eager=True).schedule
    'auto'
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Interval

from fusion.agents._hf_library import Dtype, Library
from fusion.agents._hf_prompt import encode, render, template_of
from fusion.agents._key import sha256
from fusion.agents._tokens import SCORING
from fusion.errors import InvalidSpec
from fusion.schema import Completion, Finding, Json, Request

if TYPE_CHECKING:
    from fusion.agents._vllm_run import Runner

__all__ = ["Vllm"]

_OURS = frozenset(
    ("--model", "--served-model-name", "--host", "--port", "--uds", "--api-key", "--lora-modules", "--enable-lora")
)
"""Arguments of the server that are the engine's own; keys, moreover, do not belong into command lines."""


@dataclass(kw_only=True)
class Vllm:
    """The engine of vLLM servers.

    Args:
        url: A server that runs already, such as http://localhost:8000/v1; None to start servers. Everything down to
            `start_s` but `dtype` is about starting.
        api_key_env: Name of the environment variable with the key of the server at `url`; None for no key.
        dtype: Number format to compute in; "auto" for the checkpoint's own. What the server at `url` computes in.
        tensor_parallel_size: Devices over which a model is spread.
        max_model_len: Most tokens of prompt and answer; None for what the model can.
        enforce_eager: Start faster and compute slower, without compiled graphs.
        gpu_memory_utilization: Share of an accelerator's memory for all servers of this engine together.
        schedule: Whether several bases are served "together" or one after another ("sequential"); "auto" for together
            where their weights, half as much again and a GiB each fit.
        devices: Which accelerators, as in CUDA_VISIBLE_DEVICES; None for all.
        port: Where the first base's server listens, further ones on the ports that follow; None for free ones.
        python: The Python that has vLLM; None for this one.
        args: Further arguments of the server, such as [--quantization, fp8]; they enter the record's key.
        logs: Folder for what servers write.
        start_s: Seconds that a server may take to be ready.
        restarts: Times that a server that died is started again, for the calls of one `generate`.
        concurrency: Prompts that may be out at the same time.
        batch: Most prompts in one call; several come back together. A live question is a call of its own.
        read_s: Seconds for one call.

    Raises:
        InvalidSpec: When the url is not an address, or parameters contradict each other.
    """

    url: str | None = None
    api_key_env: str | None = None
    dtype: Dtype = "auto"
    tensor_parallel_size: Annotated[int, Ge(1)] = 1
    max_model_len: Annotated[int, Ge(1)] | None = None
    enforce_eager: bool = False
    gpu_memory_utilization: Annotated[float, Interval(gt=0, le=1)] = 0.9
    schedule: Literal["auto", "together", "sequential"] = "auto"
    devices: str | None = None
    port: Annotated[int, Interval(ge=1, le=65535)] | None = None
    python: str | None = None
    args: Sequence[str] = ()
    logs: str | None = None
    start_s: Annotated[float, Gt(0)] = 900.0
    restarts: Annotated[int, Ge(0)] = 3
    concurrency: Annotated[int, Ge(1)] = 256
    batch: Annotated[int, Ge(1)] = 16
    read_s: Annotated[float, Gt(0)] = 600.0

    def __post_init__(self) -> None:
        self._library = Library()
        self._made: Runner | None = None
        self._identities: dict[tuple[object, ...], dict[str, Json]] = {}
        taken = [word for word in self.args if word.partition("=")[0].replace("_", "-") in _OURS]
        if taken:
            raise InvalidSpec(f"args must not hold {', '.join(taken)}, which the engine sets itself")
        if self.url is None:
            if self.api_key_env is not None:
                raise InvalidSpec("api_key_env is for a server at url; one that is started here has a key of its own")
            return
        if not self.url.startswith(("http://", "https://")) or "@" in self.url:
            raise InvalidSpec("url must be the address of an API such as http://localhost:8000/v1, without user name")
        started = {
            name: getattr(self, name)
            for name in ("devices", "port", "python", "logs", "args")
            if getattr(self, name) not in (None, (), [])
        }
        if started:
            raise InvalidSpec(f"{', '.join(started)}: for servers that are started here, not for one at url")

    def expect(self, request: Request) -> None:
        """Take note of a model and adapter that will be asked, so that one server is started for all of them.

        What cannot be found is told when it is asked.
        """
        self._runner.expect(request)

    def placement(self, request: Request) -> str:
        """Return where the request would be answered, in words.

        Raises:
            EngineError: When the model cannot be found, or is not a causal language model.
            MissingDependency: When a package is not installed.
        """
        return self._runner.placement(request)

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return the number format, the template, the content of model and adapter, and further arguments.

        Raises:
            EngineError: When the model or adapter cannot be found.
            MissingDependency: When a package is not installed.
        """
        key = (request.model, request.revision, request.adapter, request.template)
        known = self._identities.get(key)
        if known is None:
            card, adapter = self._library.card(request), self._library.adapter(request)
            template = template_of(card, request)
            known = self._identities[key] = {
                "engine": "vllm",
                "dtype": card.dtype(self.dtype),
                "template": "plain" if template is None else sha256(template),
                "weights": card.place.fingerprint,
                "adapter": adapter.place.fingerprint if adapter else None,
                "args": list(self.args),
                # Where answers are cut off at the latest.
                "max_model_len": self.max_model_len,
            }
        return known

    def render(self, request: Request) -> str:
        """Return the prompt as the model reads it, but for a BOS token that the tokeniser puts before plain text.

        Raises:
            EngineError: When the model cannot be found, or its template refuses the conversation.
            ConfigError: When `extra` has fields that are not known.
            MissingDependency: When a package is not installed.
        """
        return render(self._library.card(request), request).text

    async def scoring(self, request: Request) -> str | None:
        """Return "exact": log-probabilities of continuations of any length."""
        return SCORING

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer batch by batch; a server is started first where none runs. Closing the generator cancels the rest.

        Raises:
            EngineError: When no request's model can be found or served; with the last lines of the server's log.
            MissingDependency: When a package is not installed.
        """
        async with aclosing(self._runner.generate(requests)) as answers:
            async for answer in answers:
                yield answer

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Look at vLLM, port, server, model, adapter, template, lengths and shares of memory; starts nothing."""
        from fusion.agents._vllm_examine import findings

        return tuple([finding async for finding in findings(self._runner, request)])

    def prompt_tokens(self, request: Request) -> int | None:
        """Return how many tokens the prompt has, exactly.

        Raises:
            EngineError: As `render`.
            ConfigError: As `render`.
            MissingDependency: As `render`.
        """
        return len(encode(self._library.card(request), request).prompt)

    def memory_bytes(self, request: Request) -> int | None:
        """Return None: the memory is the server's."""
        return None

    async def aclose(self) -> None:
        """End the servers that were started and close the connections of the running event loop."""
        if self._made is not None:
            await self._made.aclose()
        await asyncio.to_thread(self._library.clear)
        self._identities.clear()

    @property
    def _runner(self) -> "Runner":
        if self._made is None:
            # httpx costs 0.1 s to import, and listing engines imports this file.
            from fusion.agents._http_retry import Limits
            from fusion.agents._vllm_command import Settings
            from fusion.agents._vllm_run import Attached, Runner

            settings = Settings(
                dtype=self.dtype,
                tensor_parallel_size=self.tensor_parallel_size,
                max_model_len=self.max_model_len,
                enforce_eager=self.enforce_eager,
                gpu_memory_utilization=self.gpu_memory_utilization,
                schedule=self.schedule,
                port=self.port,
                devices=self.devices,
                python=self.python or sys.executable,
                args=tuple(self.args),
                start_s=self.start_s,
                logs=self.logs,
            )
            self._made = Runner(
                settings,
                self._library,
                limits=Limits(concurrency=self.concurrency, read_s=self.read_s, total_s=2 * self.read_s),
                batch=self.batch,
                restarts=self.restarts,
                attached=None if self.url is None else Attached(self.url.rstrip("/"), self.api_key_env),
            )
        return self._made
