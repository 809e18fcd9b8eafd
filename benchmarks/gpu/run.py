"""Throughput on a GPU: each member alone and the pool, through the engines hf and vllm.

    python benchmarks/gpu/run.py [--engines hf,vllm] [--members 4] [--prompts 1000] [--size 1b] [--repeats 3]
        [--dtype bfloat16] [--vllm-python PYTHON] [--work DIR] [--check] [--json FILE]

Makes members with random weights of the shape of Llama-3.2-1B, all but the last LoRA adapters over one base. Each
answers prompts of about 200 tokens, once by scoring four labels and once by writing 128 tokens. Sides take turns, in
the opposite order in every other repeat; each starts its engine anew, and the start counts apart. README.md says what
the columns mean. `--size tiny` tries the same on a processor, where its figures mean nothing.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.measure import (
    POOL,
    WORKLOADS,
    Bench,
    EngineName,
    Setup,
    Visit,
    answers,
    nvidia_smi,
    pool_of,
    requests_of,
    setups,
)
from benchmarks.gpu.models import SHAPES, Member, make_members, shape_json
from fusion import Spec
from fusion.agents import Engines
from fusion.errors import FusionError
from fusion.evaluation import versions
from fusion.schema import Completion

ROOT = Path(__file__).resolve().parents[2]
ENGINES: tuple[EngineName, ...] = ("hf", "vllm")
CHECK_PROMPTS, CHECK_TOKENS = 20, 32
CHECK_GAP_NATS, CHECK_TEXTS = 1e-2, 18
"""Kernels on a GPU may multiply float32 with 10 bits of mantissa, so log-probabilities of a few nats may differ in
their third decimal, and a choice between two almost equally likely tokens may turn once in a while. Another adapter, or
none, changes log-probabilities by far more, and every text."""
_VERSION = (
    "import importlib.metadata as m, importlib.util as u, sys\n"
    "names = m.packages_distributions().get('vllm', ()) if u.find_spec('vllm') else ()\n"
    "print(m.version(names[0]) if names else '')"
)


class Agreement(NamedTuple):
    """How far two engines answer the same, for one member.

    Attributes:
        member: Its name.
        same_texts: Of CHECK_PROMPTS answers, how many are the same to the letter.
        same_choices: Of CHECK_PROMPTS questions with options, on how many the likeliest option is the same.
        largest_gap_nats: Between log-probabilities of options.
    """

    member: str
    same_texts: int
    same_choices: int
    largest_gap_nats: float

    @property
    def holds(self) -> bool:
        """Whether that is as close as float32 allows."""
        return self.same_texts >= CHECK_TEXTS and self.largest_gap_nats <= CHECK_GAP_NATS


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="hf,vllm", help="hf, vllm, or both with a comma")
    parser.add_argument("--members", type=int, default=4, help="all but the last are adapters over one base")
    parser.add_argument("--prompts", type=int, default=1000, help="a workload and member")
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=128, help="rows in a batch of hf")
    parser.add_argument("--concurrency", type=int, default=256, help="prompts that vllm has out at a time, per member")
    parser.add_argument("--vllm-python", help="the Python that has vLLM; by default this one")
    parser.add_argument("--work", type=Path, help="where members are made and kept; by default a temporary folder")
    parser.add_argument("--check", action="store_true", help="first see that both engines answer the same in float32")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(words)
    chosen.engines = chosen.engines.split(",")
    if unknown := sorted(set(chosen.engines) - set(ENGINES)):
        parser.error(f"--engines must be hf, vllm, or hf,vllm; got {', '.join(unknown)}")
    if chosen.members < 2:
        parser.error(f"--members must be at least 2, an adapter and another base; got {chosen.members}")
    if min(chosen.prompts, chosen.repeats, chosen.batch_size, chosen.concurrency) < 1:
        parser.error("--prompts, --repeats, --batch-size and --concurrency must be at least 1")
    if chosen.work is not None and ROOT in (chosen.work.resolve(), *chosen.work.resolve().parents):
        parser.error(f"--work must be outside the repository {ROOT}, as gigabytes are written; got {chosen.work}")
    return chosen


def vllm_version(python: str) -> str:
    """Return the version of vLLM in a Python; "" when it has none, or does not run."""
    try:
        told = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()


def usable(chosen: argparse.Namespace) -> tuple[list[EngineName], str]:
    """Return the engines that can be asked, and the version of vLLM.

    Raises:
        SystemExit: When there is no GPU for what is not tiny, or no engine is left.
    """
    if chosen.size != "tiny" and not torch.cuda.is_available():
        sys.exit(
            f"no GPU: torch {torch.__version__} finds none. Run this on a machine with a GPU and a build of torch for "
            "it, or try the script on the processor: --size tiny --prompts 20"
        )
    engines: list[EngineName] = [name for name in ENGINES if name in chosen.engines]
    python = chosen.vllm_python or sys.executable
    version = vllm_version(python) if "vllm" in engines else ""
    if "vllm" in engines and not version:
        engines.remove("vllm")
        left = "only hf is measured" if engines else "nothing is left to measure"
        print(f"vLLM is not installed in {python} ({python} -m pip install vllm==0.32.0): {left}", file=sys.stderr)
    if not engines:
        sys.exit(1)
    return engines, version


def specs(chosen: argparse.Namespace, dtype: str) -> dict[EngineName, Spec]:
    """Return the engines, as a pool file would name them."""
    served: dict[str, Any] = {"dtype": dtype, "schedule": "together", "concurrency": chosen.concurrency}
    if chosen.vllm_python:
        served["python"] = chosen.vllm_python
    if not torch.cuda.is_available():
        # Compiling for a processor takes minutes.
        served["enforce_eager"] = True
    return {
        "hf": Spec("hf", {"dtype": dtype, "batch_size": chosen.batch_size, "max_models": 2}),
        "vllm": Spec("vllm", served),
    }


def measured(bench: Bench, sides: Sequence[Setup], repeats: int) -> dict[Setup, list[Visit]]:
    """Visit every side in every repeat, and tell how it goes."""
    visits: dict[Setup, list[Visit]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            visit = bench.visit(side, repeat=repeat)
            visits[side].append(visit)
            times = ", ".join(f"{timed.workload} {timed.way} {timed.seconds:.2f} s" for timed in visit.timed)
            begun = f"[{repeat + 1}/{repeats}] {side.engine}, {side.who}: started in {visit.start_seconds:.1f} s; "
            print(begun + times, file=sys.stderr, flush=True)
    return visits


def rows_of(visits: Mapping[Setup, Sequence[Visit]]) -> list[dict[str, Any]]:
    """Return a row for each workload, side and way; rates are of the median of seconds."""
    rows = []
    for workload in WORKLOADS:
        for side, made in visits.items():
            for way in side.ways:
                timed = [one for visit in made for one in visit.timed if (one.workload, one.way) == (workload, way)]
                seconds, first = [one.seconds for one in timed], timed[0]
                median = statistics.median(seconds)
                rows.append(
                    {
                        "workload": workload,
                        "engine": side.engine,
                        "who": side.who,
                        "way": way,
                        "requests": first.requests,
                        "prompt_tokens": first.prompt_tokens,
                        "generated_tokens": first.generated_tokens,
                        "seconds": seconds,
                        "median_s": median,
                        "requests_per_s": first.requests / median,
                        "prompt_tokens_per_s": first.prompt_tokens / median,
                        "generated_tokens_per_s": first.generated_tokens / median,
                    }
                )
    return rows


def starts_of(visits: Mapping[Setup, Sequence[Visit]]) -> list[dict[str, Any]]:
    """Return what starting took, and the most memory that was in use."""
    return [
        {
            "engine": side.engine,
            "who": side.who,
            "start_seconds": [visit.start_seconds for visit in made],
            "peak_gpu_gib": [visit.peak_gib for visit in made],
        }
        for side, made in visits.items()
    ]


def ratios_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the ratios of seconds, taken within each repeat: what sharing gains, and what vllm gains over hf."""
    found = []

    def add(what: str, row: Mapping[str, Any], above: Sequence[float], below: Sequence[float]) -> None:
        values = [over / under for over, under in zip(above, below, strict=True)]
        named = {name: row[name] for name in ("workload", "engine", "who", "way")}
        found.append({"what": what, **named, "ratios": values, "median": statistics.median(values)})

    for row in rows:
        same = [other for other in rows if other["workload"] == row["workload"]]
        if row["who"] == POOL:
            alone = [other["seconds"] for other in same if other["engine"] == row["engine"] and other["way"] == "alone"]
            add("pool / members alone, summed", row, row["seconds"], [sum(each) for each in zip(*alone, strict=True)])
        if row["engine"] == "vllm":
            here = [other for other in same if (other["engine"], other["who"]) == ("hf", row["who"])]
            if here:
                add("throughput, vllm / hf", row, here[0]["seconds"], row["seconds"])
    return found


