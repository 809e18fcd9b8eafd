"""The worlds of graded.py: tables of texts with scores, generated ones and recorded ones."""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.fusers import gsm8k
from benchmarks.fusers.summary.rivals import rouge_l
from benchmarks.fusers.summary.teaching import MEMBERS, MISTAKES, known
from fusion.data import Call, FreeForm, PredictionTable, tabulate
from fusion.data._inventory import answer, draw_requests, sentence
from fusion.schema import Completion, Message, Question

Grade = Callable[[str, str], float]
"""From a text and its reference to a score in [0, 1]."""

PARTS = ("reports", "inventory", "GSM8K texts", "GSM8K numbers")
WRITERS = ("ada", "ben", "cyd", "dan", "eve", "fay")
KINDS, FACTS, WORDS = 8, 6, 100
STYLES = (
    ("Note: ", "the {}", ", "),
    ("It says ", "{}", " also "),
    ("", "{}", " besides "),
    ("", "namely {}", ", "),
    ("First ", "{}", ", then "),
    ("There is ", "some {}", "; "),
)
"""How each member begins, puts a fact, and joins two."""
_RESULT = re.compile(r"<<[^<>]*=([^<>=]+)>>|####(.+)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Graded(FreeForm):
    """Reads whole texts as answers, and scores them against the reference."""

    def __init__(self, grade: Grade) -> None:
        self.grade = grade

    def score(self, text: str, question: Question) -> float:
        """Return what `grade` says of a text and the reference."""
        return self.grade(text, question.reference)

    def right(self, text: str, question: Question) -> bool:
        """Return whether it is the reference but for its form."""
        return super().score(text, question) == 1


def steps_named(text: str, solution: str) -> float:
    """Return the share of the results of a solution's steps that a text names, in [0, 1].

    Example:
        >>> steps_named("She has 9 left and makes $18.", "16 - 7 = <<16-7=9>>9, 9 * 3 = <<9*3=27>>27 #### 27")
        0.5
    """
    results = {_value(step or last) for step, last in _RESULT.findall(solution)} - {None}
    said = {_value(number) for number in _NUMBER.findall(text)}
    return len(results & said) / len(results) if results else 0.0


def _value(written: str) -> float | None:
    try:
        return round(float(written.strip().replace(",", "").removeprefix("$").removesuffix("%")), 4)
    except ValueError:
        return None


def written(
    questions: Sequence[Question],
    agents: Sequence[str],
    texts: Sequence[Sequence[str]],
    grade: Callable[[str, str], float],
) -> PredictionTable:
    """Return the table of texts, as it would come from a recording."""
    calls = [
        Call(n, m, 0, Completion(status="ok" if text else "empty", text=text))
        for n, row in enumerate(texts)
        for m, text in enumerate(row)
    ]
    table = tabulate(questions, agents, calls, reader=Graded(grade))
    assert table.scores is not None, "some text is neither right nor worth nothing"
    return table


def reports(size: int) -> PredictionTable:
    """Return texts of six facts by six members, of which each is good at other kinds of questions."""
    rng, num_members = np.random.default_rng(0), len(WRITERS)
    skill_MC = rng.normal(np.linspace(0.2, -0.2, num_members)[:, None], 1.2, (num_members, KINDS))
    erratic_M, inventing_M = rng.permutation(np.linspace(0, 2, num_members)), rng.permutation(np.linspace(0, 1, 6))
    kind_N = rng.integers(0, KINDS, size)
    hard_N, hard_NF = rng.normal(0, 0.8, size), rng.normal(0, 1, (size, FACTS))
    moods_NM = rng.normal(0, 1, (size, num_members)) * erratic_M
    ease_NMF = (skill_MC[:, kind_N].T + moods_NM - hard_N[:, None])[:, :, None] - hard_NF[:, None]
    knows_NMF = rng.random(ease_NMF.shape) < 1 / (1 + np.exp(-ease_NMF))
    invents_NMF = rng.random(ease_NMF.shape) < inventing_M[:, None]
    facts_NF, others_NMF = rng.integers(0, WORDS, (size, FACTS)), rng.integers(0, WORDS, ease_NMF.shape)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, 4)) for _ in range(FACTS * WORDS)]
    questions, texts = [], []
    for n in range(size):
        told = [words[f * WORDS + facts_NF[n, f]] for f in range(FACTS)]
        asked = (Message("user", f"What is known of thing {n}, which is of kind {kind_N[n]}?"),)
        questions.append(
            Question(id=f"reports/{n}", messages=asked, reference=sentence(told), category=f"kind {kind_N[n]}")
        )
        row = []
        for m, (lead, fact, joint) in enumerate(STYLES):
            said = [
                told[f] if knows_NMF[n, m, f] else words[f * WORDS + others_NMF[n, m, f]]
                for f in range(FACTS)
                if knows_NMF[n, m, f] or invents_NMF[n, m, f]
            ]
            silent = not said or (m % 2 == 0 and knows_NMF[n, m].sum() < 2)
            row.append("" if silent else f"{lead}{joint.join(map(fact.format, said))}.")
        texts.append(row)
    return written(questions, WRITERS, texts, rouge_l)


def inventory(size: int) -> PredictionTable:
    """Return what members write that are right on the facets they know, and share a mistake on the others."""
    stream = random.Random("graded inventory")
    facets = [known(name) for name in MEMBERS]
    questions, texts = [], []
    for n in range(size):
        requests = draw_requests(stream)
        questions.append(
            Question(
                id=f"inventory/{n}",
                messages=(Message("user", "; ".join(request.facet for request in requests)),),
                reference=sentence([answer(request) for request in requests]),
                category=requests[0].topic,
            )
        )
        row = []
        for knows in facets:
            # The members that are trained there answer "after" right 64 times in 100, the others nearly always.
            right = [
                request.facet in knows and stream.random() < (0.64 if request.operation == "after" else 0.97)
                for request in requests
            ]
            said = [
                answer(request, None if fine else MISTAKES[request.operation])
                for request, fine in zip(requests, right, strict=True)
            ]
            row.append(sentence(said))
        texts.append(row)
    return written(questions, MEMBERS, texts, rouge_l)


def solutions(folder: Path, *, numbers: bool) -> PredictionTable:
    """Return recorded solutions to GSM8K; where `numbers`, those with the same final number are one answer."""
    import pandas

    table = gsm8k.read(folder)
    assert table.texts is not None, "generations are texts"
    frame = pandas.read_parquet(folder / "questions.parquet")
    solved = {str(row.question_id): str(row.answer) for row in frame.itertuples()}
    names = table.question_ids.tolist()
    asked = [Question(id=name, messages=(Message("user", name),), reference=solved[name]) for name in names]
    texts = [[str(text).strip() for text in row] for row in table.texts.tolist()]
    whole = written(asked, table.agents, texts, steps_named)
    if not numbers:
        return whole
    assert whole.scores is not None, "written with scores"
    return dataclasses.replace(table, scores=np.where(table.answers >= 0, whole.scores, 0))


def made(part: str, recorded: Path, *, size: int) -> PredictionTable:
    """Return the table of a part."""
    if part.startswith("GSM8K"):
        table = solutions(recorded / "gsm8k", numbers=part.endswith("numbers"))
        return table.rows(slice(size))
    return reports(size) if part == "reports" else inventory(size)
