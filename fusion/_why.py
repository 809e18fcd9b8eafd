"""One recorded question, replayed: what is found, and what decided it in a sentence."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fusion.data import LETTERS, PredictionTable, canonical
from fusion.schema import BoolArray, Decision, FloatArray, IntArray

Measure = Literal["probability", "weight", "votes"]

# Fusers keep probabilities as float32, and sums of the same weights in another order differ in the last bits.
_TIES: dict[Measure, float] = {"probability": 1e-6, "weight": 1e-9, "votes": 0.0}
_MOST_NAMED = 3
_MOST_QUOTED = 80  # characters of an answer within a sentence


class Settled(NamedTuple):
    """An answer to the question.

    Attributes:
        option: Its position among the options; -1 for none of them.
        text: What the fuser wrote where that is none of the options; "" else.
    """

    option: int
    text: str = ""

    @classmethod
    def of(cls, decision: Decision) -> "Settled":
        """Return the answer of a decision on one question."""
        option = int(decision.answers[0])
        return cls(option, decision.texts[0] if option < 0 and decision.texts is not None else "")


@dataclass(frozen=True, kw_only=True)
class Found:
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
        settled: The decision.
        calls: Calls that the fuser itself made.
        writes: Whether the fuser may have written the answer without asking anybody.
    """

    row: PredictionTable
    samples: int
    draws: IntArray
    heard: BoolArray
    weights: FloatArray | None
    votes: IntArray
    weight: FloatArray | None
    probs: FloatArray | None
    settled: Settled
    calls: int
    writes: bool

    @classmethod
    def of(cls, row: PredictionTable, decision: Decision, heard_M: BoolArray, weights_M: FloatArray | None) -> "Found":
        """Return what a decision on a table of one question is made of.

        Args:
            row: The table.
            decision: Made on it.
            heard_M: bool [M], who was listened to.
            weights_M: float64 [M], what a vote of each agent weighs; None where votes do not simply add up.
        """
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
            settled=Settled.of(decision),
            calls=0 if decision.spent is None else int(decision.spent.calls[0]),
            writes=decision.texts is not None and decision.spent is None,
        )

    @property
    def answer(self) -> int:
        """The option that is the decision; -1 where that is none of them."""
        return self.settled.option

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
        """The option that came next; -1 where no other could have won, or a model decided."""
        could_K = self.votes > 0
        if self.row.probs is not None and self.probs is not None:
            # Where agents say how likely they find every option, one that nobody chose may win.
            could_K |= self.probs > 0
        could_K[self.answer] = False
        if self.answer < 0 or self.calls or not could_K.any():
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

    @property
    def is_open(self) -> bool:
        """Whether options are what agents answered, and so have no letters."""
        return self.row.references is not None or self.row.provenance.get("cells") == "text"

    def name(self, option: int) -> str | None:
        """Return what an option goes by, None for -1."""
        if option < 0:
            return None
        if self.row.options is not None and self.is_open:
            return self.row.options[0][option]
        return LETTERS[option] if option < len(LETTERS) else str(option)

    def said(self, settled: Settled) -> str | None:
        """Return an answer as it is told: what the option goes by, else what was written, None for no answer."""
        return self.name(settled.option) or settled.text or None

    def differs(self, other: Settled) -> bool:
        """Return whether an answer is another than the decision; one in another form is the same."""
        own, said = self.said(self.settled), self.said(other)
        if own is None or said is None or not (self.settled.text or other.text):
            return other.option != self.answer or own != said
        return canonical(own) != canonical(said)

    def shown(self) -> list[int]:
        """Return the options that an agent chose, the decision and the runner-up, the most votes first."""
        wanted = {*self.row.answers[0].tolist(), *self.draws.ravel().tolist(), self.answer, self.runner_up} - {-1}
        return sorted(wanted, key=lambda k: (-self.votes[k], k != self.answer, -self.scores[k], k))