def show(result: Mapping[str, Any]) -> None:
    console = Console(width=max(110, Console().width))
    for workload in WORKLOADS:
        table = Table(title=f"{workload}: {result['workloads'][workload]}")
        for name in ("engine", "who", "asked"):
            table.add_column(name)
        for name in ("requests", "median s", "requests/s", "prompt tokens/s", "generated tokens/s"):
            table.add_column(name, justify="right")
        for row in result["rows"]:
            if row["workload"] == workload:
                rates = [f"{row[f'{what}_per_s']:,.1f}" for what in ("requests", "prompt_tokens", "generated_tokens")]
                cells = [row["engine"], row["who"], row["way"], str(row["requests"]), f"{row['median_s']:.2f}"]
                table.add_row(*cells, *rates)
        console.print(table)
    table = Table("what", "workload", "engine", "who", "asked", "median", "lowest to highest", title="ratios")
    for row in result["ratios"]:
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        names = [row[name] for name in ("what", "workload", "engine", "who", "way")]
        table.add_row(*names, f"{row['median']:.2f}", spread)
    console.print(table)
    table = Table("engine", "who", "start, median s", "peak GPU memory, GiB", title="starts (not in the times above)")
    for row in result["starts"]:
        peaks = [peak for peak in row["peak_gpu_gib"] if peak is not None]
        most = f"{max(peaks):.2f}" if peaks else "unknown"
        table.add_row(row["engine"], row["who"], f"{statistics.median(row['start_seconds']):.1f}", most)
    console.print(table)


