"""How a vLLM server is started: its command line, its port, its share of the accelerator."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fusion.agents._hf_examine import memory
from fusion.agents._hf_library import AdapterCard, Card, Dtype
from fusion.errors import EngineError, MissingDependency

Schedule = Literal["auto", "together", "sequential"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank."""
_ROOM = 2**30
"""Bytes a server needs beside its weights, at the least: activations, and keys and values of a few requests."""
_CPU_CACHE, _CPU_CACHE_GIB = "VLLM_CPU_KVCACHE_SPACE", "4"
"""GiB for keys and values of a server without accelerator; vLLM's own default is most of the machine."""
BASE = "base"
"""Under which name a server that we start serves its model; adapters are adapter-0, adapter-1, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How servers are started; as the fields of the engine."""

    dtype: Dtype
    tensor_parallel_size: int
    max_model_len: int | None
    enforce_eager: bool
    gpu_memory_utilization: float
    schedule: Schedule
    port: int | None
    devices: str | None
    python: str
    args: tuple[str, ...]
    start_s: float
    logs: str | None


class Accelerator(NamedTuple):
    """What servers share.

    Attributes:
        name: In words.
        total: Bytes of memory of one device; of the machine where there is no accelerator.
        devices: How many; 0 where there is no accelerator.
    """

    name: str
    total: int
    devices: int


def accelerator(devices: str | None) -> Accelerator:
    """Return what servers would run on.

    Args:
        devices: As CUDA_VISIBLE_DEVICES; None for what the environment says.
    """
    chosen = devices if devices is not None else os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]
    found = [row for row in _gpus() if wanted is None or row[0] in wanted or row[1] in wanted]
    if found:
        return Accelerator(found[0][2], min(row[3] for row in found), len(found))
    return Accelerator("this machine", memory("cpu")[1], 0)


def _gpus() -> list[tuple[str, str, str, int]]:
    """Return index, id, name and bytes of every NVIDIA GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.strip()]
        return [(index, uuid, name, int(mib) * 2**20) for index, uuid, name, mib in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


class Share(NamedTuple):
    """What one base gets.

    Attributes:
        sequential: Whether bases are served one after another.
        fraction: Of the accelerator's memory, in (0, 1].
    """

    sequential: bool
    fraction: float


def shares(weights: Sequence[int], settings: Settings, *, total: int) -> list[Share]:
    """Return the share of each base: by the size of its weights when all are served together, else all there is.

    Under "auto" they are served together where the weights, half as much again and a GiB each fit.

    Args:
        weights: Bytes of each base on one device, in order.
        settings: How servers are started.
        total: Bytes of the device.
    """
    needs = [1.5 * size / settings.tensor_parallel_size + _ROOM for size in weights]
    fits = sum(needs) <= settings.gpu_memory_utilization * total
    together = settings.schedule == "together" or (settings.schedule == "auto" and fits)
    if len(weights) == 1 or not together:
        return [Share(len(weights) > 1, settings.gpu_memory_utilization)] * len(weights)
    return [Share(False, round(settings.gpu_memory_utilization * need / sum(needs), 3)) for need in needs]


def command(
    card: Card, adapters: Mapping[str, AdapterCard], settings: Settings, *, share: float, port: int
) -> tuple[str, ...]:
    """Return the command that starts a server.

    Args:
        card: The model.
        adapters: By the name under which each is served.
        settings: How servers are started.
        share: Of the accelerator's memory.
        port: Where it listens, on this machine only.
    """
    parts = [settings.python, "-m", "vllm.entrypoints.openai.api_server"]
    parts += ["--model", card.place.source, "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)]
    if card.place.commit is not None:
        parts += ["--revision", card.place.commit, "--tokenizer-revision", card.place.commit]
    parts += ["--dtype", card.dtype(settings.dtype), "--gpu-memory-utilization", f"{share:g}"]
    # Sampling defaults that come with a checkpoint would change answers behind the request's back.
    parts += ["--generation-config", "vllm", "--disable-uvicorn-access-log"]
    if settings.tensor_parallel_size > 1:
        parts += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    if settings.max_model_len is not None:
        parts += ["--max-model-len", str(settings.max_model_len)]
    if settings.enforce_eager:
        parts += ["--enforce-eager"]
    if adapters:
        parts += ["--enable-lora", "--max-loras", str(len(adapters)), "--max-lora-rank", str(_rank(adapters))]
        parts += ["--lora-modules"]
        parts += [json.dumps({"name": name, "path": _folder(card)}) for name, card in adapters.items()]
    return (*parts, *settings.args)


def _folder(adapter: AdapterCard) -> str:
    """Return where the adapter's files are: of one on the hub the very commit, which vLLM does not take."""
    if adapter.place.commit is None:
        return adapter.place.source
    from fusion.agents._hf_store import adapter_weights

    weights = adapter_weights(adapter)
    if weights is None:
        raise EngineError(f"adapter {adapter.name!r} has no weights in {adapter.place.source}; download it again")
    return str(weights.parent)


def require_vllm(settings: Settings) -> None:
    """Check that vLLM is installed where it would be started.

    Raises:
        MissingDependency: When it is not in this Python.
        EngineError: When it is not in the other one, or there is none.
    """
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = subprocess.run(
            [settings.python, "-c", look],
            capture_output=True,
            timeout=60,
            check=False,
            env=environment("", settings),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"the engine's python, {settings.python}, cannot be run: {error}; give another") from error
    if found.returncode == 0:
        return
    if settings.python == sys.executable:
        raise MissingDependency("vllm", purpose="the engine vllm", extra="vllm")
    raise EngineError(f"vLLM is not installed in {settings.python}; {settings.python} -m pip install vllm")


def environment(key: str, settings: Settings) -> dict[str, str]:
    """Return the environment of a server: this process's, with what the server needs."""
    found = dict(os.environ)
    # Others on this machine may reach the port, too.
    found["VLLM_API_KEY"] = key
    found[_CPU_CACHE] = cpu_cache_gib()
    # Files beside the caller's data must not stand in for the server's modules.
    found["PYTHONSAFEPATH"] = "1"
    found.setdefault("VLLM_NO_USAGE_STATS", "1")
    if settings.devices is not None:
        found["CUDA_VISIBLE_DEVICES"] = settings.devices
    if settings.python != sys.executable:
        # A Python environment of its own must not be given this one's packages.
        found.pop("PYTHONPATH", None)
    return found


def cpu_cache_gib() -> str:
    """Return how many GiB a server without accelerator takes for keys and values."""
    return os.environ.get(_CPU_CACHE, "").strip() or _CPU_CACHE_GIB


def _rank(adapters: Mapping[str, AdapterCard]) -> int:
    """Return the smallest rank that vLLM takes and no adapter exceeds."""
    highest = 1
    for card in adapters.values():
        pattern = card.config.get("rank_pattern")
        ranks = [card.config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
        highest = max([highest, *(rank for rank in ranks if isinstance(rank, int))])
    allowed = [rank for rank in _RANKS if rank >= highest]
    if not allowed:
        raise EngineError(
            f"vLLM serves adapters of rank {_RANKS[-1]} at most, one has {highest}; merge it into its model"
        )
    return allowed[0]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        # As servers do; else a port would seem taken for a minute after its server has ended.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
