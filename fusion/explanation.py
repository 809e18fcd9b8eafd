"""Why an ensemble answered one recorded question as it did: who said what, what it weighed, what would change it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fusion.data import LETTERS, PredictionTable
from fusion.ensemble import Ensemble
from fusion.protocols import Fuser, WeighingFuser
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Json, Selection

Measure = Literal["probability", "weight", "votes"]

# Fusers keep probabilities as float32, and sums of the same weights in another order differ in the last bits.
_TIES: dict[Measure, float] = {"probability": 1e-6, "weight": 1e-9, "votes": 0.0}
_MOST_NAMED = 3


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
        changes: Whether the decision would be another without it.
        without: The decision without it, the same where nothing changes; None for no answer.
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
        system: What answered, `selector+fuser`.
        texts: What the question's options say, in their order; None where that is not on record, or the options are
            what agents answered.
        right_answer: The right one; None where it is not known, or is none of the options of a closed question.
        correct: Whether the decision is right; None without labels.
        agents: Every agent of the pool, in its order.
        options: Every option that an agent chose, the most votes first; with them the decision and the runner-up.
        answer: The decision; None for no answer.
        confidence: How likely it is right in the fuser's words, else its probability; None where neither is known.
        stated: Whether `confidence` is the fuser's own word.
        runner_up: The option that came next; None where no other could have won.
        margin: How far it is behind, in `measure`, at least 0; None without a runner-up.
        measure: What puts options in order: "probability", else "weight", else "votes".
        decided: What decided, in one sentence.
        notes: What else is worth knowing.
    """

    question_id: str
    category: str | None
    system: str
    texts: tuple[str, ...] | None
    right_answer: str | None
    correct: bool | None
    agents: tuple[AgentPart, ...]
    options: tuple[OptionPart, ...]
    answer: str | None
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
    to; the selector is not asked again.

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
    found = _Found.of(row, decision, selection.mask[0], _weights(ensemble.fuser, row))
    without_M = _without(ensemble.fuser, row, found)
    certainty_N = decision.certainty
    return Explanation(
        question_id=question_id,
        category=None if row.categories is None else str(row.categories[0]),
        system=str(ensemble.system),
        texts=None if row.options is None or _is_open(row) else row.options[0],
        right_answer=_right_answer(found),
        correct=None if row.labels is None else found.answer >= 0 and found.answer == int(row.labels[0]),
        agents=_agent_parts(found, asked_NM[0], without_M),
        options=tuple(_option_part(found, k) for k in found.shown()),
        answer=found.name(found.answer),
        confidence=None if certainty_N is None else float(certainty_N[0]),
        stated=decision.confidence is not None,
        runner_up=found.name(found.runner_up),
        margin=found.margin,
        measure=found.measure,
        decided=f"{_what_decided(found)}{_what_would_change(found, without_M)}",
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One question, replayed; options are positions, -1 stands for none.

    Args:
        row: The table with this question alone.
        samples: Answers of every agent that count.
        draws: int [M, R], these.
        heard: bool [M], who is listened to.
        weights: float64 [M], or None.
        votes: int [K], votes of those who are listened to.
        weight: float64 [K], sum of their weights, or None.
        probs: float64 [K], or None.
        answer: The decision.
    """

    row: PredictionTable
    samples: int
    draws: IntArray
    heard: BoolArray
    weights: FloatArray | None
    votes: IntArray
    weight: FloatArray | None
    probs: FloatArray | None
    answer: int

    @classmethod
    def of(cls, row: PredictionTable, decision: Decision, heard_M: BoolArray, weights_M: FloatArray | None) -> "_Found":
        draws_MR = row.answers[0, :, None]
        if decision.samples > 1 and row.sample_answers is not None:
            draws_MR = row.sample_answers[0, :, : decision.samples]
        said_MKR = draws_MR[:, None, :] == np.arange(row.max_options)[None, :, None]
        counts_MK = said_MKR.sum(axis=2) * heard_M[:, None]
        shares_MK = counts_MK / np.maximum(counts_MK.sum(axis=1, keepdims=True), 1)
        return cls(
            row=row,
            samples=decision.samples,
            draws=draws_MR,
            heard=heard_M,
            weights=weights_M,
            votes=counts_MK.sum(axis=0),
            weight=None if weights_M is None else weights_M @ shares_MK,
            probs=None if decision.probs is None else decision.probs[0].astype(np.float64),
            answer=int(decision.answers[0]),
        )

    @property
    def measure(self) -> Measure:
        """What the fuser puts options in order by, as far as it says so."""
        return "probability" if self.probs is not None else "weight" if self.weight is not None else "votes"

    @property
    def scores(self) -> FloatArray:
        """float64 [K], by that measure."""
        scores_K = self.probs if self.probs is not None else self.weight if self.weight is not None else self.votes
        return np.asarray(scores_K, dtype=np.float64)

    @property
    def runner_up(self) -> int:
        """The option that came next; -1 where no other could have won."""
        could_K = self.votes > 0
        if self.row.probs is not None and self.probs is not None:
            # Where agents say how likely they find every option, one that nobody chose may win.
            could_K |= self.probs > 0
        could_K[self.answer] = False
        if self.answer < 0 or not could_K.any():
            return -1
        return int(np.where(could_K, self.scores, -np.inf).argmax())

    @property
    def margin(self) -> float | None:
        """How far it is behind."""
        if self.runner_up < 0:
            return None
        return max(float(self.scores[self.answer] - self.scores[self.runner_up]), 0.0)

    @property
    def tied(self) -> list[int]:
        """The options that nothing but a tie-break keeps apart, at least the decision."""
        if self.measure == "votes":
            # How a fuser that says nothing of its scores came by its answer cannot be seen from the votes.
            return [self.answer]
        ahead_K = self.scores >= self.scores[self.answer] - _TIES[self.measure] * max(1.0, np.abs(self.scores).max())
        return np.flatnonzero(ahead_K & (self.votes > 0)).tolist()

    def name(self, option: int) -> str | None:
        """Return what an option goes by, None for -1."""
        if option < 0:
            return None
        if self.row.options is not None and _is_open(self.row):
            return self.row.options[0][option]
        return LETTERS[option] if option < len(LETTERS) else str(option)

    def shown(self) -> list[int]:
        """Return the options that an agent chose, the decision and the runner-up, the most votes first."""
        wanted = {*self.row.answers[0].tolist(), *self.draws.ravel().tolist(), self.answer, self.runner_up} - {-1}
        return sorted(wanted, key=lambda k: (-self.votes[k], k != self.answer, -self.scores[k], k))


def _is_open(row: PredictionTable) -> bool:
    """Return whether options are what agents answered, and so have no letters."""
    return row.references is not None or row.provenance.get("cells") == "text"


def _weights(fuser: Fuser, row: PredictionTable) -> FloatArray | None:
    weights_NM = fuser.vote_weights(row.blind()) if isinstance(fuser, WeighingFuser) else None
    return None if weights_NM is None else np.asarray(weights_NM[0], dtype=np.float64)


def _without(fuser: Fuser, row: PredictionTable, found: _Found) -> list[int]:
    """Return the decision without each agent in turn."""
    answers = []
    for j in range(row.num_agents):
        mask_NM = found.heard[None].copy()
        mask_NM[0, j] = False
        if not found.heard[j]:
            answers.append(found.answer)
        elif not mask_NM.any():
            answers.append(-1)
        else:
            answers.append(int(fuser.fuse(row.blind(), Selection(mask_NM)).answers[0]))
    return answers


def _right_answer(found: _Found) -> str | None:
    row = found.row
    if row.labels is None:
        return None
    label = int(row.labels[0])
    if label < 0 and row.references is not None:
        return str(row.references[0]) or None
    return found.name(label)


def _agent_parts(found: _Found, asked_M: BoolArray, without_M: list[int]) -> tuple[AgentPart, ...]:
    return tuple(
        AgentPart(
            agent=name,
            asked=bool(asked_M[j]),
            listened=bool(found.heard[j]),
            answer=found.name(int(found.row.answers[0, j])),
            draws=tuple(map(found.name, found.draws[j].tolist())) if found.samples > 1 else None,
            weight=None if found.weights is None else float(found.weights[j]),
            changes=without_M[j] != found.answer,
            without=found.name(without_M[j]),
        )
        for j, name in enumerate(found.row.agents)
    )


def _option_part(found: _Found, k: int) -> OptionPart:
    texts = found.row.options
    return OptionPart(
        name=str(found.name(k)),
        text=None if texts is None else texts[0][k],
        votes=int(found.votes[k]),
        weight=None if found.weight is None else float(found.weight[k]),
        probability=None if found.probs is None else float(found.probs[k]),
    )


def _what_decided(found: _Found) -> str:
    listeners, cast, own = int(found.heard.sum()), int(found.votes.sum()), int(found.votes[found.answer])
    total, voters = (listeners * found.samples, "draws") if found.samples > 1 else (listeners, "agents")
    if found.answer < 0:
        return f"no answer, {f'although {cast}' if cast else 'as none'} of {total} {voters} gave one"
    if len(found.tied) > 1:
        shown = _listed([f"{found.name(k)} ({_count(int(found.votes[k]), 'vote')})" for k in found.tied], "and")
        return f"a tie of {shown}, settled by the most accurate agent"
    if total == 1 and own:
        return f"followed {found.row.agents[int(found.heard.argmax())]}, the only agent that is listened to"
    if not own:
        return f"chosen by none of {total} {voters}: their probabilities, taken together, speak for it"
    if own == cast:
        return f"followed {own} of {total} {voters}, and nobody chose another answer"
    others_K = found.votes.copy()
    others_K[found.answer] = 0
    rival = int(np.lexsort((found.scores, others_K))[-1])
    told = f"followed {own} of {total} {voters} against {others_K[rival]} for {found.name(rival)}"
    return told if own > others_K[rival] else f"{told}: {_what_outweighs(found, rival)}"


def _what_outweighs(found: _Found, rival: int) -> str:
    """Say why an option wins against one with as many votes or more."""
    if found.weights is None or found.weight is None:
        return "the fuser counts more than votes"
    own, other = found.weight[found.answer], found.weight[rival]
    if own <= other:
        return f"what the fuser counts beside votes outweighs their weights ({own:.3g} against {other:.3g})"
    for_it_M = found.heard & (found.draws == found.answer).any(axis=1)
    order = [j for j in np.argsort(-found.weights, kind="stable").tolist() if for_it_M[j]]
    names = [found.row.agents[j] for j in order]
    return f"the weights of {_some(names)} outweigh those for {found.name(rival)} ({own:.3g} against {other:.3g})"


def _what_would_change(found: _Found, without_M: list[int]) -> str:
    """Return the end of the sentence: whose absence would change the answer."""
    changed: dict[int, list[str]] = {}
    for name, other in zip(found.row.agents, without_M, strict=True):
        if other != found.answer:
            changed.setdefault(other, []).append(name)
    if found.heard.sum() == 1 or (found.answer < 0 and not changed):
        return ""
    if not changed:
        return "; no agent alone would change that"
    told = []
    for other, names in changed.items():
        instead = f"it would answer {found.name(other)}" if other >= 0 else "there would be no answer"
        whom = _listed(names, "or") if len(names) <= _MOST_NAMED else f"any one of {len(names)} agents"
        told.append(f"without {whom} {instead}")
    return f"; {', '.join(told)}"


def _some(names: list[str]) -> str:
    if len(names) <= _MOST_NAMED:
        return _listed(names, "and")
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"


def _listed(words: list[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


__all__ = ["AgentPart", "Explanation", "OptionPart", "explain"]