def check(chosen: argparse.Namespace, bench: Bench, members: Sequence[Member]) -> list[Agreement]:
    """Return how far hf and vllm agree in float32, member by member."""
    asked = {name: bench.questions(CHECK_PROMPTS, continuations) for name, continuations in WORKLOADS.items()}

    async def of(engine: EngineName) -> list[list[Completion]]:
        pool = pool_of(members, specs(chosen, "float32")[engine], max_tokens=CHECK_TOKENS)
        found = []
        async with Engines(pool) as engines:
            for agent in pool:
                made = engines.engine_of(agent)
                requests = [await requests_of(agent, made, questions) for questions in asked.values()]
                found.append(await answers(made, [request for each in requests for request in each]))
        return found

    here, served = asyncio.run(of("hf")), asyncio.run(of("vllm"))
    return [agreement(member.name, mine, theirs) for member, mine, theirs in zip(members, here, served, strict=True)]


def agreement(member: str, here: Sequence[Completion], served: Sequence[Completion]) -> Agreement:
    """Return how far two lists of answers to the same requests agree."""
    pairs = list(zip(here, served, strict=True))
    scored = [(a.option_logprobs, b.option_logprobs) for a, b in pairs if a.option_logprobs and b.option_logprobs]
    return Agreement(
        member,
        sum(a.text == b.text and a.option_logprobs is None for a, b in pairs),
        sum(a.index(max(a)) == b.index(max(b)) for a, b in scored),
        max(abs(p - q) for a, b in scored for p, q in zip(a, b, strict=True)),
    )


def hardware() -> dict[str, Any]:
    gpus = nvidia_smi("name", "driver_version", "memory.total")
    seen = range(torch.cuda.device_count())
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpus": [dict(zip(("name", "driver", "memory_mib"), row, strict=True)) for row in gpus]
        or [{"name": torch.cuda.get_device_name(i)} for i in seen],
        "cuda": cast("Any", torch).version.cuda,
        "load": os.getloadavg()[0],
    }


def run(chosen: argparse.Namespace, work: Path) -> bool:
    """Measure, print, and write the JSON; return whether the engines agreed, if that was checked."""
    engines, vllm = usable(chosen)
    before = hardware()
    members = make_members(work, chosen.size, chosen.members)
    new_tokens = SHAPES[chosen.size].new_tokens
    bench = Bench(prompts=chosen.prompts, new_tokens=new_tokens, specs=specs(chosen, chosen.dtype))
    checked = None
    if chosen.check and len(engines) < 2:
        print("--check compares hf with vllm, and one of them is not measured: nothing is checked", file=sys.stderr)
    elif chosen.check:
        checked = check(chosen, bench, members)
        for found in checked:
            verdict = "the same" if found.holds else "NOT the same"
            print(
                f"float32, {found.member}: hf and vllm answer {verdict}: {found.same_texts} of {CHECK_PROMPTS} texts, "
                f"{found.same_choices} of {CHECK_PROMPTS} choices, log-probabilities by {found.largest_gap_nats:.1e} "
                "nats at most"
            )
    visits = measured(bench, setups(engines, members), chosen.repeats)
    rows = rows_of(visits)
    result: dict[str, Any] = {
        "command": {name: str(value) if isinstance(value, Path) else value for name, value in vars(chosen).items()},
        "versions": versions() | ({"vllm": vllm} if vllm else {}),
        "hardware": before,
        "shape": shape_json(chosen.size),
        "members": [member.name for member in members],
        "workloads": {
            "options": f"{len(WORKLOADS['options'])} labels scored after about 200 tokens",
            "generation": f"{new_tokens} tokens written after about 200 tokens",
        },
        "rows": rows,
        "ratios": ratios_of(rows),
        "starts": starts_of(visits),
        "check": [found._asdict() | {"holds": found.holds} for found in checked] if checked is not None else None,
    }
    show(result)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    return all(found.holds for found in checked or ())


def main() -> None:
    chosen = parsed()
    # Everything is made here, so nothing is to be looked for on the hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    try:
        if chosen.work is not None:
            agreed = run(chosen, chosen.work.resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="fusion-gpu-") as folder:
                agreed = run(chosen, Path(folder))
    except FusionError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if agreed else 1)


if __name__ == "__main__":
    main()
