"""Proximal policy optimisation over whole batches of recorded questions (Schulman et al. 2017, arXiv:1707.06347).

One update plays every question once, each with a price of its own, and takes some passes over the steps: clipped ratio
against the probabilities under which the actions were drawn, a value baseline with generalised advantage estimates, an
entropy bonus that fades. Which question it is cannot be seen, so nothing can be memorised.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusion.errors import MissingDependency
from fusion.policies._run import Kept, TrainingRun, one_torch_thread
from fusion.policies._stopping import reward_of
from fusion.policies._world import State, World
from fusion.schema import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

_CLIP, _LAMBDA, _PASSES, _NORM = 0.2, 0.95, 3, 0.5
_BATCH = 256, 4096
"""Steps that a gradient is taken of: a tenth of those played, between these."""
_HIDDEN = 64


@dataclass(frozen=True, kw_only=True)
class PpoOptions:
    """How a policy is trained.

    Args:
        updates: How often all questions are played.
        learning_rate: At the beginning; it falls to nearly 0.
        entropy: Weight of the entropy bonus at the beginning; it falls to 0.
        prices: Least and greatest price of a call, in accuracy; every episode draws one between, log-uniform.
        seed: Of weights and draws.
    """

    updates: int = 100
    learning_rate: float = 2e-3
    entropy: float = 0.01
    prices: tuple[float, float] = (0.001, 0.06)
    seed: int = 0


class Layers(NamedTuple):
    """A policy's weights: two hidden layers of tanh, then one score an agent and one for stopping.

    Attributes:
        weights: (D, H), (H, H), (H, M + 1) float64.
        biases: (H,), (H,), (M + 1,) float64.
    """

    weights: tuple[FloatArray, FloatArray, FloatArray]
    biases: tuple[FloatArray, FloatArray, FloatArray]

    def choose(self, seen_BD: FloatArray, asked_BM: "np.typing.NDArray[np.bool_]") -> IntArray:
        """Return the likeliest action of each episode, int [B]: an agent's position, or M to stop."""
        return np.asarray(self.scores(seen_BD, asked_BM).argmax(axis=1))

    def scores(self, seen_BD: FloatArray, asked_BM: "np.typing.NDArray[np.bool_]") -> FloatArray:
        """Return the score of each action, float64 [B, M + 1]; -inf for who was asked, and to stop at once."""
        inner = seen_BD.astype(np.float64)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inner = np.tanh(inner @ weight + bias)
        scores = inner @ self.weights[-1] + self.biases[-1]
        nobody_B1 = ~asked_BM.any(axis=1, keepdims=True)
        scores[np.concatenate([asked_BM, nobody_B1], axis=1)] = -np.inf
        return np.asarray(scores)


