r"""Replay: a table of recorded answers answers again; no model is asked.

The request's model names a column of the table, its question id a row. What the agent wrote is sent back where the
table has texts. Else the recorded answer is put in words: the continuation, or the text of the option, or its letter
where the prompt lists options under letters or the table has no texts of options. What is not on record is a failure,
never an answer.

Example:
    >>> import asyncio, tempfile
    >>> from pathlib import Path
    >>> from fusion.schema import Request
    >>> async def ask(engine, request):
    ...     return [completion async for _, completion in engine.generate([request])][0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "answers.csv"
    ...     _ = path.write_text("question_id,answer,ash,birch\nq1,A,A,B\nq2,B,B,\n")
    ...     engine = Replay(table=str(path))
    ...     told = [asyncio.run(ask(engine, Request(question_id=q, messages=(), model="birch"))) for q in ("q1", "q2")]
    >>> [(completion.status, completion.text) for completion in told]
    [('ok', 'B'), ('empty', '')]
"""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from annotated_types import Ge

from fusion.agents._examine import as_finding
from fusion.errors import EngineError, FusionError, suggest
from fusion.schema import Completion, Finding, Json, Request, Usage

if TYPE_CHECKING:
    from fusion.data import PredictionTable
    from fusion.schema import FloatArray

__all__ = ["Replay"]

RECORDED = "recorded"
"""The means by which options are scored: the probabilities in the table."""
_LETTERED = re.compile(r"^\s*\(?A[.):]\s.*^\s*\(?B[.):]\s", re.M | re.S)


class _Opened(NamedTuple):
    """The table, with where its questions and agents stand."""

    table: PredictionTable
    rows: Mapping[str, int]
    columns: Mapping[str, int]


