"""Merging experts into one mixture: exact, streamed, resumable, and loaded as it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
import torch
import yaml
from command_line import Run, Told
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import TinyModels, quiet
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen3Config

from fusion.errors import ConfigError, FusionError, InputError, OutputError
from fusion.moe import Merged, MoERecipe, merge, preflight
from fusion.moe._gate import discriminant

pytestmark = pytest.mark.usefixtures("quick")
ALL_LINEAR = ["gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[1, 5, 9, 13, 2, 40, 41, 7]])
DENSE = {
    "llama": LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral": MistralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        sliding_window=4,
        initializer_range=0.3,
    ),
    "qwen3": Qwen3Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
    ),
}
SPARSE = {"llama": "MixtralForCausalLM", "mistral": "MixtralForCausalLM", "qwen3": "Qwen3MoeForCausalLM"}


@pytest.fixture(scope="module")
def dense(tiny: TinyModels) -> Callable[[str], Path]:
    def made(kind: str, seed: int = 0) -> Path:
        return tiny.built(DENSE[kind], f"{kind}-{seed}", seed=seed)

    return made


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def load(folder: Path) -> PreTrainedModel:
    """Load a checkpoint; it must hold every tensor of the architecture, and no other."""
    with quiet():
        model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model  # type: ignore[no-any-return]


def recipe(base: Path, experts: list[Path], **more: Any) -> MoERecipe:
    sources = [{"source_model": str(path), "name": f"e{n}"} for n, path in enumerate(experts)]
    return MoERecipe.model_validate({"base_model": str(base), "experts": sources, "gate_mode": "random"} | more)


def routed_to(model: PreTrainedModel, expert: int) -> None:
    """Give all of every token to one expert, whatever the gates say."""

    def only(module: Any, given: Any, found: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        scores, places = torch.zeros_like(found[1]), torch.full_like(found[2], (expert + 1) % 3)
        scores[:, 0], places[:, 0] = 1, expert
        return found[0], scores, places

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(only)


@pytest.mark.parametrize("kind", DENSE)
def test_copies_of_one_model_are_that_model(kind: str, dense: Callable[[str], Path], tmp_path: Path) -> None:
    """Whatever the gate says, the weights of the experts that compute a token add up to 1."""
    base = dense(kind)
    done = merge(recipe(base, [base, base, base], gate_std=1.0), tmp_path)
    assert (done.architecture, done.files) == (SPARSE[kind], (1, 0))
    model = load(tmp_path)
    assert type(model).__name__ == SPARSE[kind]
    torch.testing.assert_close(logits(model), logits(load(base)), rtol=0, atol=1e-5)
    assert sum(one.numel() for one in model.parameters()) == done.parameters[0]


@pytest.mark.parametrize("kind", DENSE)
def test_experts_are_the_models_that_they_come_from(
    kind: str, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path
) -> None:
    """One is rank-stabilised, one has alphas by pattern, one is a full model with the base's attention."""
    base = dense(kind)
    adapters = [
        tiny.lora(base, seed=1, target_modules=ALL_LINEAR, use_rslora=True),
        tiny.lora(
            base, seed=2, target_modules=ALL_LINEAR, alpha_pattern={"up_proj": 3, r"layers\.1\.mlp\.gate_proj": 5}
        ),
    ]
    with quiet():
        wholes = [PeftModel.from_pretrained(load(base), path).merge_and_unload() for path in adapters]
    full = tmp_path / "full"
    wholes[1].save_pretrained(full)
    done = merge(recipe(base, [*adapters, full]), tmp_path / "merged")
    # Two adapters, two layers, three matrices.
    assert done.checked == 12
    for place, whole in enumerate([*wholes, wholes[1]]):
        model = load(tmp_path / "merged")
        routed_to(model, place)
        torch.testing.assert_close(logits(model), logits(whole), rtol=1e-4, atol=1e-4)


