"""What several verbs print: the tables of an evaluation, JSON, progress."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import TaskID

    from fusion.agents import Progress
    from fusion.evaluation import BenchResult
    from fusion.explanation import Explanation
    from fusion.pruning import PruneResult
    from fusion.schema import Json

LINE_SECONDS = 30.0
"""How often progress is told where there is no terminal to draw on."""

SLOW_SECONDS = 2.0
"""Work that takes longer shows a progress bar."""


def make_console() -> Console:
    """Return a console on standard output; in a pipe or file it is wide enough not to cut names off."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def show_bench(result: BenchResult) -> None:
    """Print members, systems, what policies do, comparisons, notes and the verdict."""
    from fusion.reports.tables import bench_tables

    console = make_console()
    for table in bench_tables(result):
        console.print(table)
        console.print()
    _show_end(result.notes, result.verdict)


class Result(Protocol):
    """What a verb found."""

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON values."""
        ...


_Result = TypeVar("_Result", bound=Result)


def show_result(result: _Result, show: Callable[[_Result], None], json: str | None) -> None:
    """Print a result, and write it as JSON: to a file, or for "-" alone to standard output.

    The file is written first: who reads what is printed may go away.
    """
    if json:
        write_json(result.to_json(), json)
    if json != "-":
        show(result)
        if json:
            sys.stdout.write(f"wrote {json}\n")


def show_pruning(result: PruneResult) -> None:
    """Print the best sub-ensembles, what they are compared with, notes and the verdict."""
    from fusion.reports.tables import evidence_sentences, prune_tables

    console = make_console()
    for table in prune_tables(result):
        console.print(table)
        console.print()
    said = () if result.evidence is None else (*evidence_sentences(result.evidence), *result.evidence.notes)
    _show_end((*result.notes, *said), result.verdict)


def show_fit(found: Mapping[str, Json], notes: Iterable[str], out: Path) -> None:
    """Print what was fitted, on what, and how it does there."""
    from fusion.reports.tables import fit_sentence

    console = make_console()
    for line in (fit_sentence(found), *(f"note: {note}" for note in notes), f"wrote {out}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_explanation(found: Explanation) -> None:
    """Print the question, who said what, what every option got, the decision and what decided."""
    from fusion.reports.tables import explanation_lines, explanation_tables

    console = make_console()
    head, tail = explanation_lines(found)
    for line in head:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()
    for table in explanation_tables(found):
        console.print(table)
        console.print()
    for line in tail:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_end(notes: Iterable[str], verdict: str) -> None:
    console = make_console()
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    clauses = verdict.replace("; ", ";\n         ")
    console.print(f"verdict: {clauses}", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that work of unknown length goes on."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def check_table_path(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write a table over what it is made from, or under a name that says it is something else.

    Raises:
        UsageError: When `out` is one of the inputs, or its name ends like that of a CSV file.
        OutputError: When nothing can be written there.
    """
    from fusion.errors import UsageError
    from fusion.files import check_writable

    if any(out.resolve() == path.resolve() for path in inputs):
        raise UsageError(f"--out {out} is the file that is read; give the table another name, such as table.parquet")
    if {".csv", ".tsv", ".gz", ".json", ".jsonl"} & set(out.suffixes):
        raise UsageError(f"--out {out} would be a Parquet file under another name; end it with .parquet")
    check_writable(out)


def write_json(value: dict[str, Json], path: str) -> None:
    """Write JSON to the file `path`, or to standard output for "-"."""
    from fusion.files import write_text

    text = json.dumps(value, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (step, done, total) that shows a bar on standard error once work takes over two seconds.

    A total of 0 says that it is not known. Where standard error is no terminal, a line is written every half minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"))
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("starting", total=None, counts="")
    # By the clock, not by the next step: the first may be the long one.
    timer = threading.Timer(SLOW_SECONDS, bar.start)
    timer.daemon = True
    told_at = time.monotonic()

    def told(step: str, done: int, total: int) -> None:
        nonlocal told_at
        if not console.is_terminal and time.monotonic() - told_at > LINE_SECONDS:
            told_at = time.monotonic()
            sys.stderr.write(f"{step}{f': {done} of {total}' if total else ''}\n")
        counts = f"{done}/{total}" if total else str(done or "")
        bar.update(task, description=step[:48], completed=done, total=total or None, counts=counts)

    if console.is_terminal:
        timer.start()
    try:
        yield told
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def member_progress() -> Iterator[Progress]:
    """Yield what shows a bar per member on standard error, with failures and time left.

    Where standard error is no terminal, a line per member is written every half minute and at its end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Bars(*columns, TextColumn("{task.fields[failed]}"), console=console, transient=True)
    rows: dict[str, TaskID] = {}
    told_at: dict[str, float] = {}

    def told(agent: str, *, done: int, total: int, failed: int) -> None:
        lost = f"{failed} failed" if failed else ""
        if console.is_terminal:
            if agent not in rows:
                rows[agent] = bars.add_task(agent[:32], total=total, completed=done, failed=lost)
            bars.update(rows[agent], completed=done, total=total, failed=lost)
            return
        now = time.monotonic()
        if done == total or now - told_at.setdefault(agent, now) > LINE_SECONDS:
            told_at[agent] = now
            sys.stderr.write(f"{agent}: {done} of {total}{', ' if lost else ''}{lost}\n")

    with bars if console.is_terminal else contextlib.nullcontext():
        yield told
