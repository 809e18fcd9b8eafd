"""Sends HTTP requests: connections, limits, retries, and what became of each."""

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import httpx

from fusion._version import __version__
from fusion.agents._http_gate import Gate
from fusion.agents._http_retry import Fault, Limits, WrongShapeError, backoff_bound, fault_of, quoted

T = TypeVar("T")
Headers = httpx.Headers

# Servers on uvicorn close idle connections after 5 s; one that is closed while it is taken again costs an attempt.
_KEEP_IDLE_S = 4.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine."""


class Sent(NamedTuple, Generic[T]):
    """What became of a request.

    Attributes:
        answer: What was read; None when there was a fault.
        fault: What went wrong; None when there was an answer.
        attempts: Times it was sent.
        seconds: From the first sending to the end.
    """

    answer: T | None
    fault: Fault | None
    attempts: int
    seconds: float


class _Line:
    """What belongs to one event loop: the queue, and connections, each in a client of its own.

    A pool of httpcore 1.0.9 never gives back the place of a request that is cancelled at certain moments; a client
    that many cancelled requests have shared ends up waiting for ever. Here a client serves one request at a time, and
    one whose request did not end well is closed.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], concurrency: int) -> None:
        self.gate = Gate(concurrency)
        self.keeper: AsyncGenerator[None, None] | None = None
        self._make = make
        self._idle: list[httpx.AsyncClient] = []
        self._open = True

    async def send(self, request: httpx.Request) -> httpx.Response:
        client = self._idle.pop() if self._idle else self._make()
        ended_well = False
        try:
            response = await client.send(request)
            ended_well = True
        finally:
            if ended_well and self._open:
                self._idle.append(client)
            else:
                await client.aclose()
        return response

    async def aclose(self) -> None:
        self._open = False
        while self._idle:
            await self._idle.pop().aclose()


@dataclass(slots=True)
class _Course:
    """How far a request has come."""

    started: float = 0.0
    attempts: int = 0
    stalls: int = 0
    sent_at: float = 0.0
    fault: Fault | None = None


