"""Which answers of a decision are right: the one rule for whoever counts or explains them."""

import numpy as np

from fusion.data._open import canonical
from fusion.data._table import PredictionTable
from fusion.schema import BoolArray, Decision


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