def train_policy(
    world: World,
    labels_N: IntArray,
    *,
    options: PpoOptions,
    costs_M: FloatArray | None = None,
    worth_NK: FloatArray | None = None,
    run: TrainingRun | None = None,
) -> Layers:
    """Train a policy that asks or stops on all questions of a world.

    The reward is 1 for stopping at the right option, less the price of every call.

    Args:
        world: What is asked; its beliefs must not have been learned from the very questions they are about.
        labels_N: The right options, -1 where it is none.
        options: How.
        costs_M: What a call of each agent costs, 1 for the mean; 1 each by default.
        worth_NK: What each option is worth; 1 for the right one by default.
        run: Told of every update, and keeps it: from one that has begun with the same marks it goes on.

    Raises:
        MissingDependency: When torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependency("torch", purpose="training a policy", extra="hf") from error

    generator = torch.Generator().manual_seed(options.seed)
    num_agents = world.answers.shape[1]
    width = world.observe(world.begin(np.zeros(1, dtype=np.intp)), np.ones(1)).shape[1]
    net = _Net(width, num_agents, generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
    low, high = np.log(options.prices)
    # Stopping costs nothing.
    costs = np.append(np.ones(num_agents) if costs_M is None else costs_M, 0.0)
    run = run or TrainingRun()
    begun = run.kept
    if begun is not None:
        net.take(begun["net"])
        optimizer.load_state_dict(begun["optimizer"])
        generator.set_state(begun["draws"])

    def kept() -> Kept:
        return {
            "net": [part.detach() for part in net.parameters()],
            "optimizer": optimizer.state_dict(),
            "draws": generator.get_state(),
        }

    for update in range(run.done, options.updates):
        left = 1 - update / options.updates
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * left + 1e-5
        draws = torch.rand(len(labels_N), generator=generator, dtype=torch.float64).numpy()
        price_N = np.exp(low + draws * (high - low))
        with one_torch_thread():
            steps = _play(world, labels_N, worth_NK, price_N, costs, net, generator)
            figures = _figures(steps)
            figures["entropy"] = _improve(net, optimizer, steps, entropy=options.entropy * left, generator=generator)
        run.step("training the policy", update + 1, options.updates, figures, kept)
    run.finish(options.updates, kept)
    return net.layers()


class _Step(NamedTuple):
    episodes: IntArray
    seen: "torch.Tensor"
    closed: "torch.Tensor"
    action: "torch.Tensor"
    logprob: "torch.Tensor"
    value: "torch.Tensor"
    reward: "torch.Tensor"


class _Net:
    """Policy and value over one body."""

    def __init__(self, width: int, num_agents: int, generator: "torch.Generator") -> None:
        import torch

        def made(fan_in: int, fan_out: int, scale: float) -> "torch.nn.Linear":
            layer = torch.nn.Linear(fan_in, fan_out)
            with torch.no_grad():
                bound = scale / np.sqrt(fan_in)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()
            return layer

        self.body = [made(width, _HIDDEN, 1.0), made(_HIDDEN, _HIDDEN, 1.0)]
        self.policy, self.value = made(_HIDDEN, num_agents + 1, 0.0), made(_HIDDEN, 1, 1.0)
        with torch.no_grad():
            # Ask rather than stop at first: who stops at once learns nothing.
            self.policy.bias[num_agents] = -1.0

    def parameters(self) -> list["torch.nn.Parameter"]:
        return [part for layer in (*self.body, self.policy, self.value) for part in layer.parameters()]

    def __call__(self, seen: "torch.Tensor", closed: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return log-probabilities of the actions [B, M + 1] and values [B]."""
        import torch

        inner = seen
        for layer in self.body:
            inner = torch.tanh(layer(inner))
        scores = self.policy(inner).masked_fill(closed, -1e9)
        return torch.log_softmax(scores, dim=1), self.value(inner)[:, 0]

    def take(self, values: list["torch.Tensor"]) -> None:
        """Take over weights, in the order of `parameters`."""
        import torch

        with torch.no_grad():
            for part, value in zip(self.parameters(), values, strict=True):
                part.copy_(value)

    def layers(self) -> Layers:
        layers = (*self.body, self.policy)
        weights: Any = tuple(layer.weight.detach().double().numpy().T.copy() for layer in layers)
        biases: Any = tuple(layer.bias.detach().double().numpy().copy() for layer in layers)
        return Layers(weights, biases)


