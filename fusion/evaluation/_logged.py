"""Logs in which only some agents were asked, and how far a policy's path on each question is on record there."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable, category_names, category_places, is_open, name_keys, right_answers
from fusion.ensemble import ask, checked
from fusion.errors import InvalidTable, UnknownName, UsageError
from fusion.protocols import Fuser, Selector, is_slow
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection


class Step(NamedTuple):
    """One call of a policy's paths: what is known on the B questions where it wants an agent, and whether it is there.

    Attributes:
        rows: int [B], their places in the table.
        came: bool [B], whether the agent is on record; the path is censored where not.
        chance: float64 [B], with which probability it is.
        right: float64 [B], 1 where the answer would be right if the policy stopped here; 0 before anybody is asked.
        seen: float64 [B, D], features of what is known.
    """

    rows: IntArray
    came: BoolArray
    chance: FloatArray
    right: FloatArray
    seen: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """A policy's paths through a log.

    Attributes:
        steps: Call after call; all questions are in the first.
        reached: bool [N], where the whole path is on record.
        right: float64 [N], 1 where it ends with the right answer; 0 too where it is not reached.
    """

    steps: tuple[Step, ...]
    reached: BoolArray
    right: FloatArray


def explored(
    table: PredictionTable, *, share: float, always: Collection[str] = (), seed: int
) -> tuple[PredictionTable, FloatArray]:
    """Return a log as exploration would have left it: every agent was asked with probability `share`.

    Draws are keyed by seed, question and agent: a question's log depends on nothing else in the table, and is part of
    that of a larger share.

    Args:
        table: Complete records.
        share: Probability of being asked, in (0, 1].
        always: Agents that were asked on every question.
        seed: Another seed, another log.

    Returns:
        The table as somebody sees it who asked those, and the propensities, float64 [N, M].

    Raises:
        UsageError: When share is not in (0, 1].
        UnknownName: When the table lacks an agent of `always`.
        InvalidTable: When somebody was not asked in `table`.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share is the probability of being asked, in (0, 1]; got {share}")
    for name in always:
        if name not in table.agents:
            raise UnknownName(kind="agent", name=name, known=table.agents)
    if table.asked is not None and not table.asked.all():
        raise InvalidTable(
            f"a log is drawn from complete records, and {int((~table.asked).sum())} answers were not asked for in the "
            "table; give the one that it came from, or the agents and questions that are complete"
        )
    ids = table.question_ids.tolist()
    propensities_NM = np.full((len(table), table.num_agents), float(share))
    asked_NM = np.ones((len(table), table.num_agents), dtype=bool)
    for m, name in enumerate(table.agents):
        if name in always:
            propensities_NM[:, m] = 1
        else:
            asked_NM[:, m] = name_keys(ids, f"explored {seed} {name}") / 2.0**64 < share
    return table.revealed(asked_NM), propensities_NM


def follow(selector: Selector, fuser: Fuser, table: PredictionTable, propensities_NM: FloatArray) -> Paths:
    """Follow the ask loop on what is on record.

    A path ends where the selector wants nobody new, and is censored where it wants somebody who was not asked. Neither
    selector nor fuser sees an answer that the path has not asked for. Agents that are wanted together are taken one
    after another, the likeliest on record first, equal ones by name: what is known when the next is missing counts.

    Args:
        selector: Fitted; must not see labels.
        fuser: Fitted.
        table: The log, labelled.
        propensities_NM: Probability with which each agent was asked.
    """
    blind, logged_NM = table.blind(), on_record(table)
    asked_NM, wanted_NM = np.zeros_like(logged_NM), np.zeros_like(logged_NM)
    place_NM = np.lexsort(np.broadcast_arrays(np.array(table.agents), -propensities_NM), axis=1).argsort(axis=1)
    reached_N = np.zeros(len(table), dtype=bool)
    eyes, going_N = _Eyes.of(fuser, table), np.ones(len(table), dtype=bool)
    steps: list[Step] = []
    while True:
        heard_R = np.flatnonzero(going_N & ~(wanted_NM & ~asked_NM).any(axis=1))
        if len(heard_R) and (selector.sees == "answers" or not steps):
            wanted_NM[heard_R] = _wanted(selector, blind.rows(heard_R), asked_NM[heard_R])
        ended_N = going_N & ~(wanted_NM & ~asked_NM).any(axis=1)
        reached_N |= ended_N
        rows_B = np.flatnonzero(going_N & ~ended_N)
        if not len(rows_B):
            break
        pending_BM = wanted_NM[rows_B] & ~asked_NM[rows_B]
        next_B = np.where(pending_BM, place_NM[rows_B], table.num_agents).argmin(axis=1)
        right_B, seen_BD = eyes.look(rows_B, asked_NM[rows_B], pending_BM, next_B)
        came_B = logged_NM[rows_B, next_B]
        steps.append(Step(rows_B, came_B, propensities_NM[rows_B, next_B], right_B, seen_BD))
        asked_NM[rows_B[came_B], next_B[came_B]] = True
        going_N = np.zeros_like(going_N)
        going_N[rows_B[came_B]] = True
    right_N, ended_R = np.zeros(len(table)), np.flatnonzero(reached_N)
    if len(ended_R):
        ended = table.rows(ended_R)
        decision = fuser.fuse(ended.blind().revealed(asked_NM[ended_R]), Selection(wanted_NM[ended_R]))
        right_N[ended_R] = right_answers(decision, ended)
    return Paths(steps=tuple(steps), reached=reached_N, right=right_N)


