"""What the test server says: behaviours by the name of the model, and the log-probabilities behind them.

The name of the model chooses the behaviour, so one server serves every test:

    ok  say-WORD  letter  letter-C         a reply, a word, a letter A to D by hash, the letter C
    slow-S  stall-S  drip-S                answers after S seconds; is silent for S seconds, hangs up; a byte every S
    drop  cut-headers  cut-body            hangs up before, within the headers, within the body
    rate-limited-N  -date-N  -ms-N         N times 429 with Retry-After: 0.2, an HTTP date, Retry-After-Ms: 200; then ok
    unavailable-N                          N times 503 with Retry-After: 0.2, then ok
    always-429  always-429-long            Retry-After: 0.05, or an hour
    paced-N                                N requests a second, beyond that 429 until the next
    error-C  error-C-then-ok-N             status C, always or N times
    drop-then-ok-N  stall-then-ok-N        hangs up, or stalls for a minute, N times
    nonsense  wrong-json                   not JSON; JSON of another shape
    empty  null-content  length  length-empty-reasoning  refusal  content-filter  no-usage  parts
    reasoning  reasoning-content  think  think-only-end  think-unclosed
    unauthorized  forbidden  not-found  no-credit  filtered  redirect  huge-header  chunked
    faulty-P                               a share P of the sendings fails in transit, by hash of request and attempt
    broken-P                               a share P of the requests fails for good, by hash of the request

Flags after the behaviour, as in `letter+echo+bos`, say what is offered; anything else is refused with 400:

    +top_logprobs  +echo  +prompt_logprobs   means to score, all from the same log-probabilities
    +five                                    no more than five likeliest tokens on chat
    +bos  +stripped                          tokens start with <s>; tokens are told without their leading blank
    +ignores                                 what is not offered is ignored instead of refused

On chat, prompt_logprobs are those of a prompt that ends with the message to continue. Error messages repeat the key
that was sent. Anything else is an unknown model: 404. Answers depend on the request body alone. A sending counts as a
retry when the same body failed before and has not been answered since.
"""

from __future__ import annotations

import email.utils
import functools
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

TOKEN = re.compile(r" ?\w+| ?[^\w\s]+|\s")
TRANSIT_FAULTS = (
    "always-429",
    "error-500",
    "error-503",
    "drop",
    "cut-headers",
    "cut-body",
    "nonsense",
    "wrong-json",
)
LASTING_FAULTS = (*TRANSIT_FAULTS, "error-400", "empty", "refusal", "content-filter", "length-empty-reasoning")
ASSISTANT = "<|assistant|>"

Reply = tuple[int, dict[str, Any] | bytes, dict[str, str]]


def share_of(*parts: object) -> float:
    """Return a number in [0, 1) made from `parts`."""
    said = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(said, digest_size=7).digest()) / 2**56


def tokens_of(text: str) -> list[str]:
    """Return the pieces of `text`: words, numbers and signs with the blank before them, single blanks."""
    return TOKEN.findall(text)


@functools.lru_cache(maxsize=4096)
def next_logprobs(context: str) -> Mapping[str, float]:
    """Return the log-probabilities, in nats, of the likely next tokens after `context`, likeliest first.

    Letters A to J and a few words, each with and without a leading blank; A to D are likelier. After the start of an
    assistant's turn tokens without blank are likelier, else those with one. The rest of the mass is under "".
    """
    wants_blank = not context.endswith(ASSISTANT)
    logits = {"": 1.0}
    for word in (*"ABCDEFGHIJ", "The", "yes", "no"):
        base = 4.0 if word in "ABCD" else 2.0 if len(word) == 1 else 0.0
        for blank in ("", " "):
            drawn = 2 * share_of("logit", context, blank + word)
            logits[blank + word] = base + drawn - (2.0 if bool(blank) != wants_blank else 0.0)
    total = math.log(sum(math.exp(value) for value in logits.values()))
    return dict(sorted(((token, value - total) for token, value in logits.items()), key=lambda item: -item[1]))


