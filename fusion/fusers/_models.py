"""Models of transformers that fusers train: found, named, fed and put where they run."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import InputError
from fusion.training import load_library, quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

TOKENS_AT_ONCE = 16_384
"""Tokens that a model reads in one batch, padding included."""
_HELD_OUT = 0.1
"""Share of the questions that training does not see."""


class Source(NamedTuple):
    """A model to begin with or to go on from.

    Attributes:
        model: What a user named, as a string; a path is a folder that training left.
        absent: What to say, before the reason, when there is no such model, with a place for its name.
        remedy: What to do then.
    """

    model: str | Path
    absent: str
    remedy: str

    @contextlib.contextmanager
    def told_missing(self) -> Iterator[None]:
        """Turn what the libraries raise for a model that is not there, or damaged, into one error.

        Raises:
            InputError: When that happens.
        """
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError

        if isinstance(self.model, str) and self.model.startswith(("/", ".", "~")) and not Path(self.model).is_dir():
            raise self._missing("there is no such folder")
        try:
            with quiet():
                yield
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(self.model, Path):
                raise InputError(f"the trained model in {self.model} cannot be read: {first}; fit again") from error
            raise self._missing(first) from error

    def tokenizer(self, purpose: str) -> "PreTrainedTokenizerBase":
        """Return the tokenizer; one that has no token to pad with takes the one that ends a text.

        Raises:
            InputError: When there is none.
        """
        transformers = load_library(purpose)
        with self.told_missing():
            tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(self.model)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def config(self, purpose: str) -> Any:
        """Return the configuration.

        Raises:
            InputError: When there is none.
        """
        transformers = load_library(purpose)
        with self.told_missing():
            return transformers.AutoConfig.from_pretrained(self.model)

    def content(self) -> str:
        """Return what names the model: a hash of the files in its folder, else its name on the hub."""
        folder = Path(self.model)
        if not folder.is_dir():
            return str(self.model)
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
        return digest.hexdigest()

    def _missing(self, why: str) -> InputError:
        return InputError(f"{self.absent.format(repr(str(self.model)))}: {why}; {self.remedy}")


def accelerated(model: Any) -> Any:
    """Return the model on this process's accelerator, where there is one."""
    import torch

    return model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}") if torch.cuda.is_available() else model


def plain_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the tokens of text: what looks like a control token in it is none."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return ids


def padded(rows: Sequence[Sequence[int]], fill: int, *, left: bool = False, width: int | None = None) -> "torch.Tensor":
    """Return rows as one tensor, int64 [B, T], filled up to the longest or to `width`, at the right or left."""
    import torch

    width = max(map(len, rows)) if width is None else width
    gaps = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor([[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)])


def batches(lengths: Sequence[int], *, most: int | None = None) -> Iterator[list[int]]:
    """Yield positions of rows of about one length, so that little is padded.

    Args:
        lengths: Tokens of each row.
        most: Most rows of a batch; by default as many as fit.
    """
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[n] > TOKENS_AT_ONCE):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def held_out(ids: Iterable[str], seed: int, *, most: int | None = None) -> frozenset[str]:
    """Return the tenth of the questions that training does not see: those whose hashes with the seed come first.

    Args:
        ids: Their ids.
        seed: Another seed, another tenth.
        most: At most so many.
    """
    drawn = sorted(set(ids), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    count = round(_HELD_OUT * len(drawn))
    return frozenset(drawn[: count if most is None else min(count, most)])
