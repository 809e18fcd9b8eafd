"""Parts of the engine that runs vLLM servers, one by one: shares, commands, calls, replies; no server is started."""

import asyncio
import dataclasses
import math
import os
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hf_asking import asked, loaded, scored
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TinyModels

from fusion.agents._concurrent import as_done
from fusion.agents._hf_library import AdapterCard, Card, Library, Place
from fusion.agents._http_retry import Limits, WrongShapeError
from fusion.agents._tokens import Prepared, ended, prepare
from fusion.agents._vllm_client import Client, Job, Told, _items, _read, _taken
from fusion.agents._vllm_command import (
    Accelerator,
    Settings,
    Share,
    accelerator,
    command,
    environment,
    free_port,
    is_free,
    shares,
)
from fusion.agents._vllm_fleet import Fleet
from fusion.agents._vllm_run import _served_as
from fusion.agents.hf import Hf
from fusion.agents.vllm import Vllm
from fusion.errors import EngineError
from fusion.schema import Request

GIB = 2**30
PLAIN = Settings(
    dtype="auto",
    tensor_parallel_size=1,
    max_model_len=None,
    enforce_eager=False,
    gpu_memory_utilization=0.9,
    schedule="auto",
    port=None,
    devices=None,
    python="python",
    args=(),
    start_s=1.0,
    logs=None,
)


def settings(**fields: Any) -> Settings:
    return dataclasses.replace(PLAIN, **fields)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyModels(tmp_path_factory.mktemp("models")).llama(name="base")


@pytest.fixture(scope="module")
def card(base: Path) -> Card:
    return Library().card(asked("", base))


def adapter(name: str, **config: Any) -> AdapterCard:
    return AdapterCard(name, Place(f"/adapters/{name}", None, name, Path("adapter_config.json")), {"r": 8, **config})


# Shares of an accelerator.


def test_shares_by_size() -> None:
    """Weights of 2 and 6 GiB need 1.5 x 2 + 1 = 4 and 1.5 x 6 + 1 = 10 GiB; 14 are within 0.9 x 16 = 14.4.

    So they run together, with 0.9 x 4 / 14 = 0.257 and 0.9 x 10 / 14 = 0.643 of the memory.
    """
    assert shares([2 * GIB, 6 * GIB], PLAIN, total=16 * GIB) == [Share(False, 0.257), Share(False, 0.643)]


def test_shares_one_after_another() -> None:
    """The same on 15 GiB: 14 are more than 13.5, so each in its turn gets all."""
    assert shares([2 * GIB, 6 * GIB], PLAIN, total=15 * GIB) == [Share(True, 0.9)] * 2


def test_shares_over_several_devices() -> None:
    """Each of two devices holds half of the weights: 1.5 x 1 + 1 and 1.5 x 3 + 1, 8 GiB of 9."""
    spread = settings(tensor_parallel_size=2)
    assert shares([2 * GIB, 6 * GIB], spread, total=10 * GIB) == [Share(False, 0.281), Share(False, 0.619)]


@pytest.mark.parametrize(
    ("schedule", "weights", "expected"),
    [
        ("together", [9 * GIB, 9 * GIB], [Share(False, 0.45)] * 2),
        ("sequential", [1, 1], [Share(True, 0.9)] * 2),
        ("sequential", [GIB], [Share(False, 0.9)]),
        ("auto", [99 * GIB], [Share(False, 0.9)]),
        ("auto", [], []),
    ],
)
def test_shares_as_they_are_asked_for(schedule: str, weights: list[int], expected: list[Share]) -> None:
    assert shares(weights, settings(schedule=schedule), total=10 * GIB) == expected


