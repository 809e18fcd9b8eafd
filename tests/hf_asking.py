"""Asking the in-process engine, and computing the same with transformers alone."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import quiet
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from fusion.agents.hf import Hf
from fusion.schema import Completion, Message, Request

TEXTS = (
    "The capital of",
    "Question: what is two and two? Answer: four. Question: what is",
    "A. one\nB. two",
    "The",
    "Which of these is the capital of Spain? Rome? Paris? one, two, three or four?",
    "Answer",
)
SINGLE = ("A", "B", "four", "is")
"""Options of one token each."""
OPTIONS = ("A", "Paris is the capital", "four and two", "B")


def asked(text: str, model: Path | str, **fields: Any) -> Request:
    fields = {"max_tokens": 12, **{key: str(value) if key == "adapter" else value for key, value in fields.items()}}
    return Request(question_id="q", messages=(Message("user", text),), model=str(model), **fields)


def scored(text: str, model: Path | str, options: Sequence[str] = OPTIONS, **fields: Any) -> Request:
    return asked(text, model, continuations=tuple(options), scoring="exact", **fields)


def of_length(num_tokens: int) -> str:
    """Return a text of so many tokens, <s> included."""
    return " A" * (num_tokens - 1)


async def collect(engine: Hf, requests: Sequence[Request]) -> list[Completion]:
    found: dict[int, Completion] = {}
    async with aclosing(engine.generate(requests)) as answers:
        async for index, completion in answers:
            assert index not in found, "each index once"
            found[index] = completion
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def answers(requests: Sequence[Request], **fields: Any) -> list[Completion]:
    """Return the answers of a fresh engine, in order."""

    async def run() -> list[Completion]:
        engine = Hf(**fields)
        try:
            return await collect(engine, requests)
        finally:
            await engine.aclose()

    return asyncio.run(run())


def loaded(folder: Path) -> tuple[Any, Any]:
    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def by_hand(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> float:
    """Return the log-probability of a continuation by the definition, from one unpadded row."""
    ids = [*prompt, *continuation]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[t - 1, ids[t]]) for t in range(len(prompt), len(ids)))


def findings(engine: Hf, request: Request) -> list[tuple[str, str]]:
    return [(finding.level, finding.what) for finding in asyncio.run(engine.examine(request))]


def greedy(model: Any, words: Any, prompt: Sequence[int], max_tokens: int) -> str:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
    text: str = words.decode(out[0, len(prompt) :], skip_special_tokens=True)
    return text


def watch(monkeypatch: pytest.MonkeyPatch, *, before: Callable[[torch.Tensor], None] | None = None) -> list[int]:
    """Return a list that will hold how many rows each forward pass had; `before` is called with their tokens."""
    rows: list[int] = []
    forward = LlamaForCausalLM.forward

    def watched(self: LlamaForCausalLM, input_ids: torch.Tensor, **inputs: Any) -> Any:
        rows.append(len(input_ids))
        if before:
            before(input_ids)
        return forward(self, input_ids=input_ids, **inputs)

    # The engine and generate() look at the signature for what the model takes.
    watched.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    return rows


def copy_into(folder: Path, base: Path) -> None:
    folder.mkdir(parents=True)
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loads: list[str] = []
    load = AutoModelForCausalLM.from_pretrained

    def counted(source: str, **options: Any) -> Any:
        loads.append(source)
        return load(source, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    return loads
