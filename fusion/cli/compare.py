"""fusion compare: two runs on the questions they share."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from fusion.cli._options import JsonFile


def compare_command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN", help="JSON of fusion bench, or a folder with one.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN", help="The other; may be the same file.")],
    system_a: Annotated[
        str | None, typer.Option(help="System of the first run (default: the first one asked for).")
    ] = None,
    system_b: Annotated[str | None, typer.Option(help="System of the second run (default: likewise).")] = None,
    cluster: Annotated[str, typer.Option(help="category or none.")] = "none",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", envvar="FUSION_SEED", min=0)] = 0,
    json: JsonFile = None,
) -> None:
    """Compare two systems of recorded runs, question by question, with paired statistics."""
    from fusion.cli._show import make_console, write_json
    from fusion.errors import UsageError
    from fusion.evaluation import BenchOptions, compare, read_run
    from fusion.reports.tables import compare_table

    if cluster not in ("none", "category"):
        raise UsageError(f"--cluster must be category or none, got {cluster!r}")
    if run_a == run_b and system_a == system_b:
        raise UsageError(
            "both are the same run, and of each its first system is taken; name two systems of it with --system-a and "
            "--system-b (its table lists them)"
        )
    options = BenchOptions(seed=seed, cluster=cast("Literal['none', 'category']", cluster))
    result = compare(read_run(run_a), read_run(run_b), system_a=system_a, system_b=system_b, options=options)
    if json != "-":
        make_console().print(compare_table(result))
        if result.only_in_a or result.only_in_b:
            typer.echo(
                f"note: compared on the {result.n} questions of both runs; {result.only_in_a} are only in the first, "
                f"{result.only_in_b} only in the second"
            )
        typer.echo(f"verdict: {result.verdict}")
    if json:
        write_json(result.to_json(), json)
