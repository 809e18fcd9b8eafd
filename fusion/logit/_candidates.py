"""The options that could win, and what the selected agents say about each: the input of fusers that learn.

Which place an option has carries no information, so nothing here depends on it: every option is described by the same
features of who chose it, how likely the agents find it, and how many chose it.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable
from fusion.errors import InvalidTable
from fusion.schema import BoolArray, FloatArray, IntArray, Selection

NUM_COUNTS = 4
"""Features that count the votes for an option, whoever gave them."""

_FLOOR = 1e-6
_CELLS = 4_000_000


class Candidates(NamedTuple):
    """Options of B consecutive questions, R of them, those of a question side by side.

    Options that no agent chose are left out where there are votes alone: all their features are 0.

    Attributes:
        start: int [B + 1], where the options of each question begin.
        option: int [R], which option it is.
        features: float64 [R, D].
        backed: bool [R], whether an agent that is listened to chose it.
        unnamed: int [B], options of each question that are left out.
    """

    start: IntArray
    option: IntArray
    features: FloatArray
    backed: BoolArray
    unnamed: IntArray

    @property
    def question(self) -> IntArray:
        """Int [R], the question that each option belongs to, from 0."""
        return np.repeat(np.arange(len(self.unnamed)), np.diff(self.start))

    def taken(self, keep_B: BoolArray) -> "Candidates":
        """Return those of some of the questions."""
        keep_R = keep_B[self.question]
        start = np.concatenate([[0], np.cumsum(np.diff(self.start)[keep_B])])
        return Candidates(start, self.option[keep_R], self.features[keep_R], self.backed[keep_R], self.unnamed[keep_B])

    def place(self, options_B: IntArray) -> IntArray:
        """Return int [B], where an option of each question stands among the R; -1 where it does not."""
        places_B = np.full(len(options_B), -1)
        question_R = self.question
        found_R = np.flatnonzero(self.option == options_B[question_R])
        places_B[question_R[found_R]] = found_R
        return places_B


def kinds(num_agents: int, *, probs: bool) -> list[slice]:
    """Return where features of each kind stand: votes, probabilities and their logarithms if any, counts of votes."""
    ends = itertools.accumulate([num_agents] * (3 if probs else 1) + [NUM_COUNTS], initial=0)
    return [slice(low, high) for low, high in itertools.pairwise(ends)]


def candidates(
    table: PredictionTable, selection: Selection, *, probs: bool, samples: int, absent: bool
) -> Iterator[tuple[slice, Candidates]]:
    """Yield the candidates of all questions, some thousand questions at a time, with where these stand in the table.

    Args:
        table: Answers.
        selection: Whose count.
        probs: Whether to use probabilities, of the agents that gave some.
        samples: How many drawn answers of each agent to count; 1 for its one answer.
        absent: Whether the right answer may be none of the options, as in open questions: that is one unnamed option.

    Raises:
        InvalidTable: When the table has no probabilities, or too few samples.
    """
    if probs and table.probs is None:
        raise InvalidTable("it was fitted on a table with probabilities, and this table has none; record them as well")
    drawn = 0 if table.sample_answers is None else table.sample_answers.shape[2]
    if samples > 1 and drawn < samples:
        raise InvalidTable(f"{samples} samples of every agent are asked for, and the table has {drawn}")
    step = max(1, _CELLS // (table.max_options * kinds(table.num_agents, probs=probs)[-1].stop))
    for low in range(0, len(table), step):
        part = slice(low, min(low + step, len(table)))
        found = _of(table, selection.mask[part], part, probs=probs, samples=samples)
        yield part, found._replace(unnamed=np.ones_like(found.unnamed)) if absent else found


def joined(parts: list[Candidates]) -> Candidates:
    """Return the candidates of consecutive questions as one."""
    lengths = [np.diff(part.start) for part in parts]
    start = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Candidates(start, *(np.concatenate([part[i] for part in parts]) for i in range(1, 5)))


def _of(table: PredictionTable, mask_BM: BoolArray, part: slice, *, probs: bool, samples: int) -> Candidates:
    num_options_B = table.num_options[part]
    votes_BKM = _votes(table, mask_BM, part, samples)
    valid_BK = np.arange(table.max_options) < num_options_B[:, None]
    count_BK = votes_BKM.sum(axis=2)
    backed_BK = count_BK > 0
    kept_BK = valid_BK if probs else backed_BK
    columns = [votes_BKM[kept_BK]]
    if probs:
        columns += [kind_BKM[kept_BK] for kind_BKM in centred(table, mask_BM, part)]
    columns.append(count_curves(count_BK[kept_BK], table.num_agents))
    return Candidates(
        start=np.concatenate([[0], np.cumsum(kept_BK.sum(axis=1))]),
        option=np.nonzero(kept_BK)[1],
        features=np.hstack(columns),
        backed=backed_BK[kept_BK],
        unnamed=num_options_B.astype(np.int64) - kept_BK.sum(axis=1),
    )


def _votes(table: PredictionTable, mask_BM: BoolArray, part: slice, samples: int) -> FloatArray:
    """Return float64 [B, K, M], the share of an agent's votes that an option has."""
    num_rows, num_agents = mask_BM.shape
    votes_BKM = np.zeros((num_rows, table.max_options, num_agents))
    if samples == 1 or table.sample_answers is None:
        drawn_BMR = table.answers[part][:, :, None]
    else:
        drawn_BMR = table.sample_answers[part][:, :, :samples]
    said_BMR = (drawn_BMR >= 0) & mask_BM[:, :, None]
    row, agent, sample = np.nonzero(said_BMR)
    share_BM = 1.0 / np.maximum(said_BMR.sum(axis=2), 1)
    np.add.at(votes_BKM, (row, drawn_BMR[row, agent, sample], agent), share_BM[row, agent])
    return votes_BKM


