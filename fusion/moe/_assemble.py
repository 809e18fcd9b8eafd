"""Writing a merged checkpoint, tensor by tensor and file by file; what was cut short goes on."""

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import FusionError, InputError, OutputError
from fusion.files import replacing, write_text
from fusion.moe._card import Merged, card
from fusion.moe._checkpoint import INDEX, SINGLE, read_tensor
from fusion.moe._gate import first_gates
from fusion.moe._plan import Piece, Plan, make_plan
from fusion.moe._recipe import AVERAGE, BASE, REFUSE, MoERecipe
from fusion.moe._sources import Base, Expert, LoraExpert, open_base, open_experts

if TYPE_CHECKING:
    import torch

Told = Callable[[str, int, int], None]
STATE, FORMAT, CARD = "merge.json", "fusion.merge/1", "README.md"
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
_EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def merge(recipe: MoERecipe, folder: Path, *, shard_bytes: int = 5 * 10**9, told: Told | None = None) -> Merged:
    """Merge a base model and its experts into one mixture-of-experts checkpoint of a stock architecture.

    No more is in memory than the tensors of one file and two more; a gate from hidden states needs the base model for
    a while. A merge that was cut short goes on with the first file that is missing.

    Args:
        recipe: What is merged.
        folder: Where; made when it is missing.
        shard_bytes: Most bytes of tensors in a file.
        told: Told what is done, how much of it and how much there is.

    Raises:
        InputError: When something cannot be read, or does not fit; everything that does not is named.
        FusionError: When a matrix that was written is not what it should be.
        OutputError: When the folder cannot be written, or holds something else.
        MissingDependency: When transformers is not installed.
    """
    told = told or _nobody
    base, experts = open_base(recipe), open_experts(recipe)
    plan = make_plan(recipe, base, experts, shard_bytes=shard_bytes, told=told)
    if plan.refused:
        raise InputError("not merged:\n" + "\n".join(f"  {one.where}: {one.what}; {one.done}" for one in plan.refused))
    mark = _mark(recipe, base, experts, shard_bytes)
    there = begin(folder, mark)
    names = _names(len(plan.shards))
    written = [name for name in names if name in there and (folder / name).exists()]
    missing = [(name, shard) for name, shard in zip(names, plan.shards, strict=True) if name not in written]
    gates = first_gates(recipe, base, told=told) if any(p.layer >= 0 for _, shard in missing for p in shard) else {}
    make = _Maker(recipe, base, experts, plan.differing, gates)
    checked, done, total = 0, len(written), len(plan.shards)
    for name, shard in missing:
        _write(folder / name, make, shard, told=functools.partial(_tell, told, done, total))
        checked += _check(folder / name, make, shard)
        written.append(name)
        done += 1
        _note(folder, mark, written)
    merged = base.layout.config(base.config, num_experts=len(experts), top_k=recipe.experts_per_token)
    merged.dtype = next(plan.pieces).dtype
    merged.save_pretrained(folder)
    _finish(folder, base, plan, names)
    result = Merged(
        folder=folder,
        architecture=base.layout.sparse,
        experts=tuple(expert.name for expert in experts),
        parameters=_parameters(plan, len(experts), recipe.experts_per_token),
        nbytes=sum(piece.nbytes for piece in plan.pieces),
        files=(len(names), len(names) - len(missing)),
        findings=plan.findings,
        checked=checked,
    )
    write_text(folder / CARD, card(recipe, base, experts, result))
    return result


def preflight(recipe: MoERecipe, *, told: Told | None = None) -> Plan:
    """Return what a merge would write, and everything that does not fit, without writing anything.

    Raises:
        InputError: When something cannot be read.
        MissingDependency: When transformers is not installed.
    """
    base, experts = open_base(recipe), open_experts(recipe)
    return make_plan(recipe, base, experts, shard_bytes=5 * 10**9, told=told or _nobody)


