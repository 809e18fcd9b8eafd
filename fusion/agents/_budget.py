"""A limit on what may be spent, held before anything is sent."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from fusion.agents._agent import Agent
from fusion.agents._pool import AgentPool
from fusion.errors import ConfigError
from fusion.schema import Completion, Request, Status, Usage

_FREE: frozenset[Status] = frozenset({"rate_limited", "http_error", "engine_error", "over_budget"})
_PER_MESSAGE = 16
"""Tokens that a chat template may add to a message."""


class Budget:
    """Keeps the sum of what was spent and what calls in flight may still cost below a limit.

    What a call may cost at most: no tokeniser makes more tokens of a text than it has bytes, and no more than
    `max_tokens` are written. What it did cost replaces that when it ends. Calls that a server refused or broke off are
    free, as providers bill answers; where an answer's tokens are not told, and for calls that were cancelled or too
    late, the most counts.

    Args:
        pool: Agents with prices.
        limit: USD; None for no limit.

    Raises:
        ConfigError: When there is a limit and an agent has no prices.
    """

    def __init__(self, pool: AgentPool, limit: float | None) -> None:
        self.limit = limit
        self.spent = 0.0
        self._reserved = 0.0
        self._out = 0
        self._ended = asyncio.Event()
        if limit is None:
            return
        if not limit >= 0:
            raise ConfigError(f"max_cost must be at least 0, got {limit}")
        unpriced = [agent.name for agent in pool if None in agent.prices]
        if unpriced:
            raise ConfigError(
                f"a limit on the cost needs every agent's prices, and {', '.join(unpriced)} has none; give "
                "input_price and output_price, USD per million tokens (0 for a model of your own)"
            )

    @property
    def reason(self) -> str:
        """What to say of a call that was not made."""
        return f"not asked: {self.spent:.6f} of {self.limit} USD are spent, and it might cost more than the rest"

    @property
    def left(self) -> float | None:
        """USD that are neither spent nor set aside, at least 0; None for no limit."""
        return None if self.limit is None else max(self.limit - self.spent - self._reserved, 0.0)

    async def set_aside(self, agent: Agent, requests: Sequence[Request]) -> int:
        """Reserve the most that requests may cost, in order, and return how many of them fit.

        While none fits but calls are on their way, wait: they may turn out to cost less than was set aside for them.
        """
        if self.limit is None or not requests:
            return len(requests)
        while True:
            count = 0
            for request in requests:
                most = most_usd(agent, request)
                if self.spent + self._reserved + most > self.limit:
                    break
                self._reserved += most
                self._out += 1
                count += 1
            if count or not self._out:
                return count
            self._ended.clear()
            await self._ended.wait()

    def settle(self, agent: Agent, request: Request, completion: Completion | None) -> None:
        """Replace a reservation by what the call cost; `completion` is None when it was not sent."""
        if self.limit is None:
            return
        most = most_usd(agent, request)
        self._out -= 1
        self._reserved = max(self._reserved - most, 0.0) if self._out else 0.0
        if completion is not None and completion.status not in _FREE:
            cost = usd(agent, completion.usage)
            self.spent += most if cost is None else cost
        self._ended.set()


Generate = Callable[[Agent, Sequence[Request]], AsyncGenerator[tuple[int, Completion], None]]
"""Answers an agent's requests."""


async def paid_answers(
    budget: Budget, agent: Agent, requests: Sequence[Request], generate: Generate
) -> AsyncGenerator[tuple[int, Completion], None]:
    """Answer what the budget allows; the rest comes back as `over_budget`."""
    start = 0
    while start < len(requests):
        paid = await budget.set_aside(agent, requests[start:])
        if not paid:
            break
        waiting = set(range(start, start + paid))
        try:
            async with aclosing(generate(agent, requests[start : start + paid])) as answers:
                async for index, completion in answers:
                    waiting.discard(start + index)
                    budget.settle(agent, requests[start + index], completion)
                    yield start + index, completion
        except (asyncio.CancelledError, GeneratorExit):
            # Whoever answers may send a bill for what nobody waits for any more.
            for index in waiting:
                budget.settle(agent, requests[index], Completion(status="cancelled"))
            waiting.clear()
            raise
        finally:
            for index in waiting:
                budget.settle(agent, requests[index], None)
        start += paid
    for index in range(start, len(requests)):
        yield index, Completion(status="over_budget", detail=budget.reason)


def usd(agent: Agent, usage: Usage) -> float | None:
    """Return the price of a call in USD; None when prices or tokens are unknown."""
    if agent.input_price is None or agent.output_price is None:
        return None
    if usage.tokens_in is None or usage.tokens_out is None:
        return None
    return (usage.tokens_in * agent.input_price + usage.tokens_out * agent.output_price) / 1e6


def most_usd(agent: Agent, request: Request) -> float:
    """Return the most that a call can cost in USD, every continuation scored in a call of its own."""
    read = sum(len(message.content.encode()) + _PER_MESSAGE for message in request.messages)
    texts = [len(text.encode()) + 1 for text in request.continuations]
    tokens_in = read * max(len(texts), 1) + sum(texts)
    tokens_out = max(len(texts), 1) if texts else request.max_tokens
    return (tokens_in * (agent.input_price or 0) + tokens_out * (agent.output_price or 0)) / 1e6


def sum_usd(costs: Sequence[float | None]) -> float | None:
    """Return the sum of costs in USD; None when one of them is unknown."""
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None


def sum_usage(usages: Sequence[Usage]) -> Usage:
    """Return the sums; a field that some usage does not know is None, but for cached and reasoning tokens."""
    sums: dict[str, int | None] = {}
    for name in ("tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning"):
        known = [value for usage in usages if (value := getattr(usage, name)) is not None]
        whole = name in ("tokens_cached", "tokens_reasoning") or len(known) == len(usages)
        sums[name] = sum(known) if known and whole else None
    return Usage(**sums)
