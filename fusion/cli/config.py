"""fusion config: check, show and describe configuration files."""

from pathlib import Path
from typing import Annotated

import typer

KINDS = ("pool", "bench")
File = Annotated[Path, typer.Argument(help="Configuration file (YAML).")]
Kind = Annotated[
    str | None, typer.Option(help="pool or bench; by default what the file's keys say: a pool has agents.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key: a.b=c. May be repeated.")]

app = typer.Typer(help="Check, show and describe configuration files.", no_args_is_help=True)


@app.command("schema")
def schema(
    kind: Annotated[
        str, typer.Argument(help="pool (who answers), or bench (what fusion bench --config takes).")
    ] = "pool",
) -> None:
    """Print the JSON Schema of a kind of configuration file, for editors."""
    import json

    from fusion.agents import pool_schema
    from fusion.evaluation import BenchConfig

    described = pool_schema() if _checked(kind) == "pool" else BenchConfig.model_json_schema()
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
    from fusion.agents import is_pool_file

    return "pool" if is_pool_file(file) else "bench"


def _resolved(file: Path, kind: str, pairs: list[str] | None) -> object:
    from fusion.agents import show_pool
    from fusion.config import parse_overrides, read_config
    from fusion.evaluation import BenchConfig

    overrides = parse_overrides(pairs or ())
    if _checked(kind) == "pool":
        return show_pool(file, overrides=overrides)
    return read_config(file, BenchConfig, overrides=overrides).model_dump(mode="json")


def _checked(kind: str) -> str:
    from fusion.errors import UnknownName

    if kind not in KINDS:
        raise UnknownName(kind="kind of configuration", name=kind, known=KINDS)
    return kind
