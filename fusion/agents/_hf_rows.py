"""Rows of tokens as a model takes them, padded to one length, and what a model makes of padding."""

import inspect
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class Lent(NamedTuple):
    """A model, ready to answer, with the adapter asked for at work.

    Attributes:
        model: In evaluation mode, on its device.
        eos: Tokens that end an answer.
        pad: Token to fill rows with; it is masked.
        caches: Whether all that the model remembers of a text is keys and values by position.
        pads_left: Whether padding before a text leaves its outputs as they are; else answers are written one by one.
    """

    model: PreTrainedModel
    eos: frozenset[int]
    pad: int
    caches: bool
    pads_left: bool


def lendable(model: PreTrainedModel, eos: frozenset[int], pad: int) -> Lent:
    """Return `model` with what it can do; a model of an unusual kind is tried out."""
    caches = _caches(model)
    return Lent(model, eos, pad, caches, pads_left=caches or _masks_padding(model, pad))


def pad_left(rows: Sequence[Sequence[int]], lent: Lent) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int64 [B, T] tokens that end together, and int64 [B, T] the mask, 0 where a token is padding."""
    width = max(len(row) for row in rows)
    ids = [[lent.pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return _stack(ids, lent.model), _stack(mask, lent.model)


def pad_right(rows: Sequence[Sequence[int]], lent: Lent) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int64 [B, T] tokens that begin together, and int64 [B, T] the mask, 0 where a token is padding."""
    width = max(len(row) for row in rows)
    ids = [list(row) + [lent.pad] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return _stack(ids, lent.model), _stack(mask, lent.model)


def inputs(model: PreTrainedModel, ids_BT: torch.Tensor, mask_BP: torch.Tensor, *, last: int = 0) -> dict[str, object]:
    """Return what the model is called with, as far as it takes it.

    Args:
        model: The model.
        ids_BT: int64 [B, T], the tokens to read.
        mask_BP: int64 [B, P], of these and of those before them in the cache.
        last: Of how many positions, from the end, logits are wanted; 0 for all.
    """
    accepted = inspect.signature(model.forward).parameters
    taken: dict[str, object] = {"input_ids": ids_BT, "attention_mask": mask_BP}
    if "position_ids" in accepted:
        positions_BP = (mask_BP.cumsum(1) - 1).clamp(min=0)
        taken["position_ids"] = positions_BP[:, -ids_BT.shape[1] :]
    if "logits_to_keep" in accepted and last:
        taken["logits_to_keep"] = last
    return taken


def _stack(rows: list[list[int]], model: PreTrainedModel) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64, device=model.device)


def _caches(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config(decoder=True)
    # Chunks begin at multiples of a number of positions, padding included.
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    layers = cast("list[object]", DynamicCache(config=config).layers)
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _masks_padding(model: PreTrainedModel, pad: int) -> bool:
    """Return whether a short text reads the same with padding before it; some recurrent models ignore the mask."""
    text = [1, 2, 3, 4]
    mask = [1] * len(text)
    with torch.inference_mode():
        bare_V, padded_V = (
            model(**inputs(model, _stack([[pad] * n + text], model), _stack([[0] * n + mask], model)))
            .logits[0, -1]
            .float()
            for n in (0, 3)
        )
    # Rounding in bfloat16 moves logits by a percent or so of their spread; padding that is read, by far more.
    return bool((bare_V - padded_V).abs().max() < 0.05 * bare_V.std())