def token_logprob(context: str, token: str) -> float:
    """Return the log-probability of `token` after `context`, in nats."""
    likely = next_logprobs(context)
    return likely[token] if token and token in likely else likely[""] - 3 - 5 * share_of("rare", context, token)


def text_logprob(prompt: str, continuation: str) -> float:
    """Return the log-probability of `continuation` after `prompt`, summed over its tokens, in nats."""
    total, context = 0.0, prompt
    for token in tokens_of(continuation):
        total += token_logprob(context, token)
        context += token
    return total


def chat_prompt(body: Mapping[str, Any]) -> str:
    """Return the conversation as this server renders it: up to the assistant's turn, or with its beginning."""
    turns = [f"<|{turn['role']}|>{turn['content']}" for turn in body["messages"]]
    return "".join(turns) + ("" if body.get("continue_final_message") else ASSISTANT)


def likeliest_letter(context: str) -> str:
    """Return which of A to D, with or without a blank before it, is the likeliest next token."""
    return next(token for token in next_logprobs(context) if token and token.strip() in "ABCD")


class Asked:
    """One request as the behaviours see it."""

    def __init__(self, *, chat: bool, body: dict[str, Any], behaviour: str, attempt: int, digest: str) -> None:
        self.chat = chat
        self.body = body
        self.behaviour, *flags = behaviour.split("+")
        self.flags = frozenset(flags)
        self.attempt = attempt
        self.digest = digest
        self.key = ""
        self.prompt = chat_prompt(body) if chat else str(body["prompt"])