def centred(table: PredictionTable, mask_BM: BoolArray, part: slice) -> tuple[FloatArray, FloatArray]:
    """Return float64 [B, K, M] twice: probabilities, and their logarithms, less the means over a question's options.

    Both are 0 where an agent is not in the mask, or gives no probabilities.
    """
    assert table.probs is not None
    valid_BK = np.arange(table.max_options) < table.num_options[part, None]
    probs_BKM = np.moveaxis(table.probs[part, :, : table.max_options], 1, 2).astype(np.float64)
    known_B1M = (probs_BKM.sum(axis=1, keepdims=True) > 0) & mask_BM[:, None]
    used_BKM = known_B1M & valid_BK[:, :, None]
    count_B11 = valid_BK.sum(axis=1)[:, None, None]
    found = []
    for values_BKM in (probs_BKM, np.log(np.maximum(probs_BKM, _FLOOR))):
        values_BKM = np.where(used_BKM, values_BKM, 0)
        found.append(np.where(used_BKM, values_BKM - values_BKM.sum(axis=1, keepdims=True) / count_B11, 0))
    return found[0], found[1]


def scales(features_RD: FloatArray, num_agents: int, *, probs: bool) -> FloatArray:
    """Return by what to divide features, [D]: votes and counts by 1, beliefs by the root of their mean square."""
    scale_D = np.ones(features_RD.shape[1])
    for kind in kinds(num_agents, probs=probs)[1:-1]:
        values = features_RD[:, kind]
        scale_D[kind] = np.sqrt((values**2).sum() / max(np.count_nonzero(values), 1)) or 1.0
    return scale_D


def count_curves(votes_R: FloatArray, num_agents: int) -> FloatArray:
    """Return float64 [R, NUM_COUNTS]: curves of the number of votes, all 0 at none.

    Together they let an option that one agent named, one that two did, and a majority differ from what the sum of the
    agents' weights says.
    """
    columns = (votes_R > 0, votes_R > 1, np.log1p(votes_R), votes_R**2 / num_agents)
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
