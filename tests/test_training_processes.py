"""fusion fit with a fuser that trains a model: killed for real and started again, and shared by several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_models import TinyModels
from trust_world import WORDS, trust_world

from fusion.data import write_table
from fusion.ensemble import Ensemble

LAUNCH = "accelerate.commands.launch --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a table."""
    folder = tmp_path_factory.mktemp("world")
    TinyModels(folder).led(words=WORDS, context=64, dropout=0.2, name="led")
    write_table(trust_world(120, 1).table, folder / "t.parquet")
    return folder


def command(out: str, launch: str = "") -> list[str]:
    words = ["fusion", "fit", "topla_summary", "t.parquet", "--model", "led", "--out", out, "--json", "-"]
    for item in ("max_tokens=3", "epochs=4", "learning_rate=0.003"):
        words += ["--set", f"fuser.{item}"]
    return [sys.executable, "-m", *launch.split(), *(["-m"] if launch else []), *words]


def fit(world: Path, out: str, launch: str = "") -> dict[str, Any]:
    """What a fit writes to standard output, which is JSON and nothing else."""
    told = subprocess.run(command(out, launch), cwd=world, env=settings(), capture_output=True, text=True, timeout=200)
    assert told.returncode == 0, told.stderr
    value: dict[str, Any] = json.loads(told.stdout)
    return value


def settings() -> dict[str, str]:
    # A thread for each process: more of them add up numbers in another order, and there are few cores.
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def trained(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "fuser" / "trained.json").read_text())["trained"]
    return value


def weights(folder: Path) -> bytes:
    return (folder / "fuser" / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_and_started_again(world: Path) -> None:
    """14 steps an epoch, a checkpoint after each: killed after the first, it ends with the weights of a whole run.

    Done, it is not trained again.
    """
    whole = fit(world, "whole")
    process = subprocess.Popen(
        command("cut"),
        cwd=world,
        env=settings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    checkpoint = world / "cut" / "fuser" / "checkpoints" / "checkpoint-14" / "trainer_state.json"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in (world / "cut").iterdir()} == {"fuser"}

    again = fit(world, "cut")
    assert trained(world / "cut")["resumed"] >= 14
    assert trained(world / "cut")["steps"] == trained(world / "whole")["steps"] == 56
    assert weights(world / "cut") == weights(world / "whole")
    assert again["notes"] == whole["notes"]

    before = (world / "cut" / "fuser" / "trained.json").stat().st_mtime_ns
    assert fit(world, "cut")["notes"] == whole["notes"]
    assert (world / "cut" / "fuser" / "trained.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--multi_gpu", "--use_fsdp --fsdp_version 2"])
def test_two_processes(world: Path, how: str) -> None:
    """Two processes halve the steps; one of them writes, and what it writes is an ensemble that answers.

    Without an accelerator accelerate makes FSDP plain data parallelism (`AcceleratorState`, which asks for it only
    where several devices are), so that here nothing is sharded.
    """
    out = f"parallel{how.count(' ')}"
    found = fit(world, out, f"{LAUNCH} {how}")
    assert trained(world / out)["steps"] == 28
    assert found["notes"][0] == "topla_summary: 28 updates, 4 epochs"
    # The loss of a model that learns, on the scale of one process: below that of guessing among 38 words.
    assert trained(world / out)["loss"] < 3.4
    assert sorted(path.name for path in (world / out).iterdir()) == ["ensemble.json", "fit.json", "fuser", "state.npz"]
    names = {path.name for path in (world / out / "fuser").iterdir()}
    assert names == {"model", "trained.json", "training.json"}
    table = trust_world(10, 5).table
    assert len(Ensemble.load(world / out).replay(table).decision.answers) == 10
