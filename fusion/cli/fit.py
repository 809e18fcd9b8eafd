"""fusion fit: a system that has learned from all of a table, kept in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion.cli._options import JsonFile

if TYPE_CHECKING:
    from fusion.data import PredictionTable
    from fusion.ensemble import Ensemble
    from fusion.schema import Json, Spec, System
    from fusion.training import Told

FIT_FILE = "fit.json"
FIT_FORMAT = "fusion.fit/1"
TRAINING = "training.json"
"""What a method that trains a model leaves in its folder from the start."""

DEFAULT = "all_agents+topla_weighted"
PARTNER, PARTNERS = "topla_weighted", {"marl_focal": "marl_aggregator"}
"""Fusers that settle what selectors have asked, where none is named."""
SYSTEM_HELP = "selector+fuser, such as 'top_k(k=3)+weighted_vote'; a fuser, or a selector, alone."
WHAT_HELP = "Labelled table, Parquet or wide CSV; before it, as wanted, the system: topla_summary TABLE."
POOL_HELP = "Pool file that says who answers for the agents of the table, so that fusion ask --ensemble works."
LOG_HELP = "Log how training goes for TensorBoard, in OUT/selector/tensorboard and OUT/fuser/tensorboard."
SET_HELP = "Parameter of the selector or the fuser: fuser.samples=10, selector.k=3. May be repeated."


def fit_command(
    what: Annotated[list[str], typer.Argument(metavar="[SYSTEM] TABLE", help=WHAT_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for the ensemble; one that is there already is replaced.")],
    system: Annotated[str | None, typer.Option(help=f"{SYSTEM_HELP} Default: {DEFAULT}.")] = None,
    model: Annotated[str | None, typer.Option(help="The same as --set fuser.model=...: what to train.")] = None,
    pool: Annotated[Path | None, typer.Option(help=POOL_HELP)] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help=LOG_HELP)] = False,
    json: JsonFile = None,
) -> None:
    """Fit a system on all questions of a table, and keep it for fusion ask, fusion explain and Ensemble.load."""
    from json import dumps

    from fusion.cli._show import progress_bar, show_fit, write_json
    from fusion.data import read_table, table_notes
    from fusion.files import check_writable
    from fusion.protocols import NotingFuser, is_slow
    from fusion.schema import System
    from fusion.stopwatch import Stopwatch
    from fusion.training import is_main

    watch = Stopwatch()
    named, table = _told_what(what, system)
    pairs = [*(set_ or ()), *([] if model is None else [f"fuser.model={dumps(model)}"])]
    chosen = _with_parameters(System.parse(_paired(named)), pairs)
    # Of processes that were launched together the first one writes.
    writes = is_main()
    if writes:
        _check_folder(out)
        if json and json != "-":
            check_writable(json)
    with progress_bar() as told:
        told(f"reading {table.name}", 0, 3)
        answers = read_table(table)
        labels_N = answers.require_labels()
        told(f"fitting {chosen}", 1, 3)
        ensemble = _fitted(chosen, answers, pool, out, told, tensorboard=tensorboard)
        decided_N = None
        if not is_slow(ensemble.fuser):
            told("answering what it was fitted on", 2, 3)
            decided_N = ensemble.replay(answers).decision.answers
    if not writes:
        return
    noted = ensemble.fuser.notes() if isinstance(ensemble.fuser, NotingFuser) else ()
    # Until it is written again, the note on another fit must not stand beside this ensemble.
    (out / FIT_FILE).unlink(missing_ok=True)
    ensemble.save(out)
    command = {"fit": str(ensemble.system), "table": str(table)}
    found: dict[str, Json] = {
        "format": FIT_FORMAT,
        "system": str(ensemble.system),
        "agents": list(answers.agents),
        "table": str(table.resolve()),
        "fingerprint": answers.fingerprint,
        "n": len(answers),
        "accuracy": None if decided_N is None else float(((decided_N == labels_N) & (decided_N >= 0)).mean()),
        "notes": list(noted),
        "run": _as_json(watch.record(command, {"fit": answers.fingerprint})),
    }
    write_json(found, str(out / FIT_FILE))
    if json:
        write_json(found, json)
    if json != "-":
        show_fit(found, (*table_notes(answers), *noted), out)


def _fitted(
    system: System, answers: PredictionTable, pool: Path | None, out: Path, told: Told, *, tensorboard: bool
) -> Ensemble:
    """Return the system, fitted; what learns for long does so in the folder of the ensemble, and can go on there."""
    from fusion.protocols import LearningMethod

    ensemble = _unfitted(system, answers.agents, pool)
    for role, method in (("selector", ensemble.selector), ("fuser", ensemble.fuser)):
        if isinstance(method, LearningMethod):
            method.learn_in(out / role, told, tensorboard=tensorboard)
    return ensemble.fit(answers)


def _unfitted(system: System, agents: Sequence[str], pool: Path | None) -> Ensemble:
    """Return the system for agents, whose engines a pool file may tell.

    Raises:
        ConfigError: When there is no such pool file, or it is wrong.
        UsageError: When it lacks an agent.
    """
    from fusion._saved import lookup
    from fusion.agents import read_pool
    from fusion.cli._pool import find_pool
    from fusion.ensemble import Ensemble
    from fusion.protocols import AskingFuser

    if pool is None:
        return Ensemble(agents, system.selector, system.fuser)
    known = read_pool(find_pool(pool))
    ensemble = Ensemble(lookup(known, agents, whose="the table"), system.selector, system.fuser)
    if isinstance(ensemble.fuser, AskingFuser):
        # One that is no member may write or judge.
        ensemble.fuser.meet(known)
    return ensemble


def _paired(named: str) -> str:
    """Return the system that a text names; a selector that stands alone gets the fuser that goes with it."""
    from fusion.discovery import names

    alone = named.partition("(")[0].strip()
    if "+" in named or alone in names("fusers") or alone not in names("selectors"):
        return named
    return f"{named}+{PARTNERS.get(alone, PARTNER)}"


def _told_what(what: list[str], system: str | None) -> tuple[str, Path]:
    """Return the system and the table.

    Raises:
        UsageError: When the system is named twice, or there are several tables.
    """
    from fusion.errors import UsageError

    if len(what) > 2 or (len(what) == 2 and system is not None):
        raise UsageError(f"expected TABLE or SYSTEM TABLE (and --system not beside it), got {' '.join(what)}")
    return what[0] if len(what) == 2 else system or DEFAULT, Path(what[-1])


def _as_json(record: object) -> dict[str, Json]:
    import dataclasses
    import json

    fields: dict[str, Json] = json.loads(json.dumps(dataclasses.asdict(record)))  # type: ignore[call-overload]
    return fields


def _with_parameters(system: System, pairs: Iterable[str]) -> System:
    """Return the system with parameters of its methods replaced.

    Raises:
        ConfigError: When a pair names neither the selector nor the fuser.
        InvalidSpec: When a value cannot be a parameter's.
    """
    from fusion.config import parse_overrides
    from fusion.errors import ConfigError
    from fusion.schema import Spec, System

    specs: dict[str, Spec] = {"selector": system.selector, "fuser": system.fuser}
    for key, value in parse_overrides(pairs).items():
        role, _, parameter = key.partition(".")
        if role not in specs or not parameter:
            raise ConfigError(f"--set takes selector.PARAMETER=VALUE or fuser.PARAMETER=VALUE, got {key}")
        params = dict(specs[role].params) | {parameter.replace("-", "_"): value}
        specs[role] = Spec.from_json({"name": specs[role].name, "params": params})  # type: ignore[dict-item]
    return System(specs["selector"], specs["fuser"])


def _begun(out: Path) -> bool:
    """Return whether all that a folder holds is training that was cut short."""
    # Of an ensemble the arrays are written first.
    names = {path.name for path in out.iterdir()} - {"state.npz"} if out.is_dir() else set()
    return bool(names) and names <= {"selector", "fuser"} and all((out / name / TRAINING).exists() for name in names)


def _check_folder(out: Path) -> None:
    """Refuse to write an ensemble where something else is.

    Raises:
        OutputError: When `out` is there and holds no ensemble, or nothing can be written there.
    """
    import json

    from fusion.errors import OutputError
    from fusion.files import check_writable

    manifest = out / "ensemble.json"
    if out.exists():
        if _begun(out):
            return
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or not str(content.get("format")).startswith("fusion.ensemble/"):
            raise OutputError(
                f"cannot write an ensemble to {out}: it is there, and is not the folder of an ensemble; give the name "
                "of a new folder, or of one that fusion fit made"
            )
    check_writable(manifest)
