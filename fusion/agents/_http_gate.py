"""How many requests may be out at once, and since when not: the part of rate limiting that requests share.

A server that answers 429 means everybody, so all requests of an engine wait until the time it named, and the number
that may be out is halved, once for all that were out together; every answer gives 1/n of a place back (additive
increase, multiplicative decrease). Requests that were out before go first. Without this, a wide burst after every wait
would meet the limit again and use up the retries of all.
"""

import asyncio
import time
from collections import deque


class Gate:
    """Lets requests out, in the order in which they came, those that come back first.

    All times are those of `time.monotonic`, in seconds. Belongs to one event loop.

    Args:
        most: Requests that may be out at the same time, at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._out = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed_until = 0.0
        self._slowed_at = 0.0

    @property
    def limit(self) -> int:
        """Requests that may be out now, at least 1."""
        return int(self._limit)

    def closed_for(self) -> float:
        """Return the seconds for which nothing may be sent."""
        return max(0.0, self._closed_until - time.monotonic())

    async def enter(self, *, again: bool) -> None:
        """Wait for a place; `leave` gives it back.

        Args:
            again: Whether the request was out before.
        """
        if self._out < self.limit and not self._waiting:
            self._out += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self._out -= 1
        self._admit()

    def slow_down(self, *, sent_at: float, wait_s: float) -> None:
        """Let nobody out for a while, and fewer at once from then on.

        Args:
            sent_at: When the request was sent that was told to wait.
            wait_s: How long.
        """
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + wait_s)
        if sent_at >= self._slowed_at:
            self._limit = max(1.0, self._limit / 2)
            self._slowed_at = now

    def speed_up(self) -> None:
        """Note that the server answered."""
        if self._limit < self._most:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._out < self.limit:
            turn = self._waiting.popleft()
            # One whose task was cancelled has left already.
            if not turn.done():
                self._out += 1
                turn.set_result(None)
