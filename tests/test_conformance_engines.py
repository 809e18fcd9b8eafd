"""What every engine must do, whoever wrote it: found by file name; how it is made ready is in `engine_setups`."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_setups import LABELS, NUM_QUESTIONS, SETUPS, Ready

from fusion import discovery
from fusion.errors import FusionError
from fusion.protocols import Engine
from fusion.schema import Completion, Request

TOLERANCE = 1e-4
"""Between log-probabilities of one request in batches of different shapes: float32 sums in another order."""


def make(ready: Ready) -> Any:
    return discovery.build("agents", ready.spec)


async def answers(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """All completions, in the order of the requests, after checking that each came once."""
    found: dict[int, Completion] = {}
    async with aclosing(engine.generate(requests)) as stream:
        async for index, completion in stream:
            assert index not in found, "an index came twice"
            found[index] = completion
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def run(ready: Ready, work: Callable[[Engine], Any]) -> Any:
    """Run `work` with a fresh engine, and close it."""

    async def whole() -> Any:
        engine = make(ready)
        try:
            return await work(engine)
        finally:
            await engine.aclose()

    return asyncio.run(whole())


def questions(ready: Ready, **how: Any) -> list[Request]:
    return [ready.request(number, **how) for number in range(NUM_QUESTIONS)]


def same(found: Completion, expected: Completion) -> None:
    assert (found.status, found.text, found.finish_reason) == (expected.status, expected.text, expected.finish_reason)
    assert (found.option_logprobs is None) == (expected.option_logprobs is None)
    if found.option_logprobs is not None and expected.option_logprobs is not None:
        np.testing.assert_allclose(found.option_logprobs, expected.option_logprobs, atol=TOLERANCE)


def check_protocol(ready: Ready) -> None:
    engine = make(ready)
    assert isinstance(engine, Engine)
    assert discovery.spec_of(engine) == ready.spec
    request = ready.request(0)
    assert isinstance(engine.render(request), str)
    assert engine.prompt_tokens(request) is None or engine.prompt_tokens(request) > 0
    assert engine.memory_bytes(request) is None or engine.memory_bytes(request) >= 0
    asyncio.run(engine.aclose())


def check_identity(ready: Ready) -> None:
    """It is JSON, stays the same, and says the kind of engine."""
    engine, request = make(ready), ready.request(0)
    said = engine.identity(request)
    assert json.loads(json.dumps(dict(said))) == dict(said)
    assert make(ready).identity(request) == said
    assert engine.identity(ready.request(1)) == said, "the question is part of the key by itself"
    assert discovery.spec_of(engine).name in said.values()


def check_answers(ready: Ready) -> None:
    found = run(ready, lambda engine: answers(engine, questions(ready)))
    assert {completion.status for completion in found} <= {"ok", "truncated", "empty"}
    assert any(completion.text for completion in found)
    for completion in found:
        usage = completion.usage
        for count in (usage.tokens_in, usage.tokens_out, usage.tokens_cached, usage.tokens_reasoning):
            assert count is None or count >= 0
        assert completion.seconds >= 0
        assert completion.attempts >= 1
        assert completion.option_logprobs is None


def check_one_at_a_time_is_the_same(ready: Ready) -> None:
    async def both(engine: Engine) -> None:
        together = await answers(engine, questions(ready))
        for request, expected in zip(questions(ready), together, strict=True):
            same((await answers(engine, [request]))[0], expected)

    run(ready, both)


def check_options(ready: Ready) -> None:
    async def scored(engine: Engine) -> None:
        means = await engine.scoring(ready.request(0, scoring="auto"))
        if means is None:
            return
        assert means
        requests = questions(ready, scoring=means)
        together = await answers(engine, requests)
        for request, completion in zip(requests, together, strict=True):
            assert completion.status == "ok"
            assert completion.option_logprobs is not None
            assert len(completion.option_logprobs) == len(LABELS)
            assert max(completion.option_logprobs) <= TOLERANCE
            assert completion.text == LABELS[int(np.argmax(completion.option_logprobs))]
            same((await answers(engine, [request]))[0], completion)

    run(ready, scored)


def check_seeded(ready: Ready) -> None:
    """A draw depends on nothing but its request."""

    async def twice(engine: Engine) -> None:
        drawn = questions(ready, temperature=1.0)
        first = await answers(engine, drawn)
        again = await answers(engine, drawn[::-1])
        for found, expected in zip(again[::-1], first, strict=True):
            same(found, expected)

    run(ready, twice)


def check_nothing_asked(ready: Ready) -> None:
    assert run(ready, lambda engine: answers(engine, [])) == []


def check_many_tasks(ready: Ready) -> None:
    async def gathered(engine: Engine) -> None:
        alone = await answers(engine, questions(ready))
        parallel = await asyncio.gather(*(answers(engine, [request]) for request in questions(ready)))
        for (found,), expected in zip(parallel, alone, strict=True):
            same(found, expected)

    run(ready, gathered)


def check_closing_early(ready: Ready) -> None:
    """A stream that is closed after its first answer leaves no task behind, and the engine works on."""

    async def closed(engine: Engine) -> None:
        before = len(asyncio.all_tasks())
        stream = engine.generate(questions(ready))
        await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before
        assert len(await answers(engine, questions(ready))) == NUM_QUESTIONS

    run(ready, closed)


def check_closing_twice(ready: Ready) -> None:
    async def closed(engine: Engine) -> None:
        await engine.aclose()
        first = await answers(engine, questions(ready))
        await engine.aclose()
        await engine.aclose()
        for found, expected in zip(await answers(engine, questions(ready)), first, strict=True):
            same(found, expected)

    run(ready, closed)


def check_loop_after_loop(ready: Ready) -> None:
    engine = make(ready)

    async def ask() -> list[Completion]:
        return await answers(engine, questions(ready))

    for found, expected in zip(asyncio.run(ask()), asyncio.run(ask()), strict=True):
        same(found, expected)
    asyncio.run(engine.aclose())


def check_examined(ready: Ready) -> None:
    def levels(request: Request) -> set[str]:
        return {finding.level for finding in run(ready, lambda engine: engine.examine(request))}

    assert "error" not in levels(ready.request(0))
    if ready.missing is not None:
        broken = ready._replace(model=ready.missing).request(0)
        assert "error" in levels(broken)


def check_missing_model(ready: Ready) -> None:
    """A model that is not there is an error that names it, or a status of every call; never an answer."""
    if ready.missing is None:
        return
    broken = ready._replace(model=ready.missing)
    try:
        found = run(broken, lambda engine: answers(engine, questions(broken)))
    except FusionError as error:
        told = str(error)
    else:
        assert {completion.status for completion in found} <= {"http_error", "engine_error"}
        told = found[0].detail
    assert Path(ready.missing).name in told


CHECKS = (
    check_protocol,
    check_identity,
    check_answers,
    check_one_at_a_time_is_the_same,
    check_options,
    check_seeded,
    check_nothing_asked,
    check_many_tasks,
    check_closing_early,
    check_closing_twice,
    check_loop_after_loop,
    check_examined,
    check_missing_model,
)


def test_every_engine_can_be_made_ready() -> None:
    assert set(SETUPS) == set(discovery.names("agents")), "add a function to engine_setups for every engine"


@pytest.fixture(scope="module", params=sorted(SETUPS))
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    setup: Any = SETUPS[request.param]
    with setup(tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_engine(ready: Ready, check: Callable[[Ready], None]) -> None:
    check(ready)
