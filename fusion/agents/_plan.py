"""What a recording has to ask: which calls, under which keys, which of them are answered already."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fusion.agents._agent import Agent, continuations
from fusion.agents._engines import Engines
from fusion.agents._key import RecordKey, canonical_json, record_key
from fusion.agents._store import RecordStore
from fusion.errors import EngineError, FusionError
from fusion.schema import FINAL, Question, Request

_MUST_BE_SCORED = "take a form of the task that lists the options, such as truthfulqa_mc1(style=generate)"


class Job(NamedTuple):
    """One call of an agent.

    Attributes:
        question: Position of the question.
        sample: Number of the draw.
        digest: Key of its answer in the store.
    """

    question: int
    sample: int
    digest: str


@dataclass(kw_only=True)
class AgentPlan:
    """The calls of one agent.

    Args:
        agent: Who asks.
        position: Its place in the pool.
        jobs: All its calls, question by question.
        open: Places in `jobs` without a final answer on record.
        error: Why it cannot be asked at all; "" when it can.
        means: By what means its answers are found: "" for generation, else names of ways to score options.
    """

    agent: Agent
    position: int
    jobs: list[Job] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    error: str = ""
    means: set[str] = field(default_factory=set)


class Asker:
    """Turns questions into requests and keys.

    Args:
        engines: The pool's engines.
        store: Remembers by what means an agent's options are scored; None to ask the engine anew.
    """

    def __init__(self, engines: Engines, store: RecordStore | None = None) -> None:
        self._engines = engines
        self._store = store
        self._means: dict[tuple[str, str], str] = {}

    async def scoring(self, agent: Agent, question: Question) -> str:
        """Return by what means `agent` answers `question`: "" when it generates.

        Raises:
            EngineError: When it must score the options and its engine cannot.
        """
        texts = continuations(question)
        if not texts:
            return ""
        kind = kind_of(texts)
        if not scores(agent):
            if kind == "texts" and not _shown(texts, question):
                raise EngineError(
                    f"agent {agent.name!r} generates, and question {question.id!r} does not show the options it is to "
                    f"choose from; {_MUST_BE_SCORED}, or let the agent score: mode: auto, samples: 1"
                )
            return ""
        if (agent.name, kind) not in self._means:
            means = await self._look_up(agent, question, kind)
            if not means and (agent.mode == "options" or kind == "texts"):
                raise EngineError(
                    f"agent {agent.name!r} must score the options of question {question.id!r}, and its engine offers "
                    f"no means for them; choose an engine that does, or {_MUST_BE_SCORED} and mode: generate"
                )
            self._means[agent.name, kind] = means
        return self._means[agent.name, kind]

    def request(self, agent: Agent, question: Question, sample: int) -> Request:
        """Return what `agent` asks about `question`; `scoring` must have been awaited for its kind."""
        texts = continuations(question)
        means = self._means.get((agent.name, kind_of(texts)), "") if texts and scores(agent) else ""
        return agent.request(question, sample=sample, scoring=means)

    def key(self, agent: Agent, request: Request) -> RecordKey:
        """Return the key of the answer to `request`.

        Raises:
            FusionError: When the engine lacks the model.
        """
        engine = self._engines.engine_of(agent)
        return record_key(agent.name, engine.identity(request), engine.render(request), request)

    async def _look_up(self, agent: Agent, question: Question, kind: str) -> str:
        # What was found once holds for the whole record: another means would give other numbers.
        parts = [agent.name, str(agent.engine), agent.model, agent.revision, agent.adapter, agent.template, kind]
        name = f"scoring {canonical_json(parts)}"
        known = self._store.fact(name) if self._store is not None else None
        if known is None:
            engine = self._engines.engine_of(agent)
            known = await engine.scoring(agent.request(question, scoring="auto")) or ""
            if self._store is not None:
                self._store.set_fact(name, known)
        return known


async def plan_agent(
    asker: Asker, store: RecordStore, agent: Agent, questions: Sequence[Question], *, position: int
) -> AgentPlan:
    """Return the calls of `agent`; what keeps it from being asked at all is said in the plan.

    Args:
        asker: Makes the requests.
        store: Where answers may be on record.
        agent: Who asks.
        questions: What is asked.
        position: The agent's place in the pool.
    """
    plan = AgentPlan(agent=agent, position=position)
    try:
        for n, question in enumerate(questions):
            plan.means.add(await asker.scoring(agent, question))
            for r in range(agent.samples):
                plan.jobs.append(Job(n, r, asker.key(agent, asker.request(agent, question, r)).digest))
    except FusionError as error:
        plan.error = str(error)
        plan.jobs.clear()
        return plan
    found = store.get(job.digest for job in plan.jobs)
    final = {digest for digest, completion in found.items() if completion.status in FINAL}
    plan.open = [i for i, job in enumerate(plan.jobs) if job.digest not in final]
    return plan


def _shown(texts: Sequence[str], question: Question) -> bool:
    return bool(question.messages) and all(text in question.messages[-1].content for text in texts)


def scores(agent: Agent) -> bool:
    """Return whether the agent scores continuations where its engine can."""
    return agent.mode == "options" or (agent.mode == "auto" and agent.samples == 1)


def kind_of(texts: Sequence[str]) -> str:
    """Return whether continuations are labels, of one or two characters, or texts."""
    return "labels" if all(len(text.strip()) <= 2 for text in texts) else "texts"
