"""fusion explain: why an ensemble answers a recorded question as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from fusion.cli._options import JsonFile
from fusion.cli.fit import FIT_FILE, FIT_FORMAT

if TYPE_CHECKING:
    from fusion.data import PredictionTable


def explain_command(
    ensemble: Annotated[Path, typer.Argument(help="Folder of an ensemble, as fusion fit makes it.")],
    question_id: Annotated[str, typer.Argument(help="Which question of the table.")],
    table: Annotated[
        Path | None, typer.Option(help="Table with the question (default: the one that it was fitted on).")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Say who answered what to one question, what it weighed, what decided, and whose absence would change it."""
    import dataclasses

    from fusion.cli._show import show_explanation, show_result
    from fusion.data import read_table
    from fusion.ensemble import Ensemble
    from fusion.explanation import explain
    from fusion.files import check_writable

    if json and json != "-":
        check_writable(json)
    fitted = Ensemble.load(ensemble)
    answers = read_table(table) if table else _table_of_fit(ensemble)
    found = explain(fitted, answers, question_id)
    if table is None or _fingerprint(ensemble) == answers.fingerprint:
        note = "the ensemble was fitted on this question too; what it makes of new ones, fusion bench measures"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    show_result(found, show_explanation, json)


class _Fit(NamedTuple):
    """What an ensemble was fitted on."""

    table: Path
    fingerprint: str


def _table_of_fit(folder: Path) -> PredictionTable:
    """Read the table that an ensemble was fitted on.

    Raises:
        InputError: When that is not known, or the table is no longer there.
        TableMismatch: When the table was changed since.
    """
    from fusion.data import read_table
    from fusion.errors import InputError, TableMismatch

    fit = _read_fit(folder)
    if fit is None:
        raise InputError(
            f"there is no {FIT_FILE} in {folder}, so the table that the ensemble was fitted on is not known; give one "
            "with --table FILE"
        )
    if not fit.table.exists():
        raise InputError(
            f"the table that {folder} was fitted on, {fit.table}, is no longer there; say where it is with --table FILE"
        )
    table = read_table(fit.table)
    if table.fingerprint != fit.fingerprint:
        raise TableMismatch(
            f"{fit.table} is not what {folder} was fitted on any more: its fingerprint is {table.fingerprint[:16]}, "
            f"expected {fit.fingerprint[:16]}; fit again, or take it all the same with --table {fit.table}"
        )
    return table


def _fingerprint(folder: Path) -> str | None:
    """Return the fingerprint of the table that an ensemble was fitted on; None where that is not known."""
    fit = _read_fit(folder)
    return None if fit is None else fit.fingerprint


def _read_fit(folder: Path) -> _Fit | None:
    """Read what `fusion fit` noted beside the ensemble; None where there is nothing.

    Raises:
        InputError: When it cannot be read.
    """
    import json

    from fusion.errors import InputError

    path = folder / FIT_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}; fit again, or remove it") from error
    known = isinstance(content, dict) and content.get("format") == FIT_FORMAT
    if not known or not all(isinstance(content.get(key), str) for key in ("table", "fingerprint")):
        raise InputError(f"{path} is not a note of the format {FIT_FORMAT}; fit again, or remove it")
    return _Fit(Path(content["table"]), content["fingerprint"])
