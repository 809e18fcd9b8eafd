"""When a failed HTTP request is sent again, and after how long.

A response of status 408, 409, 425, 429 or 5xx, a connection that cannot be made or breaks, and a body that is not what
was asked for are tried again after an exponentially growing wait with full jitter (a uniform draw between 0 and the
current bound), so that clients that failed together do not come back together. What the server asks for in
`Retry-After` or `Retry-After-Ms` is the least that is waited.
"""

import email.utils
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fusion.schema import Status

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that a later attempt may not meet."""
_LONGEST_WAIT_S = 30.0
_QUOTED = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one request may take.

    Args:
        concurrency: Requests that may be out at the same time.
        connect_s: Seconds to make a connection.
        read_s: Seconds between two pieces of an answer.
        total_s: Seconds for all attempts and waits of a request.
        retries: Times that a failed request is sent again.
        backoff_s: Bound of the wait before the first retry, in seconds; it doubles every time.
    """

    concurrency: int = 16
    connect_s: float = 10.0
    read_s: float = 120.0
    total_s: float = 600.0
    retries: int = 5
    backoff_s: float = 0.5


class Fault(NamedTuple):
    """What went wrong with an attempt.

    Attributes:
        status: What the request ends with when it is not tried again.
        detail: What happened, for people.
        again: Whether another attempt can help.
        wait_s: The least that the server asks to wait, in seconds; None when it does not say.
        code: The HTTP status; 0 when there was no response.
        word: The server's own word for the error, such as "insufficient_quota".
        stalled: Whether the server was silent for too long.
    """

    status: Status
    detail: str
    again: bool = False
    wait_s: float | None = None
    code: int = 0
    word: str = ""
    stalled: bool = False


class WrongShapeError(Exception):
    """A body is JSON but not the answer that was asked for."""


def backoff_bound(failures: int, first_s: float) -> float:
    """Return the longest wait in seconds after so many failures, at least 1.

    Example:
        >>> [backoff_bound(failures, 0.5) for failures in (1, 2, 3, 100)]
        [0.5, 1.0, 2.0, 30.0]
    """
    return min(_LONGEST_WAIT_S, first_s * 2.0 ** min(failures - 1, 30))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds the server asks to wait; None when it does not ask.

    A date is compared with the server's own clock where the response tells it, in its Date header.

    Args:
        headers: The response's, found whatever the case of their names.
        now: The time here, in seconds since 1970.

    Example:
        >>> retry_after({"retry-after": "1.5"}, now=0.0), retry_after({"retry-after-ms": "20"}, now=0.0)
        (1.5, 0.02)
        >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:09 GMT"}, now=5.0)
        4.0
    """
    waits = [_seconds(headers.get("retry-after-ms"), 1e-3), _seconds(headers.get("retry-after"), 1.0)]
    stated = [wait for wait in waits if wait is not None]
    if stated:
        return stated[0]
    until = _timestamp(headers.get("retry-after"))
    if until is None:
        return None
    there = _timestamp(headers.get("date"))
    return max(0.0, until - (now if there is None else there))


def fault_of(code: int, headers: Mapping[str, str], content: bytes, now: float) -> Fault:
    """Return what a response other than 200 says.

    Args:
        code: Its status.
        headers: Its headers.
        content: Its body.
        now: The time here, in seconds since 1970.
    """
    message, word = error_text(content)
    if 300 <= code < 400:
        message = f"redirected to {headers.get('location', 'nowhere')}; set base_url to where the API is"
    detail = f"HTTP {code}: {message}" if message else f"HTTP {code}"
    if code in (400, 403) and word in _FILTERED:
        return Fault("refused", detail, code=code, word=word)
    spent = code == 429 and word == "insufficient_quota"
    return Fault(
        "rate_limited" if code == 429 else "http_error",
        detail,
        again=(code in RETRIED or code >= 500) and not spent,
        wait_s=retry_after(headers, now),
        code=code,
        word=word,
    )


_FILTERED = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
"""Words by which providers say that their filter stopped the prompt."""


def error_text(content: bytes) -> tuple[str, str]:
    """Return the message and the word of an error body; its first 200 characters when it has another form."""
    try:
        body = json.loads(content)
    except ValueError:
        return quoted(content), ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, str):
        return error, ""
    if isinstance(error, dict):
        message, word = error.get("message", error.get("detail")), error.get("code") or error.get("type")
        if isinstance(message, str):
            return message, word if isinstance(word, str) else ""
    return quoted(content), ""


def quoted(content: bytes) -> str:
    """Return the first 200 characters of a body."""
    # Four bytes make a character at most.
    return content[: 4 * _QUOTED].decode("utf-8", "replace")[:_QUOTED]


def _seconds(text: str | None, unit: float) -> float | None:
    try:
        value = float(text) * unit if text else math.nan
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _timestamp(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