def _play(
    world: World,
    labels_N: IntArray,
    worth_NK: FloatArray | None,
    price_N: FloatArray,
    costs: FloatArray,
    net: _Net,
    generator: "torch.Generator",
) -> list[_Step]:
    """Play every question once, drawing the actions, which cost `costs`, [M + 1]."""
    import torch

    state, episodes, steps = world.begin(np.arange(len(labels_N))), np.arange(len(labels_N)), []
    stop = world.answers.shape[1]
    while len(episodes):
        seen = torch.from_numpy(world.observe(state, price_N[episodes]))
        closed = torch.from_numpy(np.concatenate([state.asked, ~state.asked.any(axis=1, keepdims=True)], axis=1))
        with torch.no_grad():
            logprobs, value = net(seen, closed)
        action = torch.multinomial(logprobs.exp(), 1, generator=generator)[:, 0]
        chosen_B = action.numpy()
        stops_B = chosen_B == stop
        worth_BK = None if worth_NK is None else worth_NK[episodes]
        right_B = reward_of(world.likeliest(state), labels_N[episodes], worth_BK)
        reward_B = np.where(stops_B, right_B, -price_N[episodes] * costs[chosen_B]).astype(np.float32)
        logprob = logprobs.gather(1, action[:, None])[:, 0]
        steps.append(_Step(episodes, seen, closed, action, logprob, value, torch.from_numpy(reward_B)))
        episodes = episodes[~stops_B]
        state = state.take(~stops_B)
        world.ask(state, chosen_B[~stops_B])
    return steps


def _figures(steps: list[_Step]) -> dict[str, float]:
    """Return how the questions that were played went: means of an episode."""
    num_episodes = len(steps[0].episodes)
    calls = sum(len(step.episodes) for step in steps) - num_episodes
    return {"reward": float(sum(step.reward.sum() for step in steps)) / num_episodes, "calls": calls / num_episodes}


def _improve(net: _Net, optimizer: Any, steps: list[_Step], *, entropy: float, generator: "torch.Generator") -> float:
    """Take some passes over the steps; return the mean entropy of what the policy does, in nats."""
    import torch

    num_episodes = len(steps[0].episodes)
    after, ahead = torch.zeros(num_episodes), torch.zeros(num_episodes)
    gains = []
    for step in reversed(steps):
        surprise = step.reward + after[step.episodes] - step.value
        gain = surprise + _LAMBDA * ahead[step.episodes]
        ahead[step.episodes], after[step.episodes] = gain, step.value
        gains.append(gain)
    gain = torch.cat(gains[::-1])
    seen, closed = torch.cat([step.seen for step in steps]), torch.cat([step.closed for step in steps])
    action, logprob = torch.cat([step.action for step in steps]), torch.cat([step.logprob for step in steps])
    value = torch.cat([step.value for step in steps])
    aim = gain + value
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    size = min(max(len(gain) // 10, _BATCH[0]), _BATCH[1])
    for _ in range(_PASSES):
        for batch in torch.randperm(len(gain), generator=generator).split(size):  # type: ignore[no-untyped-call]
            logprobs, guessed = net(seen[batch], closed[batch])
            ratio = (logprobs.gather(1, action[batch][:, None])[:, 0] - logprob[batch]).exp()
            clipped = ratio.clamp(1 - _CLIP, 1 + _CLIP)
            loss = -torch.minimum(ratio * gain[batch], clipped * gain[batch]).mean()
            loss = loss + 0.5 * ((guessed - aim[batch]) ** 2).mean()
            minus_entropy = (logprobs.exp() * logprobs.clamp(min=-30)).sum(dim=1).mean()
            loss = loss + entropy * minus_entropy
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), _NORM)
            optimizer.step()
    return -float(minus_entropy.detach())


def play_out(world: World, layers: Layers, price_N: FloatArray, *, max_calls: int | None = None) -> State:
    """Return how every question ends when the likeliest action is always taken."""
    num_agents = world.answers.shape[1]
    rows = np.arange(len(price_N))
    ended, state = world.begin(rows), world.begin(rows)
    for _ in range(num_agents if max_calls is None else min(max_calls, num_agents)):
        chosen_B = layers.choose(world.observe(state, price_N[state.rows]), state.asked)
        goes_B = chosen_B < num_agents
        state = state.take(goes_B)
        if not len(state.rows):
            break
        world.ask(state, chosen_B[goes_B])
        for whole, part in zip(ended[1:], state[1:], strict=True):
            whole[state.rows] = part
    return ended
