"""What an ensemble answers to one question, and what every member contributed to it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion._path import Step as Step
from fusion._path import answer_text, option_names, settled
from fusion.agents import sum_usage, sum_usd
from fusion.data import LETTERS, PredictionTable
from fusion.schema import Decision, Json, Question, Status, Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What one agent contributed.

    Args:
        agent: Its name.
        status: How its call ended; of several draws the first that could be read, else the first.
        answer: The answer that was read from that one; None when there is none.
        text: What it said.
        calls: Draws with a final answer.
        recorded: Of these, how many were on record and not asked for.
        usage: Tokens of these draws.
        cost: Their price in USD; None when prices or tokens are unknown.
        seconds: Time its slowest call took.
        detail: What went wrong, for people.
    """

    agent: str
    status: Status
    answer: str | None
    text: str
    calls: int
    recorded: int
    usage: Usage
    cost: float | None
    seconds: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The ensemble's answer to one question.

    Args:
        question: What was asked.
        text: The fused answer: an option's text, or the open answer; None when everybody abstained.
        label: The letter of the chosen option; None for open questions.
        probs: Probability of every option or open answer, by its text; None when the fuser says none.
        votes: Who gave which answer, by its text; a fuser that takes several draws of an agent names it for each.
            Options whose texts repeat are told apart by their letters.
        agreement: Share of these votes that are for the fused answer.
        members: Every agent that was selected, in the pool's order.
        seconds: From the question to the answer.
        table: What the decision saw, one row; replaying it gives the same decision.
        decision: The fused answer as the fuser returned it.
        path: How it came about: who was asked together and why, step by step; the last step says why nobody else was,
            and how disagreement was settled.
    """

    question: Question
    text: str | None
    label: str | None
    probs: Mapping[str, float] | None
    votes: Mapping[str, tuple[str, ...]]
    agreement: float
    members: tuple[Member, ...]
    seconds: float
    table: PredictionTable
    decision: Decision
    path: tuple[Step, ...] = ()

    @property
    def usage(self) -> Usage:
        """Sum of the tokens of members and fuser; None where one of those that answered does not say."""
        used = [member.usage for member in self.members if member.calls]
        return sum_usage(used if self.fusing is None else [*used, self.fusing])

    @property
    def cost(self) -> float | None:
        """Sum of the costs of members and fuser in USD; None when one of those that answered is unknown."""
        costs = [member.cost for member in self.members if member.calls]
        spent = self.decision.spent
        if self.fusing is not None and spent is not None:
            costs.append(None if spent.usd is None else float(spent.usd[0]))
        return sum_usd(costs)

    @property
    def fusing(self) -> Usage | None:
        """Tokens that the fuser itself took; None when it asked nobody."""
        spent = self.decision.spent
        if spent is None or not spent.calls[0]:
            return None
        read_N, written_N = spent.tokens_in, spent.tokens_out
        return Usage(
            tokens_in=None if read_N is None else int(read_N[0]),
            tokens_out=None if written_N is None else int(written_N[0]),
        )

    def to_json(self) -> dict[str, Json]:
        """Return everything but the table and the prompt, for machines."""
        value = {
            "question_id": self.question.id,
            "text": self.text,
            "label": self.label,
            "probs": None if self.probs is None else dict(self.probs),
            "votes": {answer: list(agents) for answer, agents in self.votes.items()},
            "agreement": self.agreement,
            "usage": dataclasses.asdict(self.usage),
            "cost_usd": self.cost,
            "fuser_usage": None if self.fusing is None else dataclasses.asdict(self.fusing),
            "seconds": self.seconds,
            "members": [dataclasses.asdict(member) for member in self.members],
            "path": [_step_json(step) for step in self.path],
        }
        plain: dict[str, Json] = json.loads(json.dumps(value))
        return plain


def _step_json(step: Step) -> dict[str, object]:
    told = None if step.told is None else step.told._asdict()
    fields: dict[str, object] = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return fields | {"told": told}


def summarise(
    question: Question,
    members: tuple[Member, ...],
    path: Sequence[Step],
    *,
    seconds: float,
    table: PredictionTable,
    decision: Decision,
    fuser: str,
) -> Answer:
    """Return the answer that a decision of the fuser of that name amounts to."""
    index = int(decision.answers[0])
    options = option_names(table.options[0]) if table.options is not None else []
    fused = answer_text(table, index)
    votes: dict[str, tuple[str, ...]] = {}
    for member in members:
        m = table.agents.index(member.agent)
        draws_R = table.answers[0, m : m + 1]
        if decision.samples > 1 and table.sample_answers is not None:
            draws_R = table.sample_answers[0, m, : decision.samples]
        for k in draws_R[draws_R >= 0].tolist():
            votes[options[k]] = (*votes.get(options[k], ()), member.agent)
    said = sum(map(len, votes.values()))
    probs = None
    if decision.probs is not None:
        probs = {option: float(decision.probs[0, k]) for k, option in enumerate(options)}
    plain = table.options[0][index] if table.options is not None and index >= 0 else None
    text = plain if decision.texts is None else decision.texts[0] or None
    conflict = settled(
        votes,
        fuser=fuser,
        # Options whose texts repeat go by the names that votes have.
        answer=fused if decision.texts is None else text,
        probs=probs,
        confidence=None if decision.confidence is None else float(decision.confidence[0]),
    )
    return Answer(
        question=question,
        text=text,
        label=LETTERS[index] if question.options and index >= 0 else None,
        probs=probs,
        votes=votes,
        agreement=len(votes.get(fused, ())) / said if said and fused is not None else 0.0,
        members=members,
        seconds=seconds,
        table=table,
        decision=decision,
        path=(*path[:-1], *(dataclasses.replace(step, conflict=conflict) for step in path[-1:])),
    )
