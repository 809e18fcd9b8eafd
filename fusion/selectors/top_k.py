"""The k agents that were most accurate on the fit questions.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> table = PredictionTable(
    ...     question_ids=["q1", "q2"], agents=["a", "b", "c"], answers=np.array([[0, 1, 0], [0, 0, 0]]), labels=[0, 0]
    ... )
    >>> TopK(k=2).fit(table).select(table).mask[0].tolist()
    [True, False, True]
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

from annotated_types import Ge

from fusion.data import PredictionTable, by_accuracy
from fusion.errors import UsageError
from fusion.schema import Sees, Selection
from fusion.selectors._static import fitted_selection


@dataclass(kw_only=True)
class TopK:
    """Select the k most accurate agents; abstaining counts as wrong, equal accuracy goes by pool order.

    Args:
        k: How many, at least 1 and at most the size of the pool.
    """

    k: Annotated[int, Ge(1)]
    sees: ClassVar[Sees] = "history"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    chosen_: tuple[int, ...] = field(default=(), init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Rank the agents by accuracy.

        Raises:
            UsageError: When the pool has fewer than k agents.
            InvalidTable: When the table has no labels or no questions.
        """
        if not 1 <= self.k <= table.num_agents:
            raise UsageError(f"top_k(k={self.k}) needs 1 <= k <= {table.num_agents}, the size of the pool")
        self.agents_ = table.agents
        self.chosen_ = tuple(by_accuracy(table.accuracies)[: self.k].tolist())
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return a mask with the columns of the k chosen agents.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
        """
        return fitted_selection(self, table, self.agents_, self.chosen_)


__all__ = ["TopK"]
