"""What the training of MARL-Focal's two agents computes with torch: their networks, what they play, clipped updates.

Legend beside that of `fusion.schema`: H questions that B streams play between two updates; D what an agent sees.
"""

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fusion.errors import MissingDependency
from fusion.policies._streams import Streams
from fusion.schema import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

CLIP, SMOOTHING, NORM, VALUE = 0.2, 0.95, 0.5, 0.5
"""Of the ratio; lambda of generalised advantages; greatest norm of a gradient; weight of the value's error."""
_ROWS = 1024
"""How many rows are worked on at a time."""


def seeded(seed: int) -> "torch.Generator":
    """Return a generator of draws.

    Raises:
        MissingDependency: When torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependency("torch", purpose="training a policy", extra="hf") from error
    return torch.Generator().manual_seed(seed)


class Net:
    """Linear layers with ReLU between them; the last gives the scores of actions, and a value."""

    def __init__(self, sizes: tuple[int, ...], draws: "torch.Generator") -> None:
        """Draw the weights.

        Args:
            sizes: Of what is seen, of the hidden layers, of the actions.
            draws: Draws them.
        """
        import torch

        self.parameters: list[torch.Tensor] = []
        self._space: tuple[torch.Tensor, torch.Tensor] | None = None
        widths = (*sizes[:-1], sizes[-1] + 1)
        for fan_in, fan_out in itertools.pairwise(widths):
            bound = 1 / np.sqrt(fan_in)
            for shape in ((fan_out, fan_in), (fan_out,)):
                drawn = (torch.rand(shape, generator=draws) * 2 - 1) * bound
                self.parameters.append(drawn.requires_grad_())

    def __call__(self, seen: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return scores [B, actions] and values [B] of what is seen, [B, D]."""
        import torch

        *inner, weight, bias = self.parameters
        for own, shift in zip(inner[::2], inner[1::2], strict=True):
            seen = torch.nn.functional.linear(seen, own, shift).relu_()
        both = torch.nn.functional.linear(seen, weight, bias)
        return both[:, :-1], both[:, -1]

    def space(self, width: int) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return two tensors to compute in: made anew they cost more, in pages of memory, than what is done in them."""
        import torch

        if self._space is None:
            self._space = torch.empty(_ROWS, width), torch.empty(_ROWS, width)
        return self._space

    def weights(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Return weights and biases of the scores, copied."""
        arrays: list[FloatArray] = [part.detach().numpy().T.copy() for part in self.parameters]
        arrays[-2], arrays[-1] = arrays[-2][:, :-1].copy(), arrays[-1][:-1].copy()
        return arrays[::2], arrays[1::2]


class Played(NamedTuple):
    """What B streams did on H questions.

    Attributes:
        seen: float32 [H, B, D].
        chosen: float32 [H, B, M], 1 where an agent was chosen.
        logprob: float32 [H, B], of what was chosen, under the weights that chose it.
        value: float32 [H + 1, B], expected before each question, and after the last.
        reward: float32 [H, B].
    """

    seen: "torch.Tensor"
    chosen: "torch.Tensor"
    logprob: "torch.Tensor"
    value: "torch.Tensor"
    reward: "torch.Tensor"


def chances_of(scores: "torch.Tensor", chosen: "torch.Tensor") -> "torch.Tensor":
    """Return the log-probability of independent choices, [...], by their log-odds and outcomes 0 or 1, [..., M]."""
    import torch

    return -torch.nn.functional.softplus(scores * (1 - 2 * chosen)).sum(dim=-1)


def play(net: Net, streams: Streams, horizon: int, draws: "torch.Generator") -> Played:
    """Let streams go on for some questions, with pools that are drawn."""
    import torch

    num_agents, num_streams = streams.pools.shape
    seen = torch.empty(horizon, num_streams, num_agents + 2)
    chosen = torch.empty(horizon, num_streams, num_agents)
    logprob, reward = torch.empty(horizon, num_streams), torch.empty(horizon, num_streams)
    value = torch.empty(horizon + 1, num_streams)
    with torch.inference_mode():
        for h in range(horizon):
            seen[h] = torch.from_numpy(streams.observe())
            scores, value[h] = net(seen[h])
            chosen[h] = torch.rand(scores.shape, generator=draws) < scores.sigmoid()
            logprob[h] = chances_of(scores, chosen[h])
            reward[h] = torch.from_numpy(streams.step(chosen[h].numpy()))
        value[horizon] = net(torch.from_numpy(streams.observe()))[1]
    return Played(seen, chosen, logprob, value, reward)


