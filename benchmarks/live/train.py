"""Train the pool of this benchmark: three small Llama models from scratch, and one LoRA adapter.

    python benchmarks/live/train.py --data DIR --out DIR [--quick]

Every model has its own tokeniser, size, seed and mixture of texts, so that they fail on different questions. They
learn the forms of answers rather than the answers: what is shown is the way of a pool through the program, not
knowledge. None may be trained on a question that it is asked: that is checked by the hashes in DIR/evaluated.txt.

Folders that hold the result of the same recipe and the same texts are left as they are. The last line printed is a
JSON object with what was trained.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import random
import shutil
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import peft
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"
PROMPT_WEIGHT = 0.2
GROUPS = {"sums": 6, "truths": 7, "myths": 7, "letters": 1}
"""Most texts of a kind in a row, as in a prompt with shots."""
QUICK_TEXTS = 150
QUICK = {"hidden": 32, "layers": 2, "heads": 2, "steps": 12, "batch": 4, "length": 128}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model or adapter is made.

    Args:
        name: Of its folder.
        mix: Kinds of texts, with the share of the batches that each has.
        seed: Of the weights and the order of texts.
        hidden, layers, heads, vocab, context: Sizes of the model.
        steps, batch, length: Updates, rows in each, tokens in a row.
        rate: Highest learning rate.
        base: Name of the model that an adapter is for; "" for a model.
    """

    name: str
    mix: Mapping[str, float]
    seed: int
    hidden: int = 0
    layers: int = 4
    heads: int = 4
    vocab: int = 1024
    context: int = 2048
    steps: int = 0
    batch: int = 2
    length: int = 512
    rate: float = 3e-3
    base: str = ""


RECIPES = (
    Recipe(name="sums", mix={"sums": 6, "letters": 1}, seed=1, hidden=128, steps=1000),
    Recipe(name="truths", mix={"truths": 3, "sums": 2, "letters": 1}, seed=2, hidden=160, vocab=2048, steps=800),
    # Less room than five solved rows of GSM8K sometimes take: some questions of that task cannot be put to it.
    Recipe(name="myths", mix={"myths": 2, "sums": 2, "letters": 1}, seed=3, hidden=96, context=1664, steps=800),
    Recipe(name="truths-letters", mix={"letters": 1}, seed=4, steps=160, base="truths"),
)


class Text(NamedTuple):
    """A prompt and the answer to it."""

    prompt: str
    answer: str


class Tokens(NamedTuple):
    """Texts as one stream of tokens.

    Attributes:
        ids_T: int64 [T].
        weights_T: float32 [T], how much the loss of each token counts.
    """

    ids_T: torch.Tensor
    weights_T: torch.Tensor


