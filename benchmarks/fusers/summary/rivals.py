"""What a fuser of open answers in parts has to beat: members, choices of one whole answer, and votes for every part."""

import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rouge_score.rouge_scorer import RougeScorer

from fusion.data._inventory import sentence, split_parts
from fusion.schema import Question

Floats = npt.NDArray[np.float64]


class Answered(NamedTuple):
    """A question and what every member wrote."""

    question: Question
    texts: tuple[str, ...]


class Scores(NamedTuple):
    """Of one text: 1 if it is wholly right, its ROUGE-L, and the share of its parts that are right."""

    exact: float
    rouge: float
    parts: float


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"])


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, in [0, 1] (Lin 2004).

    Example:
        "pear, axe and dog" and "pear, saw and dog" share pear, and, dog: precision and recall are 3 / 4.

        >>> rouge_l("pear, axe and dog.", "pear, saw and dog.")
        0.75
    """
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


def right_parts(text: str, question: Question) -> list[float]:
    """Return of every part of the reference whether the text has it in its place."""
    said, right = split_parts(text), split_parts(question.reference)
    return [float(k < len(said) and said[k] == part) for k, part in enumerate(right)]


def score(text: str, question: Question) -> Scores:
    """Return the scores of a text."""
    exact = float(split_parts(text) == split_parts(question.reference))
    return Scores(exact, rouge_l(text, question.reference), float(np.mean(right_parts(text, question))))


def facets(question: Question) -> tuple[str, ...]:
    """Return the facet of every part."""
    told = question.meta["facets"]
    assert isinstance(told, list), f"{question.id} is not a question of inventory"
    return tuple(map(str, told))


def trust(fit: Sequence[Answered]) -> Mapping[str, Floats]:
    """Return for every facet how often each member is right on it, float64 [M], smoothed by one of each kind."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for question, texts in fit:
        right_MP = [right_parts(text, question) for text in texts]
        for k, facet in enumerate(facets(question)):
            found[facet].append([right_P[k] for right_P in right_MP])
    return {facet: (np.sum(right, axis=0) + 1) / (len(right) + 2) for facet, right in found.items()}


def vote_parts(texts: Sequence[str], weights_MP: Floats) -> str:
    """Return the sentence of the parts with most weight; of parts with as much, what the earlier member says."""
    said = [split_parts(text) for text in texts]
    chosen = []
    for k in range(weights_MP.shape[1]):
        votes: Counter[str] = Counter()
        for parts, weight in zip(said, weights_MP[:, k].tolist(), strict=True):
            if k < len(parts):
                votes[parts[k]] += weight
        chosen.append(votes.most_common(1)[0][0] if votes else "nothing")
    return sentence(chosen)


def rivals(fit: Sequence[Answered], asked: Sequence[Answered], agents: Sequence[str]) -> dict[str, list[str]]:
    """Return the answers of every rival to the questions `asked`; all that is learned is learned from `fit`.

    "whole, by facets" takes the answer of the member that is likeliest right on all three facets; "parts, by facets" is
    told which parts there are and what facets they have, which the fuser has to find out.
    """
    exact_NM = np.array([[score(text, question).exact for text in texts] for question, texts in fit])
    best = int(exact_NM.mean(axis=0).argmax())
    categories = np.array([question.category for question, _ in fit])
    strongest = {name: int(exact_NM[categories == name].mean(axis=0).argmax()) for name in set(categories.tolist())}
    known = trust(fit)
    told: dict[str, list[str]] = {f"member {name}": [texts[m] for _, texts in asked] for m, name in enumerate(agents)}
    told |= {name: [] for name in ("best member", "vote, whole", "vote, per part", "whole, by category")}
    told |= {name: [] for name in ("whole, by facets", "parts, by facets", "oracle, whole")}
    for question, texts in asked:
        trust_MP = np.stack([known[facet] for facet in facets(question)], axis=1)
        said = [split_parts(text) for text in texts]
        told["best member"].append(texts[best])
        told["vote, whole"].append(texts[said.index(Counter(said).most_common(1)[0][0])])
        told["vote, per part"].append(vote_parts(texts, np.ones_like(trust_MP)))
        told["whole, by category"].append(texts[strongest[question.category]])
        told["whole, by facets"].append(texts[int(trust_MP.prod(axis=1).argmax())])
        told["parts, by facets"].append(vote_parts(texts, np.log(trust_MP / (1 - trust_MP))))
        told["oracle, whole"].append(max(texts, key=lambda text: score(text, question)))
    return told
