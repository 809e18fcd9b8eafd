"""A model that reads a question with its candidates and writes the answer: made, fed, and run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusion.fusers._models import Source, accelerated, batches, padded
from fusion.fusers._sequence import Row, delimiters
from fusion.schema import FloatArray
from fusion.training import Told, load_library, progress, quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""Label of a place where no token is to be learned, in torch and transformers alike."""
_SCORE_BYTES = 1 << 28
_PURPOSE = "topla_summary"


class About(NamedTuple):
    """What a model's configuration says.

    Attributes:
        limit: Tokens that it can read, those that it writes included for a causal model.
        writes: Tokens that it can write.
        causal: Whether what is read and written is one sequence; else it has an encoder and a decoder.
        attends: Whether it has global attention on tokens that are chosen (Longformer and its kin).
    """

    limit: int
    writes: int
    causal: bool
    attends: bool


class Writer(NamedTuple):
    """A model and its tokenizer.

    Attributes:
        model: Encoder-decoder, or causal.
        tokenizer: Knows the delimiters.
        about: What the model is.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    about: About


def load_tokenizer(model: str | Path, num_agents: int) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model with the delimiters of `num_agents` candidates added.

    Args:
        model: What a user named, as a string; a path is a folder that training left.
        num_agents: M.

    Raises:
        InputError: When there is none.
    """
    transformers = load_library(_PURPOSE)
    tokenizer = _source(model).tokenizer(_PURPOSE)
    new = [
        transformers.AddedToken(token, special=True, normalized=False, lstrip=False, rstrip=False)
        for token in delimiters(num_agents)
    ]
    tokenizer.add_tokens(new, special_tokens=True)
    return tokenizer


def describe(model: str | Path) -> About:
    """Return what a model is, told apart as in `load_tokenizer`.

    Raises:
        InputError: When there is none.
    """
    config = _source(model).config(_PURPOSE)
    causal, window = not config.is_encoder_decoder, getattr(config, "attention_window", None)
    reads = _positions(config, "max_encoder_position_embeddings", "max_position_embeddings", "n_positions")
    writes = _positions(config, "max_decoder_position_embeddings", "max_position_embeddings")
    # Longformers pad what they read to whole windows, and need positions for that too.
    widest = max(window) if isinstance(window, list) else window or 1
    return About(reads - reads % widest, writes, causal, window is not None)


def load_writer(model: str | Path, tokenizer: "PreTrainedTokenizerBase", *, run: bool = False) -> Writer:
    """Return a model whose vocabulary has room for the delimiters.

    Args:
        model: As in `load_tokenizer`.
        tokenizer: Knows the delimiters.
        run: Whether to move it to this process's accelerator, where there is one.

    Raises:
        InputError: When there is none, or it neither writes after what it reads nor from it.
    """
    transformers, about = load_library(_PURPOSE), describe(model)
    kind = transformers.AutoModelForCausalLM if about.causal else transformers.AutoModelForSeq2SeqLM
    with _source(model).told_missing():
        made: PreTrainedModel = kind.from_pretrained(model)
    # Widths, lengths and forbidden repetitions that a model was published with are not for the answers here.
    old: Any = made.generation_config
    made.generation_config = transformers.GenerationConfig(
        bos_token_id=old.bos_token_id,
        eos_token_id=old.eos_token_id,
        pad_token_id=old.pad_token_id,
        # Training begins what is written with the token that the configuration names.
        decoder_start_token_id=getattr(made.config, "decoder_start_token_id", old.decoder_start_token_id),
    )
    if made.get_input_embeddings().num_embeddings < len(tokenizer):  # type: ignore[operator]
        made.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return Writer(accelerated(made) if run else made, tokenizer, about)


def content(model: str | Path) -> str:
    """Return what names a model to begin with; see `Source.content`."""
    return _source(model).content()


def example(row: Row, target: Sequence[int], *, causal: bool, end: int) -> dict[str, list[int]]:
    """Return one example: what is read, what of it is global, and what is to be written."""
    written = [*target, end]
    if causal:
        tokens = [*row.tokens, *written]
        return {"input_ids": tokens, "labels": [IGNORED] * len(row.tokens) + written, "asked": [row.asked]}
    return {"input_ids": row.tokens, "labels": written, "asked": [row.asked]}