def read_texts(data: Path) -> dict[str, list[Text]]:
    """Return the texts by kind, after a check that none of their questions is among those that are asked."""
    evaluated = set((data / "evaluated.txt").read_text(encoding="ascii").split())
    assert evaluated, "data.py lists the questions that are asked"
    texts: dict[str, list[Text]] = {}
    with (data / "texts.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            # Written apart from the hash in data.py on purpose: this one decides.
            told = hashlib.sha256(" ".join(row["question"].casefold().split()).encode()).hexdigest()
            assert told not in evaluated, f"a question that is asked is among the texts: {row['question']!r}"
            texts.setdefault(row["kind"], []).append(Text(row["prompt"], row["answer"]))
    return texts


def make_tokenizer(texts: Mapping[str, Sequence[Text]], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokeniser; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (f"{text.prompt}{text.answer}" for kind in sorted(texts) for text in texts[kind]), trainer
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=recipe.context
    )


def tokenize(texts: Sequence[Text], tokenizer: PreTrainedTokenizerFast, *, group: int, stream: random.Random) -> Tokens:
    """Return all texts in random order, up to `group` in a row between empty lines and then the end token."""
    order, ids, weights = stream.sample(texts, len(texts)), [], []
    while order:
        row = [order.pop() for _ in range(min(stream.randint(1, group), len(order)))]
        whole, edges = "", []
        for text in row:
            whole += ("\n\n" if whole else "") + text.prompt
            edges.append(len(whole))
            whole += text.answer
            edges.append(len(whole))
        told = tokenizer(whole, return_offsets_mapping=True, verbose=False)
        ids += [*told["input_ids"], tokenizer.eos_token_id]
        # An odd number of edges before a token puts it into an answer; the gap after an answer counts to it.
        weights += [1.0 if bisect_right(edges, start) % 2 else PROMPT_WEIGHT for start, _ in told["offset_mapping"]]
        weights.append(1.0)
    return Tokens(torch.tensor(ids), torch.tensor(weights))


def batches(streams: Mapping[str, Tokens], recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield int64 [B, L + 1] tokens and float32 [B, L + 1] weights, each row from one kind of text."""
    stream, kinds = random.Random(f"batches {recipe.seed}"), sorted(streams)
    shares = [recipe.mix.get(kind, 1.0) for kind in kinds]
    at = dict.fromkeys(kinds, 0)
    for _ in range(recipe.steps):
        rows = []
        for kind in stream.choices(kinds, shares, k=recipe.batch):
            size = len(streams[kind].ids_T)
            place_L = (torch.arange(recipe.length + 1) + at[kind]) % size
            rows.append((streams[kind].ids_T[place_L], streams[kind].weights_T[place_L]))
            at[kind] = (at[kind] + recipe.length) % size
        yield torch.stack([ids for ids, _ in rows]), torch.stack([weights for _, weights in rows])


def fit(model: PreTrainedModel | peft.PeftModel, streams: Mapping[str, Tokens], recipe: Recipe) -> float:
    """Train in place; return the mean loss over the last tenth of the steps, in nats per weighted token."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.1)
    warm, losses = max(recipe.steps // 10, 1), []
    model.train()
    for step, (ids_BL, weights_BL) in enumerate(batches(streams, recipe)):
        share = step / recipe.steps
        rate = recipe.rate * min((step + 1) / warm, 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)
        for options in optimizer.param_groups:
            options["lr"] = rate
        logits_BLV = model(input_ids=ids_BL[:, :-1]).logits
        loss_N = torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1), ids_BL[:, 1:].flatten(), reduction="none")
        weights_N = weights_BL[:, 1:].flatten()
        loss = (loss_N * weights_N).sum() / weights_N.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 100 == 0:
            print(f"{recipe.name}: step {step} of {recipe.steps}, loss {losses[-1]:.2f}", file=sys.stderr)
    last = losses[-warm:]
    return sum(last) / len(last)


def make(recipe: Recipe, texts: Mapping[str, Sequence[Text]], out: Path, *, source: str) -> dict[str, Any]:
    """Make what a recipe says unless it is there; return what was made."""
    folder = out / ("adapters" if recipe.base else "models") / recipe.name
    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers, peft)}
    wanted = json.loads(json.dumps({"recipe": dataclasses.asdict(recipe), "texts": source, "versions": versions}))
    note = folder / "made.json"
    if note.is_file() and (before := json.loads(note.read_text(encoding="utf-8")))["wanted"] == wanted:
        return {**before["made"], "cached": True}
    start = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(recipe.seed)
    kinds = {kind: texts[kind] for kind in sorted(recipe.mix) if kind in texts} or texts
    base = out / "models" / recipe.base
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base) if recipe.base else make_tokenizer(texts, recipe)
    stream = random.Random(f"texts {recipe.seed}")
    streams = {kind: tokenize(kinds[kind], tokenizer, group=GROUPS[kind], stream=stream) for kind in kinds}
    model = _lora(base) if recipe.base else _llama(recipe, tokenizer)
    loss = fit(model, streams, recipe)
    model.save_pretrained(str(folder))
    if not recipe.base:
        tokenizer.save_pretrained(folder)
    made = {
        "name": recipe.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "tokens": recipe.steps * recipe.batch * recipe.length,
        "epochs": {kind: round(_share(kind, streams, recipe), 2) for kind in streams},
        "loss": round(loss, 3),
        "seconds": round(time.perf_counter() - start, 1),
    }
    note.write_text(json.dumps({"wanted": wanted, "made": made}, indent=1) + "\n", encoding="utf-8")
    return {**made, "cached": False}


def _share(kind: str, streams: Mapping[str, Tokens], recipe: Recipe) -> float:
    share = recipe.mix.get(kind, 1.0) / sum(recipe.mix.get(other, 1.0) for other in streams)
    return recipe.steps * recipe.batch * recipe.length * share / len(streams[kind].ids_T)


def _llama(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=5 * recipe.hidden // 2,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads // 2,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _lora(base: Path) -> peft.PeftModel:
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    assert isinstance(adapted, peft.PeftModel), "a LoRA on one model is no mixture"
    return adapted


def main() -> int:
    """Train what is missing and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that data.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for models/ and adapters/")
    parser.add_argument("--quick", action="store_true", help="tiny models, trained for seconds")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    texts = read_texts(arguments.data)
    source = hashlib.sha256((arguments.data / "texts.jsonl").read_bytes()).hexdigest()
    if arguments.quick:
        texts = {kind: rows[:QUICK_TEXTS] for kind, rows in texts.items()}
    made = []
    for recipe in RECIPES:
        chosen = dataclasses.replace(recipe, **QUICK) if arguments.quick else recipe  # type: ignore[arg-type]
        made.append(make(chosen, texts, arguments.out, source=source))
        print(json.dumps(made[-1]), file=sys.stderr)
    print(json.dumps({"models": made, "threads": torch.get_num_threads()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
