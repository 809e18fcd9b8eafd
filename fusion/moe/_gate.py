"""Where a gate begins, before it is trained.

A gate is linear and has no bias. With m_e the mean state of the prompts of expert e where the gate will stand, m the
mean over experts, and v the mean variance of a state about its expert's mean, its rows are

    w_e = P (m_e - m) / v,    P = I - m m' / |m|^2

which is the discriminant of classes with one spherical covariance; P takes off the direction that all states share, so
that no bias is needed for it. Negative prompts count as states of all other experts.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fusion.errors import FusionError, InputError
from fusion.moe._recipe import ExpertSource, MoERecipe
from fusion.moe._sources import Base

if TYPE_CHECKING:
    import torch

Told = Callable[[str, int, int], None]
_LONGEST = 512
"""Tokens of a prompt that are read."""


def first_gates(recipe: MoERecipe, base: Base, *, told: Told) -> "dict[int, torch.Tensor]":
    """Return the gate of every layer, float32 [E, D].

    Raises:
        InputError: When the prompts cannot be read by the base model's tokenizer.
        FusionError: When the prompts of all experts lead to the same states.
    """
    import torch

    layers, shape = range(base.config.num_hidden_layers), (len(recipe.experts), base.config.hidden_size)
    if recipe.gate_mode == "zero":
        return {layer: torch.zeros(shape) for layer in layers}
    if recipe.gate_mode == "random":
        draws = torch.Generator().manual_seed(recipe.seed)
        return {layer: torch.randn(shape, generator=draws) * recipe.gate_std for layer in layers}
    prompts = [(*expert.positive_prompts, *_rejected(recipe, expert)) for expert in recipe.experts]
    if recipe.gate_mode == "cheap_embed":
        weight_VD = base.weights.read("model.embed_tokens.weight").float()
        states = [[weight_VD[ids].mean(dim=0) for ids in _tokens(base, texts)] for texts in prompts]
        gate_ED = discriminant([torch.stack(rows) for rows in states])
        return {layer: gate_ED.clone() for layer in layers}
    found = _states(base, prompts, told)
    return {layer: discriminant([rows_PLD[:, layer] for rows_PLD in found]) for layer in layers}


def discriminant(states: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """Return w_e of states [P_e, D] of each expert, float32 [E, D].

    Raises:
        FusionError: When they are all the same.
    """
    import torch

    means_ED = torch.stack([rows.float().mean(dim=0) for rows in states])
    mean_D = means_ED.mean(dim=0)
    apart_ED = means_ED - mean_D
    apart_ED = apart_ED - (apart_ED @ mean_D)[:, None] * mean_D / mean_D.square().sum().clamp(min=1e-12)
    if float(apart_ED.abs().max()) == 0:
        raise FusionError(
            "the prompts of all experts lead to the same states, so a gate cannot tell them apart; give each expert "
            "prompts of its own, or set gate_mode: random or zero and train the gate (fusion tune)"
        )
    off = torch.cat([rows.float() - mean for rows, mean in zip(states, means_ED, strict=True)])
    # With one prompt an expert there is no spread; then that between the experts is as good a scale.
    spread = off.square().mean() if float(off.abs().max()) > 0 else apart_ED.square().mean()
    return apart_ED / spread


def _rejected(recipe: MoERecipe, expert: ExpertSource) -> Iterator[str]:
    """Yield the prompts that should not go to others, and so may go to this one."""
    for other in recipe.experts:
        if other is not expert:
            yield from other.negative_prompts


def _tokens(base: Base, texts: Sequence[str]) -> "list[torch.Tensor]":
    """Return the tokens of texts, int [T] each."""
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(base.weights.folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"base_model ({base.weights.folder}) has no tokenizer to read prompts with: {error}; set gate_mode: random"
        ) from error
    found = [torch.tensor(tokenizer(text, truncation=True, max_length=_LONGEST)["input_ids"]) for text in texts]
    empty = [text for text, ids in zip(texts, found, strict=True) if not len(ids)]
    if empty:
        raise InputError(f"the prompt {empty[0]!r} has no tokens")
    return found


def _states(base: Base, prompts: Sequence[Sequence[str]], told: Told) -> "list[torch.Tensor]":
    """Return what the gates of every layer see of each prompt, its mean over tokens, [P, L, D] for each expert."""
    import torch
    from transformers import AutoModelForCausalLM

    told("loading the base model", 0, 0)
    model: Any = AutoModelForCausalLM.from_pretrained(base.weights.folder, dtype="auto")
    model.eval()
    seen: list[torch.Tensor] = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda module, given: seen.append(given[0][0].float().mean(dim=0)))
        for layer in model.model.layers
    ]
    found, done, total = [], 0, sum(map(len, prompts))
    try:
        with torch.inference_mode():
            for texts in prompts:
                rows = []
                for ids in _tokens(base, texts):
                    told("reading prompts", done, total)
                    seen.clear()
                    model(input_ids=ids[None].to(model.device), use_cache=False)
                    rows.append(torch.stack(seen))
                    done += 1
                found.append(torch.stack(rows).clone())
    finally:
        for handle in handles:
            handle.remove()
    return found
