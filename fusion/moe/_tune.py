"""Tuning a mixture: gate, experts and attention, in the memory-lean form; what comes out is the stock checkpoint.

Source: H3Fusion, Tekin et al. 2024, arXiv:2411.17792. Deviations: the gate is trained (in the public code it stays
random); experts are trained in the factors that they came with, on shared base weights (`fusion.moe._delta`), rather
than by further factors on merged matrices.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import InputError, UsageError
from fusion.moe._assemble import COPIED, begin, write_checkpoint
from fusion.moe._checkpoint import Checkpoint
from fusion.moe._examples import TuneCollate, TuneExample, encoded
from fusion.moe._gate import first_gates
from fusion.moe._losses import LowRankMoves, drift_loss, gating_loss
from fusion.moe._recipe import MoERecipe
from fusion.moe._sources import Base, LoraExpert, open_base, open_experts
from fusion.training import Trained, TrainOptions, is_main, train

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Told = Callable[[str, int, int], None]
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_ADAPTER = "attention"


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How a mixture is tuned.

    Args:
        training: See `fusion.training.TrainOptions`.
        gating: Weight of the gating loss.
        drift: gamma, the weight of the drift of every expert, in the recipe's order; one number for all.
        attention_rank: r of the low-rank changes of attention; 0 leaves attention as it is.
        attention_alpha: alpha of these.
        longest: Most tokens of an example.
    """

    training: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    gating: float = 0.01
    drift: tuple[float, ...] | float = 0.0
    attention_rank: int = 8
    attention_alpha: float = 16.0
    longest: int = 1024

    def gammas(self, num_experts: int) -> tuple[float, ...]:
        """Return gamma of every expert.

        Raises:
            UsageError: When there are more or fewer than experts.
        """
        found = self.drift if isinstance(self.drift, tuple) else (self.drift,) * num_experts
        if len(found) != num_experts:
            raise UsageError(f"drift takes one number, or one for each of the {num_experts} experts; got {len(found)}")
        return found


class Tuned(NamedTuple):
    """What tuning came to.

    Attributes:
        folder: Where the checkpoint is.
        architecture: What loads it.
        trained: How training went.
        trainable: Numbers that were trained.
    """

    folder: Path
    architecture: str
    trained: Trained
    trainable: int


def tune(
    recipe: MoERecipe,
    examples: Sequence[TuneExample],
    folder: Path,
    *,
    held_out: Sequence[TuneExample] = (),
    options: TuneOptions | None = None,
    told: Told | None = None,
    tensorboard: bool = False,
) -> Tuned:
    """Train a mixture, and write it as a checkpoint of a stock architecture.

    Training that was cut short goes on from `folder`/training. What is trained: the gate, every expert's factors, and
    low-rank changes of attention, by the loss of the next token on completions, the gating loss and the drift.

    Args:
        recipe: What the mixture is made of; experts must be adapters of feed-forward blocks.
        examples: What to learn from.
        folder: Where the checkpoint goes.
        held_out: Examples to stop by; may be empty.
        options: How.
        told: Told of every step.
        tensorboard: Whether losses are logged for TensorBoard.

    Raises:
        InputError: When something cannot be read, or does not fit.
        UsageError: When there are not as many gammas as experts.
        OutputError: When the folder cannot be written.
        FusionError: When training diverges.
        MissingDependency: When transformers or peft is not installed.
    """
    options = options or TuneOptions()
    tell: Told = told or (lambda what, done, total: None)
    base, adapters = open_base(recipe), _adapters(recipe)
    gammas = options.gammas(len(adapters))
    tokenizer = _tokenizer(base)
    rows, checked = (encoded(part, tokenizer, longest=options.longest) for part in (examples, held_out))
    mark = _mark(recipe, base, adapters, options, [rows, checked])
    begin(folder, mark)
    gates = first_gates(recipe, base, told=tell)
    made: list[Any] = []

    def make() -> Any:
        model = _mixture(recipe, base, adapters, gates, options)
        _add_losses(model, gammas, options)
        made[:] = [model]
        return model

    place = folder / "training"
    trained = train(
        make,
        rows,
        checked,
        collate=TuneCollate(_pad(tokenizer)),
        folder=place,
        mark=mark,
        options=options.training,
        told=told,
        tensorboard=tensorboard,
    )
    # What did best is on disk, whether or not this process has trained it.
    model = made[0] if made else make()
    _take(model, Checkpoint(place / "model", "the tuned mixture"))
    if is_main():
        _export(model, base, recipe, folder, tell)
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return Tuned(folder, base.layout.sparse, trained, trainable)


