"""Asking a test server through the openai engine."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from http_server import HttpServer

from fusion.agents.openai import Openai
from fusion.schema import Completion, Message, Request


def make(server: HttpServer, **params: Any) -> Openai:
    """An engine that does not wait long."""
    return Openai(**{"base_url": server.url, "retries": 2, "backoff_s": 0.02, "read_s": 5.0, "total_s": 20.0, **params})


def request(model: str, text: str = "A or B?", **fields: Any) -> Request:
    return Request(question_id="q", messages=(Message("user", text),), model=model, **fields)


async def answers(engine: Openai, requests: Sequence[Request]) -> list[Completion]:
    """All completions in order, each index having come once."""
    found: dict[int, Completion] = {}
    async for index, completion in engine.generate(requests):
        assert index not in found
        found[index] = completion
    return [found[index] for index in range(len(requests))]


def ask(engine: Openai, *requests: Request) -> list[Completion]:
    return asyncio.run(answers(engine, requests))


async def until(holds: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait until `holds()` is true."""
    end = time.monotonic() + within_s
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)
