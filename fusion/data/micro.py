r"""Micro: generated questions in eight categories, easy enough for tiny models that are trained from scratch.

Each category asks for one skill. Six have options: `mod` (remainders), `text` (copying and reversing), `compare`
(the largest and the smallest number), `count` (letters in a word), `lookup` (facts given in the question) and `odd`
(the word that does not belong). Two are open, with a short number as their reference: `sum` (adding and subtracting
numbers of two digits) and `steps` (word problems of one or two steps).

Of the questions with options eight in ten have four, the others three or five; the right one is equally
likely at every place, and within `mod`, `text`, `count` and `lookup` nothing but the question tells it from the others.

The questions are fixed: they depend on the variant, the split and their place only, so a larger split begins with
the smaller one. Which split a question belongs to follows from a hash of its content, whatever order that is
given in, so splits are disjoint whatever their sizes, across variants too. Variant "b" has another seed and other
wording; it is for measuring what was made on "a", never for tuning.

Example:
    >>> question = Micro().samples()[0]
    >>> print(question.messages[0].content)
    What is (51 - 14) mod 6?
    A. 3
    B. 5
    C. 1
    D. 0
    Answer:
    >>> question.id, question.category, question.reference
    ('micro/a/test/0', 'mod', 'C')
    >>> Micro().samples()[6].messages[0].content, Micro().score("It is 35.", Micro().samples()[6])
    ('What is 11 + 23?\nAnswer:', 0.0)
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from fusion.data._choice import LETTERS, choice_question, list_options, read_choice, score_choice
from fusion.data._hub import require_split
from fusion.data._micro import SKILLS, WORDING, Item, split_of
from fusion.data._parse import get_extractor, numbers_equal
from fusion.schema import Message, Question

__all__ = ["Micro"]

_Size = Annotated[int, Interval(ge=0, le=20_000)]


@dataclass(kw_only=True)
class Micro:
    """The generated micro-benchmark.

    Args:
        variant: "a" to make methods on, "b" to measure them once more.
        train_size: Questions of the split train.
        validation_size: Questions of the split validation.
        test_size: Questions of the split test.
        extractor: Rule that reads the letter.
        number_extractor: Rule that reads the number.
    """

    revision: ClassVar[str] = "generated"
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    variant: Literal["a", "b"] = "a"
    train_size: _Size = 4000
    validation_size: _Size = 1000
    test_size: _Size = 2000
    extractor: str = "letter/flexible@1"
    number_extractor: str = "gsm8k/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, its categories in turn; `root` is not read."""
        require_split(split, self.splits)
        sizes = {"train": self.train_size, "validation": self.validation_size, "test": self.test_size}
        return self._questions(split, sizes[split])

    def samples(self) -> Sequence[Question]:
        """Return the first question of each category of the split test."""
        return self._questions("test", len(SKILLS))

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter that `text` states, or the number in canonical form where there are no options."""
        if not question.options:
            return get_extractor(self.number_extractor)(text).value
        return read_choice(text, question, extractor=self.extractor)

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` states the right letter, or the right number."""
        answer = self.parse(text, question)
        if not question.options:
            return float(answer is not None and numbers_equal(answer, question.reference))
        return score_choice(answer, question)

    def _questions(self, split: str, size: int) -> list[Question]:
        streams = {skill: self._items(skill, split) for skill in SKILLS}
        names = list(SKILLS)
        return [
            self._question(f"micro/{self.variant}/{split}/{i}", category, *next(streams[category]))
            for i, category in ((i, names[i % len(names)]) for i in range(size))
        ]

    def _items(self, skill: str, split: str) -> Iterator[tuple[Item, int]]:
        """Yield the skill's items of `split`, none twice, with the place of the right option if there are any."""
        stream = random.Random(f"micro {self.variant} {split} {skill}")
        seen = set()
        while True:
            num_options = stream.choice((3, 4, 4, 4, 4, 4, 4, 4, 4, 5))
            item = SKILLS[skill](stream, num_options)
            place = stream.randrange(num_options)
            key = f"{item.form} {' '.join(item.content)}"
            if key not in seen and split_of(item) == split:
                seen.add(key)
                yield item, place

    def _question(self, question_id: str, category: str, item: Item, place: int) -> Question:
        stem = WORDING[self.variant][item.form].format(*item.content)
        options = [*item.wrong[:place], item.right, *item.wrong[place:]] if item.wrong else []
        listed = list_options(options)
        prompt = f"{stem}\n{listed}Answer:" if self.variant == "a" else f"Q: {stem}\n{listed}The answer is"
        messages = (Message("user", prompt),)
        if not options:
            return Question(id=question_id, messages=messages, reference=item.right, category=category, text=stem)
        return choice_question(
            question_id, messages, options, label=place, reference=LETTERS[place], category=category, text=stem
        )
