"""What a record store holds, and how a row of it reads: tables, columns, checksums.

A row of `answers` is one answer. The key's parts in clear stand once each in `senders` and `asked`, as many answers
share them. Texts are TEXT, so that any SQLite tool shows them; what SQLite cannot keep as text (lone surrogates) is
a BLOB of the same bytes. Long keys are compressed with zlib. Log-probabilities are little-endian doubles.
"""

import json
import math
import operator
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, SupportsIndex, cast, get_args

from fusion.agents._key import RecordKey, canonical_json, key_digest, sha256
from fusion.errors import StoreError
from fusion.schema import Completion, Status, Usage

FORMAT = "fusion.records/1"
FILE_NAME = "answers.sqlite"

# Short columns first: a scan of them does not touch the pages that long texts spill over to.
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS senders (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, json NOT NULL)",
    "CREATE TABLE IF NOT EXISTS asked (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, question_id TEXT NOT NULL,"
    " json NOT NULL)",
    """CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    sender INTEGER NOT NULL REFERENCES senders (id),
    asked INTEGER NOT NULL REFERENCES asked (id),
    sample INTEGER NOT NULL,
    seed INTEGER,
    agent TEXT NOT NULL,
    task TEXT NOT NULL,
    status TEXT NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    tokens_cached INTEGER,
    tokens_reasoning INTEGER,
    seconds REAL,
    attempts INTEGER NOT NULL,
    recorded TEXT NOT NULL,
    checksum BLOB NOT NULL,
    option_logprobs BLOB,
    finish_reason TEXT NOT NULL,
    served_by TEXT NOT NULL,
    detail TEXT NOT NULL,
    text TEXT NOT NULL,
    reasoning TEXT NOT NULL
)""",
    "CREATE INDEX IF NOT EXISTS answers_asked ON answers (asked)",
)

USAGE = tuple(field.name for field in fields(Usage))
CONTENT = (
    "agent",
    "task",
    "status",
    *USAGE,
    "seconds",
    "attempts",
    "recorded",
    "option_logprobs",
    "finish_reason",
    "served_by",
    "detail",
    "text",
    "reasoning",
)
"""The columns of an answer that the checksum covers beside the digest, in its order."""

TEXTS = ("agent", "task", "status", "recorded", "finish_reason", "served_by", "detail", "text", "reasoning")

assert {field.name for field in fields(Completion)} | set(USAGE) | {"agent", "task", "recorded"} == {
    *CONTENT,
    "usage",
}, "every field of Completion must be a column of the store"

# The same as canonical_json, which makes an encoder for each value: a fifth of the time of a checksum.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_WHOLE = {name: CONTENT.index(name) for name in (*USAGE, "attempts")}
_LOGPROBS = CONTENT.index("option_logprobs")
_SECONDS = CONTENT.index("seconds")
_INT64 = 2**63
_PACK_FROM = 256
_STATUSES: frozenset[str] = frozenset(get_args(Status))

Cell = None | int | float | str | bytes
"""What a column of SQLite holds."""

Content = tuple[object, ...]
"""The values of `CONTENT`, in its order, as Python has them; log-probabilities are a list."""


class Incoming(NamedTuple):
    """An answer on its way into a store.

    Attributes:
        key: What identifies it.
        completion: What came back.
        agent: Who answered.
        task: What the question belongs to; "" when nothing.
        recorded: UTC time, ISO 8601; "" for now.
    """

    key: RecordKey
    completion: Completion
    agent: str
    task: str = ""
    recorded: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """An answer as a store holds it.

    Args:
        digest: Its key, 64 hexadecimal digits.
        key: The key's parts in clear.
        agent: Who answered.
        task: What the question belongs to.
        question_id: Id of the question.
        completion: What came back.
        recorded: UTC time, ISO 8601.
        checksum: SHA-256 over all of it, 64 hexadecimal digits.
    """

    digest: str
    key: RecordKey
    agent: str
    task: str
    question_id: str
    completion: Completion
    recorded: str
    checksum: str


def content_of(completion: Completion, *, agent: str, task: str, recorded: str) -> Content:
    """Return the values of `CONTENT`.

    Raises:
        StoreError: When a number is not one that the store can keep.
    """
    usage = completion.usage
    logprobs = completion.option_logprobs
    whole = [usage.tokens_in, usage.tokens_out, usage.tokens_cached, usage.tokens_reasoning, completion.attempts]
    if any(value is not None and (type(value) is not int or value >= _INT64) for value in whole):
        whole = [_whole(value, "a number of tokens or attempts") for value in whole]
    *tokens, attempts = whole
    return (
        agent,
        task,
        completion.status,
        *tokens,
        # SQLite keeps whole numbers without their sign of zero.
        float(completion.seconds) + 0.0,
        attempts,
        recorded,
        None if logprobs is None else [float(value) for value in logprobs],
        completion.finish_reason,
        completion.served_by,
        completion.detail,
        completion.text,
        completion.reasoning,
    )


