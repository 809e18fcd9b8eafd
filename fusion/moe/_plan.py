"""What a merged checkpoint consists of, and in which files it is: known before anything heavy is read."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fusion.errors import InputError
from fusion.moe._checkpoint import Entry
from fusion.moe._layout import Finding, feed_forward
from fusion.moe._recipe import AVERAGE, BASE, REFUSE, MoERecipe
from fusion.moe._sources import Base, Expert, ModelExpert

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FEW = 3


class Piece(NamedTuple):
    """One tensor of the merged checkpoint.

    Attributes:
        name: Its name there.
        shape: Its shape.
        dtype: Its type, as torch calls it.
        source: The weight of the base that it is made from; "" for a gate.
        expert: Whose weight it is; -1 for the base's, or the gate's.
        layer: The gate's layer; -1 for what is no gate.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: str = ""
    expert: int = -1
    layer: int = -1

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * _BYTES[self.dtype]


class Plan(NamedTuple):
    """What is written.

    Attributes:
        shards: The tensors of each file.
        findings: What does not fit, and what is done about it.
        differing: Weights outside of the feed-forward blocks in which experts differ from the base.
    """

    shards: tuple[tuple[Piece, ...], ...]
    findings: tuple[Finding, ...]
    differing: frozenset[str]

    @property
    def pieces(self) -> Iterator[Piece]:
        """All tensors, in the order in which they are written."""
        return (piece for shard in self.shards for piece in shard)

    @property
    def refused(self) -> list[Finding]:
        """Findings that stand in the way."""
        return [finding for finding in self.findings if finding.kind == "refused"]


def make_plan(
    recipe: MoERecipe,
    base: Base,
    experts: Sequence[Expert],
    *,
    shard_bytes: int,
    told: Callable[[str, int, int], None],
) -> Plan:
    """Look for everything that does not fit, and lay out the files.

    Weights of full models outside of the feed-forward blocks are read and compared, one after another.

    Args:
        recipe: What is merged.
        base: The base model, opened.
        experts: The experts, opened.
        shard_bytes: Most bytes of tensors in a file; one that is larger has a file of its own.
        told: Told how many of these weights have been compared.
    """
    findings = [*base.layout.unfit(base.config), *_about_base(base)]
    for expert in experts:
        findings += expert.findings(base)
    wrong = {finding.where for finding in findings if finding.kind == "refused"}
    differing = frozenset[str]() if wrong else frozenset(_differing(base, experts, told))
    findings += _about_shared(recipe, differing, experts, base)
    dtype = recipe.dtype or _dtype(base)
    return Plan(_shards(_pieces(base, len(experts), dtype), shard_bytes), tuple(findings), differing)


def _about_base(base: Base) -> Iterator[Finding]:
    entries = base.weights.entries
    odd = [name for name in entries if name.endswith("rotary_emb.inv_freq")]
    if odd:
        yield Finding(
            odd[0], f"{len(odd)} tables of the rotary embedding are stored", "left out; they are computed", "settled"
        )
    if base.config.tie_word_embeddings and "lm_head.weight" in entries:
        yield Finding("lm_head.weight", "stored, though tied to the embeddings", "left out; it is tied", "settled")
    if not base.config.tie_word_embeddings and "lm_head.weight" not in entries:
        yield Finding("lm_head.weight", "missing, and not tied to the embeddings", "not merged", "refused")
    layers = {found.layer for name in entries if (found := feed_forward(name))}
    if layers != set(range(base.config.num_hidden_layers)):
        yield Finding(
            "num_hidden_layers",
            f"{base.config.num_hidden_layers} layers, and feed-forward blocks in {len(layers)}",
            "not merged",
            "refused",
        )


def _about_shared(
    recipe: MoERecipe, differing: frozenset[str], experts: Sequence[Expert], base: Base
) -> Iterator[Finding]:
    """Yield what is done about weights outside of the feed-forward blocks in which experts differ."""
    if not differing:
        return
    kinds = {
        "attention": [name for name in differing if ".self_attn." in name],
        "embeddings": [name for name in differing if name in ("model.embed_tokens.weight", "lm_head.weight")],
    }
    kinds["norms and others"] = [name for name in differing if not any(name in names for names in kinds.values())]
    for kind, found in kinds.items():
        if not found:
            continue
        some = ", ".join(sorted(found)[:_FEW]) + (", ..." if len(found) > _FEW else "")
        what = f"experts differ in {len(found)} weights of {kind}: {some}"
        if recipe.shared == REFUSE:
            ways = f"{BASE}, {AVERAGE}, or one of {', '.join(expert.name for expert in experts)}"
            yield Finding("shared", what, f"not merged: set shared to {ways}", "refused")
        else:
            done = {BASE: "the base's are kept", AVERAGE: "the experts' mean is taken"}
            yield Finding("shared", what, done.get(recipe.shared, f"those of {recipe.shared} are taken"), "settled")


def _differing(base: Base, experts: Sequence[Expert], told: Callable[[str, int, int], None]) -> Iterator[str]:
    """Yield the weights outside of the feed-forward blocks in which some expert differs from the base."""
    shared = [name for name in _dense(base) if feed_forward(name) is None]
    models = [expert for expert in experts if isinstance(expert, ModelExpert)]
    for done, name in enumerate(shared):
        told("comparing what experts share", done, len(shared))
        if any(name in expert.touched() for expert in experts if expert not in models):
            yield name
        elif models:
            own = base.weights.read(name)
            if any(not own.float().equal(expert.weight(name, own)) for expert in models):
                yield name


def _dense(base: Base) -> Iterator[str]:
    """Yield the weights of the base that are merged, layer by layer."""
    tied = base.config.tie_word_embeddings
    for name in sorted(base.weights.entries, key=_place):
        if not name.endswith("rotary_emb.inv_freq") and not (tied and name == "lm_head.weight"):
            yield name


def _place(name: str) -> tuple[int, str]:
    """Return where a weight stands: embeddings, layers by number, then the rest."""
    parts = name.split(".")
    if parts[:2] == ["model", "layers"] and parts[2].isdigit():
        return int(parts[2]), name
    return (-1, name) if "embed_tokens" in name else (1 << 30, name)


def _pieces(base: Base, num_experts: int, dtype: str) -> Iterator[Piece]:
    gates: set[int] = set()
    for name in _dense(base):
        found, shape = feed_forward(name), base.weights.entries[name].shape
        if found is None:
            yield Piece(name, shape, dtype, name)
            continue
        if found.layer not in gates:
            gates.add(found.layer)
            width = base.config.hidden_size
            yield Piece(base.layout.gate(found.layer), (num_experts, width), dtype, layer=found.layer)
        for expert in range(num_experts):
            yield Piece(base.layout.expert(found.layer, expert, found.projection), shape, dtype, name, expert)


def _shards(pieces: Iterator[Piece], shard_bytes: int) -> tuple[tuple[Piece, ...], ...]:
    shards: list[list[Piece]] = []
    size = 0
    for piece in pieces:
        if not shards or size + piece.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes
    return tuple(tuple(shard) for shard in shards)


def _dtype(base: Base) -> str:
    """Return the type that most weights of the base have.

    Raises:
        InputError: When it is none that is written.
    """
    sizes: dict[str, int] = {}
    for entry in base.weights.entries.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + _count(entry)
    most = max(sizes, key=lambda dtype: sizes[dtype])
    if most not in _BYTES:
        raise InputError(
            f"base_model has weights of type {most}, which are not merged (quantised?); give one in "
            f"{', '.join(_BYTES)}, or set dtype"
        )
    return most


def _count(entry: Entry) -> int:
    return math.prod(entry.shape)
