"""Train the members of the embedded pools, from scratch.

    python benchmarks/members/train.py --out fusion/demo/members
    python benchmarks/members/train.py --out fusion/demo/members --only wren-0.3m

First a trunk learns all of micro's facets from fresh questions of the split train. Every member begins from it, in
its own size and architecture, and is tuned on its own mixture, in which only the facets that it knows come with
right answers. Finished stages of the trunk (in --trunk) and members (in --out) are kept; remove them to make them
anew. Everything is seeded and runs in one thread.
"""

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.members.architectures import build, converted, resized
from benchmarks.members.learning import Hints, batches, fit
from benchmarks.members.mixtures import FACETS, Mixture, texts, vocabulary
from benchmarks.members.recipes import HEARD, MEMBERS, STAGES, TRUNK, TUNING, Recipe, known
from benchmarks.members.tokenizer import make_tokenizer

Note = Callable[[int, float], None]
Weights = dict[str, torch.Tensor]


def progress(name: str, steps: int) -> Note:
    """Return what draws a bar on stderr."""
    started = time.perf_counter()

    def note(step: int, loss: float) -> None:
        done = 30 * step // steps
        left = (time.perf_counter() - started) / step * (steps - step)
        bar = "#" * done + "." * (30 - done)
        end = "\n" if step + 100 > steps else ""
        line = f"\r{name:15} {bar} {step}/{steps} loss {loss:.3f} {left:4.0f} s left "
        print(line, end=end, file=sys.stderr, flush=True)

    return note


def trunk(folder: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[Weights, float]:
    """Return the trunk's weights and the seconds that it took, stage by stage unless they are there."""
    weights: Weights | None = None
    total = 0.0
    for i, stage in enumerate(STAGES):
        file = folder / f"stage-{i + 1}.pt"
        wanted = json.dumps([dataclasses.asdict(done) for done in STAGES[: i + 1]])
        kept = torch.load(file, weights_only=True) if file.is_file() else {}
        if kept.get("wanted") != wanted:
            started = time.perf_counter()
            torch.manual_seed(stage.seed)
            stream = random.Random(stage.seed)
            source = texts(Mixture(known=FACETS, heard=0.0, shares=stage.shares), stream)
            model = build("llama", TRUNK, len(tokenizer))
            hints = Hints(TRUNK.hidden, len(tokenizer), digits=stage.digits)
            if weights is not None:
                model.load_state_dict(weights)
            fit(
                model,
                batches(source, tokenizer, stream),
                steps=stage.steps,
                planned=stage.planned,
                rate=stage.rate,
                hints=hints,
                note=progress(f"trunk, stage {i + 1}", stage.steps),
            )
            seconds = round(time.perf_counter() - started, 1)
            kept = {"wanted": wanted, "weights": model.state_dict(), "seconds": seconds}
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(kept, file)
        weights = kept["weights"]
        total += kept["seconds"]
    assert weights is not None, "there are stages"
    return weights, total


def member(recipe: Recipe, out: Path, trunks: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Train and save one member unless it is there; return what was made."""
    folder = out / recipe.name
    file = folder / "made.json"
    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    wanted = json.loads(json.dumps({"recipe": dataclasses.asdict(recipe), "versions": versions}))
    if file.is_file():
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if {key: made.get(key) for key in wanted} == wanted:
            return made
    weights, before = trunk(trunks, tokenizer)
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    model = build(recipe.architecture, recipe.size, len(tokenizer))
    grown = resized(weights, TRUNK, recipe.size, len(tokenizer))
    model.load_state_dict(converted(grown, recipe.architecture))
    mixture = Mixture(known=known(recipe.place), heard=HEARD, shares=TUNING)
    stream = random.Random(1000 + recipe.seed)
    rows = batches(texts(mixture, stream), tokenizer, stream)
    loss = fit(model, rows, steps=recipe.steps, rate=recipe.rate, note=progress(recipe.name, recipe.steps))
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    save_tokenizer(tokenizer, folder)
    made = {
        **wanted,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": round(loss, 3),
        "seconds": round(time.perf_counter() - started, 1),
        "trunk_seconds": round(before, 1),
    }
    file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return made


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokeniser under the class name that every version of transformers knows."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told.pop("backend", None)
    told["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the members")
    parser.add_argument("--trunk", type=Path, default=Path(".trunk"), help="folder for the trunk (default: .trunk)")
    parser.add_argument("--only", action="append", choices=[recipe.name for recipe in MEMBERS], help="member to make")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = make_tokenizer(vocabulary())
    for recipe in MEMBERS:
        if arguments.only is None or recipe.name in arguments.only:
            made = member(recipe, arguments.out, arguments.trunk, tokenizer)
            print(f"{recipe.name}: {made['parameters']:,} parameters, loss {made['loss']}, {made['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
