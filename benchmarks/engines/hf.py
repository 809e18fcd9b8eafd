"""What batches gain in process: one request at a time against eight, the same model in the same process.

Run with: python benchmarks/engines/hf.py [--repeats 7] [--threads N] [--json FILE].

The model is a random Llama (8 layers, 512 wide), made on the spot. Sides take turns within a repeat and each begins
first in every other one; the ratio is taken within each repeat, and medians are told. Both sides must give the same
answers, and what they give is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from tiny_models import TinyModels

from fusion.agents.hf import Hf
from fusion.evaluation import versions
from fusion.schema import Completion, Message, Request

WORDS = ("question", "answer", "capital", "France", "one", "two", "four", "which", "of", "these", "is", "the")
SIDES = (1, 8)
"""Rows in a batch."""


class Timed(NamedTuple):
    """What one side took, and what it answered."""

    seconds: float
    answers: list[Completion]


def workloads(model: str) -> dict[str, list[Request]]:
    """Return the requests of every row of the table; lengths are drawn, the same in every run."""
    chance = random.Random(0)

    def asked(low: int, high: int, **fields: object) -> Request:
        text = " ".join(chance.choices(WORDS, k=chance.randint(low, high)))
        plan: dict[str, object] = {"question_id": "q", "messages": (Message("user", text),), "model": model, **fields}
        return Request(**plan)  # type: ignore[arg-type]

    letters = ("A", "B", "four", "is")
    texts = ("Paris is the capital", "Rome is the capital", "two and two is four", "the answer is one")
    return {
        "16 answers of 32 tokens": [asked(10, 60, max_tokens=32) for _ in range(16)],
        "as many, sampled": [asked(10, 60, max_tokens=32, temperature=0.8, top_p=0.9, seed=n) for n in range(16)],
        "48 questions x 4 letters": [asked(40, 80, continuations=letters, scoring="exact") for _ in range(48)],
        "24 questions x 4 texts": [asked(40, 80, continuations=texts, scoring="exact") for _ in range(24)],
    }


async def ask(engine: Hf, requests: list[Request]) -> Timed:
    found: dict[int, Completion] = {}
    start = time.perf_counter()
    async with aclosing(engine.generate(requests)) as stream:
        async for index, completion in stream:
            found[index] = completion
    seconds = time.perf_counter() - start
    return Timed(seconds, [found[index] for index in range(len(requests))])


def differences(one: Timed, other: Timed) -> tuple[int, float]:
    """Return how many texts differ, and by how much log-probabilities differ at most, in nats."""
    pairs = list(zip(one.answers, other.answers, strict=True))
    gaps = [
        abs(a - b)
        for first, second in pairs
        for a, b in zip(first.option_logprobs or (), second.option_logprobs or (), strict=True)
    ]
    return sum(first.text != second.text for first, second in pairs), max(gaps, default=0.0)


async def measure(model: str, repeats: int) -> list[dict[str, object]]:
    engines = {size: Hf(batch_size=size, dtype="float32", device="cpu") for size in SIDES}
    rows: list[dict[str, object]] = []
    for what, requests in workloads(model).items():
        for engine in engines.values():
            await ask(engine, requests[:8])
        times: dict[int, list[float]] = {size: [] for size in SIDES}
        texts, gap = 0, 0.0
        for repeat in range(repeats):
            timed = {size: await ask(engines[size], requests) for size in (SIDES if repeat % 2 else SIDES[::-1])}
            for size in SIDES:
                times[size].append(timed[size].seconds)
            found = differences(timed[SIDES[0]], timed[SIDES[1]])
            texts, gap = max(texts, found[0]), max(gap, found[1])
        ratios = [slow / fast for slow, fast in zip(*times.values(), strict=True)]
        row: dict[str, object] = {
            "what": what,
            "requests": len(requests),
            "seconds_one_by_one": sorted(times[1]),
            "seconds_eight": sorted(times[8]),
            "ratios": sorted(ratios),
            "median_ratio": statistics.median(ratios),
            "texts_that_differ": texts,
            "largest_gap_nats": gap,
        }
        rows.append(row)
        print(
            f"{what:26} {statistics.median(times[1]):8.3f} s {statistics.median(times[8]):8.3f} s "
            f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  "
            f"{texts} texts differ, log-probabilities by {gap:.1e} nats at most"
        )
    for engine in engines.values():
        await engine.aclose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = TinyModels(Path(folder)).llama(hidden=512, layers=8, spread=0.05, context=1024)
        print(f"{'':26} {'one by one':>10} {'eight':>10}  ratio")
        rows = asyncio.run(measure(str(model), chosen.repeats))
    if chosen.json:
        result = {
            "versions": versions(),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {chosen.threads} threads",
            "load": os.getloadavg()[0],
            "repeats": chosen.repeats,
            "rows": rows,
        }
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
