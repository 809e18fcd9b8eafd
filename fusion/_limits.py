"""When to stop asking about one question."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from fusion.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to stop asking.

    Money and time are those of the whole question. What the members leave of them is for the calls that a fuser makes
    itself (`synthesize`, `rank`): it makes only those that surely fit, waits for none of them any longer, and lets
    votes decide where one is missing. A fuser that runs a model of its own (`topla_summary`) costs no money, and
    cannot be interrupted: it may end after the deadline.

    No selector gets past a limit: agents that it keeps from being asked stay unasked, also in what the selector sees,
    and what is there is settled.

    Args:
        quorum: Answers that are needed: a number, or a share of the agents asked (a float up to 1), of which at least
            one must answer then. Whom a limit keeps from being asked is not among them.
        deadline_s: Seconds after which those who have not answered are left out, whoever asked them.
        max_cost: USD that one question may cost at most; agents that might exceed it are not asked. All need prices,
            one that the fuser asks too.
        max_calls: Calls that the members may be sent at most, every draw of every agent counted, however it ends. As
            with money, what is on record is not sent and so is free; the engine's retries belong to their call, and
            the calls that a fuser makes itself are limited by money and time alone.
        settle: Cancel the calls that cannot change the answer any more.
    """

    quorum: int | float = 0.5
    deadline_s: Annotated[float, Gt(0)] | None = None
    max_cost: Annotated[float, Ge(0)] | None = None
    max_calls: Annotated[int, Ge(0)] | None = None
    settle: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.quorum, bool) or not isinstance(self.quorum, int | float):
            raise ConfigError(f"quorum must be a number of agents, or a share from 0.0 to 1.0, got {self.quorum!r}")
        if not self.quorum >= 0 or (isinstance(self.quorum, float) and self.quorum > 1):
            raise ConfigError(f"quorum must be a number of agents, or a share from 0.0 to 1.0, got {self.quorum}")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(f"deadline_s must be more than 0 seconds, got {self.deadline_s}")
        if self.max_cost is not None and not self.max_cost >= 0:
            raise ConfigError(f"max_cost must be at least 0 USD, got {self.max_cost}")
        if self.max_calls is not None and (type(self.max_calls) is not int or self.max_calls < 0):
            raise ConfigError(f"max_calls must be a number of calls, at least 0, got {self.max_calls!r}")

    def needed(self, num_asked: int) -> int:
        """Return how many of `num_asked` agents must answer."""
        return math.ceil(self.quorum * num_asked) if isinstance(self.quorum, float) else self.quorum


class CallCount:
    """Counts calls, up to a limit.

    Args:
        limit: Most calls; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.made = 0

    @property
    def reason(self) -> str:
        """What to say of a call that was not made."""
        return f"not asked: {self.made} of {self.limit} calls are made"

    @property
    def is_up(self) -> bool:
        """Whether no call is left."""
        return self.limit is not None and self.made >= self.limit

    def take(self, wanted: int) -> int:
        """Count calls that are about to be made, and return how many of those wanted may be."""
        granted = wanted if self.limit is None else min(wanted, self.limit - self.made)
        self.made += granted
        return granted
