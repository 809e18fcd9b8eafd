"""The benchmark for GPUs: its script with tiny models on the processor, its prompts, its ratios, what it refuses."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_vllm import FakeVllm
from transformers import AutoModelForCausalLM

from fusion.schema import Completion

ROOT = Path(__file__).parents[1]
# One thread, as several that wait for each other take minutes on a busy machine.
ON_PROCESSOR = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("benchmarks.gpu.run")


def started(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ON_PROCESSOR | env)


def check_rows(told: dict[str, Any], *, prompts: int, members: int) -> None:
    """Rates follow from seconds, the pool does what its members do, and every token is there."""
    for row in told["rows"]:
        assert len(row["seconds"]) == 1
        assert row["seconds"][0] > 0
        assert row["requests_per_s"] == pytest.approx(row["requests"] / row["seconds"][0])
        assert row["requests"] == prompts * (members if row["who"] == "pool" else 1)
        assert 170 <= row["prompt_tokens"] / row["requests"] <= 240
        assert row["generated_tokens"] == (16 * row["requests"] if row["workload"] == "generation" else 0)
    assert all(start["start_seconds"][0] > 0 for start in told["starts"])


def test_tiny_members_through_hf(tmp_path: Path) -> None:
    file = tmp_path / "told.json"
    words = ["--size", "tiny", "--engines", "hf", "--prompts", "6", "--members", "2", "--repeats", "1"]
    done = started(*words, "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "generated tokens/s" in done.stdout
    told = json.loads(file.read_text())
    sides = [(row["workload"], row["who"], row["way"]) for row in told["rows"]]
    asked = [("adapter-1", "alone"), ("other-base", "alone"), ("pool", "together")]
    assert sides == [(workload, *who) for workload in ("options", "generation") for who in asked]
    check_rows(told, prompts=6, members=2)
    assert [ratio["what"] for ratio in told["ratios"]] == ["pool / members alone, summed"] * 2
    assert {"fusion", "python", "torch", "transformers", "peft"} <= told["versions"].keys()
    assert told["members"] == ["adapter-1", "other-base"]
    assert told["check"] is None


def test_tiny_members_through_both(tmp_path: Path) -> None:
    """The stand-in for vLLM serves; vLLM itself starts six times here, which would take minutes."""
    file = tmp_path / "told.json"
    words = ["--size", "tiny", "--engines", "hf,vllm", "--prompts", "6", "--members", "2", "--repeats", "1", "--check"]
    with FakeVllm() as fake:
        done = started(*words, "--vllm-python", fake.python, "--json", str(file), XDG_STATE_HOME=str(tmp_path))
        assert not fake.alive()
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    check_rows(told, prompts=6, members=2)
    asked = {(row["who"], row["way"]) for row in told["rows"] if row["engine"] == "vllm"}
    assert asked == {("adapter-1", "alone"), ("other-base", "alone"), ("pool", "together"), ("pool", "sequential")}
    ratios = [ratio["what"] for ratio in told["ratios"] if ratio["workload"] == "options"]
    assert sorted(ratios) == ["pool / members alone, summed"] * 3 + ["throughput, vllm / hf"] * 4
    # On a processor nothing is rounded to fewer bits; a thousandth of a nat is ten times what was seen.
    for found in told["check"]:
        assert (found["same_texts"], found["same_choices"], found["holds"]) == (20, 20, True)
        assert found["largest_gap_nats"] < 1e-3


def test_without_a_gpu_only_tiny_is_measured() -> None:
    done = started()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("no GPU: torch")
    assert "--size tiny" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_vllm_only_hf_is_measured(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "python")
    chosen = script.parsed(["--size", "tiny", "--vllm-python", absent])
    assert script.usable(chosen) == (["hf"], "")
    assert capsys.readouterr().err.splitlines() == [
        f"vLLM is not installed in {absent} ({absent} -m pip install vllm==0.32.0): only hf is measured"
    ]
    chosen.engines = ["vllm"]
    with pytest.raises(SystemExit):
        script.usable(chosen)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engines", "hf,openai"], "got openai"),
        (["--members", "1"], "at least 2"),
        (["--prompts", "0"], "at least 1"),
        (["--work", str(ROOT / "benchmarks" / "gpu" / "work")], "outside the repository"),
    ],
)
def test_what_cannot_be_asked_for(
    script: ModuleType, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.parsed(words)
    assert said in capsys.readouterr().err


def test_1b_has_as_many_weights_as_llama_by_hand(script: ModuleType) -> None:
    """Embeddings 128,256 x 2,048 = 262,668,288, tied.

    A layer: queries and output 2 x 2,048 x 2,048 = 8,388,608, keys and values 2 x 2,048 x 512 = 2,097,152, feed-forward
    3 x 2,048 x 8,192 = 50,331,648, norms 2 x 2,048: together 60,821,504. Sixteen layers 973,144,064, and a norm of
    2,048: 1,235,814,400.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(script.SHAPES["1b"].config)
    assert sum(weight.numel() for weight in model.parameters()) == 1_235_814_400
    layer = model.model.layers[0]
    for place, (read, written) in script.SHAPES["1b"].projections.items():
        assert layer.get_submodule(place).weight.shape == (written, read)


