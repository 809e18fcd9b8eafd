"""Write an untrained encoder-decoder that topla_summary can be trained from.

    python benchmarks/fusers/summary/make_fuser.py --out FOLDER

A small LED with random weights and the tokeniser of this pool's members, with tokens of its own to begin, to end and to
pad. Delimiters are not among its tokens: the fuser adds those.
"""

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import normalizers
from transformers import LEDConfig, LEDForConditionalGeneration, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.fusers.summary.teaching import vocabulary
from benchmarks.members.architectures import INITIAL_SCALE
from benchmarks.members.tokenizer import make_tokenizer
from benchmarks.members.train import save_tokenizer

HIDDEN, LAYERS, HEADS, INNER = 64, 2, 2, 128
WINDOW = 16
"""Tokens that local attention spans: an answer with its delimiters has eight. Every token of a question sees all."""
LONGEST_INPUT, LONGEST_ANSWER = 512, 64


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the members' tokeniser with a beginning and a padding that are not its end.

    A blank is put before every text: a word is the same token wherever it stands, so that it can be copied.
    """
    made = make_tokenizer(vocabulary())
    made.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    made.add_special_tokens({"bos_token": "<|begin|>", "pad_token": "<|pad|>"})
    made.model_max_length = LONGEST_INPUT
    return made


def model(words: PreTrainedTokenizerFast, *, seed: int) -> LEDForConditionalGeneration:
    """Return an LED with random weights."""
    torch.manual_seed(seed)
    config = LEDConfig(
        vocab_size=len(words),
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        attention_window=[WINDOW] * LAYERS,
        max_encoder_position_embeddings=LONGEST_INPUT,
        max_decoder_position_embeddings=LONGEST_ANSWER,
        dropout=0.0,
        init_std=INITIAL_SCALE,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.bos_token_id,
    )
    return LEDForConditionalGeneration(config)


def main() -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for config, weights and tokeniser")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    arguments = parser.parse_args()
    words = tokenizer()
    made = model(words, seed=arguments.seed)
    made.save_pretrained(arguments.out)
    save_tokenizer(words, arguments.out)
    print(f"{arguments.out}: {sum(value.numel() for value in made.parameters()):,} parameters, {len(words)} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
