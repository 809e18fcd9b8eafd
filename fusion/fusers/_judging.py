"""Judging pairs of answers, by an agent or a trained model, and what follows from it: all pairs, or a knock-out."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fusion.data import PredictionTable
from fusion.fusers._asking import spoken
from fusion.fusers._candidate_texts import Candidate
from fusion.fusers._scorer import Comparison, Home
from fusion.schema import Completion, FloatArray, Message, Question


class Pair(NamedTuple):
    """Two answers to one question, one of which is to be preferred.

    Attributes:
        question: Position of the question.
        first, second: The answers.
    """

    question: int
    first: Candidate
    second: Candidate

    @property
    def turned(self) -> "Pair":
        """The same in the other order."""
        return Pair(self.question, self.second, self.first)


class Judge(Protocol):
    """Judges pairs, each in both orders.

    Attributes:
        num_cut: How often a candidate was cut.
        num_unread: Replies that failed or could not be read.
    """

    num_cut: int
    num_unread: int

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, float]]:
        """Yield every pair with what its first answer gets of it, in [0, 1]; 1/2 is a draw."""
        ...


class AskedJudge:
    """An agent judges.

    Args:
        table: The questions.
        prompt: Returns what is asked about a pair, and how many candidates were cut for it.
        ask: Returns the replies.

    Attributes:
        replies: All of them.
        questions: Position of the question that each was about.
        num_cut: How often a candidate was cut.
        num_unread: Replies that failed or could not be read.
    """

    def __init__(
        self,
        table: PredictionTable,
        prompt: Callable[[Pair], tuple[str, int]],
        ask: Callable[[Sequence[Question]], list[Completion | None]],
    ) -> None:
        self._table = table
        self._prompt = prompt
        self._ask = ask
        self.replies: list[Completion | None] = []
        self.questions: list[int] = []
        self.num_cut = self.num_unread = 0

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, float]]:
        """Yield every pair with 1 where its first answer is preferred in both orders, 0 where the second is."""
        both = [order for pair in pairs for order in (pair, pair.turned)]
        prompts = [self._prompt(pair) for pair in both]
        asked = [
            Question(id=str(self._table.question_ids[pair.question]), messages=(Message("user", text),))
            for pair, (text, _) in zip(both, prompts, strict=True)
        ]
        replies = self._ask(asked)
        found = [preferred(spoken(reply)) for reply in replies]
        self.num_cut += sum(num_cut for _, num_cut in prompts)
        self.num_unread += found.count(None)
        self.replies += replies
        self.questions += [pair.question for pair in both]
        for i, pair in enumerate(pairs):
            straight, swapped = found[2 * i], found[2 * i + 1]
            yield pair, 1.0 if (straight, swapped) == (1, 2) else 0.0 if (straight, swapped) == (2, 1) else 0.5


class TrainedJudge:
    """A trained model judges.

    Args:
        home: Where it is.
        comparison: Returns what it reads of a pair.
        lengths: Most tokens of a question, and of an answer.

    Attributes:
        num_cut: How often a candidate was cut.
        num_unread: 0.
    """

    def __init__(self, home: Home, comparison: Callable[[Pair], Comparison], *, lengths: tuple[int, int]) -> None:
        self._home = home
        self._comparison = comparison
        self._lengths = lengths
        self.num_cut = self.num_unread = 0

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, float]]:
        """Yield every pair with the probability that its first answer is the better one."""
        both = [order for pair in pairs for order in (pair, pair.turned)]
        logits_P, num_cut = self._home.logits([self._comparison(pair) for pair in both], lengths=self._lengths)
        self.num_cut += num_cut
        chance_P = 1 / (1 + np.exp(-np.clip(logits_P, -700, 700)))
        for i, pair in enumerate(pairs):
            # What is padded along changes the last bits.
            yield pair, round(float(chance_P[2 * i] + 1 - chance_P[2 * i + 1]) / 2, 6)


def all_pairs(judge: Judge, entries: Mapping[int, Sequence[Candidate]], shape: tuple[int, ...]) -> FloatArray:
    """Return float64 [N, K], the sum over the others of what every answer gets.

    Args:
        judge: Who judges.
        entries: The answers, by position of their question.
        shape: N and K.
    """
    pairs = [
        Pair(n, first, second)
        for n, entered in entries.items()
        for i, first in enumerate(entered)
        for second in entered[i + 1 :]
    ]
    scores_NK = np.zeros(shape)
    for pair, share in judge.judge(pairs):
        scores_NK[pair.question, pair.first.option] += share
        scores_NK[pair.question, pair.second.option] += 1 - share
    return scores_NK


def knockout(judge: Judge, entries: Mapping[int, Sequence[Candidate]], prior_NK: FloatArray) -> FloatArray:
    """Return float64 [N, K], how many rounds every answer lasted.

    Args:
        judge: Who judges.
        entries: The answers, by position of their question, in the order in which they meet.
        prior_NK: Of a draw the answer with the larger one goes on.
    """
    scores_NK = np.zeros(prior_NK.shape)
    left = {n: list(entered) for n, entered in entries.items()}
    while left := {n: those for n, those in left.items() if len(those) > 1}:
        pairs = [Pair(n, *those[i : i + 2]) for n, those in left.items() for i in range(0, len(those) - 1, 2)]
        # The odd one out comes first in the next round, so that it plays there.
        left = {n: those[len(those) // 2 * 2 :] for n, those in left.items()}
        for pair, share in judge.judge(pairs):
            n, (one, other) = pair.question, (pair.first, pair.second)
            ahead = share > 0.5 or (share == 0.5 and prior_NK[n, one.option] > prior_NK[n, other.option])
            left[n].append(one if ahead else other)
        for n, those in left.items():
            scores_NK[n, [candidate.option for candidate in those]] += 1
    return scores_NK


_STANDING_ALONE = re.compile(r"(?<![\w.,])[12](?![\w]|[.,]\d)")
_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]")


def preferred(text: str | None) -> int | None:
    """Return 1 or 2, which a judgement begins with or names alone; None where it does neither.

    Example:
        >>> [preferred(text) for text in ("1", "Candidate 2 is better.", "1 or 2?", "Is it 1 or 2?")]
        [1, 2, 1, None]
    """
    said = _THOUGHT.split(text)[-1].strip(" \t\n*\"'`().") if text else ""
    found = _STANDING_ALONE.findall(said)
    if found and (said.startswith(found[0]) or len(set(found)) == 1):
        return int(found[0])
    return None
