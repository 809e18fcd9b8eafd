"""The way to a live answer, step by step: whom it asked and why, why it stopped, how disagreement was settled."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fusion._limits import Limits
from fusion.data import LETTERS, PredictionTable
from fusion.protocols import Telling
from fusion.schema import BoolArray

Stop = Literal["selector", "everybody", "decided", "max_calls", "max_cost", "deadline"]
"""Why nobody else was asked: the selector wanted nobody else; everybody was asked, or all that a selector takes that
does not look at answers; the others had decided the answer; a limit was reached."""

_MOST_NAMED = 4
_MOST_QUOTED = 60  # characters of an answer within a sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Agents that were asked together, and what was known before; nobody in the last step, which says why it ended.

    Args:
        agents: Who was asked, in the order in which the selector wanted them.
        asked: Agents that had been asked before.
        answered: Of these, how many had given an answer that could be read.
        leading: The answer that most of them gave, the first of equals; None where there was none.
        agreement: Share of their answers that are the leading one, in [0, 1]; 0 where there was none.
        why: Why they were asked, or in the last step why nobody else was, in a sentence.
        told: What an adaptive selector said of it in numbers; None where it says nothing.
        stop: In the last step, why nobody else was asked; else None.
        kept_out: In the last step, whom the selector wanted and a limit kept from being asked.
        conflict: In the last step, how disagreement was settled, in a sentence; else "".
    """

    agents: tuple[str, ...]
    asked: int
    answered: int
    leading: str | None
    agreement: float
    why: str
    told: Telling | None = None
    stop: Stop | None = None
    kept_out: tuple[str, ...] = ()
    conflict: str = ""


class Cut(NamedTuple):
    """What was cut short.

    Attributes:
        kept_out: Who was not asked, and which limit that was.
        short: Who was not asked for all draws, likewise.
        late: Who had not answered when the deadline came.
        idle: Who had not answered when the others had decided.
    """

    kept_out: Mapping[str, Stop]
    short: Mapping[str, Stop]
    late: Sequence[str]
    idle: Sequence[str]


class Walk:
    """Writes the steps down.

    Args:
        selector: Name of the selector.
        num_agents: Agents of the pool.
        adaptive: Whether the selector looks at answers.
    """

    def __init__(self, selector: str, *, num_agents: int, adaptive: bool) -> None:
        self.steps: list[Step] = []
        self._selector, self._num_agents, self._adaptive = selector, num_agents, adaptive
        self._asked = 0

    def ask(self, agents: Sequence[str], table: PredictionTable, *, wanted: int, told: Telling | None) -> None:
        """Write down who was asked, if anybody.

        Args:
            agents: Who was asked.
            table: What was known before, one row.
            wanted: How many the selector wanted.
            told: What it said of that.
        """
        if not agents:
            return
        if not self._adaptive:
            why = f"{self._selector} takes {wanted} of {self._num_agents} agents"
        elif told is not None and (said := _said(told)):
            why = f"{self._selector}: {said}"
        elif not self._asked:
            why = f"{self._selector} begins with {wanted} of {self._num_agents} agents"
        else:
            why = f"{self._selector} wants {wanted} more"
        self._write(agents, table, why=why, told=told)
        self._asked += len(agents)

    def end(self, table: PredictionTable, *, told: Telling | None, cut: Cut, limits: Limits) -> None:
        """Write down why nobody else was asked.

        Args:
            table: What was known in the end, one row.
            told: What the selector said of wanting nobody else.
            cut: What was cut short.
            limits: By which limits.
        """
        reasons = _what_cut(cut, limits)
        if not reasons:
            if self._asked == self._num_agents:
                reasons["everybody"] = f"all {self._asked} agents had been asked"
            elif not self._adaptive:
                reasons["everybody"] = f"all {self._asked} that {self._selector} takes had been asked"
            else:
                said = "" if told is None else _said(told)
                reasons["selector"] = f"{self._selector} wants nobody else{f': {said}' if said else ''}"
        self._write(
            (),
            table,
            why="; ".join(reasons.values()),
            told=told,
            stop=next(iter(reasons)),
            kept_out=tuple(cut.kept_out),
        )

    def _write(
        self,
        agents: Sequence[str],
        table: PredictionTable,
        *,
        why: str,
        told: Telling | None,
        stop: Stop | None = None,
        kept_out: tuple[str, ...] = (),
    ) -> None:
        said_A = table.answers[0][table.answered[0]]
        votes_K = np.bincount(said_A, minlength=table.max_options)
        self.steps.append(
            Step(
                agents=tuple(agents),
                asked=self._asked,
                answered=int(spoke(table).sum()),
                leading=answer_text(table, int(votes_K.argmax())) if len(said_A) else None,
                agreement=float(votes_K.max() / len(said_A)) if len(said_A) else 0.0,
                why=why,
                told=told,
                stop=stop,
                kept_out=kept_out,
            )
        )


