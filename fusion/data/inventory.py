r"""Inventory: generated open questions about three short lists, answered by one sentence of three parts.

Every question asks for one thing of each of three lists. A list is about one of six topics (`fruit`, `tool`, `animal`,
`garment`, `vehicle`, `vessel`) and holds three to five things, each with a number. Six operations are asked for: the
first, the second or the last thing, the commonest or the rarest one, and the one after another. Operation and topic
make the 36 facets of the parts, which the question shows. A question's `meta` holds the right "parts" and their
"facets"; its category is the topic of its first list.

The task is made to measure how answers that are right in different parts become one. Tiny models that are
trained from scratch can answer it; the lists are drawn at random, so no answer can be known from another question.

The questions are fixed: they depend on the variant, the split and their place only, so a larger split begins with
the smaller one. Which split a question belongs to follows from a hash of its content, whatever order its lists are
in, so splits are disjoint whatever their sizes, across variants too. Variant "b" has another seed and other
wording; it is for measuring what was made on "a", never for tuning.

Example:
    >>> question = Inventory().samples()[0]
    >>> print(question.messages[0].content.replace("; ", ";\n"))
    Find the tool after rope among brush 2, axe 4, rope 6, ladder 1;
    the first animal among goat 3, dog 1, mouse 6;
    the commonest vessel among cup 1, pan 3, barrel 8.
    Answer:
    >>> question.id, question.reference, question.meta["facets"]
    ('inventory/a/test/0', 'ladder, goat and barrel.', ['after tool', 'first animal', 'commonest vessel'])
    >>> [Inventory().score(text, question) for text in (" Ladder, goat  and barrel", "goat, ladder and barrel.")]
    [1.0, 0.0]
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from fusion.data._hub import require_split
from fusion.data._inventory import (
    WORDINGS,
    Request,
    Wording,
    answer,
    content,
    draw_requests,
    prompt,
    sentence,
    split_of,
    split_parts,
)
from fusion.data._parse import answer_part
from fusion.schema import Message, Question

__all__ = ["Inventory"]

_Size = Annotated[int, Interval(ge=0, le=50_000)]


@dataclass(kw_only=True)
class Inventory:
    """The generated task with open answers of three parts.

    Args:
        variant: "a" to make methods on, "b" to measure them once more.
        train_size: Questions of the split train.
        validation_size: Questions of the split validation.
        test_size: Questions of the split test.
    """

    revision: ClassVar[str] = "generated"
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    variant: Literal["a", "b"] = "a"
    train_size: _Size = 8000
    validation_size: _Size = 1000
    test_size: _Size = 2000
    extractor: str = field(default="first_line@1", init=False)

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`; `root` is not read."""
        require_split(split, self.splits)
        sizes = {"train": self.train_size, "validation": self.validation_size, "test": self.test_size}
        return self._questions(split, sizes[split])

    def samples(self) -> Sequence[Question]:
        """Return the first six questions of the split test."""
        return self._questions("test", 6)

    def parse(self, text: str, question: Question) -> str | None:
        """Return the first line of the answer, or None when there is no text."""
        line = answer_part(text).strip().partition("\n")[0].rstrip()
        return line or None

    def score(self, text: str, question: Question) -> float:
        """Return 1 when all parts of the answer are right and in their places; case, blanks and full stop are free."""
        line = self.parse(text, question)
        return float(line is not None and split_parts(line) == split_parts(question.reference))

    def _questions(self, split: str, size: int) -> list[Question]:
        stream = random.Random(f"inventory {self.variant} {split}")
        seen: set[str] = set()
        questions: list[Question] = []
        while len(questions) < size:
            requests, wording = draw_requests(stream), stream.choice(WORDINGS[self.variant])
            key = content(requests)
            if key not in seen and split_of(requests) == split:
                seen.add(key)
                name = f"inventory/{self.variant}/{split}/{len(questions)}"
                questions.append(self._question(name, requests, wording))
        return questions

    def _question(self, question_id: str, requests: Sequence[Request], wording: Wording) -> Question:
        parts = [answer(request) for request in requests]
        return Question(
            id=question_id,
            messages=(Message("user", prompt(requests, wording)),),
            reference=sentence(parts),
            category=requests[0].topic,
            meta={"parts": [*parts], "facets": [request.facet for request in requests]},
        )
