"""What whoever asks agents on behalf of one question may still spend, in money and in time.

It is known per context (`contextvars`): questions that are settled side by side, each in a thread or task of its own,
do not see each other's.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fusion.agents._agent import Agent
from fusion.agents._budget import Budget
from fusion.agents._pool import AgentPool


class Allowance:
    """Money and time that are left.

    Args:
        usd: USD that may be spent; None for no limit.
        seconds: Seconds from now in which to be done, none when negative; None for no limit.

    Example:
        >>> Allowance(usd=0.5).usd
        0.5
        >>> Allowance(seconds=-1.0).seconds
        0.0
    """

    def __init__(self, *, usd: float | None = None, seconds: float | None = None) -> None:
        self._limit = usd
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._budget: Budget | None = None

    @property
    def usd(self) -> float | None:
        """USD that are left; None for no limit."""
        return self._limit if self._budget is None else self._budget.left

    @property
    def seconds(self) -> float | None:
        """Seconds that are left, at least 0; None for no limit."""
        return None if self._ends is None else max(self._ends - time.monotonic(), 0.0)

    def budget(self, agent: Agent) -> Budget:
        """Return what holds calls of `agent` to the money: the same every time, so that several rounds share it.

        Raises:
            ConfigError: When there is a limit and the agent has no prices.
        """
        checked = Budget(AgentPool((agent,)), self._limit)
        if self._budget is None:
            self._budget = checked
        return self._budget


_CURRENT: ContextVar[Allowance | None] = ContextVar("fusion_allowance", default=None)


def allowed() -> Allowance:
    """Return what is left to the question that is being settled here; without limits where nobody has set any."""
    return _CURRENT.get() or Allowance()


@contextmanager
def allowing(allowance: Allowance) -> Iterator[None]:
    """Have `allowed` return `allowance` in this context."""
    before = _CURRENT.set(allowance)
    try:
        yield
    finally:
        _CURRENT.reset(before)