class Caller:
    """Sends requests to one server, from whatever event loop is running.

    Every loop has its own connections, closed by `aclose` or, at the latest, when `asyncio.run` ends the loop. Proxies
    and certificates are taken from the environment as httpx does, except that a server on this machine is never asked
    through a proxy. Redirects are not followed.

    Args:
        url: Where the server is.
        limits: What a request may take.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self._url = httpx.URL(url)
        self._limits = limits
        self._random = random.Random()
        self._tls: ssl.SSLContext | None = None
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()
        timeouts = httpx.Timeout(limits.read_s, connect=limits.connect_s, pool=None)
        self._extensions = {"timeout": timeouts.as_dict()}

    def headers(self, further: Mapping[str, str]) -> Headers:
        """Return all headers of a request but its length."""
        return Headers(
            {
                # Said here, httpx need not add it to every request.
                "Host": self._url.netloc.decode("ascii"),
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
                "User-Agent": f"fusion/{__version__}",
                "Content-Type": "application/json",
                **further,
            }
        )

    async def post(self, url: str, body: bytes, headers: Headers, read: Callable[[object], T]) -> Sent[T]:
        """Send a request until it is answered or given up.

        Time spent waiting for a place among the `concurrency` does not count as the request's.

        Args:
            url: Where to.
            body: JSON.
            headers: All of them but the length.
            read: Reads the decoded body; raises WrongShapeError when it is not an answer.
        """
        line = await self._line()
        course = _Course()
        while True:
            await line.gate.enter(again=course.attempts > 0)
            try:
                fault = await self._wait_for_opening(line.gate, course)
                if fault is None:
                    course.attempts += 1
                    request = httpx.Request("POST", url, headers=headers, content=body, extensions=self._extensions)
                    found = await self._attempt(line, request, course, read)
                    if not isinstance(found, Fault):
                        line.gate.speed_up()
                        return Sent(found, None, course.attempts, time.monotonic() - course.started)
                    fault = found
            finally:
                line.gate.leave()
            fault, pause = self._judge(line.gate, fault, course)
            if pause is None:
                seconds = time.monotonic() - course.started if course.attempts else 0.0
                return Sent(None, fault, course.attempts, seconds)
            await asyncio.sleep(pause)

    async def get(self, url: str, headers: Headers) -> tuple[Mapping[str, object], Headers] | Fault:
        """Send one request without a body, once; returns the JSON object and the headers of the response."""
        line = await self._line()
        limits = self._limits
        timeouts = httpx.Timeout(min(limits.read_s, limits.connect_s), connect=limits.connect_s)
        request = httpx.Request("GET", url, headers=headers, extensions={"timeout": timeouts.as_dict()})
        heard: list[Headers] = []

        def read(content: object) -> Mapping[str, object]:
            if not isinstance(content, dict):
                raise WrongShapeError("not a JSON object")
            return content

        found = await self._attempt(line, request, _Course(), read, heard)
        return found if isinstance(found, Fault) else (found, heard[0])

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None:
            if line.keeper is not None:
                await line.keeper.aclose()
            await line.aclose()

    async def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            for other in [other for other in self._lines if other.is_closed()]:
                del self._lines[other]
            line = self._lines[loop] = _Line(self._new_client, self._limits.concurrency)
            # asyncio.run closes the asynchronous generators that are left before it closes the loop, and with this
            # one the connections, which could not be closed any more afterwards.
            line.keeper = self._keep(loop, line)
            await anext(line.keeper)
        return line

    async def _keep(self, loop: asyncio.AbstractEventLoop, line: _Line) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._lines.pop(loop, None)
            await line.aclose()

    def _new_client(self) -> httpx.AsyncClient:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return httpx.AsyncClient(
            verify=self._tls,
            trust_env=self._url.host not in LOOPBACK,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEP_IDLE_S),
        )

    async def _wait_for_opening(self, gate: Gate, course: _Course) -> Fault | None:
        """Wait until the server may be asked; a fault when that is too late for this request."""
        total_s = self._limits.total_s
        while (pause := gate.closed_for()) > 0:
            left = course.started + total_s - time.monotonic() if course.attempts else total_s
            if pause > left:
                return Fault("rate_limited", f"the server asks all to wait for {pause:.1f} s more, {self._too_long}")
            await asyncio.sleep(pause)
        if not course.attempts:
            course.started = time.monotonic()
        elif time.monotonic() >= course.started + total_s:
            assert course.fault is not None, "only a failed request is here again"
            return course.fault._replace(detail=f"{course.fault.detail}; no time is left of total_s = {total_s:g}")
        return None

    async def _attempt(
        self,
        line: _Line,
        request: httpx.Request,
        course: _Course,
        read: Callable[[object], T],
        heard: list[Headers] | None = None,
    ) -> T | Fault:
        limits = self._limits
        course.sent_at = time.monotonic()
        left = (course.started or course.sent_at) + limits.total_s - course.sent_at
        try:
            async with asyncio.timeout(left):
                response = await line.send(request)
        except TimeoutError:
            return Fault("timeout", f"no complete answer within total_s = {limits.total_s:g}")
        except httpx.ConnectTimeout:
            return Fault("timeout", f"no connection within connect_s = {limits.connect_s:g}", again=True)
        except httpx.TimeoutException:
            return Fault("timeout", f"the server was silent for read_s = {limits.read_s:g}", again=True, stalled=True)
        except httpx.RequestError as error:
            what = "cannot connect" if isinstance(error, httpx.ConnectError) else "the connection broke"
            return Fault("http_error", f"{what}: {str(error) or type(error).__name__}", again=True)
        if heard is not None:
            heard.append(response.headers)
        if response.status_code != 200:
            return fault_of(response.status_code, response.headers, response.content, time.time())
        return _read(response.content, read)

    def _judge(self, gate: Gate, fault: Fault, course: _Course) -> tuple[Fault, float | None]:
        """Return the fault, and how long to wait before the next attempt: None for no further one."""
        limits = self._limits
        if not course.attempts:
            return fault, None
        course.fault = fault
        course.stalls += fault.stalled
        pause = self._random.uniform(0, backoff_bound(course.attempts, limits.backoff_s))
        if fault.wait_s is not None:
            pause = max(pause, fault.wait_s)
        if fault.code == 429 and fault.again:
            gate.slow_down(sent_at=course.sent_at, wait_s=pause)
        if not fault.again or course.attempts > limits.retries or course.stalls > 1:
            return self._told(fault, course), None
        if time.monotonic() + pause > course.started + limits.total_s:
            if fault.wait_s is not None and fault.wait_s >= pause:
                why = f"the server asks to wait for {fault.wait_s:g} s, {self._too_long}"
            else:
                why = f"no time is left of total_s = {limits.total_s:g}"
            return self._told(fault._replace(detail=f"{fault.detail}; {why}"), course), None
        return fault, pause

    @property
    def _too_long(self) -> str:
        return f"which does not fit into total_s = {self._limits.total_s:g}"

    def _told(self, fault: Fault, course: _Course) -> Fault:
        if course.attempts == 1:
            return fault
        return fault._replace(detail=f"{fault.detail} (after {course.attempts} attempts)")


def _read(content: bytes, read: Callable[[object], T]) -> T | Fault:
    try:
        return read(json.loads(content))
    except ValueError:
        return Fault("http_error", f"the answer is not JSON: {quoted(content)}", again=True, code=200)
    except WrongShapeError as error:
        detail = f"the answer is not of the expected form ({error}): {quoted(content)}"
        return Fault("http_error", detail, again=True, code=200)
