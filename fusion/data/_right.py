"""Which answers of a decision are right: the one rule for whoever counts or explains them."""

import numpy as np

from fusion.data._open import canonical
from fusion.data._order import name_keys
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable
from fusion.schema import BoolArray, Decision, FloatArray, IntArray


def right_answers(decision: Decision, table: PredictionTable) -> BoolArray:
    """Return which answers are right, bool [N].

    An option is right when it is the label. A text that is none of the options, which no agent gave, is right when it
    equals the reference but for its form (`canonical`); without references it is wrong.

    Args:
        decision: Answers to the N questions of the table.
        table: The same questions, with labels.

    Raises:
        InvalidTable: When the table has no labels.

    Example:
        Two questions whose right answers are 7 and Rome; nobody said Rome, but the second text does:

        >>> table = PredictionTable(question_ids=["p", "q"], agents=["a"], answers=[[0], [0]], labels=[0, -1],
        ...     options=[["7"], ["Oslo"]], references=["7", "Rome"])
        >>> right_answers(Decision(np.array([0, -1]), texts=("7", "rome.")), table).tolist()
        [True, True]
    """
    labels_N = table.require_labels()
    right_N: BoolArray = (decision.answers >= 0) & (decision.answers == labels_N)
    if decision.texts is not None and table.references is not None:
        own_N = (decision.answers < 0) & decision.answered
        for n in np.flatnonzero(own_N).tolist():
            right_N[n] = canonical(decision.texts[n]) == canonical(str(table.references[n]))
    return right_N


def best_rated(table: PredictionTable) -> tuple[PredictionTable, FloatArray]:
    """Return the table with the best rated option of every question as the right one, and what each option is worth.

    An option is worth the highest score of an answer that gave it. Of equal ones that which most agents gave is best;
    of these one is drawn, by the names of the question and of who gave it; -1 where nobody answered.

    Returns:
        The table, and float64 [N, K], 0 for options that nobody gave.

    Raises:
        InvalidTable: When the table has no scores.
    """
    if table.scores is None:
        raise InvalidTable(
            "the table has no scores to learn from; score its answers, or learn from labels: reward=label"
        )
    n_A, m_A = np.nonzero(table.answers >= 0)
    place = n_A, table.answers[n_A, m_A]
    worth_NK = np.full((len(table), table.max_options), -np.inf)
    np.maximum.at(worth_NK, place, table.scores[n_A, m_A])
    votes_NK = np.zeros(worth_NK.shape)
    np.add.at(votes_NK, place, 1)
    best_NK = worth_NK == worth_NK.max(axis=1, keepdims=True)
    best_NK &= votes_NK == np.where(best_NK, votes_NK, -1).max(axis=1, keepdims=True)
    best_NK &= votes_NK > 0
    labels_N = np.where(best_NK.any(axis=1), best_NK.argmax(axis=1), -1)
    several_N = best_NK.sum(axis=1) > 1
    if several_N.any():
        labels_N[several_N] = _drawn(table.rows(several_N), best_NK[several_N])
    return table._with(labels=labels_N), np.where(votes_NK > 0, worth_NK, 0.0)


def _drawn(table: PredictionTable, best_NK: BoolArray) -> IntArray:
    """Return one of the best options of each question, int [N]; the first name's would make that agent look better."""
    n_A, m_A = np.nonzero((table.answers >= 0) & np.take_along_axis(best_NK, np.maximum(table.answers, 0), axis=1))
    names = [f"{table.question_ids[n]}\0{table.agents[m]}" for n, m in zip(n_A.tolist(), m_A.tolist(), strict=True)]
    keys_NK = np.full(best_NK.shape, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(keys_NK, (n_A, table.answers[n_A, m_A]), name_keys(names, "best rated"))
    return np.asarray(keys_NK.argmin(axis=1))
