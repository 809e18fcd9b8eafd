"""The command line that the benchmarks of this folder share."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pruning.tables import recorded_path

Shown = Callable[[dict[str, Any]], str]
"""From results to the Markdown tables of README.md."""


def parser(documentation: str | None, *, quick: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all have; `quick` says what --quick does."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", type=Path, metavar="FILE")
    made.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of results, and measure nothing")
    return made


def begun(options: argparse.ArgumentParser, shown: Shown) -> tuple[argparse.Namespace, Path]:
    """Return what was given, and where the recorded answers are; with --tables print those, and end."""
    given = options.parse_args()
    if given.tables:
        print(shown(json.loads(given.tables.read_text(encoding="utf-8"))))
        sys.exit()
    path = recorded_path()
    if path is None:
        sys.exit("the recorded answers mmlu_pro/predictions.csv.gz are not there; set FUSION_DATA to their folder")
    return given, path


def ended(results: dict[str, Any], given: argparse.Namespace, shown: Shown) -> None:
    """Print the tables, and write the results where they are wanted."""
    print(shown(results))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
