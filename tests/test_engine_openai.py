"""The openai engine against a real server that misbehaves: statuses, retries and waits."""

import collections
import time
from collections.abc import Iterator

import pytest
from http_server import HttpServer
from openai_asking import ask, make, request

from fusion.agents.openai import Openai
from fusion.schema import FINAL


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
