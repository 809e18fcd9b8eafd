r"""MMLU-Pro: questions with up to ten options in 14 categories, answered after a chain of thought.

Reference: Wang et al. 2024, MMLU-Pro: A More Robust and Challenging Multi-Task Language Understanding
    Benchmark, arXiv:2406.01574.
Prompt: that of lm-evaluation-harness task `mmlu_pro`, character for character: a header naming the category,
    the five worked rows of the split validation of that category, the question.
Deviations: the answer is read by a rule that knows more forms than the harness's "answer is (X)"; for numbers to
    compare with published ones set extractor="mmlu_pro/published@1". A question of the split validation is never
    among its own shots, so that split has at most four.

Example:
    >>> question = MmluPro().samples()[1]
    >>> print(question.messages[0].content.partition("\n")[2])
    Question:
    A lamp draws 2 A from a 12 V battery. What power does it take?
    Options:
    A. 6 W
    B. 10 W
    C. 14 W
    D. 24 W
    E. 48 W
    Answer: Let's think step by step.
    >>> MmluPro().parse("Power is 2 * 12 = 24 W. The answer is (D).", question)
    'D'
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from fusion.data._choice import choice_question, list_options, read_choice, score_choice
from fusion.data._hub import Row, choose_subsets, read_rows, require_split
from fusion.data._prompt import Shot, conversation, first_shots
from fusion.schema import Question

__all__ = ["MmluPro"]

_COLUMNS = ("question_id", "question", "options", "answer", "answer_index", "cot_content", "category", "src")
_CUE = "Let's think step by step."


@dataclass(kw_only=True)
class MmluPro:
    """MMLU-Pro. Question ids are those of the data set, so that published records join.

    Args:
        subsets: Categories to ask, such as "law"; all 14 when empty.
        num_fewshot: Shots, 0 to 5.
        multiturn: Show the shots as turns of the conversation.
        extractor: Rule that reads the letter.
    """

    repo: ClassVar[str] = "TIGER-Lab/MMLU-Pro"
    revision: ClassVar[str] = "b189ec765aa7ed75c8acfea42df31fdae71f97be"
    splits: ClassVar[tuple[str, ...]] = ("test", "validation")

    subsets: tuple[str, ...] = ()
    num_fewshot: Annotated[int, Ge(0)] = 5
    multiturn: bool = False
    extractor: str = "letter/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, in the data set's order, from the hub or from `root`."""
        require_split(split, self.splits)
        rows = self._rows(split, root)
        shown = (rows if split == "validation" else self._rows("validation", root)) if self.num_fewshot else []
        chosen = choose_subsets(self.subsets, sorted({row["category"] for row in rows}))
        pools = {name: [row for row in shown if row["category"] == name] for name in chosen}
        return [self._question(row, pools[row["category"]]) for row in rows if row["category"] in pools]

    def samples(self) -> Sequence[Question]:
        """Return three questions, without shots."""
        return [self._question(row, None) for row in _SAMPLES]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter that `text` states."""
        return read_choice(text, question, extractor=self.extractor)

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` states the right letter."""
        return score_choice(self.parse(text, question), question)

    def _rows(self, split: str, root: Path | None) -> list[Row]:
        return read_rows(self.repo, self.revision, f"data/{split}-*.parquet", columns=_COLUMNS, root=root)

    def _question(self, row: Row, pool: list[Row] | None) -> Question:
        shots = [] if pool is None else first_shots(pool, self.num_fewshot, asked=row)
        messages = conversation(
            _text(row),
            shots=[Shot(_text(shot), shot["cot_content"].replace(f"A: {_CUE} ", "")) for shot in shots],
            header=f"The following are multiple choice questions (with answers) about {row['category']}. Think step "
            'by step and then finish your answer with "the answer is (X)" where X is the correct letter choice.\n',
            multiturn=self.multiturn,
        )
        return choice_question(
            str(row["question_id"]),
            messages,
            [option.strip() for option in row["options"]],
            label=row["answer_index"],
            reference=row["answer"],
            category=row["category"],
            text=row["question"],
            src=row["src"],
        )


def _text(row: Row) -> str:
    options = list_options([option.strip() for option in row["options"]])
    return f"Question:\n{row['question']}\nOptions:\n{options}Answer: {_CUE}"


def _sample(name: str, category: str, question: str, options: Sequence[str], answer_index: int) -> Row:
    letter = "ABCDEFGHIJ"[answer_index]
    row: Row = {
        "question_id": f"sample-{name}",
        "category": category,
        "question": question,
        "options": options,
    }
    return row | {"answer": letter, "answer_index": answer_index, "cot_content": "", "src": "fusion"}


_SAMPLES = (
    _sample(
        "interest",
        "economics",
        "A deposit of 200 grows by 10 % a year. What is it worth after two years?",
        ["210", "220", "222", "224", "230", "240", "242", "244", "260", "400"],
        6,
    ),
    _sample(
        "lamp",
        "physics",
        "A lamp draws 2 A from a 12 V battery. What power does it take?",
        ["6 W", "10 W", "14 W", "24 W", "48 W"],
        3,
    ),
    _sample(
        "sets",
        "math",
        "How many subsets has a set of three elements?",
        ["8", "3", "4", "6", "9", "12", "16", "27"],
        0,
    ),
)
