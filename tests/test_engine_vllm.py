"""The engine that runs vLLM servers, with a stand-in that computes what vLLM would: answers, servers, trouble."""

import asyncio
import contextlib
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from fake_vllm import FakeVllm, option
from hf_asking import OPTIONS, TEXTS, answers, asked, collect, greedy, loaded, of_length, scored
from tiny_models import CHAT, CONTEXT, TinyModels, quiet

from fusion.agents._vllm_command import free_port
from fusion.agents.vllm import Vllm
from fusion.cli import main
from fusion.errors import EngineError, InvalidSpec, MissingDependency
from fusion.schema import Completion, Request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="servers are started on Linux and macOS only")

TOLERANCE = 1e-4
"""Between log-probabilities computed one by one and in a batch: float32 sums in another order."""


class World(NamedTuple):
    """Models of all tests: two bases, and adapters of the first."""

    base: Path
    other: Path
    one: Path
    two: Path


@pytest.fixture(scope="module", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for logs and records, and one thread for models that are too small for several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    models = TinyModels(tmp_path_factory.mktemp("models"))
    base = models.llama(name="base")
    one, two = models.lora(base, seed=1, name="one"), models.lora(base, seed=2, name="two", r=9)
    return World(base, models.llama(name="other", seed=5), one, two)


@pytest.fixture(scope="module")
def shared(world: World) -> Iterator[tuple[Vllm, FakeVllm]]:
    """One server for all tests that only ask: an engine and the environment that its server is of."""
    with FakeVllm() as fake:
        engine = Vllm(python=fake.python, dtype="float32", batch=4, concurrency=16)
        for adapter in (None, world.one, world.two):
            engine.expect(asked("", world.base, **({"adapter": adapter} if adapter else {})))
        yield engine, fake
        assert len(fake.starts()) == 1, "one server for a base and its adapters, for all tests"
        asyncio.run(engine.aclose())
        assert not fake.alive()


@pytest.fixture(autouse=True)
def _all_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test made go wrong is over with it, and nobody works on behind it."""
    yield
    if "shared" in request.fixturenames:
        request.getfixturevalue("shared")[1].go_wrong()


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    before = threading.enumerate()
    with FakeVllm() as made:
        yield made
        assert not made.alive(), "a server outlived its engine"
    waiting = set(threading.enumerate()) - set(before)
    assert not [thread.name for thread in waiting if thread.name.startswith("fusion-vllm")]


def made(fake: FakeVllm, **fields: Any) -> Vllm:
    return Vllm(**{"python": fake.python, "dtype": "float32", **fields})


@asynccontextmanager
async def open_engine(fake: FakeVllm, **fields: Any) -> AsyncIterator[Vllm]:
    engine = made(fake, **fields)
    try:
        yield engine
    finally:
        await engine.aclose()


async def got(engine: Vllm, requests: Sequence[Request]) -> list[Completion]:
    return await collect(cast("Any", engine), requests)


def asking(fake: FakeVllm, requests: Sequence[Request], **fields: Any) -> list[Completion]:
    """Return what a fresh engine answers."""

    async def run() -> list[Completion]:
        async with open_engine(fake, **fields) as engine:
            return await got(engine, requests)

    return asyncio.run(run())


_KNOWN: dict[str, list[Completion]] = {}


def hf(requests: Sequence[Request]) -> list[Completion]:
    """Return what the engine hf answers; several tests ask the same."""
    asks = repr(requests)
    if asks not in _KNOWN:
        _KNOWN[asks] = answers(requests, dtype="float32", device="cpu")
    return _KNOWN[asks]


def outcome(completion: Completion) -> tuple[object, ...]:
    usage = (completion.usage.tokens_in, completion.usage.tokens_out)
    return completion.status, completion.text, completion.finish_reason, usage, completion.served_by


def same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert [outcome(one) for one in found] == [outcome(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.option_logprobs is None) == (other.option_logprobs is None)
        if one.option_logprobs is not None:
            assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=TOLERANCE)


def of_all_models(world: World, ask: Callable[..., Request] = asked, **fields: Any) -> list[Request]:
    """Return every text for the base and both adapters, those of a model never next to each other for long."""
    chosen: list[dict[str, Any]] = [{}, {"adapter": world.one}, {"adapter": world.two}]
    requests = [ask(text, world.base, **fields, **which) for text in TEXTS for which in chosen]
    random.Random(0).shuffle(requests)
    return requests


# What is answered: as the engine hf answers.


def test_greedy_answers_are_those_of_hf(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    requests = of_all_models(world)
    expected = hf(requests)
    same(asyncio.run(got(shared[0], requests)), expected)
    by_text: dict[str, set[str]] = {}
    for request, completion in zip(requests, expected, strict=True):
        by_text.setdefault(request.messages[0].content, set()).add(completion.text)
    assert max(map(len, by_text.values())) == 3, "base and adapters differ, so that mixing them up would show"


def test_a_server_that_ignores_adapters_would_be_seen(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    requests = of_all_models(world)
    shared[1].go_wrong(ignore_adapters=True)
    found = asyncio.run(got(shared[0], requests))
    assert [one.text for one in found] != [one.text for one in hf(requests)]


@pytest.mark.parametrize("template", [None, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("options", [("A", "B", "four"), OPTIONS], ids=["labels", "texts"])
def test_options_are_scored_as_by_hf(
    shared: tuple[Vllm, FakeVllm], world: World, options: Sequence[str], template: str | None
) -> None:
    requests = of_all_models(world, scored, options=options, template=template)
    same(asyncio.run(got(shared[0], requests)), hf(requests))


def test_more_options_than_are_told_at_a_time(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    """More than 128 first tokens: every ASCII character, and characters that begin with 46 other bytes."""
    engine, fake = shared
    leads = [0x80 + 64 * k for k in range(30)] + [0x800 + 4096 * k for k in (*range(13), 14, 15)]
    options = [chr(code) for code in (*range(33, 127), *leads)]
    requests = [scored(text, world.base, options, adapter=world.one) for text in TEXTS[:2]]
    before = len(fake.calls())
    same(asyncio.run(got(engine, requests)), hf(requests))
    told = [len(call["logprob_token_ids"]) for call in fake.calls()[before:]]
    assert max(told) == 128
    assert sum(told) > 128


def test_stop_texts(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    plain = hf([asked(text, world.base, max_tokens=24) for text in TEXTS])
    inner = [completion.text[len(completion.text) // 2 :][:3] for completion in plain]
    requests = [
        asked(text, world.base, max_tokens=24, stop=("never said", stop))
        for text, stop in zip(TEXTS, inner, strict=True)
    ]
    expected = hf(requests)
    assert {completion.finish_reason for completion in expected} == {"stop"}
    same(asyncio.run(got(shared[0], requests)), expected)


def test_special_tokens_as_stop_texts(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    """One that decoding leaves out ends the answer all the same, and one that is no stop text does not."""
    model, words = loaded(world.base)
    added = {token: text for text, token in words.get_added_vocab().items() if token != words.eos_token_id}
    found = None
    for text in (f"{text}{tail}" for tail in ("", " A", " B", "?", " is", " 2") for text in TEXTS):
        prompt = words(text).input_ids
        said = greedy_tokens(model, words, prompt, 16)
        if found := next((token for token in said[1:] if token in added), None):
            break
    assert found is not None, "the model writes no special token; change the texts"
    requests = [asked(text, world.base, max_tokens=20, stop=stop) for stop in ((added[found],), ("never said",))]
    expected = hf(requests)
    assert expected[0].finish_reason == "stop"
    assert expected[0].usage.tokens_out != expected[1].usage.tokens_out
    same(asyncio.run(got(shared[0], requests)), expected)


def greedy_tokens(model: Any, words: Any, prompt: Sequence[int], max_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
    tokens: list[int] = out[0, len(prompt) :].tolist()
    assert greedy(model, words, prompt, max_tokens) == words.decode(tokens, skip_special_tokens=True)
    return tokens


def test_at_the_end_of_the_context(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    requests = [asked(of_length(num), world.base) for num in (CONTEXT - 1, CONTEXT - 5, CONTEXT, 9, CONTEXT + 1)]
    found, expected = asyncio.run(got(shared[0], requests)), hf(requests)
    same(found, expected)
    assert [one.status for one in found] == ["truncated", "truncated", "engine_error", found[3].status, "engine_error"]
    assert [one.detail for one in found] == [one.detail for one in expected]


def test_options_at_the_end_of_the_context(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    """A server wants room for one token more than it reads; the others of the batch are scored all the same."""
    requests = [scored(of_length(num), world.base, ("A", "B")) for num in (CONTEXT - 1, CONTEXT - 2, 5)]
    found = asyncio.run(got(shared[0], requests))
    same(found, hf(requests))
    over = asyncio.run(got(shared[0], [scored(of_length(CONTEXT), world.base, ("A", "B")), requests[2]]))
    assert (over[0].status, over[1].status) == ("http_error", "ok")
    assert f"maximum context length is {CONTEXT}" in over[0].detail


def test_what_cannot_be_asked_is_told_alone(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    bad = [asked("The", world.base, extra={"colour": "red"}), scored("The", world.base, ("A", ""))]
    bad += [asked("The", world.base.parent / "none"), asked("The", world.base, adapter=world.base)]
    requests = [asked("The", world.base), *bad]
    found = asyncio.run(got(shared[0], requests))
    same(found[:1], hf(requests[:1]))
    assert {one.status for one in found[1:]} == {"engine_error"}
    for completion, word in zip(found[1:], ("colour", "no tokens", "none", "adapter_config.json"), strict=True):
        assert word in completion.detail
    with pytest.raises(EngineError, match="there is no folder"):
        asyncio.run(got(shared[0], [bad[2]]))


def test_every_sampling_field_is_sent(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    engine, fake = shared
    request = asked(
        "The", world.base, adapter=world.two, temperature=0.5, top_p=0.9, top_k=7, seed=3, stop=("x", "<pad>")
    )
    asyncio.run(got(engine, [request]))
    _, words = loaded(world.base)
    body = fake.calls()[-1]
    assert body.pop("model").startswith("adapter-")
    assert body == {
        "prompt": [words("The").input_ids],
        "max_tokens": 12,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop": ["x", "<pad>"],
        "stop_token_ids": sorted([words.eos_token_id, words.pad_token_id]),
        "return_token_ids": True,
        "seed": 3,
    }
    asyncio.run(got(engine, [asked("The", world.base, seed=3)]))
    body = fake.calls()[-1]
    assert (body["temperature"], body["top_p"], body["top_k"], "seed" in body) == (0.0, 1.0, 0, False)
    assert body["model"] == "base"


def test_draws(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    """A draw is its seed's, whatever is asked beside it, and of one token to choose from it is the likeliest."""
    draws = [asked("The", world.base, temperature=1.0, seed=seed) for seed in range(6)]
    first = asyncio.run(got(shared[0], draws))
    assert len({one.text for one in first}) > 1
    same(asyncio.run(got(shared[0], draws[::-1])), first[::-1])
    same(asyncio.run(got(shared[0], draws[:1])), first[:1])
    sure = asyncio.run(got(shared[0], [asked("The", world.base, temperature=1.0, top_k=1, seed=1)]))
    same(sure, hf([asked("The", world.base)]))


def test_prompts_go_out_in_batches(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    engine, fake = shared
    before = len(fake.calls())
    asyncio.run(got(engine, [asked(text, world.base) for text in TEXTS]))
    sizes = [len(call["prompt"]) for call in fake.calls()[before:]]
    assert sorted(sizes) == [2, 4], "batch = 4"


def test_one_prompt_that_is_refused_does_not_fail_the_others(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    engine, fake = shared
    requests = [asked(text, world.base) for text in (*TEXTS, "12")]
    _, words = loaded(world.base)
    bad = words("12").input_ids[-1]
    assert [bad in words(text).input_ids for text in (*TEXTS, "12")].count(True) == 1
    fake.go_wrong(refuse_token=bad)
    found = asyncio.run(got(engine, requests))
    same(found[:-1], hf(requests[:-1]))
    assert (found[-1].status, found[-1].detail) == ("http_error", "HTTP 400: a token that this server does not like")


def test_closing_while_it_answers(shared: tuple[Vllm, FakeVllm], world: World) -> None:
    engine, fake = shared
    requests = [asked(text, world.base, seed=seed, temperature=1.0) for seed, text in enumerate(TEXTS)]

    async def run() -> None:
        before = asyncio.all_tasks()
        fake.go_wrong(slow_s=0.05)
        stream = engine.generate(requests)
        await anext(stream)
        await stream.aclose()
        assert asyncio.all_tasks() == before
        fake.go_wrong(slow_s=30)
        task = asyncio.create_task(got(engine, requests))
        await asyncio.sleep(0.3)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 20
        assert asyncio.all_tasks() == before
        fake.go_wrong()
        assert len(await got(engine, requests)) == len(requests)

    asyncio.run(run())


# One server for a base and its adapters; several bases.


def test_adapters_that_were_not_expected(fake: FakeVllm, world: World) -> None:
    base = asked("The", world.base)
    one, two = (asked("The", world.base, adapter=adapter) for adapter in (world.one, world.two))

    async def run() -> list[Completion]:
        async with open_engine(fake) as engine:
            found = await got(engine, [base, one])
            return found + await got(engine, [two, one, base])

    same(asyncio.run(run()), hf([base, one, two, one, base]))
    first, second = fake.starts()
    assert [option(start["argv"], "--max-loras") for start in (first, second)] == ["1", "2"]
    assert [option(start["argv"], "--max-lora-rank") for start in (first, second)] == ["8", "16"], "ranks 4 and 9"
    assert second["others"] == [], "the first was ended before the second began"
    assert first["key"] != second["key"]


def test_a_call_in_progress_is_not_cut_off_for_a_new_adapter(fake: FakeVllm, world: World) -> None:
    tuned = asked("The", world.base, adapter=world.one)
    expected = hf([asked("A", world.base), tuned])

    async def run() -> None:
        async with open_engine(fake, restarts=0) as engine:
            await got(engine, [asked("The", world.base)])
            fake.go_wrong(slow_s=0.7)
            calls = asyncio.gather(
                got(engine, [asked("A", world.base)]),
                later(0.3, lambda: got(engine, [tuned])),
            )
            same([found[0] for found in await calls], expected)
        assert len(fake.starts()) == 2

    asyncio.run(run())


async def later(seconds: float, work: Callable[[], Any]) -> Any:
    await asyncio.sleep(seconds)
    return await work()


def test_nobody_waits_for_ever(fake: FakeVllm, world: World) -> None:
    """Questions to one base that overlap without a pause give way to whoever came earlier and needs another one."""

    async def keep_asking(engine: Vllm, done: asyncio.Event) -> None:
        while not done.is_set():
            await got(engine, [asked("The", world.base)])

    async def run() -> None:
        async with open_engine(fake, schedule="sequential", restarts=0) as engine:
            await got(engine, [asked("The", world.base)])
            fake.go_wrong(slow_s=0.3)
            done = asyncio.Event()
            askers = []
            for _ in range(3):
                askers.append(asyncio.create_task(keep_asking(engine, done)))
                await asyncio.sleep(0.1)
            async with asyncio.timeout(30):
                await got(engine, [asked("The", world.other)])
            done.set()
            await asyncio.gather(*askers)

    asyncio.run(run())


@pytest.mark.parametrize("schedule", ["together", "sequential"])
def test_two_bases(fake: FakeVllm, world: World, schedule: str) -> None:
    """Asked in one call, and by several at a time; one after another there are never two servers.

    No call in progress is cut off for another server's sake: with restarts = 0 it would fail.
    """
    requests = [asked(text, model) for text in TEXTS for model in (world.base, world.other)]

    async def run() -> None:
        async with open_engine(fake, schedule=schedule, restarts=0) as engine:
            same(await got(engine, requests), expected)
            fake.go_wrong(slow_s=0.2)
            parts = await asyncio.gather(got(engine, requests[::2]), got(engine, requests[1::2]), got(engine, requests))
            same(parts[0], expected[::2])
            same(parts[1], expected[1::2])
            same(parts[2], expected)
            for _ in range(3):
                await asyncio.gather(*(got(engine, [request]) for request in requests))

    expected = hf(requests)
    assert {one.served_by for one in expected} == {str(world.base), str(world.other)}
    asyncio.run(run())
    starts = fake.starts()
    shares = [float(option(start["argv"], "--gpu-memory-utilization") or 0) for start in starts]
    if schedule == "together":
        assert len(starts) == 2
        assert starts[1]["others"] == [starts[0]["group"]]
        assert shares == [0.45, 0.45], "models of the same size"
    else:
        assert all(start["others"] == [] for start in starts), "never two at a time"
        assert set(shares) == {0.9}
        assert len(starts) >= 3


def test_a_base_that_comes_later_gets_its_share(fake: FakeVllm, world: World) -> None:
    """The first server holds all there is, so it is started anew beside the second."""

    async def run() -> None:
        async with open_engine(fake, schedule="together", restarts=0) as engine:
            await got(engine, [asked("The", world.base)])
            await got(engine, [asked("The", world.other)])
            await got(engine, [asked("The", world.base), asked("The", world.other)])

    asyncio.run(run())
    starts = fake.starts()
    assert [option(start["argv"], "--gpu-memory-utilization") for start in starts] == ["0.9", "0.45", "0.45"]
    assert starts[2]["others"] == [starts[1]["group"]]


def test_many_ask_while_it_starts(fake: FakeVllm, world: World) -> None:
    requests = [asked(text, world.base) for text in TEXTS]
    fake.go_wrong(loading_s=0.5)

    async def run() -> list[list[Completion]]:
        async with open_engine(fake) as engine:
            return list(await asyncio.gather(*(got(engine, [request]) for request in requests)))

    same([found for (found,) in asyncio.run(run())], hf(requests))
    assert len(fake.starts()) == 1


def test_ports(fake: FakeVllm, world: World) -> None:
    """The first base listens on the port that was asked for, the second on the one that follows."""
    port = two_free_ports()
    requests = [asked("The", world.base), asked("The", world.other)]
    assert len(asking(fake, requests, port=port, schedule="together", devices="7")) == 2
    starts = fake.starts()
    assert [option(start["argv"], "--port") for start in starts] == [str(port), str(port + 1)]
    assert {start["env"]["CUDA_VISIBLE_DEVICES"] for start in starts} == {"7"}


def two_free_ports() -> int:
    for _ in range(50):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise AssertionError("no two ports next to each other are free")


def test_a_port_in_use(fake: FakeVllm, world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=rf"port {port}, for .*base.* is in use; set the engine's port"):
            asking(fake, [asked("The", world.base)], port=port)
    assert not fake.starts()


def test_a_free_port_that_another_takes_first(fake: FakeVllm, world: World) -> None:
    fake.go_wrong(taken=True, lives=2)
    same(asking(fake, [asked("The", world.base)]), hf([asked("The", world.base)]))
    ports = [option(start["argv"], "--port") for start in fake.starts()]
    assert len(set(ports)) == 3
    fake.go_wrong(taken=True)
    with pytest.raises(EngineError, match=r"did not start: exit status 1; (?s:.*)Address already in use$"):
        asking(fake, [asked("The", world.base)])
    with pytest.raises(EngineError, match="Address already in use"):
        asking(fake, [asked("The", world.base)], port=two_free_ports())
    assert len(fake.starts()) == 3 + 3 + 1, "a port that was asked for is tried once"


# Servers that do not start.


def test_a_server_that_ends_at_once_tells_why(fake: FakeVllm, world: World, tmp_path: Path) -> None:
    fake.go_wrong(exit_at_start="line one\nValueError: no such quantization")
    with pytest.raises(EngineError, match="did not start: exit status 1") as caught:
        asking(fake, [asked("The", world.base)], logs=str(tmp_path / "logs"))
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text().endswith("line one\nValueError: no such quantization\n")
    assert f"the last lines of its log, {log}:" in str(caught.value)
    assert str(caught.value).endswith("line one\nValueError: no such quantization")


def test_logs_are_kept_where_the_state_is(fake: FakeVllm, world: World) -> None:
    folder = Path(os.environ["XDG_STATE_HOME"]) / "fusion" / "servers" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(60):
        (folder / f"20200101-0000{number:02}-old-1.log").write_text("old")
    asking(fake, [asked("The", world.base)])
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) <= 51
    assert "20200101-000000-old-1.log" not in kept
    assert re.fullmatch(r"\d{8}-\d{6}-base-\d+\.log", kept[-1])
    assert "stand-in" in (folder / kept[-1]).read_text()


def test_a_server_that_never_gets_ready(fake: FakeVllm, world: World) -> None:
    fake.go_wrong(loading_s=60)
    with pytest.raises(EngineError, match=r"was not ready after start_s = 2; give it longer(?s:.*)stand-in"):
        asking(fake, [asked("The", world.base)], start_s=2.0)


def test_one_base_that_does_not_start(fake: FakeVllm, world: World) -> None:
    """The other is answered all the same."""
    fake.go_wrong(exit_at_start="out of memory", lives=1)
    found = asking(fake, [asked("The", world.base), asked("The", world.other), asked("A", world.base)])
    same(found[1:2], hf([asked("The", world.other)]))
    assert [one.status for one in found] == ["engine_error", found[1].status, "engine_error"]
    assert "out of memory" in found[0].detail


def test_a_base_that_cannot_be_sized(fake: FakeVllm, world: World, tmp_path: Path) -> None:
    """One after another, that is no matter: it is up to its server, and to no other."""
    odd = TinyModels(tmp_path).edited(world.base, "odd", model_type="t5")
    requests = [asked("The", odd), asked("The", world.other)]
    found = asking(fake, requests, schedule="sequential")
    same(found[1:], hf(requests[1:]))
    assert found[0].status == "engine_error"
    assert "Engine core initialization failed" in found[0].detail
    with pytest.raises(EngineError, match="none that transformers knows as a causal language model"):
        asking(fake, requests, schedule="auto")


def test_an_adapter_that_is_not_served(fake: FakeVllm, world: World) -> None:
    fake.go_wrong(hide=["adapter-0"])
    with pytest.raises(EngineError, match=r"does not serve .*one; see its log"):
        asking(fake, [asked("The", world.base, adapter=world.one)])


def test_a_python_without_vllm(world: World, fake: FakeVllm, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="the engine vllm needs the package vllm"):
        asking(fake, [asked("The", world.base)], python=None)
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\nexec '{sys.executable}' -S \"$@\"\n")
    bare.chmod(0o755)
    with pytest.raises(EngineError, match=f"vLLM is not installed in {bare}; {bare} -m pip install vllm"):
        asking(fake, [asked("The", world.base)], python=str(bare))
    with pytest.raises(EngineError, match="/nowhere/python, cannot be run"):
        asking(fake, [asked("The", world.base)], python="/nowhere/python")


def test_an_adapter_of_too_high_a_rank(fake: FakeVllm, world: World, tmp_path: Path) -> None:
    adapter = TinyModels(tmp_path).edited(world.one, "high", file="adapter_config.json", r=1024)
    with pytest.raises(EngineError, match="rank 512 at most, one has 1024"):
        asking(fake, [asked("The", world.base, adapter=adapter)])


# Servers that die.


@pytest.mark.parametrize(
    "how", [{"die_by": "exit"}, {"die_by": "kill"}, {"error_first": True}, {"abort": True}], ids=str
)
def test_a_server_that_dies_is_started_again(fake: FakeVllm, world: World, how: dict[str, Any]) -> None:
    requests = of_all_models(world)
    fake.go_wrong(die_after=5, lives=2, **how)
    same(asking(fake, requests, batch=2, concurrency=2), hf(requests))
    assert len(fake.starts()) == 3
    assert [start["others"] for start in fake.starts()] == [[], [], []], "its children were ended first"


def test_connections_to_servers_that_ended_are_closed(fake: FakeVllm, world: World) -> None:
    """One after another, two bases start anew again and again: open files do not grow with it."""

    async def run() -> list[int]:
        async with open_engine(fake, schedule="sequential", concurrency=8, batch=1) as engine:
            counts = []
            for _ in range(3):
                for model in (world.base, world.other):
                    await got(engine, [asked(text, model) for text in TEXTS])
                counts.append(len(os.listdir("/proc/self/fd")))
            return counts

    counts = asyncio.run(run())
    assert counts[2] <= counts[0] + 4


def test_another_server_on_the_port_is_not_taken_for_ours(
    fake: FakeVllm, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it is well and lists a model of that name, but misses no key: another port is taken."""
    from fusion.agents import _vllm_fleet

    with fake.serving("--model", str(world.other), "--served-model-name", "base") as url:
        ports = iter([int(url.split(":")[2].split("/")[0])])
        monkeypatch.setattr(_vllm_fleet, "free_port", lambda: next(ports, None) or free_port())
        request = asked("The", world.base)
        same(asking(fake, [request]), hf([request]))


def test_files_that_change_are_not_served_under_the_old_key(fake: FakeVllm, world: World, tmp_path: Path) -> None:
    folder = TinyModels(tmp_path).edited(world.base, "mine", note=1)

    async def run() -> None:
        async with open_engine(fake) as engine:
            engine.identity(asked("The", folder))
            (folder / "config.json").write_text((folder / "config.json").read_text().replace('"note": 1', '"note": 2'))
            await got(engine, [asked("The", folder)])

    with pytest.raises(EngineError, match="changed since it was looked up"):
        asyncio.run(run())
    assert not fake.starts()


@pytest.mark.parametrize("words", [["--port", "1"], ["--api-key=s3cret"], ["--served_model_name", "x"]], ids=str)
def test_arguments_that_are_the_engines_own(words: list[str]) -> None:
    with pytest.raises(InvalidSpec, match="which the engine sets itself"):
        Vllm(args=words)


def test_a_base_that_does_not_start_is_tried_once_for_all_its_agents(fake: FakeVllm, world: World) -> None:
    fake.go_wrong(exit_at_start="no room")

    async def run() -> None:
        async with open_engine(fake) as engine:
            for _ in range(3):
                with pytest.raises(EngineError, match="no room"):
                    await got(engine, [asked("The", world.base)])

    asyncio.run(run())
    assert len(fake.starts()) == 1


def test_a_server_that_dies_while_options_are_scored(fake: FakeVllm, world: World) -> None:
    """It is started again on the port that was asked for."""
    requests = of_all_models(world, scored)
    fake.go_wrong(die_after=7, lives=1)
    port = two_free_ports()
    same(asking(fake, requests, batch=4, concurrency=4, port=port), hf(requests))
    assert [option(start["argv"], "--port") for start in fake.starts()] == [str(port)] * 2


def test_a_server_that_does_not_answer_any_more(fake: FakeVllm, world: World) -> None:
    """It runs, but is silent and says that it is unwell: that is as good as dead."""

    async def run() -> list[Completion]:
        async with open_engine(fake, read_s=0.5) as engine:
            await got(engine, [asked("A", world.base)])
            fake.go_wrong(hang=True, since=0, lives=1)
            return await got(engine, [asked("The", world.base)])

    same(asyncio.run(run()), hf([asked("The", world.base)]))
    assert len(fake.starts()) == 2


def test_restarts_come_to_an_end(fake: FakeVllm, world: World) -> None:
    requests = [asked(text, world.base) for text in TEXTS]
    fake.go_wrong(die_after=2)
    found = asking(fake, requests, batch=1, concurrency=1, restarts=1)
    failed = [one for one in found if one.status == "engine_error"]
    assert len(failed) == 2, "two were answered in each life"
    for one in failed:
        assert re.search(r"died 2 times over 6 requests \(exit status 1\), and restarts = 1", one.detail)
        assert one.detail.endswith("EngineDeadError: EngineCore encountered an issue.")
    expected = hf(requests)
    same(
        [one for one in found if one not in failed],
        [other for one, other in zip(found, expected, strict=True) if one not in failed],
    )
    fake.go_wrong(die_after=0)
    with pytest.raises(EngineError, match=r"died 1 times(?s:.*)EngineDeadError"):
        asking(fake, requests, restarts=0)


def test_several_callers_of_a_server_that_dies(fake: FakeVllm, world: World) -> None:
    requests = [asked(text, world.base) for text in TEXTS]
    fake.go_wrong(die_after=3, lives=1)

    async def run() -> list[list[Completion]]:
        async with open_engine(fake) as engine:
            return list(await asyncio.gather(*(got(engine, [request]) for request in requests)))

    same([found for (found,) in asyncio.run(run())], hf(requests))
    assert len(fake.starts()) == 2, "one start for all of them"


# Closing.


def test_leaving_while_it_starts(fake: FakeVllm, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The server goes on starting for those who stay, also in another loop, and nobody is told of those who left."""
    fake.go_wrong(loading_s=1.0)
    engine = made(fake)

    async def leave() -> None:
        before = asyncio.all_tasks()
        stream = engine.generate([asked("The", world.base)])
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
        await stream.aclose()
        assert asyncio.all_tasks() == before

    async def stay() -> list[Completion]:
        try:
            return await got(engine, [asked("The", world.base)])
        finally:
            await engine.aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(leave())
        found = asyncio.run(stay())
    same(found, hf([asked("The", world.base)]))
    assert len(fake.starts()) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_closing_while_it_starts(fake: FakeVllm, world: World) -> None:
    """All who wait are told, whichever model they wait for; nothing goes on."""
    fake.go_wrong(loading_s=60)

    async def run() -> None:
        engine = made(fake, schedule="sequential")
        before = asyncio.all_tasks()
        models = (world.base, world.other, world.base)
        waiting = [asyncio.create_task(got(engine, [asked("The", model)])) for model in models]
        await asyncio.to_thread(fake.wait_for, 1)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await asyncio.gather(engine.aclose(), engine.aclose())
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, EngineError)
            assert "engine was closed" in str(error)
        assert time.monotonic() - began < 20
        assert asyncio.all_tasks() == before

    asyncio.run(run())
    assert len(fake.starts()) == 1
    assert not fake.alive()


def test_closing_under_those_who_ask(fake: FakeVllm, world: World) -> None:
    """No server is started for them again, which nobody would end."""
    fake.go_wrong(slow_s=30)

    async def run() -> None:
        engine = made(fake)
        waiting = asyncio.create_task(got(engine, [asked("The", world.base)]))
        while not fake.calls():
            await asyncio.sleep(0.05)
        await engine.aclose()
        with pytest.raises(EngineError, match="engine was closed"):
            await waiting

    asyncio.run(run())
    assert len(fake.starts()) == 1
    assert not fake.alive()


def test_use_after_closing(fake: FakeVllm, world: World) -> None:
    async def run() -> None:
        engine = made(fake)
        await engine.aclose()
        request = asked("The", world.base, adapter=world.one)
        first = await got(engine, [request])
        await engine.aclose()
        await engine.aclose()
        assert not fake.alive()
        same(await got(engine, [request]), first)
        await engine.aclose()

    asyncio.run(run())
    assert len(fake.starts()) == 2


OWNER = """
import asyncio, sys, time
from fusion.agents._vllm_command import free_port
from fusion.agents.vllm import Vllm
from fusion.schema import Message, Request

async def main():
    engine = Vllm(python=sys.argv[1], dtype="float32")
    request = Request(question_id="q", messages=(Message("user", "The"),), model=sys.argv[2], max_tokens=2)
    async for index, completion in engine.generate([request]):
        print(completion.status, flush=True)
    time.sleep(120)

asyncio.run(main())
"""


def test_servers_end_with_a_process_that_is_killed(fake: FakeVllm, world: World) -> None:
    command = [sys.executable, "-c", OWNER, fake.python, str(world.base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip() in ("ok", "truncated")
        assert fake.alive()
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while fake.alive():
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.05)


# A server that runs already.


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[tuple[str, FakeVllm]]:
    """A server that wants a key, with a name for the model, and an adapter."""
    module = f'{{"name": "first", "path": "{world.one}"}}'
    words = ["--model", str(world.base), "--served-model-name", "small", "--enable-lora", "--max-lora-rank", "8"]
    with FakeVllm() as fake, fake.serving(*words, "--lora-modules", module, key="secret") as url:
        yield url, fake


def attached(url: str, requests: Sequence[Request], **fields: Any) -> list[Completion]:
    async def run() -> list[Completion]:
        engine = Vllm(**{"url": url, "dtype": "float32", "api_key_env": "SMALL_KEY", **fields})
        try:
            return await got(engine, requests)
        finally:
            await engine.aclose()

    return asyncio.run(run())


def test_attached_by_where_it_was_loaded_from(
    running: tuple[str, FakeVllm], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, fake = running
    monkeypatch.setenv("SMALL_KEY", "secret")
    requests = [asked("The", world.base), scored("The", world.base, adapter=world.one)]
    same(attached(url + "/", requests), hf(requests))
    assert [call["model"] for call in fake.calls()] == ["small"] + ["first"] * (len(fake.calls()) - 1)
    assert len(fake.starts()) == 1, "nothing is started"


def test_attached_by_name(
    running: tuple[str, FakeVllm], world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A copy of the model under the server's name for it; the tokeniser is read from there."""
    monkeypatch.setenv("SMALL_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    TinyModels(tmp_path).edited(world.base, "small")
    TinyModels(tmp_path).edited(world.one, "first", file="adapter_config.json")
    requests = [asked("The", "small"), asked("The", "small", adapter="first")]
    found = attached(running[0], requests)
    same(found, hf(requests))


def test_attached_without_the_adapter(
    running: tuple[str, FakeVllm], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_KEY", "secret")
    with pytest.raises(EngineError, match=rf"serves no adapter .*start it with .*--lora-modules NAME={world.two}"):
        attached(running[0], [asked("The", world.base, adapter=world.two)])
    with pytest.raises(EngineError, match=rf"serves no model .*start it with --model {world.other}"):
        attached(running[0], [asked("The", world.other)])


def test_the_key_of_an_attached_server(
    running: tuple[str, FakeVllm], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked("The", world.base)
    monkeypatch.delenv("SMALL_KEY", raising=False)
    with pytest.raises(EngineError, match="SMALL_KEY, named by api_key_env, is not set"):
        attached(running[0], [request])
    with pytest.raises(EngineError, match="does not list its models: HTTP 401: Unauthorized"):
        attached(running[0], [request], api_key_env=None)

    async def mended() -> list[Completion]:
        engine = Vllm(url=running[0], api_key_env="SMALL_KEY", dtype="float32")
        monkeypatch.setenv("SMALL_KEY", "wrong")
        with pytest.raises(EngineError, match="401"):
            await got(engine, [request])
        monkeypatch.setenv("SMALL_KEY", "secret")
        try:
            return await got(engine, [request])
        finally:
            await engine.aclose()

    same(asyncio.run(mended()), hf([request]))


def test_an_attached_server_that_is_not_there(world: World) -> None:
    port = two_free_ports()
    with pytest.raises(EngineError, match=rf"127\.0\.0\.1:{port}/v1 does not list its models: cannot connect"):
        attached(f"http://127.0.0.1:{port}/v1", [asked("The", world.base)], api_key_env=None)


def test_an_attached_server_with_a_shorter_context(world: World) -> None:
    request, long = asked("The", world.base, max_tokens=60), asked(of_length(40), world.base)
    with FakeVllm() as fake, fake.serving("--model", str(world.base), "--max-model-len", "32") as url:
        found = attached(url, [request, long], api_key_env=None)
        engine = Vllm(url=url)
        notes = [finding.what for finding in asyncio.run(engine.examine(request)) if finding.level == "note"]
        asyncio.run(engine.aclose())
    _, words = loaded(world.base)
    assert found[0].usage.tokens_out == 32 - len(words("The").input_ids)
    assert found[1].status == "engine_error"
    assert "is 32 tokens" in found[1].detail
    assert any("32 of the 256 tokens" in note for note in notes)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": "localhost:8000"}, "url must be the address of an API"),
        ({"url": "http://me:secret@localhost:8000/v1"}, "without user name"),
        ({"url": "http://localhost:8000/v1", "port": 8000, "devices": "0"}, "devices, port: for servers"),
        ({"url": "http://localhost:8000/v1", "args": ["--x"]}, "args: for servers that are started here"),
        ({"url": "http://localhost:8000/v1", "python": "python3", "logs": "x"}, "python, logs: for servers"),
        ({"api_key_env": "KEY"}, "api_key_env is for a server at url"),
    ],
)
def test_parameters_that_contradict_each_other(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidSpec, match=expected):
        Vllm(**fields)


# As it is used from the command line.

POOL = """
version: 1
agents:
  - {{name: plain, engine: &engine {{kind: vllm, dtype: float32, python: {python}{more}}}, model: {base}, max_tokens: 4,
      input_price: 0, output_price: 0}}
  - {{name: tuned, engine: *engine, model: {base}, adapter: {one}, max_tokens: 4, input_price: 0, output_price: 0}}
  - {{name: other, engine: *engine, model: {other}, max_tokens: 4, input_price: 0, output_price: 0}}
"""


def fusion(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught, quiet():
        main([str(word) for word in words])
    told = capsys.readouterr()
    # Cells of tables are divided by bars that are not ASCII.
    text = (told.out + told.err).encode("ascii", "replace").decode().replace("?", " ")
    return int(caught.value.code or 0), " ".join(text.split())


def pool_file(folder: Path, world: World, python: str, more: str = "", **models: Path) -> Path:
    path = folder / "pool.yaml"
    where = {**world._asdict(), **models}
    path.write_text(POOL.format(python=python, more=more and f", {more}", **where))
    return path


def test_the_doctor(fake: FakeVllm, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = fusion(capsys, "doctor", pool_file(tmp_path, world, fake.python))
    assert code == 0, told
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        pool = pool_file(tmp_path, world, fake.python, f"port: {port}", other=tmp_path / "gone")
        code, told = fusion(capsys, "doctor", pool)
    assert code == 1
    assert f"port {port} is in use" in told
    assert "set the engine's port to a free one" in told
    assert re.search(r"there is no folder \S*gone", told)
    code, told = fusion(capsys, "doctor", pool_file(tmp_path, world, sys.executable))
    assert code == 1
    assert "the engine vllm needs the package vllm" in told
    assert not fake.starts(), "the doctor starts nothing"


@pytest.mark.parametrize("schedule", ["together", "sequential"])
def test_the_plan(
    fake: FakeVllm, world: World, schedule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = pool_file(tmp_path, world, fake.python, f"schedule: {schedule}")
    code, told = fusion(capsys, "record", "--pool", pool, "--task", "micro", "--out", tmp_path / "out", "--plan")
    assert code == 0, told
    how = "run together" if schedule == "together" else "one after another"
    assert re.search(rf"plain: one of 2 vLLM servers with 1 adapter,? .*{how}.* \(schedule: {schedule}\)", told)
    assert re.search(rf"other: one of 2 vLLM servers,? .*{how}", told)
    assert not fake.starts()


def test_a_server_that_dies_once_costs_no_answer(
    fake: FakeVllm, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.go_wrong(die_after=9, lives=1)
    pool = pool_file(tmp_path, world, fake.python, "batch: 4, concurrency: 4, schedule: sequential")
    words = ["record", "--pool", pool, "--task", "micro", "--limit", "10", "--out", tmp_path / "out"]
    code, told = fusion(capsys, *words)
    assert code == 0, told
    assert all(re.search(rf"{name} 10 0 0\.0", told) for name in ("plain", "tuned", "other")), told
    starts = fake.starts()
    assert [option(start["argv"], "--max-loras") for start in starts].count("1") >= 2, "the base's server, twice"
    assert all(start["others"] == [] for start in starts)
    code, told = fusion(capsys, *words)
    assert code == 0
    assert all(re.search(rf"{name} 10 10 0\.0", told) for name in ("plain", "tuned", "other")), told
    assert len(fake.starts()) == len(starts), "all was on record"
