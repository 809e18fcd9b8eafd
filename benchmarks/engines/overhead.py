"""What asking through fusion costs over the bare client: the same calls, the same concurrency, one server.

Run with: python benchmarks/engines/overhead.py [--questions 300] [--repeats 7] [--json FILE].

Five agents answer every question. The bare loop posts the same bodies with one httpx.AsyncClient and a semaphore; the
engine alone, the ensemble (`Ensemble.aanswer`: select, ask, read, vote), the ensemble that keeps a record, and the
recorder do the same calls. Sides take turns within a repeat; the ratio is taken within each repeat, and medians are
told. The server is a process of its own on the same cores, and answers after 0 or more milliseconds.
Seconds of this process's CPU are told beside the wall's: on a busy machine they are the steadier figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from http_server import HttpServer

from fusion import Agent, AgentPool, Ensemble, Spec, load_task
from fusion.agents import Engines, Recorder, RecordStore
from fusion.evaluation import versions
from fusion.live import Limits
from fusion.schema import Question

AGENTS = 5
AT_ONCE = 8
"""Questions in flight; five calls each."""


def pool_at(url: str) -> AgentPool:
    engine = Spec("openai", {"base_url": url, "concurrency": AGENTS * AT_ONCE})
    return AgentPool(
        tuple(
            Agent(name=f"agent-{i}", engine=engine, model="letter", mode="generate", max_tokens=16)
            for i in range(AGENTS)
        )
    )


async def bare(url: str, questions: list[Question]) -> None:
    """Post every body with a plain client."""
    gate = asyncio.Semaphore(AGENTS * AT_ONCE)
    limits = httpx.Limits(max_connections=AGENTS * AT_ONCE, max_keepalive_connections=AGENTS * AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def ask(question: Question) -> str:
            body = {
                "model": "letter",
                "messages": [message._asdict() for message in question.messages],
                "max_tokens": 16,
                "temperature": 0.0,
                "top_p": 1.0,
            }
            async with gate:
                response = await client.post(f"{url}/chat/completions", json=body)
            response.raise_for_status()
            return str(response.json()["choices"][0]["message"]["content"])

        await asyncio.gather(*(ask(question) for question in questions for _ in range(AGENTS)))


async def engine_alone(url: str, questions: list[Question]) -> None:
    """The engine's own stream of answers."""
    pool = pool_at(url)
    async with Engines(pool) as engines:
        agent = pool.agents[0]
        requests = [agent.request(question) for question in questions for _ in range(AGENTS)]
        async with aclosing(engines.engine_of(agent).generate(requests)) as answers:
            async for _, completion in answers:
                assert completion.status == "ok", completion


async def ensemble(url: str, questions: list[Question], store: RecordStore | None = None) -> None:
    """One `aanswer` a question, AT_ONCE at a time."""
    task = load_task("micro")
    asked = Ensemble(pool_at(url), "all_agents", "vote")
    waiting = iter(questions)
    # Every call is made, whatever the votes, and a letter beyond the options is nobody's fault.
    limits = Limits(quorum=0, settle=False)

    async def work() -> None:
        for question in waiting:
            await asked.aanswer(question, reader=task, store=store, limits=limits)

    try:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    finally:
        await asked.aclose()


async def ensemble_recorded(url: str, questions: list[Question]) -> None:
    """The same, every answer kept."""
    with tempfile.TemporaryDirectory() as folder, RecordStore.open(folder) as store:
        await ensemble(url, questions, store)


async def recorder(url: str, questions: list[Question]) -> None:
    """`fusion record` without the table."""
    pool = pool_at(url)
    with tempfile.TemporaryDirectory() as folder, RecordStore.open(folder) as store:
        async with Engines(pool) as engines:
            await Recorder(pool, engines, store).record(questions)


SIDES: dict[str, Callable[[str, list[Question]], Awaitable[None]]] = {
    "bare httpx loop": bare,
    "engine": engine_alone,
    "ensemble": ensemble,
    "ensemble, recorded": ensemble_recorded,
    "recorder": recorder,
}


def measure(server: HttpServer, questions: list[Question], repeats: int) -> list[dict[str, object]]:
    """Return the median seconds of every side, and of its ratio to the bare loop."""
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    busy: dict[str, list[float]] = {name: [] for name in SIDES}
    for repeat in range(repeats + 1):
        for name, side in SIDES.items():
            start, worked = time.perf_counter(), time.process_time()
            asyncio.run(side(server.url, questions))  # type: ignore[arg-type]  # every side is a coroutine function
            if repeat:  # the first fills caches
                times[name].append(time.perf_counter() - start)
                busy[name].append(time.process_time() - worked)
    plain, lazy = times["bare httpx loop"], busy["bare httpx loop"]
    rows: list[dict[str, object]] = []
    for name, taken in times.items():
        ratios = [mine / theirs for mine, theirs in zip(taken, plain, strict=True)]
        rows.append(
            {
                "side": name,
                "calls": len(questions) * AGENTS,
                "median_s": statistics.median(taken),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "cpu_s": statistics.median(busy[name]),
                "cpu_ratio": statistics.median([mine / theirs for mine, theirs in zip(busy[name], lazy, strict=True)]),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.05, 0.2], help="Seconds before each answer.")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    questions = list(load_task("micro").load("test")[: chosen.questions])
    results = []
    with HttpServer() as server:
        for delay in chosen.delays:
            server.configure(delay_s=delay)
            rows = measure(server, questions, chosen.repeats)
            results.append({"delay_s": delay, "rows": rows})
            print(f"server answers after {1000 * delay:g} ms; {len(questions)} questions x {AGENTS} agents")
            for row in rows:
                print(f"  {row['side']:20} {row['median_s']:7.3f} s   {row['ratio']:.3f} of the bare loop "
                      f"({row['ratio_min']:.3f} to {row['ratio_max']:.3f})   CPU {row['cpu_ratio']:.3f}")  # fmt: skip
    if chosen.json:
        hardware = f"{platform.machine()}, {os.cpu_count()} cores"
        told = {"versions": versions() | {"httpx": httpx.__version__}, "hardware": hardware, "results": results}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
