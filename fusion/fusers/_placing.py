"""Which option a text is that a fuser wrote."""

from fusion.data import PredictionTable, canonical
from fusion.schema import Selection


def place(table: PredictionTable, selection: Selection, n: int, text: str) -> int:
    """Return the option of question `n` that a text is, -1 for none.

    That is the option that is spelt so, or the one that was read in an agent's answer of these very words, so that a
    fuser's words are judged as an agent's are. Case, blanks and the like do not count (`canonical`), unless several
    options differ in them alone. Where the text could be two options it is none.

    Args:
        table: Answers, with options or without.
        selection: Whose words count: those of others are not known when agents are asked.
        n: Position of the question.
        text: What was written.

    Example:
        >>> import numpy as np
        >>> table = PredictionTable(question_ids=["q"], agents=["a", "b"], answers=[[0, 1]], options=[["4", "5"]],
        ...     texts=[["2 + 2 = 4", "I say 5"]])
        >>> both = Selection(np.ones((1, 2), dtype=bool))
        >>> [place(table, both, 0, text) for text in ("5.0", "I say 5.", "6")]
        [1, 1, -1]
    """
    form = canonical(text)
    if not form:
        return -1
    options = () if table.options is None else table.options[n]
    for found in (
        {k for k, option in enumerate(options) if option == text},
        {k for k, option in enumerate(options) if canonical(option) == form},
        _read_in(table, selection, n, form),
    ):
        if found:
            return found.pop() if len(found) == 1 else -1
    return -1


def _read_in(table: PredictionTable, selection: Selection, n: int, form: str) -> set[int]:
    """Return the options that were read in what agents wrote in these words."""
    if table.texts is None:
        return set()
    return {
        int(table.answers[n, m])
        for m in range(table.num_agents)
        if selection.mask[n, m] and table.answers[n, m] >= 0 and canonical(str(table.texts[n, m])) == form
    }
