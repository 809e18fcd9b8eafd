"""Work on many items at a time, on one event loop."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def as_done(items: Iterator[T], work: Callable[[T], Awaitable[R]], *, at_once: int) -> AsyncGenerator[R, None]:
    """Yield what `work` makes of each item, in the order in which they end.

    Items are drawn as there is room for them, so there are never more tasks than `at_once`. The first error ends all;
    closing the generator cancels what is out.

    Args:
        items: May be a generator of any length.
        work: Works on one.
        at_once: Most that are worked on at a time.
    """
    ready: asyncio.Queue[tuple[R] | asyncio.Task[None]] = asyncio.Queue()

    async def draw() -> None:
        for item in items:
            ready.put_nowait((await work(item),))

    tasks = [asyncio.create_task(draw()) for _ in range(at_once)]
    for task in tasks:
        task.add_done_callback(ready.put_nowait)
    try:
        left = len(tasks)
        while left:
            found = await ready.get()
            if isinstance(found, asyncio.Task):
                # Raises what ended the worker, if anything did.
                found.result()
                left -= 1
            else:
                yield found[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
