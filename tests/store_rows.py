"""Answers for tests of the record store."""

from typing import Any

from fusion.agents._key import RecordKey, record_key
from fusion.agents._store import RecordStore
from fusion.agents._store_rows import Incoming
from fusion.schema import Completion, Message, Request, Usage

NASTY = "nul \x00 in it, \ud800 alone, \U0001f600, \u00e9, '; DROP TABLE answers; --, \r\n\u2028"
"""Text that breaks what is not careful."""


def key(number: int = 0, *, agent: str = "ann", prompt: str = "", **changed: Any) -> RecordKey:
    """Return the key of the answer of `agent` to question `number`."""
    messages = (Message("user", f"What is {number} + {number}?"),)
    request = Request(**({"question_id": f"q{number}", "messages": messages, "model": "org/model"} | changed))
    return record_key(agent, {"engine": "echo"}, prompt, request)


def said(text: str = "yes", **changed: Any) -> Completion:
    """Return an answer with something in every field."""
    given: dict[str, Any] = {
        "status": "ok",
        "text": text,
        "option_logprobs": (-0.5, float("-inf"), -1 / 3),
        "reasoning": "because",
        "usage": Usage(tokens_in=11, tokens_out=7, tokens_cached=5, tokens_reasoning=3),
        "seconds": 0.1,
        "finish_reason": "stop",
        "detail": "as usual",
        "attempts": 2,
        "served_by": "org/model@abc",
    }
    return Completion(**(given | changed))


def failed(detail: str = "slow", **changed: Any) -> Completion:
    """Return a failure that is not final."""
    return Completion(**({"status": "timeout", "detail": detail} | changed))


def filled(store: RecordStore, count: int = 60) -> list[Incoming]:
    """Put answers of three agents, every seventh of them a failure, with texts short and long; return them."""
    rows = []
    for i in range(count):
        agent, number = f"agent-{i % 3}", i // 3
        # Every third prompt is long enough to be compressed.
        prompt = "Think well. " * 40 if number % 3 == 0 else ""
        text = f"answer {i} because {NASTY if i % 11 == 0 else ''}" + "of reasons " * (1000 if i % 10 == 0 else 3)
        logprobs = (-0.1 * i, float("-inf")) if i % 4 == 0 else None
        completion = failed() if i % 7 == 3 else said(text, option_logprobs=logprobs, seconds=i / 7)
        of = key(number, agent=agent, prompt=prompt, seed=i if i % 2 else None)
        rows.append(Incoming(of, completion, agent, "task"))
    store.put_many(rows)
    store.set_fact("scoring/org/model", "prompt_logprobs")
    return rows
