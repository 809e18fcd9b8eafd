"""Wide tables: one row a question, one column an agent, as CSV (gzip too), TSV or Parquet.

Columns `question_id`, `category`, `question` and `answer` (these three optional) and one per agent. Cells are letters
or text; an empty cell abstains.
"""

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from fusion.data._io import is_parquet, is_table, printable, read_columns, read_head
from fusion.data._open import OpenAnswers, options_from_answers
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable, UnknownName, UnreadableTable, UsageError
from fusion.schema import IntArray, Json

if TYPE_CHECKING:
    import pandas

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_CELL = pa.dictionary(pa.int32(), pa.string())
_HEADER = "a header question_id,category,answer,AGENT,... and as many cells in every row"
_BLOCKS = (1 << 20, 1 << 30)
"""Bytes read at a time: a row must fit. The second is for tables with huge cells and costs memory."""
_TEXT_ROWS = 1 << 16
_NOT_TEXT: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""How files begin that are given for a table by mistake."""


@dataclass(frozen=True, kw_only=True)
class WideLayout:
    """How to read the columns of a wide table.

    Args:
        id: Column with the question ids.
        category: Column with the categories; ignored when the table has none of that name.
        question: Column with what was asked; ignored when the table has none of that name.
        answer: Column with the right answers; a table without it is unlabelled.
        agents: Columns that are agents; by default all others.
        cells: "letters" (A is the first option), "text" (the options of a question are the distinct
            answers to it), or "auto": letters when every right answer (unlabelled: every cell) is one.
    """

    id: str = "question_id"
    category: str = "category"
    question: str = "question"
    answer: str = "answer"
    agents: tuple[str, ...] | None = None
    cells: Literal["auto", "letters", "text"] = "auto"


def read_wide(path: str | os.PathLike[str], *, layout: WideLayout | None = None) -> PredictionTable:
    """Read a wide table.

    With letters, a cell that is not one letter abstains; how many did so is kept in the provenance
    under `unreadable`, by agent.

    Raises:
        UnreadableTable: When the file is missing, empty, ragged or neither CSV nor Parquet.
        InvalidTable: When ids repeat, right answers are missing or there is nothing in it.
        UnknownName: When a column that `layout` names is absent.
        UsageError: When `layout` contradicts itself.
    """
    source = Path(path)
    layout = layout or WideLayout()
    if is_table(source):
        raise UnreadableTable(f"{source} is a table of fusion already, which needs no import; use it as it is")
    content = read_columns(source) if is_parquet(source) else _read_csv(source, layout)
    content = content.drop_columns([name for name in content.column_names if _PANDAS_INDEX.fullmatch(name)])
    agents = _agents(str(source), content.column_names, layout)
    try:
        return _to_table(source.name, content, agents, layout)
    except InvalidTable as error:
        raise InvalidTable(f"{source}: {error}") from error


def from_pandas(frame: "pandas.DataFrame", *, layout: WideLayout | None = None) -> PredictionTable:
    """Make a table from a wide data frame, with the same columns as a wide file.

    Raises:
        InvalidTable: When ids repeat, right answers are missing or there is nothing in it.
        UnknownName: When a column that `layout` names is absent.
        UsageError: When `layout` contradicts itself.
    """
    layout = layout or WideLayout()
    try:
        content = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidTable(
            f"the data frame cannot be read: {error}; keep to columns of text, each named once"
        ) from error
    return _to_table("the data frame", content, _agents("the data frame", content.column_names, layout), layout)


def _to_table(source: str, content: pa.Table, agents: tuple[str, ...], layout: WideLayout) -> PredictionTable:
    if content.num_rows == 0:
        raise InvalidTable("there is a header but there are no questions")
    coded = {name: _coded(content, name) for name in agents}
    answer = _coded(content, layout.answer) if layout.answer in content.column_names else None
    if answer is not None:
        _require_answers(answer, content.column(layout.id))
        if layout.cells == "auto":
            _require_one_kind(answer, content.column(layout.id))
    letters = layout.cells == "letters" or (
        layout.cells == "auto" and _all_letters([answer] if answer else coded.values())
    )
    fields: dict[str, Any] = {}
    notes: dict[str, Json] = {"format": "wide", "source": source, "cells": "letters" if letters else "text"}
    if letters:
        columns = [_letter_indices(column) for column in coded.values()]
        fields["answers"] = np.stack([column.indices for column in columns], axis=1)
        if answer is not None:
            fields["labels"] = _letter_labels(answer, content.column(layout.id))
        notes["unreadable"] = {
            name: {"count": column.unreadable, "example": column.example}
            for name, column in zip(agents, columns, strict=True)
            if column.unreadable
        }
    else:
        opened = _opened(list(coded.values()), answer)
        fields |= {"answers": opened.answers, "labels": opened.labels, "options": opened.options}
        if answer is not None:
            fields["references"] = answer.texts()
    if layout.category in content.column_names:
        fields["categories"] = _coded(content, layout.category).texts()
    if layout.question in content.column_names:
        fields["questions"] = _coded(content, layout.question).texts()
    ids = _coded(content, layout.id).texts()
    return PredictionTable(question_ids=ids, agents=agents, provenance=notes, **fields)


class _Coded(NamedTuple):
    """A column as codes into its distinct values, trimmed; "" stands for nothing."""

    codes: IntArray
    values: list[str]

    def texts(self, rows: slice = slice(None)) -> npt.NDArray[np.object_]:
        """Object array [N] of str, or of some rows alone."""
        values = np.empty(len(self.values), dtype=object)
        values[:] = self.values
        return values[self.codes[rows]]


class _Letters(NamedTuple):
    indices: IntArray
    unreadable: int
    example: str


def _coded(content: pa.Table, name: str) -> _Coded:
    column = content.column(name)
    try:
        if not pa.types.is_dictionary(column.type) or not pa.types.is_string(column.type.value_type):
            column = _as_text(column).dictionary_encode()
    except pa.ArrowException as error:
        raise InvalidTable(
            f"the column {name!r} holds {column.type}, expected letters or text; drop or convert it"
        ) from error
    array = column.unify_dictionaries().combine_chunks()
    values = [(value or "").strip() for value in array.dictionary.to_pylist()]
    codes = array.indices.fill_null(len(values))
    return _Coded(np.asarray(codes), [*values, ""])


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        # Parquet writers turn integer columns with gaps into floats: 3.0 was 3, NaN was nothing.
        wide = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(wide), None, column)
        exact = pc.and_(pc.equal(wide, pc.trunc(wide)), pc.less(pc.abs(wide), 2.0**53))
        if pc.all(pc.or_(exact, pc.is_nan(wide)), min_count=0).as_py():
            column = column.cast(pa.float64()).cast(pa.int64())
    return column.cast(pa.string())


def _letter_indices(column: _Coded) -> _Letters:
    found = [_LETTER.fullmatch(value) for value in column.values]
    lookup = np.array([ord(match.group(1).upper()) - ord("A") if match else -1 for match in found], dtype=np.int16)
    bad = np.array([bool(value) and match is None for value, match in zip(column.values, found, strict=True)])
    bad_N = bad[column.codes]
    example = column.values[column.codes[bad_N.argmax()]] if bad_N.any() else ""
    return _Letters(lookup[column.codes], int(bad_N.sum()), example[:60])


def _letter_labels(answer: _Coded, ids: pa.ChunkedArray) -> IntArray:
    found = _letter_indices(answer)
    if found.unreadable:
        n = int((found.indices < 0).argmax())
        raise InvalidTable(
            f"the right answer to {ids[n].as_py()!r} is {found.example!r}, which is not a letter; "
            "mend it, or read the cells as text (--cells text)"
        )
    return found.indices


def _opened(columns: Sequence[_Coded], answer: _Coded | None) -> OpenAnswers:
    """Read text cells as options, some rows at a time: a million rows of them would not fit in memory."""
    parts = []
    for start in range(0, len(columns[0].codes), _TEXT_ROWS):
        rows = slice(start, start + _TEXT_ROWS)
        cells_NM = np.stack([column.texts(rows) for column in columns], axis=1)
        parts.append(options_from_answers(cells_NM, None if answer is None else answer.texts(rows).tolist()))
    return OpenAnswers(
        np.concatenate([part.answers for part in parts]),
        None if answer is None else np.concatenate([part.labels for part in parts if part.labels is not None]),
        tuple(row for part in parts for row in part.options),
    )


def _require_one_kind(answer: _Coded, ids: pa.ChunkedArray) -> None:
    """Refuse right answers of which most, but not all, are letters: one slip must not change how all are read."""
    letters_N = np.array([_LETTER.fullmatch(value) is not None for value in answer.values])[answer.codes]
    if 0.5 < letters_N.mean() < 1:
        n = int((~letters_N).argmax())
        raise InvalidTable(
            f"{int(letters_N.sum())} of {len(letters_N)} right answers are letters, but that of question "
            f"{ids[n].as_py()!r} is {answer.values[answer.codes[n]]!r}; mend it, or import the table with its cells "
            "read as text: fusion import wide FILE --cells text --out TABLE"
        )


def _all_letters(columns: Iterable[_Coded]) -> bool:
    return all(_LETTER.fullmatch(value) for column in columns for value in column.values if value)


def _require_answers(answer: _Coded, ids: pa.ChunkedArray) -> None:
    empty = np.flatnonzero(np.array([value == "" for value in answer.values])[answer.codes])
    if len(empty):
        first = ids[int(empty[0])].as_py()
        raise InvalidTable(
            f"{len(empty)} of {len(answer.codes)} questions have no right answer, the first is {first!r}; "
            "fill the answer column or drop those rows (a table without any answer column is read as unlabelled)"
        )


def _agents(source: str, columns: Sequence[str], layout: WideLayout) -> tuple[str, ...]:
    if layout.cells not in ("auto", "letters", "text"):
        raise UsageError(f"cells must be auto, letters or text, got {layout.cells!r}")
    repeated = [name for name in columns if columns.count(name) > 1]
    if repeated:
        raise InvalidTable(f"{source}: the column {repeated[0]!r} occurs more than once; rename one of them")
    usual = WideLayout()
    wanted = {layout.id: "question ids"}
    wanted |= {name: "an agent" for name in layout.agents or ()}
    wanted |= {layout.category: "categories"} if layout.category != usual.category else {}
    wanted |= {layout.question: "what was asked"} if layout.question != usual.question else {}
    wanted |= {layout.answer: "right answers"} if layout.answer != usual.answer else {}
    for name, use in wanted.items():
        if name not in columns:
            raise _no_column(source, name, use, columns)
    reserved = (layout.id, layout.category, layout.question, layout.answer)
    given = (*reserved, *(layout.agents or ()))
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise UsageError(f"the column {twice[0]!r} is given two uses; name every column once")
    if layout.agents is not None:
        return _at_least_one(source, layout.agents, reserved)
    for name in columns:
        alike = [other for other in reserved if other not in columns and other.casefold() == name.casefold()]
        if alike:
            raise InvalidTable(
                f"{source}: the column {name!r} would be an agent, but looks like {alike[0]!r}; rename it, or say "
                f"what it is (--{alike[0]}-column, or the layout's field)"
            )
    return _at_least_one(source, tuple(name for name in columns if name not in reserved), reserved)


def _at_least_one(source: str, agents: tuple[str, ...], reserved: Sequence[str]) -> tuple[str, ...]:
    if not agents:
        raise InvalidTable(f"{source} has no agent columns; expected one per agent beside {', '.join(reserved)}")
    if "" in agents:
        raise InvalidTable(
            f"{source} has a column without a name; name it, or drop it (row numbers of a data frame: index=False)"
        )
    return agents


def _no_column(source: str, name: str, use: str, columns: Iterable[str]) -> UnknownName:
    return UnknownName(kind=f"column (for {use}, in {source})", name=name, known=map(printable, columns))


def _read_csv(source: Path, layout: WideLayout) -> pa.Table:
    head = read_head(source)
    for magic, what in _NOT_TEXT.items():
        if head.startswith(magic):
            raise UnreadableTable(f"{source} is {what}; save the table as CSV in UTF-8 or as Parquet")
    compressed = head.startswith(b"\x1f\x8b")
    delimiter = "\t" if {".tsv", ".tab"} & {suffix.lower() for suffix in source.suffixes} else ","
    header: list[str] = []
    try:
        header = _read_header(source, layout, delimiter=delimiter, compressed=compressed)
        for block_size in _BLOCKS:
            try:
                return _parse_csv(source, header, delimiter=delimiter, compressed=compressed, block_size=block_size)
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or block_size == _BLOCKS[-1]:
                    raise
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error) as error:
        raise UnreadableTable(f"{source} cannot be read as a wide table: {_reason(error, header)}") from error
    raise AssertionError("the last block size returns or raises")


def _read_header(source: Path, layout: WideLayout, *, delimiter: str, compressed: bool) -> list[str]:
    with gzip.open(source) if compressed else source.open("rb") as handle:
        # What is not UTF-8 in the rows is left to the parser, which can name the row.
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = []

        def remembered() -> Iterable[str]:
            for line in text:
                lines.append(line)
                yield line

        header = [name.strip() for name in next(csv.reader(remembered(), delimiter=delimiter), [])]
        is_empty = not any(line.strip() for line in text)
    first = "".join(lines)
    if not any(header):
        raise UnreadableTable(f"{source} begins with an empty line; expected {_HEADER}")
    try:
        first.encode()
    except UnicodeEncodeError as error:
        raise UnreadableTable(f"{source} is not UTF-8 text; save it as CSV in UTF-8") from error
    if layout.id not in header:
        for other, word in {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}.items():
            if layout.id in [name.strip() for name in next(csv.reader([first], delimiter=other), [])]:
                raise UnreadableTable(
                    f"{source} separates its cells with {word}, expected {'tabs' if delimiter != ',' else 'commas'}; "
                    "save it with commas as .csv or with tabs as .tsv"
                )
        if len(header) == 1:
            raise UnreadableTable(f"{source} is no table, it begins with {printable(header[0])!r}; expected {_HEADER}")
        raise _no_column(str(source), layout.id, "question ids", header)
    if is_empty:
        raise InvalidTable(f"{source}: there is a header but there are no questions")
    return header


def _parse_csv(source: Path, header: Sequence[str], *, delimiter: str, compressed: bool, block_size: int) -> pa.Table:
    # Columns go by number until they are known to have different names.
    numbers = [str(k) for k in range(len(header))]
    with pa.input_stream(str(source), compression="gzip" if compressed else None) as stream:
        content = pacsv.read_csv(
            stream,
            # One thread, so that an error can name its row.
            read_options=pacsv.ReadOptions(
                use_threads=False, column_names=numbers, skip_rows_after_names=1, block_size=block_size
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(numbers, _CELL), strings_can_be_null=False),
        )
    return content.rename_columns(list(header))


def _reason(error: Exception, header: Sequence[str]) -> str:
    """Say in words what the parser found; rows count from 1, the header, and blank lines do not count."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)(.*)", text)
    if ragged:
        row, expected, got, start = ragged.groups()
        return (
            f"row {row} has {got} cells, the header has {expected}{printable(start)} "
            "(row 1 is the header; blank lines do not count); mend that row"
        )
    undecodable = re.search(r"column #(\d+): Row #(\d+): .*UTF8", text)
    if undecodable:
        column, row = undecodable.groups()
        return f"row {row} is not UTF-8 text in the column {header[int(column)]!r}; save it as CSV in UTF-8"
    return f"{printable(text, 200)}; expected {_HEADER}"