def settled(
    votes: Mapping[str, Sequence[str]],
    *,
    fuser: str,
    answer: str | None,
    probs: Mapping[str, float] | None,
    confidence: float | None,
) -> str:
    """Return how disagreement was settled, in a sentence.

    Args:
        votes: Who gave which answer.
        fuser: Name of the fuser.
        answer: What it answered.
        probs: Probability of every answer; None when it says none.
        confidence: How likely its answer is right; None when it does not say.
    """
    sure = "" if confidence is None else f" (confidence {confidence:.2f})"
    chosen = f"{fuser} answers nothing" if answer is None else f"{fuser} answers {quoted(answer)}{sure}"
    if not votes:
        return f"nobody gave an answer; {chosen}"
    if list(votes) == [answer]:
        return f"nobody disagreed{sure}"
    if len(votes) == 1:
        return f"nobody disagreed, all gave {quoted(next(iter(votes)))}; {chosen}"
    sides = []
    for given, agents in sorted(votes.items(), key=lambda item: -len(item[1])):
        likely = "" if probs is None or given not in probs else f", probability {probs[given]:.2f}"
        sides.append(f"{quoted(given)} ({len(agents)} {'vote' if len(agents) == 1 else 'votes'}{likely})")
    alone = "" if answer is None or answer in votes else ", which none of them gave"
    return f"{fuser} settled between {_some(sides)}: {chosen}{alone}"


def spoke(table: PredictionTable) -> BoolArray:
    """Return who gave an answer that could be read, in any draw, bool [M], of a one-row table."""
    answered_M: BoolArray = table.answered[0]
    if table.sample_answers is not None:
        answered_M = answered_M | (table.sample_answers[0] >= 0).any(axis=1)
    return answered_M


def quoted(text: str) -> str:
    """Return a text in quotes on one line, without its end where it is long."""
    return f'"{textwrap.shorten(text, _MOST_QUOTED, placeholder=" [...]")}"'


def answer_text(table: PredictionTable, index: int) -> str | None:
    """Return answer number `index` of a one-row table in words; None for -1."""
    if index < 0:
        return None
    assert table.options is not None, "tabulate always gives the options' texts"
    return option_names(table.options[0])[index]


def option_names(options: Sequence[str]) -> list[str]:
    """Return the options' texts, told apart by their letters where texts repeat."""
    if len(set(options)) == len(options):
        return list(options)
    return [f"{LETTERS[k]}. {option}" for k, option in enumerate(options)]


def _what_cut(cut: Cut, limits: Limits) -> dict[Stop, str]:
    """Return why agents were not asked or heard, the gravest reason first; nothing where all were."""
    kept: dict[Stop, list[str]] = {}
    for agent, stop in cut.kept_out.items():
        kept.setdefault(stop, []).append(agent)
    found: dict[Stop, str] = {}
    if cut.late or "deadline" in kept:
        late = [f"{_some(cut.late)} had not answered"] if cut.late else []
        never = [f"{_were(names)} not asked"] if (names := kept.get("deadline")) else []
        found["deadline"] = f"the deadline of {limits.deadline_s:g} s came: {', '.join(late + never)}"
    reached: dict[Stop, str] = {
        "max_calls": f"the limit of {limits.max_calls} call{'' if limits.max_calls == 1 else 's'} was reached",
        "max_cost": f"the limit of {limits.max_cost} USD might have been exceeded",
    }
    for stop, told in reached.items():
        if names := kept.get(stop):
            found[stop] = f"{told}: {_were(names)} not asked"
        elif names := [agent for agent, why in cut.short.items() if why == stop]:
            found[stop] = f"{told}: {_were(names)} not asked for every draw"
    if cut.idle:
        found["decided"] = f"the others had decided the answer: {_were(cut.idle)} not waited for"
    return found


def _said(told: Telling) -> str:
    parts = [told.words] if told.words else []
    if told.gain is not None and told.agent is not None:
        costs = "" if told.price is None else f" and costs {_points(told.price)}"
        parts.append(f"asking {told.agent} is expected to gain {_points(told.gain)} points{costs}")
    if told.probability is not None:
        does = f"asks {told.agent}" if told.goes_on else "stops"
        parts.append(f"it {does} with probability {told.probability:.2f}")
    return "; ".join(parts)


def _points(accuracy: float) -> str:
    """Return a difference of accuracies in percentage points."""
    return f"{round(100 * accuracy, 2) + 0.0:g}"


def _were(names: Sequence[str]) -> str:
    return f"{_some(names)} {'was' if len(names) == 1 else 'were'}"


def _some(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMED:
        return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
