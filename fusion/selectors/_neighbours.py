"""The fit questions nearest to a question, and how often every agent is right on them."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np

from fusion.data import PredictionTable
from fusion.schema import BoolArray, FloatArray, IntArray

_SAME = 1 + 1e-9
"""Distances are sums of at most three squares: what differs by less differs by rounding alone."""
_BLOCK = 1 << 21
"""Numbers in the largest array of a block: 8 MiB as int32."""


class Regions(NamedTuple):
    """The nested regions around B places: region j holds the j nearest fit questions, j from 1 to k, tied ones too.

    Attributes:
        levels: int [B, k], j; less where there are fewer than j fit questions, down to 0.
        sizes: int [B, k], questions in the region; at least the level.
        hits: int [B, k, M], how many of them each agent gets right.
    """

    levels: IntArray
    sizes: IntArray
    hits: IntArray


class Cells(NamedTuple):
    """Fit questions that look the same, put together: C cells.

    Attributes:
        points: float64 [C, D], where they lie, in units in which distances are comparable.
        sizes: int32 [C], how many questions are in each.
        hits: int32 [C, M], how many of them each agent gets right.
    """

    points: FloatArray
    sizes: IntArray
    hits: IntArray

    def only(self, index: BoolArray) -> Self:
        """Return the cells at `index`, bool [C]."""
        return type(self)(self.points[index], self.sizes[index], self.hits[index])


class Own(NamedTuple):
    """What to leave out at each of B places: the question itself, where it is one of the fit questions.

    Attributes:
        cells: int [B], the cell that it is in; -1 where it is in none.
        right: int32 [B, M], 1 for the agents that get it right.
    """

    cells: IntArray
    right: IntArray


def looks(table: PredictionTable, *, options: bool) -> FloatArray:
    """Return what can be told of a question before anybody is asked, float64 [N, D].

    The number of options; where their texts are known also the logarithm to base 2 of one plus their mean length in
    characters, and the share of digits among the characters. The category is not among them.

    Args:
        table: The questions.
        options: Read the texts of the options; the table must have them.
    """
    counts_N = table.num_options.astype(np.float64)
    if not options:
        return counts_N[:, None]
    joined = ["".join(row) for row in table.options or ()]
    lengths_N = np.array([len(text) for text in joined], dtype=np.float64)
    digits_N = np.array([sum(map(text.count, "0123456789")) for text in joined], dtype=np.float64)
    return np.stack([counts_N, np.log2(1 + lengths_N / counts_N), digits_N / np.maximum(lengths_N, 1)], axis=1)


def spreads(looks_ND: FloatArray) -> FloatArray:
    """Return the standard deviation of every column, float64 [D]; 1 where a column says nothing.

    Columns are sorted first: rounding would otherwise make it depend on the order of the questions.
    """
    spreads_D = np.sort(looks_ND, axis=0).std(axis=0)
    return np.where(np.ptp(looks_ND, axis=0) > 0, spreads_D, 1.0)


def regions(cells: Cells, points_BD: FloatArray, own: Own, k: int) -> Iterator[tuple[slice, Regions]]:
    """Yield the regions around `points_BD`, block by block, in order.

    Args:
        cells: Where the fit questions are; at least one cell.
        points_BD: Where the questions are, float64 [B, D].
        own: What to leave out.
        k: Size of the largest region, at least 1; all that are as far as the k-th nearest belong to it.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(cells.points)
    # One cell more than questions wanted, to see that it is farther away.
    least = min(k + 1, len(cells.sizes))
    start, nearest = 0, least
    while start < len(points_BD):
        block = slice(start, start + max(1, _BLOCK // (max(nearest, k) * cells.hits.shape[1])))
        distances_BC, chosen_BC = tree.query(points_BD[block], k=np.arange(1, nearest + 1))
        found, complete = _regions(cells, distances_BC, chosen_BC, Own(own.cells[block], own.right[block]), k)
        if not complete and nearest < len(cells.sizes):
            nearest = min(4 * nearest, len(cells.sizes))
            continue
        yield block, found
        start, nearest = block.stop, least


def _regions(cells: Cells, distances_BC: FloatArray, chosen_BC: IntArray, own: Own, k: int) -> tuple[Regions, bool]:
    """Return the regions made of the nearest cells, and whether no further cell is tied with the farthest one."""
    sizes_BC, hits_BCM = cells.sizes[chosen_BC], cells.hits[chosen_BC]
    rows, places = np.nonzero(chosen_BC == own.cells[:, None])
    sizes_BC[rows, places] -= 1
    hits_BCM[rows, places] -= own.right[rows]
    sizes_BC = sizes_BC.cumsum(axis=1, dtype=np.int32)
    np.cumsum(hits_BCM, axis=1, dtype=np.int32, out=hits_BCM)
    rows_B, ends_BJ = np.arange(len(chosen_BC)), np.empty((len(chosen_BC), k), dtype=np.intp)
    last = chosen_BC.shape[1] - 1
    for j in range(k):
        reached_B = np.minimum((sizes_BC <= j).sum(axis=1), last)
        radius_B = distances_BC[rows_B, reached_B] * _SAME
        ends_BJ[:, j] = (distances_BC <= radius_B[:, None]).sum(axis=1) - 1
    levels_BJ = np.minimum(np.arange(1, k + 1), sizes_BC[:, -1:])
    found = Regions(levels_BJ, sizes_BC[rows_B[:, None], ends_BJ], hits_BCM[rows_B[:, None], ends_BJ])
    return found, bool((ends_BJ[:, -1] < last).all())
