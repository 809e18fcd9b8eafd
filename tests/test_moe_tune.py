"""Tuning a mixture: the gate learns where to lead, what comes out is the stock checkpoint, and it can go on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TinyModels, closed_words, quiet
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from fusion.errors import InputError, UsageError
from fusion.moe import MoERecipe, TuneExample, TuneOptions, read_examples, tune
from fusion.moe._examples import IGNORED, TuneCollate, encoded
from fusion.training import TrainOptions

pytestmark = pytest.mark.usefixtures("quick")
WORDS = ("copy", "next", "one", "two", "three", "four", "five", "six")
NUMBERS = WORDS[2:]
FAST = TrainOptions(epochs=10, learning_rate=1e-2, batch_size=16, patience=99, evaluations=1, warmup=0.05)


class Cut(Exception):
    """What cuts training short."""


@pytest.fixture(scope="module")
def chosen(tiny: TinyModels) -> MoERecipe:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    base = tiny.built(config, "numbers", words=closed_words(WORDS))
    linear = ["gate_proj", "up_proj", "down_proj"]
    adapters = [tiny.lora(base, seed=seed, name=f"numbers-{seed}", target_modules=linear) for seed in (1, 2, 3)]
    experts = [
        {"source_model": str(path), "name": name}
        for path, name in zip(adapters, ("same", "after", "none"), strict=True)
    ]
    return MoERecipe.model_validate({"base_model": str(base), "experts": experts, "gate_mode": "zero"})


def examples(seed: int, count: int = 160) -> list[TuneExample]:
    """To copy a number is for the first expert; to say the next one for the second."""
    rng = np.random.default_rng(seed)
    found = []
    for kind, at in zip(rng.integers(0, 2, count).tolist(), rng.integers(0, 5, count).tolist(), strict=True):
        found.append(TuneExample(f"{WORDS[kind]} {NUMBERS[at]}", NUMBERS[at + kind], kind))
    return found


def options(**changed: Any) -> TuneOptions:
    return TuneOptions(**{"training": FAST, "gating": 0.3, "longest": 16} | changed)


def shares(folder: Path, kind: int) -> torch.Tensor:
    """What the gates of a stock checkpoint give each expert, on prompts of a kind."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer([f"{WORDS[kind]} {number}" for number in NUMBERS[:5]], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=ids, output_router_logits=True).router_logits
    return torch.stack([one.softmax(dim=-1).mean(dim=0) for one in logits]).mean(dim=0)


