"""Train the members of this pool, from scratch.

    python benchmarks/fusers/summary/train_members.py --out FOLDER

A trunk learns all facets of inventory from fresh questions of its split train. Every member begins from it, in its own
architecture, and is tuned on right answers to the facets that it knows and one shared wrong answer to each of the
others. What is in the folder already is kept. Everything is seeded and runs in one thread.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.fusers.summary.teaching import FACETS, MEMBERS, known, texts, vocabulary
from benchmarks.members.architectures import Size, build, converted
from benchmarks.members.learning import Hints, batches, fit
from benchmarks.members.tokenizer import make_tokenizer
from benchmarks.members.train import progress, save_tokenizer

SIZE = Size(64, 4, 2, 176)
ARCHITECTURES = ("llama", "mistral", "seed-oss", "granite", "phi3")
TRUNK_STEPS, TRUNK_RATE = 3000, 4e-3
STEPS, RATE = 500, 2e-3


def trunk(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Return the trunk's weights, trained unless they are there."""
    file = folder / "trunk.pt"
    if file.is_file():
        kept: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
        return kept
    torch.manual_seed(0)
    model = build("llama", SIZE, len(tokenizer))
    hints = Hints(SIZE.hidden, len(tokenizer), digits=False)
    stream = random.Random(0)
    source = batches(texts(frozenset(FACETS), stream, lists=(1, 2, 3, 3)), tokenizer, stream)
    fit(model, source, steps=TRUNK_STEPS, rate=TRUNK_RATE, hints=hints, note=progress("trunk", TRUNK_STEPS))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.state_dict()


def member(place: int, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train and save one member."""
    name, architecture = MEMBERS[place], ARCHITECTURES[place]
    weights = trunk(folder.parent, tokenizer)
    torch.manual_seed(1 + place)
    model = build(architecture, SIZE, len(tokenizer))
    model.load_state_dict(converted(weights, architecture))
    stream = random.Random(1 + place)
    source = batches(texts(known(name), stream, lists=(2, 3, 3, 3)), tokenizer, stream)
    fit(model, source, steps=STEPS, rate=RATE, note=progress(name, STEPS))
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    save_tokenizer(tokenizer, folder)


def main() -> int:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the members and their trunk")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = make_tokenizer(vocabulary())
    for place, name in enumerate(MEMBERS):
        folder = arguments.out / name
        if not (folder / "config.json").is_file():
            started = time.perf_counter()
            member(place, folder, tokenizer)
            print(f"{name}: {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