def what_decided(found: Found) -> str:
    """Return what decided, as the beginning of a sentence."""
    listeners, cast, own = int(found.heard.sum()), int(found.votes.sum()), int(found.votes[found.answer])
    total, voters = (listeners * found.samples, "draws") if found.samples > 1 else (listeners, "agents")
    written = _what_wrote(found, f"{total} {voters}", own=own, cast=cast)
    if written:
        return written
    if found.answer < 0:
        return f"no answer, {f'although {cast}' if cast else 'as none'} of {total} {voters} gave one"
    if len(found.tied) > 1:
        shown = _listed([f"{_short(found, k)} ({_count(int(found.votes[k]), 'vote')})" for k in found.tied], "and")
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
    told = f"followed {own} of {total} {voters} against {others_K[rival]} for {_short(found, rival)}"
    return told if own > others_K[rival] else f"{told}: {_what_outweighs(found, rival)}"


def what_would_change(found: Found, without_M: list[Settled]) -> str:
    """Return the end of the sentence: whose absence would change the answer."""
    changed: dict[tuple[int, str], list[str]] = {}
    first: dict[tuple[int, str], Settled] = {}
    for name, other in zip(found.row.agents, without_M, strict=True):
        if found.differs(other):
            form = other.option, canonical(other.text)
            first.setdefault(form, other)
            changed.setdefault(form, []).append(name)
    silent = found.said(found.settled) is None
    if found.heard.sum() == 1 or (silent and not changed):
        return ""
    if not changed:
        return "; no agent alone would change that"
    if len(changed) > _MOST_NAMED and any(other.text for other in first.values()):
        # Almost every text that is written from other answers differs in a word.
        whose = [name for names in changed.values() for name in names]
        return f"; without any one of {len(whose)} agents it would answer otherwise"
    told = []
    for form, names in changed.items():
        said = found.said(first[form])
        instead = f"it would answer {_quoted(said)}" if said is not None else "there would be no answer"
        whom = _listed(names, "or") if len(names) <= _MOST_NAMED else f"any one of {len(names)} agents"
        told.append(f"without {whom} {instead}")
    return f"; {', '.join(told)}"


def _what_wrote(found: Found, voters: str, *, own: int, cast: int) -> str:
    """Return what a model had to do with the answer; "" where votes decided, as far as that can be seen.

    Args:
        found: The question.
        voters: Who is listened to, such as "3 agents".
        own: Votes for the option that is the decision.
        cast: Votes for any.
    """
    gave = "none" if found.answer < 0 or not own else str(own)
    if found.calls:
        asked = f"the fuser asked a model ({_count(found.calls, 'call')})"
        if found.settled.text:
            return f"{asked}, which wrote an answer that none of {voters} gave"
        if found.answer < 0:
            return f"{asked}, and there is no answer"
        return f"{asked}, and the answer is that of {gave} of {voters}"
    if found.settled.text:
        return f"the fuser wrote an answer that none of {voters} gave"
    if found.writes and found.answer >= 0 and own < cast:
        return f"the fuser wrote the answer, and it is that of {gave} of {voters}"
    return ""


def _what_outweighs(found: Found, rival: int) -> str:
    """Say why an option wins against one with as many votes or more."""
    if found.weights is None or found.weight is None:
        return "the fuser counts more than votes"
    own, other = found.weight[found.answer], found.weight[rival]
    if own <= other:
        return f"what the fuser counts beside votes outweighs their weights ({own:.3g} against {other:.3g})"
    for_it_M = found.heard & (found.draws == found.answer).any(axis=1)
    order = [j for j in np.argsort(-found.weights, kind="stable").tolist() if for_it_M[j]]
    names = [found.row.agents[j] for j in order]
    return f"the weights of {_some(names)} outweigh those for {_short(found, rival)} ({own:.3g} against {other:.3g})"


def _short(found: Found, option: int) -> str:
    return _quoted(found.name(option) or "none")


def _quoted(text: str) -> str:
    """Return a text on one line, without its end where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED].rstrip()} [...]"


def _some(names: list[str]) -> str:
    if len(names) <= _MOST_NAMED:
        return _listed(names, "and")
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"


def _listed(words: list[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