def completion_of(content: Sequence[object]) -> Completion:
    """Return the completion that `content_of` took apart."""
    (_, _, status, t_in, t_out, t_cached, t_reasoning, seconds, attempts, _, logprobs, *texts) = content
    finish_reason, served_by, detail, text, reasoning = cast("list[str]", texts)
    return Completion(
        status=cast("Status", status),
        text=text,
        option_logprobs=None if logprobs is None else tuple(cast("list[float]", logprobs)),
        reasoning=reasoning,
        usage=Usage(
            tokens_in=cast("int | None", t_in),
            tokens_out=cast("int | None", t_out),
            tokens_cached=cast("int | None", t_cached),
            tokens_reasoning=cast("int | None", t_reasoning),
        ),
        seconds=cast("float", seconds),
        finish_reason=finish_reason,
        detail=detail,
        attempts=cast("int", attempts),
        served_by=served_by,
    )


def checksum(digest: str, content: Content) -> str:
    """Return the SHA-256 of the canonical JSON of an answer: its digest, then its content."""
    return sha256(_encode([digest, *content]))


def fact_checksum(name: str, value: str) -> bytes:
    """Return the SHA-256 of a fact."""
    return bytes.fromhex(sha256(canonical_json([name, value])))


def to_cells(content: Content) -> list[Cell]:
    """Return the values of `CONTENT` as SQLite keeps them, but for texts, for which there is `safe_cells`."""
    cells = cast("list[Cell]", list(content))
    logprobs = cast("list[float] | None", content[_LOGPROBS])
    if logprobs is not None:
        cells[_LOGPROBS] = struct.pack(f"<{len(logprobs)}d", *logprobs)
    return cells


def safe_cells(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in which texts that are no valid UTF-8 are bytes."""
    return [text_cell(cell) if isinstance(cell, str) else cell for cell in cells]


def from_cells(cells: Sequence[Cell]) -> Content:
    """Return what `to_cells` took.

    Raises:
        ValueError: When a cell is not what `to_cells` writes; the message names the column.
    """
    content: list[object] = list(cells)
    for position, value in enumerate(cells):
        if type(value) is bytes and position != _LOGPROBS:
            content[position] = _text(value, CONTENT[position])
    packed = cells[_LOGPROBS]
    if packed is not None:
        if not isinstance(packed, bytes) or len(packed) % 8:
            raise ValueError("option_logprobs is no array of doubles")
        content[_LOGPROBS] = list(struct.unpack(f"<{len(packed) // 8}d", packed))
    # SQLite keeps a number that is none as NULL.
    if content[_SECONDS] is None:
        content[_SECONDS] = math.nan
    return tuple(content)


def wrong_types(content: Content) -> Iterator[str]:
    """Yield the columns whose value is of another type than a completion has there."""
    for name, value in zip(CONTENT, content, strict=True):
        if name in TEXTS:
            right = isinstance(value, str)
        elif name in _WHOLE:
            right = isinstance(value, int) or (value is None and name != "attempts")
        else:
            right = name == "option_logprobs" or isinstance(value, float)
        if not right or (name == "status" and value not in _STATUSES):
            yield name


def text_cell(text: str) -> str | bytes:
    """Return a text as SQLite keeps it: itself, or its bytes where it is no valid UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def plain(cell: Cell) -> str:
    """Return the text that `text_cell` took.

    Raises:
        ValueError: When it is none.
    """
    if isinstance(cell, bytes):
        return _text(cell, "a name")
    if not isinstance(cell, str):
        raise ValueError(f"expected a text, found {cell!r}")
    return cell


def pack(text: str) -> str | bytes:
    """Return a part of a key as SQLite keeps it: compressed when it is long, or no valid UTF-8."""
    plain = text_cell(text)
    if isinstance(plain, str) and len(plain) < _PACK_FROM:
        return plain
    # With less memory than by default it starts in a third of the time; higher levels gain 5 %.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 6)
    return packer.compress(text.encode("utf-8", "surrogatepass")) + packer.flush()


def unpack(cell: Cell) -> str:
    """Return what `pack` took.

    Raises:
        ValueError: When it is something else.
    """
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, bytes):
        raise ValueError(f"a part of a key is {type(cell).__name__}, not text")
    try:
        return zlib.decompress(cell).decode("utf-8", "surrogatepass")
    except zlib.error as error:
        raise ValueError(str(error)) from error


def digest_of(sender_hash: str, asked_hash: str, sample: int, seed: int | None) -> str:
    """Return the digest of a key from the hashes of its parts.

    Raises:
        StoreError: When the number of the draw or its seed cannot be kept.
    """
    _whole(sample, "sample")
    _whole(seed, "seed")
    return key_digest(sender_hash, asked_hash, sample, seed)


def _whole(value: SupportsIndex | None, name: str) -> int | None:
    try:
        number = None if value is None else operator.index(value)
    except TypeError:
        raise StoreError(f"{name} must be a whole number to be kept, got {value!r}") from None
    if number is not None and not -_INT64 <= number < _INT64:
        raise StoreError(f"{name} must fit in 64 bits to be kept, got {number}; give a smaller one")
    return number


def _text(cell: bytes, name: str) -> str:
    try:
        return cell.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text: {error}") from error


def question_of(asked: str) -> str:
    """Return the id of the question that a key's part `asked` is about; "" when it does not say."""
    try:
        content = json.loads(asked)
    except (ValueError, RecursionError):
        return ""
    id = content.get("question_id") if isinstance(content, dict) else None
    return id if isinstance(id, str) else ""
