"""Fusers that ask a model: whom they ask, where its answers are kept, and what asking cost."""

import dataclasses
import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fusion import agents
from fusion._background import background
from fusion.agents import Agent, AgentPool, Engines, RecordStore, allowed, sum_usage, sum_usd, usd
from fusion.data import PredictionTable, by_accuracy, is_open
from fusion.errors import InputError, NotFitted, UnknownName, UsageError
from fusion.files import write_text
from fusion.fusers._candidate_texts import require_texts
from fusion.fusers._votes import ranking
from fusion.fusers._within import asked_within
from fusion.schema import FINAL, Completion, FloatArray, IntArray, Question, Spent

ASKED = "asked.json"
"""What is saved of whom a fuser asks: the pool, and where its answers are kept."""
_DETAIL_CHARS = 200


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

        No more money and time are taken than are `allowed` to the question that is being settled.

        Raises:
            ConfigError: When money is limited and the agent has no prices.
            EngineError: When the engine cannot answer; what it had answered is kept.
            StoreError, OutputError: When the store cannot be used.
        """
        if not questions:
            return []
        with self._lock:
            engines, kept = self._engines(agent), self._opened(store)
        return background.run(asked_within(allowed(), agent, engines, kept, questions, task=task))

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
    num_failed: int = field(default=0, init=False, repr=False, compare=False)
    num_calls: int = field(default=0, init=False, repr=False, compare=False)
    failure: str = field(default="", init=False, repr=False, compare=False)
    _saved: "tuple[AgentPool | None, str] | None" = field(default=None, init=False, repr=False, compare=False)
    _met: AgentPool | None = field(default=None, init=False, repr=False, compare=False)
    _desk: Desk = field(default_factory=Desk, init=False, repr=False, compare=False)

    def meet(self, pool: AgentPool) -> None:
        """Take note of the ensemble's agents: one of them is asked where no pool file is given."""
        self._met = pool

    def learn_in(
        self, folder: Path, told: Callable[[str, int, int], None] | None = None, *, tensorboard: bool = False
    ) -> None:
        """Do nothing: nothing is trained here."""

    def save_files(self, folder: Path) -> None:
        """Write the pool that is asked and where its answers are kept, whatever folder relative paths start from.

        Raises:
            ConfigError: When the pool file is missing or wrong.
            OutputError: When `folder` cannot be written.
        """
        pool, store = self._pool(), self._kept_in()
        if pool is not None:
            content = {"pool": pool.to_json(), "store": os.path.abspath(store) if store else ""}
            write_text(folder / ASKED, json.dumps(content, indent=2) + "\n")

    def load_files(self, folder: Path) -> None:
        """Ask the pool that was saved, whether or not its file is still there.

        Raises:
            InputError: When what was saved is damaged.
        """
        path = folder / ASKED
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            pool, store = AgentPool.from_json(content["pool"]), str(content["store"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not say whom {self._name} asks: {error}; save the ensemble again") from error
        self._saved = (pool if self.pool else None), store
        if not self.pool:
            self._met = pool

    def close(self) -> None:
        """Give back what asking took: connections, models, the store. The fuser may be used again."""
        self._desk.close()

    def notes(self) -> tuple[str, ...]:
        """Return what was cut, what failed and what could not be read when it last fused."""
        told = []
        if self.num_cut:
            times = "once" if self.num_cut == 1 else f"{self.num_cut} times"
            told.append(f"{self._name}: a candidate was shown cut {times}, to {self._room}")
        if self.num_failed:
            why = f" ({self.failure})" if self.failure else ""
            told.append(f"{self._name}: {self.num_failed} of {self.num_calls} calls failed{why}; votes decide there")
        if unreadable := self.num_unread - self.num_failed:
            replies = self.num_calls - self.num_failed
            told.append(f"{self._name}: {unreadable} of {replies} replies could not be read; votes decide there")
        return tuple(told)

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def _room(self) -> str:
        return f"{self.candidate_chars} characters"

    @property
    def _asks(self) -> bool:
        """Whether an agent is asked at all."""
        return True

    @property
    def _works_unfitted(self) -> bool:
        """Whether there is nothing that only fit can tell, but how ties are settled best."""
        return bool(self.agent)

    def _forget(self) -> None:
        """Begin to count what is cut, fails and cannot be read."""
        self.num_cut = self.num_unread = self.num_failed = self.num_calls = 0
        self.failure = ""

    def _count_calls(self, replies: Sequence[Completion | None]) -> None:
        """Count the calls that were made, those that failed, and keep what the first of these died of."""
        failed = [reply for reply in replies if spoken(reply) is None]
        self.num_calls, self.num_failed = len(replies), len(failed)
        first = next((reply for reply in failed if reply is not None), None)
        if first is not None:
            detail = " ".join(first.detail.split())
            self.failure = f"{first.status}: {detail[:_DETAIL_CHARS]}" if detail else first.status

    def _open(self, table: PredictionTable) -> bool:
        """Return whether questions are open: as in fit; before it, when all are said to be, or have references."""
        if self.agents_:
            return self.open_
        told = table.provenance.get("open")
        return table.references is not None or (isinstance(told, int) and told >= max(len(table), 1))

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
            NotFitted: Before fit, unless it is said who is asked.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When there is nothing for a model to read.
            ConfigError: When money is limited and whom this fuser asks has no prices.
        """
        if not self.agents_ and not self._works_unfitted:
            raise NotFitted(self._wants_fit)
        if self.agents_:
            table.require_agents(self.agents_)
        if self._asks and (allowance := allowed()).usd is not None:
            # Even where nothing will be asked: live, this is found out before the members are paid.
            allowance.budget(self._asked())
        require_texts(table, self._name)

    @property
    def _wants_fit(self) -> str:
        return (
            f"{self._name} asks the most accurate agent, and has not been fitted, which tells who that is; name one: "
            f"{self._name}(agent=NAME), or call fit(table, selection)"
        )

    def _ranked(self, table: PredictionTable) -> IntArray:
        """Return positions of agents, the most accurate first; before fit in the order of the pool."""
        return ranking(self.accuracies_, table.num_agents)

    def _pool(self) -> AgentPool | None:
        """Return where it is looked up who is asked."""
        if not self.pool:
            return self._met
        if self._saved is not None and self._saved[0] is not None:
            return self._saved[0]
        # Through the package: reading YAML loads pydantic, which whoever lists the fusers has no use for.
        return agents.read_pool(self.pool)

    def _kept_in(self) -> str:
        """Return the folder of the store; "" where there is none."""
        return self.store if self._saved is None else self._saved[1]

    def _asked(self) -> Agent:
        """Return the agent that is asked, with this fuser's way of asking it.

        Raises:
            UsageError: When there is nobody to ask.
        """
        pool, name = self._pool(), self.agent or self._most_accurate
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

    @property
    def _most_accurate(self) -> str:
        assert self.accuracies_ is not None, "checked before"
        return self.agents_[int(by_accuracy(self.accuracies_)[0])]

    def _answers(self, agent: Agent, questions: Sequence[Question]) -> list[Completion | None]:
        return self._desk.ask(agent, questions, store=self._kept_in(), task=self._name)


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
