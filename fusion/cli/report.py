"""fusion report: one page that shows what runs found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Results of bench and prune (--json FILE), or folders of them; same questions.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    table: Annotated[
        Path | None, typer.Option(help="The table the runs were made from, when it is no longer where it was.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The table they were evaluated on, likewise, when that is another one.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page (default: the table's name).")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write static figures to as well, as PNG and PDF.")
    ] = None,
) -> None:
    """Write one self-contained HTML page with what the runs found; it opens from disk."""
    from fusion.cli._show import working
    from fusion.data import read_table
    from fusion.errors import UsageError
    from fusion.files import check_writable, write_text
    from fusion.reports.build import build_report, read_runs
    from fusion.reports.html import render

    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out} would be an HTML page under another name; end it with .html")
    check_writable(out)
    if figures and figures.exists() and not figures.is_dir():
        raise UsageError(f"--figures {figures} is a file; give the name of a folder")
    with working("reading the runs"):
        given = {"table": read_table(table) if table else None, "test": read_table(test) if test else None}
        data = build_report(read_runs(runs), **given, title=title)
        write_text(out, render(data))
    typer.echo(f"wrote {out}")
    if figures:
        from fusion.reports.figures import write_figures

        with working("drawing figures"):
            written = write_figures(data, figures)
        typer.echo(f"wrote {len(written)} files to {figures}")