class TestShared:
    """What experts differ in outside of their blocks."""

    @pytest.fixture
    def pair(self, dense: Callable[[str], Path], tiny: TinyModels) -> tuple[Path, list[Path]]:
        base = dense("llama")
        everywhere = [*ALL_LINEAR, "q_proj", "v_proj"]
        one = tiny.lora(base, seed=3, name="llama-attention", target_modules=everywhere)
        return base, [one, tiny.lora(base, seed=4, target_modules=ALL_LINEAR)]

    def test_it_is_refused_and_told(self, pair: tuple[Path, list[Path]], tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            merge(recipe(*pair), tmp_path / "out")
        assert "shared: experts differ in 4 weights of attention: model.layers.0.self_attn.q_proj.weight" in str(
            caught.value
        )
        assert "set shared to base, average, or one of e0, e1" in str(caught.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("shared", "times"), [("base", 0.0), ("average", 0.5), ("e0", 1.0), ("e1", 0.0)])
    def test_it_is_what_was_asked_for(
        self, shared: str, times: float, pair: tuple[Path, list[Path]], tmp_path: Path
    ) -> None:
        """An average over two of a change that only one has is half of it."""
        base, experts = pair
        merge(recipe(base, experts, shared=shared), tmp_path)
        with quiet():
            changed = PeftModel.from_pretrained(load(base), experts[0]).merge_and_unload().state_dict()
        before, found = load(base).state_dict(), load_file(tmp_path / "model.safetensors")
        for name in ("model.layers.1.self_attn.q_proj.weight", "model.layers.0.self_attn.v_proj.weight"):
            expected = before[name] + times * (changed[name] - before[name])
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
            assert not torch.equal(changed[name], before[name])

    def test_full_models_are_compared(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        plan = preflight(recipe(dense("llama"), [dense("llama", 1), dense("llama")]))
        assert [one.what.partition(": ")[0] for one in plan.refused] == [
            "experts differ in 8 weights of attention",
            "experts differ in 2 weights of embeddings",
        ]
        assert len(plan.differing) == 2 * 4 + 2
        assert "model.norm.weight" not in plan.differing


class TestStreaming:
    SHARD = 20_000

    def cut(self, folder: Path, chosen: MoERecipe, after: int) -> None:
        class Cut(Exception):
            pass

        def told(what: str, done: int, total: int) -> None:
            if done == after and what.startswith("merging"):
                raise Cut

        with pytest.raises(Cut):
            merge(chosen, folder, shard_bytes=self.SHARD, told=told)

    def test_what_was_cut_short_goes_on(self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        base = dense("llama")
        chosen = recipe(base, [tiny.lora(base, seed=5, target_modules=ALL_LINEAR), base])
        whole = merge(chosen, tmp_path / "whole", shard_bytes=self.SHARD)
        assert whole.files[0] > 5
        self.cut(tmp_path / "cut", chosen, 3)
        done = merge(chosen, tmp_path / "cut", shard_bytes=self.SHARD)
        assert done.files == (whole.files[0], 3)
        names = sorted(path.name for path in (tmp_path / "whole").iterdir())
        assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == names
        for name in names:
            same = [(tmp_path / folder / name).read_bytes() for folder in ("whole", "cut")]
            assert same[0] == same[1] or name == "merge.json"
        torch.testing.assert_close(logits(load(tmp_path / "cut")), logits(load(tmp_path / "whole")))

    def test_every_tensor_is_written_once(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        """And no file is larger than was asked for."""
        base, most = dense("qwen3"), 60_000
        merge(recipe(base, [base, base]), tmp_path, shard_bytes=most)
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        held = [(name, path.name) for path in tmp_path.glob("*.safetensors") for name in load_file(path)]
        assert sorted(held) == sorted(index["weight_map"].items())
        sizes = [sum(one.nbytes for one in load_file(path).values()) for path in tmp_path.glob("*.safetensors")]
        assert index["metadata"]["total_size"] == sum(sizes)
        assert max(sizes) <= most
        assert len(sizes) > 2

    def test_another_recipe_begins_anew(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        base = dense("llama")
        self.cut(tmp_path, recipe(base, [base, base]), 3)
        assert merge(recipe(base, [base, base], seed=1), tmp_path, shard_bytes=self.SHARD).files[1] == 0

    def test_done_is_not_done_again(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        base = dense("llama")
        merge(recipe(base, [base, base]), tmp_path)
        assert merge(recipe(base, [base, base]), tmp_path).files == (1, 1)

    def test_a_wrong_matrix_on_disk_is_found(
        self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A scale that is left out is what the public code does."""
        base = dense("llama")
        chosen = recipe(base, [tiny.lora(base, seed=5, target_modules=ALL_LINEAR), base])
        monkeypatch.setattr("fusion.moe._adapter.LowRank.delta", lambda self: self.up @ self.down)
        with pytest.raises(FusionError, match=r"experts\.0\.w\d\.weight in .* is not W \+ 2 B A of e0: off by"):
            merge(chosen, tmp_path)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_types(self, dtype: str, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        base = dense("llama")
        chosen = recipe(base, [tiny.lora(base, seed=5, target_modules=ALL_LINEAR), base], dtype=dtype)
        assert merge(chosen, tmp_path).checked == 6
        assert {str(one.dtype) for one in load_file(tmp_path / "model.safetensors").values()} == {f"torch.{dtype}"}
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype


class TestGates:
    def test_the_discriminant_by_hand(self) -> None:
        """Means (2, 1) and (0, 1): the mean is (1, 1), a third of nothing; apart they are +-(1, 0).

        The direction (1, 1) of the mean is taken off: +-(.5, -.5). Each expert's two prompts are 1 from its mean in the
        first number, 0 in the second: a mean square of .5.
        """
        states = [torch.tensor([[1.0, 1.0], [3.0, 1.0]]), torch.tensor([[-1.0, 1.0], [1.0, 1.0]])]
        torch.testing.assert_close(discriminant(states), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))

    @pytest.mark.parametrize("mode", ["hidden", "cheap_embed"])
    def test_prompts_go_to_their_expert(self, mode: str, tiny: TinyModels, tmp_path: Path) -> None:
        """Seen in the first layer: what the gate is given there is all that the prompts are."""
        base = tiny.llama()
        prompts = [
            ["what is the capital of France", "the capital of Italy is Rome"],
            ["A. one B. two C. three", "D. four"],
        ]
        experts = [
            {"source_model": str(base), "name": f"e{n}", "positive_prompts": texts} for n, texts in enumerate(prompts)
        ]
        chosen = MoERecipe.model_validate({"base_model": str(base), "experts": experts, "gate_mode": mode})
        merge(chosen, tmp_path)
        gates = [one for name, one in load_file(tmp_path / "model.safetensors").items() if name.endswith("gate.weight")]
        assert len(gates) == 2
        torch.testing.assert_close(gates[0].sum(dim=0), torch.zeros(32), rtol=0, atol=1e-4)
        assert gates[0].abs().max() > 0.01

    def test_a_zero_gate(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        base = dense("llama")
        merge(recipe(base, [base, base], gate_mode="zero"), tmp_path)
        found = load_file(tmp_path / "model.safetensors")
        assert not found["model.layers.0.block_sparse_moe.gate.weight"].any()

    def test_prompts_that_are_the_same(self, tiny: TinyModels, tmp_path: Path) -> None:
        base = tiny.llama()
        experts = [{"source_model": str(base), "name": name, "positive_prompts": ["two"]} for name in "ab"]
        chosen = MoERecipe.model_validate({"base_model": str(base), "experts": experts})
        with pytest.raises(FusionError, match="cannot tell them apart"):
            merge(chosen, tmp_path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"experts": []}, "experts"),
            ({"experts_per_token": 3}, "experts_per_token is 3, and there are 2 experts"),
            ({"shared": "averge"}, "shared is refuse, base, average or one of e0, e1; got 'averge'"),
            ({"gate_mode": "hidden"}, "e0, e1 has none"),
            ({"gate_mod": "zero"}, "gate_mode"),
            ({"experts": [{"source_model": "a/b"}, {"source_model": "c/b"}]}, "b is given twice"),
        ],
    )
    def test_recipes(self, changed: dict[str, Any], told: str, tmp_path: Path) -> None:
        from fusion.config import read_config

        content = {"base_model": "base", "gate_mode": "zero"}
        content |= {"experts": [{"source_model": "x", "name": "e0"}, {"source_model": "y", "name": "e1"}]}  # type: ignore[dict-item]
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content | changed))
        with pytest.raises(ConfigError, match=re.escape(told)):
            read_config(tmp_path / "recipe.yaml", MoERecipe)

    def test_other_shapes(self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        other = tiny.built(LlamaConfig(**DENSE["llama"].to_dict() | {"intermediate_size": 40}), "narrow", seed=0)
        with pytest.raises(InputError, match=r"intermediate_size: e1 has 40, the base 48; not merged") as caught:
            merge(recipe(dense("llama"), [dense("llama"), other]), tmp_path / "out")
        assert str(caught.value).count("up_proj") == 2

    def test_another_rope(self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        other = tiny.edited(dense("llama"), "other-rope", **plain)
        with pytest.raises(InputError, match="rope_parameters: e1 has"):
            merge(recipe(dense("llama"), [dense("llama"), other]), tmp_path / "out")

    @pytest.mark.parametrize("field", ["attention_bias", "mlp_bias"])
    def test_biases(self, field: str, tiny: TinyModels, tmp_path: Path) -> None:
        base = tiny.built(LlamaConfig(**DENSE["llama"].to_dict() | {field: True}), f"with-{field}", seed=0)
        with pytest.raises(InputError, match=f"{field}=True: .* biases; no stock architecture has it"):
            merge(recipe(base, [base, base]), tmp_path / "out")

    def test_an_architecture_without_a_mixture(self, tiny: TinyModels, tmp_path: Path) -> None:
        other = tiny.edited(tiny.llama(), "gpt2-config", model_type="gpt2")
        with pytest.raises(InputError, match=r"is a gpt2; .* Known are llama, mistral, qwen3"):
            merge(recipe(other, [other, other]), tmp_path / "out")

    @pytest.mark.parametrize("setting", [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}])
    def test_adapters_that_do_more(
        self, setting: dict[str, Any], dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path
    ) -> None:
        base = dense("llama")
        adapter = tiny.lora(base, seed=7, name=f"more-{next(iter(setting))}", target_modules=ALL_LINEAR, **setting)
        with pytest.raises(InputError, match=f"adds more than a product of two matrices: {next(iter(setting))}="):
            merge(recipe(base, [adapter, base]), tmp_path / "out")

    def test_an_adapter_of_another_model(self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        adapter = tiny.lora(tiny.llama(hidden=16), seed=8, target_modules=ALL_LINEAR)
        with pytest.raises(InputError, match=r"e0 changes a weight of shape \[32, 16\], the base's is \[48, 32\]"):
            merge(recipe(dense("llama"), [adapter, dense("llama")]), tmp_path / "out")

    def test_a_folder_with_something_else(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(OutputError, match="is not what fusion merge made"):
            merge(recipe(dense("llama"), [dense("llama"), dense("llama")]), tmp_path)

    def test_nothing_there(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expert e1: there is no folder"):
            merge(recipe(dense("llama"), [dense("llama"), tmp_path / "nowhere"]), tmp_path / "out")

    def test_weights_that_are_no_safetensors(self, dense: Callable[[str], Path], tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes((dense("llama") / "config.json").read_bytes())
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        with pytest.raises(InputError, match="has no safetensors"):
            merge(recipe(dense("llama"), [tmp_path, dense("llama")]), tmp_path / "out")

    def test_a_file_that_is_cut_off(self, dense: Callable[[str], Path], tiny: TinyModels, tmp_path: Path) -> None:
        broken = tiny.edited(dense("llama"), "cut-off")
        content = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(content[:100])
        with pytest.raises(InputError, match="is no safetensors file"):
            merge(recipe(broken, [broken, broken]), tmp_path / "out")


class TestCommand:
    @pytest.fixture
    def run(self, bare: Path, capsys: pytest.CaptureFixture[str]) -> Run:
        return lambda *words: command_line.run(capsys, ("merge", *words))

    @pytest.fixture
    def written(self, bare: Path, dense: Callable[[str], Path], tiny: TinyModels) -> Path:
        base = dense("llama")
        adapter = tiny.lora(base, seed=5, target_modules=ALL_LINEAR)
        content = recipe(base, [adapter, base]).model_dump(mode="json")
        (bare / "recipe.yaml").write_text(yaml.safe_dump(content))
        return bare / "recipe.yaml"

    def test_it_merges(self, run: Run, written: Path) -> None:
        told = run("recipe.yaml", "--out", "merged", "--json", "merged.json")
        assert told.code == 0, told.error
        assert "6 matrices on disk are W + scale B A" in told.out
        assert told.out.endswith("wrote merged\n")
        found = json.loads(Path("merged.json").read_text())
        assert (found["architecture"], found["files"], found["matrices_checked"]) == ("MixtralForCausalLM", 1, 6)
        card = Path("merged/README.md").read_text()
        assert "| e0 | " in card
        assert "LoRA adapter, r = 4, alpha = 8" in card
        load(Path("merged"))

    def test_checking_writes_nothing(self, run: Run, written: Path) -> None:
        before = sorted(written.parent.iterdir())
        assert run("recipe.yaml", "--check").code == 0
        assert sorted(written.parent.iterdir()) == before

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ((), "--out DIR"),
            (("--out", "x", "--check"), "not both"),
            (("--out", "x", "--out-shard-size", "big"), "a size such as 5GB or 500MB, got 'big'"),
            (("--out", "x", "--set", "gate_mode=zeros"), "gate_mode"),
        ],
    )
    def test_usage(self, words: tuple[str, ...], told: str, run: Run, written: Path) -> None:
        found: Told = run("recipe.yaml", *words)
        assert found.code != 0
        assert told in found.error

    def test_what_is_refused_fails_the_check(
        self, run: Run, written: Path, dense: Callable[[str], Path], tiny: TinyModels
    ) -> None:
        content = yaml.safe_load(written.read_text())
        adapter = tiny.lora(dense("llama"), seed=9, name="attention-only")
        content["experts"][1]["source_model"] = str(adapter)
        written.write_text(yaml.safe_dump(content))
        found = run("recipe.yaml", "--check", "--json", "-")
        assert found.code == 1
        assert [one["kind"] for one in json.loads(found.out)["findings"]] == ["note", "refused"]


def test_a_merged_result_says_what_it_is(dense: Callable[[str], Path], tmp_path: Path) -> None:
    """One expert of two computes each token: a half of the experts' weights, and all others."""
    base = dense("llama")
    done: Merged = merge(recipe(base, [base, base], experts_per_token=1), tmp_path)
    experts = 2 * 2 * 3 * 32 * 48
    assert done.parameters[0] - done.parameters[1] == experts // 2
    assert done.nbytes == 4 * done.parameters[0]
    assert done.experts == ("e0", "e1")