def test_prompts_share_bodies_and_no_heads(script: ModuleType) -> None:
    """A server that keeps what it read would answer a prompt that comes again faster than a new one."""
    bench = script.Bench(prompts=3, new_tokens=1, specs={})
    first, second = (bench.questions(3, ("A", "B")) for _ in range(2))
    texts = [[question.messages[0].content for question in questions] for questions in (first, second)]
    heads = [text[:8] for side in texts for text in side]
    assert len(set(heads)) == 6
    assert [text[8:] for text in texts[0]] == [text[8:] for text in texts[1]]
    assert len({text[8:] for text in texts[0]}) == 3


def test_ratios_by_hand(script: ModuleType) -> None:
    """Pool over members alone: 3 / (2 + 4) = 0.5 and 5 / (1 + 1) = 2.5, median 1.5. vllm over hf: 8 / 4, 9 / 3."""

    def row(engine: str, who: str, way: str, *seconds: float, workload: str = "options") -> dict[str, Any]:
        return {"workload": workload, "engine": engine, "who": who, "way": way, "seconds": list(seconds)}

    shared = [row("hf", "a", "alone", 2, 1), row("hf", "b", "alone", 4, 1), row("hf", "pool", "together", 3, 5)]
    (found,) = script.ratios_of([*shared, row("hf", "a", "alone", 9, 9, workload="generation")])
    assert (found["what"], found["ratios"], found["median"]) == ("pool / members alone, summed", [0.5, 2.5], 1.5)
    (found,) = script.ratios_of([row("hf", "a", "alone", 8, 9), row("vllm", "a", "alone", 4, 3)])
    assert (found["what"], found["ratios"], found["median"]) == ("throughput, vllm / hf", [2, 3], 2.5)
    assert script.ratios_of([row("vllm", "a", "alone", 4, 3)]) == []


def test_agreement_by_hand(script: ModuleType) -> None:
    """One of two texts is the same; one of two choices; log-probabilities are 0.5 apart at most, |-1 - -1.5|."""

    def scored(*logprobs: float) -> Completion:
        return Completion(status="ok", text="A", option_logprobs=logprobs)

    def wrote(text: str) -> Completion:
        return Completion(status="truncated", text=text)

    here = [scored(-1.0, -2.0), scored(-1.0, -1.1), wrote("left"), wrote("right")]
    served = [scored(-1.25, -2.0), scored(-1.5, -1.2), wrote("left"), wrote("wrong")]
    found = script.agreement("a", here, served)
    assert found == ("a", 1, 1, 0.5)
    assert not found.holds
    assert script.Agreement("a", script.CHECK_TEXTS, 20, script.CHECK_GAP_NATS).holds
    assert not script.Agreement("a", script.CHECK_TEXTS - 1, 20, 0.0).holds


def test_sides_take_turns_in_both_orders(script: ModuleType) -> None:
    class Told:
        """Says who was visited, and measures nothing."""

        visited: list[tuple[int, str]] = []  # noqa: RUF012 - of one test

        def visit(self, side: Any, *, repeat: int) -> Any:
            self.visited.append((repeat, side.who))
            return script.Visit(1.0, None, [])

    members = [script.Member("a", Path("base"), Path("adapter")), script.Member("b", Path("other"), None)]
    sides = script.setups(["hf"], members)
    visits = script.measured(Told(), sides, 3)
    forward = ["a", "b", "pool"]
    assert [who for _, who in Told.visited] == [*forward, *forward[::-1], *forward]
    assert [repeat for repeat, _ in Told.visited] == [0] * 3 + [1] * 3 + [2] * 3
    assert [len(made) for made in visits.values()] == [3, 3, 3]
