"""What the openai engine sends, keys and models that are refused, what it is, and what an examination finds."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai as official
import pytest
from http_server import HttpServer
from openai_asking import ask, make, request

from fusion.agents.openai import Openai
from fusion.errors import EngineError, InvalidSpec
from fusion.schema import Json, Message, Request

KEY = "sk-this-is-a-key-1234567890"


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
