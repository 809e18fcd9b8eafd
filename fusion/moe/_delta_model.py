"""From a dense model and adapters to a mixture in its memory-lean form, and from there to the stock checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fusion.discovery import build, names
from fusion.errors import InputError, UsageError
from fusion.moe._adapter import Adapter
from fusion.moe._delta import DeltaExperts, DeltaMoeBlock, DeltaProjection
from fusion.moe._layout import PROJECTIONS, MoELayout, feed_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FEW = 3


class ExpertWeight(NamedTuple):
    """One matrix of one expert.

    Attributes:
        expert: From 0.
        projection: gate_proj, up_proj or down_proj.
        weight: W + s B A, float [out, in], of the type of W.
    """

    expert: int
    projection: str
    weight: torch.Tensor


def from_dense(
    model: "PreTrainedModel",
    *,
    adapters: Sequence[Adapter],
    top_k: int,
    gates: Mapping[int, torch.Tensor] | None = None,
) -> "PreTrainedModel":
    """Make a dense model a mixture whose experts are adapters on its feed-forward blocks; the model itself changes.

    The feed-forward weights stay where they are, frozen; whether other weights are trained is left as it is. Dropout
    that adapters were trained with is not applied. It is saved by `state_for_layout`, as save_pretrained would write
    the configuration of the dense model beside it.

    Args:
        model: A Llama, Mistral or Qwen3, loaded.
        adapters: The experts, in their order; ranks may differ.
        top_k: How many experts compute each token, 1 to the number of adapters.
        gates: Where the gate of each layer begins, float [E, D]; zeros by default, where all experts are alike.

    Returns:
        The model.

    Raises:
        InputError: When an adapter changes something else than feed-forward blocks, or does not fit, or no stock
            mixture can express the model; everything that stands in the way is named.
        UsageError: When there are no adapters, or top_k or a gate does not fit.
    """
    if not adapters:
        raise UsageError("a mixture needs one adapter at least, got none")
    wrong = [*_unfit(model), *(told for adapter in adapters for told in _misfits(model, adapter))]
    if wrong:
        raise InputError("no mixture of these:\n" + "\n".join(f"  {one}" for one in wrong))
    root: Any = model
    if gates is not None and set(gates) != (wanted := set(range(len(root.model.layers)))):
        raise UsageError(f"gates are for the layers {sorted(wanted)}, got {sorted(gates)}")
    blocks = []
    for number, layer in enumerate(root.model.layers):
        projections = {name: _projection(layer.mlp, adapters, number, name) for name in PROJECTIONS}
        gate_ED = torch.zeros(len(adapters), model.config.hidden_size) if gates is None else gates[number]
        gate_ED = gate_ED.to(layer.mlp.gate_proj.weight.device)
        blocks.append(DeltaMoeBlock(DeltaExperts(**projections), gate=gate_ED, top_k=top_k))
    # Only now, so that no layer is replaced where another is refused.
    for layer, block in zip(root.model.layers, blocks, strict=True):
        layer.mlp = block.train(model.training)
    return model


def delta_weights(block: DeltaMoeBlock) -> Iterator[ExpertWeight]:
    """Yield the full matrices of all experts of a block, one at a time."""
    for expert in range(block.experts.num_experts):
        for name in PROJECTIONS:
            projection: DeltaProjection = getattr(block.experts, name)
            yield ExpertWeight(expert, name, projection.full(expert).to(projection.weight.dtype))


def state_for_layout(model: "PreTrainedModel", *, layout: MoELayout) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors of the stock checkpoint that computes the same, one at a time.

    Gates and experts have the type of the shared weights, as `merge` writes them; all others are the model's own.

    Args:
        model: What `from_dense` returned, trained or not, without adapters around its other layers.
        layout: Of the checkpoint; its `config` gives the configuration.
    """
    root: Any = model
    blocks: dict[int, DeltaMoeBlock] = {
        number: layer.mlp for number, layer in enumerate(root.model.layers) if isinstance(layer.mlp, DeltaMoeBlock)
    }
    inside = tuple(f"model.layers.{number}.mlp." for number in blocks)
    for name, tensor in model.state_dict().items():
        tied = name == "lm_head.weight" and model.config.tie_word_embeddings
        if not tied and not name.startswith(inside):
            yield name, tensor
    for number, block in blocks.items():
        dtype = block.experts.gate_proj.weight.dtype
        yield layout.gate(number), block.gate.weight.detach().to(dtype)
        for expert, projection, weight in delta_weights(block):
            yield layout.expert(number, expert, projection), weight


def _projection(mlp: Any, adapters: Sequence[Adapter], layer: int, projection: str) -> DeltaProjection:
    name = f"model.layers.{layer}.mlp.{projection}.weight"
    deltas = [adapter.read(name) if name in adapter.names else None for adapter in adapters]
    return DeltaProjection.of(getattr(mlp, projection).weight, deltas=deltas)


def _unfit(model: "PreTrainedModel") -> Iterator[str]:
    """Yield what of the model no stock mixture can express."""
    layouts = [layout for name in names("moe") if isinstance(layout := build("moe", name), MoELayout)]
    fitting = [layout for layout in layouts if layout.dense == model.config.model_type]
    if not fitting:
        known = ", ".join(sorted(layout.dense for layout in layouts))
        yield f"the model is a {model.config.model_type}; no stock mixture has its attention. Known are {known}"
        return
    for finding in fitting[0].unfit(model.config):
        if finding.kind == "refused":
            yield f"{finding.where}: {finding.what}"


def _misfits(model: "PreTrainedModel", adapter: Adapter) -> Iterator[str]:
    """Yield what of an adapter does not fit."""
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()}
    others = [name for name in adapter.names if feed_forward(name) is None]
    if others:
        some = ", ".join(sorted(others)[:_FEW]) + (", ..." if len(others) > _FEW else "")
        yield (
            f"{adapter.what} changes {len(others)} weights that experts share: {some}; train it on gate_proj, up_proj "
            "and down_proj only, or merge it with shared set"
        )
    for name in adapter.names:
        if name in others:
            continue
        if name not in shapes:
            yield f"{adapter.what} changes {name}, which the model lacks"
        elif adapter.shape(name) != shapes[name]:
            yield f"{adapter.what} changes {name} as {list(adapter.shape(name))}, the model's is {list(shapes[name])}"
