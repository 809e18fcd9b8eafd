"""Fusers that ask a model: whom they ask, where its answers are kept, and what asking cost."""

import dataclasses
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fusion import agents
from fusion._background import background
from fusion.agents import Agent, AgentPool, Engines, Recorder, RecordStore, sum_usage, sum_usd, usd
from fusion.data import PredictionTable, by_accuracy
from fusion.errors import EngineError, NotFitted, UnknownName, UsageError
from fusion.fusers._candidate_texts import require_texts
from fusion.fusers._deciding import is_open
from fusion.schema import FINAL, Completion, FloatArray, IntArray, Question, Spent


class Desk:
    """Asks one agent at a time and keeps what it answered, so that nothing is asked twice.

    Copies of a fuser in one process share it. Any thread may ask, but that of the background event loop itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: tuple[Agent, Engines] | None = None
        self._store: tuple[str, RecordStore] | None = None
        self._drop: weakref.finalize[..., Desk] | None = None

    def __deepcopy__(self, memo: object) -> "Desk":
        return self

    def __reduce__(self) -> tuple[type["Desk"], tuple[()]]:
        return Desk, ()

    def ask(self, agent: Agent, questions: Sequence[Question], *, store: str, task: str) -> list[Completion | None]:
        """Return the agent's answers, from the store where they are there; None where a call was never made.

        Raises:
            EngineError: When the engine cannot answer; what it had answered is kept.
            StoreError, OutputError: When the store cannot be used.
        """
        if not questions:
            return []
        with self._lock:
            engines, kept = self._engines(agent), self._opened(store)
        return background.run(_recorded(agent, engines, kept, questions, task))

    def close(self) -> None:
        """Give back the engine and the store; both are made again when they are wanted."""
        with self._lock:
            asked, self._asked = self._asked, None
            if self._drop is not None:
                self._drop()
            self._store = self._drop = None
        if asked is not None:
            background.run(asked[1].aclose())

    def _engines(self, agent: Agent) -> Engines:
        if self._asked is None or self._asked[0] != agent:
            if self._asked is not None:
                background.run(self._asked[1].aclose())
            self._asked = agent, Engines(AgentPool((agent,)))
        return self._asked[1]

    def _opened(self, place: str) -> RecordStore:
        if self._store is None or self._store[0] != place:
            if self._drop is not None:
                self._drop()
            folder = None if place else tempfile.mkdtemp(prefix="fusion-")
            kept = RecordStore.open(Path(folder or place))
            self._store, self._drop = (place, kept), weakref.finalize(self, _put_away, kept, folder)
        return self._store[1]


def _put_away(store: RecordStore, folder: str | None) -> None:
    store.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


async def _recorded(
    agent: Agent, engines: Engines, store: RecordStore, questions: Sequence[Question], task: str
) -> list[Completion | None]:
    recording = await Recorder(AgentPool((agent,)), engines, store, task=task).record(questions)
    if recording.errors:
        raise EngineError(
            f"agent {agent.name!r}, which {task} asks, cannot answer: {recording.errors[agent.name]}. What it had "
            "answered is kept; with store=FOLDER a later run goes on from there"
        )
    found: list[Completion | None] = [None] * len(questions)
    for call in recording.calls:
        found[call.question] = call.completion
    return found


@dataclass(kw_only=True)
class ModelAsking:
    """What fusers that ask a model have in common: its parameters, whom it stands for, what fit keeps."""

    slow: ClassVar[bool] = True

    agent: str = ""
    pool: str = ""
    store: str = ""
    candidate_chars: Annotated[int, Ge(40)] = 2000
    max_tokens: Annotated[int, Ge(1)] = 512
    temperature: Annotated[float, Ge(0)] = 0.0
    seed: int = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False, compare=False)
    open_: bool = field(default=False, init=False, repr=False)
    num_cut: int = field(default=0, init=False, repr=False, compare=False)
    num_unread: int = field(default=0, init=False, repr=False, compare=False)
    _met: AgentPool | None = field(default=None, init=False, repr=False, compare=False)
    _desk: Desk = field(default_factory=Desk, init=False, repr=False, compare=False)

    def meet(self, pool: AgentPool) -> None:
        """Take note of the ensemble's agents: one of them is asked where no pool file is given."""
        self._met = pool

    def close(self) -> None:
        """Give back what asking took: connections, models, the store. The fuser may be used again."""
        self._desk.close()

    def notes(self) -> tuple[str, ...]:
        """Return what was cut and what could not be read when it last fused."""
        told = []
        if self.num_cut:
            times = "once" if self.num_cut == 1 else f"{self.num_cut} times"
            told.append(f"{self._name}: a candidate was shown cut {times}, to {self._room}")
        if self.num_unread:
            replies = "1 reply" if self.num_unread == 1 else f"{self.num_unread} replies"
            told.append(f"{self._name}: {replies} failed or could not be read; there votes decide")
        return tuple(told)

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def _room(self) -> str:
        return f"{self.candidate_chars} characters"

    def _learn(self, table: PredictionTable) -> None:
        """Keep the agents, their accuracies and whether questions are open.

        Raises:
            InvalidTable: When the table has no labels, or nothing for a model to read.
        """
        require_texts(table, self._name)
        self.agents_, self.accuracies_ = table.agents, table.accuracies
        self.open_ = is_open(table)

    def _check(self, table: PredictionTable) -> None:
        """Check that the table can be fused.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When there is nothing for a model to read.
        """
        if not self.agents_:
            raise NotFitted(
                f"{self._name} settles ties by the agents' accuracies, and has not been fitted; call fit(table, "
                "selection)"
            )
        table.require_agents(self.agents_)
        require_texts(table, self._name)

    def _ranked(self) -> IntArray:
        """Return positions of agents, the most accurate first."""
        assert self.accuracies_ is not None, "checked before"
        return by_accuracy(self.accuracies_)

    def _asked(self) -> Agent:
        """Return the agent that is asked, with this fuser's way of asking it.

        Raises:
            UsageError: When there is nobody to ask.
        """
        # Through the package: reading YAML loads pydantic, which whoever lists the fusers has no use for.
        pool = agents.read_pool(self.pool) if self.pool else self._met
        name = self.agent or self.agents_[int(self._ranked()[0])]
        form = f"{self._name}(pool=pool.yaml, agent=NAME)"
        if pool is None:
            raise UsageError(f"{self._name} asks a model, and has been given none; write {form}")
        found = next((agent for agent in pool if agent.name == name), None)
        if found is None:
            if self.agent:
                raise UnknownName(kind=f"agent (for {self._name})", name=name, known=pool.names)
            raise UsageError(
                f"{self._name} asks the most accurate agent, {name!r}, which {self.pool or 'the pool'} does not have "
                f"(known: {', '.join(pool.names)}); name one of these: {form}"
            )
        if found.engine is None:
            raise UsageError(
                f"{self._name} asks agent {name!r}, and it has no engine: its answers are only on record. Give the "
                f"pool file that says who answers for it: {form}"
            )
        return dataclasses.replace(
            found, mode="generate", samples=1, temperature=self.temperature, max_tokens=self.max_tokens, stop=()
        )

    def _answers(self, agent: Agent, questions: Sequence[Question]) -> list[Completion | None]:
        return self._desk.ask(agent, questions, store=self.store, task=self._name)