def gains(reward: "torch.Tensor", value: "torch.Tensor", gamma: float) -> "torch.Tensor":
    """Return generalised advantages, [H, B], of rewards [H, B] and the values before and after them, [H + 1, B]."""
    import torch

    surprise = reward + gamma * value[1:] - value[:-1]
    found, ahead = torch.empty_like(surprise), torch.zeros_like(surprise[0])
    for h in reversed(range(len(surprise))):
        ahead = surprise[h] + gamma * SMOOTHING * ahead
        found[h] = ahead
    return found


def clipped(logprob: "torch.Tensor", before: "torch.Tensor", gain: "torch.Tensor") -> "torch.Tensor":
    """Return the loss of the clipped ratio (Schulman et al. 2017, Eq. 7), negated to be minimised.

    Args:
        logprob: Of what was done, under the weights that are learned.
        before: The same, under the weights that did it.
        gain: What it brought more than expected.
    """
    import torch

    ratio = (logprob - before).exp()
    return -torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()


class Batch(NamedTuple):
    """Some of what was played: seen [B, D], chosen [B, M], and [B] each of the rest.

    Attributes:
        before: Log-probability of what was chosen, under the weights that chose it.
        gain: What it brought more than expected.
        aim: What the value should have been.
    """

    seen: "torch.Tensor"
    chosen: "torch.Tensor"
    before: "torch.Tensor"
    gain: "torch.Tensor"
    aim: "torch.Tensor"


def loss_of(net: Net, batch: Batch, entropy: float) -> "torch.Tensor":
    """Return what a decider minimises: clipped ratio, error of the value, entropy bonus."""
    import torch

    scores, value = net(batch.seen)
    loss = clipped(chances_of(scores, batch.chosen), batch.before, batch.gain)
    spread = torch.nn.functional.softplus(scores) - scores * scores.sigmoid()
    return loss + VALUE * ((value - batch.aim) ** 2).mean() - entropy * spread.sum(dim=1).mean()


def slopes(net: Net, batch: Batch, entropy: float) -> list["torch.Tensor"]:
    """Return the gradient of `loss_of` for the parameters of a net with one hidden layer.

    With z the log-odds, a what was chosen, s(z) its probability and r the ratio: d log p / dz = a - s, d H / dz =
    -z s (1 - s), and the clipped ratio has the slope r gain where it is not clipped, else 0. In closed form, and over
    so few rows at a time that they stay in the cache, it takes half of the time that differentiating it takes.
    """
    import torch

    first, shift, second, bias = net.parameters
    found = [torch.zeros_like(part) for part in net.parameters]
    num_rows, width = len(batch.seen), len(first)
    inner_RH, deeper_RH = net.space(width)
    for part in zip(*(torch.split(whole, _ROWS) for whole in batch), strict=True):
        seen, chosen, before, gain, aim = part
        inner, deeper = inner_RH[: len(seen)], deeper_RH[: len(seen)]
        torch.addmm(shift, seen, first.t(), out=inner).relu_()
        both = torch.addmm(bias, inner, second.t())
        scores, value = both[:, :-1], both[:, -1]
        # By log-odds of the other choice, so that both the log-probability and its slope take one function of them.
        sign = 1 - 2 * chosen
        against = scores * sign
        other = against.sigmoid()
        ratio = (-torch.nn.functional.softplus(against).sum(dim=1) - before).exp_()
        free = torch.where(gain > 0, ratio <= 1 + CLIP, ratio >= 1 - CLIP)
        slope = torch.empty_like(both)
        torch.mul(other, sign.mul_((ratio * gain * free)[:, None]), out=slope[:, :-1])
        if entropy:
            slope[:, :-1].addcmul_(scores, torch.addcmul(other, other, other, value=-1), value=entropy)
        torch.sub(value, aim, out=slope[:, -1]).mul_(2 * VALUE)
        torch.mm(slope, second, out=deeper)
        torch.ops.aten.threshold_backward.grad_input(deeper, inner, 0, grad_input=deeper)
        for total, left, right in ((found[0], deeper, seen), (found[2], slope, inner)):
            total.addmm_(left.t(), right, alpha=1 / num_rows)
        found[1].add_(deeper.sum(dim=0), alpha=1 / num_rows)
        found[3].add_(slope.sum(dim=0), alpha=1 / num_rows)
    return found


