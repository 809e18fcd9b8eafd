"""How each engine is made ready to answer in tests: one function an engine, named as the engine is.

An engine that is added needs a function here; everything else the conformance suite does by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fake_vllm import FakeVllm
from http_server import HttpServer
from tiny_models import TinyModels

from fusion.data import PredictionTable, write_table
from fusion.schema import Message, Request, Spec

NUM_QUESTIONS = 8
LABELS = ("A", "B", "C")


class Ready(NamedTuple):
    """An engine that can answer.

    Attributes:
        spec: Makes it.
        model: A model that it has.
        missing: A model that it has not.
    """

    spec: Spec
    model: str
    missing: str | None

    def request(self, number: int, *, scoring: str = "", temperature: float = 0.0, sample: int = 0) -> Request:
        """Return question `number`, of NUM_QUESTIONS; prompts differ in length."""
        text = f"Question {number}: {'which ' * (number * number % 7)}letter? A. x B. y C. z"
        return Request(
            question_id=f"q{number}",
            messages=(Message("user", text),),
            continuations=LABELS if scoring else (),
            scoring=scoring,
            model=self.model,
            temperature=temperature,
            max_tokens=8,
            sample=sample,
            seed=None if temperature == 0 else 100 + number,
        )


@contextmanager
def echo(folder: Path) -> Iterator[Ready]:
    yield Ready(Spec("echo", {"replies": ["A", "B", "the answer is C"]}), "any", None)


@contextmanager
def replay(folder: Path) -> Iterator[Ready]:
    probs = np.random.default_rng(0).dirichlet((1, 1, 1), (NUM_QUESTIONS, 2)).astype(np.float32)
    table = PredictionTable(question_ids=[f"q{n}" for n in range(NUM_QUESTIONS)], agents=["one", "two"], probs=probs)
    write_table(table, folder / "recorded.parquet")
    yield Ready(Spec("replay", {"table": str(folder / "recorded.parquet")}), "two", "three")


@contextmanager
def hf(folder: Path) -> Iterator[Ready]:
    yield Ready(
        Spec("hf", {"dtype": "float32", "device": "cpu"}),
        str(TinyModels(folder).llama()),
        str(folder / "no-such-model"),
    )


@contextmanager
def openai(folder: Path) -> Iterator[Ready]:
    with HttpServer() as server:
        server.configure(models=["letter+top_logprobs"])
        params = {"base_url": server.url, "retries": 1, "total_s": 20.0}
        yield Ready(Spec("openai", dict(params)), "letter+top_logprobs", "not-found")


@contextmanager
def vllm(folder: Path) -> Iterator[Ready]:
    with FakeVllm() as fake:
        params = {"dtype": "float32", "python": fake.python, "logs": str(folder / "logs")}
        yield Ready(Spec("vllm", dict(params)), str(TinyModels(folder).llama()), str(folder / "no-such-model"))
        assert not fake.alive(), "a server outlived its engine"


SETUPS: dict[str, Callable[[Path], object]] = {
    "echo": echo,
    "replay": replay,
    "hf": hf,
    "openai": openai,
    "vllm": vllm,
}
