"""The engine vllm against vLLM itself, on the processor: `make test-vllm` installs it and names its Python."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from ray_cluster import two_nodes
from tiny_models import TinyModels
from transformers import Qwen3Config

import fusion
from fusion.agents import Agent, AgentPool, RecordStore
from fusion.agents._server_reap import read_record
from fusion.agents.hf import Hf
from fusion.agents.vllm import Vllm
from fusion.moe import MoERecipe, merge
from fusion.recording import RecordOptions, answerer
from fusion.schema import Completion, Message, Request, Spec

PYTHON = os.environ.get("FUSION_VLLM")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="needs a Python with vLLM, named by FUSION_VLLM; run: make test-vllm"),
    pytest.mark.timeout(900),
]

SETTINGS = {"python": PYTHON or "", "dtype": "float32", "enforce_eager": True, "max_model_len": 256}
PROMPTS = 200
LABELS = ("A", "B", "C", "D")
TEXTS = ("A", "Paris is the capital", "four and two", "Rome")


class Members(NamedTuple):
    """Four members by name: the model and the adapter of each."""

    models: dict[str, tuple[str, str | None]]

    def requests(self, name: str) -> list[Request]:
        """Return requests to write, to score labels and to score texts."""
        model, adapter = self.models[name]
        asked = [
            Request(
                question_id=f"q{n}",
                messages=(Message("user", f"Question {n}: what is {7 * n}? {'Answer ' * (n % 9)}"),),
                model=model,
                adapter=adapter,
                max_tokens=24,
                continuations=continuations,
            )
            for continuations in ((), LABELS, TEXTS)
            for n in range(PROMPTS)
        ]
        return asked[: PROMPTS + 100] + asked[2 * PROMPTS : 2 * PROMPTS + 100]


@pytest.fixture(scope="module", autouse=True)
def small_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A gibibyte for keys and values, no looking at the hub, records of processes in a folder of these tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    made = TinyModels(tmp_path_factory.mktemp("models"))
    base = made.llama(hidden=128, spread=0.2)
    other = made.built(
        Qwen3Config(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            initializer_range=0.2,
        ),
        "qwen3",
    )
    adapters = [made.lora(base, seed=1), made.lora(base, seed=2, r=16, lora_alpha=16)]
    return Members(
        {
            "base": (str(base), None),
            "first": (str(base), str(adapters[0])),
            "second": (str(base), str(adapters[1])),
            "other": (str(other), None),
        }
    )


@pytest.fixture(scope="module")
def engine(members: Members) -> Iterator[Vllm]:
    engine = Vllm(**SETTINGS)
    for name in members.models:
        engine.expect(members.requests(name)[0])
    yield engine
    asyncio.run(engine.aclose())


def collect(engine: Vllm | Hf, requests: list[Request]) -> list[Completion]:
    async def run() -> dict[int, Completion]:
        found = {}
        async with aclosing(engine.generate(requests)) as answers:
            async for index, completion in answers:
                assert index not in found, "each index once"
                found[index] = completion
        return found

    found = asyncio.run(run())
    return [found[index] for index in range(len(requests))]


@pytest.fixture(scope="module")
def here(members: Members) -> dict[str, list[Completion]]:
    """What transformers and peft answer, member by member."""
    engine = Hf(dtype="float32", device="cpu", batch_size=32, max_models=2)
    answers = {name: collect(engine, members.requests(name)) for name in members.models}
    asyncio.run(engine.aclose())
    return answers


@pytest.fixture(scope="module")
def served(engine: Vllm, members: Members) -> dict[str, list[Completion]]:
    return {name: collect(engine, members.requests(name)) for name in members.models}


@pytest.mark.parametrize("name", ["base", "first", "second", "other"])
def test_greedy_text_is_that_of_transformers(
    name: str, served: dict[str, list[Completion]], here: dict[str, list[Completion]]
) -> None:
    for got, wanted in zip(served[name][:PROMPTS], here[name][:PROMPTS], strict=True):
        assert (got.status, got.text, got.usage) == (wanted.status, wanted.text, wanted.usage)


@pytest.mark.parametrize("name", ["base", "first", "second", "other"])
def test_options_score_as_with_transformers(
    name: str, served: dict[str, list[Completion]], here: dict[str, list[Completion]]
) -> None:
    for got, wanted in zip(served[name][PROMPTS:], here[name][PROMPTS:], strict=True):
        assert got.option_logprobs == pytest.approx(wanted.option_logprobs, rel=0, abs=1e-4)


def test_an_adapter_that_is_dropped_would_be_seen(here: dict[str, list[Completion]]) -> None:
    """Had the server answered for an adapter with its base, or another adapter, the tests above would fail."""
    texts = {name: [completion.text for completion in here[name][:PROMPTS]] for name in here}
    logprobs = {name: [completion.option_logprobs for completion in here[name][PROMPTS:]] for name in here}
    for one, other in (("base", "first"), ("base", "second"), ("first", "second")):
        assert sum(a == b for a, b in zip(texts[one], texts[other], strict=True)) < PROMPTS / 10
        for a, b in zip(logprobs[one], logprobs[other], strict=True):
            assert a is not None
            assert b is not None
            assert max(abs(p - q) for p, q in zip(a, b, strict=True)) > 1e-2


def test_draws_are_repeated_with_their_seed(engine: Vllm, members: Members) -> None:
    request = replace(members.requests("first")[0], temperature=1.0, seed=7)
    first, again, other = collect(engine, [request, request, replace(request, seed=8)])
    assert first.text == again.text
    assert first.text != other.text


@pytest.mark.parametrize("name", ["base", "other"])
def test_merged_experts_are_served_as_they_are(name: str, members: Members, tmp_path: Path) -> None:
    """Three adapters of a Llama, or of a Qwen3, become a Mixtral, or a Qwen3Moe; both say what transformers says."""
    base = Path(members.models[name][0])
    made = TinyModels(tmp_path)
    projections = ["gate_proj", "up_proj", "down_proj"]
    adapters = [made.lora(base, seed=seed, target_modules=projections) for seed in (11, 12, 13)]
    experts = [{"source_model": str(path), "name": path.name} for path in adapters]
    recipe = {"base_model": str(base), "experts": experts, "gate_mode": "random", "gate_std": 0.5}
    merge(MoERecipe.model_validate(recipe), tmp_path / "merged")
    whole = Members({"merged": (str(tmp_path / "merged"), None), "base": (str(base), None)})
    engine, here = Vllm(**SETTINGS), Hf(dtype="float32", device="cpu", batch_size=32)
    try:
        requests = whole.requests("merged")
        engine.expect(requests[0])
        served, wanted = collect(engine, requests), collect(here, requests)
        alone = collect(here, whole.requests("base")[:PROMPTS])
    finally:
        asyncio.run(engine.aclose())
        asyncio.run(here.aclose())
    assert [one.text for one in served[:PROMPTS]] == [one.text for one in wanted[:PROMPTS]]
    assert [one.usage for one in served[:PROMPTS]] == [one.usage for one in wanted[:PROMPTS]]
    for got, expected in zip(served[PROMPTS:], wanted[PROMPTS:], strict=True):
        assert got.option_logprobs == pytest.approx(expected.option_logprobs, rel=0, abs=1e-4)
    # Experts that had been dropped would leave the base.
    assert sum(a.text == b.text for a, b in zip(served, alone, strict=False)) < PROMPTS / 10


def test_bases_one_after_another(members: Members) -> None:
    """Under schedule: sequential the first base's server has ended when the second's is up."""
    before = servers()
    engine = Vllm(**SETTINGS, schedule="sequential")
    try:
        requests = [members.requests(name)[0] for name in ("base", "other")]
        for request in requests:
            engine.expect(request)
        assert "one after another" in engine.placement(requests[0])
        assert [completion.status for completion in collect(engine, requests)] == ["truncated", "truncated"]
        assert len(servers() - before) == 1
    finally:
        asyncio.run(engine.aclose())


def test_a_killed_server_is_started_again_and_the_record_is_whole(members: Members, tmp_path: Path) -> None:
    """2,000 prompts; the server is killed with -9 once a quarter of them is answered."""
    model, adapter = members.models["first"]
    agent = {"model": model, "adapter": adapter, "max_tokens": 8, "mode": "generate"}
    spec = Spec("vllm", {**SETTINGS, "concurrency": 32})
    pool = AgentPool((Agent(name="first", engine=spec, **agent),))
    killed: list[int] = []

    def kill() -> None:
        store = tmp_path / "recorded"
        while not killed:
            time.sleep(0.2)
            started = servers() - before
            if started and (store / "answers.sqlite").exists():
                with RecordStore.open(store, readonly=True) as records:
                    if len(records) > 500:
                        os.kill(started.pop(), signal.SIGKILL)
                        killed.append(len(records))

    before = servers()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = fusion.record(pool, "micro(test_size=2000)", tmp_path / "recorded")
    killer.join(timeout=5)
    assert killed, "the server was not killed while it answered"
    assert killed[0] < 2000
    member = result.members[0]
    assert (member.calls, member.failed_share, member.error) == (2000, 0.0, "")
    here = AgentPool((Agent(name="first", engine=Spec("hf", {"dtype": "float32", "batch_size": 64}), **agent),))
    wanted = fusion.record(here, "micro(test_size=2000)", tmp_path / "here")
    assert (result.table.texts == wanted.table.texts).all()


def servers() -> set[int]:
    """Return the main processes of the servers that engines of these tests have running."""
    records = Path(os.environ["XDG_STATE_HOME"], "fusion", "servers").glob("*.json")
    recorded = (read_record(path) for path in records)
    return {record.server.pid for record in recorded if record is not None and is_alive(record.server.pid)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_of_a_cluster_start_servers_of_their_own(members: Members, tmp_path: Path) -> None:
    """Ray with one worker: base and adapter share the worker's server, and it ends with the worker."""
    before = servers()
    with two_nodes() as cluster:
        agents = [
            Agent(name=name, engine=Spec("vllm", SETTINGS), model=model, adapter=adapter, max_tokens=8)
            for name, (model, adapter) in members.models.items()
            if name in ("base", "second")
        ]
        pool = AgentPool(tuple(agents))
        with answerer(f'ray(address="{cluster.address}", workers=1)', pool) as elsewhere:
            options = RecordOptions(limit="120", answerer=elsewhere)
            result = fusion.record(pool, "micro", tmp_path / "recorded", options=options)
            assert len(servers() - before) == 1
    assert [member.failed_share for member in result.members] == [0.0, 0.0]
    here = AgentPool(tuple(replace(agent, engine=Spec("hf", {"dtype": "float32"})) for agent in agents))
    wanted = fusion.record(here, "micro", tmp_path / "here", options=RecordOptions(limit="120"))
    assert (result.table.answers == wanted.table.answers).all()
    deadline = time.monotonic() + 15
    while (left := servers() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


OWNER = """
import asyncio, sys, time
from contextlib import aclosing
from fusion.agents.vllm import Vllm
from fusion.schema import Message, Request

async def main():
    engine = Vllm(python=sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=256)
    request = Request(question_id="q", messages=(Message("user", "2 + 2 ="),), model=sys.argv[2], max_tokens=4)
    async for index, completion in engine.generate([request]):
        print(completion.status, flush=True)
    time.sleep(600)

asyncio.run(main())
"""


def test_nothing_is_left_when_the_owner_is_killed(members: Members) -> None:
    """Killed with -9, the owner can end nothing; 15 s later no process of the server is alive."""
    before = servers()
    command = [sys.executable, "-c", OWNER, PYTHON or "", members.models["base"][0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "truncated\n"
        sessions = {os.getsid(pid) for pid in servers() - before}
        assert len(in_sessions(sessions)) >= 3, "an API server, its engine core, a worker"
        owner.kill()
    deadline = time.monotonic() + 15
    while (left := in_sessions(sessions)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def in_sessions(sessions: set[int]) -> list[int]:
    """Return the processes of these sessions that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in sessions and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
