"""Ensembles of scripted agents, and selectors that want more than there is."""

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest

from fusion import Agent, AgentPool, Ensemble, Spec
from fusion.agents.echo import Echo
from fusion.answer import Answer, Step
from fusion.data import PredictionTable
from fusion.protocols import Telling
from fusion.schema import Decision, IntArray, Request, Sees, Selection

OPTIONS = ("pear", "spade", "lamp")


def echo(
    name: str, reply: str = "A", *, model: str = "", samples: int = 1, price: float | None = None, **how: Any
) -> Agent:
    """An agent that says `reply`; every word that it writes costs `price` USD."""
    return Agent(
        name=name,
        model=model,
        engine=Spec("echo", {"replies": [reply], **how}),
        mode="generate",
        max_tokens=4,
        samples=samples,
        temperature=1.0 if samples > 1 else 0.0,
        input_price=None if price is None else 0.0,
        output_price=None if price is None else price * 1e6,
    )


def pool(*replies: str, **how: Any) -> AgentPool:
    return AgentPool(tuple(echo(name, reply, **how) for name, reply in zip("abcdefgh", replies, strict=False)))


def ask(ensemble: Ensemble, **how: Any) -> Answer:
    with ensemble:
        return ensemble.answer("Which is a fruit?", options=OPTIONS, **how)


def last(answer: Answer) -> Step:
    return answer.path[-1]


def assert_replays(ensemble: Ensemble, answer: Answer) -> None:
    """Replaying what the decision saw gives the decision, and listens to the same agents."""
    again = ensemble.replay(answer.table).decision
    assert again.answers.tolist() == answer.decision.answers.tolist()
    if answer.decision.probs is not None:
        np.testing.assert_array_equal(again.probs, answer.decision.probs)


@contextlib.contextmanager
def spying() -> Iterator[list[Request]]:
    """Yield the requests that echoes get."""
    found: list[Request] = []
    plain = Echo.generate

    async def generate(self: Echo, requests: Sequence[Request]) -> AsyncGenerator[Any, None]:
        answers = plain(self, requests)
        for request in requests:
            found.append(request)
            yield await anext(answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Echo, "generate", generate)
        yield found


@dataclass(kw_only=True)
class Greedy:
    """Wants everybody: at once, or one after another from the last; or one after another, forgetting the others."""

    sees: ClassVar[Sees] = "answers"

    how: Literal["at once", "one by one", "fickle"] = "at once"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        asked_NM = np.ones(table.answers.shape, dtype=bool) if table.asked is None else table.asked
        if self.how == "at once":
            backwards_NM = np.broadcast_to(np.arange(table.num_agents)[::-1], asked_NM.shape)
            return Selection(np.ones_like(asked_NM), backwards_NM)
        count_N = asked_NM.sum(axis=1)
        next_N = np.maximum(table.num_agents - 1 - count_N, 0)
        mask_NM = asked_NM.copy() if self.how == "one by one" else np.zeros_like(asked_NM)
        mask_NM[np.arange(len(table)), next_N] = True
        return Selection(mask_NM)


@dataclass(kw_only=True)
class Deputies:
    """Asks the first agent, and for each that says nothing the next; tells so in words."""

    sees: ClassVar[Sees] = "answers"

    def fit(self, table: PredictionTable) -> Self:
        return self

    def select(self, table: PredictionTable) -> Selection:
        mask_NM = np.arange(table.num_agents) <= self._silent(table)[:, None]
        return Selection(mask_NM)

    def tell(self, table: PredictionTable) -> tuple[Telling, ...]:
        silent_N = self._silent(table)
        return tuple(Telling(None, bool(count < table.num_agents), words=f"{count} were silent") for count in silent_N)

    def _silent(self, table: PredictionTable) -> IntArray:
        asked_NM = np.ones(table.answers.shape, dtype=bool) if table.asked is None else table.asked
        return np.asarray((asked_NM & (table.answers < 0)).sum(axis=1))


@dataclass(kw_only=True)
class Headcount:
    """Answers by how many are listened to, heard or not."""

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        return Decision(selection.mask.sum(axis=1) % table.num_options)


GREEDY = [Greedy(how="at once"), Greedy(how="one by one"), Greedy(how="fickle")]
