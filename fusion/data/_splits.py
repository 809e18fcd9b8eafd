"""Splitting a table into a part to fit on and a part to evaluate on."""

from typing import Literal, NamedTuple

import numpy as np

from fusion.data._order import name_keys
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable, Leakage, UsageError
from fusion.schema import IntArray


class Split(NamedTuple):
    """Two parts of one table that share no question."""

    fit: PredictionTable
    test: PredictionTable


def split(
    table: PredictionTable,
    *,
    fit_fraction: float = 0.7,
    seed: int = 0,
    stratify: Literal["category", "none"] = "category",
) -> Split:
    """Split `table` at random, the same way whatever the order of its rows.

    Each stratum gives round(fit_fraction * its size) questions to the fit part, corrected so that the
    totals are right: the strata with the largest remainders are rounded up.

    Args:
        table: What to split.
        fit_fraction: Share of questions to fit on, in (0, 1).
        seed: Another seed, another split.
        stratify: Keep the shares of the categories equal in both parts; "none", or a table without
            categories, makes one stratum.

    Raises:
        UsageError: When fit_fraction is not inside (0, 1), or stratify is neither of the two.
        InvalidTable: When a part would be empty.
    """
    if not 0 < fit_fraction < 1:
        raise UsageError(f"fit_fraction must lie between 0 and 1, got {fit_fraction}")
    if stratify not in ("category", "none"):
        raise UsageError(f"stratify must be category or none, got {stratify!r}")
    strata_N = np.zeros(len(table), dtype=np.intp)
    if stratify == "category" and table.categories is not None:
        strata_N = np.unique(table.categories, return_inverse=True)[1]
    order_N = np.argsort(name_keys(table.question_ids.tolist(), str(seed)), kind="stable")
    sizes_G = np.bincount(strata_N)
    quotas_G = _quotas(sizes_G, fit_fraction)
    in_fit_N = np.zeros(len(table), dtype=bool)
    grouped_N = order_N[np.argsort(strata_N[order_N], kind="stable")]
    place_N = np.arange(len(table)) - np.repeat(np.cumsum(sizes_G) - sizes_G, sizes_G)
    in_fit_N[grouped_N] = place_N < quotas_G[strata_N[grouped_N]]
    if in_fit_N.all() or not in_fit_N.any():
        raise InvalidTable(
            f"{len(table)} questions cannot be split {fit_fraction:g} to {1 - fit_fraction:g}: one part would be "
            "empty; use more questions or another fit fraction"
        )
    return Split(fit=table.rows(in_fit_N), test=table.rows(~in_fit_N))


def require_disjoint(fit: PredictionTable, test: PredictionTable) -> None:
    """Check that two tables share no question id.

    Raises:
        Leakage: When they do; the message says how many and which.
    """
    shared = sorted(set(fit.question_ids.tolist()) & set(test.question_ids.tolist()))
    if shared:
        shown = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
        raise Leakage(
            f"{len(shared)} question ids are in the table to fit on and in the table to evaluate on ({shown}); "
            "evaluate on other questions, or give one table and let it be split"
        )


def _quotas(sizes_G: IntArray, fraction: float) -> IntArray:
    exact_G = sizes_G * fraction
    quotas_G: IntArray = np.floor(exact_G).astype(np.int64)
    short = round(float(sizes_G.sum() * fraction)) - int(quotas_G.sum())
    quotas_G[np.argsort(quotas_G - exact_G, kind="stable")[:short]] += 1
    return quotas_G


def folds(table: PredictionTable, count: int, *, seed: int = 0) -> IntArray:
    """Return the fold of each question, int [N] in 0..count - 1, the same whatever the order of the rows.

    Categories are spread evenly over the folds.

    Args:
        table: The questions.
        count: Number of folds, at least 2.
        seed: Another seed, other folds.

    Raises:
        UsageError: When there are fewer than two folds.
        InvalidTable: When there are fewer questions than folds.
    """
    if count < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {count}")
    if len(table) < count:
        raise InvalidTable(f"{len(table)} questions cannot be spread over {count} folds; use more questions")
    order_N = np.argsort(name_keys(table.question_ids.tolist(), f"folds {seed}"), kind="stable")
    if table.categories is not None:
        strata_N = np.unique(table.categories, return_inverse=True)[1]
        order_N = order_N[np.argsort(strata_N[order_N], kind="stable")]
    folds_N = np.empty(len(table), dtype=np.int64)
    folds_N[order_N] = np.arange(len(table)) % count
    return folds_N
