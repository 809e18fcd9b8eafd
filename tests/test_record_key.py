"""The key of a recorded answer covers everything that can change the answer, and whose it is."""

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.agents._key import RecordKey, canonical_json, key_digest, record_key, sha256
from fusion.schema import Message, Request

PLAIN = Request(question_id="q", messages=(Message("user", "A or B?"),))
IDENTITY = {"engine": "openai", "url": "http://localhost/v1"}

CHANGED: dict[str, list[Any]] = {
    "question_id": ["", "q "],
    "messages": [(), (Message("user", "A or B? "),), (Message("system", "A or B?"),), PLAIN.messages * 2],
    "continuations": [("A",), ("A", "B"), ("AB",)],
    "scoring": ["prompt_logprobs", "label_logprobs"],
    "model": ["org/model", "org/model "],
    "revision": ["", "main"],
    "adapter": ["", "adapter"],
    "template": ["", "{{ messages }}"],
    "temperature": [0.7, 1.0],
    "top_p": [0.9, 0.5],
    "top_k": [1, 50],
    "max_tokens": [1, 513],
    "stop": [("\n",), ("\n", "A"), ("\nA",)],
    "sample": [1, 2],
    "seed": [0, 1],
    "extra": [{"a": 1}, {"a": "1"}, {"a": None}, {"a": {"b": [1]}}, {"a": {"b": [1, 2]}}],
}


def digest(request: Request, *, agent: str = "ann", identity: Any = IDENTITY, prompt: str = "") -> str:
    return record_key(agent, identity, prompt, request).digest


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_every_field_of_a_request_changes_the_key(name: str) -> None:
    """A new field of Request needs a row in CHANGED, and with it a place in the key."""
    digests = [digest(PLAIN), *(digest(replace(PLAIN, **{name: value})) for value in CHANGED[name])]
    assert len(set(digests)) == len(digests)


def test_no_two_changes_give_the_same_key() -> None:
    digests = [digest(replace(PLAIN, **{name: value})) for name, values in CHANGED.items() for value in values]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": "bob"},
        {"agent": "ann "},
        {"prompt": "A or B?"},
        {"identity": {}},
        {"identity": IDENTITY | {"url": "http://elsewhere/v1"}},
        {"identity": IDENTITY | {"dtype": "bfloat16"}},
    ],
    ids=str,
)
def test_who_asks_and_the_engine_change_the_key(changed: dict[str, Any]) -> None:
    assert digest(PLAIN, **changed) != digest(PLAIN)


def test_the_order_of_keys_in_mappings_does_not_change_it() -> None:
    one = replace(PLAIN, extra={"a": 1, "b": {"c": 2, "d": 3}})
    other = replace(PLAIN, extra={"b": {"d": 3, "c": 2}, "a": 1})
    assert digest(one) == digest(other)
    assert digest(PLAIN, identity=dict(reversed(IDENTITY.items()))) == digest(PLAIN)


def test_the_order_of_messages_and_continuations_does() -> None:
    turns = (Message("user", "a"), Message("user", "b"))
    assert digest(replace(PLAIN, messages=turns)) != digest(replace(PLAIN, messages=turns[::-1]))
    assert digest(replace(PLAIN, continuations=("A", "B"))) != digest(replace(PLAIN, continuations=("B", "A")))


def test_the_parts_in_clear_hold_every_field() -> None:
    """Those that are at their default are left out, so that a field that is added later leaves old keys as they are."""
    full = {
        "question_id": "q", "messages": (Message("user", "2+2="),), "continuations": ("3", "4"), "scoring": "exact",
        "model": "m", "revision": "r", "adapter": "a", "template": "", "temperature": 0.5, "top_p": 0.9, "top_k": 5,
        "max_tokens": 3, "stop": (".",), "sample": 3, "seed": 5, "extra": {"x": 1},
    }  # fmt: skip
    assert set(full) == {field.name for field in fields(Request)}
    key = record_key("ann", IDENTITY, "rendered", Request(**full))  # type: ignore[arg-type]  # each has its type
    sender, asked = json.loads(key.sender), json.loads(key.asked)
    assert (sender["agent"], sender["engine"], asked["prompt"]) == ("ann", IDENTITY, "rendered")
    said = sender | asked | {"sample": key.sample, "seed": key.seed}
    assert set(said) == {*full, "agent", "engine", "prompt"}
    assert all(said[name] == json.loads(json.dumps(value)) for name, value in full.items())
    plain = record_key("ann", IDENTITY, "", Request(question_id="q", messages=()))
    assert set(json.loads(plain.sender)) == {"agent", "engine"}
    assert set(json.loads(plain.asked)) == {"prompt", "question_id", "messages"}


def test_the_digest_made_by_hand() -> None:
    """The SHA-256 of [sender's, asked's, sample, seed] as JSON without blanks.

    Every answer ever recorded is found by it: whoever changes it makes all of them be asked again.
    """
    sender, asked = '{"agent":"ann"}', '{"prompt":"2+2="}'
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in (sender, asked)]
    told = f'["{hashes[0]}","{hashes[1]}",1,null]'
    key = RecordKey(sender, asked, sample=1)
    assert key.digest == hashlib.sha256(told.encode()).hexdigest() == key_digest(*hashes, 1, None)
    assert [key.sender_hash, key.asked_hash] == hashes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_canonical_json_tells_apart_what_differs_and_nothing_else(one: Any, other: Any) -> None:
    assert json.loads(canonical_json(one)) == one
    # JSON knows 1, 1.0 and true apart, Python does not.
    assert (canonical_json(one) == canonical_json(other)) == (repr_of(one) == repr_of(other))


def repr_of(value: Any) -> str:
    if isinstance(value, dict):
        return repr({name: repr_of(value[name]) for name in sorted(value)})
    return repr([repr_of(item) for item in value]) if isinstance(value, list) else repr(value)


@given(st.text(st.characters()), st.text(st.characters()))
def test_texts_of_any_kind_can_be_hashed(one: str, other: str) -> None:
    assert (sha256(one) == sha256(other)) == (one == other)
