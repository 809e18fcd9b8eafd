"""A trained comparer of two answers: a sequence classifier with one logit, made, taught and run."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusion.fusers._models import Source, accelerated, batches, held_out, padded, plain_tokens
from fusion.schema import FloatArray
from fusion.training import OwnFolder, Told, Trained, TrainOptions, keep_folder, load_library, train

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PURPOSE = "rank"
_MARKS = 4
"""Tokens around question and answers, at most."""


class Comparison(NamedTuple):
    """Two answers to a question, as text.

    Attributes:
        question: What was asked.
        first, second: The answers.
    """

    question: str
    first: str
    second: str


class Lesson(NamedTuple):
    """A comparison of which it is known who is better.

    Attributes:
        question_id: Id of the question.
        compared: The better answer comes first.
    """

    question_id: str
    compared: Comparison


class Home:
    """The folder of a trained comparer, which copies of a fuser share.

    Args:
        path: Where it is; None for a temporary folder, which goes when nobody refers to it any more.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._own = OwnFolder()
            path = self._own.path
        self.path = path
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> "Home":
        return self

    def __reduce__(self) -> tuple[type["Home"], tuple[Path]]:
        return Home, (self.path,)

    def teach(
        self,
        model: str,
        lessons: Sequence[Lesson],
        *,
        lengths: tuple[int, int],
        options: TrainOptions,
        told: Told | None,
        tensorboard: bool,
    ) -> Trained:
        """Train a comparer on lessons, each in both orders; what is there already is not done again.

        Args:
            model: Folder or name of the model to begin with.
            lessons: What to learn.
            lengths: Most tokens of a question, and of an answer.
            options: How.
            told: Told of every step.
            tensorboard: Whether losses are logged for TensorBoard.

        Raises:
            InputError: When there is no such model.
            MissingDependency: When transformers is not installed.
        """
        source = _source(model)
        tokenizer = source.tokenizer(_PURPOSE)
        layout = _Layout.of(tokenizer, source.config(_PURPOSE), lengths)
        unseen = held_out([lesson.question_id for lesson in lessons], options.seed)
        parts: dict[bool, list[dict[str, list[int]]]] = {False: [], True: []}
        for lesson in lessons:
            said = lesson.compared
            for compared, label in ((said, 1), (said._replace(first=said.second, second=said.first), 0)):
                example = {"input_ids": layout.encode(compared)[0], "labels": [label]}
                parts[lesson.question_id in unseen].append(example)
        said_all = json.dumps([source.content(), lengths, repr(options), parts[False], parts[True]])
        trained = train(
            lambda: _model(model, tokenizer),
            parts[False],
            parts[True],
            collate=_Collate(layout.pad),
            folder=self.path,
            mark=hashlib.sha256(said_all.encode()).hexdigest(),
            options=options,
            tokenizer=tokenizer,
            told=told,
            tensorboard=tensorboard,
        )
        self._loaded = None
        return trained

    def keep(self, folder: Path) -> None:
        """Copy the comparer into `folder`.

        Raises:
            OutputError: When it cannot be written.
        """
        keep_folder(self.path / "model", folder / "model")

    def logits(self, compared: Sequence[Comparison], *, lengths: tuple[int, int]) -> tuple[FloatArray, int]:
        """Return float64 [P], how much the first answer of each is better than the second, in log odds.

        Beside it, how many answers were cut.

        Raises:
            InputError: When there is no trained comparer.
        """
        # Neither a tokenizer nor a model may be used by two threads at once.
        with self._lock:
            if self._loaded is None:
                self._loaded = _Loaded.of(self.path / "model")
            return self._loaded.logits(compared, lengths)


class _Layout(NamedTuple):
    """How a comparison becomes tokens: [start] question [end] first [end] second [end].

    Attributes:
        tokenizer: Reads text; control tokens in it are text.
        start, end: Tokens around the parts; none where the tokenizer has none.
        pad: Token to fill up with.
        lengths: Most tokens of a question, and of an answer.
    """

    tokenizer: "PreTrainedTokenizerBase"
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    lengths: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Any, config: Any, lengths: tuple[int, int]) -> "_Layout":
        start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        room = int(getattr(config, "max_position_embeddings", 0) or 1 << 30) - _MARKS
        question, answer = lengths
        if question + 2 * answer > room:
            question = min(question, room // 3)
            answer = (room - question) // 2
        ends = tuple(() if token is None else (int(token),) for token in (start, end))
        return cls(tokenizer, ends[0], ends[1], int(tokenizer.pad_token_id), (question, answer))

    def encode(self, compared: Comparison) -> tuple[list[int], int]:
        """Return the tokens, and how many of the answers lost some: of what is too long, both ends stay."""
        tokens, num_cut = list(self.start), 0
        for text, most in zip(compared, (self.lengths[0], self.lengths[1], self.lengths[1]), strict=True):
            ids = plain_tokens(self.tokenizer, text)
            if len(ids) > most:
                num_cut += text is not compared.question
                ids = ids[: most // 2] + ids[len(ids) - (most - most // 2) :]
            tokens += [*ids, *self.end]
        return tokens, num_cut


class _Loaded(NamedTuple):
    model: Any
    tokenizer: "PreTrainedTokenizerBase"

    @classmethod
    def of(cls, folder: Path) -> "_Loaded":
        tokenizer = _source(folder).tokenizer(_PURPOSE)
        model: Any = _model(folder, tokenizer)
        return cls(accelerated(model).eval(), tokenizer)

    def logits(self, compared: Sequence[Comparison], lengths: tuple[int, int]) -> tuple[FloatArray, int]:
        import torch

        layout = _Layout.of(self.tokenizer, self.model.config, lengths)
        encoded = [layout.encode(item) for item in compared]
        rows = [ids for ids, _ in encoded]
        found_P = np.zeros(len(rows))
        for batch in batches([len(ids) for ids in rows]):
            tensors = _tensors([rows[i] for i in batch], layout.pad)
            with torch.inference_mode():
                said_B1 = self.model(**{name: value.to(self.model.device) for name, value in tensors.items()}).logits
            found_P[batch] = said_B1[:, 0].float().cpu().numpy()
        return found_P, sum(num_cut for _, num_cut in encoded)


class _Collate:
    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, batch: Sequence[Mapping[str, Sequence[int]]]) -> "dict[str, torch.Tensor]":
        import torch

        labels_B1 = torch.tensor([list(one["labels"]) for one in batch], dtype=torch.float32)
        return _tensors([one["input_ids"] for one in batch], self.pad) | {"labels": labels_B1}


def _tensors(rows: Sequence[Sequence[int]], pad: int) -> "dict[str, torch.Tensor]":
    """Return the tokens and which of them are to be read, both [B, T], padded at the right."""
    return {"input_ids": padded(rows, pad), "attention_mask": padded([[1] * len(row) for row in rows], 0)}


def _model(model: str | Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Return a classifier with one logit, learned as the log odds of a yes."""
    transformers = load_library(_PURPOSE)
    with _source(model).told_missing():
        made: PreTrainedModel = transformers.AutoModelForSequenceClassification.from_pretrained(
            model,
            num_labels=1,
            problem_type="multi_label_classification",
            pad_token_id=tokenizer.pad_token_id,
            ignore_mismatched_sizes=True,
        )
    return made


def _source(model: str | Path) -> Source:
    return Source(
        model,
        "rank cannot load the model {}",
        "give the folder of a model that transformers can make a sequence classifier of, or its name on the hub",
    )