@given(
    st.lists(st.integers(0, 200 * GIB), min_size=1, max_size=6),
    st.sampled_from(["auto", "together", "sequential"]),
    st.floats(0.1, 1.0),
)
def test_shares_never_exceed_the_memory(weights: list[int], schedule: Any, most: float) -> None:
    """Of those that run together the sum, else each; a larger model never gets less, and order makes no difference."""
    how = settings(schedule=schedule, gpu_memory_utilization=most)
    found = shares(weights, how, total=80 * GIB)
    together = [share.fraction for share in found if not share.sequential]
    # Each is rounded to three digits.
    assert sum(together) <= most + 5e-4 * len(weights)
    assert all(share.fraction <= most + 5e-4 for share in found)
    assert len({share.sequential for share in found}) == 1
    ranked = sorted(zip(weights, found, strict=True), key=lambda pair: pair[0])
    assert [share.fraction for _, share in ranked] == sorted(share.fraction for share in found)
    assert shares(weights[::-1], how, total=80 * GIB) == found[::-1]


def test_accelerators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are visible count, and the smallest says how much memory there is."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aa, Big, 81920'\necho '1, GPU-bb, Small, 24576'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert accelerator(None) == Accelerator("Big", 24 * GIB, 2)
    assert accelerator("0") == Accelerator("Big", 80 * GIB, 1)
    assert accelerator("GPU-bb") == Accelerator("Small", 24 * GIB, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert accelerator(None).name == "Small"
    assert accelerator("").devices == 0
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\n")
    assert accelerator(None).devices == 0
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert accelerator(None).name == "this machine"
    assert accelerator(None).total > 0


# Command lines.


def test_a_plain_command(card: Card) -> None:
    assert command(card, {}, PLAIN, share=0.9, port=8000) == (
        *("python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", card.place.source, "--served-model-name", "base", "--host", "127.0.0.1", "--port", "8000"),
        *("--dtype", "float32", "--gpu-memory-utilization", "0.9"),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
    )


def test_a_full_command(card: Card) -> None:
    how = settings(
        dtype="bfloat16",
        tensor_parallel_size=2,
        max_model_len=512,
        enforce_eager=True,
        args=("--quantization", "fp8"),
    )
    served = {"adapter-0": adapter("one"), "adapter-1": adapter("two", r=20)}
    line = command(card, served, how, share=0.25, port=1)
    tail = line[line.index("--dtype") :]
    assert tail == (
        *("--dtype", "bfloat16", "--gpu-memory-utilization", "0.25"),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
        *("--tensor-parallel-size", "2", "--max-model-len", "512", "--enforce-eager"),
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules"),
        '{"name": "adapter-0", "path": "/adapters/one"}',
        '{"name": "adapter-1", "path": "/adapters/two"}',
        *("--quantization", "fp8"),
    )


def test_a_command_names_the_commit(card: Card) -> None:
    hub = dataclasses.replace(card, place=Place("org/name", "abc", "abc", Path("config.json")))
    line = command(hub, {}, PLAIN, share=0.9, port=1)
    assert [line[line.index(name) + 1] for name in ("--model", "--revision", "--tokenizer-revision")] == [
        *("org/name", "abc", "abc")
    ]


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([{"r": 1}], "1"),
        ([{"r": 2}], "8"),
        ([{"r": 8}], "8"),
        ([{"r": 8}, {"r": 9}], "16"),
        ([{"r": 8, "rank_pattern": {"q_proj": 100}}], "128"),
        ([{"r": 512}], "512"),
    ],
)
def test_ranks(card: Card, configs: list[dict[str, Any]], expected: str) -> None:
    served = {f"adapter-{i}": adapter(str(i), **config) for i, config in enumerate(configs)}
    line = command(card, served, PLAIN, share=0.9, port=1)
    assert line[line.index("--max-lora-rank") + 1] == expected


def test_too_high_a_rank(card: Card) -> None:
    with pytest.raises(EngineError, match="rank 512 at most, one has 513; merge it into its model"):
        command(card, {"adapter-0": adapter("one", r=513)}, PLAIN, share=0.9, port=1)


