"""Everything that is measured of all sub-ensembles: terms on the questions to choose on, votes on the others."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.data import Split
from fusion.schema import FloatArray, IntArray
from fusion.selectors import Best, Objective, Scored, Scorer, Scores, Space

MEASURED = (
    "focal",
    "generalized",
    "disagreement",
    "entropy",
    "q_statistic",
    "correlation",
    "kappa",
    "double_fault",
    "answer_kappa",
    "fleiss_kappa",
    "oracle",
    "mean_accuracy",
    "accuracy",
    "weighted_accuracy",
)
"""Terms of `fusion.selectors.TERMS` that are measured on the questions to choose on."""

TARGETS = ("accuracy", "gain over best", "gain over mean")
"""What they are to predict on the others: the plurality vote, less a member's accuracy in the last two."""

Told = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Columns:
    """All sub-ensembles of a pool, by number of members.

    Attributes:
        parts: The questions to choose on, and the others.
        leaders: Agents from the most to the least accurate on the first; members are given by rank in it.
        accuracies: float64 [M], theirs on the first, by rank.
        rows: int16 [P, S], members, every row ascending.
        fit: float64 [P] by term, on the questions to choose on.
        test: float64 [P] by target, on the others.
    """

    parts: Split
    leaders: tuple[str, ...]
    accuracies: FloatArray
    rows: Mapping[int, IntArray]
    fit: Mapping[int, Mapping[str, FloatArray]]
    test: Mapping[int, Mapping[str, FloatArray]]

    def names(self, members: Sequence[int]) -> tuple[str, ...]:
        """Return agents in pool order."""
        chosen = {self.leaders[rank] for rank in members}
        return tuple(name for name in self.parts.fit.agents if name in chosen)

    def best(self, objective: Objective, sizes: Sequence[int], *, top: int) -> Scored:
        """Return the sub-ensembles with the highest objective, best first, as `fusion.selectors.search` orders them."""
        best = Best(top)
        for size in sizes:
            known = self.fit[size]
            total_P = np.zeros(len(self.rows[size]))
            for name, weight in objective.weights.items():
                total_P += weight * known[name]
            best.add(self.rows[size], Scores(total_P, known["accuracy"], known["focal"]))
        return best.found


def measure(parts: Split, sizes: Sequence[int], *, threads: int, told: Told) -> Columns:
    """Measure all sub-ensembles.

    Ties of a vote go to the member that was most accurate on the questions to choose on, on both parts. "Its best
    member" is that one, too: who is best on the other questions is not known when choosing.

    Args:
        parts: The questions to choose on, and the others.
        sizes: Numbers of members; those beyond the pool are left out.
        threads: How many work at a time.
        told: Told what is done.
    """
    scorer = Scorer.of(parts.fit, Objective.parse("accuracy"), also=MEASURED, threads=threads)
    elsewhere = Scorer.of(parts.test, scorer.objective, ranked=scorer.bits.ranked, threads=threads)
    test_accuracies_M = parts.test.accuracies[scorer.bits.ranked]
    count = parts.fit.num_agents
    rows: dict[int, IntArray] = {}
    fit: dict[int, dict[str, FloatArray]] = {}
    test: dict[int, dict[str, FloatArray]] = {}
    for size in (size for size in sizes if size <= count):
        told(f"{math.comb(count, size):,} sub-ensembles of {size}")
        space = Space(num_agents=count, sizes=(size,), free=tuple(range(count)))
        rows_PS = np.vstack([space.rows(chunk) for chunk in space.chunks()])
        accuracy_P = elsewhere.measure("accuracy", rows_PS)
        members_PS = test_accuracies_M[rows_PS]
        rows[size] = rows_PS
        fit[size] = {name: scorer.measure(name, rows_PS) for name in MEASURED}
        test[size] = dict(
            zip(TARGETS, (accuracy_P, accuracy_P - members_PS[:, 0], accuracy_P - members_PS.mean(axis=1)), strict=True)
        )
    leaders = tuple(parts.fit.agents[place] for place in scorer.bits.ranked.tolist())
    return Columns(parts, leaders, scorer.accuracies, rows, fit, test)
