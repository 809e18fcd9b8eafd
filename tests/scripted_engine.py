"""An engine that does what a test says, and remembers what it was asked."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tables

from fusion.agents import Agent, AgentPool
from fusion.agents.echo import Echo
from fusion.errors import EngineError
from fusion.fusers.synthesize import Synthesize
from fusion.schema import Completion, Decision, Json, Request, Spec, Usage

NAME = "scripted"
TOKENS = Usage(tokens_in=100, tokens_out=10)


@dataclass(kw_only=True)
class Scripted(Echo):
    """Answers by `reply`; the script is the test's and so the class's, not one of parameters."""

    asked: ClassVar[list[Request]] = []
    reply: ClassVar[Callable[[Request], str | Completion]]
    most: ClassVar[int | None] = None

    def identity(self, request: Request) -> Mapping[str, Json]:
        return {"engine": NAME}

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        for index, request in enumerate(requests):
            if self.most is not None and len(self.asked) >= self.most:
                raise EngineError("the server is gone")
            self.asked.append(request)
            said = type(self).reply(request)
            yield index, said if isinstance(said, Completion) else Completion(status="ok", text=said, usage=TOKENS)


def install(
    monkeypatch: pytest.MonkeyPatch, reply: Callable[[Request], str | Completion], *, most: int | None = None
) -> list[Request]:
    """Offer the engine until the test ends, and return where it writes down what it is asked.

    Args:
        monkeypatch: Undoes it.
        reply: What it says to a request.
        most: Requests after which it fails altogether.
    """
    made = type("Scripted", (Scripted,), {"asked": [], "reply": staticmethod(reply), "most": most})
    tables.install(monkeypatch, "agents", NAME, made)
    return made.asked


def pool(*names: str) -> AgentPool:
    """Agents that this engine answers for, at 3 and 15 USD per million tokens."""
    return AgentPool(
        tuple(Agent(name=name, engine=Spec(NAME), input_price=3.0, output_price=15.0) for name in names or ("writer",))
    )


def pool_file(folder: Path, name: str = "writer") -> str:
    """A pool file with one such agent."""
    path = folder / "writer.yaml"
    path.write_text(
        f"version: 1\nagents:\n  - {{name: {name}, engine: {NAME}, input_price: 3.0, output_price: 15.0}}\n",
        encoding="utf-8",
    )
    return str(path)


def prompt(request: Request) -> str:
    (message,) = request.messages
    return message.content


def candidates(text: str) -> list[dict[str, Any]]:
    """What a prompt quotes, parsed as a reader of its layout would."""
    head, _, rest = text.partition("\n\nCandidates (")
    listed, _, _ = rest.partition("\n\nEnd of the candidates.")
    count, *lines = listed.split("\n")
    found = [json.loads(line) for line in lines]
    assert count.startswith(f"{len(found)}, quoted")
    assert "Candidates (" not in head
    return found


def long_run(folder: str, *, delay_s: float) -> Decision:
    """Have an echo write the answers to 40 questions one after another, and keep them in a folder."""
    on = tables.by_hand(
        [[0, 1, 1]] * 40,
        [0] * 40,
        questions=[f"Which, number {n}?" for n in range(40)],
        options=[["alpha", "beta", "gamma"]] * 40,
    )
    fuser = Synthesize(agent="writer", store=folder)
    engine = Spec("echo", {"replies": ["The answer is C."], "delay_s": delay_s})
    fuser.meet(AgentPool((Agent(name="writer", engine=engine),)))
    return fuser.fit(on, tables.everyone(on)).fuse(on, tables.everyone(on))
