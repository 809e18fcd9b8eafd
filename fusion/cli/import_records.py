"""fusion import: records of other tools become a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

if TYPE_CHECKING:
    from fusion.data import PredictionTable


def import_command(
    format: Annotated[str, typer.Argument(help="wide, long, lm-eval, inspect or openai-batch.", metavar="FORMAT")],
    files: Annotated[
        list[Path], typer.Argument(help="Files or folders; for most formats one per agent.", metavar="FILE...")
    ],
    out: Annotated[Path, typer.Option(help="Table to write (Parquet).")],
    agents: Annotated[
        str | None, typer.Option(help="wide: the columns that are agents; else the agents' names, one per file.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="long, openai-batch: file with question_id, answer; maybe question, category, options."),
    ] = None,
    extractor: Annotated[
        str | None,
        typer.Option(help="long, openai-batch: rule that reads answers from text; see fusion list extractors."),
    ] = None,
    filter: Annotated[str | None, typer.Option(help="lm-eval: which filter's answers to take.")] = None,
    scorer: Annotated[str | None, typer.Option(help="inspect: which scorer's answers to take.")] = None,
    cells: Annotated[str | None, typer.Option(help="wide: auto, letters or text (default: auto).")] = None,
    id_column: Annotated[
        str | None, typer.Option(help="wide: column with question ids (default: question_id).")
    ] = None,
    category_column: Annotated[
        str | None, typer.Option(help="wide: column with categories (default: category).")
    ] = None,
    question_column: Annotated[
        str | None, typer.Option(help="wide: column with what was asked (default: question).")
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="wide: column with right answers (default: answer).")
    ] = None,
) -> None:
    """Turn recorded answers of other tools into a table."""
    from fusion.cli._show import check_table_path, working
    from fusion.data import WideLayout, import_records, write_table
    from fusion.errors import UsageError

    check_table_path(out, files)
    names = tuple(name.strip() for name in agents.split(",")) if agents else None
    columns = {"id": id_column, "category": category_column, "question": question_column, "answer": answer_column}
    columns["cells"] = cells
    given = {key: value for key, value in columns.items() if value is not None}
    options: dict[str, object] = {"questions": questions, "extractor": extractor, "filter": filter, "agents": names}
    options["scorer"] = scorer
    if format == "wide":
        if cells not in (None, "auto", "letters", "text"):
            raise UsageError(f"--cells must be auto, letters or text, got {cells!r}")
        options["agents"] = None
        options["layout"] = WideLayout(agents=names, **cast("dict[str, Literal['auto', 'letters', 'text']]", given))
    elif given:
        raise UsageError(f"--cells and --*-column belong to the format wide, not to {format}")
    with working(f"reading {len(files)} {'file' if len(files) == 1 else 'files'}"):
        table = import_records(format, files, **options)
        write_table(table, out)
    _report(table, out)


def _report(table: PredictionTable, out: Path) -> None:
    from rich.table import Table

    from fusion.cli._show import make_console
    from fusion.data import table_notes

    shown = Table("agent", title=f"{len(table)} questions x {table.num_agents} agents", title_justify="left")
    shown.add_column("no answer %", justify="right")
    if table.labels is not None:
        shown.add_column("accuracy %", justify="right")
    for j, name in enumerate(table.agents):
        cells = [f"{100 * (~table.answered[:, j]).mean():.1f}"]
        if table.labels is not None:
            cells.append(f"{100 * table.accuracies[j]:.1f}")
        shown.add_row(name, *cells)
    make_console().print(shown)
    for note in table_notes(table):
        typer.echo(f"note: {note}")
    typer.echo(f"wrote {out}   fingerprint {table.fingerprint[:16]}")
