"""Hf: causal language models in this process, through transformers, with LoRA adapters through peft.

Any stock causal model by its name on the hub or its folder; code that comes with a checkpoint is never run. Adapters
share their base, which is loaded once; one that would change its base (biases, embeddings, PiSSA) gets a base of its
own. Needs the extra `hf`.

Prompts are laid out by the model's own chat template, by the agent's, or as plain text. A template writes its special
tokens itself; before plain text goes what the tokeniser puts there. `extra: {chat_template_kwargs: {...}}` goes to the
template.

Options are scored by the sum of their tokens' log-probabilities ("exact"), whatever their length. After a plain prompt
an option follows one blank, after a template's generation prompt nothing, and both are divided into prompt and option
as lm-evaluation-harness does it.

Sampling depends on the request alone: a row's numbers come from its own seed, so a batch of 1 and a batch of 8 draw the
same. Sampling defaults that come with a checkpoint are ignored, its end-of-text tokens are not. In bfloat16 and float16
rounding differs between batches, which can turn a close choice; float32 does not show it in practice.

`seconds` of a completion is the wall time of the batches that it was in, so times of one batch are not to be summed. A
prompt and its answer must fit the model's context: a longer prompt fails, a longer answer is cut at its end.

Example:
    >>> Hf(batch_size=16, dtype="bfloat16")
    Hf(device='auto', dtype='bfloat16', batch_size=16, max_models=1, attn='auto', threads=None)
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge

from fusion.agents._hf_examine import Scales, findings
from fusion.agents._hf_library import Dtype, Settings
from fusion.agents._hf_prompt import encode, render, template_of
from fusion.agents._hf_run import Answer, Runner
from fusion.agents._key import sha256
from fusion.agents._tokens import SCORING
from fusion.agents._worker import Worker
from fusion.errors import EngineError
from fusion.schema import Completion, Finding, Json, Request

__all__ = ["Hf"]


@dataclass(kw_only=True)
class Hf:
    """The engine of models in this process.

    Args:
        device: "auto" for the accelerator where there is one, else "cpu", "cuda", "cuda:1", "mps".
        dtype: Number format to compute in; "auto" for the checkpoint's own.
        batch_size: Most rows that are answered at a time; halved where memory does not suffice.
        max_models: Base models that stay loaded; the least recently used goes first.
        attn: Attention kernel; "auto" leaves it to transformers.
        threads: Threads on a processor; None for torch's own choice, all cores. Small models are fastest with 1, most
            of all where other work runs beside them.
    """

    device: str = "auto"
    dtype: Dtype = "auto"
    batch_size: Annotated[int, Ge(1)] = 8
    max_models: Annotated[int, Ge(1)] = 1
    attn: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    threads: Annotated[int, Ge(1)] | None = None
    _runner: Runner = field(default_factory=Runner, init=False, repr=False, compare=False)
    _worker: Worker[Answer] = field(default_factory=Worker, init=False, repr=False, compare=False)
    _scales: Scales = field(default_factory=Scales, init=False, repr=False, compare=False)
    _identities: dict[tuple[object, ...], dict[str, Json]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return the number format, the template and the content of model and adapter.

        The content of what is on the hub is its commit; of a folder it is a hash over its files, in which weights of
        256 MiB and more count by their size and date only.

        Raises:
            EngineError: When the model or adapter cannot be found.
            MissingDependency: When a package is not installed.
        """
        key = (request.model, request.revision, request.adapter, request.template, self.dtype)
        known = self._identities.get(key)
        if known is None:
            card, adapter = self._runner.library.card(request), self._runner.library.adapter(request)
            template = template_of(card, request)
            known = self._identities[key] = {
                "engine": "hf",
                "dtype": card.dtype(self.dtype),
                "template": "plain" if template is None else sha256(template),
                "weights": card.place.fingerprint,
                "adapter": adapter.place.fingerprint if adapter else None,
            }
        return known

    def render(self, request: Request) -> str:
        """Return the prompt as the model reads it, but for a BOS token that the tokeniser puts before plain text.

        Raises:
            EngineError: When the model cannot be found, or its template refuses the conversation.
            ConfigError: When `extra` has fields that are not known.
            MissingDependency: When a package is not installed.
        """
        return render(self._runner.library.card(request), request).text

    async def scoring(self, request: Request) -> str | None:
        """Return "exact": log-probabilities of continuations of any length."""
        return SCORING

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer batch by batch; requests of one model are answered together, whatever their order.

        Calls of several tasks are answered one after another. Closing the generator stops the batch at its next token.

        Raises:
            EngineError: When no request's model can be found or loaded.
            MissingDependency: When a package is not installed.
        """
        if not requests:
            return
        work = partial(self._runner.answer, self._settings(), tuple(requests))
        async with aclosing(self._worker.stream(work)) as answers:
            async for answer in answers:
                yield answer

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Look at model, adapter, template, lengths and memory, without loading weights."""
        settings = self._settings()
        return await self._worker.call(lambda: self._examine(request, settings))

    def prompt_tokens(self, request: Request) -> int | None:
        """Return how many tokens the prompt has, exactly.

        Raises:
            EngineError: As `render`.
            ConfigError: As `render`.
            MissingDependency: As `render`.
        """
        return len(encode(self._runner.library.card(request), request).prompt)

    def memory_bytes(self, request: Request) -> int | None:
        """Return about how many bytes the weights, and keys and values of a full batch, take.

        Raises:
            EngineError: When the model cannot be found, or is not a causal language model.
            MissingDependency: When a package is not installed.
        """
        library = self._runner.library
        card, adapter = library.card(request), library.adapter(request)
        try:
            encoded = encode(card, request)
        except EngineError:
            encoded = None
        return sum(self._scales.size(card, adapter, encoded, request, self._settings()))

    async def aclose(self) -> None:
        """Cancel what runs, give the models' memory back and end the thread."""
        await self._worker.close(self._runner.close)
        self._runner.library.clear()
        self._identities.clear()

    def _settings(self) -> Settings:
        return Settings(self.device, self.dtype, self.batch_size, self.max_models, self.attn, self.threads)

    def _examine(self, request: Request, settings: Settings) -> Sequence[Finding]:
        return tuple(
            findings(self._runner.library, self._scales, request, settings, loaded=self._runner.holds(request))
        )
