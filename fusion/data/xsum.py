r"""XSum: say in one sentence what a news article is about.

Reference: Narayan, Cohen and Lapata 2018, Don't Give Me the Details, Just the Summary! Topic-Aware Convolutional
    Neural Networks for Extreme Summarization, arXiv:1808.08745; the measure is that of Lin 2004, ROUGE: A Package for
    Automatic Evaluation of Summaries, aclanthology.org/W04-1013.
Equations: with `same` the n-grams (ROUGE-1: words, ROUGE-2: pairs) that summary and reference share, or the length of
    their longest common subsequence of words (ROUGE-L), P = same / those of the summary, R = same / those of the
    reference, F = 2 P R / (P + R). Computed by the package rouge-score with its stemmer.
Prompt: the article up to the last sentence or paragraph that ends within `document_chars`, then the request. `meta`
    says how many of how many characters. There is no prompt to agree with: the paper trains its models.
Deviations: the first paragraph of the answer is compared, without announcements ("Here is a summary:") and a leading
    "Summary:". The package reads words of the letters a to z and digits only; the paper's numbers come from the
    Perl script, which differs in tokens and stems.

Example:
    >>> task, question = Xsum(document_chars=90), Xsum(document_chars=90).samples()[0]
    >>> print(question.messages[0].content)
    Article:
    The ferry that links the two halves of Lindholm ran for the last time on Sunday.
    <BLANKLINE>
    Summarise the article in one sentence.
    Summary:
    >>> question.meta
    {'characters': 203, 'characters_shown': 80}
    >>> task.parse("Here is one sentence:\n\nA ferry has closed.\n\nShall I go on?", question)
    'A ferry has closed.'
    >>> task.score("A bridge has replaced the old ferry there.", question)
    0.75
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from fusion.data._hub import Row, read_rows, require_split
from fusion.data._ids import numbered
from fusion.data._open import canonical
from fusion.data._parse_text import answer_part
from fusion.errors import InputError, MissingDependency
from fusion.schema import Message, Question

__all__ = ["Xsum"]

_Kind = Literal["rouge1", "rouge2", "rougeL"]
_KINDS: tuple[_Kind, ...] = ("rouge1", "rouge2", "rougeL")
_ENDS = re.compile(r"[.!?][\"')\]\u201d\u2019]*(?=\s)|(?<=\S)(?=\s*\n)")
_PARAGRAPH_ENDS = re.compile(r"\n\s*\n")
_LABEL = re.compile(r"[\s*_#]*summary[*_]*\s*:[\s*_]*(?=\S)", re.IGNORECASE)
_ANNOUNCED = re.compile(r"[^\n]*:[*_]{0,3}[ \t]*\n\s*(?=\S)")


@dataclass(kw_only=True)
class Xsum:
    """XSum. `meta` says of how many "characters" of the article how many are shown ("characters_shown").

    A summary is right only when it is the reference, but for case, white space and a full stop: what matters is
    the score.

    Args:
        document_chars: Most characters of the article to show.
        metric: What `score` returns; higher is better.
    """

    repo: ClassVar[str] = "EdinburghNLP/xsum"
    revision: ClassVar[str] = "ed4a1bafca875c41e3b9149c3479132ba21dcd53"
    splits: ClassVar[tuple[str, ...]] = ("test", "validation", "train")

    document_chars: Annotated[int, Ge(1)] = 6000
    metric: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    extractor: str = field(default="xsum/first_paragraph@1", init=False)

    def load(self, split: str, *, root: Path | None = None) -> Sequence[Question]:
        """Return the questions of `split`, from the hub or from `root`.

        Raises:
            InputError: When an article has no summary.
        """
        require_split(split, self.splits)
        columns = ("document", "summary", "id")
        rows = read_rows(self.repo, self.revision, f"default/{split}/*.parquet", columns=columns, root=root)
        names = numbered([str(row["id"]) for row in rows])
        return [self._question(row, f"xsum/{split}/{name}") for row, name in zip(rows, names, strict=True)]

    def samples(self) -> Sequence[Question]:
        """Return three questions."""
        return [self._question(row, f"xsum/sample/{row['id']}") for row in _SAMPLES]

    def parse(self, text: str, question: Question) -> str | None:
        """Return the first paragraph of the answer on one line, or None when there is no text."""
        part = answer_part(text).strip()
        while announced := _ANNOUNCED.match(part):
            part = part[announced.end() :]
        label = _LABEL.match(part)
        part = part[label.end() :] if label else part
        return " ".join(_PARAGRAPH_ENDS.split(part, maxsplit=1)[0].split()) or None

    def score(self, text: str, question: Question) -> float:
        """Return the F-measure of the ROUGE that `metric` names, in [0, 1].

        Raises:
            MissingDependency: When rouge-score is not installed.
        """
        return self._rouge(text, question, (self.metric,))[self.metric]

    def metrics(self, text: str, question: Question) -> dict[str, float]:
        """Return the F-measures "rouge1", "rouge2" and "rougeL", all in [0, 1].

        Raises:
            MissingDependency: When rouge-score is not installed.
        """
        return self._rouge(text, question, _KINDS)

    def right(self, text: str, question: Question) -> bool:
        """Return whether the summary is the reference."""
        answer = self.parse(text, question)
        return answer is not None and canonical(answer) == canonical(question.reference)

    def _rouge(self, text: str, question: Question, kinds: tuple[_Kind, ...]) -> dict[str, float]:
        found = _scorer(kinds).score(question.reference, self.parse(text, question) or "")
        return {kind: float(found[kind].fmeasure) for kind in kinds}

    def _question(self, row: Row, question_id: str) -> Question:
        summary = " ".join(row["summary"].split())
        if not summary:
            raise InputError(f"summary of {question_id} must not be empty; is it a file of another data set?")
        article = row["document"].strip()
        shown = _cut(article, self.document_chars)
        request = "Summarise the article in one sentence.\nSummary:"
        return Question(
            id=question_id,
            messages=(Message("user", f"Article:\n{shown}\n\n{request}"),),
            reference=summary,
            text=shown,
            meta={"characters": len(article), "characters_shown": len(shown)},
        )


def _cut(article: str, limit: int) -> str:
    """Return what ends with the last sentence, paragraph, or else word that ends within `limit` characters."""
    if len(article) <= limit:
        return article
    # One character more shows whether what ends at the limit is the end of a sentence or word.
    ends = [found.end() for found in _ENDS.finditer(article[: limit + 1]) if found.end() <= limit]
    if ends:
        return article[: ends[-1]]
    words = re.match(r".*\S(?=\s)", article[: limit + 1], re.DOTALL)
    return words[0] if words else article[:limit]


@functools.cache
def _scorer(kinds: tuple[_Kind, ...]) -> Any:
    """Return the scorer; nltk behind it takes a second to load."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise MissingDependency("rouge-score", purpose="the ROUGE of xsum", extra="metrics") from error
    return RougeScorer([*kinds], use_stemmer=True)


_SAMPLES: tuple[Row, ...] = (
    {
        "id": "0",
        "summary": "A bridge has replaced the ferry of Lindholm.",
        "document": "The ferry that links the two halves of Lindholm ran for the last time on Sunday.\n"
        "Its crew of four will work at the toll station of the new bridge. "
        "The crossing took nine minutes; by car it now takes one.",
    },
    {
        "id": "1",
        "summary": "Rare orchids have stopped work on a car park in Tolley.",
        "document": "Diggers stood still in Tolley on Tuesday after a pupil on the way to school counted twelve bee "
        "orchids where a car park is planned.\nThe council will decide in May whether the flowers are to be moved. "
        '"We can wait," the builder said.',
    },
    {
        "id": "2",
        "summary": "The chess club of Arden has beaten last year's champions with a team of pensioners.",
        "document": "Nobody in the team from Arden is younger than 67, and none of its players had won against Brook "
        "before.\nOn Saturday they took five boards out of eight.\nBrook, who had won the league in March, asked for a "
        "second match.",
    },
)
