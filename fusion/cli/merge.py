"""fusion merge: aligned models of one base become one mixture of experts that transformers and vLLM load as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion.cli._options import JsonFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusion.moe import Finding, Merged
    from fusion.schema import Json

RECIPE_HELP = "Recipe (YAML): base_model, experts, gate_mode, experts_per_token, dtype, shared."
SHARD_HELP = "Most bytes of tensors in a file, such as 5GB or 500MB; about so much memory is taken."
OUT_HELP = "Folder for the checkpoint; a merge that was cut short there goes on."
CHECK_HELP = "Write nothing: list what does not fit, and what would be done about it."
SET_HELP = "Override a key of the recipe: gate_mode=random. May be repeated."
FORMAT = "fusion.merged/1"


def merge_command(
    recipe: Annotated[Path, typer.Argument(help=RECIPE_HELP)],
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    check: Annotated[bool, typer.Option("--check", help=CHECK_HELP)] = False,
    out_shard_size: Annotated[str, typer.Option(help=SHARD_HELP)] = "5GB",
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    json: JsonFile = None,
) -> None:
    """Merge LoRA adapters or full fine-tunes of one base model into one mixture-of-experts checkpoint."""
    from fusion.cli._show import progress_bar, write_json
    from fusion.config import parse_overrides, read_config
    from fusion.errors import UsageError
    from fusion.files import check_writable
    from fusion.moe import MoERecipe, merge, preflight

    chosen = read_config(recipe, MoERecipe, overrides=parse_overrides(set_ or ()))
    if (out is None) != check:
        raise UsageError("fusion merge writes to --out DIR; give it, or --check to write nothing, and not both")
    size = parse_bytes(out_shard_size)
    if json and json != "-":
        check_writable(json)
    with progress_bar() as told:
        if out is None:
            plan = preflight(chosen, told=told)
            merged, findings, refused = None, plan.findings, bool(plan.refused)
        else:
            merged = merge(chosen, out, shard_bytes=size, told=told)
            findings, refused = merged.findings, False
    if json:
        write_json(_as_json(merged, findings), json)
    if json != "-":
        _show(merged, findings)
    if refused:
        raise typer.Exit(1)


def parse_bytes(text: str) -> int:
    """Return a size in bytes.

    Raises:
        UsageError: When it is none.
    """
    import re

    from fusion.errors import UsageError

    matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if matched is None or not float(matched[1]):
        raise UsageError(f"--out-shard-size is a size such as 5GB or 500MB, got {text!r}")
    return int(float(matched[1]) * 1000 ** " KMGT".index(matched[2].upper() or " "))


def _as_json(merged: Merged | None, findings: Iterable[Finding]) -> dict[str, Json]:
    found: dict[str, Json] = {"format": FORMAT, "findings": [one._asdict() for one in findings]}
    if merged is not None:
        found |= {
            "folder": str(merged.folder),
            "architecture": merged.architecture,
            "experts": list(merged.experts),
            "parameters": merged.parameters[0],
            "active_parameters": merged.parameters[1],
            "bytes": merged.nbytes,
            "files": merged.files[0],
            "files_there": merged.files[1],
            "matrices_checked": merged.checked,
        }
    return found


def _show(merged: Merged | None, findings: Iterable[Finding]) -> None:
    from fusion.cli._show import make_console

    console = make_console()

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for one in findings:
        line(f"{one.kind}: {one.where}: {one.what}; {one.done}")
    if merged is None:
        return
    whole, active = merged.parameters
    there = f", {merged.files[1]} of them there already" if merged.files[1] else ""
    line(
        f"{merged.architecture} of {whole:,} parameters, {active:,} for each token; {merged.nbytes / 1e9:.2f} GB in "
        f"{merged.files[0]} file{'s' if merged.files[0] > 1 else ''}{there}"
    )
    if merged.checked:
        line(f"{merged.checked} matrices on disk are W + scale B A")
    line(f"wrote {merged.folder}")
