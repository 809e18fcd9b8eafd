"""What a merge came to, and the model card that says so beside the weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fusion import __version__
from fusion.moe._layout import Finding
from fusion.moe._recipe import MoERecipe
from fusion.moe._sources import Base, Expert, LoraExpert

_GATES = {
    "hidden": "hidden states of the experts' prompts",
    "cheap_embed": "token embeddings of the experts' prompts",
    "random": "random numbers",
    "zero": "zero: all experts alike",
}


class Merged(NamedTuple):
    """What a merge came to.

    Attributes:
        folder: Where the checkpoint is.
        architecture: What loads it.
        experts: Names of the experts, in their order.
        parameters: How many numbers it has, and how many compute each token.
        nbytes: Size of its tensors.
        files: How many files, and how many of them were there from a merge that was cut short.
        findings: What did not fit, and what was done about it.
        checked: How many experts' matrices were compared with W + scale B A.
    """

    folder: Path
    architecture: str
    experts: tuple[str, ...]
    parameters: tuple[int, int]
    nbytes: int
    files: tuple[int, int]
    findings: tuple[Finding, ...]
    checked: int


def card(recipe: MoERecipe, base: Base, experts: Sequence[Expert], merged: Merged) -> str:
    """Return the model card, Markdown with a header that the hub reads."""
    return "\n".join(_lines(recipe, base, experts, merged)) + "\n"


def _lines(recipe: MoERecipe, base: Base, experts: Sequence[Expert], merged: Merged) -> Iterator[str]:
    whole, active = merged.parameters
    yield from (
        "---",
        f"base_model: {recipe.base_model}",
        "library_name: transformers",
        "tags: [moe, merge, fusion]",
        "---",
    )
    yield ""
    yield f"# {len(experts)} experts of {recipe.base_model}"
    yield ""
    yield (
        f"A {merged.architecture} of {whole:,} parameters, {active:,} of which compute each token "
        f"({recipe.experts_per_token} of {len(experts)} experts). transformers and vLLM load it as it is."
    )
    yield ""
    yield "| expert | made from | as |"
    yield "|---|---|---|"
    for source, expert in zip(recipe.experts, experts, strict=True):
        if isinstance(expert, LoraExpert):
            told = expert.adapter.config
            kind = f"LoRA adapter, r = {told['r']}, alpha = {told['lora_alpha']}, merged with its scale"
        else:
            kind = "full model"
        yield f"| {expert.name} | {source.source_model} | {kind} |"
    yield ""
    yield f"The gate begins with {_GATES[recipe.gate_mode]}, and has not been trained: `fusion tune` trains it."
    yield ""
    if merged.findings:
        yield "## What did not fit, and what was done about it"
        yield ""
        yield from (f"- {found.where}: {found.what}; {found.done}." for found in merged.findings)
        yield ""
    yield "## How it was made"
    yield ""
    yield f"`fusion merge` of fusion {__version__}, with this recipe:"
    yield ""
    yield "```json"
    yield recipe.model_dump_json(indent=1)
    yield "```"
