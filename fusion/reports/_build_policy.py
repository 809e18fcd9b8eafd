"""From a run of bench to what a report shows of policies."""

from collections.abc import Iterable

import numpy as np

from fusion.evaluation import BenchResult, SystemResult
from fusion.reports._page_data import PolicyTable


def policy_tables(results: Iterable[BenchResult]) -> tuple[PolicyTable, ...]:
    """Return whom systems ask that ask one after another; of a system in several results, what the last one knows."""
    tables = {item.name: _policy_table(item) for result in results for item in result.systems}
    return tuple(table for table in tables.values() if table is not None)


def _policy_table(item: SystemResult) -> PolicyTable | None:
    card = item.policy
    if card is None:
        return None
    tokens = [point.tokens for point in card.curve if point.tokens is not None]
    return PolicyTable(
        label=item.label,
        agents=card.agents,
        rows=card.categories,
        counts=np.array(card.counts),
        asked=np.array(card.asked_by_category).reshape(len(card.categories), len(card.agents)),
        accuracy=np.array(card.accuracy),
        calls=np.array(card.calls),
        first=np.array(card.first),
        ends=np.array(card.ends),
        curve=np.array([(point.calls, point.accuracy, *point.ci95) for point in card.curve]).reshape(-1, 4),
        tokens=np.array(tokens) if tokens and len(tokens) == len(card.curve) else None,
        left_out=card.curve_left_out,
    )
