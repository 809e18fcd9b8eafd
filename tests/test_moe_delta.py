"""A mixture as deltas on shared weights: what full matrices give, gradients included, and the merged checkpoint."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import TinyModels, quiet
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen3Config

from fusion.discovery import build
from fusion.errors import FusionError, InputError, UsageError
from fusion.moe import MoELayout, MoERecipe, merge
from fusion.moe._adapter import Adapter, LowRank
from fusion.moe._delta import DeltaExperts, DeltaMoeBlock, DeltaProjection, Router, router_logits
from fusion.moe._delta_model import delta_weights, from_dense, state_for_layout

pytestmark = pytest.mark.usefixtures("quick")
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[1, 5, 9, 13, 2, 40, 41, 7], [1, 8, 3, 3, 17, 21, 6, 30]])
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
DENSE: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL),
    "mistral": MistralConfig(**SMALL, sliding_window=4),
    "qwen3": Qwen3Config(**SMALL, tie_word_embeddings=True),
}


def made(
    *,
    hidden: int = 12,
    inner: int = 20,
    ranks: Sequence[int] = (4, 4, 4),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> DeltaExperts:
    """Make experts, one for each rank."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws) * shape[-1] ** -0.5 if 0 not in shape else torch.zeros(shape)

    def projection(out: int, into: int) -> DeltaProjection:
        deltas = [LowRank(drawn(rank, into), drawn(out, rank), 0.5 + rank / 10) if rank else None for rank in ranks]
        return DeltaProjection.of(drawn(out, into).to(dtype), deltas=deltas)

    return DeltaExperts(
        projection(inner, hidden), up_proj=projection(inner, hidden), down_proj=projection(hidden, inner)
    )