def improve(
    net: Net,
    optimizer: "torch.optim.Optimizer",
    played: Played,
    *,
    groups: int,
    gamma: float,
    passes: int,
    entropy: float,
    draws: "torch.Generator",
    batches: int = 8,
) -> None:
    """Take some passes over what was played.

    Args:
        net: What learns.
        optimizer: Of its parameters.
        played: What it did.
        groups: How many groups the streams are in; the mean gain of a group with more streams than one is taken off,
            question by question.
        gamma: Discount.
        passes: How many.
        entropy: Weight of the entropy bonus.
        draws: Draws which questions a gradient is taken of.
        batches: How many gradients a pass takes.
    """
    import torch

    horizon, num_streams = played.reward.shape
    gain = gains(played.reward, played.value, gamma)
    aim = gain + played.value[:-1]
    if num_streams > groups:
        each = gain.view(horizon, groups, -1)
        gain = (each - each.mean(dim=2, keepdim=True)).view(horizon, num_streams)
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    whole = [values.flatten(0, 1) for values in (played.seen, played.chosen, played.logprob, gain, aim)]
    size = -(-horizon // batches) * num_streams
    parts = [Batch(*part) for part in zip(*(torch.split(values, size) for values in whole), strict=True)]
    with torch.no_grad():
        for _ in range(passes):
            # Each is all streams on a few questions in a row, which lie together in memory.
            for place in torch.randperm(len(parts), generator=draws).tolist():
                follow(net, optimizer, slopes(net, parts[place], entropy))


def answer(
    net: Net,
    optimizer: "torch.optim.Optimizer",
    questions: tuple[FloatArray, IntArray],
    *,
    batch: int,
    gamma: float,
    passes: int,
    entropy: float,
    draws: "torch.Generator",
) -> float:
    """Let an aggregator answer all questions once with options that it draws, and take some passes over them.

    Args:
        net: What answers, and learns: the reward is 1 for the right option, else -1.
        optimizer: Of its parameters.
        questions: What it sees, float32 [N, D], and the right options, int [N], in the order of the stream.
        batch: Questions that a gradient is taken of.
        gamma: Discount of what later questions bring.
        passes: How many.
        entropy: Weight of the entropy bonus.
        draws: Draws options, and which questions a gradient is taken of.

    Returns:
        The mean reward.
    """
    import torch

    seen, labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in questions)
    with torch.no_grad():
        scores, value = net(seen)
        before = scores.log_softmax(dim=1)
        chosen = torch.multinomial(before.exp(), 1, generator=draws)
        before = before.gather(1, chosen)[:, 0]
        reward = torch.where(chosen[:, 0] == labels, 1.0, -1.0)
        last = torch.cat([value, value.new_zeros(1)])
        gain = gains(reward[:, None], last[:, None], gamma)[:, 0] if gamma else reward - value
        aim = gain + value
        gain = (gain - gain.mean()) / (gain.std() + 1e-8) if len(gain) > 1 else gain
    for _ in range(passes):
        for part in torch.split(torch.randperm(len(labels), generator=draws), batch):
            scores, value = net(seen[part])
            logprobs = scores.log_softmax(dim=1)
            loss = clipped(logprobs.gather(1, chosen[part])[:, 0], before[part], gain[part])
            loss = loss + VALUE * ((value - aim[part]) ** 2).mean()
            loss = loss + entropy * (logprobs.exp() * logprobs).sum(dim=1).mean()
            follow(net, optimizer, list(torch.autograd.grad(loss, net.parameters)))
    return float(reward.mean())


def adam(net: Net, learning_rate: float) -> "torch.optim.Optimizer":
    """Return Adam for the parameters of a net."""
    import torch

    return torch.optim.Adam(net.parameters, lr=learning_rate, fused=True)


def follow(net: Net, optimizer: "torch.optim.Optimizer", slopes: list["torch.Tensor"]) -> None:
    """Follow a gradient downwards."""
    import torch

    for parameter, slope in zip(net.parameters, slopes, strict=True):
        parameter.grad = slope
    torch.nn.utils.clip_grad_norm_(net.parameters, NORM)
    optimizer.step()
