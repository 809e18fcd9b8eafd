"""Orders and measures of agents that every part of the project must agree on."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fusion.schema import FloatArray, IntArray

if TYPE_CHECKING:
    from fusion.data._table import PredictionTable


def by_accuracy(accuracies_M: FloatArray, *, names: Sequence[str] | None = None) -> IntArray:
    """Return agent positions from the most to the least accurate; equal ones by `names`, or else in pool order."""
    if names is None:
        return np.argsort(-accuracies_M, kind="stable")
    return np.lexsort((np.array(names), -accuracies_M))


def category_names(table: "PredictionTable") -> tuple[str, ...]:
    """Return the categories of a table, sorted; none where it has none."""
    return () if table.categories is None else tuple(sorted(set(table.categories.tolist())))


def category_places(table: "PredictionTable", categories: Sequence[str]) -> IntArray:
    """Return int [N], the position of each question's category among those of fit; -1 where it is none of them.

    Without categories at fit all questions are of one kind, 0.
    """
    if not categories:
        return np.zeros(len(table), dtype=np.intp)
    if table.categories is None:
        return np.full(len(table), -1)
    place = {name: position for position, name in enumerate(categories)}
    return np.array([place.get(name, -1) for name in table.categories.tolist()], dtype=np.intp)


def accuracy_when_answering(table: "PredictionTable") -> FloatArray:
    """Return float64 [M], share right of the questions that each agent answered.

    Smoothed by one right and K - 1 wrong answers (Laplace), so that an agent that answered nothing stands at chance.
    """
    right_M = table.correct.sum(axis=0)
    accuracies_M: FloatArray = (right_M + 1) / (table.answered.sum(axis=0) + max(table.max_options, 2))
    return accuracies_M


def is_open(table: "PredictionTable") -> bool:
    """Return whether the options of a question are what agents answered, so that the right one may be none of them.

    A table with probabilities may hold questions of both kinds; there it is one where that happened.
    """
    if table.references is None or table.options is None:
        return False
    return table.probs is None or bool((table.require_labels() < 0).any())


def name_keys(names: Sequence[str], salt: str) -> npt.NDArray[np.uint64]:
    """Return one random-looking 64-bit key a name, which depends on the name and the salt alone.

    Splits and draws are made by such keys, so that what happens to a question does not depend on the order of
    rows or on what else is in the table.
    """
    digests = b"".join(hashlib.blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8")
