"""What the in-process engine answers, against what transformers computes by itself."""

import asyncio
import collections
import math
import time
from typing import Any

import pytest
import torch
from hf_asking import (
    OPTIONS,
    SINGLE,
    TEXTS,
    answers,
    asked,
    by_hand,
    findings,
    greedy,
    loaded,
    of_length,
    scored,
    watch,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHAT, CONTEXT, NO_SYSTEM, TinyModels
from transformers import (
    GPT2Config,
    MambaConfig,
    MistralConfig,
    RwkvConfig,
)

from fusion.agents._hf_write import Draft, draw
from fusion.agents.hf import Hf
from fusion.errors import ConfigError
from fusion.schema import Message, Request

pytestmark = pytest.mark.usefixtures("quick")


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

    @pytest.mark.parametrize("kind", ["gpt2", "mistral", "mamba", "rwkv"])
    def test_other_kinds_of_models(self, tiny: TinyModels, kind: str) -> None:
        """Learned positions, a window shorter than the prompts, and recurrent models with and without a mask."""
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
            "rwkv": RwkvConfig(hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, context_length=CONTEXT),
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

    def test_a_stop_text_that_is_a_special_token(self, tiny: TinyModels) -> None:
        """Special tokens are left out of the text, and still end it where they are asked to."""
        base = tiny.llama()
        model, words = loaded(base)
        prompt = words("The capital of").input_ids
        name = words.convert_ids_to_tokens(int(model(torch.tensor([prompt])).logits[0, -1].argmax()))
        request = asked("The capital of", base)
        assert name == "<|system|>", "this model begins with a special token"
        whole, stopped = answers([request, asked("The capital of", base, stop=(name,))])
        assert whole.usage.tokens_out == 12
        assert (stopped.status, stopped.finish_reason, stopped.usage.tokens_out) == ("empty", "stop", 1)

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
        likely = torch.tensor([0.7, 0.12, 0.12, 0.06], dtype=torch.float64).log()
        assert drawn(likely, top_p=0.95) == pytest.approx([700, 120, 120, 60], abs=1), ".94 is less than .95"
        assert int(draw(logits[None], [Draft((1,), 1, 1.0, 1.0, 1, (), 0)], torch.zeros(1))) == 1, "not a share of 0"

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


def test_threads_are_set_for_the_work_alone(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    watch(monkeypatch, before=lambda _: seen.add(torch.get_num_threads()))
    before = torch.get_num_threads()
    wanted = before + 1
    answers([asked("The", tiny.llama())], threads=wanted)
    assert seen == {wanted}
    assert torch.get_num_threads() == before
