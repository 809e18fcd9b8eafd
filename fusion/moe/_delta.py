"""The memory-lean form of a mixture: one shared feed-forward block, and low-rank deltas on it for each expert.

With W, V, U the base's gate_proj, up_proj, down_proj, expert e has W_e = W + s_e B_e A_e, and likewise V_e and U_e. A
token x whose k experts j have the weights w_j becomes

    h_j = silu(W x + s_j B_j A_j x) * (V x + s_j B_j A_j x)
    y   = U (sum_j w_j h_j) + sum_j w_j s_j B_j A_j h_j

so that each of the three shared products is computed once a token, whatever k is. Products A x are taken for all
experts at once, which is one product with a matrix of E r rows. B (A x) and A h are taken expert by expert, on the
pairs of a token and an expert, sorted by expert; how many pairs each expert has is read back from the device once a
call. All of it is matrix products and gathers that autograd knows.

Letters: T tokens, D hidden, I intermediate, E experts, R rank, K experts a token, P = T K pairs, F and O what a matrix
takes and gives.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional

from fusion.errors import FusionError, UsageError
from fusion.moe._adapter import LowRank


class DeltaProjection(nn.Module):
    """One matrix that all experts share, frozen, and what each adds to it, trained.

    Args:
        weight: Of the base, float [O, F]; taken as it is, not copied, and frozen.
        down: A of every expert, [E, R, F].
        up: B of every expert, [E, O, R].
        scale: What B A is multiplied by, for every expert, [E].

    Raises:
        UsageError: When the shapes do not fit.
    """

    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, *, down: torch.Tensor, up: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        (out, into), (num_experts, rank) = weight.shape, down.shape[:2]
        found = [tuple(one.shape) for one in (down, up, scale)]
        wanted = [(num_experts, rank, into), (num_experts, out, rank), (num_experts,)]
        if found != wanted:
            raise UsageError(f"down, up and scale for a weight {[out, into]} have shapes {wanted}, got {found}")
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
        self.weight.requires_grad_(False)
        self.down, self.up = nn.Parameter(down.detach()), nn.Parameter(up.detach())
        self.register_buffer("scale", scale.detach())

    @classmethod
    def of(cls, weight: torch.Tensor, *, deltas: Sequence[LowRank | None]) -> Self:
        """Return the projection of experts that add these products, float32.

        Lower ranks are filled up with zeros to the greatest. Zeros of A meet zeros of B, so that the gradients of both
        are zero, and the rank of each expert stays what it was; an expert that adds nothing (None) never will.

        Args:
            weight: Of the base, float [O, F].
            deltas: Of every expert.
        """
        out, into = weight.shape
        rank = max((delta.down.shape[0] for delta in deltas if delta is not None), default=0)
        down_ERF = torch.zeros(len(deltas), rank, into, device=weight.device)
        up_EOR = torch.zeros(len(deltas), out, rank, device=weight.device)
        scale_E = torch.ones(len(deltas), device=weight.device)
        for expert, delta in enumerate(deltas):
            if delta is not None:
                own = delta.down.shape[0]
                down_ERF[expert, :own], up_EOR[expert, :, :own], scale_E[expert] = delta
        return cls(weight, down=down_ERF, up=up_EOR, scale=scale_E)

    @property
    def num_experts(self) -> int:
        """E."""
        return self.down.shape[0]

    def full(self, expert: int) -> torch.Tensor:
        """Return the whole matrix of one expert, W + s B A, float32 [O, F]."""
        delta = LowRank(self.down[expert].detach(), self.up[expert].detach(), float(self.scale[expert]))
        return self.weight.float() + delta.delta()

    def lowered(self, hidden_TF: torch.Tensor) -> torch.Tensor:
        """Return s A x for all experts, [T * E, R]."""
        down_LF = self.down.flatten(0, 1).to(hidden_TF.dtype)
        shape = len(hidden_TF), *self.down.shape[:2]
        low_TER = functional.linear(hidden_TF, down_LF).view(shape) * self.scale.to(hidden_TF.dtype)[:, None]
        return low_TER.flatten(0, 1)

    def raised(self, low_TL: torch.Tensor) -> torch.Tensor:
        """Return the sum over experts of B z, with L = E * R, [T, O]."""
        return functional.linear(low_TL, self.up.transpose(0, 1).flatten(1).to(low_TL.dtype))


class _Pairs(NamedTuple):
    """Tokens and their experts, sorted by expert.

    Attributes:
        token_P: The token of each.
        place_P: token * E + expert of each.
        weight_P1: What its expert counts for.
        used: The experts that have any, in order.
        sizes: How many each of these has.
    """

    token_P: torch.Tensor
    place_P: torch.Tensor
    weight_P1: torch.Tensor
    used: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, index_TK: torch.Tensor, weights_TK: torch.Tensor, num_experts: int) -> "_Pairs":
        expert_P, order_P = index_TK.flatten().sort(stable=True)
        token_P = order_P // index_TK.shape[1]
        counts = torch.bincount(expert_P, minlength=num_experts).tolist()
        used = tuple(expert for expert, count in enumerate(counts) if count)
        weight_P1 = weights_TK.flatten().index_select(0, order_P)[:, None]
        return cls(token_P, token_P * num_experts + expert_P, weight_P1, used, tuple(counts[e] for e in used))

    def of_used(self, stacked_EXY: torch.Tensor) -> list[torch.Tensor]:
        """Return the matrices of the experts that are used."""
        # One unbind has one gradient; an index for each expert would have one of the size of all for each.
        apart = stacked_EXY.unbind()
        return [apart[expert] for expert in self.used]


class DeltaExperts(nn.Module):
    """Experts of a gated feed-forward block (silu) that are low-rank deltas on shared, frozen weights.

    Products are in the type of the hidden states, which is that of the shared weights; the deltas are kept in float32,
    as is their gradient. A token's experts are all different.

    Args:
        gate_proj: Of [I, D].
        up_proj: Of [I, D].
        down_proj: Of [D, I].

    Raises:
        UsageError: When the shapes do not fit.
    """

    def __init__(self, gate_proj: DeltaProjection, *, up_proj: DeltaProjection, down_proj: DeltaProjection) -> None:
        super().__init__()
        inner, hidden = gate_proj.weight.shape
        wanted = [(gate_proj.num_experts, inner, hidden), (gate_proj.num_experts, hidden, inner)]
        found = [(one.num_experts, *one.weight.shape) for one in (up_proj, down_proj)]
        if found != wanted:
            raise UsageError(
                f"with gate_proj of {inner} x {hidden} and {gate_proj.num_experts} experts, up_proj and down_proj have "
                f"experts, rows and columns {wanted}, got {found}"
            )
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj

    @property
    def num_experts(self) -> int:
        """E."""
        return self.gate_proj.num_experts

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return sum_j w_j down_j(silu(gate_j x) * up_j x), float [T, D].

        Args:
            hidden_states: x, float [T, D].
            top_k_index: Experts of each token, int [T, K].
            top_k_weights: w, float [T, K].
        """
        if not len(hidden_states):
            return hidden_states.clone()
        pairs = _Pairs.of(top_k_index, top_k_weights, self.num_experts)
        gated, risen = (self._entered(one, hidden_states, pairs) for one in (self.gate_proj, self.up_proj))
        # Lists of one matrix for each expert that is used.
        inner = [functional.silu(gate) * up for gate, up in zip(gated, risen, strict=True)]
        weight_P1 = pairs.weight_P1.to(inner[0].dtype)
        mixed_TI = inner[0].new_zeros(len(hidden_states), inner[0].shape[1])
        parts = zip(
            pairs.token_P.split_with_sizes(pairs.sizes), inner, weight_P1.split_with_sizes(pairs.sizes), strict=True
        )
        for token, one, weight in parts:
            mixed_TI.index_add_(0, token, one * weight)
        left_TD = self._left(inner, weight_P1, pairs, num_tokens=len(hidden_states))
        return functional.linear(mixed_TI, self.down_proj.weight) + left_TD

    def _entered(self, proj: DeltaProjection, hidden_TD: torch.Tensor, pairs: _Pairs) -> list[torch.Tensor]:
        """Return W_e x for each expert that is used, on its tokens."""
        base_PI = functional.linear(hidden_TD, proj.weight).index_select(0, pairs.token_P)
        low_PR = proj.lowered(hidden_TD).index_select(0, pairs.place_P)
        ups = pairs.of_used(proj.up.to(hidden_TD.dtype))
        parts = zip(base_PI.split_with_sizes(pairs.sizes), low_PR.split_with_sizes(pairs.sizes), ups, strict=True)
        return [torch.addmm(base, low, up.t()) for base, low, up in parts]

    def _left(
        self, inner: list[torch.Tensor], weight_P1: torch.Tensor, pairs: _Pairs, *, num_tokens: int
    ) -> torch.Tensor:
        """Return sum_j w_j s_j B_j A_j h_j, [T, D]."""
        proj = self.down_proj
        downs = pairs.of_used(proj.down.to(inner[0].dtype))
        low_PR = torch.cat([functional.linear(one, down) for one, down in zip(inner, downs, strict=True)])
        scale_P1 = proj.scale.to(low_PR.dtype).index_select(0, pairs.place_P % self.num_experts)[:, None]
        empty_XR = low_PR.new_zeros(num_tokens * self.num_experts, low_PR.shape[1])
        low_XR = empty_XR.index_copy(0, pairs.place_P, low_PR * (weight_P1 * scale_P1))
        return proj.raised(low_XR.view(num_tokens, self.num_experts * low_PR.shape[1]))


