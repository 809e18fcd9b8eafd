r"""GSM8K: grade-school word problems whose answer is one number.

Reference: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168.
Prompt: that of lm-evaluation-harness task `gsm8k`: five solved rows of the split train, then the question. The
    rows are drawn afresh for every question from one stream, seeded as the harness seeds it, so that question i
    of the split test gets the very shots that it gets there.
Deviations: a question of the split train is never among its own shots. The answer is right when it equals the
    reference as a number; the harness compares strings after stripping "$" and ",", which makes 18.00 differ
    from 18.

Example:
    >>> task, question = Gsm8k(), Gsm8k().samples()[0]
    >>> print(question.messages[0].content)
    Question: A tram has 5 cars with 32 seats each. 47 seats are taken. How many are free?
    Answer:
    >>> task.parse("5 * 32 = 160 and 160 - 47 = 113\n#### 113", question)
    '113'
    >>> task.score("That leaves 113.00 seats.", question)
    1.0
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from fusion.data._hub import Row, read_rows, require_split
from fusion.data._parse import get_extractor, numbers_equal
from fusion.data._prompt import Shot, check_shots, conversation
from fusion.schema import Question

__all__ = ["Gsm8k"]


@dataclass(kw_only=True)
class Gsm8k:
    """GSM8K. A question's reference is the worked solution, which ends in "#### " and the number.

    Args:
        num_fewshot: Shots; default of the harness.
        fewshot_seed: Seed of the stream that draws them; default of the harness.
        multiturn: Show the shots as turns of the conversation.
        extractor: Rule that reads the number.
    """

    repo: ClassVar[str] = "openai/gsm8k"
    revision: ClassVar[str] = "740312add88f781978c0658806c59bc2815b9866"
    splits: ClassVar[tuple[str, ...]] = ("test", "train")

    num_fewshot: Annotated[int, Ge(0)] = 5
    fewshot_seed: int = 1234
    multiturn: bool = False
    extractor: str = "gsm8k/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, from the hub or from `root`."""
        require_split(split, self.splits)
        rows = self._rows(split, root)
        pool = (rows if split == "train" else self._rows("train", root)) if self.num_fewshot else []
        own = 1 if split == "train" and self.num_fewshot else 0
        check_shots(self.num_fewshot, len(pool) - own)
        stream = random.Random(self.fewshot_seed)
        questions = []
        for i, row in enumerate(rows):
            drawn = stream.sample(pool, self.num_fewshot + own)
            shots = [other for other in drawn if other is not row][: self.num_fewshot]
            questions.append(self._question(row, f"gsm8k/{split}/{i}", shots))
        return questions

    def samples(self) -> Sequence[Question]:
        """Return three questions, without shots."""
        return [self._question(row, f"gsm8k/sample/{i}", []) for i, row in enumerate(_SAMPLES)]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the number that `text` states, in canonical form."""
        return get_extractor(self.extractor)(text).value

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` states the number with which the reference ends."""
        answer = self.parse(text, question)
        return float(answer is not None and numbers_equal(answer, str(question.meta["answer"])))

    def _rows(self, split: str, root: Path | None) -> list[Row]:
        columns = ("question", "answer")
        return read_rows(self.repo, self.revision, f"main/{split}-*.parquet", columns=columns, root=root)

    def _question(self, row: Row, question_id: str, shots: Sequence[Row]) -> Question:
        messages = conversation(
            _text(row), shots=[Shot(_text(shot), shot["answer"]) for shot in shots], multiturn=self.multiturn
        )
        number = row["answer"].rpartition("####")[2].strip()
        return Question(
            id=question_id,
            messages=messages,
            reference=row["answer"],
            text=row["question"],
            meta={"answer": number},
        )


def _text(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


_SAMPLES: tuple[Row, ...] = (
    {
        "question": "A tram has 5 cars with 32 seats each. 47 seats are taken. How many are free?",
        "answer": "The tram has 5*32 = <<5*32=160>>160 seats.\n160-47 = <<160-47=113>>113 are free.\n#### 113",
    },
    {
        "question": "Ines buys 3 pens for $1.50 each with a $20 note. How many dollars does she get back?",
        "answer": "They cost 3*1.5 = $<<3*1.5=4.5>>4.50.\nShe gets 20-4.5 = $<<20-4.5=15.5>>15.50.\n#### 15.50",
    },
    {
        "question": "A mill grinds 250 kg an hour. How many kg does it grind in two days of 10 hours?",
        "answer": "It runs 2*10 = <<2*10=20>>20 hours.\nIt grinds 20*250 = <<20*250=5000>>5,000 kg.\n#### 5,000",
    },
)
