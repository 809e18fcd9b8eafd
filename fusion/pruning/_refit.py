"""The second stage: candidates compared by the fuser that will be used, cross-validated."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fusion.data import PredictionTable, Split, folds
from fusion.protocols import Executor, Fuser
from fusion.pruning._outcomes import Members, right

BATCH = 16
"""Candidates that a worker is given at a time."""


class Batch(NamedTuple):
    """Sub-ensembles to be judged.

    Attributes:
        table: Labelled answers of the pool, and nothing that fusers do not read.
        subsets: Members of each.
        fuser: What settles the members' answers, not fitted.
        num_folds: How many folds.
        seed: Of the folds.
    """

    table: PredictionTable
    subsets: Sequence[Members]
    fuser: Fuser
    num_folds: int
    seed: int


def cross_validated(batch: Batch) -> Iterator[float]:
    """Yield, for each sub-ensemble, the accuracy of the fuser on all questions when fitted on the other folds."""
    fold_N = folds(batch.table, batch.num_folds, seed=batch.seed)
    parts = [
        Split(fit=batch.table.rows(fold_N != fold), test=batch.table.rows(fold_N == fold))
        for fold in range(batch.num_folds)
    ]
    for members in batch.subsets:
        hits = 0
        for part in parts:
            hits += int(right(part, members, batch.fuser).sum())
        yield hits / len(batch.table)


def judged(
    table: PredictionTable,
    subsets: Sequence[Members],
    fuser: Fuser,
    *,
    count: int,
    seed: int,
    executor: Executor | None,
    told: Callable[[int, int], None],
) -> list[float]:
    """Return the cross-validated accuracy of the fuser on each sub-ensemble; nan for those that were not reached.

    Args:
        table: Labelled answers of the pool.
        subsets: Members of each.
        fuser: What settles the members' answers, not fitted.
        count: Number of folds.
        seed: Of the folds.
        executor: Where to work; here when None.
        told: Told how many are done, and how many there are. It may raise KeyboardInterrupt.
    """
    bare = PredictionTable(
        question_ids=table.question_ids,
        agents=table.agents,
        answers=table.answers,
        probs=table.probs,
        sample_answers=table.sample_answers,
        labels=table.labels,
        num_options=table.num_options,
        options=table.options,
        categories=table.categories,
        references=table.references,
    )
    accuracies = [float("nan")] * len(subsets)
    starts = range(0, len(subsets), BATCH if executor else len(subsets))
    batches = [Batch(bare, subsets[start : start + starts.step], fuser, count, seed) for start in starts]
    with contextlib.suppress(KeyboardInterrupt):
        if executor is None:
            for index, accuracy in enumerate(cross_validated(batches[0])):
                accuracies[index] = accuracy
                told(index + 1, len(subsets))
        else:
            with contextlib.closing(executor.map(_listed, batches, kind="refit")) as results:
                for done, (index, found) in enumerate(results, start=1):
                    accuracies[starts[index] : starts[index] + len(found)] = found
                    told(min(done * BATCH, len(subsets)), len(subsets))
    return accuracies


def _listed(batch: Batch) -> list[float]:
    return list(cross_validated(batch))
