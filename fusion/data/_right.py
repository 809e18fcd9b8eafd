"""Which answers of a decision are right: the one rule for whoever counts or explains them."""

import numpy as np

from fusion.data._open import canonical
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable
from fusion.schema import BoolArray, Decision, FloatArray


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

    An option is worth the highest score of an answer that gave it. Of equal ones that which most agents gave is best,
    then that of the agent whose name comes first, so that the pool's order is nothing; -1 where nobody answered.

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
    first_NK = np.full(worth_NK.shape, table.num_agents)
    np.minimum.at(first_NK, place, np.argsort(np.argsort(np.array(table.agents)))[m_A])
    order_NK = np.lexsort((first_NK, -votes_NK, -worth_NK), axis=1)
    labels_N = np.where(votes_NK.any(axis=1), order_NK[:, 0], -1)
    return table._with(labels=labels_N), np.where(votes_NK > 0, worth_NK, 0.0)
