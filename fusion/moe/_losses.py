"""What tuning a mixture adds to the loss of the next token: where the gate leads, and how far experts have moved.

Source: H3Fusion, Tekin et al. 2024, arXiv:2411.17792. With p_nle the softmax over experts of the gate's logits of token
n in layer l,

    gating   -log P_e,    P = mean of p over the layers and over the tokens of the example that are no padding, and e
             the expert that the example's kind calls for; mean over the examples that call for one
    drift    sum_e gamma_e mean_l |s (B A - B_0 A_0)|_F over the matrices of expert e in layer l, from where it began

Deviations: in the public code the cross-entropy takes probabilities for logits, padding counts, and the number of
layers is 32; its drift is the norm of the factors A and B, which is not that of what they add, and changes when A
doubles and B halves. The formulation of the later paper (Tekin et al. 2026, EACL, drift in the space of embeddings) is
not offered: only its abstract was found.

Legend beside that of `fusion.schema`: B examples, T tokens, E experts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

_SMOOTH = 1e-6
"""The norm's slope is not defined at 0, where tuning begins."""


class LowRankMoves(NamedTuple):
    """One projection of all experts of a layer, and where it began.

    Attributes:
        down: [E, r, in], A. up: [E, out, r], B.
        first_down: A_0. first_up: B_0.
        scale: [E], s.
    """

    down: "torch.Tensor"
    up: "torch.Tensor"
    first_down: "torch.Tensor"
    first_up: "torch.Tensor"
    scale: "torch.Tensor"

    def squares(self) -> "torch.Tensor":
        """Return |s (B A - B_0 A_0)|_F^2 of each expert, [E], without making a matrix of that size.

        With dA = A - A_0 and dB = B - B_0 it is |dB A + B_0 dA|^2, in which nothing large cancels near the beginning.
        """
        moved_down, moved_up = self.down - self.first_down, self.up - self.first_up
        one, other = (moved_up, self.down), (self.first_up, moved_down)
        found: torch.Tensor = self.scale**2 * (_inner(one, one) + 2 * _inner(one, other) + _inner(other, other))
        return found.clamp(min=0)


def gating_loss(logits: "Sequence[torch.Tensor]", mask_BT: "torch.Tensor", expert_B: "torch.Tensor") -> "torch.Tensor":
    """Return the gating loss, a number; 0 where no example calls for an expert.

    Args:
        logits: Of the gates of all layers, [B, T, E] or [B T, E] each.
        mask_BT: 1 for tokens, 0 for padding.
        expert_B: Which expert an example calls for; -1 for none.
    """
    import torch

    wanted_B = expert_B >= 0
    if not bool(wanted_B.any()):
        return logits[0].sum() * 0
    shape = (*mask_BT.shape, -1)
    shares_LBTE = torch.stack([one.float().reshape(shape).softmax(dim=-1) for one in logits])
    weight_BT1 = mask_BT.to(shares_LBTE.dtype).unsqueeze(-1)
    mean_BE = (shares_LBTE.mean(dim=0) * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1).clamp(min=1)
    called_B = mean_BE[wanted_B].gather(1, expert_B[wanted_B].long()[:, None])[:, 0]
    return -called_B.clamp(min=torch.finfo(called_B.dtype).tiny).log().mean()


def drift_loss(layers: Sequence[Sequence[LowRankMoves]], gamma_E: "torch.Tensor") -> "torch.Tensor":
    """Return the drift of the experts, a number.

    Args:
        layers: The projections of every layer.
        gamma_E: Weight of each expert.
    """
    import torch

    norms = []
    for projections in layers:
        square_E = torch.stack([one.squares() for one in projections]).sum(dim=0)
        norms.append((square_E + _SMOOTH**2).sqrt() - _SMOOTH)
    return (gamma_E * torch.stack(norms).mean(dim=0)).sum()


def _inner(one: "tuple[torch.Tensor, torch.Tensor]", other: "tuple[torch.Tensor, torch.Tensor]") -> "torch.Tensor":
    """Return the inner product of two products up @ down of each expert, [E]."""
    found: torch.Tensor = ((one[0].mT @ other[0]) * (one[1] @ other[1].mT)).sum(dim=(1, 2))
    return found
