"""A long run with faults: 20,000 questions through five HTTP agents, a share of whose calls fails.

Run with: python benchmarks/soak/run.py [--questions 20000] [--json FILE]. It fails when an answer is lost, tokens do
not add up, memory grows, or a task or connection is left over.

Three agents fail in transit (5 % of the sendings: broken connections, 429, 5xx, nonsense; retried), two for good (5 %
of the questions: errors, empty answers, refusals, answers that are cut). Every answer is kept in a store; half way the
server is killed and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from http_server import HttpServer

from fusion import Agent, AgentPool, Ensemble, Spec, load_task
from fusion.agents import RecordStore
from fusion.evaluation import versions
from fusion.live import Limits
from fusion.schema import FINAL

MODELS = ("faulty-0.05", "faulty-0.05", "faulty-0.05", "broken-0.05", "broken-0.05")
AT_ONCE = 16
GROWTH_MIB = 24.0
"""Memory that may be gained after the first tenth: SQLite's page cache fills up to 16 MiB, and what allocators keep."""


def pool_at(url: str) -> AgentPool:
    # A seed makes the requests of the twins differ, so that each fails at questions of its own.
    engine = Spec("openai", {"base_url": url, "concurrency": 48, "read_s": 5.0, "backoff_s": 0.05, "retries": 6})
    return AgentPool(
        tuple(
            Agent(name=f"{model}-{i}", engine=engine, model=model, mode="generate", max_tokens=16, temperature=1.0)
            for i, model in enumerate(MODELS)
        )
    )


def resident_mib() -> float:
    """Return the memory of this process now; the peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(server: HttpServer, num_questions: int, store: RecordStore) -> dict[str, object]:
    """Ask everything, and return what was seen."""
    task = load_task(f"micro(test_size={num_questions})")
    questions = task.load("test")
    ensemble = Ensemble(pool_at(server.url), "all_agents", "vote")
    limits = Limits(quorum=0, settle=False)
    statuses: dict[str, Counter[str]] = {name: Counter() for name in ensemble.pool.names}
    tokens = Counter[str]()
    memory: list[float] = []
    answered = 0
    waiting = iter(questions)

    async def work() -> None:
        nonlocal answered
        for question in waiting:
            answer = await ensemble.aanswer(question, reader=task, limits=limits, store=store)
            answered += 1
            for member in answer.members:
                statuses[member.agent][member.status] += 1
                tokens["in"] += member.usage.tokens_in or 0
                tokens["out"] += member.usage.tokens_out or 0
            if answered % max(num_questions // 40, 1) == 0:
                gc.collect()
                memory.append(resident_mib())
                sys.stderr.write(f"\r{answered} of {num_questions}, {memory[-1]:.0f} MiB ")
            if answered == num_questions // 2:
                # While others are on their way.
                await asyncio.to_thread(server.restart)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await ensemble.aclose()
    await asyncio.sleep(0.2)
    sys.stderr.write("\n")
    return {
        "answered": answered,
        "statuses": {name: dict(counts) for name, counts in statuses.items()},
        "tokens": dict(tokens),
        "memory_mib": [round(value, 1) for value in memory],
        "tasks_left": len(asyncio.all_tasks()) - 1,
    }


def problems(seen: dict[str, object], stored: dict[str, Counter[str]], tokens: Counter[str], total: int) -> list[str]:
    """Return what is wrong; empty when nothing is."""
    found = []
    statuses = {name: Counter(counts) for name, counts in seen["statuses"].items()}  # type: ignore[attr-defined]
    if seen["answered"] != total:
        found.append(f"{seen['answered']} of {total} questions were answered")
    for name, counts in statuses.items():
        if counts != stored[name]:
            found.append(f"{name}: the answers say {dict(counts)}, the store {dict(stored[name])}")
        if counts.total() != total:
            found.append(f"{name}: {counts.total()} calls for {total} questions")
        if name.startswith("faulty") and counts["ok"] < 0.999 * total:
            found.append(f"{name}: retries mended only {counts['ok']} of {total}")
        if name.startswith("broken") and not 0.93 * total < counts["ok"] < 0.97 * total:
            found.append(f"{name}: {counts['ok']} of {total} are ok, 95 % should be")
    if Counter(seen["tokens"]) != tokens:  # type: ignore[call-overload]  # it is a mapping
        found.append(f"the answers' tokens are {seen['tokens']}, the store's {dict(tokens)}")
    if seen["tasks_left"]:
        found.append(f"{seen['tasks_left']} tasks are left over")
    memory = seen["memory_mib"]
    assert isinstance(memory, list)
    growth = memory[-1] - memory[len(memory) // 10]
    if growth > GROWTH_MIB:
        found.append(f"memory grew by {growth:.0f} MiB after the first tenth")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    start = time.perf_counter()
    with HttpServer() as server, tempfile.TemporaryDirectory() as folder, RecordStore.open(folder) as store:
        seen = asyncio.run(soak(server, chosen.questions, store))
        seconds = time.perf_counter() - start
        stored: dict[str, Counter[str]] = {name: Counter() for name in pool_at(server.url).names}
        tokens = Counter[str]()
        for tally in store.summary():
            stored[tally.agent][tally.status] += tally.answers
            tokens["in"] += tally.tokens_in
            tokens["out"] += tally.tokens_out
        connections = int(server.stats()["connections_open"]) - 1  # the one that asks
    found = problems(seen, stored, tokens, chosen.questions)
    if connections:
        found.append(f"{connections} connections are left open")
    calls = chosen.questions * len(MODELS)
    print(f"{chosen.questions} questions, {calls} calls in {seconds:.0f} s ({calls / seconds:.0f} calls/s)")
    for name, counts in stored.items():
        final = sum(count for status, count in counts.items() if status in FINAL)
        listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"  {name}: {100 * final / counts.total():.2f} % final; {listed}")
    memory = seen["memory_mib"]
    print(f"  memory, MiB: {memory}")
    for problem in found:
        print(f"  WRONG: {problem}")
    if chosen.json:
        told = {"versions": versions(), "hardware": f"{platform.machine()}, {os.cpu_count()} cores", **seen}
        chosen.json.write_text(json.dumps(told | {"seconds": seconds, "problems": found}, indent=1) + "\n")
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
