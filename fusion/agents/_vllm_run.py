"""The work of a vLLM engine: requests by model and adapter, which server answers them, what happens when it dies."""

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from fusion.agents._hf_library import AdapterCard, Card, Library, Place
from fusion.agents._http_retry import Fault, Limits
from fusion.agents._tokens import prepare
from fusion.agents._vllm_client import Client, Job
from fusion.agents._vllm_command import Settings, cpu_cache_gib
from fusion.agents._vllm_fleet import Fleet, Server
from fusion.agents._vllm_health import is_healthy
from fusion.errors import EngineError, FusionError, suggest
from fusion.schema import FINAL, Completion, Request

Answer = tuple[int, Completion]

_POLL_S = 0.2
_LINES_SHOWN = 20
_ENDING_S = 5.0


class Attached(NamedTuple):
    """A server that runs already.

    Attributes:
        url: Where its API is.
        key_env: Name of the environment variable with its key; None for no key.
    """

    url: str
    key_env: str | None


class _Group(NamedTuple):
    """Requests of one model and adapter, by their places in the caller's list."""

    card: Card
    adapter: AdapterCard | None
    indices: list[int]


class _Line(NamedTuple):
    """Whom to ask.

    Attributes:
        client: Asks the server.
        name: Under which it knows the model, or model and adapter.
        context: Most tokens of prompt and answer; None when there is no limit.
        server: When it is ours.
    """

    client: Client
    name: str
    context: int | None
    server: Server | None = None


class Runner:
    """Answers requests; owns the servers.

    Args:
        settings: How servers are started.
        library: Where models are looked up.
        limits: What a call may take.
        batch: Most prompts in one call.
        restarts: Times that a server that died is started again within one call of `generate`.
        attached: A server that runs already; None to start servers.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        limits: Limits,
        batch: int,
        restarts: int,
        attached: Attached | None,
    ) -> None:
        self.settings = settings
        self.library = library
        self.attached = attached
        self.fleet = Fleet(settings, library)
        self._limits = limits
        self._batch = batch
        self._restarts = restarts
        self._clients: dict[tuple[str, str | None], Client] = {}

    def expect(self, request: Request) -> None:
        """Take note of what will be asked; what cannot be found is told when it is."""
        if self.attached is None:
            with contextlib.suppress(FusionError):
                self.fleet.expect(request)

    def placement(self, request: Request) -> str:
        """Return where the request would be answered, in words.

        Raises:
            EngineError: When the model cannot be found or sized.
        """
        if self.attached is not None:
            return f"the vLLM server at {self.attached.url}"
        self.fleet.expect(request)
        share, adapters, bases, device = self.fleet.placement(self.library.card(request))
        beside = f" with {adapters} adapter{'s' * (adapters > 1)}" if adapters else ""
        where = f"{share.fraction:.0%} of {device.name} ({device.total / 2**30:.0f} GiB)"
        if not device.devices:
            where = f"no accelerator, {cpu_cache_gib()} GiB of memory for keys and values"
        if bases == 1:
            return f"a vLLM server of its own{beside}: {where}"
        if share.sequential:
            return f"one of {bases} vLLM servers{beside}, one after another (schedule: sequential): {where}"
        return f"one of {bases} vLLM servers{beside} that run together (schedule: together): {where}"

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Answer, None]:
        """Yield (index, completion) as they come; requests of one model and adapter are answered together.

        Raises:
            FusionError: When no request can be answered.
        """
        unavailable: dict[int, FusionError] = {}
        deaths: Counter[Place] = Counter()
        closed = self.fleet.closed
        for group in self._groups(requests, unavailable):
            waiting = set(group.indices)
            try:
                async with aclosing(self._answered(group, requests, waiting, deaths, closed)) as answers:
                    async for index, completion in answers:
                        yield index, completion
            except EngineError as error:
                unavailable |= dict.fromkeys(waiting, error)
        if unavailable and len(unavailable) == len(requests):
            raise unavailable[min(unavailable)]
        for index, reason in sorted(unavailable.items()):
            yield index, Completion(status="engine_error", detail=str(reason))

    async def aclose(self) -> None:
        """End the servers that were started, and close the connections of the running loop."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()
        await asyncio.to_thread(self.fleet.close)

    async def listed(self) -> dict[str, tuple[str, int | None]]:
        """Return what the attached server lists: by name, where it was loaded from, and its context.

        Raises:
            EngineError: When it does not say.
        """
        client = self._attached_client()
        found = await client.models()
        if isinstance(found, Fault):
            raise EngineError(
                f"the vLLM server at {client.url} does not list its models: {found.detail}; start it, or mend url, "
                "which ends with /v1 as a rule"
            )
        context = {entry.get("id"): entry.get("max_model_len") for entry in found}
        told: dict[str, tuple[str, int | None]] = {}
        for entry in found:
            # Of an adapter only its parent's context is told.
            limit = entry.get("max_model_len") or context.get(entry.get("parent"))
            told[str(entry.get("id"))] = (str(entry.get("root") or ""), limit if isinstance(limit, int) else None)
        return told

    async def attached_line(self, card: Card, adapter: AdapterCard | None) -> _Line:
        """Return how to ask the attached server for a model, with its adapter.

        Raises:
            EngineError: When it does not serve it.
        """
        listed = await self.listed()
        wanted = adapter or card
        name = _served_as(wanted.name, wanted.place.source, listed)
        assert self.attached is not None, "only then there is a server to ask"
        if name is None:
            what = "adapter" if adapter else "model"
            how = f"--enable-lora --lora-modules NAME={adapter.name}" if adapter else f"--model {card.name}"
            raise EngineError(
                f"the vLLM server at {self.attached.url} serves no {what} {wanted.name!r}"
                f"{suggest(wanted.name, listed)}; start it with {how}"
            )
        return _Line(self._attached_client(), name, listed[name][1])

    def _groups(self, requests: Sequence[Request], unavailable: dict[int, FusionError]) -> list[_Group]:
        """Return the requests by model and adapter, those of one model next to each other."""
        named: dict[tuple[str, str | None, str | None], list[int]] = {}
        for index, request in enumerate(requests):
            named.setdefault((request.model, request.revision, request.adapter), []).append(index)
        groups = []
        for indices in named.values():
            first = requests[indices[0]]
            try:
                groups.append(_Group(self.library.card(first), self.library.adapter(first), indices))
                if self.attached is None:
                    self.fleet.expect(first)
            except FusionError as error:
                unavailable |= dict.fromkeys(indices, error)
        order = {group.card.place: i for i, group in reversed(list(enumerate(groups)))}
        return sorted(groups, key=lambda group: order[group.card.place])

    async def _answered(
        self,
        group: _Group,
        requests: Sequence[Request],
        waiting: set[int],
        deaths: "Counter[Place]",
        closed: threading.Event,
    ) -> AsyncGenerator[Answer, None]:
        """Yield the answers of a group, each taken out of `waiting` before; a server that dies is started again."""
        base = group.card.place
        while waiting:
            async with self._line(group, closed) as line:
                jobs, refused = await asyncio.to_thread(_jobs, group, requests, sorted(waiting), line.context)
                for answer in refused:
                    waiting.discard(answer[0])
                    yield answer
                async with aclosing(self._until_death(line, jobs)) as answers:
                    async for answer in answers:
                        waiting.discard(answer[0])
                        yield answer
            if not waiting:
                return
            assert line.server is not None, "only a server of ours leaves questions open"
            deaths[base] += 1
            process = line.server.process
            how = process.exited() or "it did not answer any more"
            said = process.last_lines(_LINES_SHOWN)
            await asyncio.to_thread(process.stop)
            if deaths[base] > self._restarts and not closed.is_set():
                raise EngineError(
                    f"the vLLM server of {group.card.name!r} died {deaths[base]} times over {len(requests)} requests "
                    f"({how}), and restarts = {self._restarts}; the last lines of its log:\n{said}"
                )

    @asynccontextmanager
    async def _line(self, group: _Group, closed: threading.Event) -> AsyncIterator[_Line]:
        if self.attached is not None:
            yield await self.attached_line(group.card, group.adapter)
            return
        async with self.fleet.lent(group.card, group.adapter, closed=closed) as server:
            live = self.fleet.live()
            for gone in [place for place in self._clients if place[0] not in live]:
                await self._clients.pop(gone).aclose()
            name = server.names[group.adapter.place.source if group.adapter else ""]
            yield _Line(self._client(server.url, server.key), name, server.context, server)

    async def _until_death(self, line: _Line, jobs: Sequence[Job]) -> AsyncGenerator[Answer, None]:
        """Yield answers until all are there, or the server, if it is ours, is not there any more."""
        async with aclosing(line.client.generate(line.name, jobs)) as answers:
            while True:
                coming = asyncio.ensure_future(anext(answers, None))
                try:
                    while not coming.done() and (line.server is None or line.server.is_up):
                        await asyncio.wait({coming}, timeout=_POLL_S)
                finally:
                    if not coming.done():
                        coming.cancel()
                        await asyncio.gather(coming, return_exceptions=True)
                if coming.cancelled():
                    return
                answer = coming.result()
                if answer is None:
                    return
                # What a dying server says of a request is not about the request.
                if (
                    answer[1].status not in FINAL
                    and line.server is not None
                    and not await _lives(line.server, answer[1])
                ):
                    return
                yield answer

    def _attached_client(self) -> Client:
        assert self.attached is not None, "servers that are ours are asked by the fleet"
        url, key_env = self.attached
        key = os.environ.get(key_env, "").strip() if key_env else None
        if key_env and not key:
            raise EngineError(f"the environment variable {key_env}, named by api_key_env, is not set; export it")
        return self._client(url, key)

    def _client(self, url: str, key: str | None) -> Client:
        if (url, key) not in self._clients:
            self._clients[url, key] = Client(url, key=key, limits=self._limits, batch=self._batch)
        return self._clients[url, key]


