"""Asking question by question, one agent more at a time: what selectors of this kind share."""

from collections.abc import Callable, Sequence

import numpy as np

from fusion.data import PredictionTable
from fusion.schema import BoolArray, IntArray, Selection

CHUNK = 50_000
"""Questions that are looked at together."""


def one_more(
    table: PredictionTable,
    agents: Sequence[str],
    choose: Callable[[PredictionTable, BoolArray], IntArray],
    *,
    max_calls: int = 0,
) -> Selection:
    """Return who has been asked, and who else is asked next.

    Args:
        table: What is known so far; where it does not say who was asked, everybody was.
        agents: The agents of the table in the order that `choose` knows them by.
        choose: From some questions, and bool [B, M] who has been asked, to int [B], whom to ask next; -1 to stop.
        max_calls: Most calls for one question; 0 for no limit.
    """
    place_M = np.array([table.agents.index(name) for name in agents])
    moved = table.columns(agents)
    asked_NM = np.ones(moved.answers.shape, dtype=bool) if moved.asked is None else moved.asked.copy()
    for low in range(0, len(moved), CHUNK):
        part = slice(low, low + CHUNK)
        next_B = choose(moved.rows(part), asked_NM[part])
        goes_B = (next_B >= 0) & (asked_NM[part].sum(axis=1) < (max_calls or len(agents)))
        rows_A = low + np.flatnonzero(goes_B)
        asked_NM[rows_A, next_B[goes_B]] = True
    mask_NM = np.zeros_like(asked_NM)
    mask_NM[:, place_M] = asked_NM
    return Selection(mask_NM)
