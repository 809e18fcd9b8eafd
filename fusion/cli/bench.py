"""fusion bench: evaluate systems on questions they were not fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion.cli._options import JsonFile, PricesFile, Stratify

if TYPE_CHECKING:
    pass

SYSTEMS_HELP = (
    "Systems, selector+fuser, separated by commas: 'all_agents+vote, top_k(k=3)+weighted_vote(weights=power)'."
)


def bench_command(
    table: Annotated[Path | None, typer.Argument(help="Table to fit on and evaluate on: Parquet or wide CSV.")] = None,
    systems: Annotated[str | None, typer.Option(help=SYSTEMS_HELP, envvar="FUSION_SYSTEMS")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Table to evaluate on; then all of TABLE is fitted on. Same agents, other ids.")
    ] = None,
    fit_fraction: Annotated[
        float | None,
        typer.Option(help="Share of the questions to fit on (default: 0.7).", envvar="FUSION_FIT_FRACTION"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split and the bootstrap (default: 0).", envvar="FUSION_SEED")
    ] = None,
    stratify: Stratify = None,
    cluster: Annotated[
        str | None, typer.Option(help="category: treat questions of a category as dependent; or none (default: none).")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Bootstrap resamples (default: 10000).")] = None,
    prices: PricesFile = None,
    abstain_at_risk: Annotated[
        float | None,
        typer.Option(help="Also evaluate answering only where at most this share of the answers is wrong, as 0.05."),
    ] = None,
    json: JsonFile = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with all of this; options given here win.", envvar="FUSION_CONFIG")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of --config: a.b=c. May be repeated.")
    ] = None,
) -> None:
    """Fit systems on one part of the questions and evaluate them on the rest, beside baselines of equal cost."""
    from fusion.cli._show import progress_bar, show_bench, show_result
    from fusion.config import choose_config, read_config
    from fusion.evaluation import BenchConfig, Prices, bench
    from fusion.files import check_writable

    given = {
        "table": table and str(table),
        "test": test and str(test),
        "systems": systems,
        "fit_fraction": fit_fraction,
        "seed": seed,
        "stratify": stratify,
        "cluster": cluster,
        "repeats": repeats,
        "prices": read_config(prices, Prices).model_dump()["prices"] if prices else None,
        "abstain_at_risk": abstain_at_risk,
    }
    chosen = choose_config(BenchConfig, config, given, sets=set_ or (), verb="bench")
    if json and json != "-":
        check_writable(json)
    with progress_bar() as told:
        told(f"reading {Path(chosen.table).name}", 0, 1)
        result = bench(chosen.table, chosen.systems, test=chosen.test, options=chosen.options(), progress=told)
    show_result(result, show_bench, json)
