"""Memory and time of merging experts into one mixture, on a checkpoint of several GB of random weights.

    python benchmarks/moe/merge.py --work DIR [--hidden 2048] [--layers 22] [--experts 3] [--shard 1GB] [--json FILE]

Writes a dense Llama and LoRA adapters of its feed-forward blocks, all random, in bfloat16, and merges them by
`fusion merge` in a process of its own, whose greatest resident memory is taken. Beside it: what the same process takes
that imports what merging imports and does nothing, the greatest file that is written, and the bound, which is that file
and the two greatest tensors on top of that process. A second run is killed in the middle and started again. What is
in DIR is used again where it has the same sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.pruning.run import hardware
from fusion.cli.merge import parse_bytes
from fusion.evaluation import versions

FUSION = [sys.executable, "-m", "fusion"]
IDLE = "import torch, transformers, safetensors.torch, fusion.moe, fusion.moe._assemble; torch.zeros(1)"
RANK = 8


class Shape(NamedTuple):
    """Of the dense model."""

    hidden: int
    layers: int

    @property
    def inner(self) -> int:
        """Width of the feed-forward blocks, that of TinyLlama for its hidden width."""
        return self.hidden * 11 // 4

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 256,
            "vocab_size": 32_000,
            "max_position_embeddings": 2048,
            "rope_theta": 10_000.0,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "dtype": "bfloat16",
        }

    def tensors(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Return the weights of one layer, by name."""
        kept = self.hidden // 4
        attention = {"q": (self.hidden,), "k": (kept,), "v": (kept,), "o": (self.hidden,)}
        found = {f"self_attn.{name}_proj": (rows[0], self.hidden) for name, rows in attention.items()}
        found |= {f"mlp.{name}_proj": (self.inner, self.hidden) for name in ("gate", "up")}
        found["mlp.down_proj"] = (self.hidden, self.inner)
        norms = {name: (self.hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        return {f"model.layers.{layer}.{name}.weight": shape for name, shape in (found | norms).items()}


class Run(NamedTuple):
    """What a process took: seconds, greatest resident memory in bytes, and how it ended."""

    seconds: float
    memory: int
    code: int


def write_model(folder: Path, shape: Shape) -> None:
    """Write the dense model, a layer a file."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draws = torch.Generator().manual_seed(0)
    where: dict[str, str] = {}
    ends = {"model.embed_tokens.weight": (32_000, shape.hidden), "lm_head.weight": (32_000, shape.hidden)}
    parts = [shape.tensors(layer) for layer in range(shape.layers)] + [ends | {"model.norm.weight": (shape.hidden,)}]
    for n, part in enumerate(parts):
        name = f"model-{n + 1:05d}-of-{len(parts):05d}.safetensors"
        made = {key: torch.randn(size, generator=draws).mul_(0.02).to(torch.bfloat16) for key, size in part.items()}
        save_file(made, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(shape.config))


def write_adapter(folder: Path, shape: Shape, seed: int) -> None:
    """Write a LoRA adapter of all feed-forward blocks."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draws, made = torch.Generator().manual_seed(seed), {}
    for layer in range(shape.layers):
        for name, size in shape.tensors(layer).items():
            if ".mlp." in name:
                stem = "base_model.model." + name.removesuffix(".weight")
                made[f"{stem}.lora_A.weight"] = torch.randn(RANK, size[1], generator=draws) * 0.02
                made[f"{stem}.lora_B.weight"] = torch.randn(size[0], RANK, generator=draws) * 0.02
    save_file(made, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK / 2, "bias": "none", "target_modules": ["gate_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(told))


def prepared(work: Path, shape: Shape, experts: int) -> Path:
    """Return the recipe of a merge in `work`; models are written where they are not there yet."""
    place = work / f"{shape.hidden}x{shape.layers}"
    if not (place / "base" / "config.json").exists():
        write_model(place / "base", shape)
    adapters = [place / f"expert-{n}" for n in range(experts)]
    for n, folder in enumerate(adapters):
        if not (folder / "adapter_config.json").exists():
            write_adapter(folder, shape, n + 1)
    recipe = place / f"recipe-{experts}.yaml"
    lines = [f"base_model: {place / 'base'}", "gate_mode: random", "experts:"]
    recipe.write_text("\n".join(lines + [f"  - source_model: {folder}" for folder in adapters]) + "\n")
    return recipe


def measured(command: list[str], *, kill_at: Path | None = None) -> Run:
    """Run a process, and kill it once a file is there, if one is given."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if kill_at is not None:
        while not kill_at.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(time.perf_counter() - started, used.ru_maxrss * 1024, process.returncode)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--shard", default="1GB")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = Shape(given.hidden, given.layers)
    recipe = prepared(given.work, shape, given.experts)
    out = given.work / "merged"
    shutil.rmtree(out, ignore_errors=True)
    merge = [*FUSION, "merge", str(recipe), "--out", str(out), "--out-shard-size", given.shard]
    idle = measured([sys.executable, "-c", IDLE])
    whole = measured(merge)
    assert whole.code == 0, "the merge failed"
    files = sorted(path.stat().st_size for path in out.glob("*.safetensors"))
    shutil.rmtree(out)
    killed = measured(merge, kill_at=out / f"model-{len(files) // 2:05d}-of-{len(files):05d}.safetensors")
    again = measured(merge)
    assert (killed.code, again.code) == (-signal.SIGKILL, 0), "killed, then done"
    # Tensors are worked on in float32.
    tensors = 2 * 4 * max(32_000, shape.inner) * shape.hidden
    results = {
        "format": "fusion.benchmark.moe.merge/1",
        "shape": {**shape._asdict(), "experts": given.experts},
        "written": sum(files),
        "largest_file": files[-1],
        "shard": parse_bytes(given.shard),
        "idle": idle._asdict(),
        "merge": whole._asdict(),
        "bound": idle.memory + parse_bytes(given.shard) + tensors,
        "killed": killed._asdict(),
        "resumed": again._asdict(),
        "versions": versions(),
        "hardware": hardware(),
    }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    show(results)


def show(results: dict[str, Any]) -> None:
    """Print results."""

    def gb(size: int) -> str:
        return f"{size / 1e9:.2f} GB"

    whole, bound = results["merge"], results["bound"]
    print(f"written {gb(results['written'])}, largest file {gb(results['largest_file'])}")
    idle = results["idle"]["memory"]
    print(f"memory {gb(whole['memory'])} (idle {gb(idle)}), bound {gb(bound)}, in {whole['seconds']:.0f} s")
    print(f"kept: {whole['memory'] < bound}")
    print(f"killed after {results['killed']['seconds']:.0f} s, the rest took {results['resumed']['seconds']:.0f} s")


if __name__ == "__main__":
    main()
