"""Tables and methods for tests: tables worked by hand, random ones with every field, methods made from their types."""

import atexit
import dataclasses
import functools
import gc
import importlib.metadata
import random
import shutil
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import annotated_types
import numpy as np
import numpy.typing as npt
import pytest

from fusion import discovery
from fusion.agents import Agent, AgentPool
from fusion.data import PredictionTable
from fusion.errors import FusionError
from fusion.protocols import AskingFuser
from fusion.schema import Param, Selection, Spec

T = TypeVar("T")
AGENTS = ("ash", "birch", "cedar", "elm", "fir", "gum")
CATEGORIES = ("law", "maths", "physics")
NEAR_PAPER = (
    "Llama-2-7b-hf",
    "Llama-2-13b-hf",
    "Llama-2-70b-hf",
    "Mixtral-8x7B-Instruct-v0.1",
    "gemma-7b",
    "Mistral-7B-Instruct-v0.2",
    "Phi-3-mini-4k-instruct",
    "Meta-Llama-3-8B",
)
"""Of the recorded models, those near the pool of LLM-TOPLA."""

PER_QUESTION = ("num_options", "labels", "categories", "references", "questions", "options")
PER_ANSWER = ("answers", "asked", "probs", "sample_answers", "scores", "tokens_in", "tokens_out", "seconds", "texts")
NEEDS: Mapping[str, Callable[[], Mapping[str, Param]]] = {
    "marl_aggregator": lambda: {"updates": 2},
    "marl_focal": lambda: {"updates": 2},
    "rank": lambda: {"pool": str(Path(__file__).with_name("answering_pool.yaml")), "agent": "judge"},
    "synthesize": lambda: {"pool": str(Path(__file__).with_name("answering_pool.yaml")), "agent": "writer"},
    "topla_summary": lambda: {"model": tiny_led(), "max_tokens": 4, "epochs": 1.0, "batch_size": 48},
}
"""Parameters that no type tells, by method: who answers for a model, or how little training is enough for a test."""

HIDDEN = {
    "history": frozenset(PER_QUESTION + PER_ANSWER),
    "question": frozenset(PER_ANSWER) | {"labels", "references"},
    "answers": frozenset({"labels", "references", "scores"}),
    "labels": frozenset(),
}
"""For each value of `sees`, the fields that a selector must not read of the questions it selects for."""


def by_hand(answers: npt.ArrayLike, labels: Sequence[int] | None = None, **fields: Any) -> PredictionTable:
    """A table with agents a, b, c, ... and questions q0, q1, ...; answers are [N, M]."""
    answers_NM = np.asarray(answers)
    defaults = {
        "question_ids": [f"q{n}" for n in range(len(answers_NM))],
        "agents": tuple("abcdefghijklmnopqrstuvwxyz"[: answers_NM.shape[1]]),
    }
    return PredictionTable(answers=answers_NM, labels=labels, **(defaults | fields))


def everyone(table: PredictionTable) -> Selection:
    return Selection(np.ones((len(table), table.num_agents), dtype=bool))


def some(table: PredictionTable, seed: int) -> Selection:
    """A selection drawn at random, with someone in every row."""
    rng = np.random.default_rng(seed)
    mask_NM = rng.random((len(table), table.num_agents)) < 0.6
    mask_NM[np.arange(len(table)), rng.integers(0, table.num_agents, len(table))] = True
    return Selection(mask_NM)


