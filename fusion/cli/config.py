"""fusion config: check, show and describe configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fusion.config import Config

KINDS = ("pool", "bench", "prune", "jobs", "merge")
File = Annotated[Path, typer.Argument(help="Configuration file (YAML).")]
Kind = Annotated[
    str | None,
    typer.Option(help="pool, bench, prune, jobs or merge; by default what the file's keys say: a pool has agents."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key: a.b=c. May be repeated.")]

app = typer.Typer(help="Check, show and describe configuration files.", no_args_is_help=True)


@app.command("schema")
def schema(
    kind: Annotated[
        str,
        typer.Argument(help="pool (who answers), bench or prune (their --config), jobs (prune --jobs), or merge."),
    ] = "pool",
) -> None:
    """Print the JSON Schema of a kind of configuration file, for editors."""
    import json

    from fusion.agents import pool_schema

    described = pool_schema() if _checked(kind) == "pool" else _config(kind).model_json_schema()
    typer.echo(json.dumps(described, indent=2))


@app.command("validate")
def validate(file: File, kind: Kind = None, set_: Overrides = None) -> None:
    """Check a configuration file; unknown keys and wrong values are named."""
    found = kind or _kind_of(file)
    _resolved(file, found, set_)
    typer.echo(f"{file} is a valid {found} file")


@app.command("show")
def show(file: File, kind: Kind = None, set_: Overrides = None) -> None:
    """Print a configuration with every default filled in; ${NAME} stays as it is, so that no secret is shown."""
    import yaml

    typer.echo(yaml.safe_dump(_resolved(file, kind or _kind_of(file), set_), sort_keys=False), nl=False)


def _kind_of(file: Path) -> str:
    """Return what a file describes: the kind that has most of its keys, bench where several do."""
    from fusion.agents import is_pool_file
    from fusion.config import read_keys

    if is_pool_file(file):
        return "pool"
    keys = read_keys(file)
    return max(KINDS[1:], key=lambda kind: len(keys & _config(kind).model_fields.keys()))


def _config(kind: str) -> type[Config]:
    from fusion.evaluation import BenchConfig
    from fusion.moe import MoERecipe
    from fusion.pruning import JobsConfig, PruneConfig

    known: dict[str, type[Config]] = {
        "bench": BenchConfig,
        "prune": PruneConfig,
        "jobs": JobsConfig,
        "merge": MoERecipe,
    }
    return known[kind]


def _resolved(file: Path, kind: str, pairs: list[str] | None) -> object:
    from fusion.agents import show_pool
    from fusion.config import parse_overrides, read_config
    from fusion.pruning import read_jobs

    overrides = parse_overrides(pairs or ())
    if _checked(kind) == "pool":
        return show_pool(file, overrides=overrides)
    if kind == "jobs":
        read_jobs(file, overrides=overrides)
    return read_config(file, _config(kind), overrides=overrides).model_dump(mode="json")


def _checked(kind: str) -> str:
    from fusion.errors import UnknownName

    if kind not in KINDS:
        raise UnknownName(kind="kind of configuration", name=kind, known=KINDS)
    return kind
