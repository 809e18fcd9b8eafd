"""fusion record: ask a pool every question of a task once, and keep every answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusion.agents import Estimate
    from fusion.recording import RecordResult


def record_command(
    pool: Annotated[
        Path,
        typer.Option(help="Pool file (YAML), see fusion config schema pool; or micro or nested.", envvar="FUSION_POOL"),
    ],
    task: Annotated[str, typer.Option(help="Task, such as gsm8k or 'mmlu(num_fewshot=0)'; see fusion list tasks.")],
    out: Annotated[Path, typer.Option(help="Folder for the store, the table and the record; the same again goes on.")],
    split: Annotated[str | None, typer.Option(help="Split (default: test, or the task's last).")] = None,
    limit: Annotated[
        str | None, typer.Option(help="Which questions: a number, a share or a range, such as 100, 0.1 or 100-200.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Draws per question, for every agent (default: as the pool says).", min=1)
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder in hub layout with the data set (default: the hub).", envvar="FUSION_ROOT"),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take, ask nothing, write nothing.")] = False,
    max_cost: Annotated[
        float | None, typer.Option(help="USD that may be spent at most.", envvar="FUSION_MAX_COST", min=0)
    ] = None,
    fail_on_error: Annotated[
        float, typer.Option(help="Exit with 1 when a larger share of a member's calls failed.", min=0, max=1)
    ] = 0.02,
    executor: Annotated[
        str, typer.Option(help="Where requests are answered: here, or an executor such as ray or 'ray(workers=8)'.")
    ] = "here",
    json: Annotated[str | None, typer.Option(help="Write what happened as JSON to this file; - prints it.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of the pool file: a.b=c. May be repeated.")
    ] = None,
) -> None:
    """Ask every agent of a pool every question of a task that has no answer on record yet, and write the table."""
    import dataclasses

    from fusion import recording
    from fusion.agents import read_pool
    from fusion.cli._pool import find_pool
    from fusion.cli._show import member_progress, working, write_json
    from fusion.config import parse_overrides

    agents = read_pool(find_pool(pool), overrides=parse_overrides(set_ or ()))
    options = recording.RecordOptions(split=split, limit=limit, root=root, samples=samples, max_cost=max_cost)
    if plan:
        with working("counting"):
            estimates = recording.plan(agents, task, out, options=options)
        if json:
            write_json({"plan": [dataclasses.asdict(estimate) for estimate in estimates]}, json)
        if json != "-":
            _show_plan(estimates)
        if all(estimate.error for estimate in estimates):
            raise typer.Exit(1)
        return
    with recording.answerer(executor, agents) as elsewhere, member_progress() as told:
        options = dataclasses.replace(options, answerer=elsewhere)
        try:
            result = recording.record(agents, task, out, options=options, progress=told)
        except KeyboardInterrupt:
            typer.echo(f"stopped; what was answered is in {out}, the same command goes on from there", err=True)
            raise typer.Exit(130) from None
    if json:
        write_json(result.to_json(), json)
    if json != "-":
        _show(result, out)
    if any(member.error or member.failed_share > fail_on_error for member in result.members):
        raise typer.Exit(1)


def _show(result: RecordResult, out: Path) -> None:
    from rich.table import Table

    from fusion.cli._show import make_console
    from fusion.data import table_notes
    from fusion.recording import RECORD, TABLE

    title = f"{len(result.table)} questions x {len(result.members)} agents"
    shown = Table("agent", title=title, title_justify="left")
    for heading in ("calls", "on record", "failed %", "no answer %", "accuracy %", "tokens in", "out", "USD"):
        shown.add_column(heading, justify="right")
    for member in result.members:
        shown.add_row(
            member.agent,
            str(member.calls),
            str(member.recorded),
            f"{100 * member.failed_share:.1f}",
            f"{100 * member.unread_share:.1f}",
            _cell(None if member.accuracy is None or not member.calls else f"{100 * member.accuracy:.1f}"),
            _cell(member.tokens_in),
            _cell(member.tokens_out),
            _cell(None if member.cost is None else f"{member.cost:.4f}"),
        )
    make_console().print(shown)
    for member in result.members:
        if member.error:
            typer.echo(f"{member.agent} cannot be asked: {member.error}")
        for reason, count in member.reasons.items():
            typer.echo(f"{member.agent}: {count} x {reason}")
    for note in table_notes(result.table):
        typer.echo(f"note: {note}")
    if any(member.failed_share for member in result.members):
        typer.echo("the same command asks again what failed")
    typer.echo(f"wrote {out / TABLE} and {out / RECORD}   fingerprint {result.table.fingerprint[:16]}")


def _show_plan(estimates: Sequence[Estimate]) -> None:
    from rich.table import Table

    from fusion.cli._show import make_console

    shown = Table("agent", title="what recording would take", title_justify="left")
    for heading in ("calls", "on record", "to ask", "answers by", "tokens in", "out", "out, most", "USD", "USD, most"):
        shown.add_column(heading, justify="left" if heading == "answers by" else "right")
    shown.add_column("GiB here", justify="right")
    shown.add_column("hours, one by one", justify="right")
    for row in estimates:
        shown.add_row(
            row.agent,
            str(row.calls),
            str(row.recorded),
            str(row.calls - row.recorded),
            row.means,
            _cell(None if row.tokens_in is None else f"{'' if row.counted else '~'}{row.tokens_in}"),
            _cell(row.tokens_out),
            _cell(row.most_tokens_out),
            _cell(None if row.cost is None else f"{row.cost:.4f}"),
            _cell(None if row.most_cost is None else f"{row.most_cost:.4f}"),
            _cell(None if row.memory is None else f"{row.memory / 2**30:.2f}"),
            _cell(None if row.seconds is None else f"{row.seconds / 3600:.2f}"),
        )
    make_console().print(shown)
    for row in estimates:
        if row.where:
            typer.echo(f"{row.agent}: {row.where}")
    for row in estimates:
        if row.error:
            typer.echo(f"{row.agent} cannot be asked: {row.error}")
    typer.echo("- means unknown: prices come from the pool file, tokens out and time from answers on record")


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