async def _lives(server: Server, failure: Completion) -> bool:
    """Return whether a server that failed at a request goes on."""
    # One that breaks answers off is ending, but may say for a while that it is well.
    until = time.monotonic() + (_ENDING_S if failure.status == "engine_error" else 0)
    while server.is_up and await asyncio.to_thread(is_healthy, server.port):
        if time.monotonic() >= until:
            return True
        await asyncio.sleep(_POLL_S)
    return False


def _jobs(
    group: _Group, requests: Sequence[Request], indices: Sequence[int], context: int | None
) -> tuple[list[Job], list[Answer]]:
    """Return what can be asked, and for the rest what is wrong with it."""
    limits = [limit for limit in (context, group.card.context) if limit is not None]
    jobs: list[Job] = []
    refused: list[Answer] = []
    ends = group.card.ends
    for index in indices:
        request = requests[index]
        try:
            prepared = prepare(request, group.card, context=min(limits, default=None))
        except FusionError as error:
            refused.append((index, Completion(status="engine_error", detail=str(error))))
            continue
        jobs.append(Job(index=index, request=request, card=group.card, prepared=prepared, ends=ends))
    return jobs, refused


def _served_as(name: str, source: str, listed: dict[str, tuple[str, int | None]]) -> str | None:
    """Return under which name a server serves what is called `name` here and lies at `source`."""
    if name in listed:
        return name
    for served, (root, _) in listed.items():
        if root and (root == name or Path(root).expanduser().absolute() == Path(source).absolute()):
            return served
    return None
