"""fusion demo: the whole study, asked live of the small models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fusion.evaluation import BenchResult

MICRO_QUESTIONS = 2000
"""Of the task's split test, unless it is told otherwise."""
SYSTEMS = "all_agents+vote, all_agents+weighted_vote, top_k(k=3)+weighted_vote"


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the answers, the table and the result (default: fusion-demo, and what is asked)."
        ),
    ] = None,
    questions: Annotated[int, typer.Option(help="Questions.", min=20, max=1_000_000)] = 2000,
    seed: Annotated[
        int, typer.Option(help="Of the study; of the generated world, too.", envvar="FUSION_SEED", min=0)
    ] = 0,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Which pool of the package: micro, or nested, where nothing is to be gained (default: micro)."
        ),
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Ask nobody: take a generated table. Needs no torch.")
    ] = False,
) -> None:
    """Ask a pool of small models, keep their answers, and study members, ensembles, baselines of equal cost, oracle."""
    from fusion.cli._show import show_bench
    from fusion.errors import UsageError

    if simulated and pool:
        raise UsageError("--simulated asks nobody, so --pool has no meaning beside it; leave one of them out")
    pool = pool or "micro"
    kind = "simulated" if simulated else pool
    out = out or Path("fusion-demo" if kind == "micro" else f"fusion-demo-{kind}")
    result = _on_simulated(out, questions, seed) if simulated else _live(out, pool, questions, seed)
    result.save(out / "run.json")
    show_bench(result)
    table = out / "table.parquet"
    typer.echo(f"\nresults: {out / 'run.json'}   answers: {table}")
    typer.echo(f"next:    fusion bench {table} --systems 'top_k(k=5)+weighted_vote'")
    if not simulated:
        example = '"Which word does not belong?" --option cat --option lemon --option dog --option cow'
        typer.echo(f"         fusion ask {example} --pool {pool} --record {out}")


def _live(out: Path, pool: str, questions: int, seed: int) -> BenchResult:
    from fusion.agents import read_pool
    from fusion.cli._show import member_progress, progress_bar
    from fusion.demo import POOLS, pool_file
    from fusion.errors import FusionError
    from fusion.evaluation import BenchOptions, bench
    from fusion.recording import RecordOptions, record

    agents = read_pool(pool_file(pool))
    task = "micro" if questions <= MICRO_QUESTIONS else f"micro(test_size={questions})"
    typer.echo(f"Pool {pool}: {POOLS[pool]}. {len(agents)} models answer {questions} questions of the task micro;")
    typer.echo("they are tiny, trained for this, and say nothing about large models. The study is the same.\n")
    options = RecordOptions(split="test", limit=str(questions))
    try:
        with member_progress() as told:
            result = record(agents, task, out, options=options, progress=told)
    except KeyboardInterrupt:
        typer.echo(f"stopped; what was answered is in {out}, the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    if trouble := next((member.error for member in result.members if member.error), ""):
        raise FusionError(f"{trouble}; or see the study on a generated table: fusion demo --simulated")
    asked = sum(member.calls - member.recorded for member in result.members)
    recorded = sum(member.recorded for member in result.members)
    if asked:
        typer.echo(f"asked {asked} questions live{f', {recorded} were on record' if recorded else ''}\n")
    else:
        typer.echo(f"all {recorded} answers were on record in {out}: nobody was asked, the record is replayed\n")
    prices = {agent.name: (agent.input_price or 0.0, agent.output_price or 0.0) for agent in agents}
    with progress_bar() as told_step:
        return bench(result.table, SYSTEMS, options=BenchOptions(seed=seed, prices=prices), progress=told_step)


def _on_simulated(out: Path, questions: int, seed: int) -> BenchResult:
    from fusion.cli._show import progress_bar
    from fusion.data import write_table
    from fusion.demo import PRICES, simulated_table
    from fusion.evaluation import BenchOptions, bench
    from fusion.files import check_writable

    typer.echo("Simulated agents answer generated questions: no language model is asked.\n")
    for name in ("table.parquet", "run.json"):
        check_writable(out / name)
    table = simulated_table(questions, seed=seed)
    write_table(table, out / "table.parquet")
    with progress_bar() as told:
        return bench(table, options=BenchOptions(seed=seed, prices=PRICES), progress=told)