class Router(nn.Module):
    """Chooses the experts of each token as Mixtral and Qwen3Moe do: softmax, the k greatest, renormalised.

    Args:
        weight: Float [E, D]; kept in float32, and used in the type of the hidden states.
        top_k: K.
    """

    def __init__(self, weight: torch.Tensor, *, top_k: int) -> None:
        super().__init__()
        self.weight, self.top_k = nn.Parameter(weight.detach().float()), top_k

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [..., E] in the type of the hidden states, weights [..., K] float32, experts int [..., K]."""
        logits = functional.linear(hidden_states, self.weight.to(hidden_states.dtype))
        weights, index = functional.softmax(logits, dtype=torch.float, dim=-1).topk(self.top_k, dim=-1)
        return logits, weights / weights.sum(dim=-1, keepdim=True), index


class DeltaMoeBlock(nn.Module):
    """A sparse feed-forward block: a gate, and experts that are deltas on shared weights.

    It keeps nothing of what it computed: `router_logits` records what gates say, while it is open.

    Args:
        experts: The experts.
        gate: Weights of the gate, float [E, D].
        top_k: How many experts compute each token, 1 to E.

    Raises:
        UsageError: When the gate's shape does not fit, or top_k is out of range.
    """

    def __init__(self, experts: DeltaExperts, *, gate: torch.Tensor, top_k: int) -> None:
        super().__init__()
        wanted = experts.num_experts, experts.gate_proj.weight.shape[1]
        if tuple(gate.shape) != wanted:
            raise UsageError(f"the gate of {wanted[0]} experts has shape {list(wanted)}, got {list(gate.shape)}")
        if not 1 <= top_k <= experts.num_experts:
            raise UsageError(f"top_k is 1 to {experts.num_experts}, the number of experts; got {top_k}")
        self.gate, self.experts = Router(gate, top_k=top_k), experts

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the block's output, float [B, T, D] as its input."""
        _, weights, index = self.gate(hidden_states)
        found: torch.Tensor = self.experts(hidden_states.flatten(0, -2), index.flatten(0, -2), weights.flatten(0, -2))
        return found.view_as(hidden_states)


