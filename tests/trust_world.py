"""A world for fusers that read: the question says whom to believe, and no vote can find out."""

from typing import NamedTuple

import numpy as np

from fusion.data import PredictionTable

AGENTS = ("a", "b", "c")
ANSWERS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey", "brown", "teal", "lime", "plum")
TALK = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
CUES = ("left", "right")
WORDS = (*ANSWERS, *TALK, *CUES)
"""All words of the world."""


class World(NamedTuple):
    """Questions of the world.

    Attributes:
        table: Open questions; the two options are the two words that were said.
        told: bool [N], whether the question says whom to believe.
    """

    table: PredictionTable
    told: np.ndarray[tuple[int], np.dtype[np.bool_]]


def trust_world(num_questions: int, seed: int, *, untold: float = 0.0) -> World:
    """Return questions of the world.

    "left" in a question makes "a" right, "right" makes "b" right; the other says another word, and "c" repeats one of
    them. All words are drawn evenly, so neither a word, nor an agent, nor the plurality is right more than half of the
    time, but by luck.

    Args:
        num_questions: N.
        seed: Another seed, other questions.
        untold: Share of questions without either word, on which nobody can know who is right.
    """
    rng = np.random.default_rng(seed)
    told_N = rng.random(num_questions) >= untold
    questions, said, options, labels = [], [], [], []
    for told in told_N.tolist():
        right, wrong = rng.choice(ANSWERS, 2, replace=False).tolist()
        believed = int(rng.integers(2))
        talk = rng.choice(TALK, 3).tolist()
        if told:
            talk.insert(int(rng.integers(4)), CUES[believed])
        pair = [wrong, right] if believed else [right, wrong]
        questions.append(" ".join(talk))
        said.append([*pair, pair[int(rng.integers(2))]])
        options.append(tuple(sorted(pair)))
        labels.append(options[-1].index(right))
    return World(
        PredictionTable(
            question_ids=[f"w{seed}-{n}" for n in range(num_questions)],
            agents=AGENTS,
            answers=np.array([[row.index(word) for word in words] for row, words in zip(options, said, strict=True)]),
            labels=labels,
            options=options,
            references=[row[k] for row, k in zip(options, labels, strict=True)],
            questions=questions,
            texts=said,
        ),
        told_N,
    )
