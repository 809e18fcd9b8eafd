r"""SearchQA: Jeopardy clues, with what a search engine found for them.

Reference: Dunn et al. 2017, SearchQA: A New Q&A Dataset Augmented with Context from a Search Engine,
    arXiv:1704.05179; in the form of Fisch et al. 2019, MRQA 2019 Shared Task, arXiv:1910.09753.
Equations: exact match and F1 of the words, of arXiv:1606.05250, section 6.1; the best of the accepted answers counts.
Prompt: the search results, the clue, "Answer:". Of the results, marked "[DOC] [TLE] title [PAR] text" by MRQA, the
    first ones are shown, each whole, up to the first that no longer fits `context_chars`. `meta` says how many of how
    many. There is no prompt to agree with: neither the paper nor lm-evaluation-harness has one.
Deviations: the first line of the answer is compared, without a leading "Answer:", the Jeopardy phrase ("What is",
    "Who was"), Markdown and a full stop at the end; MRQA compares the whole answer. Accepted answers are
    treated alike, so that a title such as "Who's Afraid of Virginia Woolf?" is still found.

Example:
    >>> task, question = Searchqa(), Searchqa().samples()[0]
    >>> print(question.messages[0].content)
    Answer the clue with a name or a short phrase and nothing else.
    <BLANKLINE>
    Search results:
    - Outer planets: Galle saw it in 1846 where Le Verrier had computed it to be.
    - Moons of the giants: Triton circles it against its spin.
    <BLANKLINE>
    Clue: Found by calculation before it was seen, it is the farthest planet from the Sun
    Answer:
    >>> task.parse(" What is Neptune?\n\nClue: Another", question)
    'Neptune'
    >>> task.metrics("planet Neptune", question)
    {'em': 0.0, 'f1': 0.6666666666666666}
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fusion.data._hub import Row, read_rows, require_split
from fusion.data._ids import numbered
from fusion.data._parse_text import answer_part
from fusion.data._squad import exact_match, word_f1
from fusion.errors import InputError
from fusion.schema import Message, Question

__all__ = ["Searchqa"]

_COLUMNS = ("context", "question", "key", "answers")
_TASK = "Answer the clue with a name or a short phrase and nothing else."
_LABEL = re.compile(r"[\s*_]*(?:(?:final )?answer[*_]*\s*:|the (?:correct )?answer is\b:?)[\s*_]*(?=\S)", re.IGNORECASE)
_PHRASE = re.compile(r"(?:what|who|where|when)(?:\s+(?:is|are|was|were)|['\u2019]s)\s+(?=\S)", re.IGNORECASE)
_MARKDOWN = " \t*_`"


@dataclass(kw_only=True)
class Searchqa:
    """SearchQA. `meta` holds the accepted "answers", and of how many "snippets" how many are shown ("snippets_shown").

    An answer is right when it matches exactly, whatever `metric` is.

    Args:
        context_chars: Most characters of search results to show; 0 shows none.
        metric: What `score` returns; higher is better.
    """

    repo: ClassVar[str] = "lucadiliello/searchqa"
    revision: ClassVar[str] = "c1a979068ba118d85467179b704031d113d689cc"
    splits: ClassVar[tuple[str, ...]] = ("train", "validation")

    context_chars: Annotated[int, Ge(0)] = 4000
    metric: Literal["f1", "em"] = "f1"
    extractor: str = field(default="searchqa/first_line@1", init=False)

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, from the hub or from `root`.

        Raises:
            InputError: When a question has no accepted answer.
        """
        require_split(split, self.splits)
        rows = read_rows(self.repo, self.revision, f"data/{split}-*.parquet", columns=_COLUMNS, root=root)
        keys = numbered([str(row["key"]) for row in rows])
        return [self._question(row, f"searchqa/{split}/{key}") for row, key in zip(rows, keys, strict=True)]

    def samples(self) -> Sequence[Question]:
        """Return three questions."""
        return [self._question(row, f"searchqa/sample/{row['key']}") for row in _SAMPLES]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the first line of the answer, cleaned, or None when there is no text."""
        part = answer_part(text).strip()
        label = _LABEL.match(part)
        line = (part[label.end() :] if label else part).partition("\n")[0]
        return _cleaned(line) or None

    def score(self, text: str, question: Question) -> float:
        """Return F1 or exact match (`metric`) with the closest of the accepted answers."""
        return self.metrics(text, question)[self.metric]

    def metrics(self, text: str, question: Question) -> dict[str, float]:
        """Return exact match "em" and "f1", both in [0, 1]."""
        answer = self.parse(text, question) or ""
        accepted = question.meta["answers"]
        assert isinstance(accepted, list), f"{question.id} is not a question of this task"
        wanted = [self.parse(str(one), question) or "" for one in accepted]
        return {"em": exact_match(answer, wanted), "f1": word_f1(answer, wanted)}

    def right(self, text: str, question: Question) -> bool:
        """Return whether the answer matches an accepted one exactly."""
        return self.metrics(text, question)["em"] == 1

    def _question(self, row: Row, question_id: str) -> Question:
        answers = [*dict.fromkeys(joined for one in row["answers"] if (joined := " ".join(one.split())))]
        if not answers:
            raise InputError(
                f"answers of {question_id} must hold at least one text, got {row['answers']!r}; is it a file of "
                "another data set?"
            )
        snippets = _snippets(row["context"])
        shown = _fitting(snippets, self.context_chars)
        results = "\n".join(["Search results:", *shown]) + "\n\n" if shown else ""
        clue = " ".join(row["question"].split())
        return Question(
            id=question_id,
            messages=(Message("user", f"{_TASK}\n\n{results}Clue: {clue}\nAnswer:"),),
            reference=answers[0],
            text=clue,
            meta={"answers": [*answers], "snippets": len(snippets), "snippets_shown": len(shown)},
        )


def _snippets(context: str) -> list[str]:
    """Return every search result as one line, "- title: text"."""
    found = []
    for part in context.split("[DOC]"):
        pieces = [" ".join(piece.split()) for piece in part.replace("[TLE]", " ").split("[PAR]")]
        title, *texts = pieces
        text = " ".join(filter(None, texts))
        if title or text:
            found.append(f"- {title}: {text}" if title and text else f"- {title or text}")
    return found


def _fitting(snippets: Sequence[str], limit: int) -> list[str]:
    """Return the first snippets that, joined by line feeds, have at most `limit` characters."""
    shown: list[str] = []
    used = -1
    for snippet in snippets:
        used += 1 + len(snippet)
        if used > limit:
            break
        shown.append(snippet)
    return shown


def _cleaned(line: str) -> str:
    bare = line.strip(_MARKDOWN)
    phrase = _PHRASE.match(bare)
    if phrase:
        bare = bare[phrase.end() :].rstrip("?" + _MARKDOWN)
    return bare.removesuffix(".").strip(_MARKDOWN) or line.strip()


def _sample(key: str, clue: str, answers: Sequence[str], results: Sequence[tuple[str, str]]) -> Row:
    context = " ".join(f"[DOC] [TLE] {title} [PAR] {text}" for title, text in results)
    return {"key": key, "question": clue, "answers": answers, "context": context}


_SAMPLES = (
    _sample(
        "0",
        "Found by calculation before it was seen, it is the farthest planet from the Sun",
        ["Neptune"],
        [
            ("Outer planets", "Galle saw it in 1846 where Le Verrier had computed it to be."),
            ("Moons of the giants", "Triton circles it against its spin."),
        ],
    ),
    _sample(
        "1",
        "This bridge-building insect of the tropics makes chains of its own workers",
        ["army ants", "the army ant"],
        [("Living bridges", "Workers hold on to each other until the whole column has crossed the gap.")],
    ),
    _sample(
        "2", "He gave his name to the temperature scale that starts at absolute zero", ["Lord Kelvin", "Kelvin"], []
    ),
)
