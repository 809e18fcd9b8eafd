"""What selectors that choose the same agents for every question share."""

from collections.abc import Sequence

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import NotFitted
from fusion.schema import IntArray, Selection


def constant(table: PredictionTable, chosen: Sequence[int] | IntArray) -> Selection:
    """Select the agents at positions `chosen` on every question of `table`, taking no memory per question."""
    mask_M = np.zeros(table.num_agents, dtype=bool)
    mask_M[np.asarray(chosen, dtype=np.intp)] = True
    return Selection(np.broadcast_to(mask_M, (len(table), table.num_agents)))


def fitted_selection(
    method: object, table: PredictionTable, agents: Sequence[str], chosen: Sequence[int] | IntArray
) -> Selection:
    """Select what a method chose when it was fitted.

    Args:
        method: For the message.
        table: What to select on.
        agents: The pool at fit.
        chosen: Positions in it; none before fit.

    Raises:
        NotFitted: Before fit.
        TableMismatch: When the agents are not those of fit.
    """
    if not len(chosen):
        raise not_fitted(method)
    table.require_agents(agents)
    return constant(table, chosen)


def not_fitted(method: object) -> NotFitted:
    """Return the error for a method that must see labelled answers first."""
    name = type(method).__module__.rpartition(".")[2]
    return NotFitted(f"{name} chooses by what it learned, and has not been fitted; call fit(table) with labels first")