@contextlib.contextmanager
def router_logits(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record the logits of all gates in one forward pass, [B, T, E] each, in the order of the layers.

        with router_logits(model) as logits:
            loss = model(input_ids=ids, labels=ids).loss
        (loss + gating_loss(logits)).backward()

    The list is the caller's and nothing else holds the logits, so that they, and the graph that they belong to, are
    freed with it. Under gradient checkpointing a layer is computed again in backward(); its logits then are others, and
    would hold that graph, which is why backward() belongs after the block. What was recorded has its gradients: those
    of a layer lead into the computation that is done again.

    Raises:
        FusionError: When there is a second forward pass, or re-entrant checkpointing, under which gates would get no
            gradient.
    """
    found: list[torch.Tensor] = []
    seen: set[nn.Module] = set()
    wants_gradient = torch.is_grad_enabled()

    def record(gate: nn.Module, given: tuple[torch.Tensor], told: tuple[torch.Tensor, ...]) -> None:
        if gate in seen:
            raise FusionError(
                "router_logits saw a gate twice: it records one forward pass; open it for each, and call backward() "
                "after it is closed, as gradient checkpointing computes layers again there"
            )
        if gate.training and wants_gradient and not torch.is_grad_enabled():
            raise FusionError(
                "router_logits was opened with gradients, and a gate was computed without: this is re-entrant "
                "checkpointing, where a loss on logits has no gradient; set use_reentrant=False in "
                "gradient_checkpointing_kwargs (or open router_logits under torch.no_grad())"
            )
        seen.add(gate)
        found.append(told[0])

    gates = [block.gate for block in model.modules() if isinstance(block, DeltaMoeBlock)]
    handles = [gate.register_forward_hook(record) for gate in gates]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
