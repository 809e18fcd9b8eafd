"""The key of a recorded answer: everything that can change it, and whose it is.

A key has three parts, kept in clear beside the answer so that it can be checked: who was asked and how (`sender`:
agent, engine, model, sampling), what was asked (`asked`: question, messages as rendered, continuations) and which
draw it was. Twins in a pool are two senders, so each is asked.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

from fusion.schema import Json, Request

SENDER_FIELDS = (
    "model",
    "revision",
    "adapter",
    "template",
    "scoring",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "stop",
    "extra",
)
ASKED_FIELDS = ("question_id", "messages", "continuations")
DRAW_FIELDS = ("sample", "seed")

assert {field.name for field in fields(Request)} == {*SENDER_FIELDS, *ASKED_FIELDS, *DRAW_FIELDS}, (
    "every field of Request must be part of the record's key"
)


_DEFAULTS = {field.name: field.default for field in fields(Request) if field.default is not MISSING} | {"extra": {}}
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class RecordKey:
    """What identifies a recorded answer.

    Args:
        sender: Who was asked and how, as canonical JSON.
        asked: What was asked, as canonical JSON.
        sample: Number of the draw.
        seed: Seed of the draw; None when nothing was drawn.
    """

    sender: str
    asked: str
    sample: int = 0
    seed: int | None = None

    @property
    def sender_hash(self) -> str:
        """SHA-256 of `sender`."""
        return sha256(self.sender)

    @property
    def asked_hash(self) -> str:
        """SHA-256 of `asked`."""
        return sha256(self.asked)

    @property
    def digest(self) -> str:
        """The key itself: a SHA-256 over the three parts."""
        return key_digest(self.sender_hash, self.asked_hash, self.sample, self.seed)


def record_key(agent: str, identity: Mapping[str, Json], prompt: str, request: Request) -> RecordKey:
    """Return the key of the answer to `request`.

    Args:
        agent: Name of the agent that asks.
        identity: What the engine says of itself.
        prompt: The prompt as the model reads it; "" when the server renders it.
        request: What is asked.
    """
    sender = {"agent": agent, "engine": dict(identity), **_said(request, SENDER_FIELDS)}
    asked = {"prompt": prompt, **_said(request, ASKED_FIELDS)}
    return RecordKey(canonical_json(sender), canonical_json(asked), request.sample, request.seed)


def _said(request: Request, names: tuple[str, ...]) -> dict[str, object]:
    """Return the fields that differ from their defaults: a field that is added later leaves old keys as they are."""
    values = ((name, getattr(request, name)) for name in names)
    return {name: value for name, value in values if name not in _DEFAULTS or value != _DEFAULTS[name]}


def key_digest(sender_hash: str, asked_hash: str, sample: int, seed: int | None) -> str:
    """Return the digest of a key from the hashes of its parts."""
    return sha256(canonical_json([sender_hash, asked_hash, sample, seed]))


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no blanks."""
    return _ENCODE(value)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
