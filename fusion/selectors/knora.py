"""On every question the agents that are right on the fit questions most like it: k nearest oracles (KNORA).

Ko, Sabourin and Britto: From dynamic classifier selection to dynamic ensemble selection. Pattern Recognition 41 (2008).

The region of competence of a question holds the k fit questions nearest to it. By what is known before anybody is
asked: only questions of its own category are near (all, where the category is new or the fit table has none), and
among these those that look like it, by the number of options, the logarithm of the options' mean length, and the share
of digits in them, each divided by its standard deviation over the fit questions; Euclidean distance. What the table
lacks is left out: with categories alone the whole category is at the same distance.

`eliminate` takes the agents that are right on all k; where there is none, on all of the k - 1 nearest, and so on.
`union` takes all that are right on one at least, with as many votes as questions of the region that they are right on.

Deviations:
    - Ties. Whatever is as far as the j-th nearest question belongs to the j nearest: n >= j questions. "Right on all j"
      becomes "right on a share that rounds to j of j": wrong on w with w / n < 1 / (2 j), which is w = 0 where n = j.
      A draw of k among hundreds of equally near questions is what the paper would have, and throws evidence away: on
      recorded answers of 24 models with categories alone it costs 10 points.
    - Where nobody is right even on the nearest question, `eliminate` takes the agents with the most hits among the k
      nearest. Where these are none either, everybody takes part, in both modes.
    - A selection is a mask and cannot carry votes. `union` takes the agents with at least `share` times the hits of the
      best one: at 1/2 the mask that is nearest to the votes as shares of the largest. Any `share` up to 1/k gives
      the paper's voters (k questions, no ties), but without their votes a crowd of weak agents outvotes the strong.
    - A question is never its own neighbour, so fusers that are fitted on selected agents see them as they will be.
    - k = 7, as in the comparison of Cruz, Sabourin and Cavalcanti, Information Fusion 41 (2018).

Example:
    >>> import numpy as np
    >>> from fusion.data import PredictionTable
    >>> fit = PredictionTable(
    ...     question_ids=["f1", "f2", "f3"], agents=["a", "b", "c"], labels=[0, 0, 0], num_options=[2, 3, 9],
    ...     answers=np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]]), categories=["law", "law", "law"],
    ... )
    >>> new = PredictionTable(
    ...     question_ids=["q1", "q2"], agents=["a", "b", "c"], answers=np.full((2, 3), -1), num_options=[2, 8],
    ...     categories=["law", "law"],
    ... )
    >>> Knora(k=2).fit(fit).select(new).mask.tolist()
    [[False, True, False], [False, False, True]]
    >>> Knora(k=2, mode="union").fit(fit).select(new).mask.tolist()
    [[True, True, False], [False, True, True]]

    q1 is nearest to f1 and f2, and b alone is right on both. q2 is nearest to f3 and f2, on which nobody is right; on
    f3 alone c is. b has two hits around q1 and a has one, half of that.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt, Le

from fusion.data import PredictionTable, name_keys
from fusion.errors import InvalidTable, UsageError
from fusion.schema import BoolArray, FloatArray, IntArray, Sees, Selection
from fusion.selectors._neighbours import Cells, Own, Regions, looks, regions, spreads
from fusion.selectors._static import not_fitted


@dataclass(kw_only=True)
class Knora:
    """Select the agents that are right on the nearest fit questions; abstaining counts as wrong.

    Args:
        mode: Right on all of them (eliminate), or on many of them (union).
        k: How many fit questions a region holds, at least 1; more where some are equally far, fewer where a category
            has fewer.
        near: By what questions are compared: category and looks, as far as the fit table has them, or the category
            alone.
        share: For `union`: hits that an agent needs, as a share of the best agent's, in (0, 1].
    """

    mode: Literal["eliminate", "union"] = "eliminate"
    k: Annotated[int, Ge(1)] = 7
    near: Literal["question", "category"] = "question"
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    sees: ClassVar[Sees] = "question"
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    categories_: tuple[str, ...] = field(default=(), init=False, repr=False)
    reads_options_: bool = field(default=False, init=False, repr=False)
    right_: BoolArray | None = field(default=None, init=False, repr=False)
    keys_: IntArray | None = field(default=None, init=False, repr=False)
    cell_: IntArray | None = field(default=None, init=False, repr=False)
    cell_category_: IntArray | None = field(default=None, init=False, repr=False)
    cell_looks_: FloatArray | None = field(default=None, init=False, repr=False)
    spreads_: FloatArray | None = field(default=None, init=False, repr=False)

    def fit(self, table: PredictionTable) -> Self:
        """Remember who is right on which question.

        Raises:
            UsageError: When k or share is out of its range.
            InvalidTable: When the table has no labels or no questions, or nothing that tells questions apart: neither
                categories, which near=category needs, nor options.
        """
        if self.k < 1 or not 0 < self.share <= 1:
            raise UsageError(f"knora needs k >= 1 and 0 < share <= 1, got k={self.k}, share={self.share}")
        if not len(table):
            raise InvalidTable("knora needs fit questions to be near to; the table is empty")
        right_NM = table.correct
        categories = table.require_categories() if self.near == "category" else table.categories
        reads_options = self.near == "question" and table.options is not None
        looks_ND = self._looks(table, reads_options)
        if categories is None and not reads_options and not np.ptp(looks_ND, axis=0).any():
            raise InvalidTable(
                "knora looks for questions like the one to be asked, and the table tells none from another: it has no "
                "categories, no texts of options, and the same number of options everywhere; import it with a category "
                "column, or use a selector that is the same for every question, such as top_k"
            )
        names, category_N = (
            (np.array([""]), np.zeros(len(table), dtype=np.intp))
            if categories is None
            else np.unique(categories, return_inverse=True)
        )
        cells_CD, cell_N = np.unique(np.column_stack([category_N, looks_ND]), axis=0, return_inverse=True)
        self.agents_, self.right_ = table.agents, right_NM
        self.categories_ = () if categories is None else tuple(names.tolist())
        self.reads_options_ = reads_options
        self.keys_ = name_keys(table.question_ids.tolist(), "knora")
        self.cell_ = cell_N.reshape(-1)
        self.cell_category_, self.cell_looks_ = cells_CD[:, 0].astype(np.intp), cells_CD[:, 1:]
        self.spreads_ = spreads(looks_ND)
        return self

    def select(self, table: PredictionTable) -> Selection:
        """Return a mask with the agents that are competent in the region of each question.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When the table lacks the categories or the texts of options that the fit table had.
        """
        if self.right_ is None or self.cell_ is None or self.cell_looks_ is None or self.spreads_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        category_N, own_N = self._category(table), self._own(table)
        looks_ND = self._looks(table, self.reads_options_)
        # Questions that look the same are looked up once: with categories alone that is once a category.
        places_PX, place_N = np.unique(np.column_stack([category_N, own_N, looks_ND]), axis=0, return_inverse=True)
        sizes_C = np.bincount(self.cell_).astype(np.int32)
        hits_CM = np.zeros((len(sizes_C), table.num_agents), dtype=np.int32)
        np.add.at(hits_CM, self.cell_, self.right_)
        cells = Cells(self.cell_looks_ / self.spreads_, sizes_C, hits_CM)
        mask_PM = np.zeros((len(places_PX), table.num_agents), dtype=bool)
        for category in np.unique(places_PX[:, 0]).tolist():
            # Places are sorted by category first, so that a category is a slice of them.
            first, last = np.searchsorted(places_PX[:, 0], [category, category + 1]).tolist()
            inside_C = (self.cell_category_ == category) | (category < 0)
            own = self._left_out(places_PX[first:last, 1].astype(np.intp), inside_C)
            points_BD = places_PX[first:last, 2:] / self.spreads_
            for block, found in regions(cells.only(inside_C), points_BD, own, self.k):
                mask_PM[first:last][block] = self._competent(found)
        return Selection(mask_PM[place_N.reshape(-1)])

    def _looks(self, table: PredictionTable, reads_options: bool) -> FloatArray:
        if reads_options and table.options is None:
            raise InvalidTable(
                "knora was fitted on a table with texts of options, and this one has none; record both with the same "
                "task, or compare questions by knora(near=category)"
            )
        return looks(table, options=reads_options) if self.near == "question" else np.zeros((len(table), 1))

    def _category(self, table: PredictionTable) -> IntArray:
        """Return int [N], the number of each question's category; -1 where no fit question has it."""
        if not self.categories_:
            return np.full(len(table), -1)
        known = {name: number for number, name in enumerate(self.categories_)}
        names, group_N = np.unique(table.require_categories(), return_inverse=True)
        return np.array([known.get(name, -1) for name in names.tolist()], dtype=np.intp)[group_N]

    def _own(self, table: PredictionTable) -> IntArray:
        """Return int [N], the row that each question has among the fit questions; -1 where it is none of them."""
        rows = {key: row for row, key in enumerate(np.asarray(self.keys_).tolist())}
        keys_N = name_keys(table.question_ids.tolist(), "knora")
        return np.array([rows.get(key, -1) for key in keys_N.tolist()], dtype=np.intp)

    def _left_out(self, own_B: IntArray, inside_C: BoolArray) -> Own:
        """Return what to leave out where fit questions are asked about; cells are counted among those inside."""
        number_C = np.where(inside_C, np.cumsum(inside_C) - 1, -1)
        cell_B = np.where(own_B < 0, -1, number_C[np.asarray(self.cell_)[own_B]])
        return Own(cell_B, np.asarray(self.right_)[own_B].astype(np.int32))

    def _competent(self, found: Regions) -> BoolArray:
        """Return bool [B, M], who takes part in each region; somebody always does."""
        hits_BM = found.hits[:, -1]
        most_B1 = hits_BM.max(axis=1, keepdims=True)
        if self.mode == "union":
            # Rounding must not cost an agent its place: 0.14 * 50 is more than 7.
            needed_B1 = np.minimum(np.maximum(self.share * most_B1 - 1e-9, 1), most_B1)
            voting_BM: BoolArray = np.greater_equal(hits_BM, needed_B1)
            return voting_BM
        wrong_BJM = found.sizes[:, :, None] - found.hits
        passes_BJM: BoolArray = np.less(2 * found.levels[:, :, None] * wrong_BJM, found.sizes[:, :, None])
        somebody_BJ = np.asarray(passes_BJM.any(axis=2))
        largest_B = somebody_BJ.shape[1] - 1 - somebody_BJ[:, ::-1].argmax(axis=1)
        best_BM = (hits_BM == most_B1) & ~somebody_BJ.any(axis=1, keepdims=True)
        chosen_BM: BoolArray = passes_BJM[np.arange(len(hits_BM)), largest_B] | best_BM
        return chosen_BM


__all__ = ["Knora"]
