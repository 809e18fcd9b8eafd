"""The sub-ensemble with the best focal diversity and vote on the fit questions (LLM-TOPLA).

Reference: Tekin et al., LLM-TOPLA: Efficient LLM Ensemble by Maximising Diversity, arXiv 2410.03953.

Equations, with E a sub-ensemble of the sizes asked for:
    E* = argmax_E  sum_t w_t f_t(E)
        f_t are terms of the objective (`fusion list objectives`), by default focal diversity and the accuracy of the
        plurality vote, each with weight 0.5.
    d_focal(E) = mean over i in E of 1 - P2_i / P1_i
        P1_i and P2_i are the shares of one and of two members, drawn from E, that fail where member i fails
        (`fusion.selectors.focal_diversity`).

Deviations: all sub-ensembles are scored, where the paper searches with a genetic algorithm; beyond `budget` of them
beam and genetic search are used. The vote ignores abstentions and breaks ties by accuracy; the public code counts
abstaining as an option and breaks ties towards the first letter. Equal objectives go to fewer members, then to the
more accurate vote, then to the more accurate members.

What was measured (benchmarks/topla): on recorded answers of 24 models, choosing three by focal diversity alone lost 2.1
points against choosing them by accuracy, and half and half never beat as many members taken by accuracy. For the best
ensemble write objective="accuracy", or "weighted_accuracy" where a weighted vote follows.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> table = PredictionTable(
    ...     question_ids=["q1", "q2", "q3", "q4"],
    ...     agents=["a", "b", "c", "d"],
    ...     answers=np.array([[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
    ...     labels=[0, 0, 0, 1],
    ... )
    >>> FocalPruning(sizes="2", objective="focal").fit(table).select(table).mask[0].tolist()
    [True, False, True, False]
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

from annotated_types import Ge

from fusion.data import PredictionTable
from fusion.errors import UsageError
from fusion.schema import Sees, Selection
from fusion.selectors._objective import DEFAULT_OBJECTIVE, Objective
from fusion.selectors._score import Scorer
from fusion.selectors._search import BUDGET, search
from fusion.selectors._static import fitted_selection
from fusion.selectors._subsets import Space, parse_sizes


@dataclass(kw_only=True)
class FocalPruning:
    """Select the sub-ensemble with the highest objective on the fit questions.

    Args:
        sizes: Numbers of members, such as 3, "2-5" or "2,4-6"; those larger than the pool are left out.
        objective: A weighted sum of terms, such as "focal=0.5,accuracy=0.5" (the paper's).
        budget: Sub-ensembles up to which all are scored.
        seed: Of the search beyond that.
    """

    sizes: str | int = "2-5"
    objective: str = DEFAULT_OBJECTIVE
    budget: Annotated[int, Ge(1)] = BUDGET
    seed: Annotated[int, Ge(0)] = 0
    sees: ClassVar[Sees] = "history"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    chosen_: tuple[int, ...] = field(default=(), init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Search for the best sub-ensemble; of a single agent there is none but itself.

        Raises:
            UsageError: When sizes or objective cannot be read or do not fit the pool.
            InvalidTable: When the table has no labels or no questions.
        """
        asked = parse_sizes(str(self.sizes))
        objective = Objective.parse(self.objective)
        scorer = Scorer.of(table, objective)
        self.agents_ = table.agents
        if table.num_agents == 1:
            self.chosen_ = (0,)
            return self
        sizes = tuple(size for size in asked if size <= table.num_agents)
        if not sizes:
            raise UsageError(
                f"focal_pruning(sizes={self.sizes!r}) needs a pool of at least {asked[0]} agents, this has "
                f"{table.num_agents}"
            )
        space = Space(num_agents=table.num_agents, sizes=sizes, free=tuple(range(table.num_agents)))
        best = search(scorer, space, top=1, budget=self.budget, seed=self.seed).best
        self.chosen_ = tuple(sorted(scorer.bits.ranked[list(best.members[0])].tolist()))
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return a mask with the columns of the chosen agents.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        return fitted_selection(self, table, self.agents_, self.chosen_)


__all__ = ["FocalPruning"]
