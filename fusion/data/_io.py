"""PredictionTable on disk: one Parquet file, a row a question, a column a field and agent.

Columns: `question_id`, `category`, `reference`, `question`, `label`, `num_options`, `options`, then `<field>/<agent>`
for `answers`, `asked`, `probs`, `sample_answers`, `scores`, `tokens_in`, `tokens_out`, `seconds` and `texts`. The
file's metadata holds, under `fusion.table`, the agents in order, the provenance, the table's fingerprint and the
format's version, and under `fusion.table.sha256` the checksum of these notes. Any Parquet reader can use the
columns; reading them back as a table compares both, so that no damage goes unseen.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.data._columns import TEXT
from fusion.data._table import PredictionTable
from fusion.errors import InvalidTable, UnreadableTable
from fusion.files import replacing
from fusion.schema import Json

FORMAT = 1
_KEY = b"fusion.table"
_CHECKSUM = b"fusion.table.sha256"
_QUESTION_COLUMNS = {
    "question_ids": "question_id",
    "categories": "category",
    "references": "reference",
    "questions": "question",
    "labels": "label",
    "num_options": "num_options",
}
_MATRICES = ("answers", "asked", "scores", "tokens_in", "tokens_out", "seconds", "texts")
_CUBES = ("probs", "sample_answers")


def write_parquet(table: PredictionTable, path: str | os.PathLike[str]) -> None:
    """Write `table` to `path`, whole or not at all.

    Raises:
        InvalidTable: When the provenance is not JSON.
        OutputError: When the file cannot be written.
    """
    columns: dict[str, pa.Array] = {}
    for field, name in _QUESTION_COLUMNS.items():
        value = getattr(table, field)
        if value is not None:
            columns[name] = _to_arrow(value)
    if table.options is not None:
        columns["options"] = pa.array([list(row) for row in table.options], type=pa.list_(pa.string()))
    for field in _MATRICES + _CUBES:
        value = getattr(table, field)
        if value is not None:
            for j, agent in enumerate(table.agents):
                columns[f"{field}/{agent}"] = _to_arrow(value[:, j])
    content = pa.table(columns).replace_schema_metadata(_metadata_of(table))
    with replacing(path) as temporary:
        pq.write_table(content, temporary, compression="zstd", write_page_checksum=True)


def read_head(source: Path) -> bytes:
    """Return the first bytes of a file of recorded answers, by which its format is told.

    Raises:
        UnreadableTable: When there is no such file, or it is empty or something else than a file.
    """
    if not source.exists():
        raise UnreadableTable(f"no file {source}; give the path of a table written by fusion import, or of a wide CSV")
    if source.is_dir():
        raise UnreadableTable(f"{source} is a folder; give the path of a table file in it")
    if not source.is_file():
        raise UnreadableTable(f"{source} is a device or a pipe, but a table is read twice; save it as a file first")
    try:
        with source.open("rb") as handle:
            head = handle.read(8)
    except OSError as error:
        raise UnreadableTable(f"{source} cannot be opened: {error.strerror}; give a file that you may read") from error
    if not head:
        raise UnreadableTable(f"{source} is empty; expected a header question_id,category,answer,AGENT,...")
    return head


def is_parquet(source: Path) -> bool:
    """Tell whether the file at `source` begins as a Parquet file does.

    Raises:
        UnreadableTable: When it cannot be read.
    """
    return read_head(source).startswith(b"PAR1")


def is_table(source: Path) -> bool:
    """Tell whether the file at `source` was written by `write_parquet`.

    Raises:
        UnreadableTable: When it cannot be read, or is a damaged Parquet file.
    """
    if not is_parquet(source):
        return False
    schema = _schema(source)
    # Whichever of these damage has left: a table must not be taken for a wide one, with strange agents.
    return bool({_KEY, _CHECKSUM} & set(schema.metadata or {})) or "num_options" in schema.names


def printable(text: str, most: int = 60) -> str:
    """Return foreign text as it can stand in a message: not too long, and without control characters."""
    short = text if len(text) <= most else f"{text[:most]}..."
    return short if short.isprintable() else repr(short)[1:-1]


def read_columns(source: Path) -> pa.Table:
    """Read all columns of a Parquet file.

    Raises:
        UnreadableTable: When it is damaged, or not a Parquet file.
    """
    try:
        # ParquetFile, because read_table takes folders named key=value for further columns.
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(source, error) from error


def read_parquet(path: str | os.PathLike[str]) -> PredictionTable:
    """Read a table that `write_parquet` wrote.

    Raises:
        UnreadableTable: When the file is missing, damaged or not a table of fusion.
        InvalidTable: When its content breaks an invariant of `PredictionTable`.
    """
    source = Path(path)
    read_head(source)
    notes = _notes(source)
    content = read_columns(source)
    try:
        fields = _fields(content, notes.agents)
        table = PredictionTable(agents=notes.agents, provenance=notes.provenance, **fields)
    except InvalidTable as error:
        raise InvalidTable(f"{source}: {error}") from error
    except (pa.ArrowException, LookupError, TypeError, ValueError) as error:
        raise UnreadableTable(f"{source} is not a complete table: {_first_line(error)}; import it again") from error
    if table.fingerprint != notes.fingerprint:
        raise UnreadableTable(
            f"{source} does not hold what was written to it (fingerprint {table.fingerprint[:16]} instead of "
            f"{notes.fingerprint[:16]}): it is damaged, or was changed by another program; import or copy it again"
        )
    return table


class _Notes(NamedTuple):
    agents: tuple[str, ...]
    provenance: Mapping[str, Json]
    fingerprint: str


def _metadata_of(table: PredictionTable) -> dict[bytes, bytes]:
    notes = {
        "format": FORMAT,
        "agents": table.agents,
        "provenance": dict(table.provenance),
        "fingerprint": table.fingerprint,
    }
    try:
        text = json.dumps(notes).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTable(f"the table's provenance must be JSON: {error}; keep to texts, numbers and lists") from error
    return {_KEY: text, _CHECKSUM: _checksum(text)}


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _notes(source: Path) -> _Notes:
    metadata = _schema(source).metadata or {}
    raw = metadata.get(_KEY)
    if raw is None:
        raise UnreadableTable(
            f"{source} is a Parquet file but not a table of fusion; a wide one with the columns question_id, "
            "category, answer and one per agent is imported with: fusion import wide FILE --out TABLE"
        )
    try:
        notes = json.loads(raw)
        if notes["format"] != FORMAT:
            raise UnreadableTable(
                f"{source} has table format {notes['format']!r}, this version of fusion reads format {FORMAT}; "
                "upgrade fusion or import the table again"
            )
        read = _Notes(tuple(map(str, notes["agents"])), dict(notes["provenance"]), str(notes["fingerprint"]))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableTable(f"{source} has notes that cannot be read: {error}; import or copy it again") from error
    if metadata.get(_CHECKSUM) != _checksum(raw):
        raise UnreadableTable(f"{source} is damaged: its notes are not what was written; import or copy it again")
    return read


def _schema(source: Path) -> pa.Schema:
    try:
        return pq.read_schema(source)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> UnreadableTable:
    return UnreadableTable(f"{source} cannot be read as Parquet: {_first_line(error)}; import or copy it again")


def _first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def _fields(content: pa.Table, agents: tuple[str, ...]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field, name in _QUESTION_COLUMNS.items():
        if name in content.column_names:
            fields[field] = _from_arrow(content.column(name))
    if "options" in content.column_names:
        fields["options"] = content.column("options").to_pylist()
    for field in _MATRICES + _CUBES:
        names = [f"{field}/{agent}" for agent in agents]
        if any(name in content.column_names for name in names):
            fields[field] = _stacked([content.column(name) for name in names])
    return fields


def _to_arrow(value: npt.NDArray[Any]) -> pa.Array:
    if value.dtype == TEXT:
        return pa.array(value.tolist(), type=pa.string())
    if value.ndim == 2:
        flat = pa.array(np.ascontiguousarray(value).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, value.shape[1])
    return pa.array(np.ascontiguousarray(value))


def _from_arrow(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array = column.combine_chunks()
    if array.null_count:
        raise ValueError("a column has gaps")
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array(array.to_pylist(), dtype=TEXT)
    if pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.flatten()).reshape(len(array), array.type.list_size)
    return np.asarray(array)


def _stacked(columns: list[pa.ChunkedArray]) -> npt.NDArray[Any]:
    """Return the columns side by side, filling one array so that memory peaks at it plus one column."""
    first = _from_arrow(columns[0])
    stacked = np.empty((first.shape[0], len(columns), *first.shape[1:]), dtype=first.dtype)
    for j, column in enumerate(columns):
        stacked[:, j] = _from_arrow(column)
    return stacked
