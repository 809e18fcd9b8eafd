"""Generation in batches in which every row keeps its own sampling, length, stop texts and random numbers."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from fusion.agents._hf_rows import Lent, pad_left
from fusion.agents._tokens import Written, ended

Decode = Callable[[Sequence[int]], str]


class Draft(NamedTuple):
    """An answer to be written.

    Attributes:
        prompt: Tokens, at least one.
        room: Most tokens to write, at least 1.
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability mass to sample from, in (0, 1].
        top_k: Number of tokens to sample from; None for all.
        stop: Texts at which writing stops.
        seed: Of the draws; None for a fresh one.
        ends: Tokens that end this answer, beside those that end any.
    """

    prompt: Sequence[int]
    room: int
    temperature: float
    top_p: float
    top_k: int | None
    stop: tuple[str, ...]
    seed: int | None
    ends: frozenset[int] = frozenset()


def write(lent: Lent, drafts: Sequence[Draft], decode: Decode, cancelled: threading.Event) -> list[Written]:
    """Write the answers together; none is influenced by the others. When cancelled, they end with the next token.

    Raises:
        ArithmeticError: When the model's numbers overflow.
    """
    assert lent.pads_left or len(drafts) == 1, "this model cannot write several answers together"
    ids_BT, mask_BT = pad_left([draft.prompt for draft in drafts], lent)
    ends = _Ends(drafts, lent.eos, decode, cancelled)
    plan = cast("Any", GenerationConfig)(
        max_new_tokens=max(draft.room for draft in drafts), do_sample=False, pad_token_id=lent.pad, disable_compile=True
    )
    with torch.inference_mode():
        cast("Any", lent.model).generate(
            inputs=ids_BT,
            attention_mask=mask_BT,
            generation_config=plan,
            logits_processor=LogitsProcessorList([_Draws(drafts, ends)]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
    return [ends.written(row) for row in range(len(drafts))]


class _Ends(StoppingCriteria):
    """Decides row by row when an answer is finished, and keeps its tokens."""

    def __init__(
        self, drafts: Sequence[Draft], eos: frozenset[int], decode: Decode, cancelled: threading.Event
    ) -> None:
        self._drafts = drafts
        self._ends = [eos | draft.ends for draft in drafts]
        self._decode = decode
        self._cancelled = cancelled
        self._tokens: list[list[int]] = [[] for _ in drafts]
        # A stop text is spelled by as many tokens as it has bytes at most, but for tokens without any text.
        self._tails = [max((len(text.encode()) for text in draft.stop), default=0) + 8 for draft in drafts]
        self.finish: list[Literal["stop", "length"] | None] = [None for _ in drafts]

    def __call__(
        self,
        input_ids: torch.LongTensor,
        scores: tuple[torch.FloatTensor] | None,
        **kwargs: Any,
    ) -> torch.BoolTensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.finish[row] is None:
                self._tokens[row].append(token)
                self.finish[row] = self._finish(row, token)
        done = [finish is not None or self._cancelled.is_set() for finish in self.finish]
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]

    def written(self, row: int) -> Written:
        tokens = self._tokens[row]
        finish = self.finish[row] or "length"
        text = self._decode(tokens[:-1] if tokens and tokens[-1] in self._ends[row] else tokens)
        return ended(text, len(tokens), finish, self._drafts[row].stop)

    def _finish(self, row: int, token: int) -> Literal["stop", "length"] | None:
        draft, tokens = self._drafts[row], self._tokens[row]
        if token in self._ends[row] or (draft.stop and self._stops(row)):
            return "stop"
        return "length" if len(tokens) >= draft.room else None

    def _stops(self, row: int) -> bool:
        # Decoding all of the answer at every token would take time with the square of its length.
        stop, tokens = self._drafts[row].stop, self._tokens[row]
        tail = self._decode(tokens[-self._tails[row] :])
        if not any(text in tail for text in stop):
            return False
        whole = self._decode(tokens)
        return any(text in whole for text in stop)


class _Draws(LogitsProcessor):
    """Puts the token that was drawn before all others, in the rows that are sampled.

    Every row has a generator of its own and takes one number from it for every token, so what it draws depends on
    its request alone, whatever is in the batch beside it.
    """

    def __init__(self, drafts: Sequence[Draft], ends: _Ends) -> None:
        self._ends = ends
        self._drafts = drafts
        self._sampled = [row for row, draft in enumerate(drafts) if draft.temperature > 0]
        self._generators = {row: torch.Generator() for row in self._sampled}
        for row, generator in self._generators.items():
            seed = drafts[row].seed
            if seed is None:
                generator.seed()
            else:
                generator.manual_seed(seed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.amax(-1).isnan().any()):
            raise ArithmeticError("the model's logits are not numbers; use dtype: float32 or bfloat16")
        rows = [row for row in self._sampled if self._ends.finish[row] is None]
        if not rows:
            return scores
        # Double precision, which mps lacks: single loses a large vocabulary's tail in the sums.
        device = "cpu" if scores.device.type == "mps" else scores.device
        logits_RV = scores[rows].to(device).double()
        drafts = [self._drafts[row] for row in rows]
        uniforms = [torch.rand((), generator=self._generators[row], dtype=torch.float64) for row in rows]
        tokens_R = draw(logits_RV, drafts, torch.stack(uniforms).to(device)).to(scores.device)
        drawn = scores.clone()
        drawn[rows] = -torch.inf
        drawn[rows, tokens_R] = 0.0
        return drawn  # type: ignore[return-value]


def draw(logits_RV: torch.Tensor, drafts: Sequence[Draft], uniforms_R: torch.Tensor) -> torch.Tensor:
    """Return int64 [R], for every row the token at which its cumulated probability passes its uniform number.

    Args:
        logits_RV: float64 [R, V].
        drafts: What to sample from: temperature, top_k of what is likeliest, of these top_p of the mass.
        uniforms_R: float64 [R], in [0, 1).
    """
    temperatures = torch.tensor([draft.temperature for draft in drafts], dtype=torch.float64, device=logits_RV.device)
    # Subtracted first, lest a temperature near 0 gives infinities.
    probs_RV = ((logits_RV - logits_RV.amax(-1, keepdim=True)) / temperatures[:, None]).softmax(-1)
    for row, draft in enumerate(drafts):
        if draft.top_k is not None or draft.top_p < 1:
            probs_RV[row] = _likeliest(logits_RV[row], probs_RV[row], draft.top_k, draft.top_p)
    sums_RV = probs_RV.cumsum(-1)
    chosen_R1 = torch.searchsorted(sums_RV, (uniforms_R * sums_RV[:, -1])[:, None], right=True)
    return chosen_R1[:, 0].clamp(max=logits_RV.shape[-1] - 1)


def _likeliest(logits_V: torch.Tensor, probs_V: torch.Tensor, top_k: int | None, top_p: float) -> torch.Tensor:
    """Return the probabilities with all but those to sample from set to 0; they need not sum to 1."""
    # Sorting all of the vocabulary would take longer than everything else. Of K tokens that are worth it, the equally
    # likely keep the order of their numbers, in any batch.
    if top_k is None:
        # Those left out have less than 1 - top_p of the mass together, so the share of top_p is reached before them.
        found_K = (probs_V >= (1 - top_p) / len(probs_V)).nonzero()[:, 0]
        mass = probs_V.sum()
    else:
        found_K = (logits_V >= logits_V.topk(min(top_k, len(logits_V))).values[-1]).nonzero()[:, 0]
        mass = None
    order_K = found_K[logits_V[found_K].argsort(descending=True, stable=True)][:top_k]
    sorted_K = probs_V[order_K]
    before_K = sorted_K.cumsum(-1) - sorted_K
    kept_K = sorted_K * (before_K < top_p * (sorted_K.sum() if mass is None else mass))
    return torch.zeros_like(probs_V).scatter(0, order_K, kept_K)
