"""Time and memory of a mixture's experts as deltas on shared weights, beside experts of full matrices.

    python benchmarks/moe/speed.py [--quick] [--json FILE]
    python benchmarks/moe/speed.py --tables FILE

One block of 8 experts of rank 8, of which 2 compute each token, hidden width 512 and intermediate width 1,376, float32.
All forms compute the same, which is checked first, in one process, and take turns. Beside `DeltaExperts`: a loop over
experts that runs each on its own tokens, with full matrices, all trained; the same loop over frozen matrices with
trained LoRA on them, as adapters are tuned elsewhere; and the three ways of transformers' MixtralExperts. A training
step is forward and backward to everything that is trained, the inputs and the gate's weights; no optimizer. The
gathers of batched_mm are left out where they would need more than a GiB. Where others use the machine too, threads
that wait should not spin: set OMP_WAIT_POLICY=passive. --tables prints the tables of a file that
--json wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn
from torch.nn import functional
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from benchmarks.pruning.run import hardware
from fusion.evaluation import versions
from fusion.moe._adapter import LowRank
from fusion.moe._delta import DeltaExperts, DeltaProjection

EXPERTS, TOP_K, HIDDEN, INNER, RANK, SCALE = 8, 2, 512, 1376, 8, 0.5
REPEATS = {1: 61, 16: 41, 128: 21, 2048: 9}
LEAST, MOST_SECONDS = 5, 9
"""Turns are fewer, but not fewer than these, where a case would take longer."""
PROJECTIONS = "gate_proj", "up_proj", "down_proj"
DELTAS, LOOP, ADAPTED = "deltas", "loop", "loop, LoRA"
STOCK = "eager", "batched_mm", "grouped_mm"
MOST_GATHERED = 2**30
AIM, NEEDED = 2.0, 1.0


class Time(NamedTuple):
    """Seconds by the clock, and of the processor."""

    wall: float
    processor: float


class Inputs(NamedTuple):
    """What experts are given, and the gradient that comes back."""

    hidden: torch.Tensor
    chosen: torch.Tensor
    weights: torch.Tensor
    back: torch.Tensor

    @classmethod
    def drawn(cls, tokens: int, *, trains: bool) -> Inputs:
        """Draw the inputs of so many tokens, spread over experts as a gate that knows nothing would."""
        draws = torch.Generator().manual_seed(tokens)
        values, index = torch.randn(tokens, EXPERTS, generator=draws).softmax(dim=-1).topk(TOP_K, dim=-1)
        weights = values / values.sum(dim=-1, keepdim=True)
        hidden, back = (torch.randn(tokens, HIDDEN, generator=draws) for _ in range(2))
        return cls(hidden.requires_grad_(trains), index, weights.requires_grad_(trains), back)


Form = Callable[[Inputs], torch.Tensor]


class Adapted(nn.Module):
    """A frozen matrix, and one expert's LoRA on it."""

    def __init__(self, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.down, self.up = nn.Parameter(down.clone()), nn.Parameter(up.clone())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (W + s B A) x."""
        low = functional.linear(functional.linear(hidden, self.down), self.up)
        return functional.linear(hidden, self.weight) + low * SCALE


class Looped(nn.Module):
    """Experts one after another, each on the tokens that come to it."""

    def __init__(self, experts: list[nn.ModuleDict]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, given: Inputs) -> torch.Tensor:
        """Return what they add up to."""
        total = torch.zeros_like(given.hidden)
        expert: Any
        for number, expert in enumerate(self.experts):
            tokens, slots = torch.where(given.chosen == number)
            if len(tokens):
                hidden = given.hidden[tokens]
                made = expert["down_proj"](functional.silu(expert["gate_proj"](hidden)) * expert["up_proj"](hidden))
                total.index_add_(0, tokens, made * given.weights[tokens, slots, None])
        return total


def deltas() -> DeltaExperts:
    """Draw the experts."""
    draws = torch.Generator().manual_seed(0)

    def projection(out: int, into: int) -> DeltaProjection:
        def low() -> LowRank:
            down = torch.randn(RANK, into, generator=draws) * into**-0.5
            return LowRank(down, torch.randn(out, RANK, generator=draws) * RANK**-0.5, SCALE)

        weight = torch.randn(out, into, generator=draws) * into**-0.5
        return DeltaProjection.of(weight, deltas=[low() for _ in range(EXPERTS)])

    return DeltaExperts(
        projection(INNER, HIDDEN), up_proj=projection(INNER, HIDDEN), down_proj=projection(HIDDEN, INNER)
    )


def looped(experts: DeltaExperts) -> Looped:
    """Return the same experts as full matrices."""

    def linear(weight: torch.Tensor) -> nn.Linear:
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        made.weight = nn.Parameter(weight.clone())
        return made

    return Looped(
        [
            nn.ModuleDict({name: linear(experts.get_submodule(name).full(number)) for name in PROJECTIONS})  # type: ignore[operator]
            for number in range(EXPERTS)
        ]
    )


def adapted(experts: DeltaExperts) -> Looped:
    """Return the same experts as LoRA on the shared matrices."""

    def layer(projection: Any, number: int) -> Adapted:
        return Adapted(projection.weight.data, projection.down.data[number], projection.up.data[number])

    return Looped(
        [
            nn.ModuleDict({name: layer(experts.get_submodule(name), number) for name in PROJECTIONS})
            for number in range(EXPERTS)
        ]
    )


def stock(experts: DeltaExperts) -> MixtralExperts:
    """Return the same experts as transformers has them."""
    config = MixtralConfig(
        hidden_size=HIDDEN, intermediate_size=INNER, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K
    )
    found = MixtralExperts(config)
    with torch.no_grad():
        for number in range(EXPERTS):
            gate, up = experts.gate_proj.full(number), experts.up_proj.full(number)
            found.gate_up_proj[number] = torch.cat([gate, up])
            found.down_proj[number] = experts.down_proj.full(number)
    return found


class Bench:
    """All forms, and what is measured of them."""

    def __init__(self) -> None:
        experts = deltas()
        loop, lora, mixtral = looped(experts), adapted(experts), stock(experts)
        self.modules: dict[str, nn.Module] = {DELTAS: experts, LOOP: loop, ADAPTED: lora, STOCK[0]: mixtral}
        self.forms: dict[str, Form] = {
            DELTAS: lambda given: experts(given.hidden, given.chosen, given.weights),
            LOOP: loop,
            ADAPTED: lora,
        }
        for way in STOCK:
            self.forms[way] = self._stock(mixtral, way)

    def measured(self, tokens: int, *, trains: bool, repeats: int) -> dict[str, Any]:
        """Return seconds of all forms, which take turns with a large product and with reading as many weights."""
        given = Inputs.drawn(tokens, trains=trains)
        gathered = tokens * TOP_K * 2 * INNER * HIDDEN * 4
        forms = {name: form for name, form in self.forms.items() if name != "batched_mm" or gathered <= MOST_GATHERED}
        self._check(forms, given)
        times: dict[str, list[Time]] = {name: [] for name in (*forms, "product", "reading")}
        left, right = torch.ones(2048, HIDDEN), torch.ones(HIDDEN, 2 * INNER)
        weights = torch.ones(3 * HIDDEN * INNER)
        started = time.perf_counter()
        for turn in range(repeats):
            if turn >= LEAST and time.perf_counter() - started > MOST_SECONDS:
                break
            for name, form in forms.items():
                times[name].append(self._timed(form, given, trains=trains))
            with torch.inference_mode():
                times["product"].append(clocked(lambda: left @ right))
                times["reading"].append(clocked(weights.sum))
        found: dict[str, Any] = {"tokens": tokens, "trains": trains, "threads": torch.get_num_threads()}
        for place, clock in enumerate(Time._fields):
            own = {name: [pair[place] for pair in pairs] for name, pairs in times.items()}
            found[clock] = {name: [round(one, 7) for one in values] for name, values in own.items()}
            found[f"median_{clock}"] = {name: round(statistics.median(values), 7) for name, values in own.items()}
        # The best that the machine was seen to do, as a bound is not to move with what else it does.
        found["gflop_per_second"] = 2e-9 * left.numel() * right.shape[1] / min(found["wall"]["product"])
        found["gb_read_per_second"] = 1e-9 * weights.nbytes / min(found["wall"]["reading"])
        return found

    def memory(self) -> dict[str, Any]:
        """Return parameters and bytes of each form, and what forward of 2,048 tokens keeps for backward."""
        found = {}
        for name, module in self.modules.items():
            sizes = {one.data_ptr(): (one.nbytes, one.requires_grad) for one in module.parameters()}
            held = sum(size for size, _ in sizes.values())
            trained = sum(size for size, trains in sizes.values() if trains)
            found[name] = {
                "parameters": held // 4,
                "trained": trained // 4,
                "bytes": held,
                # A gradient and the two moments of Adam for each that is trained.
                "bytes_training": held + 3 * trained,
                "bytes_kept_at_2048": self._kept(self.forms[name], set(sizes)),
            }
        return found

    @staticmethod
    def _stock(mixtral: Any, way: str) -> Form:
        def form(given: Inputs) -> torch.Tensor:
            mixtral.config._experts_implementation = way
            found: torch.Tensor = mixtral(given.hidden, given.chosen, given.weights)
            return found

        return form

    @staticmethod
    def _kept(form: Form, own: set[int]) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = form(Inputs.drawn(2048, trains=True))
        assert output.requires_grad, "the graph is alive until here"
        return sum(kept.values())

    @staticmethod
    def _check(forms: dict[str, Form], given: Inputs) -> None:
        with torch.inference_mode():
            expected = forms[LOOP](given)
            for form in forms.values():
                torch.testing.assert_close(form(given), expected, rtol=1e-4, atol=1e-4)

    def _timed(self, form: Form, given: Inputs, *, trains: bool) -> Time:
        for module in self.modules.values():
            module.zero_grad(set_to_none=True)
        given.hidden.grad = given.weights.grad = None
        if not trains:
            with torch.inference_mode():
                return clocked(lambda: form(given))
        return clocked(lambda: form(given).backward(given.back))  # type: ignore[no-untyped-call]


def clocked(work: Callable[[], object]) -> Time:
    """Return how long some work takes."""
    start, spent = time.perf_counter(), time.process_time()
    work()
    return Time(time.perf_counter() - start, time.process_time() - spent)


def bounds(cases: list[dict[str, Any]]) -> None:
    """Add to each case the least time that its products and the reading of its weights could take.

    Rates are the greatest that were seen with so many threads. Weights are read once forward, and once backward.
    """
    for case in cases:
        rates = [
            max(other[rate] for other in cases if other["threads"] == case["threads"])
            for rate in ("gflop_per_second", "gb_read_per_second")
        ]
        read = (1 + case["trains"]) * 4 * 3 * HIDDEN * INNER
        computed = operations(case["tokens"], trains=case["trains"])
        case["bound"] = round(max(computed / rates[0], read / rates[1]) * 1e-9, 7)


def operations(tokens: int, *, trains: bool) -> int:
    """Return the additions and multiplications of products that cannot be done without.

    Forward: the three shared matrices once a token, and the two factors of each of its experts. Backward: the shared
    ones once more, for the gradient of their input, and the factors twice, for that and their own.
    """
    shared = 2 * tokens * 3 * HIDDEN * INNER
    low = 2 * tokens * TOP_K * 3 * RANK * (HIDDEN + INNER)
    return 2 * shared + 3 * low if trains else shared + low


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a run."""
    names = [DELTAS, LOOP, ADAPTED, *STOCK]
    head = ["threads", "tokens", "", *names, "loop / deltas", "turns", "fastest", "by processor", "LoRA loop / deltas"]
    lines = [f"| {' | '.join(head)} | bound | of it |", "|---:|---:|---|" + "---:|" * (len(head) - 1)]
    for case in result["cases"]:
        medians = case["median_wall"]
        turns = quantiles([slow / fast for fast, slow in zip(case["wall"][DELTAS], case["wall"][LOOP], strict=True)])
        cells = [f"{medians[name] * 1e3:.1f}" if name in medians else "-" for name in names]
        fastest = min(case["wall"][LOOP]) / min(case["wall"][DELTAS])
        cells += [f"{ratio(case):.2f}", turns, f"{fastest:.2f}"]
        cells += [f"{ratio(case, clock='processor'):.2f}", f"{ratio(case, ADAPTED):.2f}"]
        cells += [f"{case['bound'] * 1e3:.1f}", f"{case['bound'] / medians[DELTAS]:.0%}"]
        what = "step" if case["trains"] else "forward"
        lines.append(f"| {case['threads']} | {case['tokens']:,} | {what} | {' | '.join(cells)} |")
    lines += ["", verdict(result), ""]
    head = ["", "parameters", "trained", "MB", "MB with gradients and Adam", "MB kept for backward, 2,048 tokens"]
    lines += [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, told in result["memory"].items():
        cells = [f"{told[key]:,}" for key in ("parameters", "trained")]
        cells += [f"{told[key] / 1e6:.1f}" for key in ("bytes", "bytes_training", "bytes_kept_at_2048")]
        lines.append(f"| {'MixtralExperts, eager' if name == 'eager' else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def quantiles(values: list[float]) -> str:
    """Return the first and third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.1f} to {high:.1f}"


def ratio(case: dict[str, Any], other: str = LOOP, *, clock: str = "wall") -> float:
    """Return how many times as long another form takes."""
    medians: dict[str, float] = case[f"median_{clock}"]
    return medians[other] / medians[DELTAS]


def verdict(result: dict[str, Any]) -> str:
    """Return whether the goals are met, and on what machine."""
    said = []
    for threads in sorted({case["threads"] for case in result["cases"]}):
        own = [case for case in result["cases"] if case["threads"] == threads]
        few, many = (min(ratio(case) for case in own if (case["tokens"] <= 128) == small) for small in (True, False))
        with_threads = f"with {threads} threads" if threads > 1 else "with one thread"
        said.append(f"{with_threads} {few:.2f} at 128 tokens and fewer, {many:.2f} at 2,048")
    rate = max(case["gflop_per_second"] for case in result["cases"] if case["threads"] == 1)
    reading = max(case["gb_read_per_second"] for case in result["cases"] if case["threads"] == 1)
    machine, made = result["hardware"], result["versions"]
    return (
        f"Least ratio to the loop of full matrices: {'; '.join(said)} (goal more than {NEEDED:g}, aim {AIM:g} at 128 "
        f"and fewer). Milliseconds, medians; turns from the first to the third quartile; fastest compares the "
        f"fastest turn of both. One thread multiplies "
        f"2,048 x 512 x 2,752 at {rate:.0f} GFLOP/s at best, and reads as many weights as the block shares at "
        f"{reading:.0f} GB/s. {machine['processor']}, {machine['cores']} cores, loads {machine['loads']}; torch "
        f"{made['torch']}, transformers {made['transformers']}."
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three repeats, to see that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of results, and measure nothing")
    given = parser.parse_args()
    if given.tables:
        print(markdown(json.loads(given.tables.read_text(encoding="utf-8"))))
        return
    bench, loads = Bench(), [round(os.getloadavg()[0], 1)]
    result: dict[str, Any] = {"format": "fusion.benchmark.moe.speed/1", "quick": given.quick, "cases": []}
    sizes = {"experts": EXPERTS, "top_k": TOP_K, "hidden": HIDDEN, "intermediate": INNER, "rank": RANK}
    result |= {"sizes": sizes, "versions": versions()}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        for tokens, repeats in REPEATS.items():
            for trains in (False, True):
                repeats = 3 if given.quick else repeats
                bench.measured(tokens, trains=trains, repeats=1)
                result["cases"].append(bench.measured(tokens, trains=trains, repeats=repeats))
        loads.append(round(os.getloadavg()[0], 1))
    bounds(result["cases"])
    result |= {"memory": bench.memory(), "hardware": hardware() | {"loads": loads}}
    print(markdown(result))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