def routes(tokens: int, num_experts: int, top_k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the experts of tokens, and what they count for."""
    draws = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, num_experts, generator=draws).softmax(dim=-1)
    weights, index = scores.topk(top_k, dim=-1)
    return index, weights / weights.sum(dim=-1, keepdim=True)


def loop(experts: DeltaExperts, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute the same token by token, with the full matrices of each expert."""
    rows = []
    for token, row in enumerate(hidden):
        total = torch.zeros_like(row)
        for slot, expert in enumerate(index[token].tolist()):
            gate, up, down = (
                one.weight + one.scale[expert] * (one.up[expert] @ one.down[expert]).to(one.weight.dtype)
                for one in (experts.gate_proj, experts.up_proj, experts.down_proj)
            )
            total = total + weights[token, slot] * (down @ (functional.silu(gate @ row) * (up @ row)))
        rows.append(total)
    return torch.stack(rows)


class TestExperts:
    def test_by_hand(self) -> None:
        """One number wide. Shared: gate 1, up 2, down 3; expert 0 adds nothing, expert 1 adds 1 x 1 x .5 to up only.

        x = 2: silu(2) = 2 / (1 + e^-2) = 1.761594. Expert 0: 3 x (1.761594 x 4) = 21.139130; expert 1, whose up is 2.5:
        3 x (1.761594 x 5) = 26.423912. With weights .25 and .75: 25.102717.
        """
        one = torch.ones(1, 1)
        up = DeltaProjection.of(2 * one, deltas=[None, LowRank(one, one, 0.5)])
        gate, down = (DeltaProjection.of(times * one, deltas=[None, None]) for times in (1, 3))
        experts = DeltaExperts(gate, up_proj=up, down_proj=down)
        found = experts(2 * one, torch.tensor([[1, 0]]), torch.tensor([[0.75, 0.25]]))
        torch.testing.assert_close(found, torch.tensor([[25.102717]]))

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        ranks=st.lists(st.sampled_from([0, 1, 2, 3, 8]), min_size=1, max_size=6),
        top_k=st.integers(1, 6),
        tokens=st.sampled_from([1, 2, 7, 40]),
        seed=st.integers(0, 100),
    )
    def test_it_is_the_loop(self, ranks: list[int], top_k: int, tokens: int, seed: int) -> None:
        """Float32 sums of a few dozen numbers of size 1 differ by no more than 1e-5."""
        experts = made(ranks=ranks, seed=seed)
        index, weights = routes(tokens, len(ranks), min(top_k, len(ranks)), seed)
        hidden = torch.randn(tokens, 12, generator=torch.Generator().manual_seed(seed))
        found = experts(hidden, index, weights)
        torch.testing.assert_close(found, loop(experts, hidden, index, weights), rtol=1e-5, atol=1e-5)
        assert found.equal(experts(hidden, index, weights))

    def test_no_tokens(self) -> None:
        assert made()(torch.zeros(0, 12), *routes(0, 3, 2)).shape == (0, 12)

    @pytest.mark.parametrize("autocast", [False, True])
    def test_half_precision(self, autocast: bool) -> None:
        """A bfloat16 has 8 bits: each of a handful of roundings moves a number by 1/256 of it at most."""
        experts = made(dtype=torch.float32 if autocast else torch.bfloat16)
        assert experts.up_proj.up.dtype == torch.float32
        index, weights = routes(30, 3, 2)
        hidden = torch.randn(30, 12, generator=torch.Generator().manual_seed(0)).bfloat16().float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            found = experts(hidden if autocast else hidden.bfloat16(), index, weights)
        assert found.dtype == torch.bfloat16
        found.float().square().sum().backward()
        assert experts.up_proj.up.grad is not None
        assert experts.up_proj.up.grad.dtype == torch.float32
        expected = loop(experts.float(), hidden, index, weights).detach()
        torch.testing.assert_close(found.detach().float(), expected, rtol=0.03, atol=0.03 * float(expected.abs().max()))

    @pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 3, 2, 4)])
    @pytest.mark.parametrize(("tokens", "top_k"), [(1, 1), (5, 2), (6, 3)])
    def test_gradients_are_those_of_the_loop(self, ranks: tuple[int, ...], tokens: int, top_k: int) -> None:
        experts = made(ranks=ranks).double()
        index, weights = routes(tokens, len(ranks), top_k)
        hidden = torch.randn(tokens, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        inputs = [hidden.requires_grad_(), weights.double().requires_grad_(), *_trained(experts)]
        wanted = torch.randn(tokens, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = torch.autograd.grad((experts(inputs[0], index, inputs[1]) * wanted).sum(), inputs)
        expected = torch.autograd.grad((loop(experts, inputs[0], index, inputs[1]) * wanted).sum(), inputs)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

    def test_gradients_are_differences(self) -> None:
        experts = made(hidden=3, inner=4, ranks=(1, 2)).double()
        index, weights = routes(3, 2, 2)
        hidden = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        inputs = (hidden.requires_grad_(), weights.double().requires_grad_(), *_trained(experts))
        assert torch.autograd.gradcheck(lambda hidden, weights, *_: experts(hidden, index, weights), inputs)

    def test_who_is_not_asked_learns_nothing(self) -> None:
        """And what fills up a lower rank stays zero."""
        experts = made(ranks=(2, 4, 3, 4))
        index = torch.tensor([[0, 1], [1, 0], [0, 1]])
        experts(torch.ones(3, 12), index, torch.full((3, 2), 0.5)).square().sum().backward()
        projection: Any
        for projection in experts.children():
            assert projection.weight.grad is None
            for grad in (projection.down.grad, projection.up.grad.transpose(1, 2)):
                assert not grad[2:].any()
                assert grad[0, :2].any()
                assert not grad[0, 2:].any()

    def test_state(self) -> None:
        one, other = made(seed=1), made(seed=2)
        inputs = torch.randn(9, 12, generator=torch.Generator().manual_seed(0)), *routes(9, 3, 2)
        assert not one(*inputs).allclose(other(*inputs))
        other.load_state_dict(one.state_dict())
        assert one(*inputs).equal(other(*inputs))
        assert sorted(one.state_dict()) == sorted(
            f"{name}.{part}" for name in FEED_FORWARD for part in ("down", "scale", "up", "weight")
        )

    def test_shapes_that_do_not_fit(self) -> None:
        one, two = made(), made(ranks=(4, 4))
        with pytest.raises(UsageError, match=r"\[\(3, 20, 12\), \(3, 12, 20\)\], got \[\(2, 20, 12\), \(3, 12, 20\)\]"):
            DeltaExperts(one.gate_proj, up_proj=two.up_proj, down_proj=one.down_proj)
        with pytest.raises(UsageError, match=r"for a weight \[20, 12\] have shapes"):
            DeltaProjection(
                one.gate_proj.weight, down=torch.ones(3, 2, 12), up=torch.ones(3, 2, 20), scale=torch.ones(3)
            )
        with pytest.raises(UsageError, match=r"top_k is 1 to 3, the number of experts; got 4"):
            DeltaMoeBlock(one, gate=torch.ones(3, 12), top_k=4)
        with pytest.raises(UsageError, match=r"the gate of 3 experts has shape \[3, 12\], got \[2, 12\]"):
            DeltaMoeBlock(one, gate=torch.ones(2, 12), top_k=2)


def _trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [one for one in module.parameters() if one.requires_grad]


Family = Callable[[str], tuple[Path, list[Path]]]


@pytest.fixture(scope="module")
def family(tiny: TinyModels) -> Family:
    """A dense model, and three adapters: of other ranks, of one layer alone, without one of the projections."""

    def found(kind: str) -> tuple[Path, list[Path]]:
        base = tiny.built(DENSE[kind], f"delta-{kind}")
        return base, [
            tiny.lora(base, seed=1, target_modules=FEED_FORWARD, r=2, rank_pattern={"up_proj": 5}),
            tiny.lora(base, seed=2, target_modules=FEED_FORWARD, layers_to_transform=[1], use_rslora=True),
            tiny.lora(base, seed=3, target_modules=["gate_proj", "down_proj"], alpha_pattern={"gate_proj": 3}),
        ]

    return found


def dense(folder: Path) -> PreTrainedModel:
    with quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def opened(folders: Sequence[Path]) -> list[Adapter]:
    return [Adapter(folder, f"expert e{n}") for n, folder in enumerate(folders)]


def gates(num_experts: int = 3, seed: int = 0) -> dict[int, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(num_experts, 32, generator=draws) for layer in range(2)}


def mixture(given: tuple[Path, list[Path]]) -> Any:
    base, experts = given
    return from_dense(dense(base), adapters=opened(experts), top_k=2, gates=gates()).eval()


def checkpointed(given: tuple[Path, list[Path]], *, reentrant: bool = False) -> Any:
    model = mixture(given).train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    return model


@pytest.mark.parametrize("kind", DENSE)
class TestModels:
    def test_it_is_the_merged_model(self, kind: str, family: Family, tmp_path: Path) -> None:
        """Products of matrices that zeros fill up may be summed in another order, nothing else differs."""
        base, experts = family(kind)
        sources = [{"source_model": str(path), "name": f"e{n}"} for n, path in enumerate(experts)]
        recipe = {"base_model": str(base), "experts": sources, "gate_mode": "random", "gate_std": 1.0}
        merge(MoERecipe.model_validate(recipe), tmp_path / "merged")
        written = load_file(tmp_path / "merged" / "model.safetensors")
        layout = build("moe", kind)
        assert isinstance(layout, MoELayout)
        chosen = {layer: written[layout.gate(layer)] for layer in range(2)}
        model = from_dense(dense(base), adapters=opened(experts), top_k=2, gates=chosen).eval()
        with torch.inference_mode():
            logits = model(input_ids=IDS).logits
            torch.testing.assert_close(dense(tmp_path / "merged")(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-4)
        state = dict(state_for_layout(model, layout=layout))
        assert sorted(state) == sorted(written)
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, written[name], rtol=1e-6, atol=1e-6)

    def test_what_was_trained_is_exported(self, kind: str, family: Family, tmp_path: Path) -> None:
        """A few steps of training later, the stock model that is loaded from the export computes the same."""
        model = mixture(family(kind)).train()
        optimizer = torch.optim.Adam(_trained(model), lr=1e-2)
        before = model(input_ids=IDS).logits.detach()
        for _ in range(3):
            optimizer.zero_grad()
            model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
        layout: Any = build("moe", kind)
        state = {name: one.detach().contiguous() for name, one in state_for_layout(model, layout=layout)}
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        layout.config(model.config, num_experts=3, top_k=2).save_pretrained(tmp_path)
        with torch.inference_mode():
            found, expected = dense(tmp_path)(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not found.allclose(before, rtol=1e-2, atol=1e-2)

    def test_checkpointing_changes_nothing(self, kind: str, family: Family) -> None:
        """Neither loss nor gradients, those of a loss on the gates' logits included."""
        found = []
        for checkpointing in (False, True):
            model = checkpointed(family(kind)) if checkpointing else mixture(family(kind)).train()
            with router_logits(model) as logits:
                loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
            assert [tuple(one.shape) for one in logits] == [(2, 8, 3)] * 2
            gating = torch.stack([one.softmax(dim=-1)[..., 0].mean() for one in logits]).mean()
            (loss + gating.log()).backward()
            found.append([loss.detach(), gating.detach(), *(one.grad for one in _trained(model))])
        assert model.model.layers[0].mlp.gate.weight.grad.any()
        for one, other in zip(*found, strict=True):
            assert one.equal(other)


class TestRouterLogits:
    def test_gating_loss_alone_reaches_the_gates(self, family: Family) -> None:
        model = checkpointed(family("llama"))
        with router_logits(model) as logits:
            model(input_ids=IDS, use_cache=False)
        torch.stack([one.softmax(dim=-1)[..., 0].mean() for one in logits]).mean().backward()
        for layer in model.model.layers:
            assert layer.mlp.gate.weight.grad.any()

    def test_nothing_is_held(self, family: Family) -> None:
        """After a step, no tensor with a history is left in the model, and the logits go with the list."""
        model = checkpointed(family("llama"))
        with router_logits(model) as logits:
            loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        held = [weakref.ref(one) for one in logits]
        del loss
        logits.clear()
        assert not any(one() is not None for one in held)
        for module in model.modules():
            kept = [one for one in vars(module).values() if isinstance(one, torch.Tensor)]
            assert not any(one.grad_fn is not None for one in kept)
            assert not (isinstance(module, Router) and module._forward_hooks)

    def test_a_second_pass(self, family: Family) -> None:
        model = checkpointed(family("llama"))
        with router_logits(model), pytest.raises(FusionError, match="records one forward pass"):
            model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        assert not model.model.layers[0].mlp.gate._forward_hooks

    def test_checkpointing_that_re_enters(self, family: Family) -> None:
        model = checkpointed(family("llama"), reentrant=True)
        model.enable_input_require_grads()
        with router_logits(model), pytest.raises(FusionError, match="use_reentrant=False"):
            model(input_ids=IDS, use_cache=False)
        with torch.no_grad(), router_logits(model.eval()) as logits:
            model(input_ids=IDS, use_cache=False)
        assert len(logits) == 2


class TestFromDense:
    def test_weights_are_shared_and_frozen(self, family: Family) -> None:
        base, experts = family("llama")
        model: Any = dense(base)
        before = model.model.layers[0].mlp.up_proj.weight
        from_dense(model, adapters=opened(experts), top_k=1)
        block = model.model.layers[0].mlp
        assert block.experts.up_proj.weight is before
        assert not before.requires_grad
        assert block.gate.weight.requires_grad
        assert not block.gate.weight.any()
        assert [one.down.shape[1] for one in (block.experts.up_proj, block.experts.gate_proj)] == [5, 4]

    def test_bfloat16(self, family: Family) -> None:
        """The export has the type of the base, rounded once from float32."""
        base, experts = family("llama")
        model: Any = from_dense(dense(base).bfloat16(), adapters=opened(experts), top_k=2, gates=gates())
        block = model.model.layers[1].mlp
        assert block.gate.weight.dtype == block.experts.up_proj.up.dtype == torch.float32
        full = {(one.expert, one.projection): one.weight for one in delta_weights(block)}
        assert len(full) == 9
        adapter, name = opened(experts)[0], "model.layers.1.mlp.down_proj.weight"
        expected = block.experts.down_proj.weight.float() + adapter.read(name).delta()
        assert full[0, "down_proj"].equal(expected.bfloat16())
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16

    def test_attention_is_refused(self, family: Family, tiny: TinyModels) -> None:
        base, experts = family("llama")
        other = tiny.lora(base, seed=4, target_modules=[*FEED_FORWARD, "q_proj"])
        model: Any = dense(base)
        with pytest.raises(InputError, match=r"expert e1 changes 2 weights that experts share: model\.layers\.0\.self"):
            from_dense(model, adapters=opened([experts[0], other]), top_k=1)
        assert not isinstance(model.model.layers[0].mlp, DeltaMoeBlock)

    def test_an_adapter_of_another_model(self, family: Family, tiny: TinyModels) -> None:
        base, _ = family("llama")
        other = tiny.lora(tiny.llama(hidden=16, layers=3), seed=4, target_modules=["up_proj"])
        with pytest.raises(InputError) as caught:
            from_dense(dense(base), adapters=opened([other]), top_k=1)
        assert "expert e0 changes model.layers.0.mlp.up_proj.weight as [32, 16], the model's is [48, 32]" in str(
            caught.value
        )
        assert "expert e0 changes model.layers.2.mlp.up_proj.weight, which the model lacks" in str(caught.value)

    def test_models_without_a_mixture(self, family: Family, tiny: TinyModels) -> None:
        base, experts = family("llama")
        model = dense(base)
        model.config.hidden_act = "gelu"
        with pytest.raises(InputError, match="hidden_act: the activation is gelu"):
            from_dense(model, adapters=opened(experts), top_k=1)
        model.config.model_type = "gpt2"
        with pytest.raises(InputError, match=r"is a gpt2; .* Known are llama, mistral, qwen3"):
            from_dense(model, adapters=opened(experts), top_k=1)

    def test_what_was_asked_wrongly(self, family: Family) -> None:
        base, experts = family("llama")
        with pytest.raises(UsageError, match="one adapter at least"):
            from_dense(dense(base), adapters=[], top_k=1)
        with pytest.raises(UsageError, match="top_k is 1 to 3"):
            from_dense(dense(base), adapters=opened(experts), top_k=4)
        with pytest.raises(UsageError, match=r"gates are for the layers \[0, 1\], got \[0\]"):
            from_dense(dense(base), adapters=opened(experts), top_k=2, gates={0: gates()[0]})