def error_reply(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    told = {"error": {"message": message, "type": "test_error", "param": None, "code": code}}
    return status, told, {name.replace("_", "-"): value for name, value in headers.items()}


def _refusal_of_fields(asked: Asked) -> str:
    body, flags = asked.body, asked.flags
    if "ignores" in flags:
        return ""
    if body.get("prompt_logprobs") is not None and "prompt_logprobs" not in flags:
        return "prompt_logprobs is not supported"
    if body.get("echo") and "echo" not in flags:
        return "echo is not supported"
    if body.get("logprobs") not in (None, False) and not body.get("echo") and "top_logprobs" not in flags:
        return "logprobs are not supported"
    most = 20 if asked.chat and "five" not in flags else 5
    if (body.get("top_logprobs", 0) if asked.chat else body.get("logprobs") or 0) > most:
        return f"at most {most} log-probabilities can be returned"
    return ""


def _content(asked: Asked) -> tuple[str, str, dict[str, Any]]:
    """Return text, finish reason and further fields of the message."""
    kind = asked.behaviour
    reply = f"reply {asked.digest[:8]}"
    texts = {
        "empty": "",
        "length": "It is long, but",
        "length-empty-reasoning": "",
        "think": f"<think>\nLet me see.\n</think>\n\n{reply}",
        "think-only-end": f"Let me see.</think>{reply}",
        "think-unclosed": "<think>\nLet me see",
        "refusal": "",
        "content-filter": "",
    }
    text = texts.get(kind, reply)
    if kind.startswith("say-"):
        text = kind.removeprefix("say-")
    elif kind == "letter":
        text = likeliest_letter(asked.prompt)
    elif kind.startswith("letter-"):
        text = ("" if asked.chat else " ") + kind.removeprefix("letter-")
    finish = "length" if kind in ("length", "length-empty-reasoning", "think-unclosed") else "stop"
    finish = "content_filter" if kind == "content-filter" else finish
    fields: dict[str, Any] = {
        "refusal": {"refusal": "I cannot help with that."},
        "reasoning": {"reasoning": "Let me see."},
        "length-empty-reasoning": {"reasoning": "Let me see"},
        "reasoning-content": {"reasoning_content": "Let me see."},
    }.get(kind, {})
    most = asked.body.get("max_tokens") or asked.body.get("max_completion_tokens")
    if most is not None and len(tokens_of(text)) > most and finish == "stop":
        text, finish = "".join(tokens_of(text)[:most]), "length"
    return text, finish, fields


def _tops(asked: Asked, context: str, number: int) -> list[tuple[str, float]]:
    return [item for item in next_logprobs(context).items() if item[0]][:number]


def _shown(asked: Asked, tokens: list[str]) -> list[str]:
    return [token.removeprefix(" ") or token for token in tokens] if "stripped" in asked.flags else tokens


def _read_tokens(asked: Asked) -> tuple[list[str], list[float | None]]:
    """Return the tokens of the prompt and their log-probabilities, None for the first."""
    tokens, context, values = tokens_of(asked.prompt), "", list[float | None]()
    for token in tokens:
        values.append(token_logprob(context, token) if context or "bos" in asked.flags else None)
        context += token
    tokens = _shown(asked, tokens)
    return (["<s>", *tokens], [None, *values]) if "bos" in asked.flags else (tokens, values)


def _chat_choice(asked: Asked) -> dict[str, Any]:
    text, finish, fields = _content(asked)
    content: Any = None if asked.behaviour == "null-content" else text
    if asked.behaviour in ("refusal", "content-filter", "length-empty-reasoning"):
        content = None
    if asked.behaviour == "parts":
        content = [{"type": "text", "text": text[:3]}, {"type": "text", "text": text[3:]}]
    logprobs = None
    if asked.body.get("logprobs") and "top_logprobs" in asked.flags:
        first = (tokens_of(text) or [""])[0]
        tops = _tops(asked, asked.prompt, asked.body.get("top_logprobs", 0))
        listed = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in tops]
        told = {"token": first, "logprob": token_logprob(asked.prompt, first), "bytes": list(first.encode())}
        logprobs = {"content": [{**told, "top_logprobs": listed}]}
    message = {"role": "assistant", "content": content, "refusal": None, **fields}
    return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _text_choice(asked: Asked) -> dict[str, Any]:
    body = asked.body
    text, finish, _ = _content(asked)
    echoed = bool(body.get("echo")) and "echo" in asked.flags
    if echoed and body.get("max_tokens") == 0:
        text = ""
    choice: dict[str, Any] = {"index": 0, "text": (asked.prompt if echoed else "") + text, "finish_reason": finish}
    choice["logprobs"] = None
    number = body.get("logprobs")
    if number is not None and (echoed or "top_logprobs" in asked.flags):
        tokens, values = _read_tokens(asked) if echoed else ([], [])
        context = asked.prompt
        for token in tokens_of(text):
            tokens.append(token)
            values.append(token_logprob(context, token))
            context += token
        offsets, place = [], 0
        for token in tokens:
            offsets.append(place)
            place += len(token)
        tops = [dict(_tops(asked, asked.prompt, number)) for _ in tokens[:1]] if not echoed else None
        choice["logprobs"] = {
            "tokens": tokens,
            "token_logprobs": values,
            "text_offset": offsets,
            "top_logprobs": tops,
        }
    return choice


def _prompt_logprobs(asked: Asked) -> list[Any]:
    read = zip(*_read_tokens(asked), strict=True)
    return [
        None if value is None else {str(100 + place): {"logprob": value, "rank": 1, "decoded_token": token}}
        for place, (token, value) in enumerate(read)
    ]