def test_it_learns_whom_to_ask_and_what_to_say(chosen: MoERecipe, tmp_path: Path) -> None:
    """Loaded as it is, by transformers alone, it answers new prompts, and its gates lead to the expert called for."""
    done = tune(chosen, examples(0), tmp_path, held_out=examples(1, 40), options=options())
    assert done.architecture == "MixtralForCausalLM"
    assert done.trained.loss is not None
    assert done.trained.loss < 0.2
    with quiet():
        model, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    for one in examples(2, 10):
        ids = tokenizer(one.prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            said = model(input_ids=ids).logits[0, -1].argmax()
        assert tokenizer.decode(said).strip() == one.completion
    for kind in (0, 1):
        assert shares(tmp_path, kind)[kind] > 0.7


def test_without_the_gating_loss_it_is_not_told_where_to_lead(chosen: MoERecipe, tmp_path: Path) -> None:
    tune(chosen, examples(0), tmp_path, options=options(gating=0.0))
    assert min(float(shares(tmp_path, kind)[kind]) for kind in (0, 1)) < 0.6


def test_drift_holds_an_expert_where_it_was(chosen: MoERecipe, tmp_path: Path) -> None:
    """A gamma on the first expert alone: it stays nearer to where it began than without."""
    moved = {}
    for name, drift in (("free", 0.0), ("held", (5.0, 0.0, 0.0))):
        few = dataclasses.replace(FAST, epochs=2)
        tune(chosen, examples(0), tmp_path / name, options=options(drift=drift, training=few))
        found = load_file(tmp_path / name / "model.safetensors")
        tune(
            chosen,
            examples(0),
            tmp_path / f"{name}-0",
            options=options(training=dataclasses.replace(few, learning_rate=1e-12)),
        )
        first = load_file(tmp_path / f"{name}-0" / "model.safetensors")
        key = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"
        moved[name] = [float((found[key.format(e)] - first[key.format(e)]).norm()) for e in range(3)]
    assert moved["held"][0] < 0.5 * moved["free"][0]
    assert moved["held"][1] > 0.5 * moved["free"][1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_was_cut_short_goes_on(chosen: MoERecipe, tmp_path: Path, checkpointing: bool) -> None:
    few = dataclasses.replace(FAST, epochs=2, gradient_checkpointing=checkpointing, accumulate=2, evaluations=2)

    def told(what: str, done: int, total: int) -> None:
        if what == "training" and done == 6:
            raise Cut

    told_of: Callable[[str, int, int], None] = told
    whole = tune(chosen, examples(0), tmp_path / "whole", options=options(training=few))
    assert whole.trained.steps == 10
    with pytest.raises(Cut):
        tune(chosen, examples(0), tmp_path / "cut", options=options(training=few), told=told_of)
    done = tune(chosen, examples(0), tmp_path / "cut", options=options(training=few))
    assert done.trained.resumed > 0
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    # What is done is written again, and not trained again.
    again = tune(chosen, examples(0), tmp_path / "cut", options=options(training=few))
    assert again.trained == done.trained


def test_attention_is_left_alone_when_asked(chosen: MoERecipe, tmp_path: Path) -> None:
    few = dataclasses.replace(FAST, epochs=1)
    name = "model.layers.0.self_attn.q_proj.weight"
    base = load_file(Path(chosen.base_model) / "model.safetensors")[name]
    for rank, same in ((0, True), (4, False)):
        tune(chosen, examples(0), tmp_path / str(rank), options=options(training=few, attention_rank=rank))
        assert torch.equal(load_file(tmp_path / str(rank) / "model.safetensors")[name], base) is same


class TestExamples:
    def test_labels_count_on_completions_alone(self, chosen: MoERecipe) -> None:
        tokenizer = AutoTokenizer.from_pretrained(chosen.base_model)
        rows = encoded([TuneExample("copy one", "one", 0), TuneExample("next", "two three", -1)], tokenizer, longest=9)
        for row in rows:
            counted = [one for one in row["labels"] if one != IGNORED]
            assert row["input_ids"][-len(counted) :] == counted
            assert counted[-1] == tokenizer.eos_token_id
            assert tokenizer.eos_token_id not in row["input_ids"][:-1]
        batch = TuneCollate(0)(rows)
        assert batch["attention_mask"].sum(dim=1).tolist() == [len(row["input_ids"]) for row in rows]
        assert batch["labels"][batch["attention_mask"] == 0].unique().tolist() in ([IGNORED], [])
        assert batch["expert"].tolist() == [0, -1]

    def test_a_long_prompt_loses_its_beginning(self, chosen: MoERecipe) -> None:
        tokenizer = AutoTokenizer.from_pretrained(chosen.base_model)
        long = [TuneExample("one two three four five", "six", 0)]
        whole, cut = (encoded(long, tokenizer, longest=longest)[0] for longest in (99, 5))
        assert cut["input_ids"] == whole["input_ids"][-5:]
        with pytest.raises(InputError, match="do not fit into 2"):
            encoded([TuneExample("one", "two three", 0)], tokenizer, longest=2)

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "data.jsonl"
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
        rows = [{"prompt": "p", "completion": "c", "expert": "b"}, {"messages": messages}]
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
        assert read_examples(path, ["a", "b"]) == [TuneExample("p", "c", 1), TuneExample(messages[:1], "hello", -1)]

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("{", "line 1 is no JSON"),
            ("[]", "expected an object"),
            ('{"prompt": "p"}', "expected prompt and completion, or messages .*, got prompt"),
            ('{"prompt": "p", "completion": "c", "expert": "helpfull"}', "no expert 'helpfull'.*helpful"),
            ("", "has no examples"),
        ],
    )
    def test_files_that_are_wrong(self, line: str, told: str, tmp_path: Path) -> None:
        (tmp_path / "data.jsonl").write_text(line + "\n")
        with pytest.raises(InputError, match=told):
            read_examples(tmp_path / "data.jsonl", ["helpful", "honest"])


class TestRefusals:
    def test_full_models(self, chosen: MoERecipe, tmp_path: Path) -> None:
        sources = [*chosen.experts[:2], chosen.experts[2].model_copy(update={"source_model": chosen.base_model})]
        with pytest.raises(InputError, match="experts that are adapters, and none is a full model"):
            tune(chosen.model_copy(update={"experts": tuple(sources)}), examples(0), tmp_path)

    def test_gammas(self, chosen: MoERecipe, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="one for each of the 3 experts; got 2"):
            tune(chosen, examples(0), tmp_path, options=options(drift=(1.0, 2.0)))
