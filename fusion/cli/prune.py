"""fusion prune: the best small sub-ensembles of a record, measured on other questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion.cli._options import JsonFile, PricesFile, Stratify

if TYPE_CHECKING:
    from fusion.pruning import JobsResult

OBJECTIVE_HELP = (
    "What makes a sub-ensemble good: a weighted sum of terms (default: focal=0.5,accuracy=0.5). "
    "fusion list objectives names the terms."
)
FUSER_HELP = (
    "Fuser that will settle the answers, such as weighted_vote: the best --candidates by objective are compared by "
    "its cross-validated accuracy. Without it, the plurality vote."
)

EVIDENCE_HELP = (
    "Gather evidence beside the best: does it stay the best on resampled questions, what is each member worth, whom to "
    "add, how far the choice flatters itself. Takes some seconds."
)


def prune_command(
    table: Annotated[Path | None, typer.Argument(help="Labelled table: Parquet or wide CSV.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Numbers of members: 3, 2-5 or 2,4-6 (default: 2-5).")] = None,
    objective: Annotated[str | None, typer.Option(help=OBJECTIVE_HELP, envvar="FUSION_OBJECTIVE")] = None,
    top: Annotated[int | None, typer.Option(help="How many to show (default: 10).")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="USD that a question may cost at most; needs --prices.")
    ] = None,
    max_latency: Annotated[float | None, typer.Option(help="Seconds that a question may take at most.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Agent of every sub-ensemble. May be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Agent of none. May be repeated.")] = None,
    fuser: Annotated[str | None, typer.Option(help=FUSER_HELP)] = None,
    candidates: Annotated[int | None, typer.Option(help="How many to compare by --fuser (default: 200).")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Table to evaluate on; then all of TABLE is chosen on. Same agents, other ids.")
    ] = None,
    fit_fraction: Annotated[
        float | None,
        typer.Option(help="Share of the questions to choose on (default: 0.7).", envvar="FUSION_FIT_FRACTION"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split, the folds and the search (default: 0).", envvar="FUSION_SEED")
    ] = None,
    stratify: Stratify = None,
    search: Annotated[
        str | None, typer.Option(help="auto, exhaustive, beam, genetic, beam+genetic or random (default: auto).")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Sub-ensembles that auto scores all of, or random draws (default: 20 million; 100,000)."),
    ] = None,
    evidence: Annotated[bool, typer.Option("--evidence", help=EVIDENCE_HELP)] = False,
    resamples: Annotated[
        int | None, typer.Option(help="Searches on resampled questions, for --evidence (default: 100).")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where to search: here, or an executor such as ray or 'ray(workers=8)'.")
    ] = "here",
    prices: PricesFile = None,
    json: JsonFile = None,
    config: Annotated[Path | None, typer.Option(help="YAML with all of this; options given here win.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of --config or --jobs: a.b=c. May be repeated.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="YAML with many prunings, each done unless its result is there.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results of --jobs (default: beside FILE, named like it).")
    ] = None,
) -> None:
    """Find the sub-ensembles whose members fail on different questions, and measure them on other questions."""
    from fusion.cli._show import progress_bar, show_pruning, show_result
    from fusion.config import choose_config, read_config
    from fusion.errors import UsageError
    from fusion.evaluation import Prices
    from fusion.executors import open_executor
    from fusion.files import check_writable
    from fusion.pruning import PruneConfig, prune

    given = {
        "table": table and str(table),
        "test": test and str(test),
        "sizes": sizes,
        "objective": objective,
        "top": top,
        "max_cost": max_cost,
        "max_latency": max_latency,
        "include": include,
        "exclude": exclude,
        "fuser": fuser,
        "candidates": candidates,
        "fit_fraction": fit_fraction,
        "seed": seed,
        "stratify": stratify,
        "search": search,
        "budget": budget,
        "evidence": evidence or None,
        "resamples": resamples,
        "prices": read_config(prices, Prices).model_dump()["prices"] if prices else None,
    }
    if json and json != "-":
        check_writable(json)
    if jobs:
        _many(jobs, out, {**given, "config": config}, set_ or (), executor, json)
        return
    if out:
        raise UsageError("--out is for the results of --jobs; write this one with --json FILE")
    chosen = choose_config(PruneConfig, config, given, sets=set_ or (), verb="prune")
    with open_executor(executor) as workers, progress_bar() as told:
        result = prune(chosen.table, test=chosen.test, options=chosen.options(), executor=workers, progress=told)
    show_result(result, show_pruning, json)
    if not result.complete:
        raise typer.Exit(130)


def _many(
    file: Path, out: Path | None, given: Mapping[str, object], pairs: Sequence[str], executor: str, json: str | None
) -> None:
    """Do the prunings of a file, and show what became of each."""
    from fusion.cli._show import progress_bar, show_result
    from fusion.config import parse_overrides
    from fusion.errors import UsageError
    from fusion.executors import open_executor
    from fusion.pruning import run_jobs

    both = [name for name, value in given.items() if value is not None]
    if both:
        raise UsageError(
            f"--jobs takes everything from {file}, and {both[0]} is given beside it (as an option, or in the "
            f"environment); write it in the file, or override a key there: --set defaults.{both[0]}=..."
        )
    overrides = parse_overrides(pairs)
    with open_executor(executor) as workers, progress_bar() as told:
        result = run_jobs(file, out, overrides=overrides, executor=workers, progress=told)
    show_result(result, _show_jobs, json)
    for job in result.having("failed"):
        typer.echo(f"{job.name} failed: {job.reason}", err=True)
    if not result.complete:
        left = len(result.having("waiting"))
        typer.echo(
            f"stopped with {left} of {len(result.jobs)} jobs to do; what is done is in {result.folder}, the same "
            "command goes on from there",
            err=True,
        )
        raise typer.Exit(130)
    if result.having("failed"):
        raise typer.Exit(1)


def _show_jobs(result: JobsResult) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fusion.cli._show import make_console
    from fusion.evaluation import points

    shown = Table(box=box.SIMPLE_HEAD, title="The best of each job, on other questions", title_justify="left")
    for heading in ("job", "result", "best sub-ensemble"):
        shown.add_column(heading, overflow="fold")
    for heading in ("%", "95 % CI", "against best\nsingle, points", "95 % CI"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for job in result.jobs:
        cells: list[str] = []
        if (found := job.found) is not None:
            low, high = found.test_ci95
            cells = [
                ", ".join(found.agents),
                f"{100 * found.test_accuracy:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
            ]
        if found is not None and found.paired is not None:
            cells += [points(found.paired.difference), " to ".join(map(points, found.paired.ci95))]
        shown.add_row(*map(Text, (job.name, job.status, *cells)))
    make_console().print(shown)
    for job in result.having("replaced"):
        typer.echo(f"{job.name} was made anew: {job.reason}")
    counts = {status: len(result.having(status)) for status in ("made", "replaced", "reused", "failed", "waiting")}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    typer.echo(f"{len(result.jobs)} jobs: {told}; results in {result.folder}")
