"""The parts of the openai engine that need no server: what is retried and when, places in the queue, thoughts."""

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.agents._http_gate import Gate
from fusion.agents._http_retry import WrongShapeError, error_text, fault_of, retry_after
from fusion.agents._openai_body import Dialect
from fusion.agents._openai_reply import reply_of, split_thought


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT", "date": "Thu, 01 Jan 1970 00:01:38 GMT"}, 2.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT", "date": "today"}, 90.0),
        ({"retry-after": "Thu, 99 Jan 1970 00:01:40 GMT"}, None),
    ],
)
def test_how_long_the_server_asks_to_wait(headers: dict[str, str], expected: float | None) -> None:
    """The clock here is 10 s past the epoch."""
    assert retry_after(headers, now=10.0) == expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_header_says_the_wait_is_one(after: str, after_ms: str) -> None:
    wait = retry_after({"retry-after": after, "retry-after-ms": after_ms}, now=0.0)
    assert wait is None or (wait >= 0 and math.isfinite(wait))


@pytest.mark.parametrize(
    ("code", "status", "again"),
    [
        (301, "http_error", False),
        (400, "http_error", False),
        (404, "http_error", False),
        (408, "http_error", True),
        (409, "http_error", True),
        (413, "http_error", False),
        (422, "http_error", False),
        (425, "http_error", True),
        (429, "rate_limited", True),
        (500, "http_error", True),
        (503, "http_error", True),
        (529, "http_error", True),
    ],
)
def test_which_statuses_are_tried_again(code: int, status: str, again: bool) -> None:
    fault = fault_of(code, {}, b"", 0.0)
    assert (fault.status, fault.again, fault.code) == (status, again, code)
    assert fault.detail.startswith(f"HTTP {code}")


@pytest.mark.parametrize(
    ("body", "message", "word"),
    [
        ({"error": {"message": "no", "type": "bad", "code": "x"}}, "no", "x"),
        ({"error": {"message": "no", "type": "bad", "code": None}}, "no", "bad"),
        ({"error": {"message": "no", "code": 400}}, "no", ""),
        ({"error": "no"}, "no", ""),
        ({"object": "error", "message": "no", "type": "bad"}, "no", "bad"),
        ({"detail": "no"}, "no", ""),
        ({"detail": [{"loc": "x"}]}, '{"detail": [{"loc": "x"}]}', ""),
        ([1], "[1]", ""),
    ],
)
def test_errors_come_in_many_forms(body: Any, message: str, word: str) -> None:
    assert error_text(json.dumps(body).encode()) == (message, word)


def test_what_is_quoted_is_short() -> None:
    assert error_text(b"\xff" + b"<" * 1000)[0] == "\ufffd" + "<" * 199
    assert error_text("\U0001f600".encode() * 1000)[0] == "\U0001f600" * 200


@given(st.text(max_size=30), st.text("ab", max_size=10))
def test_nothing_of_a_text_without_tags_is_lost(text: str, thought: str) -> None:
    if "think>" not in text:
        assert split_thought(text, "</think>") == ("", text)
        assert split_thought(f"<think>{thought}</think>{text}", "</think>") == (thought, text.lstrip())


def test_other_ways_to_end_a_thought() -> None:
    assert split_thought("[THINK]a[/THINK]b", "[/THINK]") == ("a", "b")
    assert split_thought("a<|end|>b<|end|>c", "<|end|>") == ("a<|end|>b", "c")
    assert split_thought("a", "<|end|>") == ("", "a")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": 5}}]},
        {"error": {"message": "x"}},
    ],
)
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_body_of_another_shape_is_no_answer(api: Any, body: Any) -> None:
    if api == "completions" and isinstance(body, dict) and body.get("choices"):
        body = {"choices": [{"text": 5}]}
    with pytest.raises(WrongShapeError):
        reply_of(body, Dialect(api=api))


def test_odd_fields_do_no_harm() -> None:
    """Usage, model and finish reason are reported where they are sound, and left out where not."""
    message = {"content": [{"text": "a"}, {"image": 1}, "b", 3], "reasoning": ["x"], "reasoning_content": "t"}
    body = {
        "choices": [{"message": message, "finish_reason": 7}],
        "usage": {"prompt_tokens": -1, "completion_tokens": "3", "prompt_tokens_details": None},
        "model": 3,
    }
    reply = reply_of(body, Dialect())
    assert (reply.status, reply.text, reply.reasoning, reply.finish_reason) == ("ok", "ab", "t", "")
    assert (reply.usage.tokens_in, reply.usage.tokens_out, reply.served_by) == (None, None, "")


def test_places_are_given_in_order_but_first_to_those_who_come_back() -> None:
    async def work() -> list[str]:
        gate, order = Gate(1), list[str]()
        await gate.enter(again=False)

        async def enter(name: str, again: bool) -> None:
            await gate.enter(again=again)
            order.append(name)
            gate.leave()

        tasks = [asyncio.create_task(enter(*who)) for who in (("a", False), ("b", False), ("c", True))]
        await asyncio.sleep(0)
        gate.leave()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(work()) == ["c", "a", "b"]


def test_who_is_cancelled_takes_no_place() -> None:
    async def work() -> None:
        gate = Gate(1)
        await gate.enter(again=False)
        waiting = [asyncio.create_task(gate.enter(again=False)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        # The place is free when the second is told to come, and cancelled before it does.
        gate.leave()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [task.cancelled() for task in waiting] == [True, True, False]
        gate.leave()
        async with asyncio.timeout(1):
            await gate.enter(again=False)

    asyncio.run(work())


def test_a_burst_of_429_halves_the_places_once_and_answers_give_them_back() -> None:
    """From 8 to 4; then 4.25, 4.49 and so on: after n answers the square is about 16 + 2n, so 24 answers give 8."""

    async def work() -> None:
        gate = Gate(8)
        sent_at = asyncio.get_running_loop().time()
        for _ in range(8):
            gate.slow_down(sent_at=sent_at, wait_s=0.01)
        assert gate.limit == 4
        assert 0 < gate.closed_for() <= 0.01
        for _ in range(20):
            gate.speed_up()
        assert gate.limit == 7
        for _ in range(10):
            gate.speed_up()
        assert gate.limit == 8
        for _ in range(20):
            gate.slow_down(sent_at=asyncio.get_running_loop().time(), wait_s=0.0)
        assert gate.limit == 1

    asyncio.run(work())
