r"""MMLU: four-option questions on 57 subjects, from school to professional exams.

Reference: Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv:2009.03300.
Prompt: that of lm-evaluation-harness tasks `mmlu` and `mmlu_generative`, character for character: a header
    naming the subject, the first `num_fewshot` rows of the split dev of that subject, the question. No shots
    by default, as there; the paper uses 5.
Deviations: a question of the split dev itself is never among its own shots; the answer is read by a named
    extractor, where the harness compares the first line.

Example:
    >>> question = Mmlu().samples()[0]
    >>> print(question.messages[0].content)
    The following are multiple choice questions (with answers) about high school geography.
    <BLANKLINE>
    Which of these is an inland country?
    A. Chile
    B. Laos
    C. Kenya
    D. Portugal
    Answer:
    >>> question.reference, Mmlu().score(" B", question)
    ('B', 1.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from fusion.data._choice import LETTERS, choice_question, list_options, read_choice, score_choice
from fusion.data._hub import Row, choose_subsets, read_rows, require_split
from fusion.data._prompt import Shot, conversation, first_shots
from fusion.schema import Question

__all__ = ["Mmlu"]

_COLUMNS = ("question", "subject", "choices", "answer")


@dataclass(kw_only=True)
class Mmlu:
    """MMLU.

    Args:
        subsets: Subjects to ask, such as "anatomy"; all 57 when empty.
        num_fewshot: Shots, 0 to 5.
        multiturn: Show the shots as turns of the conversation.
        extractor: Rule that reads the letter.
    """

    repo: ClassVar[str] = "cais/mmlu"
    revision: ClassVar[str] = "c30699e8356da336a370243923dbaf21066bb9fe"
    splits: ClassVar[tuple[str, ...]] = ("test", "validation", "dev")

    subsets: tuple[str, ...] = ()
    num_fewshot: Annotated[int, Ge(0)] = 0
    multiturn: bool = False
    extractor: str = "letter/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, subject by subject, from the hub or from `root`."""
        require_split(split, self.splits)
        rows = self._rows(split, root)
        pools = (rows if split == "dev" else self._rows("dev", root)) if self.num_fewshot else {}
        return [
            self._question(row, f"mmlu/{subject}/{split}/{i}", pools.get(subject, []))
            for subject in choose_subsets(self.subsets, list(rows))
            for i, row in enumerate(rows[subject])
        ]

    def samples(self) -> Sequence[Question]:
        """Return three questions, without shots."""
        return [self._question(row, f"mmlu/{row['subject']}/sample/{i}", None) for i, row in enumerate(_SAMPLES)]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter that `text` states."""
        return read_choice(text, question, extractor=self.extractor)

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` states the right letter."""
        return score_choice(self.parse(text, question), question)

    def _rows(self, split: str, root: Path | None) -> dict[str, list[Row]]:
        rows = read_rows(self.repo, self.revision, f"all/{split}-*.parquet", columns=_COLUMNS, root=root)
        rows.sort(key=lambda row: str(row["subject"]))
        return {subject: list(group) for subject, group in groupby(rows, key=lambda row: str(row["subject"]))}

    def _question(self, row: Row, question_id: str, pool: list[Row] | None) -> Question:
        subject = row["subject"]
        shots = [] if pool is None else first_shots(pool, self.num_fewshot, asked=row)
        messages = conversation(
            _text(row),
            shots=[Shot(_text(shot), LETTERS[shot["answer"]]) for shot in shots],
            header=f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n",
            multiturn=self.multiturn,
        )
        label = row["answer"]
        return choice_question(
            question_id,
            messages,
            row["choices"],
            label=label,
            reference=LETTERS[label],
            category=subject,
            text=row["question"].strip(),
        )


def _text(row: Row) -> str:
    return f"{row['question'].strip()}\n{list_options(row['choices'])}Answer:"


_SAMPLES: tuple[Row, ...] = (
    {
        "subject": "high_school_geography",
        "question": "Which of these is an inland country?",
        "choices": ["Chile", "Laos", "Kenya", "Portugal"],
        "answer": 1,
    },
    {
        "subject": "elementary_mathematics",
        "question": "A box holds 6 rows of 7 eggs. How many eggs are in two such boxes?",
        "choices": ["42", "26", "48", "84"],
        "answer": 3,
    },
    {
        "subject": "astronomy",
        "question": "Which planet's orbit lies between those of Venus and Mars?",
        "choices": ["Earth", "Mercury", "Jupiter", "Neptune"],
        "answer": 0,
    },
)
