"""Ensemble: a pool of agents, a selector that says whom to ask, and a fuser that settles the answer."""

import asyncio
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np

from fusion._background import background
from fusion._saved import lookup, read_saved, write_saved
from fusion.agents import AgentPool, Asker, Engines, RecordStore
from fusion.answer import Answer, summarise
from fusion.data import FreeForm, PredictionTable, Reader, load_task, make_question
from fusion.discovery import build, names, spec_of
from fusion.errors import FusionError, InvalidSpec, UnknownName, UsageError
from fusion.live import Limits, Round
from fusion.protocols import AskingFuser, Fuser, Selector, Telling, TellingSelector
from fusion.schema import BoolArray, Decision, Question, Sees, Selection, Spec, System

AT_ONCE = 64
"""Questions that are asked at a time on one event loop; further ones wait, and their deadline does not run."""


class Replay(NamedTuple):
    """What an ensemble decided on recorded answers.

    Attributes:
        decision: The fused answers, one per question of the table.
        selection: Whom it listened to.
        asked: bool [N, M], whom it asked; every True was paid for, listened to or not.
    """

    decision: Decision
    selection: Selection
    asked: BoolArray


class Ensemble:
    """Pool + selector + fuser.

    Args:
        pool: The agents, as a pool or by name.
        selector: Whom to ask: a selector, or its spec such as "top_k(k=3)".
        fuser: How answers become one: a fuser, or its spec such as "vote".

    Raises:
        UnknownName: When a spec names no method.
        InvalidSpec: When a spec's parameters are refused.

    Example:
        >>> ensemble = Ensemble(["a", "b", "c"], "top_k(k=2)", "vote")
        >>> str(ensemble.system)
        'top_k(k=2)+vote'
    """

    def __init__(
        self, pool: AgentPool | Sequence[str], selector: Selector | Spec | str, fuser: Fuser | Spec | str
    ) -> None:
        if isinstance(pool, str):
            raise UsageError(f"a pool is a list of agents' names, got the text {pool!r}; write [{pool!r}]")
        self.pool = pool if isinstance(pool, AgentPool) else AgentPool.of(pool)
        self.selector = _selector(selector)
        self.fuser = _fuser(fuser)
        if isinstance(self.fuser, AskingFuser):
            self.fuser.meet(self.pool)
        self._engines: Engines | None = None
        self._asker: Asker | None = None
        self._store: RecordStore | None = None
        self._admissions: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Ensemble({len(self.pool)} agents, {self.system})"

    @property
    def system(self) -> System:
        """The spec that rebuilds selector and fuser, without what they learned."""
        return System(spec_of(self.selector), spec_of(self.fuser))

    def fit(self, table: PredictionTable) -> Self:
        """Learn from labelled answers; returns self.

        Raises:
            UnknownName: When the table lacks an agent of the pool.
            InvalidTable: When the table has no labels.
        """
        table = table.columns(self.pool.names)
        table.require_labels()
        self.selector.fit(table)
        selection, _ = ask(self.selector, table)
        self.fuser.fit(table, selection)
        return self

    def replay(self, table: PredictionTable) -> Replay:
        """Decide on recorded answers exactly as if the agents were asked now.

        Raises:
            UnknownName: When the table lacks an agent of the pool.
            NotFitted: When selector or fuser must be fitted first.
        """
        table = table.columns(self.pool.names)
        selection, asked_NM = ask(self.selector, table)
        decision = self.fuser.fuse(table.blind(), selection)
        return Replay(decision, selection, asked_NM)

    def answer(
        self,
        question: Question | str,
        *,
        options: Sequence[str] = (),
        reader: Reader | str | None = None,
        limits: Limits | None = None,
        store: RecordStore | None = None,
    ) -> Answer:
        """Ask the agents one question now, and settle their answers; see `aanswer`."""
        return background.run(self.aanswer(question, options=options, reader=reader, limits=limits, store=store))

    async def aanswer(
        self,
        question: Question | str,
        *,
        options: Sequence[str] = (),
        reader: Reader | str | None = None,
        limits: Limits | None = None,
        store: RecordStore | None = None,
    ) -> Answer:
        """Ask the agents one question now, and settle their answers.

        Agents are asked at the same time, up to 64 questions too. Agents that fail abstain; once the fuser can tell
        that the missing answers cannot change its own, their calls are cancelled (not under a selector that looks at
        answers). Replaying the answer's `table` gives the same decision.

        Args:
            question: A task's question, or any text.
            options: What to choose from, where `question` is a text.
            reader: Reads what the agents write: the question's task, or its spec; by default the letter of an option,
                or the text.
            limits: Quorum, deadline, cost, calls.
            store: Where answers are looked up, so that nothing is asked twice, and kept.

        Raises:
            NoQuorum: When too few agents answer; lists what happened to each.
            UsageError: When the pool is only on record, the selector reads labels, or the quorum cannot be met.
            NotFitted: When selector or fuser must be fitted first.
        """
        if isinstance(question, str):
            question = make_question(question, options=options)
        elif not isinstance(question, Question):
            raise UsageError(f"a question is a text or a Question, got {type(question).__name__}")
        elif options:
            raise UsageError("options belong to a question given as text; a Question has its own")
        for value, kind in ((limits, Limits), (store, RecordStore)):
            if value is not None and not isinstance(value, kind):
                raise UsageError(f"expected {kind.__name__} or None, got {value!r}")
        async with self._admission():
            started = time.monotonic()
            asking = Round(
                pool=self.pool,
                engines=self._open_engines(),
                asker=self._asker_for(store),
                question=question,
                reader=load_task(reader) if isinstance(reader, str) else reader or FreeForm(),
                limits=limits or Limits(),
                store=store,
            )
            adaptive = self.selector.sees == "answers"
            table, _, decision = await asking.run(
                self._choose, self.fuser, adaptive=adaptive, selector=_called(self.selector)
            )
            seconds = time.monotonic() - started
        made = asking.members(table), asking.path
        return summarise(question, *made, seconds=seconds, table=table, decision=decision, fuser=_called(self.fuser))

    def close(self) -> None:
        """Give back what asking took: connections, models, processes. The ensemble may be used again."""
        background.run(self.aclose())

    async def aclose(self) -> None:
        """Give back what asking took, on the event loop that asked."""
        if self._engines is not None:
            await self._engines.aclose()
            self._engines = self._asker = None
        if isinstance(self.fuser, AskingFuser):
            await asyncio.to_thread(self.fuser.close)

    def _open_engines(self) -> Engines:
        if self._engines is None:
            engines = Engines(self.pool)
            for agent in self.pool:
                # What is wrong with one is known before any is paid.
                engines.engine_of(agent)
            self._engines = engines
        return self._engines

    def _asker_for(self, store: RecordStore | None) -> Asker:
        if self._asker is None or store is not self._store:
            self._asker, self._store = Asker(self._open_engines(), store), store
        return self._asker

    def _admission(self) -> asyncio.Semaphore:
        """Return what bounds the questions asked at a time; its places belong to one event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._admissions:
            self._admissions[loop] = asyncio.Semaphore(AT_ONCE)
        return self._admissions[loop]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _choose(self, table: PredictionTable, asked_NM: BoolArray) -> tuple[Selection, Telling | None]:
        if self.selector.sees == "labels":
            raise UsageError(
                f"{spec_of(self.selector)} reads the right answers, which nobody has for a live question; it is an "
                "upper bound for fusion bench"
            )
        if self.selector.sees != "answers":
            return checked(self.selector, self.selector.select(_view(table, self.selector.sees)), table), None
        seen = table.blind().revealed(asked_NM)
        selection = checked(self.selector, self.selector.select(seen), table)
        if not isinstance(self.selector, TellingSelector):
            return selection, None
        (told,) = self.selector.tell(seen)
        return selection, told

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything needed to use the ensemble elsewhere into `folder`.

        Raises:
            OutputError: When the folder cannot be written.
            FusionError: When a method learned something that is neither an array of numbers nor JSON.
        """
        write_saved(Path(folder), self.pool, {"selector": self.selector, "fuser": self.fuser})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, pool: AgentPool | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: Where it is.
            pool: Who answers from now on for the agents that were saved, by their names; it may have more agents, which
                are not asked. Without it the agents keep the engines that they were saved with, if any.

        Raises:
            InputError: When the folder holds no ensemble, or a damaged one.
            UnknownName: When the ensemble uses a method that is not installed.
            UsageError: When `pool` lacks an agent that was saved.
        """
        saved = read_saved(Path(folder))
        members = saved.pool
        if pool is not None:
            members = lookup(pool, saved.pool.names, whose=f"the ensemble in {folder}")
        ensemble = cls(members, saved.selector, saved.fuser)
        saved.restore({"selector": ensemble.selector, "fuser": ensemble.fuser})
        if pool is not None and isinstance(ensemble.fuser, AskingFuser):
            # One that is no member may write or judge.
            ensemble.fuser.meet(pool)
        return ensemble


def ask(selector: Selector, table: PredictionTable) -> tuple[Selection, BoolArray]:
    """Run the ask loop on recorded answers: select, ask, select again until nobody new is asked.

    Only a selector that sees answers is asked more than once. Labels are stripped before it looks, unless it
    is privileged.

    Returns:
        The last selection, and bool [N, M] whom it took.
    """
    asked_NM = np.zeros((len(table), table.num_agents), dtype=bool)
    for selection in ask_in_rounds(selector, table):
        asked_NM |= selection.mask
    return selection, asked_NM


def ask_in_rounds(selector: Selector, table: PredictionTable) -> Iterator[Selection]:
    """Yield every selection of `ask`, one at least; whom it wants beyond those before is asked in that round."""
    if selector.sees != "answers":
        yield checked(selector, selector.select(_view(table, selector.sees)), table)
        return
    asked_NM = np.zeros((len(table), table.num_agents), dtype=bool)
    blind = table.blind()
    while True:
        selection = checked(selector, selector.select(blind.revealed(asked_NM)), table)
        yield selection
        if not (selection.mask & ~asked_NM).any():
            return
        asked_NM |= selection.mask


def _view(table: PredictionTable, sees: Sees) -> PredictionTable:
    if sees == "labels":
        return table
    return table.unanswered() if sees == "question" else table.unseen()


def checked(selector: Selector, selection: Selection, table: PredictionTable) -> Selection:
    """Return what a selector chose for a table.

    Raises:
        FusionError: When it is no mask of the table's shape, or has a question with nobody.
    """
    mask_NM = selection.mask
    if mask_NM.shape != (len(table), table.num_agents) or mask_NM.dtype != np.bool_:
        raise FusionError(
            f"{spec_of(selector)} must return a bool mask of shape [{len(table)}, {table.num_agents}], "
            f"got {mask_NM.dtype} {list(mask_NM.shape)}"
        )
    empty = np.flatnonzero(~mask_NM.any(axis=1))
    if len(empty):
        raise FusionError(f"{spec_of(selector)} selects nobody on question {table.question_ids[empty[0]]!r}")
    return selection


def _called(method: object) -> str:
    """Return what to call a method; one that was passed in need not have a spec."""
    return spec_of(method).name if dataclasses.is_dataclass(method) else type(method).__name__


def _selector(given: Selector | Spec | str) -> Selector:
    method = _built("selectors", given, swapped="{given} is a fuser; a system is selector+fuser, in that order")
    if not isinstance(method, Selector):
        raise InvalidSpec(f"a selector must offer sees, fit and select; {method!r} does not")
    return method


def _fuser(given: Fuser | Spec | str) -> Fuser:
    method = _built("fusers", given, swapped="{given} is a selector; write for example {given}+vote")
    if not isinstance(method, Fuser):
        raise InvalidSpec(f"a fuser must offer fit and fuse; {method!r} does not")
    return method


def _built(package: str, given: object, *, swapped: str) -> object:
    """Return the method that a spec describes; `swapped` is what to say when it is one of the other kind."""
    if not isinstance(given, Spec | str):
        return given
    try:
        return build(package, given)
    except UnknownName as error:
        if error.name in names("fusers" if package == "selectors" else "selectors"):
            raise InvalidSpec(swapped.format(given=given)) from error
        raise
