"""Why an ensemble answered one recorded question as it did: who said what, what it weighed, what would change it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fusion._why import Found, Measure, Settled, what_decided, what_would_change
from fusion.data import PredictionTable, right_answers
from fusion.ensemble import Ensemble
from fusion.protocols import Fuser, WeighingFuser
from fusion.schema import BoolArray, FloatArray, Json, Selection


@dataclass(frozen=True, kw_only=True)
class AgentPart:
    """What one agent had to do with the decision.

    Args:
        agent: Its name.
        asked: Whether it was asked, and so paid for.
        listened: Whether its answer counted.
        answer: Its answer on record, asked or not; None where it gave none.
        draws: Its answers that count, where the fuser counts several of every agent; else None.
        weight: What its vote adds to the score of the option it chooses; None where votes do not simply add up.
        changes: Whether the decision would be another without it; the same answer in another form is none.
        without: The decision without it, an option or what the fuser writes then; None for no answer.
    """

    agent: str
    asked: bool
    listened: bool
    answer: str | None
    draws: tuple[str | None, ...] | None
    weight: float | None
    changes: bool
    without: str | None


@dataclass(frozen=True, kw_only=True)
class OptionPart:
    """What one option got.

    Args:
        name: Its letter, or the answer itself where the question is open.
        text: What it says; None where that is not on record.
        votes: Agents that are listened to and chose it; draws, where several of every agent count.
        weight: Sum of the weights of these votes; None where votes do not simply add up.
        probability: What the fuser gives it, its share of the votes where votes are all that counts; None where the
            fuser does not say.
    """

    name: str
    text: str | None
    votes: int
    weight: float | None
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why one question was answered as it was. Options go by `OptionPart.name` everywhere.

    Args:
        question_id: Which question.
        category: Its category; None where the table has none.
        question: What was asked; None where the table does not say.
        system: What answered, `selector+fuser`.
        texts: What the question's options say, in their order; None where that is not on record, or the options are
            what agents answered.
        right_answer: The right one; None where it is not known, or is none of the options of a closed question.
        correct: Whether the decision is right; None without labels.
        agents: Every agent of the pool, in its order.
        options: Every option that an agent chose, the most votes first; with them the decision and the runner-up.
        answer: The decision, or what the fuser wrote; None for no answer.
        written: Whether the fuser wrote it and no agent gave it; it is right when it equals the right answer but for
            its form (`fusion.data.right_answers`).
        calls: Calls that the fuser itself made, beside the agents' answers.
        confidence: How likely it is right in the fuser's words, else its probability; None where neither is known.
        stated: Whether `confidence` is the fuser's own word.
        runner_up: The option that came next; None where no other could have won, or a model decided.
        margin: How far it is behind, in `measure`, at least 0; None without a runner-up.
        measure: What puts options in order: "probability", else "weight", else "votes".
        decided: What decided, in one sentence.
        notes: What else is worth knowing.
    """

    question_id: str
    category: str | None
    question: str | None
    system: str
    texts: tuple[str, ...] | None
    right_answer: str | None
    correct: bool | None
    agents: tuple[AgentPart, ...]
    options: tuple[OptionPart, ...]
    answer: str | None
    written: bool
    calls: int
    confidence: float | None
    stated: bool
    runner_up: str | None
    margin: float | None
    measure: Measure
    decided: str
    notes: tuple[str, ...] = ()
    format: Literal["fusion.explain/1"] = "fusion.explain/1"

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON values; docs/explain-json.md describes them."""
        fields: dict[str, Json] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"format": fields.pop("format"), **fields}


def explain(ensemble: Ensemble, table: PredictionTable, question_id: str) -> Explanation:
    """Replay one recorded question, and say why it is answered as it is.

    What would change without an agent is found by fusing once more with the agent left out of those that are listened
    to; the selector is not asked again. A fuser that asks a model asks it then, too.

    Raises:
        UnknownName: When the table has no such question, or lacks an agent of the pool.
        NotFitted: When selector or fuser must be fitted first.

    Example:
        >>> table = PredictionTable(question_ids=["q"], agents=["a", "b", "c"], answers=[[0, 1, 1]])
        >>> explain(Ensemble(["a", "b", "c"], "all_agents", "vote"), table, "q").decided
        'followed 2 of 3 agents against 1 for A; without b or c it would answer A'
    """
    row = table.columns(ensemble.pool.names).with_ids([question_id])
    decision, selection, asked_NM = ensemble.replay(row)
    found = Found.of(row, decision, selection.mask[0], _weights(ensemble.fuser, row))
    without_M = _without(ensemble.fuser, row, found)
    certainty_N = decision.certainty
    return Explanation(
        question_id=question_id,
        category=None if row.categories is None else str(row.categories[0]),
        system=str(ensemble.system),
        question=None if row.questions is None else str(row.questions[0]) or None,
        texts=None if row.options is None or found.is_open else row.options[0],
        right_answer=_right_answer(found),
        correct=None if row.labels is None else bool(right_answers(decision, row)[0]),
        agents=_agent_parts(found, asked_NM[0], without_M),
        options=tuple(_option_part(found, k) for k in found.shown()),
        answer=found.said(found.settled),
        written=bool(found.settled.text),
        calls=found.calls,
        confidence=None if certainty_N is None else float(certainty_N[0]),
        stated=decision.confidence is not None,
        runner_up=found.name(found.runner_up),
        margin=found.margin,
        measure=found.measure,
        decided=f"{what_decided(found)}{what_would_change(found, without_M)}",
    )


def _weights(fuser: Fuser, row: PredictionTable) -> FloatArray | None:
    weights_NM = fuser.vote_weights(row.blind()) if isinstance(fuser, WeighingFuser) else None
    return None if weights_NM is None else np.asarray(weights_NM[0], dtype=np.float64)


def _without(fuser: Fuser, row: PredictionTable, found: Found) -> list[Settled]:
    """Return the decision without each agent in turn."""
    answers = []
    for j in range(row.num_agents):
        mask_NM = found.heard[None].copy()
        mask_NM[0, j] = False
        if not found.heard[j]:
            answers.append(found.settled)
        elif not mask_NM.any():
            answers.append(Settled(-1))
        else:
            answers.append(Settled.of(fuser.fuse(row.blind(), Selection(mask_NM))))
    return answers


def _right_answer(found: Found) -> str | None:
    row = found.row
    if row.labels is None:
        return None
    label = int(row.labels[0])
    if label < 0 and row.references is not None:
        return str(row.references[0]) or None
    return found.name(label)


def _agent_parts(found: Found, asked_M: BoolArray, without_M: list[Settled]) -> tuple[AgentPart, ...]:
    return tuple(
        AgentPart(
            agent=name,
            asked=bool(asked_M[j]),
            listened=bool(found.heard[j]),
            answer=found.name(int(found.row.answers[0, j])),
            draws=tuple(map(found.name, found.draws[j].tolist())) if found.samples > 1 else None,
            weight=None if found.weights is None else float(found.weights[j]),
            changes=found.differs(without_M[j]),
            without=found.said(without_M[j]),
        )
        for j, name in enumerate(found.row.agents)
    )


def _option_part(found: Found, k: int) -> OptionPart:
    texts = found.row.options
    return OptionPart(
        name=str(found.name(k)),
        text=None if texts is None else texts[0][k],
        votes=int(found.votes[k]),
        weight=None if found.weight is None else float(found.weight[k]),
        probability=None if found.probs is None else float(found.probs[k]),
    )


__all__ = ["AgentPart", "Explanation", "OptionPart", "explain"]