def on_record(table: PredictionTable) -> BoolArray:
    """Return bool [N, M], whose answers are on record; one that said nothing is."""
    return np.ones(table.answers.shape, dtype=bool) if table.asked is None else table.asked


def _wanted(selector: Selector, part: PredictionTable, asked_BM: BoolArray) -> BoolArray:
    if selector.sees != "answers":
        return ask(selector, part)[0].mask
    return checked(selector, selector.select(part.revealed(asked_BM)), part).mask


@dataclass(kw_only=True)
class _Eyes:
    """What a model of values sees: permuting questions, agents or options changes nothing.

    The right answer is known by the time that a log is valued, so whether those asked so far are right is among the
    features. So is what agents say who are on record by exploration, but are neither asked by the path yet nor wanted
    next: whether they are on record says nothing about whether the next one is.

    Args:
        fuser: Says what the answer would be by now; None where that takes a model's time, and votes say it.
        table: The log, labelled.
        logged: bool [N, M].
        kinds: float64 [N, C], category, one-hot.
        offered: float64 [N], number of options; 0 where these are what the agents on record answered.
    """

    fuser: Fuser | None
    table: PredictionTable
    logged: BoolArray
    kinds: FloatArray
    offered: FloatArray

    @classmethod
    def of(cls, fuser: Fuser, table: PredictionTable) -> "_Eyes":
        names = category_names(table)
        offered_N = np.zeros(len(table)) if is_open(table) else table.num_options.astype(np.float64)
        kinds_NC = np.eye(max(len(names), 1))[category_places(table, names)]
        return cls(
            fuser=None if is_slow(fuser) else fuser,
            table=table,
            logged=on_record(table),
            kinds=kinds_NC,
            offered=offered_N,
        )

    def look(
        self, rows_B: IntArray, asked_BM: BoolArray, pending_BM: BoolArray, next_B: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return whether the answer would be right by now, float64 [B], and features, [B, D].

        Args:
            rows_B: The questions.
            asked_BM: Whom the paths have asked.
            pending_BM: Who else is wanted already.
            next_B: Whom of these they ask next: nothing may depend on whether that one is on record.
        """
        part = self.table.rows(rows_B)
        others_BM = self.logged[rows_B] & ~asked_BM
        others_BM[np.arange(len(rows_B)), next_B] = False
        right_BM = (part.answers == part.require_labels()[:, None]) & part.answered
        answer_B, right_B, sure_B = self._settled(part, asked_BM)
        _, soon_B, soon_sure_B = self._settled(part, asked_BM | (pending_BM & others_BM))
        _, all_B, all_sure_B = self._settled(part, asked_BM | others_BM)
        counts_BK = _votes(part, asked_BM)
        top_B2 = -np.sort(-counts_BK, axis=1)[:, :2]
        num_asked_B1, num_others_B = asked_BM.sum(axis=1, keepdims=True), others_BM.sum(axis=1)
        share_B2 = np.zeros((len(rows_B), 2))
        share_B2[:, : top_B2.shape[1]] = top_B2 / np.maximum(num_asked_B1, 1)
        backs_BM = (part.answers == answer_B[:, None]) & part.answered
        others_share_B = ((others_BM & right_BM).sum(axis=1) + 0.5) / (num_others_B + 1)
        columns = (
            num_asked_B1[:, 0],
            pending_BM.sum(axis=1),
            *share_B2.T,
            (counts_BK > 0).sum(axis=1),
            self.offered[rows_B],
            sure_B,
            sure_B**2,
            right_B,
            right_B * sure_B,
            right_B * share_B2[:, 0],
            (asked_BM & right_BM).sum(axis=1) / np.maximum(num_asked_B1[:, 0], 1),
            num_others_B,
            (others_BM & right_BM).sum(axis=1),
            others_share_B,
            others_share_B**2,
            others_share_B * right_B,
            ((others_BM & backs_BM).sum(axis=1) + 0.5) / (num_others_B + 1),
            soon_B,
            soon_B * soon_sure_B,
            all_B,
            all_B * all_sure_B,
        )
        return right_B, np.column_stack([*columns, self.kinds[rows_B]]).astype(np.float64)

    def _settled(self, part: PredictionTable, heard_BM: BoolArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return what the answer of those heard is, whether it is right, and how sure it is, each [B]."""
        answer_B, right_B, sure_B = np.full(len(part), -1), np.zeros(len(part)), np.zeros(len(part))
        some_A = np.flatnonzero(heard_BM.any(axis=1))
        if not len(some_A):
            return answer_B, right_B, sure_B
        heard, heard_AM = part.rows(some_A), heard_BM[some_A]
        if self.fuser is None:
            counts_AK = _votes(heard, heard_AM)
            decision = Decision(np.where(counts_AK.any(axis=1), counts_AK.argmax(axis=1), -1))
        else:
            decision = self.fuser.fuse(heard.blind().revealed(heard_AM), Selection(heard_AM))
        answer_B[some_A], right_B[some_A] = decision.answers, right_answers(decision, heard)
        if decision.certainty is not None:
            sure_B[some_A] = decision.certainty
        return answer_B, right_B, sure_B


def _votes(table: PredictionTable, asked_NM: BoolArray) -> IntArray:
    """Return how many of those asked chose each option, int [N, K]."""
    counts_NK = np.zeros((len(table), table.max_options), dtype=np.intp)
    n_A, m_A = np.nonzero(asked_NM & (table.answers >= 0))
    np.add.at(counts_NK, (n_A, table.answers[n_A, m_A]), 1)
    return counts_NK
