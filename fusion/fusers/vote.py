"""Plurality vote: the option that most agents choose.

Abstentions are ignored. Among tied options the one backed by the most accurate agent on the fit
questions wins; before fit, or at equal accuracy, the agent that comes first in the pool.

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> from fusion.schema import Selection
    >>> table = PredictionTable(question_ids=["q"], agents=["a", "b", "c", "d"], answers=np.array([[2, 1, 1, -1]]))
    >>> Vote().fuse(table, Selection(np.ones((1, 4), dtype=bool))).answers.tolist()
    [1]
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from fusion.data import PredictionTable
from fusion.fusers._votes import decide, ranking, settled
from fusion.schema import BoolArray, Decision, FloatArray, Selection


@dataclass(kw_only=True)
class Vote:
    """Take the plurality vote of the selected agents. Works unfitted; fit improves how ties are settled."""

    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Learn the agents' accuracies, to settle ties by.

        Raises:
            InvalidTable: When the table has no labels or no questions.
        """
        self.agents_ = table.agents
        self.accuracies_ = table.accuracies
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Return the plurality of every row; probabilities are the shares of the votes.

        Raises:
            TableMismatch: When the agents are not those of fit.
        """
        if self.agents_:
            table.require_agents(self.agents_)
        return decide(table, selection, ranking(self.accuracies_, table.num_agents))

    def settled(self, table: PredictionTable, selection: Selection, pending: BoolArray) -> BoolArray:
        """Return bool [N], True where the pending agents cannot change the plurality."""
        return settled(table, selection, pending)

    def vote_weights(self, table: PredictionTable) -> FloatArray:
        """Return float64 [N, M], 1 for every vote."""
        return np.ones(table.answers.shape)


__all__ = ["Vote"]
