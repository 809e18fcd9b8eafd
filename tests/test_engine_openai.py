"""The openai engine against a real server that misbehaves: statuses, retries, limits, cancellation, lifecycle."""

import asyncio
import collections
import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai as official
import pytest
from http_server import HttpServer

from fusion.agents.openai import Openai
from fusion.errors import EngineError, InvalidSpec
from fusion.schema import FINAL, Completion, Json, Message, Request

KEY = "sk-this-is-a-key-1234567890"


@pytest.fixture(scope="module")
def running() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def server(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """The running server with its counts at 0, and no key in the environment."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running.configure(reset=True)
    yield running
    running.configure(api_key=None, clock_s=None, aliases={})


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


async def until(holds: Any, *, within_s: float = 5.0) -> None:
    """Wait until `holds()` is true."""
    end = time.monotonic() + within_s
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)


ENDINGS = [
    ("ok", "ok", "reply", 1, ""),
    ("slow-0.1", "ok", "reply", 1, ""),
    ("chunked", "ok", "reply", 1, ""),
    ("no-usage", "ok", "reply", 1, ""),
    ("parts", "ok", "reply", 1, ""),
    ("empty", "empty", "", 1, ""),
    ("null-content", "empty", "", 1, ""),
    ("length", "truncated", "It is long, but", 1, ""),
    ("length-empty-reasoning", "truncated", "", 1, ""),
    ("refusal", "refused", "", 1, "I cannot help with that."),
    ("content-filter", "refused", "", 1, "filter"),
    ("filtered", "refused", "", 1, "HTTP 400: The prompt was filtered"),
    ("rate-limited-2", "ok", "reply", 3, ""),
    ("unavailable-2", "ok", "reply", 3, ""),
    ("always-429", "rate_limited", "", 3, "HTTP 429: too many requests (after 3 attempts)"),
    ("error-400", "http_error", "", 1, "HTTP 400: the server failed as told"),
    ("error-418", "http_error", "", 1, "HTTP 418"),
    ("error-500", "http_error", "", 3, "HTTP 500: the server failed as told (after 3 attempts)"),
    ("error-408", "http_error", "", 3, "HTTP 408"),
    ("error-409-then-ok-1", "ok", "reply", 2, ""),
    ("error-425-then-ok-1", "ok", "reply", 2, ""),
    ("error-500-then-ok-1", "ok", "reply", 2, ""),
    ("drop-then-ok-2", "ok", "reply", 3, ""),
    ("drop", "http_error", "", 3, "the connection broke"),
    ("cut-headers", "http_error", "", 3, "the connection broke"),
    ("cut-body", "http_error", "", 3, "the connection broke"),
    ("huge-header", "http_error", "", 3, "the connection broke"),
    ("nonsense", "http_error", "", 3, "not JSON: <html>It works!</html>"),
    ("wrong-json", "http_error", "", 3, 'not of the expected form (no choices): {"status": "fine"'),
    ("redirect", "http_error", "", 1, "redirected to /v1/elsewhere; set base_url"),
]
CHAT_ONLY = ("null-content", "parts", "refusal")
"""What completions have no field for."""


@pytest.mark.parametrize(
    ("api", "model", "status", "text", "attempts", "detail"),
    [
        (api, *ending)
        for api in ("chat", "completions")
        for ending in ENDINGS
        if api == "chat" or ending[0] not in CHAT_ONLY
    ],
)
def test_every_behaviour_has_its_status(
    server: HttpServer, api: str, model: str, status: str, text: str, attempts: int, detail: str
) -> None:
    (found,) = ask(make(server, api=api), request(model))
    assert (found.status, found.attempts) == (status, attempts)
    assert found.text.startswith(text)
    assert (found.text == "") == (text == "")
    assert detail in found.detail
    assert (found.detail == "") == (detail == "")
    if found.status in FINAL and not detail.startswith("HTTP"):
        assert found.served_by == f"{model} fp_test"
        assert (found.usage.tokens_in is None) == (model == "no-usage")


@pytest.mark.parametrize(
    ("model", "reasoning"),
    [
        ("reasoning", "Let me see."),
        ("reasoning-content", "Let me see."),
        ("think", "Let me see."),
        ("think-only-end", "Let me see."),
        ("ok", ""),
    ],
)
def test_reasoning_is_kept_apart(server: HttpServer, model: str, reasoning: str) -> None:
    (found,) = ask(make(server), request(model))
    assert (found.status, found.reasoning) == ("ok", reasoning)
    assert found.text.startswith("reply ")
    assert found.usage.tokens_reasoning == (3 if model.startswith("reasoning") else 0)
    assert found.usage.tokens_cached == 4


def test_reasoning_that_never_ends_leaves_no_answer(server: HttpServer) -> None:
    (found,) = ask(make(server), request("think-unclosed"))
    assert (found.status, found.text, found.reasoning) == ("truncated", "", "Let me see")
    (raw,) = ask(make(server, think_end=""), request("think"))
    assert raw.text.startswith("<think>\nLet me see.\n</think>\n\nreply")


@pytest.mark.parametrize(
    ("model", "least_s", "most_s"),
    # The date has whole seconds: 1.5 s ahead becomes 0.5 to 1.5.
    [("rate-limited-2", 0.4, 3.0), ("rate-limited-date-1", 0.4, 4.0), ("rate-limited-ms-1", 0.2, 3.0)],
)
def test_the_server_is_not_asked_before_the_time_it_named(
    server: HttpServer, model: str, least_s: float, most_s: float
) -> None:
    started = time.monotonic()
    (found,) = ask(make(server), request(model))
    assert found.status == "ok"
    assert least_s <= found.seconds <= time.monotonic() - started <= most_s


def test_a_date_is_read_by_the_clock_of_the_server(server: HttpServer) -> None:
    """The server's clock is an hour ahead, and so is the date before which it must not be asked."""
    server.configure(clock_s=3600)
    (found,) = ask(make(server), request("rate-limited-date-1"))
    assert (found.status, found.attempts) == ("ok", 2)
    assert 0.4 <= found.seconds < 3


def test_a_wait_that_does_not_fit_ends_the_request_at_once_and_spares_the_others(server: HttpServer) -> None:
    started = time.monotonic()
    found = ask(make(server, concurrency=4), *(request("always-429-long", str(n)) for n in range(200)))
    assert time.monotonic() - started < 5
    assert {completion.status for completion in found} == {"rate_limited"}
    assert "wait for 3600 s, which does not fit into total_s = 20" in found[0].detail
    assert server.stats()["total"] <= 4, "after the first answer nobody is sent any more"
    assert collections.Counter(completion.attempts for completion in found)[0] >= 196


def test_one_429_makes_all_requests_wait(server: HttpServer) -> None:
    """32 at a time meet a limit of 60 a second; without a shared wait most would use up their retries."""
    found = ask(make(server, concurrency=32, retries=5), *(request("paced-60", str(n)) for n in range(150)))
    assert {completion.status for completion in found} == {"ok"}
    assert server.stats()["answered"]["429"] < 150


def test_silence_is_tried_again_once_only(server: HttpServer) -> None:
    (found,) = ask(make(server, read_s=0.2, retries=5), request("stall-30"))
    assert (found.status, found.attempts) == ("timeout", 2)
    assert "silent for read_s = 0.2" in found.detail
    (found,) = ask(make(server, read_s=0.2), request("stall-then-ok-1"))
    assert (found.status, found.attempts) == ("ok", 2)


def test_an_answer_that_drips_ends_with_the_total(server: HttpServer) -> None:
    (found,) = ask(make(server, total_s=0.5), request("drip-0.05"))
    assert (found.status, found.attempts) == ("timeout", 1)
    assert "total_s = 0.5" in found.detail
    assert 0.4 < found.seconds < 2


def test_no_retry_begins_after_the_total(server: HttpServer) -> None:
    (found,) = ask(make(server, total_s=0.3, retries=1000, backoff_s=0.1), request("error-500"))
    assert found.status == "http_error"
    assert "no time is left of total_s = 0.3" in found.detail
    assert found.seconds < 1


def test_nobody_listens() -> None:
    """Port 9 (discard) is not open."""
    (found,) = ask(Openai(base_url="http://127.0.0.1:9/v1", retries=1, backoff_s=0.01), request("ok"))
    assert (found.status, found.attempts) == ("http_error", 2)
    assert found.detail.startswith("cannot connect")


def test_a_refused_key_stops_everything(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.configure(api_key="another")
    with pytest.raises(EngineError, match=r"wants a key.*as OPENAI_API_KEY is not set"):
        ask(make(server), request("ok"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(EngineError, match=r"refuses the key in OPENAI_API_KEY \(HTTP 401: Incorrect.*\*\*\*") as caught:
        ask(make(server), request("ok", "with a key"))
    assert KEY not in str(caught.value)
    server.configure(api_key=KEY)
    with pytest.raises(EngineError, match="HTTP 403"):
        ask(make(server), request("forbidden"))
    with pytest.raises(EngineError, match="wants to be paid"):
        ask(make(server), request("no-credit"))
    assert server.stats()["retries"] == 0


def test_a_key_is_sent_and_told_to_nobody(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_TEST_KEY", f" {KEY}\n")
    server.configure(api_key=KEY)
    engine = make(server, api_key_env="FUSION_TEST_KEY")
    good, bad = ask(engine, request("ok"), request("error-400"))
    assert good.status == "ok"
    assert server.stats()["last_headers"]["authorization"] == f"Bearer {KEY}"
    assert bad.detail == "HTTP 400: the server failed as told ***"
    said = (
        f"{engine!r} {engine.identity(request('ok'))} {asyncio.run(engine.examine(request('nothing')))} {vars(engine)}"
    )
    assert KEY not in said


@pytest.mark.parametrize("value", ["", "k\u00e9y", "two\nlines"])
def test_a_key_that_cannot_be_sent_is_an_error_before_anything_is(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FUSION_TEST_KEY", value)
    with pytest.raises(EngineError, match="FUSION_TEST_KEY") as caught:
        ask(make(server, api_key_env="FUSION_TEST_KEY"), request("ok"))
    assert not value or value not in str(caught.value)
    assert server.stats()["total"] == 0


def test_openais_key_goes_to_no_stranger_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url, sent in [
        ("http://models.example/v1", False),
        ("https://models.example/v1", True),
        ("http://localhost:8000/v1", True),
    ]:
        assert ("authorization" in Openai(base_url=url)._endpoint.headers()) == sent
    named = Openai(base_url="http://models.example/v1", api_key_env="OPENAI_API_KEY")
    assert named._endpoint.headers()["authorization"] == f"Bearer {KEY}"


def test_a_missing_model_is_named_with_its_neighbours(server: HttpServer) -> None:
    with pytest.raises(EngineError, match="serves no model 'lettre'; did you mean 'letter'"):
        ask(make(server), request("lettre"))
    server.configure(aliases={"qwen3-4b": "not-found"})
    with pytest.raises(EngineError, match="lists the model 'qwen3-4b' but refuses it"):
        ask(make(server), request("qwen3-4b"))
    with pytest.raises(EngineError, match="check base_url, api and model"):
        ask(make(server, base_url=server.url + "/deeper"), request("ok"))


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


def test_what_is_sent(server: HttpServer) -> None:
    engine = make(server, max_tokens_field="max_completion_tokens")
    messages = (Message("system", "Be brief."), Message("user", "caf\u00e9 \ud800?"))
    plain = {
        "model": "ok",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "caf\u00e9 \ud800?"}],
        "max_completion_tokens": 512,
        "temperature": 0.0,
        "top_p": 1.0,
    }
    bare = Request(question_id="q", messages=messages, model="ok", revision="main")
    assert ask(engine, bare)[0].status == "ok"
    assert server.stats()["last"] == plain
    extra: dict[str, Json] = {"temperature": None, "top_p": 0.5, "min_p": 0.1}
    full = Request(
        question_id="q",
        messages=messages,
        model="base",
        adapter="ok",
        template="{{ messages }}",
        temperature=0.7,
        top_k=40,
        max_tokens=9,
        stop=("\n",),
        seed=5,
        extra=extra,
    )
    assert ask(engine, full)[0].status == "ok"
    sent = {"max_completion_tokens": 9, "stop": ["\n"], "seed": 5, "top_k": 40, "chat_template": "{{ messages }}"}
    expected = {**plain, **sent, "top_p": 0.5, "min_p": 0.1}
    del expected["temperature"]
    assert server.stats()["last"] == expected
    assert ask(make(server, api="completions"), bare)[0].status == "ok"
    assert server.stats()["last"]["prompt"] == "Be brief.\n\ncaf\u00e9 \ud800?"


@pytest.mark.parametrize(
    ("api", "fields", "message"),
    [
        ("chat", {"template": ""}, "chat endpoints always apply a template"),
        ("completions", {"template": "{{ x }}"}, "takes plain text"),
        ("chat", {"extra": {"stream": True}}, "must not contain stream or n"),
        ("chat", {"continuations": ("A",), "scoring": "echo"}, "cannot score by 'echo'"),
    ],
)
def test_what_cannot_be_asked_is_said(server: HttpServer, api: str, fields: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        ask(make(server, api=api), request("ok", **fields))
    assert server.stats()["total"] == 0


def test_the_official_client_gets_the_same(server: HttpServer) -> None:
    (found,) = ask(make(server), request("reasoning", max_tokens=64))
    with official.OpenAI(base_url=server.url, api_key="none") as client:
        answer = client.chat.completions.create(
            model="reasoning",
            messages=[{"role": "user", "content": "A or B?"}],
            max_tokens=64,
            temperature=0.0,
            top_p=1.0,
        )
    # The server answers by a hash of the body: equal answers mean equal bodies.
    assert answer.choices[0].message.content == found.text
    assert answer.choices[0].finish_reason == found.finish_reason
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert (found.usage.tokens_in, found.usage.tokens_out, found.usage.tokens_cached, found.usage.tokens_reasoning) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.prompt_tokens_details.cached_tokens,
        answer.usage.completion_tokens_details.reasoning_tokens,
    )
    assert found.served_by == f"{answer.model} {answer.system_fingerprint}"


def test_the_identity_is_what_is_served_and_how_it_is_asked() -> None:
    here = Openai(base_url="http://LOCALHOST:8000/v1/")
    said = here.identity(request("m"))
    assert said == {
        "engine": "openai",
        "server": "localhost:8000/v1",
        "api": "chat",
        "template": "server",
        "max_tokens_field": "max_tokens",
        "think_end": "</think>",
    }
    assert Openai(base_url="https://api.example.com:443/v1").identity(request("m"))["server"] == "api.example.com/v1"
    moved = [Openai(base_url=url, served_as="lab").identity(request("m")) for url in ("http://a/v1", "http://b:8/v1")]
    assert moved[0] == moved[1] != said
    # How patiently it is asked does not change an answer.
    assert Openai(base_url="http://localhost:8000/v1", concurrency=2, retries=0).identity(request("m")) == said
    plain = Openai(base_url="http://localhost:8000/v1", api="completions")
    assert plain.identity(request("m"))["template"] == "plain"
    assert (here.render(request("m")), plain.render(request("m", "A?"))) == ("", "A?")
    assert len(str(here.identity(request("m", template="{{ x }}"))["template"])) == 64


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "ftp://host/v1", "http://", "http://me:secret@host/v1", "http://h/v1?k=secret", "http://h:x"],
)
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(InvalidSpec, match="base_url must be the address") as caught:
        Openai(base_url=url)
    assert "secret" not in str(caught.value)


def examine(engine: Openai, model: str, **fields: Any) -> list[tuple[str, str]]:
    return [(level, what) for level, what, _ in asyncio.run(engine.examine(request(model, **fields)))]


def test_an_examination_finds_what_would_go_wrong(server: HttpServer) -> None:
    assert examine(make(server), "letter") == []
    ((level, what),) = examine(make(server), "lettre")
    assert level == "error"
    assert "did you mean 'letter'" in what
    ((level, what),) = examine(make(server), "letter", template="")
    assert (level, "always apply a template" in what) == ("error", True)
    ((level, what),) = examine(make(server, api_key_env="FUSION_NO_SUCH_KEY"), "letter")
    assert (level, "FUSION_NO_SUCH_KEY" in what) == ("error", True)
    ((level, what),) = examine(make(server, base_url=server.url + "/deeper"), "letter")
    assert (level, "cannot be read" in what) == ("warning", True)
    ((level, what),) = examine(Openai(base_url="http://127.0.0.1:9/v1"), "letter")
    assert (level, "cannot be reached" in what) == ("error", True)
    server.configure(clock_s=600)
    ((level, what),) = examine(make(server), "letter")
    assert (level, "600 s ahead" in what or "599 s ahead" in what) == ("note", True)
    server.configure(api_key="another")
    ((level, what),) = examine(make(server), "letter")
    assert (level, "refuses the key" in what) == ("error", True)
    assert server.stats()["total"] == 0, "an examination generates nothing"


def test_neither_prompt_tokens_nor_memory_are_known() -> None:
    assert Openai().prompt_tokens(request("m")) is None
    assert Openai().memory_bytes(request("m")) is None


def test_the_stream_is_a_generator_that_has_sent_nothing_yet(server: HttpServer) -> None:
    async def work() -> None:
        stream: AsyncGenerator[tuple[int, Completion], None] = make(server).generate([request("ok")])
        await asyncio.sleep(0.05)
        assert server.stats()["total"] == 0
        await stream.aclose()

    asyncio.run(work())
