"""Options that several verbs take, in the same words."""

from pathlib import Path
from typing import Annotated

import typer

JsonFile = Annotated[str | None, typer.Option(help="Write the result as JSON to this file; - prints it instead.")]
PricesFile = Annotated[
    Path | None,
    typer.Option(help="YAML with prices: {AGENT: {input: USD, output: USD}}, per million tokens."),
]
Stratify = Annotated[str | None, typer.Option(help="category or none (default: category).")]
