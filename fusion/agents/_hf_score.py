"""Log-probabilities of continuations: exact, for any length, in batches.

    log p(continuation | prompt) = sum over t of log p(token_t | prompt, token_1, ..., token_t-1)

Where a model's memory of what it read is a plain cache of keys and values, every prompt is read once and its
continuations share it: prompts are padded on the left, continuations on the right, and both paddings are masked. Other
models read prompt and continuation anew for each, padded on the right, where nothing that counts can see it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from fusion.agents._hf_rows import Lent, inputs, pad_left, pad_right


class Scoring(NamedTuple):
    """Continuations of one prompt.

    Attributes:
        prompt: Tokens, at least one.
        continuations: Tokens of each, at least one.
    """

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]


def score(lent: Lent, batch: Sequence[Scoring]) -> list[list[float]]:
    """Return the log-probability of every continuation of every prompt, in nats.

    Raises:
        ArithmeticError: When the model's numbers overflow.
    """
    single = all(len(tokens) == 1 for scoring in batch for tokens in scoring.continuations)
    with torch.inference_mode():
        found = _sharing(lent, batch, single=single) if lent.caches else _each_alone(lent, batch)
    if any(value != value for values in found for value in values):
        raise ArithmeticError("log-probabilities are not numbers; use dtype: float32 or bfloat16")
    return found


def _sharing(lent: Lent, batch: Sequence[Scoring], *, single: bool) -> list[list[float]]:
    model = lent.model
    ids_BT, mask_BT = pad_left([scoring.prompt for scoring in batch], lent)
    told = model(**inputs(model, ids_BT, mask_BT, last=1), use_cache=not single)
    logprobs_BV = told.logits[:, -1].float().log_softmax(-1)
    firsts = [
        logprobs_V[[tokens[0] for tokens in scoring.continuations]].cpu().double()
        for logprobs_V, scoring in zip(logprobs_BV, batch, strict=True)
    ]
    sums = [first.tolist() for first in firsts]
    rows = [
        (b, k, tokens)
        for b, scoring in enumerate(batch)
        for k, tokens in enumerate(scoring.continuations)
        if len(tokens) > 1
    ]
    if not rows:
        return sums
    owner_R = torch.tensor([b for b, _, _ in rows], device=model.device)
    cache = told.past_key_values
    cache.batch_select_indices(owner_R)
    # The last token of a continuation is predicted, never read.
    read_RT, read_mask_RT = pad_right([tokens[:-1] for _, _, tokens in rows], lent)
    mask_RT = torch.cat([mask_BT[owner_R], read_mask_RT], dim=1)
    logits_RTV = model(**inputs(model, read_RT, mask_RT), past_key_values=cache, use_cache=True).logits
    for r, (b, k, tokens) in enumerate(rows):
        sums[b][k] += _sum(logits_RTV[r, : len(tokens) - 1], tokens[1:])
    return sums


def _each_alone(lent: Lent, batch: Sequence[Scoring]) -> list[list[float]]:
    model = lent.model
    sums = [[0.0] * len(scoring.continuations) for scoring in batch]
    rows: list[tuple[list[int], int, list[int]]] = []
    for b, scoring in enumerate(batch):
        longer = [k for k, tokens in enumerate(scoring.continuations) if len(tokens) > 1]
        shorter = [k for k, tokens in enumerate(scoring.continuations) if len(tokens) == 1]
        rows += [([*scoring.prompt, *scoring.continuations[k][:-1]], b, [k]) for k in longer]
        if longer:
            # Any row of the prompt also tells the likelihood of a single token after it.
            rows[-1][2].extend(shorter)
        else:
            rows.append((list(scoring.prompt), b, shorter))
    ids_RT, mask_RT = pad_right([ids for ids, _, _ in rows], lent)
    first = min(len(batch[b].prompt) for _, b, _ in rows) - 1
    logits_RTV = model(**inputs(model, ids_RT, mask_RT, last=ids_RT.shape[1] - first)).logits
    skipped = ids_RT.shape[1] - logits_RTV.shape[1]
    for r, (_, b, options) in enumerate(rows):
        start = len(batch[b].prompt) - 1 - skipped
        for k in options:
            tokens = batch[b].continuations[k]
            sums[b][k] = _sum(logits_RTV[r, start : start + len(tokens)], tokens)
    return sums


def _sum(logits_TV: torch.Tensor, tokens: Sequence[int]) -> float:
    """Return the log-probability of `tokens`, each predicted by its row of logits."""
    logprobs_TV = logits_TV.float().log_softmax(-1)
    chosen_T1 = torch.tensor(tokens, device=logits_TV.device)[:, None]
    return float(logprobs_TV.gather(1, chosen_T1).cpu().double().sum())
