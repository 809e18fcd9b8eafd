"""An OpenAI-compatible HTTP server that misbehaves on demand, in a process of its own.

The name of the model chooses the behaviour (`http_replies` lists them), so one server serves every test:

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models
    GET /stats        counts, see `HttpServer.stats`
    POST /configure   see `HttpServer.configure`
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from http_replies import Asked, Reply, error_reply, reply_to, settle, written

LISTED = ("ok", "letter", "llama-3-8b-instruct", "qwen3-4b")


class HttpServer:
    """The server as a child process that ends with this one.

    Example: `with HttpServer() as server: ask(server.url)`.
    """

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Base URL of the API, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, at the port of last time if there was one."""
        assert self._process is None, "started already"
        command = [sys.executable, "-u", str(Path(__file__).resolve()), "--port", str(self.port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server ended before it told its port"
        self._process, self.port = process, int(json.loads(line)["port"])

    def stop(self) -> None:
        """End it in order: its standard input is closed."""
        self._end(lambda process: None)

    def kill(self) -> None:
        """End it at once; connections break."""
        self._end(lambda process: process.kill())

    def restart(self) -> None:
        """Start again at the same port; counts begin anew, the configuration too."""
        self.kill()
        self.start()

    def stats(self) -> dict[str, Any]:
        """Return the counts.

        requests: Sendings by model. total: their sum. open, peak: requests being answered now, and at most.
        cancelled: Connections closed by the client before the answer was sent. retries: see the module.
        answered: Answers sent by status. connections, connections_open: Connections made, and open now.
        last: Body of the last request. last_headers: Its headers, names in lower case.
        """
        found: dict[str, Any] = self._ask("GET", "/stats")
        return found

    def configure(self, **settings: object) -> None:
        """Change the server.

        Args:
            **settings: `reset=True` sets the counts to 0; `delay_s` waits before every answer; `models` are those that
                /v1/models lists; `aliases` maps model names to behaviours; `api_key` must be in the Authorization
                header (None: need not); `faults_s` is the Retry-After of faults in transit; `clock_s` is how far the
                clock is ahead that Date headers tell (None: there are none).
        """
        self._ask("POST", "/configure", settings)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)
        finally:
            connection.close()

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        how(process)
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _State:
    """What all connections share."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.faults_s = 0.05
        self.api_key: str | None = None
        self.clock_s: float | None = None
        self.paced: dict[str, tuple[int, int]] = {}
        self.models: list[str] = list(LISTED)
        self.aliases: dict[str, str] = {}
        self.connections_open = 0
        self.open = 0
        self.failed: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        self.requests: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.cancelled = self.retries = self.connections = 0
        self.peak = self.open
        self.failed.clear()
        self.last = b""
        self.last_head = b""

    def told(self) -> dict[str, Any]:
        lines = self.last_head.decode("latin-1").split("\r\n")[1:]
        return {
            "requests": self.requests,
            "total": sum(self.requests.values()),
            "answered": self.answered,
            "open": self.open,
            "peak": self.peak,
            "cancelled": self.cancelled,
            "retries": self.retries,
            "connections": self.connections,
            "connections_open": self.connections_open,
            "last": json.loads(self.last or b"null"),
            "last_headers": {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)},
        }

    def is_too_fast(self, model: str, per_second: int) -> bool:
        """Count a request; whether this second has had enough of them."""
        second, count = self.paced.get(model, (0, 0))
        now = int(time.time())
        count = count + 1 if second == now else 1
        self.paced[model] = now, count
        return count > per_second

    def dated(self, reply: Reply) -> Reply:
        if self.clock_s is None:
            return reply
        return (*reply[:2], {**reply[2], "Date": email.utils.formatdate(time.time() + self.clock_s, usegmt=True)})

    def configure(self, settings: dict[str, Any]) -> Reply:
        if settings.pop("reset", False):
            self.reset()
        for name, value in settings.items():
            if name not in ("delay_s", "faults_s", "clock_s", "api_key", "models", "aliases"):
                return error_reply(400, f"there is no setting {name}")
            setattr(self, name, value)
        return 200, {}, {}


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nauthorization: *Bearer ([^\r\n]*)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """One connection with keep-alive; requests on it are answered in turn."""

    def __init__(self, state: _State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.transport: asyncio.Transport
        self.asked: Asked | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.state.connections += 1
        self.state.connections_open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections_open -= 1
        if self.timer is not None:
            self.timer.cancel()
        if self.asked is not None:
            self.state.cancelled += 1
            self._closed(failed=True)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.asked is None and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            length = _LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < size:
                return
            body = bytes(self.buffer[end + 4 : size])
            del self.buffer[:size]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
        state = self.state
        if path == b"/v1/chat/completions" or path == b"/v1/completions":
            self._ask(head, body, chat=path == b"/v1/chat/completions")
        elif path == b"/stats":
            self.transport.write(written((200, state.told(), {})))
        elif path == b"/configure":
            self.transport.write(written(state.configure(json.loads(body or b"{}"))))
        elif path == b"/v1/models" and method == b"GET":
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in state.models]}
            reply: Reply = (
                (200, listed, {}) if self._may_enter(head) else error_reply(401, "Incorrect API key provided")
            )
            self.transport.write(written(state.dated(reply)))
        else:
            self.transport.write(written(error_reply(404, f"there is nothing at {path.decode()}")))

    def _may_enter(self, head: bytes) -> bool:
        key = _KEY.search(head)
        return self.state.api_key is None or (key is not None and key[1].decode() == self.state.api_key)

    def _ask(self, head: bytes, body: bytes, *, chat: bool) -> None:
        state = self.state
        try:
            fields = json.loads(body)
            model = fields["model"]
            assert fields["messages" if chat else "prompt"] is not None
        except (ValueError, KeyError, TypeError):
            self.transport.write(written(error_reply(400, "not a request")))
            return
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        attempt = state.failed.get(digest, 0)
        state.requests[model] = state.requests.get(model, 0) + 1
        state.retries += attempt > 0
        state.open += 1
        state.peak = max(state.peak, state.open)
        state.last, state.last_head = body, head
        behaviour = state.aliases.get(model, model)
        asked = Asked(chat=chat, body=fields, behaviour=behaviour, attempt=attempt, digest=digest)
        key = _KEY.search(head)
        asked.key = key[1].decode() if key else ""
        if not self._may_enter(head):
            asked.behaviour = "unauthorized"
        self.asked = asked
        settle(asked)
        name, _, seconds = asked.behaviour.partition("-")
        if name == "paced":
            asked.behaviour = "until-next-second" if state.is_too_fast(model, int(seconds)) else "ok"
        wait = state.delay_s + (float(seconds) if name in ("slow", "stall") else 0.0)
        if wait:
            self.timer = asyncio.get_running_loop().call_later(wait, self._send)
        else:
            self._send()

    def _send(self) -> None:
        asked = self.asked
        assert asked is not None
        kind = asked.behaviour
        if kind == "drop" or kind.startswith("stall-"):
            self._hang_up(b"")
            return
        state = self.state
        reply = state.dated(reply_to(asked, faults_s=state.faults_s, clock_s=state.clock_s or 0.0))
        if kind == "huge-header":
            reply = (*reply[:2], {"X-Huge": "x" * 1_000_000})
        told = written(reply, chunked=kind == "chunked")
        if kind == "cut-headers":
            self._hang_up(told[:20])
        elif kind == "cut-body":
            self._hang_up(told[:-10])
        elif kind.startswith("drip-"):
            self._drip(told, float(kind.removeprefix("drip-")))
        else:
            self.transport.write(told)
            self._answered(reply[0], failed=reply[0] != 200 or kind in ("nonsense", "wrong-json"))

    def _hang_up(self, last_words: bytes) -> None:
        self.transport.write(last_words)
        self.transport.close()
        self._answered(0, failed=True)

    def _drip(self, rest: bytes, seconds: float) -> None:
        self.transport.write(rest[:1])
        if len(rest) > 1:
            self.timer = asyncio.get_running_loop().call_later(seconds, self._drip, rest[1:], seconds)
        else:
            self._answered(200, failed=False)

    def _answered(self, status: int, *, failed: bool) -> None:
        word = str(status) if status else "hung up"
        self.state.answered[word] = self.state.answered.get(word, 0) + 1
        self._closed(failed=failed)
        if self.buffer:
            asyncio.get_running_loop().call_soon(self.data_received, b"")

    def _closed(self, *, failed: bool) -> None:
        assert self.asked is not None
        state, digest = self.state, self.asked.digest
        state.open -= 1
        self.asked = self.timer = None
        if failed:
            state.failed[digest] = state.failed.get(digest, 0) + 1
        else:
            state.failed.pop(digest, None)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    state = _State()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", port, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)

    def read() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, read)
    parent = os.getppid()
    while not ended.is_set() and os.getppid() == parent:
        try:
            async with asyncio.timeout(1):
                await ended.wait()
        except TimeoutError:
            continue


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
    # Open connections would keep a graceful end waiting.
    os._exit(0)
