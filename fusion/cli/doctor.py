"""fusion doctor: examine a pool before it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fusion.agents import Diagnosis

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim", "ok": "green"}


def doctor_command(
    pool: Annotated[Path, typer.Argument(help="Pool file (YAML), or micro or nested.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    network: Annotated[
        bool,
        typer.Option(
            "--network/--no-network", help="Ask the engines, which may look for servers and models elsewhere."
        ),
    ] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the examination of one agent.")] = 20.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of the pool file: a.b=c. May be repeated.")
    ] = None,
) -> None:
    """Find out what would go wrong with a pool: missing keys, models, servers, memory; agents that are twins."""
    from fusion.agents import examine_pool, read_pool
    from fusion.cli._pool import find_pool
    from fusion.cli._show import make_console, working, write_json
    from fusion.config import parse_overrides

    agents = read_pool(find_pool(pool), overrides=parse_overrides(set_ or ()))
    with working(f"examining {len(agents)} agents"):
        found = examine_pool(agents, timeout_s=timeout, network=network)
    if json:
        write_json({"pool": str(pool), "network": network, **found.to_json()}, "-")
    else:
        console = make_console()
        console.print(_table(found))
        if not network:
            typer.echo("engines were not asked (--no-network): servers, models and memory are unchecked")
        typer.echo(
            f"{_count(len(agents), 'agent')}: {_count(found.errors, 'error')}, {_count(found.warnings, 'warning')}"
        )
    if found.errors:
        raise typer.Exit(1)


def _table(found: Diagnosis) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("agent", "level", "what", "remedy", box=None, padding=(0, 2, 0, 0))
    troubled = {agent for agent, _ in found.findings}
    rows: list[tuple[str, str, str, str]] = [(agent, *finding) for agent, finding in found.findings if agent]
    rows += [(agent, "ok", "", "") for agent in found.agents if agent not in troubled]
    rows.sort(key=lambda row: found.agents.index(row[0]))
    rows += [("(the pool)", *finding) for agent, finding in found.findings if not agent]
    for agent, level, what, remedy in rows:
        # As Text, because names and messages may hold what rich takes for markup.
        table.add_row(Text(agent), Text(level, style=STYLES[level]), Text(what), Text(remedy))
    return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