def _adapters(recipe: MoERecipe) -> list[LoraExpert]:
    experts = open_experts(recipe)
    whole = [expert.name for expert in experts if not isinstance(expert, LoraExpert)]
    if whole:
        raise InputError(
            f"fusion tune trains experts that are adapters, and {', '.join(whole)} "
            f"{'is a full model' if len(whole) == 1 else 'are full models'}; fusion merge takes these"
        )
    return [expert for expert in experts if isinstance(expert, LoraExpert)]


def _tokenizer(base: Base) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.weights.folder)
    except (OSError, ValueError) as error:
        raise InputError(f"base_model ({base.weights.folder}) has no tokenizer: {error}") from error


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _mixture(
    recipe: MoERecipe,
    base: Base,
    experts: Sequence[LoraExpert],
    gates: "dict[int, torch.Tensor]",
    options: TuneOptions,
) -> "PreTrainedModel":
    """Return the mixture in its lean form, of which gate, experts and attention's changes are trained."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM

    from fusion.moe._delta import DeltaMoeBlock
    from fusion.moe._delta_model import from_dense

    model: Any = AutoModelForCausalLM.from_pretrained(base.weights.folder, dtype=recipe.dtype or "auto")
    model.requires_grad_(False)
    from_dense(model, adapters=[one.adapter for one in experts], top_k=recipe.experts_per_token, gates=gates)
    if options.attention_rank:
        config = LoraConfig(r=options.attention_rank, lora_alpha=options.attention_alpha, target_modules=_ATTENTION)  # type: ignore[arg-type]
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for block in model.modules():
        if isinstance(block, DeltaMoeBlock):
            block.gate.requires_grad_(True)
            for one in (block.experts.gate_proj, block.experts.up_proj, block.experts.down_proj):
                one.down.requires_grad_(True)
                one.up.requires_grad_(True)
    mixture: PreTrainedModel = model
    return mixture


def _add_losses(model: Any, gammas: Sequence[float], options: TuneOptions) -> None:
    """Let the model add the gating loss and the drift to its own loss while it is trained."""
    import torch

    from fusion.moe._delta import router_logits

    first = [[(one.down.detach().clone(), one.up.detach().clone()) for one in layer] for layer in _projections(model)]
    gamma_E, plain = torch.tensor(gammas), model.forward
    # What the Trainer divides by itself it does not tell; of tokens it tells how many all batches of a step have.
    share = 1 / (options.training.accumulate * int(os.environ.get("WORLD_SIZE", 1)))

    def forward(*args: Any, expert: "torch.Tensor | None" = None, **kwargs: Any) -> Any:
        if expert is None or not model.training:
            return plain(*args, **kwargs)
        with router_logits(model) as logits:
            found = plain(*args, **kwargs)
        moves = [
            [LowRankMoves(one.down, one.up, *where, one.scale) for one, where in zip(layer, places, strict=True)]
            for layer, places in zip(_projections(model), first, strict=True)
        ]
        device = found.loss.device
        added = options.gating * gating_loss(logits, kwargs["attention_mask"], expert)
        if any(gammas):
            added = added + drift_loss(moves, gamma_E.to(device))
        found.loss = found.loss + added * (share if kwargs.get("num_items_in_batch") is not None else 1)
        return found

    model.forward = forward


def _projections(model: Any) -> list[list[Any]]:
    """Return the three projections of every layer."""
    blocks = [layer.mlp.experts for layer in model.model.layers]
    return [[block.gate_proj, block.up_proj, block.down_proj] for block in blocks]


def _take(model: Any, weights: Checkpoint) -> None:
    """Take over all weights of a folder.

    Raises:
        InputError: When one is missing.
    """
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and model.config.tie_word_embeddings:
                continue
            tensor.copy_(weights.read(name))


def _export(model: Any, base: Base, recipe: MoERecipe, folder: Path, told: Told) -> None:
    """Write the stock checkpoint, attention's changes merged."""
    from peft.tuners.lora import LoraLayer

    from fusion.moe._delta_model import state_for_layout

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(adapter_names=[_ADAPTER])
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.base_layer)
    told("writing the checkpoint", 0, 0)
    merged = base.layout.config(base.config, num_experts=len(recipe.experts), top_k=recipe.experts_per_token)
    merged.dtype = model.dtype
    write_checkpoint(folder, state_for_layout(model, layout=base.layout), shard_bytes=5 * 10**9)
    merged.save_pretrained(folder)
    for name in COPIED:
        source = base.weights.folder / name
        if source.exists():
            (folder / name).write_bytes(source.read_bytes())


def _mark(
    recipe: MoERecipe, base: Base, experts: Sequence[LoraExpert], options: TuneOptions, rows: Sequence[Any]
) -> str:
    parts = [recipe.model_dump_json(), base.weights.fingerprint, *(one.fingerprint for one in experts)]
    parts += [json.dumps(dataclasses.asdict(options)), json.dumps(rows)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