@dataclass(kw_only=True)
class Replay:
    """The engine that answers from a table.

    Args:
        table: Path of the table: Parquet that fusion wrote, or a wide CSV.
        delay_s: Seconds before each answer; requests given together wait together.
    """

    table: str
    delay_s: Annotated[float, Ge(0)] = 0.0
    _opened: _Opened | None = field(default=None, init=False, repr=False, compare=False)

    def identity(self, request: Request) -> Mapping[str, Json]:
        """Return the fingerprint of the table.

        Raises:
            TableError: When the table cannot be read.
        """
        return {"engine": "replay", "table": self._open().table.fingerprint}

    def render(self, request: Request) -> str:
        """Return "": nobody reads a prompt."""
        return ""

    async def scoring(self, request: Request) -> str | None:
        """Return "recorded" when the table has probabilities of the agent, else None.

        Probabilities that the task made of something else than log-probabilities (`musr` divides by length) are not
        given back as such: the task would do it again.

        Raises:
            EngineError: When the table has no such agent.
            TableError: When it cannot be read.
        """
        opened = self._open()
        column = self._column(opened, request)
        probs_NMK = None if opened.table.provenance.get("adjusted") else opened.table.probs
        return RECORDED if probs_NMK is not None and bool(probs_NMK[:, column].any()) else None

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Completion], None]:
        """Answer from the table.

        Raises:
            EngineError: When it has no agent of a name that a request gives as model.
            TableError: When it cannot be read.
        """
        opened = self._open()
        columns = [self._column(opened, request) for request in requests]
        for index, (request, column) in enumerate(zip(requests, columns, strict=True)):
            if index == 0:
                await asyncio.sleep(self.delay_s)
            yield index, self._answer(opened, request, column)

    async def examine(self, request: Request) -> Sequence[Finding]:
        """Find a table that cannot be read, an agent that is not in it, and questions that were not asked."""
        try:
            opened = self._open()
            column = self._column(opened, request)
        except FusionError as error:
            return (as_finding(error),)
        asked_NM = opened.table.asked
        missing = 0 if asked_NM is None else int((~asked_NM[:, column]).sum())
        if not missing:
            return ()
        what = f"{missing} of {len(opened.table)} questions were never put to {request.model!r} in {self.table}"
        return (Finding("warning", what, "record them, or leave the agent out; those calls will fail"),)

    def prompt_tokens(self, request: Request) -> int | None:
        """Return the recorded number of tokens read; None when the table does not have it."""
        opened = self._open()
        row, column = opened.rows.get(request.question_id), opened.columns.get(request.model)
        if opened.table.tokens_in is None or row is None or column is None:
            return None
        return int(opened.table.tokens_in[row, column])

    def memory_bytes(self, request: Request) -> int | None:
        """Return the size of the table's arrays."""
        arrays = (value for value in vars(self._open().table).values() if isinstance(value, np.ndarray))
        return sum(array.nbytes for array in arrays)

    async def aclose(self) -> None:
        """Let go of the table; it is read again when it is wanted."""
        self._opened = None

    def _open(self) -> _Opened:
        if self._opened is None:
            # Reading tables imports pyarrow.
            from fusion.data import read_table

            table = read_table(self.table)
            rows = {name: n for n, name in enumerate(table.question_ids.tolist())}
            self._opened = _Opened(table, rows, {name: m for m, name in enumerate(table.agents)})
        return self._opened

    def _column(self, opened: _Opened, request: Request) -> int:
        column = opened.columns.get(request.model)
        if column is None:
            raise EngineError(
                f"the table {self.table} has no agent {request.model!r}{suggest(request.model, opened.columns)}; "
                "give the name of a column as model"
            )
        return column

    def _answer(self, opened: _Opened, request: Request, m: int) -> Completion:
        table, n = opened.table, opened.rows.get(request.question_id)
        if n is None:
            return self._failure(f"question {request.question_id!r} is not in the table {self.table}")
        if table.asked is not None and not table.asked[n, m]:
            return self._failure(f"{request.model!r} was never asked question {request.question_id!r}")
        if request.scoring not in ("", RECORDED):
            return self._failure(f"options are scored by {RECORDED!r} here, not by {request.scoring!r}")
        if request.continuations and len(request.continuations) != table.num_options[n]:
            return self._failure(
                f"question {request.question_id!r} has {table.num_options[n]} options on record, "
                f"but {len(request.continuations)} continuations were given"
            )
        if request.scoring:
            return self._scored(table, request, n, m)
        draws = 1 if table.sample_answers is None else table.sample_answers.shape[2]
        if request.sample >= draws:
            return self._failure(f"draw {request.sample + 1} is wanted, {draws} of each answer are on record")
        return self._said(table, request, n, m)

    def _scored(self, table: PredictionTable, request: Request, n: int, m: int) -> Completion:
        if table.probs is None:
            return self._failure(f"the table {self.table} has no probabilities")
        probs_K = table.probs[n, m, : len(request.continuations)].astype(np.float64)
        if not probs_K.any():
            return self._completion(table, n, m, text="")
        # Among equals the recorded answer: it is what the agent was taken to say.
        answer = int(table.answers[n, m])
        best = answer if answer >= 0 and probs_K[answer] == probs_K.max() else int(probs_K.argmax())
        return self._completion(table, n, m, text=request.continuations[best], logprobs_K=_log(probs_K))

    def _said(self, table: PredictionTable, request: Request, n: int, m: int) -> Completion:
        answer = int(table.answers[n, m])
        # Texts are kept of the first draw alone.
        text = "" if table.texts is None or request.sample else str(table.texts[n, m])
        if table.sample_answers is not None and (request.sample or request.seed is not None):
            drawn = int(table.sample_answers[n, m, request.sample])
            text, answer = (text if drawn == answer else ""), drawn
        if not text.strip() and answer >= 0:
            worded = _in_words(table, request, n, answer)
            if worded is None:
                return self._failure(
                    f"the answer to {request.question_id!r}, option {answer}, cannot be said: it has neither text nor "
                    "letter on record"
                )
            text = worded
        return self._completion(table, n, m, text=text)

    def _completion(
        self, table: PredictionTable, n: int, m: int, *, text: str, logprobs_K: FloatArray | None = None
    ) -> Completion:
        said = bool(text.strip())
        return Completion(
            status="ok" if said else "empty",
            text=text if said else "",
            option_logprobs=None if logprobs_K is None else tuple(logprobs_K.tolist()),
            usage=Usage(
                tokens_in=None if table.tokens_in is None else int(table.tokens_in[n, m]),
                tokens_out=None if table.tokens_out is None else int(table.tokens_out[n, m]),
            ),
            seconds=self.delay_s if table.seconds is None else float(table.seconds[n, m]),
            finish_reason=RECORDED,
            detail="" if said else "an abstention is on record",
            served_by=f"replay/{table.fingerprint[:16]}",
        )

    def _failure(self, detail: str) -> Completion:
        return Completion(status="engine_error", detail=detail, seconds=self.delay_s)


def _in_words(table: PredictionTable, request: Request, n: int, answer: int) -> str | None:
    """Return how an agent would say that it chooses an option; None when that is not known."""
    if request.continuations:
        return request.continuations[answer]
    options = None if table.options is None else table.options[n]
    # References stand beside open questions alone; without them only the prompt tells.
    lettered = table.references is None and any(_LETTERED.search(message.content) for message in request.messages)
    if options and options[answer].strip() and not lettered:
        return options[answer]
    return string.ascii_uppercase[answer] if answer < 26 and (lettered or not options) else None


def _log(probs_K: FloatArray) -> FloatArray:
    """Return natural logarithms, -inf of 0."""
    with np.errstate(divide="ignore"):
        logprobs_K: FloatArray = np.log(probs_K)
    return logprobs_K
