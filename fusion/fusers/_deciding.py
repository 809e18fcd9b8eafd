"""From scores of candidates to a decision: what fusers that score options have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fusion.data import PredictionTable, is_open
from fusion.fusers._votes import Tally, leading, ranking, settle, shares
from fusion.logit import Candidates, candidates, kinds
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection

Score = Callable[[slice, Candidates], tuple[FloatArray, FloatArray]]
"""Told where questions stand and their candidates, returns scores and probabilities, both float64 [R]."""


@dataclass(kw_only=True)
class ScoringFuser:
    """What fusers that learn to score options keep of fit, and how their scores become a decision."""

    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)
    probs_: bool = field(default=False, init=False, repr=False)
    open_: bool = field(default=False, init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)

    def _meet(self, table: PredictionTable, *, probs: bool, categories: tuple[str, ...]) -> None:
        """Keep what a table to fit on is like.

        Args:
            table: Labelled answers.
            probs: Whether its probabilities are used.
            categories: Those that are told apart, sorted.
        """
        self.agents_, self.accuracies_ = table.agents, table.accuracies
        self.probs_, self.open_, self.categories_ = probs, is_open(table), categories

    def _kinds(self) -> list[slice]:
        """Return which features are of one kind."""
        return kinds(len(self.agents_), probs=self.probs_)

    def _candidates(
        self, table: PredictionTable, selection: Selection, *, samples: int = 1
    ) -> Iterator[tuple[slice, Candidates]]:
        return candidates(table, selection, probs=self.probs_, samples=samples, absent=self.open_)

    def _decide(self, table: PredictionTable, selection: Selection, score: Score, *, samples: int = 1) -> Decision:
        """Take the option of every row with the highest score among those that an agent chose.

        Where there are probabilities an option that no agent chose may win, unless all agree on another.

        Args:
            table: Answers.
            selection: Whose count.
            score: What makes an option good.
            samples: Answers drawn from every agent.
        """
        answers_N = np.full(len(table), -1)
        confidence_N = np.zeros(len(table))
        probs_NK = np.zeros((len(table), table.max_options), dtype=np.float32)
        ranked_M = ranking(self.accuracies_, table.num_agents)
        for part, found in self._candidates(table, selection, samples=samples):
            scores_R, probs_R = score(part, found)
            best_BK = _best(found, scores_R, table.max_options)
            answers_N[part] = settle(best_BK, table.answers[part], selection.mask[part], ranked_M)
            probs_NK[part], confidence_N[part] = _spread(
                found,
                probs_R,
                answers_N[part],
                table.num_options[part],
                max_options=table.max_options,
                absent=self.open_,
            )
        return Decision(answers_N, probs=probs_NK, samples=samples, confidence=confidence_N)


def _best(found: Candidates, scores_R: FloatArray, max_options: int) -> BoolArray:
    """Return bool [B, K], the options with the highest score; where all agree, what they say."""
    backed_BK = np.zeros((len(found.unnamed), max_options), dtype=bool)
    scores_BK = np.zeros(backed_BK.shape)
    place = found.question, found.option
    backed_BK[place] = found.backed
    scores_BK[place] = scores_R
    may_win_BK = backed_BK.copy()
    may_win_BK[place] |= (backed_BK.sum(axis=1) > 1)[found.question]
    return leading(Tally(scores_BK, may_win_BK, 1 + np.abs(scores_BK).max(axis=1)))


def _spread(
    found: Candidates,
    probs_R: FloatArray,
    answers_B: IntArray,
    num_options_B: IntArray,
    *,
    max_options: int,
    absent: bool,
) -> tuple[FloatArray, FloatArray]:
    """Return probabilities of all options, float32 [B, K], and of the answers to be right, float64 [B].

    Args:
        found: Candidates of B questions.
        probs_R: Their probabilities; those of a question sum to less than 1 where options are left out.
        answers_B: The options that won, -1 where none did.
        num_options_B: How many options each question has.
        max_options: K.
        absent: Whether what is left out is no option at all, as in open questions, and has no share in `probs`.
    """
    probs_BK = np.zeros((len(answers_B), max_options))
    named_BK = np.zeros(probs_BK.shape, dtype=bool)
    probs_BK[found.question, found.option] = probs_R
    named_BK[found.question, found.option] = True
    valid_BK = np.arange(max_options) < num_options_B[:, None]
    if not absent:
        left_B = np.maximum(1 - probs_BK.sum(axis=1), 0) / np.maximum(found.unnamed, 1)
        probs_BK += np.where(valid_BK & ~named_BK, left_B[:, None], 0)
    rows = np.arange(len(answers_B))
    heard_B = answers_B >= 0
    own_B = probs_BK[rows, np.maximum(answers_B, 0)]
    # An option that could not win is likelier than the answer: it shares with it, so that none is ahead of the answer.
    ahead_BK = (probs_BK >= own_B[:, None]) & valid_BK
    mean_B = (probs_BK * ahead_BK).sum(axis=1) / np.maximum(ahead_BK.sum(axis=1), 1)
    probs_BK = np.where(ahead_BK, mean_B[:, None], probs_BK) * heard_B[:, None]
    return shares(probs_BK), mean_B * heard_B
