r"""MuSR: long stories that take several steps of reasoning, in three kinds.

Reference: Sprague et al. 2024, MuSR: Testing the Limits of Chain-of-thought with Multistep Soft Reasoning,
    arXiv:2310.16049.
Equations: `score_options` is 1 when argmax over k of l_k / c_k is the right option, with l_k the log-probability of
    option k's text after the prompt and c_k its length in characters: `acc_norm` of the harness.
Prompt: style "options" is that of lm-evaluation-harness tasks `leaderboard_musr_*`, character for character: story,
    question, numbered options; the options' texts are scored.
Deviations: style "generate", with the options under letters and a request to reason first, is an addition
    for engines that only generate. What the hub calls splits are the subsets here, and there is one split, test.

Example:
    >>> question = Musr(style="generate").samples()[1]
    >>> print(question.messages[0].content.partition("\n\n")[2])
    Where would Ana look first for the keys?
    <BLANKLINE>
    A. drawer
    B. shelf
    C. coat
    <BLANKLINE>
    Reason step by step, then finish with "the answer is (X)" where X is the letter of the right option.
    >>> Musr(style="generate").score("She saw them last on the shelf, so the answer is (B).", question)
    1.0
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fusion.data._choice import best_option, choice_question, list_options, read_choice, score_choice
from fusion.data._hub import Row, choose_subsets, read_rows, require_split
from fusion.errors import InputError
from fusion.schema import FloatArray, Message, Question

__all__ = ["Musr"]

_COLUMNS = ("narrative", "question", "choices", "answer_index", "answer_choice")
_FILES = {
    "murder_mysteries": "murder_mystery.csv",
    "object_placements": "object_placements.csv",
    "team_allocation": "team_allocation.csv",
}


@dataclass(kw_only=True)
class Musr:
    """MuSR.

    Args:
        subsets: Kinds of story to ask, such as "team_allocation"; all three when empty.
        style: "options" for engines that score texts, "generate" for those that only write.
        extractor: Rule that reads the letter in style "generate".
    """

    repo: ClassVar[str] = "TAUR-Lab/MuSR"
    revision: ClassVar[str] = "7c365b439a222150f317764d4f16ae6c96d7d94a"
    splits: ClassVar[tuple[str, ...]] = ("test",)

    subsets: tuple[str, ...] = ()
    style: Literal["options", "generate"] = "options"
    extractor: str = "letter/flexible@1"

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions, subset by subset, from the hub or from `root`."""
        require_split(split, self.splits)
        return [
            self._question(row, f"musr/{subset}/{split}/{i}", subset)
            for subset in choose_subsets(self.subsets, list(_FILES))
            for i, row in enumerate(read_rows(self.repo, self.revision, _FILES[subset], columns=_COLUMNS, root=root))
        ]

    def samples(self) -> Sequence[Question]:
        """Return three questions, one of each kind."""
        return [
            self._question(row, f"musr/{subset}/sample/0", subset) for subset, row in zip(_FILES, _SAMPLES, strict=True)
        ]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the letter of the option that `text` chooses; in style "options" by its full text."""
        return read_choice(text, question, extractor=self.extractor if self.style == "generate" else None)

    def score(self, text: str, question: Question) -> float:
        """Return 1 when `text` chooses the right option."""
        return score_choice(self.parse(text, question), question)

    def score_options(self, logprobs: Sequence[float] | FloatArray, question: Question) -> float:
        """Return 1 when the right option is the likeliest for its length.

        Args:
            logprobs: float [K], log-probability of each option's whole text after the prompt, in nats.
            question: The question it was asked.

        Raises:
            UsageError: When `logprobs` does not have one number per option.
        """
        return float(best_option(self.adjusted(logprobs, question), question) == question.label)

    def adjusted(self, logprobs: Sequence[float] | FloatArray, question: Question) -> Sequence[float] | FloatArray:
        """Return the log-probabilities per character of the options' texts, which are what is compared."""
        if len(logprobs) != len(question.options):
            return logprobs
        adjusted_K: FloatArray = np.asarray(logprobs) / [len(option) for option in question.options]
        return adjusted_K

    def _question(self, row: Row, question_id: str, subset: str) -> Question:
        options = _options(row["choices"], question_id)
        story = f"{row['narrative']}\n\n{row['question']}\n\n"
        if self.style == "options":
            numbered = "".join(f"{i} - {option}\n" for i, option in enumerate(options, start=1))
            prompt = f"{story}{numbered}\nAnswer:"
        else:
            prompt = (
                f"{story}{list_options(options)}\nReason step by step, then finish with "
                '"the answer is (X)" where X is the letter of the right option.'
            )
        return choice_question(
            question_id,
            (Message("user", prompt),),
            options,
            label=int(row["answer_index"]),
            reference=row["answer_choice"],
            category=subset,
            text=story.strip(),
            continuations=options if self.style == "options" else None,
        )


def _options(text: str, question_id: str) -> list[str]:
    """Read the options, which the data set writes as a Python list of strings."""
    try:
        options = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"choices of {question_id} must be a list of strings, got {text!r}") from error
    return [str(option) for option in options]


_SAMPLES: tuple[Row, ...] = (
    {
        "narrative": "Ida and Otto were both near the mill when the miller was pushed. Otto had his arm in "
        "plaster and could not have moved the heavy man. Ida had quarrelled with him over a debt that very "
        "morning, and her scarf hung on the wheel.",
        "question": "Who is the most likely murderer?",
        "choices": "['Ida', 'Otto']",
        "answer_index": 0,
        "answer_choice": "Ida",
    },
    {
        "narrative": "Ana put the keys on the shelf and went out to water the plants. While she was outside, Ben "
        "moved them to the drawer, and nobody told her.",
        "question": "Where would Ana look first for the keys?",
        "choices": "['drawer', 'shelf', 'coat']",
        "answer_index": 1,
        "answer_choice": "shelf",
    },
    {
        "narrative": "The boat needs someone at the helm and two people at the sails. Cleo gets seasick below "
        "but steers well. Dan and Eva have trimmed sails together for years. Dan cannot read a chart.",
        "question": "Who should steer and who should trim the sails?",
        "choices": "['Steer: Dan, sails: Cleo and Eva', 'Steer: Eva, sails: Cleo and Dan', "
        "'Steer: Cleo, sails: Dan and Eva']",
        "answer_index": 2,
        "answer_choice": "Steer: Cleo, sails: Dan and Eva",
    },
)
