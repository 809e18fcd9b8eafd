r"""BIG-Bench Hard: 27 kinds of puzzles; most have options, four are open.

Reference: Suzgun et al. 2022, Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them,
    arXiv:2210.09261.
Prompt: style "cot" is that of lm-evaluation-harness tasks `bbh_cot_zeroshot_*`, style "direct" without shots that of
    `bbh_zeroshot_*`, character for character: the task's description, then the question.
Deviations: shots (style "direct") are the first rows of the subset itself other than the one that is asked; the harness
    has three fixed ones in its files. The answer is read by one named extractor for all subsets, normalised and
    compared; the harness has a pattern for each.

Example:
    >>> question = Bbh().samples()[1]
    >>> print(question.messages[0].content)
    Evaluate the result of a random Boolean expression.
    <BLANKLINE>
    Q: not ( True and not False ) is
    A: Let's think step by step.
    >>> Bbh().parse("not ( True and True ) = not True = False. So the answer is False.", question)
    'B'
    >>> question.options
    ('True', 'False')
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fusion.data._bbh import LETTERED, SUBSETS
from fusion.data._choice import LETTERS, choice_question, score_choice
from fusion.data._hub import Row, choose_subsets, read_rows, require_split
from fusion.data._parse import get_extractor, normalise_free_form
from fusion.data._prompt import Shot, conversation, first_shots
from fusion.errors import InvalidSpec, UsageError
from fusion.schema import Message, Question

__all__ = ["Bbh"]

_LISTED = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
_MEANT = {"plausible": "yes", "implausible": "no", "not plausible": "no"}


@dataclass(kw_only=True)
class Bbh:
    """BIG-Bench Hard.

    Args:
        subsets: Kinds of puzzle to ask, such as "snarks"; all 27 when empty.
        style: "cot" asks for a chain of thought, "direct" for the answer.
        num_fewshot: Shots; only with style "direct", as the data set has no worked solutions.
        multiturn: Show the shots as turns of the conversation.
        extractor: Rule that reads the answer.
    """

    repo: ClassVar[str] = "SaylorTwift/bbh"
    revision: ClassVar[str] = "b5306be6f827cfafbb545ff5a51f96916029b0fd"
    splits: ClassVar[tuple[str, ...]] = ("test",)

    subsets: tuple[str, ...] = ()
    style: Literal["cot", "direct"] = "cot"
    num_fewshot: Annotated[int, Ge(0)] = 0
    multiturn: bool = False
    extractor: str = "bbh/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions, subset by subset, from the hub or from `root`.

        Raises:
            InvalidSpec: When shots are wanted with style "cot".
        """
        require_split(split, self.splits)
        questions = []
        for subset in choose_subsets(self.subsets, list(SUBSETS)):
            pattern = f"{subset}/{split}-*.parquet"
            rows = read_rows(self.repo, self.revision, pattern, columns=("input", "target"), root=root)
            questions += [
                self._question(row, f"bbh/{subset}/{split}/{i}", subset, pool=rows) for i, row in enumerate(rows)
            ]
        return questions

    def samples(self) -> Sequence[Question]:
        """Return four questions, without shots."""
        return [self._question(row, f"bbh/{row['subset']}/sample/0", row["subset"]) for row in _SAMPLES]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter of the option that `text` states, in an open question its words or number.

        Raises:
            UsageError: When the question is not one of this task.
        """
        if question.category not in SUBSETS:
            raise UsageError(f"question {question.id!r} is none of bbh, which reads each of its subsets in another way")
        lettered = SUBSETS[question.category].options is LETTERED
        num_options = len(question.options) if lettered else None
        value = get_extractor(self.extractor)(text, num_options=num_options).value
        if not question.options:
            # The lists of word_sorting are longer than what an extractor takes for an answer without a cue.
            bare = question.category == "word_sorting" and "\n" not in text.strip()
            return normalise_free_form(text) if value is None and bare else value
        if lettered and value in tuple(LETTERS):
            return value
        if question.category == "sports_understanding":
            value = _MEANT.get(value or "", value)
        texts = [normalise_free_form(option) for option in question.options]
        return LETTERS[texts.index(value)] if value in texts else None

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` states the right answer."""
        answer = self.parse(text, question)
        if question.options:
            return score_choice(answer, question)
        return float(answer is not None and answer == normalise_free_form(question.reference))

    def _question(self, row: Row, question_id: str, subset: str, *, pool: Sequence[Row] | None = None) -> Question:
        target = row["target"].strip()
        messages = self._messages(row, subset, pool)
        kind = SUBSETS[subset].options
        if not kind:
            return Question(id=question_id, messages=messages, reference=target, category=subset, text=row["input"])
        listed = _LISTED.findall(row["input"]) if kind is LETTERED else [(option, option) for option in kind]
        says = [f"({letter})" if kind is LETTERED else letter for letter, _ in listed]
        return choice_question(
            question_id,
            messages,
            [option for _, option in listed],
            label=says.index(target) if target in says else None,
            reference=target,
            category=subset,
            text=row["input"],
            continuations=says,
        )

    def _messages(self, row: Row, subset: str, pool: Sequence[Row] | None) -> tuple[Message, ...]:
        if self.style == "cot" and self.num_fewshot:
            raise InvalidSpec(
                f"bbh(num_fewshot={self.num_fewshot}) needs style=direct: the data set has no worked solutions to show"
            )
        shots = [] if pool is None else first_shots(pool, self.num_fewshot, asked=row)
        return conversation(
            f"Q: {row['input']}\nA: Let's think step by step." if self.style == "cot" else f"Q: {row['input']}\nA:",
            shots=[Shot(f"Q: {shot['input']}\nA:", shot["target"]) for shot in shots],
            header=f"{SUBSETS[subset].header}\n\n",
            multiturn=self.multiturn,
        )


_SAMPLES: tuple[Row, ...] = (
    {
        "subset": "date_understanding",
        "input": "Tomorrow is the first of May 2011. What is the date today in MM/DD/YYYY?\n"
        "Options:\n(A) 05/02/2011\n(B) 04/30/2011\n(C) 04/30/2010\n(D) 05/01/2011",
        "target": "(B)",
    },
    {"subset": "boolean_expressions", "input": "not ( True and not False ) is", "target": "False"},
    {
        "subset": "word_sorting",
        "input": "Sort the following words alphabetically: List: willow larch oak elm",
        "target": "elm larch oak willow",
    },
    {"subset": "multistep_arithmetic_two", "input": "((2 + -5) * (4 - 9)) =", "target": "15"},
)
