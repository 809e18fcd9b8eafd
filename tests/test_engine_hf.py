"""The in-process engine against what transformers and peft compute by themselves, and its own promises."""

import asyncio
import collections
import gc
import importlib.util
import json
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tiny_models import CHAT, CONTEXT, NO_SYSTEM, TinyModels, quiet
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
)

from fusion import discovery
from fusion.agents._hf_write import Draft, draw
from fusion.agents.hf import Hf
from fusion.errors import ConfigError, EngineError, MissingDependency
from fusion.protocols import Engine
from fusion.schema import Completion, Message, Request, Status

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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Take one thread, as models this small lose by more, and leave what is there to no garbage collection."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


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


class TestScoring:
    def test_is_the_sum_over_tokens_of_the_definition(self, tiny: TinyModels) -> None:
        """log p("Paris is the capital" | "The capital of"), token by token from one row of logits, in nats.

        Float32 rounds logits of about 10 by 1e-6 each; 1e-4 leaves room for sums over a dozen tokens.
        """
        base = tiny.llama()
        model, words = loaded(base)
        for text, completion in zip(TEXTS, answers([scored(text, base) for text in TEXTS]), strict=True):
            prompt = words(text).input_ids
            expected = [
                by_hand(model, prompt, words(f"{text} {option}").input_ids[len(prompt) :]) for option in OPTIONS
            ]
            assert completion.option_logprobs == pytest.approx(expected, abs=1e-4)
            assert completion.status == "ok"
            assert completion.text == OPTIONS[expected.index(max(expected))]
            assert completion.usage.tokens_in == len(prompt)
            assert completion.usage.tokens_out == 0

    def test_options_of_one_token_take_one_row(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = watch(monkeypatch)
        base = tiny.llama()
        found = answers([scored(text, base, SINGLE) for text in TEXTS[:4]])
        assert rows == [4]
        model, words = loaded(base)
        for text, completion in zip(TEXTS[:4], found, strict=True):
            expected = [by_hand(model, words(text).input_ids, words(f" {option}").input_ids[1:]) for option in SINGLE]
            assert completion.option_logprobs == pytest.approx(expected, abs=1e-4)

    def test_a_prompt_is_read_once_for_all_its_options(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = watch(monkeypatch)
        answers([scored("The capital of", tiny.llama())])
        assert rows == [1, 2], "the prompt, then the rest of the two options that have more than one token"

    @pytest.mark.parametrize("kind", ["gpt2", "mistral", "mamba"])
    def test_other_kinds_of_models(self, tiny: TinyModels, kind: str) -> None:
        """Learned positions, a sliding window shorter than the prompts, and a recurrent model without a cache."""
        configs = {
            "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.3),
            "mistral": MistralConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                sliding_window=6,
                initializer_range=0.3,
            ),
            "mamba": MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3),
        }
        base = tiny.built(configs[kind], kind)
        model, words = loaded(base)
        found = answers([*(scored(text, base) for text in TEXTS), *(asked(text, base) for text in TEXTS)])
        for text, completion in zip(TEXTS, found, strict=False):
            prompt = words(text).input_ids
            expected = [
                by_hand(model, prompt, words(f"{text} {option}").input_ids[len(prompt) :]) for option in OPTIONS
            ]
            assert completion.option_logprobs == pytest.approx(expected, abs=1e-4)
        for text, completion in zip(TEXTS, found[len(TEXTS) :], strict=True):
            assert completion.text == greedy(model, words, words(text).input_ids, 12)

    def test_blanks_at_the_end_of_a_plain_prompt_count_to_the_option(self, tiny: TinyModels) -> None:
        r"""lm-evaluation-harness scores "Answer:\n" + " A" as log p("\n A" | "Answer:")."""
        base = tiny.llama()
        model, words = loaded(base)
        prompt = words("Answer:").input_ids
        expected = by_hand(model, prompt, words("Answer:\n A").input_ids[len(prompt) :])
        (completion,) = answers([scored("Answer:\n", base, ("A",))])
        assert completion.option_logprobs == pytest.approx([expected], abs=1e-4)

    def test_after_a_template_options_follow_directly(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        model, words = loaded(base)
        text = "<s><|user|>\nWhich?</s>\n<|assistant|>\n"
        prompt = words(text, add_special_tokens=False).input_ids
        expected = [by_hand(model, prompt, words(option, add_special_tokens=False).input_ids) for option in OPTIONS]
        (completion,) = answers([scored("Which?", base)])
        assert completion.option_logprobs == pytest.approx(expected, abs=1e-4)

    def test_an_option_that_shares_a_token_with_the_prompt_is_encoded_by_itself(self, tiny: TinyModels) -> None:
        """With the template "Ans", "Ans" + "wer" is the one token "Answer", which nothing can divide."""
        base = tiny.llama(bos=False)
        model, words = loaded(base)
        prompt, rest = words("Ans").input_ids, words("wer").input_ids
        assert words("Answer").input_ids[: len(prompt)] != prompt
        (completion,) = answers([scored("?", base, ("wer",), template="Ans")])
        assert completion.option_logprobs == pytest.approx([by_hand(model, prompt, rest)], abs=1e-4)

    def test_more_options_than_rows_are_scored_in_parts(self, tiny: TinyModels) -> None:
        options = [f"{word} is the capital" for word in ("Rome", "Paris", "Spain", "four", "A", "B", "one", "two", "C")]
        request = [scored("The capital of", tiny.llama(), [*options, "A"])]
        (whole,), (parts,) = answers(request, batch_size=16), answers(request, batch_size=2)
        assert whole.option_logprobs is not None
        assert parts.option_logprobs == pytest.approx(whole.option_logprobs, abs=1e-4)

    def test_means_other_than_exact_are_refused(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        good, bad = answers([scored("The", base), asked("The", base, continuations=("A",), scoring="top_logprobs")])
        assert good.status == "ok"
        assert bad.status == "engine_error"
        assert "'exact'" in bad.detail
        assert asyncio.run(Hf().scoring(scored("The", base))) == "exact"

    def test_an_empty_option_is_an_error(self, tiny: TinyModels) -> None:
        bad, good = answers([scored("The", tiny.llama(), ("A", "")), scored("The", tiny.llama(), ("A", "B"))])
        assert (bad.status, good.status) == ("engine_error", "ok")
        assert "no tokens" in bad.detail


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
    watched.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    return rows


class TestGeneration:
    def test_greedy_is_that_of_generate(self, tiny: TinyModels) -> None:
        for base in (tiny.llama(), tiny.llama(pad=False, seed=5), tiny.llama(bos=False, seed=6)):
            model, words = loaded(base)
            found = answers([asked(text, base) for text in TEXTS])
            for text, completion in zip(TEXTS, found, strict=True):
                assert completion.text == greedy(model, words, words(text).input_ids, 12)
                assert completion.usage.tokens_in == len(words(text).input_ids)
                assert completion.seconds > 0
        assert found[0].usage.tokens_out == 12
        assert (found[0].status, found[0].finish_reason) == ("truncated", "length")

    def test_batch_of_one_equals_batch_of_eight(self, tiny: TinyModels) -> None:
        """Lengths, budgets, seeds, sampled and greedy rows, scored and written requests in one call."""
        base = tiny.llama(template=CHAT, seed=2)
        plans: list[dict[str, Any]] = [{}, {"temperature": 0.8}, {"temperature": 1.5, "top_p": 0.7, "top_k": 20}]
        written = [
            asked(text, base, max_tokens=3 + 5 * n, seed=n * 10 + k, **plan)
            for n, text in enumerate(TEXTS)
            for k, plan in enumerate(plans)
        ]
        requests = [*written, *(scored(text, base) for text in TEXTS)]
        ones, eights = answers(requests, batch_size=1), answers(requests, batch_size=8)
        for one, eight in zip(ones, eights, strict=True):
            assert one.text == eight.text
            assert one.status == eight.status
            assert one.usage == eight.usage
            if one.option_logprobs is not None:
                assert eight.option_logprobs == pytest.approx(one.option_logprobs, abs=1e-4)

    def test_every_row_keeps_its_own_length(self, tiny: TinyModels) -> None:
        found = answers([asked("The capital of", tiny.llama(), max_tokens=n) for n in (1, 5, 9)])
        assert [completion.usage.tokens_out for completion in found] == [1, 5, 9]
        assert found[2].text.startswith(found[1].text)
        assert found[1].text.startswith(found[0].text)

    def test_any_of_the_end_tokens_ends_an_answer(self, tiny: TinyModels) -> None:
        """The third token of the greedy answer is made an end token, beside </s>."""
        base = tiny.llama()
        model, words = loaded(base)
        prompt = words("The capital of").input_ids
        ids = torch.tensor([prompt])
        third = model.generate(ids, max_new_tokens=3, do_sample=False)[0, -3:].tolist()
        ended = tiny.edited(base, "ended", file="generation_config.json", eos_token_id=[2, third[2]])
        completion, other = answers([asked("The capital of", ended), asked("Answer", ended)])
        assert completion.text == words.decode(third[:2], skip_special_tokens=True)
        assert (completion.status, completion.finish_reason) == ("ok", "stop")
        assert completion.usage.tokens_out == 3
        assert other.text == answers([asked("Answer", ended)])[0].text

    def test_an_answer_that_ends_at_once_is_empty(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        model, words = loaded(base)
        first = int(model(torch.tensor([words("The").input_ids])).logits[0, -1].argmax())
        silent = tiny.edited(base, "silent", file="generation_config.json", eos_token_id=first)
        (completion,) = answers([asked("The", silent)])
        assert (completion.status, completion.text) == ("empty", "")
        assert completion.usage.tokens_out == 1

    def test_sampling_defaults_of_the_checkpoint_are_ignored(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        defaults = {"do_sample": True, "temperature": 5.0, "top_k": 3, "repetition_penalty": 9.0, "max_length": 7}
        other = tiny.edited(base, "defaults", file="generation_config.json", **defaults)
        one, two = answers([asked("The capital of", base), asked("The capital of", other)])
        assert one.text == two.text

    def test_stop_texts(self, tiny: TinyModels) -> None:
        """Each row has its own; a stop text may begin and end inside tokens, and is cut off with what follows."""
        base = tiny.llama(seed=4)
        request = asked("Which of these is the", base, max_tokens=40)
        (whole,) = answers([request])
        middle = whole.text[len(whole.text) // 2 :][:4]
        cut = whole.text.find(middle)
        assert cut > 0
        requests = [request, *(asked("Which of these is the", base, max_tokens=40, stop=stop) for stop in (
            (middle,), ("never said", middle[1:]), ("never said",), (whole.text[:1],)
        ))]  # fmt: skip
        found = answers(requests)
        assert found[0].text == whole.text
        assert found[1].text == whole.text[:cut]
        assert (found[1].status, found[1].finish_reason) == ("ok", "stop")
        assert found[2].text == whole.text[: whole.text.find(middle[1:])]
        assert found[3].text == whole.text
        assert (found[4].status, found[4].text) == ("empty", "")
        assert found[1].usage.tokens_out is not None
        assert found[1].usage.tokens_out < 40, "writing stopped there"

    def test_bfloat16(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        request = scored("The capital of", base)
        (half,), (full,) = answers([request], dtype="bfloat16"), answers([request])
        assert half.option_logprobs is not None
        assert half.option_logprobs != full.option_logprobs
        # 8 bits of mantissa: about 1 % of logits near 10, in each of up to a dozen tokens.
        assert half.option_logprobs == pytest.approx(full.option_logprobs, abs=1.0)
        stored = tiny.edited(base, "half", dtype="bfloat16")
        assert Hf().identity(asked("?", stored))["dtype"] == "bfloat16"
        assert Hf(dtype="float32").identity(asked("?", stored))["dtype"] == "float32"

    def test_a_batch_takes_the_wall_time_that_it_took(self, tiny: TinyModels) -> None:
        start = time.perf_counter()
        found = answers([asked(text, tiny.llama()) for text in TEXTS])
        assert len({completion.seconds for completion in found}) == 1, "one batch"
        assert 0 < found[0].seconds < time.perf_counter() - start


class TestSampling:
    def test_draw_gives_every_token_its_share_of_the_numbers(self) -> None:
        """Numbers (i + 1/2) / 1000 in [0, 1): token k is drawn within 1 of 1000 p_k times, p = softmax(logits / T)."""
        logits = torch.tensor([2.0, -1.0, 0.5, 1.0, -4.0], dtype=torch.float64)
        for temperature in (0.5, 1.0, 2.0):
            counts = drawn(logits, temperature=temperature)
            expected = (logits / temperature).softmax(-1) * 1000
            assert counts == pytest.approx(expected.tolist(), abs=1)

    def test_top_k_and_top_p_leave_the_likeliest(self) -> None:
        """p = (.5, .3, .15, .05): top_k=2 leaves (.5, .3) / .8; top_p=.6 as well, as .5 alone is less than .6.

        After top_k=3, (.5, .3, .15) / .95, top_p=.5 is reached by the first alone: .5 / .95 = .526.
        """
        logits = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64).log()
        assert drawn(logits, top_k=2) == pytest.approx([0, 625, 0, 375], abs=1)
        assert drawn(logits, top_p=0.6) == pytest.approx([0, 625, 0, 375], abs=1)
        assert drawn(logits, top_p=0.5) == [0, 1000, 0, 0]
        assert drawn(logits, top_k=3, top_p=0.5) == [0, 1000, 0, 0]
        assert drawn(logits, top_k=99, top_p=1.0) == pytest.approx([150, 500, 50, 300], abs=1)

    def test_a_temperature_near_zero_is_greedy(self) -> None:
        assert drawn(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64), temperature=1e-300) == [0, 1000, 0]

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.floats(-30, 30), min_size=1, max_size=12),
        st.floats(0.05, 5),
        st.floats(0.01, 1),
        st.integers(1, 15),
        st.floats(0, 1, exclude_max=True),
    )
    def test_only_what_may_be_drawn_is_drawn(
        self, values: list[float], temperature: float, top_p: float, top_k: int, uniform: float
    ) -> None:
        logits = torch.tensor([values], dtype=torch.float64)
        draft = Draft((1,), 1, temperature, top_p, top_k, (), 0)
        token = int(draw(logits, [draft], torch.tensor([uniform], dtype=torch.float64)))
        assert sum(value > values[token] for value in values) < top_k

    def test_text_follows_the_distribution(self, tiny: TinyModels) -> None:
        """600 draws of one token at temperature 0.7 from the 30 likeliest, by a chi-square test.

        Cells expected fewer than 5 times are joined. Seeds are fixed, so it passes always or never; for a sound
        sampler the statistic exceeds its mean by more than 4 standard deviations, sqrt(2 df), once in ten thousand.
        """
        base = tiny.llama(spread=0.15)
        model, words = loaded(base)
        with torch.no_grad():
            logits = model(torch.tensor([words("The capital of").input_ids])).logits[0, -1]
        top = logits.topk(30)
        probs = (top.values.double() / 0.7).softmax(-1)
        requests = [
            asked("The capital of", base, max_tokens=1, temperature=0.7, top_k=30, seed=seed) for seed in range(600)
        ]
        found = collections.Counter(completion.text for completion in answers(requests, batch_size=100))
        expected: dict[str, float] = collections.defaultdict(float)
        for token, prob in zip(top.indices.tolist(), probs.tolist(), strict=True):
            text = words.decode([token], skip_special_tokens=True)
            expected[text if text.strip() else ""] += 600 * prob
        assert set(found) <= set(expected)
        cells = [(found[text], count) for text, count in expected.items() if count >= 5]
        if len(cells) < len(expected):
            cells.append((600 - sum(n for n, _ in cells), 600 - sum(count for _, count in cells)))
        statistic = sum((n - count) ** 2 / count for n, count in cells)
        degrees = len(cells) - 1
        assert degrees >= 5
        assert statistic < degrees + 4 * math.sqrt(2 * degrees)

    def test_a_seed_gives_one_text_and_seeds_differ(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        request = asked("The", base, temperature=1.0, seed=7)
        others = [asked(text, base, temperature=1.0, seed=n) for n, text in enumerate(TEXTS)]
        alone = answers([request])[0].text
        assert answers([*others, request])[-1].text == alone
        assert answers([request, *others], batch_size=2)[0].text == alone
        seeds = answers([asked("The", base, temperature=1.0, seed=seed) for seed in range(5)])
        assert len({completion.text for completion in seeds}) == 5

    def test_without_a_seed_draws_are_fresh(self, tiny: TinyModels) -> None:
        found = answers([asked("The", tiny.llama(), temperature=1.0)] * 4)
        assert len({completion.text for completion in found}) == 4

    def test_the_global_generator_is_left_alone(self, tiny: TinyModels) -> None:
        before = torch.get_rng_state()
        answers([asked("The", tiny.llama(), temperature=1.0, seed=1)])
        assert torch.equal(torch.get_rng_state(), before)


def drawn(logits: torch.Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None) -> list[int]:
    draft = Draft((1,), 1, temperature, top_p, top_k, (), 0)
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = draw(logits.expand(1000, -1).clone(), [draft] * 1000, uniforms)
    return torch.bincount(tokens, minlength=len(logits)).tolist()


class TestPrompts:
    def test_the_models_own_template_by_default(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        request = asked("Which?", base)
        engine = Hf()
        assert engine.render(request) == "<s><|user|>\nWhich?</s>\n<|assistant|>\n"
        words = loaded(base)[1]
        ids = words(engine.render(request), add_special_tokens=False).input_ids
        assert ids.count(words.bos_token_id) == 1
        assert engine.prompt_tokens(request) == len(ids), "<s> comes once, though the tokeniser would add another"

    def test_an_empty_template_and_none_at_all_give_plain_text(self, tiny: TinyModels) -> None:
        engine = Hf()
        for request in (asked("Which?", tiny.llama(template=CHAT), template=""), asked("Which?", tiny.llama())):
            assert engine.render(request) == "Which?"
            assert engine.identity(request)["template"] == "plain"
        words = loaded(tiny.llama())[1]
        assert engine.prompt_tokens(asked("Which?", tiny.llama())) == len(words("Which?").input_ids)
        assert engine.prompt_tokens(asked("<s>Which?", tiny.llama())) == len(words("Which?").input_ids)
        assert engine.prompt_tokens(asked("", tiny.llama())) == 1, "<s> alone"
        assert engine.prompt_tokens(asked("", tiny.llama(bos=False))) == 1, "a start even where <s> is not usual"

    def test_a_template_of_the_agent(self, tiny: TinyModels) -> None:
        request = asked("Which?", tiny.llama(), template="Q: {{ messages[0].content }}\nA:")
        assert Hf().render(request) == "Q: Which?\nA:"
        words = loaded(tiny.llama())[1]
        ids = words("Q: Which?\nA:", add_special_tokens=False).input_ids
        assert Hf().prompt_tokens(request) == len(ids), "what a template leaves out is left out"

    def test_fields_for_the_template(self, tiny: TinyModels) -> None:
        template = "{{ messages[0].content }}{% if think %} Think!{% endif %}"
        extra = {"chat_template_kwargs": {"think": True}}
        assert Hf().render(asked("Which?", tiny.llama(), template=template, extra=extra)) == "Which? Think!"
        with pytest.raises(ConfigError, match=r"chat_template_kwargs.*got thinking"):
            Hf().render(asked("Which?", tiny.llama(), extra={"thinking": 1}))

    @pytest.mark.parametrize(
        "template",
        [NO_SYSTEM, "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"],
    )
    def test_a_system_prompt_that_the_template_does_not_take_goes_before_the_question(
        self, tiny: TinyModels, template: str
    ) -> None:
        messages = (Message("system", "Be brief."), Message("user", "Which?"))
        request = Request(question_id="q", messages=messages, model=str(tiny.llama()), template=template)
        assert "<|user|>" in Hf().render(request)
        assert "Be brief.\n\nWhich?" in Hf().render(request)

    def test_a_template_that_takes_it_gets_it(self, tiny: TinyModels) -> None:
        messages = (Message("system", "Be brief."), Message("user", "Which?"))
        request = Request(question_id="q", messages=messages, model=str(tiny.llama(template=CHAT)))
        assert Hf().render(request).startswith("<s><|system|>\nBe brief.</s>\n<|user|>\nWhich?")

    @pytest.mark.parametrize("template", ["{% for %}", "{{ messages[7].content }}", "{{ raise_exception('odd') }}"])
    def test_a_template_that_fails_is_that_requests_error(self, tiny: TinyModels, template: str) -> None:
        base = tiny.llama()
        bad, good = answers([asked("Which?", base, template=template), asked("Which?", base)])
        assert bad.status == "engine_error"
        assert "template" in bad.detail
        assert good.status == "truncated"
        assert any(level == "error" for level, _ in findings(Hf(), asked("Which?", base, template=template)))


class TestContext:
    def test_a_prompt_that_is_too_long_fails_alone(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        long = of_length(CONTEXT + 1)
        bad, good, worse = answers([asked(long, base), asked("The", base), scored(long, base)])
        assert [completion.status for completion in (bad, good, worse)] == ["engine_error", "truncated", "engine_error"]
        assert f"{CONTEXT + 1} tokens" in bad.detail
        assert f"is {CONTEXT} tokens" in bad.detail

    def test_an_answer_gets_the_room_that_is_left(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        request = asked(of_length(CONTEXT - 5), base, max_tokens=50)
        assert Hf().prompt_tokens(request) == CONTEXT - 5
        (completion,) = answers([request])
        assert completion.usage.tokens_out == 5
        assert completion.status == "truncated"

    def test_an_option_may_reach_just_beyond_the_end(self, tiny: TinyModels) -> None:
        """Its last token is predicted and never read: 254 + 3 - 1 tokens are read in a context of 256."""
        base = tiny.llama()
        option = "four and two"
        assert len(loaded(base)[1](f" {option}", add_special_tokens=False).input_ids) == 3
        fine, bad = answers([scored(of_length(length), base, (option,)) for length in (254, 255)])
        assert (fine.status, bad.status) == ("ok", "engine_error")

    def test_the_tokenisers_limit_counts_where_the_model_names_none(self, tiny: TinyModels) -> None:
        base = tiny.built(MambaConfig(hidden_size=32, num_hidden_layers=1, state_size=8), "mamba-endless")
        short = tiny.edited(base, "mamba-short", file="tokenizer_config.json", model_max_length=6)
        endless, limited = answers([asked("The", base, max_tokens=9), asked("The", short, max_tokens=9)])
        assert (endless.usage.tokens_out, limited.usage.tokens_out) == (9, 4)


class TestAdapters:
    def test_are_those_of_peft(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        adapter = tiny.lora(base, seed=1)
        plain, words = loaded(base)
        model = PeftModel.from_pretrained(plain, adapter).eval()
        prompt = words("The capital of").input_ids
        written, options = answers(
            [asked("The capital of", base, adapter=adapter), scored("The", base, adapter=adapter)]
        )
        assert written.text == greedy(model, words, prompt, 12)
        head = words("The").input_ids
        expected = [by_hand(model, head, words(f"The {option}").input_ids[len(head) :]) for option in OPTIONS]
        assert options.option_logprobs == pytest.approx(expected, abs=1e-4)

    def test_interleaved_they_answer_as_each_alone(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        base = tiny.llama()
        adapters = [None, tiny.lora(base, seed=1), tiny.lora(base, seed=2)]
        kinds = [dict[str, Any]() if adapter is None else {"adapter": adapter} for adapter in adapters]
        alone = [answers([asked(text, base, **kind) for text in TEXTS[:3]]) for kind in kinds]
        assert len({completions[0].text for completions in alone}) == 3

        loads = count_loads(monkeypatch)
        mixed = answers([asked(text, base, **kind) for text in TEXTS[:3] for kind in kinds])
        for t in range(3):
            for k in range(3):
                assert mixed[3 * t + k].text == alone[k][t].text
        assert len(loads) == 1, "one base for all"

        async def in_turn() -> list[Completion]:
            engine = Hf()
            order = [0, 1, 0, 2, 1, 0]
            return [(await collect(engine, [scored("The", base, **kinds[k])]))[0] for k in order]

        first = asyncio.run(in_turn())
        assert first[0].option_logprobs == first[2].option_logprobs == first[5].option_logprobs
        assert first[1].option_logprobs == first[4].option_logprobs

    @pytest.mark.parametrize(
        "config",
        [
            {"bias": "all"},
            {"modules_to_save": ["ln_f"]},
            {"init_lora_weights": "pissa"},
            {"save_embedding_layers": 1},
        ],
    )
    def test_one_that_changes_its_base_leaves_that_of_others_alone(
        self, tiny: TinyModels, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = tiny.built(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.3), "gpt2-base"
        )
        adapter = invasive(tiny, base, config)
        request, adapted = scored("The capital of", base), scored("The capital of", base, adapter=adapter)
        (expected,) = answers([request])
        loads = count_loads(monkeypatch)
        found = answers([adapted, request, adapted, request], max_models=2)
        assert found[1].option_logprobs == found[3].option_logprobs == expected.option_logprobs
        assert found[0].option_logprobs == found[2].option_logprobs != expected.option_logprobs
        assert len(loads) == 2, "a base of its own"

    def test_one_that_does_not_fit_fails_and_the_base_goes_on(self, tiny: TinyModels) -> None:
        base, other = tiny.llama(), tiny.llama(hidden=64)
        adapter = tiny.lora(other, seed=1)

        async def run() -> tuple[list[Completion], list[Completion]]:
            engine = Hf()
            requests = [asked("The", base, adapter=adapter), asked("The", base)]
            return await collect(engine, requests), await collect(engine, requests)

        for bad, good in asyncio.run(run()):
            assert bad.status == "engine_error"
            assert "cannot be loaded" in bad.detail
            assert good.text == answers([asked("The", base)])[0].text
        with pytest.raises(EngineError, match="cannot be loaded into model"):
            answers([asked("The", base, adapter=adapter)])

    def test_one_without_all_its_weights_is_refused(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        adapter = tiny.lora(base, seed=3)
        wider = tiny.edited(adapter, "wider", file="adapter_config.json", target_modules=["q_proj", "v_proj", "k_proj"])
        with pytest.raises(EngineError, match="have no counterpart"):
            answers([asked("The", base, adapter=wider)])


def invasive(tiny: TinyModels, base: Path, config: dict[str, Any]) -> Path:
    """Return an adapter that writes into its base when it is loaded."""
    name = "invasive-" + "-".join(config)
    plan = {key: value for key, value in config.items() if key != "save_embedding_layers"}
    adapter = tiny.lora(base, seed=4, name=name, target_modules=["c_attn"], fan_in_fan_out=True, **plan)
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    if "save_embedding_layers" in config:
        model, _ = loaded(base)
        weights["base_model.model.transformer.wte.weight"] = model.transformer.wte.weight.detach() * 2
    for key, value in weights.items():
        if key.endswith(".bias") or "ln_f" in key:
            weights[key] = value + 0.5
    save_file(weights, adapter / "adapter_model.safetensors")
    return adapter


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loads: list[str] = []
    load = AutoModelForCausalLM.from_pretrained

    def counted(source: str, **options: Any) -> Any:
        loads.append(source)
        return load(source, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    return loads


class TestMemory:
    def test_the_least_recently_used_model_goes_and_its_memory_is_given_back(self, tiny: TinyModels) -> None:
        one, two, three = tiny.llama(seed=1), tiny.llama(seed=2), tiny.llama(seed=3)

        async def run() -> None:
            engine = Hf(max_models=2)
            models: dict[Path, weakref.ref[Any]] = {}
            for base in (one, two, one, three):
                await collect(engine, [asked("The", base, adapter=tiny.lora(base, seed=9))])
                newest = next(reversed(engine._runner.store()._loaded.values()))
                models[base] = weakref.ref(newest.lent.model)
                del newest
            gc.collect()
            assert [models[base]() is None for base in (one, two, three)] == [False, True, False]
            await engine.aclose()
            assert [models[base]() is None for base in (one, two, three)] == [True, True, True]
            await engine.aclose()
            assert (await collect(engine, [asked("The", one)]))[0].status == "truncated"

        asyncio.run(run())

    def test_a_call_loads_every_model_once_whatever_the_order(
        self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = tiny.llama(seed=1), tiny.llama(seed=2)
        loads = count_loads(monkeypatch)

        async def run() -> None:
            engine = Hf()
            await collect(engine, [asked("The", base) for base in (one, two, one, two)])
            assert loads == [str(one), str(two)]
            await collect(engine, [asked("The", base) for base in (one, two, one, two)])
            assert loads == [str(one), str(two), str(one)], "what is in memory goes first"

        asyncio.run(run())

    def test_out_of_memory_halves_the_batch(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        base = tiny.llama()
        requests = [*(asked(text, base) for text in TEXTS), *(scored(text, base) for text in TEXTS)]
        expected = answers(requests)

        def refuse(tokens: torch.Tensor) -> None:
            if len(tokens) > 2:
                raise torch.OutOfMemoryError("out of memory")

        rows = watch(monkeypatch, before=refuse)
        found = answers(requests)
        assert max(rows) == 6
        assert rows.count(6) == 1, "not tried again"
        for before, now in zip(expected, found, strict=True):
            assert now.text == before.text
            if before.option_logprobs is not None:
                assert now.option_logprobs == pytest.approx(before.option_logprobs, abs=1e-4)

    def test_a_request_too_large_by_itself_fails_alone(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(tokens: torch.Tensor) -> None:
            if tokens.shape[1] > 10:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        watch(monkeypatch, before=refuse)
        long = next(text for text in TEXTS if "Spain" in text)
        found = answers([asked(text, tiny.llama(), max_tokens=2) for text in ("The", long, "Answer")])
        assert [completion.status for completion in found] == ["truncated", "engine_error", "truncated"]
        assert "memory does not suffice" in found[1].detail

    def test_an_error_of_one_row_is_that_requests_alone(
        self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = tiny.llama()
        poison = loaded(base)[1]("A. one").input_ids[1]

        def refuse(tokens: torch.Tensor) -> None:
            if (tokens == poison).any() and tokens.shape[1] > 1:
                raise ValueError("not this one")

        watch(monkeypatch, before=refuse)
        requests = [asked(text, base, max_tokens=1) for text in TEXTS[:4]] + [
            scored("A. one", base),
            scored("The", base),
        ]
        statuses = [completion.status for completion in answers(requests)]
        assert statuses == ["truncated", "truncated", "engine_error", "truncated", "engine_error", "ok"]

    def test_overflow_is_an_error_not_an_answer(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = LlamaForCausalLM.forward

        def overflowing(self: LlamaForCausalLM, *args: Any, **inputs: Any) -> Any:
            told = forward(self, *args, **inputs)
            told.logits = told.logits * float("nan")
            return told

        monkeypatch.setattr(LlamaForCausalLM, "forward", overflowing)
        base = tiny.llama()
        for completion in answers([asked("The", base), asked("A", base), scored("The", base), scored("A", base)]):
            assert completion.status == "engine_error"
            assert "float32 or bfloat16" in completion.detail

    def test_estimates(self, tiny: TinyModels) -> None:
        """Embeddings and head 340 x 32 each, two layers, the last norm; keys and values: 2 x 2 layers x 2 heads x 8."""
        base = tiny.llama(name="sized")
        vocabulary = len(loaded(base)[1])
        layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
        weights = 4 * (2 * vocabulary * 32 + 2 * layer + 32)
        request = asked("The", base, max_tokens=10)
        cache = 8 * (Hf().prompt_tokens(request) + 10) * (2 * 2 * 2 * 8) * 4  # type: ignore[operator]
        assert Hf().memory_bytes(request) == weights + cache
        assert Hf(dtype="bfloat16").memory_bytes(request) == (weights + cache) // 2
        nobody = Request(question_id="", messages=(), model=str(tiny.llama(template="{{ messages[0].content }}")))
        assert Hf().memory_bytes(nobody) is not None, "asked before there are questions"


class TestWorker:
    def test_closing_stops_the_running_batch_and_those_after_it(
        self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = watch(monkeypatch, before=lambda tokens: time.sleep(0.005))
        base = tiny.llama()

        async def run() -> tuple[int, int]:
            engine = Hf(batch_size=2)
            quick = [asked("The", base, max_tokens=1)] * 2
            slow = [asked("The capital of", base, max_tokens=200)] * 6
            # Long answers go first, so the call is closed while the first batch runs.
            stream = engine.generate([*quick, *slow])
            task = asyncio.ensure_future(anext(stream))
            while len(rows) < 3:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            closed = len(rows)
            await stream.aclose()
            assert (await collect(engine, quick))[0].status == "truncated"
            return closed, len(rows)

        closed, after = asyncio.run(run())
        assert after <= closed + 2 + 1, "two tokens at most, one of which was on its way, and the call after it"

    def test_the_loop_goes_on_meanwhile(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        watch(monkeypatch, before=lambda tokens: time.sleep(0.02))
        base = tiny.llama()

        async def run() -> int:
            engine, ticks = Hf(), 0
            asking = asyncio.ensure_future(collect(engine, [asked("The", base, max_tokens=20)]))
            while not asking.done():
                await asyncio.sleep(0.005)
                ticks += 1
            return ticks

        assert asyncio.run(run()) > 20

    def test_calls_of_several_tasks_and_loops(self, tiny: TinyModels) -> None:
        one, two = tiny.llama(seed=1), tiny.llama(seed=2)
        engine = Hf()

        async def run() -> list[list[Completion]]:
            calls = [[asked(text, base) for text in TEXTS] for base in (one, two, one)]
            return list(await asyncio.gather(*(collect(engine, call) for call in calls)))

        first, second = asyncio.run(run()), asyncio.run(run())
        texts = [[completion.text for completion in call] for call in first]
        assert texts == [[completion.text for completion in call] for call in second]
        assert texts[0] == texts[2] != texts[1]
        asyncio.run(engine.aclose())

    def test_answers_come_as_batches_finish(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = watch(monkeypatch)

        async def run() -> None:
            engine = Hf(batch_size=1)
            seen = []
            async with aclosing(
                engine.generate([asked("The", tiny.llama(), max_tokens=n) for n in (3, 2, 1)])
            ) as stream:
                async for index, _ in stream:
                    seen.append((index, len(rows)))
            assert [index for index, _ in seen] == [0, 1, 2]

        asyncio.run(run())
        assert rows == [1] * 6

    def test_closing_the_engine_cancels_what_runs(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = watch(monkeypatch, before=lambda tokens: time.sleep(0.005))

        async def run() -> list[Status]:
            engine = Hf(batch_size=1)
            asking = [
                asyncio.ensure_future(collect(engine, [asked("The", tiny.llama(), max_tokens=200)] * 2))
                for _ in range(2)
            ]
            while len(rows) < 3:
                await asyncio.sleep(0.005)
            await engine.aclose()
            return [completion.status for call in asking for completion in await call]

        assert asyncio.run(run()) == ["cancelled"] * 4
        assert len(rows) < 100

    def test_nothing_to_answer(self) -> None:
        assert answers([]) == []

    def test_no_thread_is_left(self, tiny: TinyModels) -> None:
        answers([asked("The", tiny.llama())])
        deadline = time.monotonic() + 5
        while any(thread.name.startswith("fusion-hf") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestIdentity:
    def test_says_what_answers(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        adapter = tiny.lora(base, seed=1)
        plain = Hf().identity(asked("?", base))
        assert plain["engine"] == "hf"
        assert plain["dtype"] == "float32"
        assert plain["adapter"] is None
        assert Hf().identity(asked("!", base, max_tokens=1)) == plain
        others = [
            Hf().identity(asked("?", base, adapter=adapter)),
            Hf().identity(asked("?", base, template="")),
            Hf().identity(asked("?", tiny.llama(template=CHAT, seed=9))),
            Hf(dtype="float16").identity(asked("?", base)),
        ]
        assert len({json.dumps(dict(found), sort_keys=True) for found in [plain, *others]}) == 5
        json.dumps(dict(plain))

    def test_follows_the_content_not_the_place(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        same = tiny.edited(base, "same-content")
        for path in base.iterdir():
            (same / path.name).write_bytes(path.read_bytes())
        (same / "README.md").write_text("not part of the model")
        engine = Hf()
        assert engine.identity(asked("?", same)) == engine.identity(asked("?", base))
        weights = same / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert engine.identity(asked("?", same)) == engine.identity(asked("?", base)), "until it is closed"
        asyncio.run(engine.aclose())
        assert engine.identity(asked("?", same)) != engine.identity(asked("?", base))

    def test_large_weights_count_by_size_and_date(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fusion.agents._hf_library._CONTENT_HASHED_BYTES", 10)
        base = tiny.edited(tiny.llama(), "large")
        before = Hf().identity(asked("?", base))
        assert Hf().identity(asked("?", base)) == before
        __import__("os").utime(base / "model.safetensors", (1, 1))
        assert Hf().identity(asked("?", base)) != before

    def test_on_the_hub_it_is_the_commit(self, tiny: TinyModels, offline: Path) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        home = offline / "models--org--tiny"
        snapshot = home / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in tiny.llama(template=CHAT).iterdir():
            (snapshot / path.name).write_bytes(path.read_bytes())
        for ref in ("main", "v1"):
            (home / "refs").mkdir(exist_ok=True)
            (home / "refs" / ref).write_text(commit)
        requests = [
            asked("The", "org/tiny"),
            asked("The", "org/tiny", revision="v1"),
            asked("The", "org/tiny", revision=commit),
        ]
        assert [Hf().identity(request)["weights"] for request in requests] == [commit] * 3
        found = answers([*requests, asked("The", tiny.llama(template=CHAT))])
        assert len({completion.text for completion in found}) == 1

    def test_is_fast_once_known(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        engine, request = Hf(), asked("?", base, adapter=tiny.lora(base, seed=1), template=CHAT * 50)
        engine.identity(request)
        start = time.perf_counter()
        for _ in range(1000):
            engine.identity(request)
        # Measured 0.3 us; the limit of 20 us is for busy machines.
        assert (time.perf_counter() - start) / 1000 < 20e-6

    def test_loads_no_weights(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        loads = count_loads(monkeypatch)
        request = asked("?", tiny.llama())
        engine = Hf()
        engine.identity(request)
        engine.render(request)
        engine.prompt_tokens(request)
        engine.memory_bytes(request)
        asyncio.run(engine.examine(request))
        assert loads == []


class TestMissing:
    def test_packages(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        for package in ("torch", "transformers", "peft"):
            monkeypatch.setattr(
                importlib.util, "find_spec", lambda name, gone=package: None if name == gone else find(name)
            )
            request = asked("?", tiny.llama(), adapter=tiny.lora(tiny.llama(), seed=1))
            with pytest.raises(MissingDependency, match=rf"package {package}.*fusion\[hf\]"):
                answers([request])
            assert findings(Hf(), request)[0][0] == "error"

    def test_a_model(self, tiny: TinyModels, offline: Path, tmp_path: Path) -> None:
        base = tiny.llama()
        cases = {
            "": "needs a model",
            str(tmp_path / "nowhere"): "there is no folder",
            "org/nothing": r"neither the hub's cache .*hf auth login.*HF_HUB_OFFLINE=1",
            str(tiny.lora(base, seed=1)): "it holds adapter_config.json",
            str(tmp_path): "it holds neither",
        }
        for name, message in cases.items():
            request = asked("?", name)
            for ask in (Hf().identity, Hf().render, Hf().prompt_tokens, Hf().memory_bytes):
                with pytest.raises(EngineError, match=message):
                    ask(request)
            with pytest.raises(EngineError, match=message):
                answers([request])
            assert findings(Hf(), request)[0][0] == "error"
            bad, good = answers([request, asked("?", base)])
            assert (bad.status, good.status) == ("engine_error", "truncated")
            assert bad.detail

    def test_a_revision(self, tiny: TinyModels, offline: Path) -> None:
        with pytest.raises(EngineError, match="has no revisions"):
            answers([asked("?", tiny.llama(), revision="v1")])
        with pytest.raises(EngineError, match="revision v9"):
            answers([asked("?", "org/nothing", revision="v9")])

    def test_an_adapter(self, tiny: TinyModels, offline: Path) -> None:
        base = tiny.llama()
        with pytest.raises(EngineError, match=r"adapter 'org/nothing'.*adapter_config.json"):
            answers([asked("?", base, adapter="org/nothing")])
        with pytest.raises(EngineError, match=r"must hold adapter_config.json .* it holds config.json"):
            answers([asked("?", base, adapter=base)])
        odd = tiny.edited(tiny.lora(base, seed=1), "ia3", file="adapter_config.json", peft_type="IA3")
        with pytest.raises(EngineError, match="must be a LoRA adapter, its peft_type is 'IA3'"):
            answers([asked("?", base, adapter=odd)])

    def test_weights(self, tiny: TinyModels) -> None:
        from safetensors.torch import load_file, save_file

        empty = tiny.edited(tiny.llama(), "empty")
        (empty / "model.safetensors").unlink()
        with pytest.raises(EngineError, match="holds no weights"):
            answers([asked("?", empty)])
        holed = tiny.edited(tiny.llama(), "holed")
        weights = load_file(holed / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, holed / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(EngineError, match=r"lacks 1 of its weights \(model.layers.1.mlp.up_proj.weight"):
            answers([asked("?", holed)])
        broken = tiny.edited(tiny.llama(), "broken")
        (broken / "model.safetensors").write_bytes(b"no weights")
        with pytest.raises(EngineError, match="cannot be loaded"):
            answers([asked("?", broken)])

    def test_a_kind_of_model_that_nobody_knows(self, tiny: TinyModels) -> None:
        odd = tiny.edited(tiny.llama(), "odd-kind", model_type="nobody-knows")
        with pytest.raises(EngineError, match="cannot be read"):
            answers([asked("?", odd)])

    def test_a_device(self, tiny: TinyModels) -> None:
        for device, message in (("quantum", "not one that torch knows"), ("xpu", "is not there")):
            with pytest.raises(EngineError, match=message):
                answers([asked("?", tiny.llama())], device=device)
            assert any("device" in what for _, what in findings(Hf(device=device), asked("?", tiny.llama())))


class TestExamination:
    def test_finds_nothing_where_nothing_is_wrong(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        assert findings(Hf(), asked("?", base, adapter=tiny.lora(base, seed=1))) == []
        assert findings(Hf(), scored("?", base)) == []

    def test_a_chat_model_in_plain_text(self, tiny: TinyModels) -> None:
        base = tiny.llama()
        assert [level for level, what in findings(Hf(), asked("?", base)) if "plain text" in what] == ["warning"]
        assert [level for level, what in findings(Hf(), asked("?", base, template="")) if "plain" in what] == ["note"]
        named = tiny.edited(base, "tiny-7B-Instruct")
        assert any("trained for chats" in what for _, what in findings(Hf(), asked("?", named)))

    def test_a_template_without_the_first_token(self, tiny: TinyModels) -> None:
        found = findings(Hf(), asked("?", tiny.llama(), template="{{ messages[0].content }}"))
        assert [level for level, what in found if "does not begin with <s>" in what] == ["note"]

    def test_an_adapter_of_another_model(self, tiny: TinyModels) -> None:
        base, wide, deep = tiny.llama(), tiny.llama(hidden=64), tiny.llama(layers=3)
        for other, message in ((wide, "factor A 4 x 64"), (deep, "no layer model.layers.2.self_attn")):
            found = findings(Hf(), asked("?", base, adapter=tiny.lora(other, seed=1)))
            assert [level for level, what in found if "was trained for" in what] == ["warning"]
            assert any(level == "error" and message in what for level, what in found), found

    def test_lengths(self, tiny: TinyModels) -> None:
        base = tiny.llama(template=CHAT)
        long = of_length(CONTEXT)
        assert [level for level, what in findings(Hf(), asked(long, base)) if "context" in what] == ["error"]
        assert [level for level, _ in findings(Hf(), asked("?", base, max_tokens=CONTEXT))] == ["warning"]

    def test_a_vocabulary_larger_than_the_model(self, tiny: TinyModels) -> None:
        small = tiny.edited(tiny.llama(template=CHAT), "small-vocabulary", vocab_size=100)
        found = findings(Hf(), asked("?", small))
        assert any(level == "error" and "the model 100" in what for level, what in found)

    def test_memory(self, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
        base = tiny.llama(template=CHAT)
        needed = Hf().memory_bytes(asked("?", base))
        assert needed is not None
        for free, total, levels in ((needed, needed, []), (needed - 1, needed, ["warning"]), (9, 9, ["error"])):
            monkeypatch.setattr("fusion.agents._hf_examine.memory", lambda device, told=(free, total): told)
            assert [level for level, _ in findings(Hf(), asked("?", base))] == levels

    def test_free_memory_is_within_reason(self) -> None:
        from fusion.agents._hf_examine import memory

        free, total = memory("cpu")
        assert 0 < free <= total


class TestEngine:
    def test_is_one(self) -> None:
        engine = discovery.build("agents", "hf(batch_size=4, dtype=bfloat16)")
        assert isinstance(engine, Engine)
        assert str(discovery.spec_of(engine)) in (
            "hf(dtype=bfloat16, batch_size=4)",
            "hf(batch_size=4, dtype=bfloat16)",
        )

    def test_importing_and_building_it_is_cheap(self) -> None:
        import subprocess
        import sys

        code = "import fusion.agents.hf as m, sys; m.Hf(); print({'torch', 'transformers', 'peft'} & set(sys.modules))"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "set()"