class Collate:
    """Makes batches, padded at the right.

    Args:
        pad: Token to pad with.
        attends: Whether the model takes a mask of the tokens that attend to everything (LED).
    """

    def __init__(self, pad: int, *, attends: bool) -> None:
        self.pad = pad
        self.attends = attends

    def __call__(self, batch: Sequence[Mapping[str, Sequence[int]]]) -> "dict[str, torch.Tensor]":
        """Return tensors [B, T]; labels are -100 where there is nothing to learn."""
        made = reading([Row(list(one["input_ids"]), one["asked"][0]) for one in batch], self.pad, attends=self.attends)
        return made | {"labels": padded([one["labels"] for one in batch], IGNORED)}


def reading(rows: Sequence[Row], pad: int, *, attends: bool, left: bool = False) -> "dict[str, torch.Tensor]":
    """Return what a model reads, int64 [B, T]: tokens, and masks of those that are there and those that are global.

    Args:
        rows: B questions.
        pad: Token to pad with.
        attends: Whether to return the global mask, which covers the question.
        left: Whether to pad at the left, as generation with causal models needs.
    """
    tokens = [row.tokens for row in rows]
    made = {
        "input_ids": padded(tokens, pad, left=left),
        "attention_mask": padded([[1] * len(ids) for ids in tokens], 0, left=left),
    }
    if attends:
        made["global_attention_mask"] = padded([[1] * row.asked for row in rows], 0, width=max(map(len, tokens)))
    return made


def write(
    writer: Writer,
    rows: Sequence[Row],
    *,
    max_tokens: int,
    num_beams: int,
    told: Told | None = None,
) -> tuple[list[str], FloatArray]:
    """Return the answers, and the mean log-probability of their tokens in nats, float64 [N].

    Args:
        writer: Model and tokenizer.
        rows: N questions.
        max_tokens: Most tokens to write.
        num_beams: Width of the beam search; 1 takes the likeliest token.
        told: Told of every batch; by default a bar on stderr when that is a terminal.
    """
    tokenizer, end = writer.tokenizer, _id(writer.tokenizer.eos_token_id)
    writer.model.eval()  # type: ignore[no-untyped-call]
    texts, logprobs_N, done = [""] * len(rows), np.zeros(len(rows)), 0
    with progress(told) as step:
        lengths = [len(row.tokens) for row in rows]
        for places in batches(lengths, most=_most_rows(writer, max_tokens * num_beams)):
            written, scores = _generate(writer, [rows[n] for n in places], max_tokens, num_beams)
            for n, tokens, logprobs in zip(places, written, scores, strict=True):
                length = tokens.index(end) + 1 if end in tokens else len(tokens)
                texts[n] = str(tokenizer.decode(tokens[:length], skip_special_tokens=True)).strip()
                logprobs_N[n] = np.mean(logprobs[:length]) if length else 0.0
            done += len(places)
            step("writing", done, len(rows))
    return texts, logprobs_N


def _generate(
    writer: Writer, rows: Sequence[Row], max_tokens: int, num_beams: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Return the tokens written for each row, and their log-probabilities."""
    import torch

    model: Any = writer.model
    pad = _id(writer.tokenizer.pad_token_id)
    fed = reading(rows, pad, attends=writer.about.attends, left=writer.about.causal)
    # Some models draw random numbers that they then do not use.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices=devices), quiet():
        made = model.generate(
            **{name: value.to(model.device) for name, value in fed.items()},
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=num_beams,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=pad,
            eos_token_id=_id(writer.tokenizer.eos_token_id),
        )
        beams = made.beam_indices if num_beams > 1 else None
        scores_BT = model.compute_transition_scores(made.sequences, made.scores, beams, normalize_logits=True)
    written_BT = made.sequences[:, made.sequences.shape[1] - scores_BT.shape[1] :]
    return written_BT.tolist(), scores_BT.double().tolist()


def _most_rows(writer: Writer, num_tokens: int) -> int:
    """Return how many rows may be written at a time, as the scores of all words at every step are kept."""
    vocabulary = writer.model.get_input_embeddings().num_embeddings
    return max(_SCORE_BYTES // (4 * int(vocabulary) * num_tokens), 1)  # type: ignore[arg-type]


def _positions(config: Any, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    # Models with relative positions, such as T5, read any length.
    return 1 << 20


def _id(token: int | list[int] | None) -> int:
    assert isinstance(token, int), "a tokenizer has one token to end with, and one to pad with"
    return token


def _source(model: str | Path) -> Source:
    return Source(
        model,
        "topla_summary found no model that it can train at {}",
        "give model= the folder, or the name on the hub, of an encoder-decoder (LED, BART, T5) or causal model",
    )
