"""fusion ask: one question to an ensemble, now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fusion.answer import Answer, Member, Step
    from fusion.ensemble import Ensemble


def ask_command(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    ensemble: Annotated[
        Path | None, typer.Option(help="Folder of a saved ensemble, such as fusion fit leaves.")
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            help="Pool file, or micro or nested: whom to ask; with --ensemble, who answers for its agents.",
            envvar="FUSION_POOL",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="With --pool alone: selector+fuser, or a fuser alone (default: vote).")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option to choose from. May be repeated.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Read the answers as this task does, such as gsm8k (default: as they are).")
    ] = None,
    quorum: Annotated[
        str, typer.Option(help="Answers that are needed: a number, or a share such as 0.5 of those asked.")
    ] = "0.5",
    deadline: Annotated[float | None, typer.Option(help="Seconds after which late agents are left out.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="USD it may cost at most.", envvar="FUSION_MAX_COST", min=0)
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Calls it may take at most; what is on record is none.", min=0)
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder of a record: nothing in it is asked again, everything new is kept.")
    ] = None,
    json: Annotated[str | None, typer.Option(help="Write the answer as JSON to this file; - prints it.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="With --pool: override a key of the file: a.b=c. May be repeated.")
    ] = None,
) -> None:
    """Ask an ensemble one question; its members answer at the same time, and the fuser settles the answer."""
    import contextlib
    import sys

    from fusion.agents import RecordStore
    from fusion.cli._show import working, write_json
    from fusion.data import load_task
    from fusion.live import Limits

    text = sys.stdin.read() if question == "-" else question
    limits = Limits(quorum=_quorum(quorum), deadline_s=deadline, max_cost=max_cost, max_calls=max_calls)
    with contextlib.ExitStack() as stack:
        members = stack.enter_context(_ensemble(ensemble, pool, system, set_ or ()))
        store = stack.enter_context(RecordStore.open(record)) if record else None
        with working("asking"):
            answer = members.answer(
                text, options=option or (), reader=load_task(task) if task else None, limits=limits, store=store
            )
    if json:
        write_json(answer.to_json(), json)
    if json != "-":
        _show(answer)


def _ensemble(folder: Path | None, pool: Path | None, system: str | None, changes: Sequence[str]) -> Ensemble:
    from fusion.agents import read_pool
    from fusion.cli._pool import find_pool
    from fusion.config import parse_overrides
    from fusion.ensemble import Ensemble
    from fusion.errors import UsageError
    from fusion.schema import System

    if folder and system:
        raise UsageError("--system goes with --pool alone; a saved ensemble has its selector and fuser")
    if changes and not pool:
        raise UsageError("--set changes keys of a pool file, and goes with --pool")
    if not folder and not pool:
        raise UsageError("give --ensemble FOLDER, --pool FILE, or both")
    asked = read_pool(find_pool(pool), overrides=parse_overrides(changes)) if pool else None
    if folder:
        ensemble = Ensemble.load(folder, pool=asked)
        silent = [agent.name for agent in ensemble.pool if agent.engine is None]
        if silent:
            raise UsageError(
                f"nobody answers for {', '.join(silent)}: the ensemble in {folder} knows recorded answers alone. Give "
                "the pool file that says who answers, --pool FILE, here or to fusion fit"
            )
        return ensemble
    assert asked is not None, "checked before"
    chosen = System.parse(system or "vote")
    return Ensemble(asked, chosen.selector, chosen.fuser)


def _quorum(text: str) -> int | float:
    from fusion.errors import UsageError

    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError as error:
        raise UsageError(f"--quorum is a number of agents, such as 3, or a share, such as 0.5; got {text!r}") from error


def _show(answer: Answer) -> None:
    from rich.table import Table

    from fusion.cli._show import make_console

    shown = Table("agent", "status", "answer", title="members", title_justify="left")
    for heading in ("tokens", "USD", "seconds"):
        shown.add_column(heading, justify="right")
    for member in answer.members:
        tokens = [count for count in (member.usage.tokens_in, member.usage.tokens_out) if count is not None]
        shown.add_row(
            member.agent,
            _how(member),
            _one_line(member.answer or "-"),
            str(sum(tokens)) if tokens else "-",
            "-" if member.cost is None else f"{member.cost:.6f}",
            f"{member.seconds:.2f}",
        )
    console = make_console()
    console.print(shown)
    _show_path(answer, console)
    answered = sum(map(len, answer.votes.values()))
    cost = "" if answer.cost is None else f", {answer.cost:.6f} USD"
    typer.echo(
        f"{answered} of {len(answer.members)} answered, {100 * answer.agreement:.0f} % of these agree, "
        f"{answer.seconds:.2f} s{cost}"
    )
    label = f"{answer.label}. " if answer.label else ""
    typer.echo(f"answer: {label}{answer.text if answer.text is not None else '(none: everybody abstained)'}")


def _show_path(answer: Answer, console: Console) -> None:
    """Print who was asked after whom and why, why nobody else was, and how disagreement was settled."""
    from rich.markup import escape
    from rich.table import Table

    *steps, last = answer.path
    if len(steps) > 1:
        shown = Table("step", "asked", "known before", "why", title="path", title_justify="left")
        for number, step in enumerate(steps, 1):
            shown.add_row(str(number), escape(", ".join(step.agents)), escape(_known(step)), escape(step.why))
        console.print(shown)
    lines = [f"asked: {step.why}" for step in steps if len(steps) == 1]
    for line in (*lines, f"stopped: {last.why}", f"settled: {last.conflict}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _known(step: Step) -> str:
    if step.leading is None:
        return f"{step.asked} asked, no answer" if step.asked else "-"
    return f"{step.answered} of {step.asked}: {100 * step.agreement:.0f} % {_one_line(step.leading, 24)}"


def _how(member: Member) -> str:
    if member.detail:
        return f"{member.status}: {member.detail[:80]}"
    return f"{member.status}, on record" if member.recorded else member.status


def _one_line(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