def _nobody(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _tell(told: Told, done: int, total: int, what: str) -> None:
    told(what, done, total)


class _Maker(NamedTuple):
    """Makes the tensors of a merged checkpoint.

    Attributes:
        recipe: What is merged.
        base: The base model.
        experts: The experts.
        differing: Weights outside of the feed-forward blocks in which experts differ.
        gates: Of every layer.
    """

    recipe: MoERecipe
    base: Base
    experts: Sequence[Expert]
    differing: frozenset[str]
    gates: "dict[int, torch.Tensor]"

    def make(self, piece: Piece) -> "torch.Tensor":
        """Return a tensor, of the type that it is written in."""
        import torch

        dtype = getattr(torch, piece.dtype)
        if piece.layer >= 0:
            return self.gates[piece.layer].to(dtype).contiguous()
        own = self.base.weights.read(piece.source)
        if piece.expert >= 0:
            expert = self.experts[piece.expert]
            return (
                (expert.weight(piece.source, own) if piece.source in expert.touched() else own).to(dtype).contiguous()
            )
        if piece.source not in self.differing or self.recipe.shared == BASE:
            return own.to(dtype)
        assert self.recipe.shared != REFUSE, "refused before"
        if self.recipe.shared == AVERAGE:
            total = torch.zeros(own.shape)
            for expert in self.experts:
                total += expert.weight(piece.source, own)
            return (total / len(self.experts)).to(dtype)
        chosen = next(expert for expert in self.experts if expert.name == self.recipe.shared)
        return chosen.weight(piece.source, own).to(dtype)


def _write(path: Path, maker: _Maker, shard: Sequence[Piece], *, told: Callable[[str], None]) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for piece in shard:
        told(f"merging {piece.name}")
        tensors[piece.name] = maker.make(piece)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _check(path: Path, maker: _Maker, shard: Sequence[Piece]) -> int:
    """Compare what is on disk of every LoRA expert with W + scale B A, on a vector drawn at random.

    A wrong scale, a swapped matrix or a delta that was left out changes the product with nearly every vector.

    Returns:
        How many were compared.

    Raises:
        FusionError: When one differs by more than rounding.
    """
    import torch

    checked = 0
    draws = torch.Generator().manual_seed(0)
    for piece in shard:
        expert = maker.experts[piece.expert] if piece.expert >= 0 else None
        if not isinstance(expert, LoraExpert) or piece.source not in expert.touched():
            continue
        vector_D = torch.randn(piece.shape[1], generator=draws, dtype=torch.float64)
        low = expert.adapter.read(piece.source)
        own = maker.base.weights.read(piece.source).double()
        expected = own @ vector_D + low.scale * (low.up.double() @ (low.down.double() @ vector_D))
        found = read_tensor(path, piece.name).double() @ vector_D
        # Each weight is rounded by half a unit at most, and errors of a row add up like a random walk.
        allowed = 8 * _EPS[piece.dtype] * own.abs().max() * vector_D.norm() + 1e-6
        worst = float((found - expected).abs().max())
        if not worst <= float(allowed):
            raise FusionError(
                f"{piece.name} in {path} is not W + {low.scale:g} B A of {expert.name}: off by {worst:.3g}, of which "
                f"rounding explains {float(allowed):.3g}"
            )
        checked += 1
    return checked


def _mark(recipe: MoERecipe, base: Base, experts: Sequence[Expert], shard_bytes: int) -> str:
    parts = [recipe.model_dump_json(), base.weights.fingerprint, *(expert.fingerprint for expert in experts)]
    return hashlib.sha256("\0".join([FORMAT, str(shard_bytes), *parts]).encode()).hexdigest()


def begin(folder: Path, mark: str) -> set[str]:
    """Return the files that a merge of the same mark has left.

    Raises:
        OutputError: When the folder holds something else.
    """
    state: dict[str, Any] = {}
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(
                f"cannot merge into {folder}: it is there, and is not what fusion merge made; give a new folder"
            ) from None
    if state.get("mark") == mark:
        return set(state["files"])
    for path in (*folder.glob("model-*.safetensors"), folder / SINGLE, folder / INDEX):
        path.unlink(missing_ok=True)
    _note(folder, mark, [])
    return set()


def _note(folder: Path, mark: str, files: Sequence[str]) -> None:
    write_text(folder / STATE, json.dumps({"format": FORMAT, "mark": mark, "files": list(files)}, indent=1) + "\n")


def write_checkpoint(folder: Path, tensors: "Iterable[tuple[str, torch.Tensor]]", *, shard_bytes: int) -> None:
    """Write tensors as they come into files of `shard_bytes` at most, and their index.

    Raises:
        OutputError: When the folder cannot be written.
    """
    from safetensors.torch import save_file

    parts: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    total = 0

    def flush() -> None:
        with replacing(folder / f"part-{len(parts)}") as temporary:
            save_file(held, temporary, metadata={"format": "pt"})
        parts.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > shard_bytes:
            flush()
        # A copy: what is written must not be a view of what else is.
        held[name] = tensor.detach().cpu().contiguous().clone()
        total += tensor.nbytes
    flush()
    for path in (*folder.glob("model*.safetensors"), folder / INDEX):
        path.unlink(missing_ok=True)
    names = _names(len(parts))
    for n, name in enumerate(names):
        (folder / f"part-{n}").replace(folder / name)
    if len(names) > 1:
        where = {key: name for name, keys in zip(names, parts, strict=True) for key in keys}
        content = {"metadata": {"total_size": total}, "weight_map": where}
        write_text(folder / INDEX, json.dumps(content, indent=1) + "\n")


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]


def _finish(folder: Path, base: Base, plan: Plan, names: Sequence[str]) -> None:
    """Write the index, and copy what belongs to the base's tokenizer."""
    if len(names) > 1:
        where = {piece.name: name for name, shard in zip(names, plan.shards, strict=True) for piece in shard}
        size = sum(piece.nbytes for piece in plan.pieces)
        write_text(folder / INDEX, json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=1) + "\n")
    for name in COPIED:
        source = base.weights.folder / name
        if source.exists():
            shutil.copyfile(source, folder / name)


def _parameters(plan: Plan, num_experts: int, top_k: int) -> tuple[int, int]:
    experts = sum(math.prod(piece.shape) for piece in plan.pieces if piece.expert >= 0)
    others = sum(math.prod(piece.shape) for piece in plan.pieces if piece.expert < 0)
    return others + experts, others + experts * top_k // num_experts