def _answer(asked: Asked) -> Reply:
    refused = _refusal_of_fields(asked)
    if refused:
        return error_reply(400, refused)
    choice = _chat_choice(asked) if asked.chat else _text_choice(asked)
    read, written = len(tokens_of(asked.prompt)), len(tokens_of(_content(asked)[0]))
    thought = 3 if asked.chat and "reasoning" in asked.behaviour else 0
    told: dict[str, Any] = {
        "id": f"cmpl-{asked.digest[:12]}",
        "object": "chat.completion" if asked.chat else "text_completion",
        "created": 1_700_000_000,
        "model": asked.body["model"],
        "system_fingerprint": "fp_test",
        "choices": [choice],
    }
    if asked.body.get("prompt_logprobs") is not None and "prompt_logprobs" in asked.flags:
        (told if asked.chat else choice)["prompt_logprobs"] = _prompt_logprobs(asked)
    if asked.behaviour != "no-usage":
        told["usage"] = {
            "prompt_tokens": read,
            "completion_tokens": written + thought,
            "total_tokens": read + written + thought,
            "prompt_tokens_details": {"cached_tokens": min(read, 4)},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
    return 200, told, {}


_SUCCESSES = re.compile(
    "ok|letter|letter-[A-Z]|say-.+|slow-.+|drip-.+|empty|null-content|length|length-empty-reasoning|refusal|no-usage|"
    "content-filter|parts|reasoning|reasoning-content|think|think-only-end|think-unclosed|huge-header|chunked"
)
_SOME_FAIL = re.compile(r"(rate-limited|rate-limited-date|rate-limited-ms|unavailable)-(\d+)")
_THEN_OK = re.compile(r"(error-\d+|drop|stall)-then-ok-(\d+)")


def _busy(kind: str, clock_s: float) -> Reply:
    if kind == "rate-limited-date":
        date = email.utils.formatdate(time.time() + clock_s + 1.5, usegmt=True)
        return error_reply(429, "too many requests", "rate_limit_exceeded", Retry_After=date)
    if kind == "rate-limited-ms":
        return error_reply(429, "too many requests", "rate_limit_exceeded", Retry_After_Ms="200")
    return error_reply(503 if kind == "unavailable" else 429, "too many requests", "busy", Retry_After="0.2")


def settle(asked: Asked) -> None:
    """Replace the behaviours that depend on the attempt or on chance by the one that they stand for now."""
    kind = asked.behaviour
    name, _, share = kind.partition("-")
    if name in ("faulty", "broken"):
        lasting = name == "broken"
        drawn = (name, asked.digest, *(() if lasting else (asked.attempt,)))
        faults = LASTING_FAULTS if lasting else TRANSIT_FAULTS
        fails = share_of(*drawn) < float(share)
        asked.behaviour = faults[int(share_of("kind", *drawn) * len(faults))] if fails else "ok"
    elif then := _THEN_OK.fullmatch(kind):
        fault = "stall-60" if then[1] == "stall" else then[1]
        asked.behaviour = fault if asked.attempt < int(then[2]) else "ok"
    elif (some := _SOME_FAIL.fullmatch(kind)) and asked.attempt >= int(some[2]):
        asked.behaviour = "ok"


def reply_to(asked: Asked, *, faults_s: float, clock_s: float) -> Reply:
    """Return what to say; how it is sent is the connection's."""
    kind = asked.behaviour
    if some := _SOME_FAIL.fullmatch(kind):
        return _busy(some[1], clock_s)
    if kind in ("always-429", "always-429-long"):
        wait = "3600" if kind.endswith("long") else str(faults_s)
        return error_reply(429, "too many requests", "rate_limit_exceeded", Retry_After=wait)
    if kind == "until-next-second":
        return error_reply(429, "too many requests", "rate_limit_exceeded", Retry_After=str(1 - time.time() % 1))
    if kind.startswith("error-"):
        return error_reply(int(kind.removeprefix("error-")), f"the server failed as told {asked.key}".rstrip())
    if kind in ("unauthorized", "forbidden"):
        status = 401 if kind == "unauthorized" else 403
        return error_reply(status, f"Incorrect API key provided: {asked.key}", "invalid_api_key")
    if kind == "no-credit":
        return error_reply(429, "You exceeded your current quota", "insufficient_quota")
    if kind == "filtered":
        return error_reply(400, "The prompt was filtered", "content_filter")
    if kind == "nonsense":
        return 200, b"<html>It works!</html>", {}
    if kind == "wrong-json":
        return 200, {"status": "fine", "result": ["not", "a", "completion"]}, {}
    if kind == "redirect":
        return 307, b"", {"Location": "/v1/elsewhere"}
    if _SUCCESSES.fullmatch(kind) or kind in ("cut-headers", "cut-body"):
        return _answer(asked)
    return error_reply(404, f"The model `{asked.body['model']}` does not exist.", "model_not_found")


_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


def written(reply: Reply, *, chunked: bool = False) -> bytes:
    status, content, headers = reply
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if chunked:
        half = len(body) // 2
        pieces = (body[:half], body[half:], b"")
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
