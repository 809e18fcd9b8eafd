"""The openai engine at work: what is out at the same time, cancellation, event loops, restarts, thousands of calls."""

import asyncio
import collections
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from http_server import HttpServer
from openai_asking import answers, ask, make, request, until

from fusion.errors import EngineError
from fusion.schema import Completion


@pytest.fixture(scope="module")
def running() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def server(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running.configure(reset=True)
    yield running
    running.configure(api_key=None, clock_s=None, aliases={})


def test_what_stops_everything_cancels_the_others(server: HttpServer) -> None:
    async def work() -> None:
        engine = make(server)
        with pytest.raises(EngineError, match="serves no model"):
            await answers(engine, [request("stall-30", str(n)) for n in range(3)] + [request("nothing")])
        await until(lambda: server.stats()["cancelled"] == 3)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(work())


def test_closing_the_generator_closes_the_connections(server: HttpServer) -> None:
    async def work() -> None:
        engine = make(server, concurrency=8)
        requests = [request("ok"), *(request("stall-30", str(n)) for n in range(40))]
        async with aclosing(engine.generate(requests)) as stream:
            assert (await anext(stream))[0] == 0
            await until(lambda: server.stats()["open"] == 8)
        await until(lambda: server.stats()["cancelled"] == 8)
        assert server.stats()["total"] == 9, "what was not sent yet never is"
        assert server.stats()["open"] == 0

    asyncio.run(work())


def test_cancelling_who_listens_closes_the_connections(server: HttpServer) -> None:
    async def work() -> None:
        engine = make(server, concurrency=8)
        task = asyncio.create_task(answers(engine, [request("stall-30", str(n)) for n in range(20)]))
        await until(lambda: server.stats()["open"] == 8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.stats()["cancelled"] == 8)
        # The places are free again.
        assert {found.status for found in await answers(engine, [request("ok", str(n)) for n in range(20)])} == {"ok"}

    asyncio.run(work())


def test_no_place_is_lost_to_requests_that_were_cancelled(server: HttpServer) -> None:
    """In a shared pool of httpx 16 connections are down to a few after this many cancellations."""

    async def work() -> None:
        engine = make(server, concurrency=16)
        for n in range(60):
            requests = [request("slow-0.01" if k < 10 else "stall-30", f"{n} {k}") for k in range(32)]
            async with aclosing(engine.generate(requests)) as stream:
                async for _, completion in stream:
                    assert completion.status == "ok"
                    break
        server.configure(reset=True)
        await answers(engine, [request("slow-0.2", str(k)) for k in range(16)])
        assert server.stats()["peak"] == 16

    asyncio.run(work())


def test_closing_the_engine_lets_requests_that_are_out_end(server: HttpServer) -> None:
    async def work() -> None:
        engine = make(server)
        task = asyncio.create_task(answers(engine, [request("slow-0.2", str(n)) for n in range(4)]))
        await until(lambda: server.stats()["open"] == 4)
        await engine.aclose()
        assert {completion.status for completion in await task} == {"ok"}
        await until(lambda: server.stats()["connections_open"] == 1)

    asyncio.run(work())


def test_agents_that_share_the_engine_share_the_limit(server: HttpServer) -> None:
    async def work() -> list[list[Completion]]:
        engine = make(server, concurrency=4)
        pools = [[request("slow-0.05", f"{agent} {n}") for n in range(20)] for agent in range(3)]
        return await asyncio.gather(*(answers(engine, pool) for pool in pools))

    found = asyncio.run(work())
    told = server.stats()
    assert told["peak"] == 4
    assert told["connections"] <= 4 + 3, "connections are kept"
    # 60 calls at 4 a time take 0.75 s; what a call waits for its turn is not its own time.
    assert max(completion.seconds for pool in found for completion in pool) < 0.4


def test_event_loops_in_turn_and_closing_twice(server: HttpServer) -> None:
    engine = make(server)

    async def closed() -> None:
        await engine.aclose()
        assert (await answers(engine, [request("ok")]))[0].status == "ok"
        await engine.aclose()
        await engine.aclose()
        assert (await answers(engine, [request("ok", "again")]))[0].status == "ok"
        await engine.aclose()

    assert ask(engine, request("ok"))[0].status == "ok"
    asyncio.run(closed())
    assert ask(engine, request("ok"), request("ok", "more"))[1].status == "ok"
    asyncio.run(engine.aclose())

    async def none_left() -> None:
        # The connection that asks is one.
        await until(lambda: server.stats()["connections_open"] == 1)

    asyncio.run(none_left())


def test_a_server_that_dies_and_comes_back() -> None:
    async def work(server: HttpServer) -> list[Completion]:
        engine = make(server, concurrency=8, retries=12, backoff_s=0.1)
        found: list[Completion] = []
        requests = [request("slow-0.02", str(n)) for n in range(200)]
        async for _, completion in engine.generate(requests):
            found.append(completion)
            if len(found) == 50:
                await asyncio.to_thread(server.restart)
        return found

    with HttpServer() as server:
        found = asyncio.run(work(server))
    assert collections.Counter(completion.status for completion in found) == {"ok": 200}
    assert any(completion.attempts > 1 for completion in found)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read the memory in use")
def test_thousands_of_requests_take_few_tasks_and_little_memory(server: HttpServer) -> None:
    async def work() -> tuple[int, int, float]:
        engine = make(server, concurrency=16)
        requests = [request("ok", f"question {n}") for n in range(5000)]
        await answers(engine, requests[:50])
        before, tasks, count = resident_mb(), 0, 0
        async for _, completion in engine.generate(requests):
            count += completion.status == "ok"
            tasks = max(tasks, len(asyncio.all_tasks()))
        return count, tasks, resident_mb() - before

    count, tasks, grown_mb = asyncio.run(work())
    assert count == 5000
    # A worker for each request that may be out, the reader, and a moment longer one for each connection being made.
    assert tasks <= 2 * 16 + 1
    # 5,000 open requests would be 100 MB and more.
    assert grown_mb < 20
    assert server.stats()["connections"] < 30


def test_a_faulty_network_is_weathered(server: HttpServer) -> None:
    """Of all sendings 30% fail in transit; the chance that all of 11 do is 2e-6 a request."""
    found = ask(make(server, retries=10), *(request("faulty-0.3", str(n)) for n in range(200)))
    assert collections.Counter(completion.status for completion in found) == {"ok": 200}
    assert server.stats()["retries"] == sum(completion.attempts - 1 for completion in found)


def test_failures_never_carry_an_answer(server: HttpServer) -> None:
    found = ask(make(server, retries=1), *(request("broken-0.5", str(n)) for n in range(200)))
    statuses = {completion.status for completion in found}
    assert statuses == {"ok", "http_error", "rate_limited", "empty", "refused", "truncated"}
    for completion in found:
        assert bool(completion.text) == (completion.status == "ok")
        assert bool(completion.detail) == (completion.status in ("http_error", "rate_limited", "refused"))


def test_nothing_asked_nothing_sent(server: HttpServer) -> None:
    assert ask(make(server)) == []
    assert server.stats()["connections"] == 1


def test_the_stream_is_a_generator_that_has_sent_nothing_yet(server: HttpServer) -> None:
    async def work() -> None:
        stream: AsyncGenerator[tuple[int, Completion], None] = make(server).generate([request("ok")])
        await asyncio.sleep(0.05)
        assert server.stats()["total"] == 0
        await stream.aclose()

    asyncio.run(work())
