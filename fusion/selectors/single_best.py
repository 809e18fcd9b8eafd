"""The one agent that was most accurate on the fit questions: the baseline every ensemble must beat.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> table = PredictionTable(
    ...     question_ids=["q1", "q2"], agents=["a", "b"], answers=np.array([[0, 1], [0, 0]]), labels=[0, 0]
    ... )
    >>> SingleBest().fit(table).select(table).mask.tolist()
    [[True, False], [True, False]]
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

from fusion.data import PredictionTable, by_accuracy
from fusion.schema import Sees, Selection
from fusion.selectors._static import fitted_selection


@dataclass(kw_only=True)
class SingleBest:
    """Select the most accurate agent; abstaining counts as wrong, equal accuracy goes by pool order."""

    sees: ClassVar[Sees] = "history"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    best_: int = field(default=-1, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Find the most accurate agent.

        Raises:
            InvalidTable: When the table has no labels or no questions.
        """
        self.agents_ = table.agents
        self.best_ = int(by_accuracy(table.accuracies)[0])
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return a mask with the column of the best agent.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        return fitted_selection(self, table, self.agents_, [self.best_] if self.best_ >= 0 else ())


__all__ = ["SingleBest"]