def test_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = environment("secret", settings(devices="1,2"))
    assert (found["VLLM_API_KEY"], found["CUDA_VISIBLE_DEVICES"], found["KEPT"]) == ("secret", "1,2", "yes")
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert "PYTHONPATH" not in found, "of this Python, not of the other"
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "9")
    here = environment("secret", settings(python=sys.executable))
    assert (here["VLLM_CPU_KVCACHE_SPACE"], here["PYTHONPATH"]) == ("9", "here")
    assert "CUDA_VISIBLE_DEVICES" not in here


def test_free_ports() -> None:
    port = free_port()
    assert is_free(port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)
    assert is_free(port)


def test_ports_in_the_order_of_the_bases(card: Card, tmp_path: Path) -> None:
    library = Library()
    fleet = Fleet(settings(port=8000), library)
    other = TinyModels(tmp_path).llama(seed=3)
    fleet.expect(asked("", card.name))
    fleet.expect(asked("", other))
    assert (fleet.port_of(library.card(asked("", other))), fleet.port_of(card)) == (8001, 8000)
    assert Fleet(PLAIN, library).port_of(card) is None


def test_placements_in_words(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(tmp_path, monkeypatch, "0, GPU-aa, Big, 81920")
    models = TinyModels(tmp_path)
    engine, request = Vllm(), asked("", card.name)
    assert engine.placement(request) == "a vLLM server of its own: 90% of Big (80 GiB)"
    engine.expect(asked("", card.name, adapter=models.lora(Path(card.name), seed=1)))
    assert engine.placement(request) == "a vLLM server of its own with 1 adapter: 90% of Big (80 GiB)"
    engine.expect(asked("", models.llama(seed=3)))
    expected = "one of 2 vLLM servers with 1 adapter that run together (schedule: together): 45% of Big (80 GiB)"
    assert engine.placement(request) == expected
    turns = Vllm(schedule="sequential", devices="")
    turns.expect(asked("", models.llama(seed=3)))
    expected = "one of 2 vLLM servers, one after another (schedule: sequential): no accelerator, "
    assert turns.placement(request).startswith(expected)
    assert Vllm(url="http://there/v1").placement(request) == "the vLLM server at http://there/v1"


def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put an nvidia-smi on the path that tells these lines."""
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))


def told(engine: Vllm, request: Request) -> dict[str, str]:
    return {finding.what: finding.remedy for finding in asyncio.run(engine.examine(request))}


def test_what_is_wrong_with_starting(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(tmp_path, monkeypatch, "0, GPU-aa, Small, 0")
    request = asked("The", card.name)
    found = told(Vllm(python=sys.executable, tensor_parallel_size=2), request)
    assert found["the engine vllm needs the package vllm"].startswith("install it with: pip install ")
    assert found["tensor_parallel_size is 2, devices there are 1"]
    assert found["the weights take 0.0 GiB, and the server gets 0.0 GiB of Small"]
    assert any("cannot be run" in what for what in told(Vllm(python="/nowhere"), request))
    gpus(tmp_path, monkeypatch, "0, GPU-aa, Big, 81920")
    left = [what for what in told(Vllm(python=sys.executable), request) if "trained for chats" not in what]
    assert left == ["the engine vllm needs the package vllm"]


def test_prompts_are_those_of_hf(card: Card) -> None:
    for request in (asked("The", card.name), asked("The", card.name, template="{{ messages[0].content }}!")):
        for method in ("render", "prompt_tokens"):
            assert getattr(Vllm(), method)(request) == getattr(Hf(), method)(request)
    assert asyncio.run(Vllm().scoring(request)) == asyncio.run(Hf().scoring(request))
    assert Vllm().memory_bytes(request) is None


def test_identities_tell_apart_what_answers_differently(card: Card, tmp_path: Path) -> None:
    models = TinyModels(tmp_path)
    request = asked("The", card.name)
    said = [
        Vllm().identity(request),
        Vllm(dtype="bfloat16").identity(request),
        Vllm(args=["--quantization", "fp8"]).identity(request),
        Vllm().identity(asked("The", card.name, template="")),
        Vllm().identity(asked("The", models.llama(seed=9))),
        Vllm().identity(asked("The", card.name, adapter=models.lora(Path(card.name), seed=1))),
        Vllm().identity(asked("The", card.name, adapter=models.lora(Path(card.name), seed=2))),
    ]
    # This model has no template of its own, so an empty one makes no difference.
    assert said.pop(3) == said[0]
    assert all(one != other for i, one in enumerate(said) for other in said[:i])
    elsewhere = Vllm(url="http://there/v1", devices=None).identity(request)
    assert elsewhere == said[0] == Vllm(port=1, devices="1", batch=1, schedule="sequential").identity(request)


# Calls.


def job(card: Card, request: Request, *, index: int = 0) -> Job:
    return Job(index=index, request=request, card=card, prepared=prepare(request, card, context=None), ends=card.ends)


def with_tails(card: Card, tails: list[list[int]]) -> Job:
    made = job(card, scored("The", card.name, [f"option {i}" for i in range(len(tails))]))
    made.prepared = made.prepared._replace(prompt=[1, 2], continuations=tails)
    return made


def test_options_share_what_they_begin_with(card: Card) -> None:
    """Options 5 6, 5 7 8 and 9: after the prompt come 5 or 9, after 5 come 6 or 7, after 5 7 comes 8."""
    found = [(item.begun, item.wanted) for item, _ in _items(with_tails(card, [[5, 6], [5, 7, 8], [9]]))]
    assert found == [((), (5, 9)), ((5,), (6, 7)), ((5, 7), (8,))]


def test_options_are_summed_over_their_tokens(card: Card) -> None:
    """With p(5) = 1/2, p(9) = 1/4, p(6|5) = 1/8, p(7|5) = 1/2, p(8|5 7) = 1/4: ln of 1/16, 1/16 and 1/4."""
    made = with_tails(card, [[5, 6], [5, 7, 8], [9]])
    items = [item for item, _ in _items(made)]
    told = [{5: 1 / 2, 9: 1 / 4}, {6: 1 / 8, 7: 1 / 2}, {8: 1 / 4}]
    parts = [Told([3], "length", {token: math.log(p) for token, p in probs.items()}) for probs in told]
    assert _taken(items[1], parts[1]) is None
    assert _taken(items[0], parts[0]) is None
    whole = _taken(items[2], parts[2])
    assert whole is not None
    assert whole.option_logprobs == pytest.approx([math.log(1 / 16), math.log(1 / 16), math.log(1 / 4)])
    assert whole.text == "option 2"


@given(st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=4), min_size=1, max_size=300))
def test_every_token_of_every_option_is_asked_for_once(tails: list[list[int]]) -> None:
    made = Job(
        index=0,
        request=Request(question_id="q", messages=()),
        card=None,  # type: ignore[arg-type] # no text is read
        prepared=Prepared([1], tails, 1),
        ends=frozenset(),
    )
    places: list[tuple[int, ...]] = []
    for item, fields in _items(made):
        assert 1 <= len(item.wanted) <= 128
        assert (fields["logprobs"], fields["logprob_token_ids"]) == (len(item.wanted), [*item.wanted])
        places += [(*item.begun, token) for token in item.wanted]
    assert len(places) == len(set(places))
    assert set(places) == {tuple(tail[: t + 1]) for tail in tails for t in range(len(tail))}


def client(*, batch: int, concurrency: int = 64) -> Client:
    return Client("http://127.0.0.1:1/v1", key=None, limits=Limits(concurrency=concurrency), batch=batch)


def test_what_wants_the_same_goes_out_together(card: Card) -> None:
    """The longest first, so that the prompts of a call are of a length; other fields are another call."""
    texts = ["A", "A B C D", "A B", "A B C"]
    jobs = [job(card, asked(text, card.name), index=i) for i, text in enumerate(texts)]
    jobs += [job(card, asked(text, card.name, max_tokens=5), index=9) for text in texts[:1]]
    calls = list(client(batch=3)._calls(jobs))
    assert [[item.job.index for item in call.items] for call in calls] == [[1, 3, 2], [0], [9]]
    assert [call.fields["max_tokens"] for call in calls] == [12, 12, 5]


def test_never_more_prompts_than_may_be_out(card: Card) -> None:
    jobs = [job(card, asked("A", card.name), index=i) for i in range(10)]
    assert {len(call.items) for call in client(batch=16, concurrency=4)._calls(jobs)} == {4, 2}


# Replies.


def choice(index: int | None, **fields: Any) -> dict[str, Any]:
    tops = {"token_id:5": -0.5, "token_id:7": -9999.0}
    return {
        "index": index,
        "token_ids": [5],
        "finish_reason": "length",
        "logprobs": {"top_logprobs": [tops]},
        **fields,
    }


def call_of(card: Card) -> Any:
    made = with_tails(card, [[5], [7]])
    return next(client(batch=8)._calls([made, made]))


def test_a_reply(card: Card) -> None:
    """Choices in any order, further fields and further tokens left unread."""
    content = {"choices": [choice(1, finish_reason="stop", text="?"), choice(0)], "usage": None}
    found = _read(call_of(card), content)
    assert found == [Told([5], "length", {5: -0.5, 7: -9999.0}), Told([5], "stop", {5: -0.5, 7: -9999.0})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no choices"),
        ([], "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": ["A", "B"]}, "no choices"),
        ({"choices": [choice(0)]}, "1 choices for 2 prompts"),
        ({"choices": [choice(0), choice(0)]}, "2 choices for 2 prompts"),
        ({"choices": [choice(0), choice(0), choice(1)]}, "3 choices for 2 prompts"),
        ({"choices": [choice(0), choice(None)]}, "2 choices for 2 prompts"),
        ({"choices": [choice(0), choice(2)]}, "2 choices for 2 prompts"),
        ({"choices": [choice(0), choice(1, token_ids=None)]}, "vLLM 0.10 or newer"),
        ({"choices": [choice(0), choice(1, token_ids=["5"])]}, "vLLM 0.10 or newer"),
        ({"choices": [choice(0), choice(1, logprobs=None)]}, "vLLM 0.24 or newer"),
        ({"choices": [choice(0), choice(1, logprobs={"top_logprobs": []})]}, "vLLM 0.24 or newer"),
        ({"choices": [choice(0), choice(1, logprobs={"top_logprobs": [{"token_id:5": -1}]})]}, "not all of"),
        ({"choices": [choice(0), choice(1, logprobs={"top_logprobs": [{"A": -1, "B": -2}]})]}, "not all of"),
        ({"choices": [choice(0), choice(1, logprobs={"top_logprobs": [{"token_id:5": -1, "token_id:7": None}]})]},
         "not all of"),
        ({"choices": [choice(0), choice(1, logprobs={"top_logprobs": [{"token_id:5": -1, "token_id:7": math.nan}]})]},
         "not all of"),
    ],
)  # fmt: skip
def test_replies_of_another_form(card: Card, content: object, expected: str) -> None:
    with pytest.raises(WrongShapeError, match=expected):
        _read(call_of(card), content)


def test_the_end_of_an_answer(base: Path, card: Card) -> None:
    """The token that ends it counts as written and is no text; a stop text ends it, whatever the server says."""
    _, words = loaded(base)
    tokens = words(" A B C", add_special_tokens=False).input_ids
    made = job(card, asked("The", card.name, stop=(" C",)))
    item = next(iter(_items(made)))[0]
    found = _taken(item, Told([*tokens, words.eos_token_id], "stop", {}))
    assert found is not None
    assert (found.text, found.usage.tokens_out, found.finish_reason) == (" A B", len(tokens) + 1, "stop")
    found = _taken(item, Told(tokens[:-1], "length", {}))
    assert found is not None
    assert (found.status, found.finish_reason) == ("truncated", "length")
    blank = _taken(item, Told([words.eos_token_id], "stop", {}))
    assert blank is not None
    assert (blank.status, blank.text) == ("empty", "")


@pytest.mark.parametrize(
    ("stops", "expected"),
    [((), ("a b c", "length")), (("c", "b"), ("a ", "stop")), (("x",), ("a b c", "length")), (("a",), ("", "stop"))],
)
def test_stop_texts_cut(stops: tuple[str, ...], expected: tuple[str, str]) -> None:
    found = ended("a b c", 3, "length", stops)
    assert (found.text, found.finish) == expected
    assert found.num_tokens == 3


def test_names_of_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed: dict[str, tuple[str, int | None]] = {
        "small": ("org/model", 9),
        "here": (str(tmp_path / "model"), 9),
        "odd": ("", None),
    }
    assert _served_as("small", "elsewhere", listed) == "small"
    assert _served_as("org/model", "org/model", listed) == "small"
    assert _served_as("model", str(tmp_path / "model"), listed) == "here"
    assert _served_as("other", str(tmp_path / "other"), listed) is None
    assert _served_as("", str(tmp_path), {"odd": ("", None)}) is None


# Work on many items at a time.


async def doubled(item: int) -> int:
    # Later items end sooner.
    await asyncio.sleep(0.05 / (item + 1))
    return 2 * item


async def all_of(stream: AsyncGenerator[Any, None]) -> list[Any]:
    async with aclosing(stream) as found:
        return [one async for one in found]


def test_results_come_in_the_order_in_which_they_end() -> None:
    assert asyncio.run(all_of(as_done(iter(range(3)), doubled, at_once=3))) == [4, 2, 0]
    assert asyncio.run(all_of(as_done(iter(range(3)), doubled, at_once=1))) == [0, 2, 4]
    assert asyncio.run(all_of(as_done(iter(()), doubled, at_once=4))) == []


@given(st.integers(0, 40), st.integers(1, 7))
def test_every_item_once_and_never_more_at_once(num_items: int, at_once: int) -> None:
    out = highest = drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for item in range(num_items):
            drawn += 1
            assert drawn - len(done) <= at_once, "drawn as there is room"
            yield item

    async def work(item: int) -> int:
        nonlocal out, highest
        out, highest = out + 1, max(highest, out + 1)
        await asyncio.sleep(0)
        out -= 1
        done.append(item)
        return item

    done: list[int] = []
    found = asyncio.run(all_of(as_done(items(), work, at_once=at_once)))
    assert sorted(found) == list(range(num_items))
    assert highest <= at_once


def test_an_error_ends_all() -> None:
    cancelled = []

    async def work(item: int) -> int:
        if item == 2:
            raise EngineError("no")
        try:
            await asyncio.sleep(0.01 if item == 0 else 60)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def run() -> None:
        before = asyncio.all_tasks()
        stream = as_done(iter(range(9)), work, at_once=2)
        assert await anext(stream) == 0
        with pytest.raises(EngineError, match="no"):
            await anext(stream)
        assert cancelled == [1]
        assert asyncio.all_tasks() == before

    asyncio.run(run())


def test_an_error_of_the_items_ends_all() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise EngineError("no more")

    with pytest.raises(EngineError, match="no more"):
        asyncio.run(all_of(as_done(items(), doubled, at_once=2)))


def test_closing_cancels_what_is_out() -> None:
    ended_: list[int] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(60 if item else 0)
        finally:
            ended_.append(item)
        return item

    async def run() -> None:
        before = asyncio.all_tasks()
        stream = as_done(iter(range(9)), work, at_once=3)
        assert await anext(stream) == 0
        await stream.aclose()
        assert sorted(ended_) == [0, 1, 2, 3]
        assert asyncio.all_tasks() == before

    asyncio.run(run())


def test_the_last_token_of_the_context(card: Card) -> None:
    """A prompt of n tokens in a context of n + 2 leaves room for two, whatever is asked for."""
    request = asked("The", card.name)
    num = len(prepare(request, card, context=None).prompt)
    assert prepare(request, card, context=num + 2).room == 2
    assert prepare(request, card, context=num + 99).room == 12
    with pytest.raises(EngineError, match=f"has {num} tokens, and the context of model .* is {num} tokens"):
        prepare(request, card, context=num)
