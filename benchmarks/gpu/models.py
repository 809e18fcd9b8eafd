"""Members with random weights: LoRA adapters over one base, and another base, made in a folder and found there again.

The weights say nothing, but cost what those of a real checkpoint of their shape cost. There is no token that ends a
text, so every answer has as many tokens as were allowed.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging

__all__ = ["SHAPES", "WORDS", "Member", "Shape", "make_members", "shape_json"]

CONTEXT = 2048
"""Most tokens of prompt and answer."""
RANK = 16
_UNKNOWN = 0.1
"""Embeddings of tokens that the tokeniser does not know, beside those that it knows."""
WORDS = tuple(first + second for first in ("ba", "ko", "li", "mu", "ne", "ro", "su", "ti") for second in
              ("dan", "fel", "gor", "him", "jas", "pen", "vuk", "zet"))  # fmt: skip
"""What prompts are made of; each is one token."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a Llama, and how widely its random weights are spread.

    Args:
        hidden: Width of the layers.
        layers: Number of layers.
        heads: Attention heads for queries.
        kv_heads: Attention heads for keys and values.
        head_size: Width of a head.
        intermediate: Width inside the feed-forward part.
        vocabulary: Tokens that have embeddings; the tokeniser knows fewer.
        spread: Standard deviation of the weights.
        adapter_spread: Standard deviation of the second factors of adapters.
        new_tokens: Tokens that a model of this shape writes in the benchmark.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    spread: float
    adapter_spread: float
    new_tokens: int

    @property
    def config(self) -> LlamaConfig:
        """The same, as transformers writes it."""
        return LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_size,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            initializer_range=self.spread,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=1,
        )

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Numbers read and written by each linear layer of a block, by its place; adapters change all of them."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "self_attn.q_proj": (self.hidden, queries),
            "self_attn.k_proj": (self.hidden, keys),
            "self_attn.v_proj": (self.hidden, keys),
            "self_attn.o_proj": (queries, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }


SHAPES = {
    "1b": Shape(
        hidden=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        head_size=64,
        intermediate=8192,
        vocabulary=128_256,
        spread=0.02,
        adapter_spread=0.2,
        new_tokens=128,
    ),
    "tiny": Shape(
        hidden=64,
        layers=2,
        heads=2,
        kv_heads=1,
        head_size=32,
        intermediate=128,
        vocabulary=1024,
        spread=0.3,
        adapter_spread=0.5,
        new_tokens=16,
    ),
}
"""`1b` is Llama-3.2-1B, but for its scaled positions and longer context; `tiny` is for trying the script."""


class Member(NamedTuple):
    """One member of the pool.

    Attributes:
        name: Its name.
        model: Folder of its base.
        adapter: Folder of its adapter; None for none.
    """

    name: str
    model: Path
    adapter: Path | None


def make_members(work: Path, size: str, count: int) -> list[Member]:
    """Return `count` members, all but the last adapters over one base; what is in the folder already is kept.

    Args:
        work: Where they are made.
        size: Of SHAPES.
        count: At least 2.
    """
    shape = SHAPES[size]
    # Those of another shape, kept from an earlier version of this file, must not be taken for these.
    folder = work / f"{size}-{hashlib.sha256(repr(shape).encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    bases = [_made(folder / f"base-{seed}", partial(_write_base, shape, seed)) for seed in (1, 2)]
    adapters = [
        _made(folder / f"adapter-{seed}", partial(_write_adapter, shape, seed, bases[0])) for seed in range(1, count)
    ]
    return [*(Member(path.name, bases[0], path) for path in adapters), Member("other-base", bases[1], None)]


def _made(folder: Path, write: Callable[[Path], None]) -> Path:
    if not folder.exists():
        # Under its name only when it is whole, as it may be interrupted.
        begun = folder.with_name(f"{folder.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir()
        write(begun)
        begun.rename(folder)
    return folder


def _write_base(shape: Shape, seed: int, folder: Path) -> None:
    bars: Any = logging
    bars.disable_progress_bar()
    config = shape.config
    config.dtype = torch.bfloat16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cast("Any", AutoModelForCausalLM).from_config(config, dtype=torch.bfloat16)
    words = _tokenizer()
    # What the tokeniser does not know is never the likeliest, or answers would have no text to compare.
    with torch.no_grad():
        model.get_input_embeddings().weight[len(words) :] *= _UNKNOWN
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def _write_adapter(shape: Shape, seed: int, base: Path, folder: Path) -> None:
    """Write an adapter as peft would, without loading the base."""
    targets = [place.rpartition(".")[2] for place in shape.projections]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=targets,
        base_model_name_or_path=str(base),
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    chance = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for layer in range(shape.layers):
        for place, (read, written) in shape.projections.items():
            name = f"base_model.model.model.layers.{layer}.{place}"
            first = torch.randn(RANK, read, generator=chance) * (3 * read) ** -0.5
            second = torch.randn(written, RANK, generator=chance) * shape.adapter_spread
            weights[f"{name}.lora_A.weight"] = first.to(torch.bfloat16)
            weights[f"{name}.lora_B.weight"] = second.to(torch.bfloat16)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE in which every word of WORDS, and every letter, is one token after a blank."""
    words = Tokenizer(models.BPE(unk_token=None))
    cast("Any", words).pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cast("Any", words).decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPES["tiny"].vocabulary,
        special_tokens=["<s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([f" {word}" * 4 for word in (*WORDS, "A", "B", "C", "D", "Case", "Answer")], trainer)
    cast("Any", words).post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.token_to_id("<s>"))]
    )
    wrapped: PreTrainedTokenizerFast = cast("Any", PreTrainedTokenizerFast)(
        tokenizer_object=words, bos_token="<s>", pad_token="<pad>", model_max_length=CONTEXT
    )
    return wrapped


def shape_json(size: str) -> dict[str, float]:
    """Return the numbers of a shape, for the record of a run."""
    return asdict(SHAPES[size]) | {"adapter_rank": RANK, "context": CONTEXT}