def spoken(completion: Completion | None) -> str | None:
    """Return what the model said; None where the call failed."""
    return completion.text if completion is not None and completion.status in ("ok", "truncated") else None


def spending(
    agent: Agent, completions: Sequence[Completion | None], questions: Sequence[int], num_questions: int
) -> Spent:
    """Return what calls cost, as they did when they were made; calls without a final answer are free.

    Args:
        agent: Who was asked.
        completions: What came back.
        questions: Position of the question that each was about.
        num_questions: N.
    """
    calls_by: dict[int, list[Completion]] = {}
    for completion, n in zip(completions, questions, strict=True):
        if completion is not None and completion.status in FINAL:
            calls_by.setdefault(n, []).append(completion)
    calls_N = np.zeros(num_questions, dtype=np.int64)
    read_N, written_N = np.zeros_like(calls_N), np.zeros_like(calls_N)
    usd_N = np.zeros(num_questions)
    known = {"in": True, "out": True, "usd": True}
    for n, made in calls_by.items():
        used, cost = sum_usage([item.usage for item in made]), sum_usd([usd(agent, item.usage) for item in made])
        calls_N[n], read_N[n], written_N[n] = len(made), used.tokens_in or 0, used.tokens_out or 0
        usd_N[n] = cost or 0
        known["in"] &= used.tokens_in is not None
        known["out"] &= used.tokens_out is not None
        known["usd"] &= cost is not None
    return Spent(
        calls=calls_N,
        tokens_in=read_N if known["in"] else None,
        tokens_out=written_N if known["out"] else None,
        usd=usd_N if known["usd"] else None,
    )
