"""fusion list: what there is to choose from."""

from typing import Annotated

import typer

KINDS = ("systems", "engines", "selectors", "fusers", "tasks", "extractors", "formats", "executors", "objectives")


def list_command(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}; all by default.")] = "all",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List engines, selectors, fusers, tasks, extractors, formats, executors and terms of objectives, a line each."""
    from json import dumps

    from rich.table import Table

    from fusion.cli._show import make_console
    from fusion.errors import UnknownName

    if kind not in (*KINDS, "all"):
        raise UnknownName(kind="kind of thing", name=kind, known=KINDS)
    found = {name: _described(name) for name in (KINDS[1:] if kind in ("all", "systems") else (kind,))}
    if kind == "systems":
        found = {name: found[name] for name in ("selectors", "fusers")}
    if json:
        typer.echo(dumps(found, indent=1))
        return
    for name, entries in found.items():
        table = Table(title=name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for entry, summary in entries.items():
            table.add_row(entry, summary)
        make_console().print(table)
        typer.echo()


def _described(kind: str) -> dict[str, str]:
    from fusion.data import EXTRACTORS, FORMATS
    from fusion.discovery import names

    if kind == "formats":
        return {name: entry.summary for name, entry in FORMATS.items()}
    if kind == "extractors":
        return {name: _first_line(entry) for name, entry in EXTRACTORS.items()}
    if kind == "objectives":
        from fusion.selectors import TERMS

        return {name: term.says for name, term in TERMS.items()}
    package = {"tasks": "data", "engines": "agents"}.get(kind, kind)
    return {name: _summary(package, name) for name in names(package)}


def _summary(package: str, name: str) -> str:
    """Return a line on a method; of a broken plug-in what is wrong with it, so that the others are still listed."""
    from fusion.discovery import summary
    from fusion.errors import FusionError

    try:
        return summary(package, name)
    except FusionError as error:
        return f"cannot be used: {error}"


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
