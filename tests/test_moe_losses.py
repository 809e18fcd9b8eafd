"""What tuning a mixture adds to the loss, by hand."""

import math

import pytest
import torch

from fusion.moe._losses import LowRankMoves, drift_loss, gating_loss

pytestmark = pytest.mark.usefixtures("quick")


class TestGating:
    def test_by_hand(self) -> None:
        """Two layers, one example of two tokens and a padding, which calls for expert 1 of 2.

        Layer 0 gives it 3/4 and 1/4 of the two tokens, layer 1 1/2 and 1/2: a mean of 1/2, so the loss is log 2. The
        padding, all of which goes to expert 0, does not count.
        """
        three = math.log(3)
        logits = [
            torch.tensor([[[0.0, three], [three, 0.0], [50.0, 0.0]]]),
            torch.tensor([[[0.0, 0.0], [0.0, 0.0], [50.0, 0.0]]]),
        ]
        loss = gating_loss(logits, torch.tensor([[1, 1, 0]]), torch.tensor([1]))
        assert loss.item() == pytest.approx(math.log(2))

    def test_logits_are_no_probabilities(self) -> None:
        """Taken for logits, the probabilities .9 and .1 would cost log(1 + e^-.8) = .37; they cost -log .9."""
        logits = [torch.tensor([[[math.log(9.0), 0.0]]])]
        loss = gating_loss(logits, torch.ones(1, 1), torch.tensor([0]))
        assert loss.item() == pytest.approx(-math.log(0.9))

    def test_examples_that_call_for_nobody_do_not_count(self) -> None:
        """Of three examples the second calls for none: the mean is over the other two, log 2 and log 4 / 3."""
        logits = [torch.tensor([[[0.0, 0.0]], [[9.0, 0.0]], [[math.log(3), 0.0]]])]
        loss = gating_loss(logits, torch.ones(3, 1), torch.tensor([0, -1, 0]))
        assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)

    def test_nobody_at_all(self) -> None:
        logits = [torch.zeros(1, 1, 2, requires_grad=True)]
        loss = gating_loss(logits, torch.ones(1, 1), torch.tensor([-1]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0

    def test_flat_logits_are_the_same(self) -> None:
        """transformers hands them over as [B T, E]."""
        logits = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
        mask, expert = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([3, 1])
        flat = [one.reshape(-1, 4) for one in logits]
        assert gating_loss(logits, mask, expert).item() == gating_loss(flat, mask, expert).item()

    def test_following_it_leads_to_the_expert(self) -> None:
        gate = torch.zeros(1, 2, 3, requires_grad=True)
        gating_loss([gate], torch.ones(1, 2), torch.tensor([2])).backward()  # type: ignore[no-untyped-call]
        assert gate.grad is not None
        assert (gate.grad[..., 2] < 0).all()
        assert (gate.grad[..., :2] > 0).all()

    def test_a_gate_that_is_sure_and_wrong_costs_a_finite_number(self) -> None:
        loss = gating_loss([torch.tensor([[[200.0, 0.0]]])], torch.ones(1, 1), torch.tensor([1]))
        assert math.isfinite(loss.item())


def moves(seed: int, *, experts: int = 3, rank: int = 2, step: float = 0.5) -> LowRankMoves:
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws)

    down, up = drawn(experts, rank, 5), drawn(experts, 4, rank)
    moved = down + step * drawn(experts, rank, 5), up + step * drawn(experts, 4, rank)
    return LowRankMoves(*moved, down, up, torch.tensor([2.0, 1.0, 0.5])[:experts])


class TestDrift:
    def test_by_hand(self) -> None:
        """One expert, rank 1, scale 2: from (3) (1, 0) to (3) (1, 1) is 2 * 3 of the second number: 6; gamma .5: 3."""
        one = LowRankMoves(
            torch.tensor([[[1.0, 1.0]]]),
            torch.tensor([[[3.0]]]),
            torch.tensor([[[1.0, 0.0]]]),
            torch.tensor([[[3.0]]]),
            torch.tensor([2.0]),
        )
        assert one.squares().tolist() == [36]
        assert drift_loss([[one]], torch.tensor([0.5])).item() == pytest.approx(3)
        # In a second layer nothing moved: the mean is half of it.
        still = one._replace(down=one.first_down)
        assert drift_loss([[one], [still]], torch.tensor([0.5])).item() == pytest.approx(1.5)
        # Two matrices of one layer are one vector: 6 and 6 are 6 sqrt 2.
        assert drift_loss([[one, one]], torch.tensor([1.0])).item() == pytest.approx(6 * math.sqrt(2))

    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_the_norm_of_what_is_added(self, seed: int) -> None:
        one = moves(seed)
        matrices = one.up @ one.down - one.first_up @ one.first_down
        expected = (one.scale[:, None, None] * matrices).square().sum(dim=(1, 2))
        torch.testing.assert_close(one.squares(), expected, rtol=1e-4, atol=1e-5)

    def test_the_same_matrix_by_other_factors_has_not_moved(self) -> None:
        """A doubled and B halved: nothing that the model computes has changed."""
        first = moves(0)
        same = LowRankMoves(2 * first.down, first.up / 2, first.down, first.up, first.scale)
        torch.testing.assert_close(same.squares(), torch.zeros(3), rtol=0, atol=1e-4)

    def test_it_begins_at_nothing_with_a_slope_that_is_finite(self) -> None:
        one = moves(1, step=0.0)
        down = one.first_down.clone().requires_grad_()
        loss = drift_loss([[one._replace(down=down)]], torch.ones(3))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0
        assert down.grad is not None
        assert not down.grad.any()

    def test_gammas_are_of_experts(self) -> None:
        one = moves(2)
        each = [drift_loss([[one]], torch.eye(3)[e]).item() for e in range(3)]
        assert drift_loss([[one]], torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(
            each[0] + 2 * each[1] + 3 * each[2]
        )
