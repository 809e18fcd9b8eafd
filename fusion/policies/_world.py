"""Questions whose answers are on record, asked of many agents at once: what a policy that asks or stops acts in.

An episode is one question. Its state is who has been asked and what they said; an action asks one agent more, or stops.
All episodes of a batch take their steps together, as looking an answer up needs no simulator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable, category_places, is_open
from fusion.policies._beliefs import Beliefs, Views, cross_fitted
from fusion.schema import BoolArray, FloatArray, IntArray

_LEADERS = 3
"""Options whose probabilities a policy is shown, the likeliest first."""


@dataclass(kw_only=True)
class World:
    """N questions with M agents' answers.

    Args:
        answers: int [N, M], index of the option each agent chose, -1 where it abstains.
        options: int [N], how many options each question has.
        category: int [N], from 0; -1 for one that was not there in fit.
        num_categories: C.
        views: What the beliefs say of each question.
        open: Whether the right answer may be none of the options: these are what agents answered, and one that nobody
            asked has named is not there.
    """

    answers: IntArray
    options: IntArray
    category: IntArray
    num_categories: int
    views: Views
    open: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.views.gains.shape[2]

    @classmethod
    def of(cls, table: PredictionTable, categories: Sequence[str], views: Views, *, open: bool) -> Self:
        """Return the world of a table, whose categories of fit are `categories`."""
        return cls(
            answers=table.answers.astype(np.intp),
            options=table.num_options.astype(np.intp),
            category=category_places(table, categories),
            num_categories=max(len(categories), 1),
            views=views,
            open=open,
        )

    @classmethod
    def to_learn_from(
        cls,
        table: PredictionTable,
        categories: Sequence[str],
        *,
        seed: int,
        worth_NK: FloatArray | None = None,
        told: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Return the world of labelled questions, of each of which beliefs speak that were learned from the others.

        Args:
            table: The questions.
            categories: Those that are told apart, sorted.
            seed: Of what is drawn for the beliefs.
            worth_NK: What each option is worth, instead of 1 for the right one.
            told: Told how many times they have been learned, and how many there are.

        Raises:
            InvalidTable: When the table has no labels.
        """
        views = cross_fitted(table, categories, seed=seed, worth_NK=worth_NK, told=told)
        return cls.of(table, categories, views, open=is_open(table))

    @classmethod
    def to_act_in(cls, table: PredictionTable, categories: Sequence[str], beliefs: Beliefs, *, open: bool) -> Self:
        """Return the world of questions that beliefs have not seen."""
        return cls.of(table, categories, beliefs.views(table, category_places(table, categories)), open=open)

    def begin(self, rows_B: IntArray) -> "State":
        """Return the state in which nobody has been asked, for questions `rows_B`."""
        shape = len(rows_B), self.size
        return State(
            rows_B,
            np.zeros((len(rows_B), self.answers.shape[1]), dtype=bool),
            np.zeros(shape),
            np.zeros(shape, dtype=np.intp),
        )

    def heard(self, rows_B: IntArray, asked_BM: BoolArray) -> "State":
        """Return the state in which the agents in `asked_BM` have been asked."""
        state = self.begin(rows_B)
        for m in range(asked_BM.shape[1]):
            which = np.flatnonzero(asked_BM[:, m])
            self._hear(state, which, np.full(len(which), m))
        return state

    def ask(self, state: "State", agents_B: IntArray) -> None:
        """Ask one agent more in every episode of `state`."""
        self._hear(state, np.arange(len(agents_B)), agents_B)

    def probabilities(self, state: "State") -> FloatArray:
        """Return what the answers so far make of the options, float64 [B, K]; of open ones less than 1 altogether."""
        scores_BK = state.scores + np.take_along_axis(self.views.curves[state.rows], state.counts, axis=1)
        there_BK = np.arange(self.size) < self.options[state.rows][:, None]
        if self.open:
            there_BK &= state.counts > 0
        scores_BK = np.where(there_BK, scores_BK, -np.inf)
        most_B1 = scores_BK.max(axis=1, keepdims=True)
        if self.open:
            # That it is none of them has the score 0.
            most_B1 = np.maximum(most_B1, 0)
        probs_BK = np.exp(scores_BK - most_B1)
        others_B1 = np.exp(-most_B1) if self.open else 0.0
        return np.asarray(probs_BK / (probs_BK.sum(axis=1, keepdims=True) + others_B1))

    def likeliest(self, state: "State") -> IntArray:
        """Return the likeliest option, int [B]; -1 where nobody who was asked named one."""
        best_B = self.probabilities(state).argmax(axis=1)
        return np.where((state.counts > 0).any(axis=1), best_B, -1)

    def observe(self, state: "State", price_B: FloatArray) -> FloatArray:
        """Return what a policy sees, float32 [B, D]; permuting options changes nothing.

        Probabilities of the likeliest options and their logarithms, how many votes the first two have, how many options
        were named; who was asked, who of them backs the likeliest option, how many; the category; the price of a call.

        Args:
            state: B episodes.
            price_B: Accuracy that one call has to be worth.
        """
        probs_BK = self.probabilities(state)
        lead_BL = np.argsort(-probs_BK, axis=1, kind="stable")[:, :_LEADERS]
        top_BL = np.zeros((len(price_B), _LEADERS))
        top_BL[:, : lead_BL.shape[1]] = np.take_along_axis(probs_BK, lead_BL, axis=1)
        votes_B2 = np.zeros((len(price_B), 2))
        votes_B2[:, : lead_BL.shape[1]] = np.take_along_axis(state.counts, lead_BL[:, :2], axis=1)
        backs_BM = state.asked & (self.answers[state.rows] == lead_BL[:, :1])
        kind_BC = np.zeros((len(price_B), self.num_categories))
        known_B = np.flatnonzero(self.category[state.rows] >= 0)
        kind_BC[known_B, self.category[state.rows][known_B]] = 1
        few = state.asked.shape[1]
        parts = [top_BL, np.log(top_BL + 1e-4) / 4, votes_B2 / 4, (state.counts > 0).sum(axis=1, keepdims=True) / 4]
        parts += [state.asked, backs_BM, state.asked.sum(axis=1, keepdims=True) / few, kind_BC]
        return np.concatenate([*parts, np.log(price_B)[:, None] / 4 + 1], axis=1).astype(np.float32)

    def _hear(self, state: "State", which: IntArray, agents: IntArray) -> None:
        rows = state.rows[which]
        said = self.answers[rows, agents]
        state.asked[which, agents] = True
        state.scores[which] += self.views.gains[rows, agents]
        spoke = said >= 0
        state.counts[which[spoke], said[spoke]] += 1


class State(NamedTuple):
    """B episodes, changed in place.

    Attributes:
        rows: int [B], their questions.
        asked: bool [B, M].
        scores: float64 [B, K], what those asked add to each option.
        counts: int [B, K], number of votes.
    """

    rows: IntArray
    asked: BoolArray
    scores: FloatArray
    counts: IntArray

    def take(self, which: BoolArray | IntArray) -> "State":
        """Return some of the episodes, copied."""
        return State(self.rows[which], self.asked[which], self.scores[which], self.counts[which])
