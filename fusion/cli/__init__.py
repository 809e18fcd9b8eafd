"""The `fusion` command: one verb a file.

Importing a verb's file must stay cheap, because `fusion --help` imports all of them: what a verb needs beyond
typer is imported inside its function.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from fusion._version import __version__
from fusion.cli import (
    ask,
    bench,
    compare,
    config,
    demo,
    doctor,
    explain,
    fit,
    import_records,
    listing,
    merge,
    prune,
    record,
    report,
    rescore,
    store,
    stream,
)
from fusion.errors import FusionError

app = typer.Typer(
    name="fusion",
    help="LLM ensembles: record once, prune, fuse, and compare with paired statistics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command takes --debug (or FUSION_DEBUG=1) for a traceback. Exit codes: 0 done, 1 failed, 2 usage.",
)
app.command("demo")(demo.demo)
app.command("ask")(ask.ask_command)
app.command("doctor")(doctor.doctor_command)
app.command("record")(record.record_command)
app.command("bench")(bench.bench_command)
app.command("stream", epilog=stream.DIFFERENCE)(stream.stream_command)
app.command("prune")(prune.prune_command)
app.command("compare")(compare.compare_command)
app.command("fit")(fit.fit_command)
app.command("merge")(merge.merge_command)
app.command("explain")(explain.explain_command)
app.command("report")(report.report_command)
app.command("import")(import_records.import_command)
app.command("rescore")(rescore.rescore_command)
app.command("list")(listing.list_command)
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
    log_level: str = typer.Option("warning", envvar="FUSION_LOG_LEVEL", help="debug, info, warning or error."),
) -> None:
    if log_level.upper() not in logging.getLevelNamesMapping():
        raise typer.BadParameter(f"expected debug, info, warning or error, got {log_level!r}", param_hint="--log-level")
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Servers take minutes to start; that they do is no warning, and still wants to be known.
    logging.getLogger("fusion.progress").setLevel(min(logging.INFO, logging.getLevelNamesMapping()[log_level.upper()]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 when it did what was asked, 2 for wrong usage, 1 for other failures.

    Args:
        arguments: Words after the program's name; by default those of this process.
    """
    words, debug = _normalised(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="fusion")
    except FusionError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"fusion: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        sys.stderr.write(f"fusion: cannot write the output: {error.strerror or error}\n")
        sys.exit(1)
    except Exception as error:  # the outermost frame: a user is shown a sentence, whatever went wrong
        if debug:
            raise
        sys.stderr.write(f"fusion: unexpected {type(error).__name__}: {error}; run again with --debug and report it\n")
        sys.exit(1)


def _normalised(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the words with --fit_fraction written --fit-fraction and --debug taken out, and whether it was there."""
    words: list[str] = []
    debug = os.environ.get("FUSION_DEBUG", "") not in ("", "0")
    for position, word in enumerate(arguments):
        if word == "--":
            words += arguments[position:]
            break
        if word == "--debug":
            debug = True
            continue
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        words.append(word)
    return words, debug
