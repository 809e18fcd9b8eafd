"""Random models of a few thousand weights, with tokenisers and LoRA adapters, made in a folder in seconds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LEDConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT

CONTEXT = 256
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>")
Vocabulary = Literal["english", "numbers"]

_TEXTS: dict[Vocabulary, list[str]] = {
    "english": [
        "The capital of France is Paris. The capital of Italy is Rome. Which of these is the capital of Spain?",
        "Question: what is two and two? Answer: four. Question: what is the answer? Answer: A",
        "A. one\nB. two\nC. three\nD. four\nAnswer: B",
    ],
    "numbers": ["1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", "12 + 13 = 25\n7 * 8 = 56"],
}


class TinyModels:
    """Makes models in a folder, each once; the same arguments give the same folder and the same weights.

    Args:
        root: Where they are made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def llama(
        self,
        *,
        seed: int = 0,
        template: str | None = None,
        pad: bool = True,
        bos: bool = True,
        vocabulary: Vocabulary = "english",
        name: str = "",
        hidden: int = 32,
        layers: int = 2,
        spread: float = 0.3,
        context: int = CONTEXT,
    ) -> Path:
        """Return the folder of a Llama.

        Args:
            seed: Of the weights.
            template: Chat template as Jinja text; None for none.
            pad: Whether the tokeniser has a pad token.
            bos: Whether the tokeniser puts <s> before text.
            vocabulary: On what the tokeniser was trained.
            name: Of the folder; made of the other arguments by default.
            hidden: Width of the layers.
            layers: Number of layers.
            spread: Standard deviation of the weights; the larger, the surer of itself is the model.
            context: Most tokens of prompt and answer.
        """
        parts = [seed, len(template or ""), pad, bos, vocabulary, hidden, layers, spread, context]
        return self.built(
            LlamaConfig(
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                initializer_range=spread,
            ),
            name or "llama-" + "-".join(map(str, parts)),
            words=_tokenizer(template=template, pad=pad, bos=bos, vocabulary=vocabulary),
            seed=seed,
        )

    def led(
        self,
        *,
        seed: int = 0,
        words: Sequence[str] = (),
        name: str = "",
        hidden: int = 16,
        layers: int = 1,
        spread: float = 0.1,
        window: int = 16,
        context: int = CONTEXT,
        writes: int = 32,
        dropout: float = 0.0,
    ) -> Path:
        """Return the folder of an LED: encoder and decoder, with global attention on the tokens that are named.

        Args:
            seed: Of the weights.
            words: All words that it knows, a token each; by default the tokeniser is that of the Llamas.
            name: Of the folder; made of the other arguments by default.
            hidden: Width of the layers.
            layers: Number of layers, of encoder and decoder each.
            spread: Standard deviation of the weights.
            window: How far a token sees, half of it to either side.
            context: Most tokens to read.
            writes: Most tokens to write.
            dropout: Share of the activations dropped in training.
        """
        parts = [seed, len(words), hidden, layers, spread, window, context, writes, dropout]
        return self.built(
            LEDConfig(
                d_model=hidden,
                encoder_layers=layers,
                decoder_layers=layers,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=2 * hidden,
                decoder_ffn_dim=2 * hidden,
                attention_window=window,
                max_encoder_position_embeddings=context,
                max_decoder_position_embeddings=writes,
                init_std=spread,
                dropout=dropout,
                attention_dropout=0.0,
            ),
            name or "led-" + "-".join(map(str, parts)),
            words=closed_words(words) if words else None,
            seed=seed,
        )

    def built(
        self, config: PretrainedConfig, name: str, *, seed: int = 0, words: PreTrainedTokenizerFast | None = None
    ) -> Path:
        """Return the folder of a model of any kind.

        Args:
            config: What to build; its vocabulary and special tokens are set to those of the tokeniser.
            name: Of the folder.
            seed: Of the weights.
            words: Its tokeniser; by default one with all special tokens.
        """
        folder = self.root / name
        if not folder.exists():
            words = words or _tokenizer(template=None, pad=True, bos=True, vocabulary="english")
            config.vocab_size = len(words)
            config.bos_token_id, config.eos_token_id = words.bos_token_id, words.eos_token_id
            config.pad_token_id = words.pad_token_id
            config.dtype = torch.float32
            kind: Any = AutoModelForCausalLM
            if config.is_encoder_decoder:
                kind, config.decoder_start_token_id = AutoModelForSeq2SeqLM, words.eos_token_id
            with quiet(), _seeded(seed):
                kind.from_config(config).save_pretrained(folder)
            words.save_pretrained(folder)
        return folder

    def lora(self, base: Path, *, seed: int, name: str = "", **config: Any) -> Path:
        """Return the folder of a LoRA adapter over `base`, none of whose factors is zero.

        Args:
            base: Folder of the model that it belongs to.
            seed: Of its weights.
            name: Of the folder.
            **config: What is to be unlike a plain LoRA on the attention's queries and values.
        """
        folder = self.root / (name or f"{base.name}-lora-{seed}")
        if not folder.exists():
            plan: dict[str, Any] = {
                "r": 4,
                "lora_alpha": 8,
                "lora_dropout": 0.5,
                "target_modules": ["q_proj", "v_proj"],
                **config,
            }
            with quiet(), _seeded(seed):
                model = AutoModelForCausalLM.from_pretrained(base)
                wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **plan))
                for key, weight in wrapped.named_parameters():
                    if ".lora_B." in key:
                        torch.nn.init.normal_(weight, std=0.5)
                wrapped.save_pretrained(str(folder))
        return folder

    def edited(self, base: Path, name: str, *, file: str = "config.json", **fields: object) -> Path:
        """Return a copy of `base` under another name in which a JSON file has other fields."""
        folder = self.root / name
        if not folder.exists():
            folder.mkdir()
            for path in base.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            old = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(old | fields))
        return folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no progress bars."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def closed_words(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokeniser that knows these words, a token each, and nothing else."""
    special = SPECIAL[:4]
    closed = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*special, *words])}, unk_token="<unk>"))
    closed.pre_tokenizer = pre_tokenizers.Whitespace()
    return cast("Any", PreTrainedTokenizerFast)(  # type: ignore[no-any-return]
        tokenizer_object=closed, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _tokenizer(*, template: str | None, pad: bool, bos: bool, vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    special = [token for token in SPECIAL if pad or token != "<pad>"]
    words = Tokenizer(models.BPE(unk_token=None))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(_TEXTS[vocabulary], trainer)
    if bos:
        words.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", words.token_to_id("<s>"))]
        )
    wrapped: PreTrainedTokenizerFast = cast("Any", PreTrainedTokenizerFast)(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>" if pad else None,
        model_max_length=10**30,
    )
    wrapped.chat_template = template
    return wrapped
