"""fusion stream: a system on a stream of questions, each block predicted with what earlier ones taught."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from fusion.cli._options import JsonFile

if TYPE_CHECKING:
    from rich.table import Table

    from fusion.evaluation import BlockResult, PrequentialResult, StreamScore

MOST_ROWS = 20
"""Blocks that are printed at most; where there are more, some that follow each other make one row."""

MOST_NAMES = 4
"""Agents that share the lead and are named."""

DIFFERENCE = (
    "fusion bench is the other kind of evaluation: there a system is fitted once, frozen, and evaluated on questions "
    "held out at random. Here it goes on learning, questions come in an order, and agents may change: each "
    "is tested for a fall of its accuracy, and what the system did about it is said. Do not mix figures of the two."
)
SYSTEM_HELP = "selector+fuser, such as 'top_k(k=3)+weighted_vote'."
FAULT_HELP = (
    "Make an agent fail from a place in the stream on: agent@question, or agent@question:kind, with kind wrong (the "
    "default: an option that is not right), random or abstain. May be repeated."
)


def stream_command(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help=SYSTEM_HELP)],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Labelled table: Parquet or wide CSV.")],
    block: Annotated[int, typer.Option(help="Questions predicted between two fits.")] = 200,
    warm_up: Annotated[int, typer.Option(help="Labelled questions before the first prediction.")] = 500,
    window: Annotated[int, typer.Option(help="Latest questions that are fitted on; 0 for all so far.")] = 2000,
    order: Annotated[str, typer.Option(help="table: the rows as they are; or shuffled.")] = "table",
    seed: Annotated[int, typer.Option(help="Of the order, faults and bootstrap.", envvar="FUSION_SEED")] = 0,
    delay: Annotated[int, typer.Option(help="Questions that go by before a label is known.")] = 0,
    reset_on_drift: Annotated[
        bool,
        typer.Option("--reset-on-drift/--keep-window", help="After an alarm fit only on questions since the fall."),
    ] = True,
    inject_fault: Annotated[list[str] | None, typer.Option(help=FAULT_HELP)] = None,
    json: JsonFile = None,
) -> None:
    """Predict a stream of questions block by block, learning each block's labels before the next (prequential)."""
    from fusion.cli._show import progress_bar, show_result
    from fusion.evaluation import Fault, PrequentialOptions, prequential
    from fusion.files import check_writable
    from fusion.schema import System

    chosen = System.parse(system)
    options = PrequentialOptions(
        block=block,
        warm_up=warm_up,
        window=window,
        order=cast("Literal['table', 'shuffled']", order),
        seed=seed,
        delay=delay,
        reset_on_drift=reset_on_drift,
        faults=tuple(Fault.parse(text) for text in inject_fault or ()),
    )
    if json and json != "-":
        check_writable(json)
    with progress_bar() as told:
        told(f"reading {table.name}", 0, 0)
        result = prequential(table, chosen, options=options, told=told)
    show_result(result, _show, json)


def _show(result: PrequentialResult) -> None:
    """Print the blocks, the whole, alarms, notes and the verdict."""
    from fusion.cli._show import make_console

    console = make_console()
    console.print(_table(result))
    console.print()
    lines = [f"alarm: {alarm.sentence()}" for alarm in result.alarms] or [_NO_ALARM]
    lines += [f"note: {note}" for note in result.notes]
    for line in (*lines, f"verdict: {result.verdict}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


_NO_ALARM = "no alarm: no agent is seen to have become worse"


def _table(result: PrequentialResult) -> Table:
    """Return a row a block, and one for all questions."""
    from rich import box
    from rich.table import Table

    from fusion.evaluation import merged_blocks

    rows = merged_blocks(result.blocks, most=MOST_ROWS)
    table = Table(
        title=f"{result.system}: {result.n} questions after {result.n_warm_up}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
        pad_edge=False,
    )
    weighed = rows[-1].weight_shares is not None and all(len(set(row.call_shares)) == 1 for row in rows)
    table.add_column("questions", f"{result.n_warm_up}-{result.n_warm_up + result.n - 1}", justify="right")
    table.add_column("fitted on", justify="right")
    table.add_column("right %", _percent(result.whole), justify="right", style="bold", footer_style="bold")
    table.add_column("95 % CI", _interval(result.whole), justify="right")
    table.add_column("frozen %", _percent(result.frozen), justify="right")
    table.add_column("vote of\nall %", _percent(result.plurality), justify="right")
    table.add_column("so far %", justify="right")
    table.add_column("calls", f"{result.whole.calls_per_question:.2f}", justify="right")
    table.add_column("most weight" if weighed else "most calls", overflow="fold")
    table.add_column("fell", overflow="fold")
    for row in rows:
        last = row.start + row.n - 1
        fell = [alarm.agent for alarm in result.alarms if row.start < alarm.question <= row.start + row.n]
        table.add_row(
            f"{row.start}-{last}",
            str(row.n_fit),
            _percent(row.system),
            _interval(row.system),
            _percent(row.frozen),
            _percent(row.plurality),
            "" if row.cumulative is None else f"{100 * row.cumulative:.1f}",
            f"{row.system.calls_per_question:.2f}",
            _leader(result.agents, row, weighed=weighed),
            ", ".join(fell),
        )
    return table


def _leader(agents: tuple[str, ...], row: BlockResult, *, weighed: bool) -> str:
    """Return who counted for most in a block, with the share that each of them had."""
    shares = row.weight_shares if weighed and row.weight_shares is not None else row.call_shares
    known = [(share, agent) for share, agent in zip(shares, agents, strict=True) if share is not None]
    if not known or len({share for share, _ in known}) == 1 < len(known):
        return "all alike" if known else ""
    most = max(share for share, _ in known)
    first = [agent for share, agent in known if share == most]
    named = ", ".join(first) if len(first) <= MOST_NAMES else f"{len(first)} agents"
    return f"{named} {100 * most:.0f} %"


def _percent(score: StreamScore) -> str:
    return "" if score.accuracy is None else f"{100 * score.accuracy:.1f}"


def _interval(score: StreamScore) -> str:
    return "" if score.ci95 is None else f"{100 * score.ci95[0]:.1f} to {100 * score.ci95[1]:.1f}"
