"""fusion store: look into a record store, check it, move answers between stores, and clear it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusion.agents import RecordStore, Swept, Tally
    from fusion.schema import Json

app = typer.Typer(help="Look into a record store, check it, export, import, clear it out.", no_args_is_help=True)

_Store = Annotated[
    Path, typer.Argument(help="Folder that was recorded into, or the answers.sqlite in it.", metavar="STORE")
]
_LISTED = 20


@app.command("ls")
def list_store(
    store: _Store,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what is recorded: answers of every agent to every task by how they ended, tokens, and when."""
    from json import dumps

    with _reading(store) as opened:
        tallies = opened.summary()
        if json:
            typer.echo(dumps({"file": str(opened.file), "agents": _by_agent(tallies)}, indent=1))
        else:
            _show(opened, tallies)


@app.command("verify")
def verify(store: _Store) -> None:
    """Check the file, every answer and every key; exits with 1 and a list of problems when something is damaged."""
    from fusion.agents import verify_store
    from fusion.cli._show import progress_bar

    with _reading(store) as opened:
        with progress_bar() as tell:
            problems = verify_store(opened, progress=tell)
        count = 0 if problems else len(opened)
    for problem in problems[:_LISTED]:
        typer.echo(str(problem))
    if problems:
        more = f"and {len(problems) - _LISTED} more; " if len(problems) > _LISTED else ""
        typer.echo(
            f"{more}{len(problems)} problem{'s' if len(problems) > 1 else ''} in {opened.file}; fusion store gc "
            "--damaged drops the answers that are named, so that they are asked again"
        )
        raise typer.Exit(1)
    typer.echo(f"{opened.file} is whole: {count} answers")


@app.command("export")
def export(
    store: _Store,
    out: Annotated[Path, typer.Option(help="File to write (Parquet).", metavar="FILE.parquet")],
) -> None:
    """Write everything in a store to one Parquet file, for another machine or another tool."""
    from fusion.agents import export_store
    from fusion.cli._show import check_table_path, progress_bar

    with _reading(store) as opened, progress_bar() as tell:
        check_table_path(out, [opened.file])
        count = export_store(opened, out, progress=tell)
    typer.echo(f"wrote {out}   {count} answers, {_size(out.stat().st_size)}")


@app.command("import")
def import_files(
    store: _Store,
    files: Annotated[list[Path], typer.Argument(help="Files of fusion store export.", metavar="FILE...")],
) -> None:
    """Add the answers in exported files to a store, which is made when it is missing; checks all before it adds any."""
    from fusion.agents import RecordStore, check_export, import_store
    from fusion.cli._show import progress_bar

    with progress_bar() as tell:
        # Before the store is made: nothing is left behind when a file is bad.
        exports = [check_export(file, progress=tell) for file in files]
        with RecordStore.open(store) as opened:
            merged = import_store(opened, *exports, progress=tell)
            total = len(opened)
    typer.echo(
        f"{opened.file}: {merged.added} answers added, {merged.replaced} that were not final replaced, {merged.same} "
        f"were there; it holds {total}"
    )
    for agent, question in merged.examples[:_LISTED]:
        typer.echo(f"conflict: agent {agent!r}, question {question!r}: the store's own answer is kept")
    if merged.conflicts:
        typer.echo(
            f"note: {merged.conflicts} imported answers differ from final ones of the store, which keeps its own"
        )


@app.command("gc")
def gc(
    store: _Store,
    agent: Annotated[
        list[str] | None, typer.Option(help="Also drop all answers of this agent. May be repeated.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Also drop all answers of other agents than this. May be repeated.")
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Also drop the answers that verify finds damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Drop nothing, say what would go.")] = False,
) -> None:
    """Drop answers that are not final (they are asked again anyway) and prompts without answers; shrink the file."""
    from fusion.agents import RecordStore, damaged_rows, gc_store, verify_store
    from fusion.cli._show import progress_bar, working

    with RecordStore.open(store, create=False, readonly=dry_run) as opened:
        rows: list[int] = []
        if damaged:
            with progress_bar() as tell:
                rows = damaged_rows(verify_store(opened, progress=tell))
        with working("clearing out"):
            swept = gc_store(opened, agents=agent or (), keep=keep, damaged=rows, dry_run=dry_run)
        _show_swept(swept, opened, dry_run=dry_run)


def _reading(path: Path) -> RecordStore:
    from fusion.agents import RecordStore

    return RecordStore.open(path, create=False, readonly=True)


def _by_agent(tallies: Iterable[Tally]) -> list[dict[str, Json]]:
    """Return an object per agent and task."""
    groups: dict[tuple[str, str], list[Tally]] = {}
    for tally in tallies:
        groups.setdefault((tally.agent, tally.task), []).append(tally)
    return [
        {
            "agent": agent,
            "task": task,
            "answers": sum(tally.answers for tally in group),
            "statuses": {tally.status: tally.answers for tally in group},
            "tokens_in": sum(tally.tokens_in for tally in group),
            "tokens_out": sum(tally.tokens_out for tally in group),
            "seconds": sum(tally.seconds for tally in group),
            "first": min(tally.first for tally in group),
            "last": max(tally.last for tally in group),
        }
        for (agent, task), group in groups.items()
    ]


def _show(store: RecordStore, tallies: list[Tally]) -> None:
    from rich.table import Table
    from rich.text import Text

    from fusion.cli._show import make_console
    from fusion.schema import FINAL

    statuses = list(dict.fromkeys(tally.status for tally in tallies))
    # Final ones first, as they are what counts.
    statuses.sort(key=lambda status: (status not in FINAL, status))
    shown = Table("agent", "task", title=f"{len(store)} answers in {store.file}", title_justify="left")
    for heading in (*statuses, "tokens in", "tokens out"):
        shown.add_column(heading, justify="right")
    shown.add_column("first recorded, UTC")
    shown.add_column("last")
    for row in _by_agent(tallies):
        counts = row["statuses"]
        assert isinstance(counts, dict)
        cells = [str(row[name]) for name in ("tokens_in", "tokens_out")]
        times = [str(row[name]).partition(".")[0].replace("T", " ") for name in ("first", "last")]
        names = [Text(_printable(str(row[name]))) for name in ("agent", "task")]
        shown.add_row(*names, *(str(counts.get(status, "")) for status in statuses), *cells, *times)
    make_console().print(shown)


def _show_swept(swept: Swept, store: RecordStore, *, dry_run: bool) -> None:
    total = sum(swept.answers.values())
    verb = "would drop" if dry_run else "dropped"
    for (agent, why), count in swept.answers.items():
        typer.echo(f"{verb} {count} answers of {_printable(agent) or 'unknown agents'}: {why}")
    left = len(store) - (total if dry_run else 0)
    typer.echo(
        f"{verb} {total} answers, {swept.asked} prompts and {swept.senders} settings that no answer needs; "
        f"{'about ' if dry_run else ''}{_size(swept.bytes)} smaller; {left} answers stay in {store.file}"
    )


def _size(bytes: int) -> str:
    number, unit = float(bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