def random_table(
    seed: int,
    *,
    questions: int = 48,
    agents: Sequence[str] = AGENTS[:4],
    options: int = 5,
    skill: Literal["mixed", "right", "wrong", "equal", "silent"] = "mixed",
    silent: Sequence[str] = (),
    prefix: str = "q",
    categories: Sequence[str] = CATEGORIES,
) -> PredictionTable:
    """A labelled table with every field, ragged options, abstentions and labels outside the options.

    Args:
        seed: Another seed, another table.
        questions: N.
        agents: Their names.
        options: K; questions have 2 to K of them.
        skill: mixed: no two agents are equally accurate (given N >= 4 M); right, wrong: all are, always; equal: all
            are right on the same half; silent: nobody ever answers.
        silent: Agents that abstain always.
        prefix: Of the question ids, so that tables can be disjoint.
        categories: To draw from.
    """
    rng = np.random.default_rng(seed)
    shape = (questions, len(agents))
    num_options_N = rng.integers(min(2, options), options + 1, questions)
    num_options_N[0] = options
    labels_N = rng.integers(0, num_options_N)
    if skill == "mixed":
        labels_N[rng.permutation(questions)[: questions // 16]] = -1
    right_NM = _right(rng, labels_N, shape, skill)
    steps_NM = rng.integers(1, np.maximum(num_options_N, 2)[:, None], shape)
    answers_NM = np.where(right_NM, labels_N[:, None], (labels_N[:, None] + steps_NM) % num_options_N[:, None])
    answers_NM[~right_NM & (num_options_N[:, None] == 1)] = -1  # the only way to be wrong there
    if skill == "mixed":
        answers_NM[~right_NM & (rng.random(shape) < 0.15)] = -1
    if skill == "silent":
        answers_NM[:] = -1
    answers_NM[:, [name in silent for name in agents]] = -1
    ids = [f"{prefix}{seed}-{n}" for n in range(questions)]
    texts = [tuple(f"{name} option {k}" for k in range(count)) for name, count in zip(ids, num_options_N, strict=True)]
    return PredictionTable(
        question_ids=ids,
        agents=agents,
        answers=answers_NM,
        labels=labels_N,
        num_options=num_options_N,
        options=texts,
        probs=_probs(rng, answers_NM, num_options_N, options),
        sample_answers=_samples(rng, answers_NM, num_options_N),
        categories=rng.choice(np.array(categories), questions),
        references=[row[k] if k >= 0 else "" for row, k in zip(texts, labels_N.tolist(), strict=True)],
        questions=[f"what is {name}?" for name in ids],
        texts=[[f"I say {k}" for k in row] for row in answers_NM.tolist()],
        scores=(answers_NM == labels_N[:, None]) & (answers_NM >= 0),
        tokens_in=rng.integers(10, 99, shape),
        tokens_out=rng.integers(10, 99, shape),
        seconds=rng.random(shape),
    )


def scrambled(table: PredictionTable, fields: frozenset[str] | set[str], seed: int) -> PredictionTable:
    """The table with `fields` replaced by those of another table about the same questions and agents."""
    if "num_options" in fields:
        drawn = _fields(random_table(seed, questions=len(table), agents=table.agents, categories=("other",)))
    else:  # what is drawn has to fit the options that stay
        labels_N = np.random.default_rng(seed).integers(-1, table.num_options)
        drawn = _fields(noise(table, np.ones(table.answers.shape, dtype=bool), seed))
        drawn |= {"labels": labels_N, "references": [f"other {k}" for k in labels_N.tolist()]}
    changed = {name: drawn[name] for name in fields if getattr(table, name) is not None}
    return PredictionTable(**(_fields(table) | changed))


def noise(table: PredictionTable, where_NM: npt.NDArray[np.bool_], seed: int) -> PredictionTable:
    """The table with the cells in `where_NM` answered at random, in every per-answer field."""
    rng = np.random.default_rng(seed)
    answers_NM = rng.integers(-1, np.broadcast_to(table.num_options[:, None], where_NM.shape))
    drawn = {
        "answers": answers_NM,
        "sample_answers": _samples(rng, answers_NM, table.num_options),
        "probs": _probs(rng, answers_NM, table.num_options, table.max_options),
        "texts": np.full(where_NM.shape, "noise", dtype=np.dtypes.StringDType()),
        "tokens_in": rng.integers(0, 999, where_NM.shape),
        "tokens_out": rng.integers(0, 999, where_NM.shape),
        "seconds": rng.random(where_NM.shape) * 99,
        "scores": rng.random(where_NM.shape),
    }
    fields = _fields(table)
    for name, value in drawn.items():
        kept = fields[name]
        if kept is not None:
            where = where_NM.reshape(where_NM.shape + (1,) * (kept.ndim - 2))
            fields[name] = np.where(where, value, kept.astype(value.dtype))
    return PredictionTable(**fields)


def relabelled(table: PredictionTable, seed: int) -> tuple[PredictionTable, npt.NDArray[np.int64]]:
    """The table with every question's options in another order, and where each went: int [N, K + 1], -1 to -1."""
    rng = np.random.default_rng(seed)
    size = table.max_options
    moved = np.tile(np.append(np.arange(size), -1), (len(table), 1))
    for row, count in zip(moved, table.num_options.tolist(), strict=True):
        row[:count] = rng.permutation(count)
    rows_N = np.arange(len(table))
    fields = _fields(table)
    for name in ("answers", "sample_answers", "labels"):
        value = fields[name]
        if value is not None:
            fields[name] = moved[rows_N.reshape((-1,) + (1,) * (value.ndim - 1)), value]
    if table.probs is not None:
        probs_NMK = np.zeros_like(table.probs)
        for n in range(len(table)):
            probs_NMK[n][:, moved[n, :size]] = table.probs[n, :, :size]
        fields["probs"] = probs_NMK
    if table.options is not None:
        places_NK = np.argsort(moved[:, :size], axis=1)
        fields["options"] = [[row[k] for k in places_NK[n, : len(row)]] for n, row in enumerate(table.options)]
    return PredictionTable(**fields), moved


def abstaining(table: PredictionTable, where_NM: npt.NDArray[np.bool_]) -> PredictionTable:
    """The table with nothing answered in the cells `where_NM`."""
    fields = _fields(table)
    for name, fill in {"answers": -1, "sample_answers": -1, "probs": 0, "texts": "", "scores": 0}.items():
        if fields[name] is not None:
            value = fields[name].copy()
            value[where_NM] = fill
            fields[name] = value
    return PredictionTable(**fields)


def answering(table: PredictionTable, answers_NM: npt.NDArray[np.int64]) -> PredictionTable:
    """The table with these answers, -1 to abstain, and with samples and probabilities that say the same thing."""
    rng = np.random.default_rng(0)
    drawn = {
        "answers": answers_NM,
        "sample_answers": np.repeat(answers_NM[:, :, None], 3, axis=2),
        "probs": _probs(rng, answers_NM, table.num_options, table.max_options),
        "texts": [[f"I say {k}" for k in row] for row in answers_NM.tolist()],
    }
    return PredictionTable(**(_fields(table) | drawn))


def without(table: PredictionTable, *names: str) -> PredictionTable:
    return PredictionTable(**(_fields(table) | dict.fromkeys(names)))


def shuffled_agents(table: PredictionTable, seed: int) -> tuple[PredictionTable, npt.NDArray[np.intp]]:
    """The table with its columns in another order, never the old one where there are two, and the order."""
    order_M = np.random.default_rng(seed).permutation(table.num_agents)
    if (order_M == np.arange(table.num_agents)).all():
        order_M = order_M[::-1].copy()
    return table.columns([table.agents[j] for j in order_M]), order_M


def attempted(call: Callable[[], T], *errors: type[FusionError]) -> tuple[T | None, str]:
    """What `call` returns, or None and the message of the error that it is allowed to raise."""
    try:
        return call(), ""
    except errors as error:
        return None, str(error)


def global_randomness() -> object:
    """The state of the generators that belong to everybody, which a method must leave alone."""
    kind, key, *rest = np.random.get_state()
    return random.getstate(), kind, key.tolist(), rest


def renamed(table: PredictionTable, agents: Sequence[str]) -> PredictionTable:
    return PredictionTable(**(_fields(table) | {"agents": agents}))


def answering_pool(agents: Sequence[str]) -> AgentPool:
    """A pool with these names whose agents answer when they are asked: A, B or C."""
    engine = Spec("echo", {"replies": ["A", "B", "The answer is C."]})
    return AgentPool(tuple(Agent(name=name, engine=engine, mode="generate") for name in agents))


@functools.cache
def tiny_led() -> str:
    """The folder of a model that reads and writes, made once and removed in the end."""
    from tiny_models import TinyModels

    # Training collects garbage at every fit; all that was imported need not be looked through each time.
    gc.freeze()
    folder = Path(tempfile.mkdtemp(prefix="tiny-led-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(TinyModels(folder).led())


def install(monkeypatch: pytest.MonkeyPatch, package: str, name: str, cls: type[object]) -> str:
    """Offer a class as an installed package of somebody else's would, under an entry point, until the test ends.

    Returns the name that it goes by.
    """
    module = types.ModuleType("somebody_else")
    setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = importlib.metadata.EntryPoint(name, f"{module.__name__}:{cls.__name__}", f"fusion.{package}")
    installed = importlib.metadata.EntryPoints([entry])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **wanted: installed.select(**wanted))
    return name.replace("-", "_")


@dataclass(frozen=True)
class Recipe:
    """How to make a method that no test knows by name.

    Args:
        package: Its plug-in package.
        name: Its name.
        level: Which value to give a required number: the least that it may have, or the size of the pool.
        params: Values of the fields with a closed choice.
    """

    package: str
    name: str
    level: Literal["least", "most"] = "least"
    params: Mapping[str, Param] = field(default_factory=dict)

    def __call__(self, agents: Sequence[str]) -> Any:
        """Make the method for a pool; one that asks agents meets a pool whose agents answer."""
        cls = discovery.load(self.package, self.name)
        given = {**NEEDS.get(self.name, dict)(), **self.params}
        filled = {item.name: self._filled(cls, item.name, agents) for item in _required(cls) if item.name not in given}
        method = discovery.build(self.package, Spec(self.name, {**given, **filled}))
        if isinstance(method, AskingFuser):
            method.meet(answering_pool(agents))
        return method

    def __str__(self) -> str:
        level = [f"{item.name}={self.level}" for item in _required(discovery.load(self.package, self.name))]
        return f"{Spec(self.name, self.params)}{'-'.join(['', *level])}"

    def _filled(self, cls: type[object], name: str, agents: Sequence[str]) -> Param:
        hint = typing.get_type_hints(cls, include_extras=True)[name]
        bounds = {type(mark): mark for mark in getattr(hint, "__metadata__", ())}
        kind = getattr(hint, "__origin__", hint)
        lowest = bounds.get(annotated_types.Ge)
        if kind is int and lowest is not None:
            return int(lowest.ge) if self.level == "least" else max(int(lowest.ge), len(agents))
        if kind is float and len(bounds) == 2:
            return sum(float(next(iter(vars_of(mark)))) for mark in bounds.values()) / 2
        if typing.get_type_hints(cls)[name] == tuple[str, ...]:
            return list(agents[:1] if self.level == "least" else agents)
        pytest.fail(
            f"the conformance suite cannot fill {self.name}({name}: {hint}): give the field a default, or a type that "
            "it knows: Literal, bool, Annotated[int, Ge(1)], Annotated[float, Gt(0), Lt(1)], tuple[str, ...] for agents"
        )


def vars_of(mark: object) -> Iterator[object]:
    """The values of a frozen annotation such as Gt(0)."""
    return iter(dataclasses.astuple(typing.cast(Any, mark)))


def recipes(package: str) -> list[Recipe]:
    """Every way to make every method of a package: each closed choice in turn, required numbers small and large."""
    return [recipe for name in discovery.names(package) for recipe in ways(package, name)]


OF_TRAINING = frozenset({"precision", "gradient_checkpointing", "keep"})
"""Choices that say how a model is trained or fed, not how a decision is made of what it says."""


def ways(package: str, name: str) -> Iterator[Recipe]:
    cls = discovery.load(package, name)
    needed = {item.name for item in _required(cls)}
    choices = {key: found for key, hint in typing.get_type_hints(cls).items() if (found := _choices(hint))}
    first: dict[str, Param] = {key: values[0] for key, values in choices.items() if key in needed}
    levels: tuple[Literal["least", "most"], ...] = ("least", "most") if needed - set(choices) else ("least",)
    for level in levels:
        yield Recipe(package, name, level, first)
    fields = {item.name: item for item in dataclasses.fields(typing.cast(Any, cls)) if item.init}
    for key in [key for key in choices if key in fields and key not in OF_TRAINING]:
        for value in choices[key]:
            if value != first.get(key, fields[key].default):
                yield Recipe(package, name, "most", {**first, key: value})


def _choices(hint: object) -> tuple[Any, ...]:
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return (False, True) if hint is bool else ()


def _required(cls: type[object]) -> list["dataclasses.Field[Any]"]:
    return [
        item
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.init and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]


def _fields(table: PredictionTable) -> dict[str, Any]:
    return {item.name: getattr(table, item.name) for item in dataclasses.fields(table)}


def _right(
    rng: np.random.Generator, labels_N: npt.NDArray[np.int64], shape: tuple[int, int], skill: str
) -> npt.NDArray[np.bool_]:
    right_NM = np.zeros(shape, dtype=bool)
    can_N = np.flatnonzero(labels_N >= 0)
    if skill == "right":
        right_NM[can_N] = True
    if skill == "equal":
        right_NM[rng.choice(can_N, (len(can_N) + 1) // 2, replace=False)] = True
    if skill == "mixed":
        # Distinct counts: agent m is right on about 30 % to 70 % of the questions, in an order drawn at random.
        for j, rank in enumerate(rng.permutation(shape[1])):
            count = round(len(can_N) * (0.3 + 0.4 * (rank + 1) / shape[1]))
            right_NM[rng.choice(can_N, count, replace=False), j] = True
    return right_NM


def _probs(
    rng: np.random.Generator, answers_NM: npt.NDArray[np.integer], num_options_N: npt.NDArray[np.integer], size: int
) -> npt.NDArray[np.float32]:
    probs_NMK = rng.dirichlet(np.full(size, 0.7), answers_NM.shape)
    probs_NMK *= np.arange(size) < num_options_N[:, None, None]
    np.put_along_axis(
        probs_NMK, np.maximum(answers_NM, 0)[:, :, None], probs_NMK.max(axis=2, keepdims=True) + 0.05, axis=2
    )
    probs_NMK *= (answers_NM >= 0)[:, :, None]
    totals_NM1 = probs_NMK.sum(axis=2, keepdims=True)
    return np.divide(probs_NMK, totals_NM1, out=np.zeros_like(probs_NMK), where=totals_NM1 > 0).astype(np.float32)


def _samples(
    rng: np.random.Generator, answers_NM: npt.NDArray[np.integer], num_options_N: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    other_NMR = rng.integers(-1, num_options_N[:, None, None], (*answers_NM.shape, 3))
    kept_NMR = rng.random(other_NMR.shape) < 0.5
    kept_NMR[:, :, 0] = True
    return np.where((answers_NM < 0)[:, :, None], -1, np.where(kept_NMR, answers_NM[:, :, None], other_NMR))


equal = functools.partial(np.testing.assert_array_equal, strict=True)
