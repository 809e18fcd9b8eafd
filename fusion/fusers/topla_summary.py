r"""LLM-TOPLA-Summary: a sequence-to-sequence model reads the question and all answers, and writes the fused one.

Reference: Tekin, Ilhan, Huang, Hu and Liu 2024, LLM-TOPLA: Efficient LLM Ensemble by Maximising Diversity,
    arXiv:2410.03953, section on open-ended generation; Beltagy, Peters and Cohan 2020, Longformer,
    arXiv:2004.05150 (LED).
Equations: with delimiters as new tokens, x = [BOQ] q [EOQ] [BOC0] c_0 [EOC0] [BOC1] c_1 [EOC1] ..., the model is
    trained to minimise -sum_t log p(y_t | y_<t, x) over the tokens of the reference y. Where it has global attention
    (LED), that is on the question with its delimiters; all else attends to a window.
Deviations: the paper cuts candidates to their last six sentences; here candidates and questions are cut to numbers of
    tokens, and `cuts_` and `notes` say how often. Candidates stand in the order of accuracy on the fit questions, so
    that the pool's order is nothing; an agent that is not selected, or abstains, leaves its place empty. Text that
    looks like a delimiter is none. Where all that are heard say the same, that is the answer, and nothing is written.
    Any encoder-decoder or causal model will do; a causal one reads x [ANS] and writes y behind it. Training ends early
    on questions that are held out, and these calibrate the confidence (Platt: logistic in the mean log-probability of
    the tokens written; Platt 1999); where all agree it is the share of such questions of fit that they had right.
    Among options that are given, what is written and is none of them gives way to the plurality.

Example:
    What is read, before it is tokens:

    >>> from fusion.fusers._sequence import delimiters
    >>> opened, closed, *around, answer = delimiters(2)
    >>> f"{opened}2+2?{closed}{around[0]}4{around[1]}{around[2]}five{around[3]}"
    '[BOQ]2+2?[EOQ][BOC0]4[EOC0][BOC1]five[EOC1]'
"""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt, Lt

from fusion.data import PredictionTable, by_accuracy, canonical, is_open
from fusion.errors import ConfigError, InputError, InvalidTable
from fusion.fusers._models import held_out
from fusion.fusers._placing import place
from fusion.fusers._sequence import Cuts, Keep, Reader, Row, targets, texts_of
from fusion.fusers._votes import leading, not_fitted, ranking, settle, tally
from fusion.fusers._writer import (
    About,
    Collate,
    Writer,
    content,
    describe,
    example,
    load_tokenizer,
    load_writer,
    write,
)
from fusion.schema import BoolArray, Decision, FloatArray, IntArray, Selection
from fusion.training import OwnFolder, Told, Trained, TrainOptions, keep_folder, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_HELD_OUT = 2_000
"""Questions that training does not see, at most: to stop by, and to calibrate the confidence on."""
_TURN = threading.Lock()
"""Tokenizers are not for two threads at a time, and models on one device would not be faster."""


@dataclass(kw_only=True)
class ToplaSummary:
    """Train a model to write the right answer from the question and everybody's answers.

    Args:
        model: Folder or name on the hub of the model to begin with.
        question_tokens, candidate_tokens: Most tokens of a question, and of one candidate.
        keep: Which end stays of what is too long.
        max_tokens: Most tokens to write.
        num_beams: Width of the beam search; 1 takes the likeliest token.
        epochs, learning_rate, batch_size, accumulate, warmup, patience, precision, gradient_checkpointing, seed: See
            `fusion.training.TrainOptions`.
    """

    slow: ClassVar[bool] = True

    model: str = "allenai/led-base-16384"
    question_tokens: Annotated[int, Ge(1)] = 1024
    candidate_tokens: Annotated[int, Ge(1)] = 512
    keep: Keep = "both"
    max_tokens: Annotated[int, Ge(1)] = 128
    num_beams: Annotated[int, Ge(1)] = 1
    epochs: Annotated[float, Gt(0)] = 5.0
    learning_rate: Annotated[float, Gt(0)] = 5e-5
    batch_size: Annotated[int, Ge(1)] = 8
    accumulate: Annotated[int, Ge(1)] = 1
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    patience: Annotated[int, Ge(1)] = 2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    seed: Annotated[int, Ge(0)] = 0
    agents_: tuple[str, ...] = field(default=(), init=False, repr=False)
    accuracies_: FloatArray | None = field(default=None, init=False, repr=False)
    open_: bool = field(default=True, init=False, repr=False)
    calibration_: FloatArray | None = field(default=None, init=False, repr=False)
    agreed_: float = field(default=0.5, init=False, repr=False)
    held_out_: tuple[int, int] = field(default=(0, 0), init=False, repr=False)
    cuts_: tuple[int, ...] = field(default=(), init=False, repr=False)
    trained_: Trained | None = field(default=None, init=False, repr=False, compare=False)
    _told: Told | None = field(default=None, init=False, repr=False, compare=False)
    _tensorboard: bool = field(default=False, init=False, repr=False, compare=False)
    _workplace: Path | None = field(default=None, init=False, repr=False, compare=False)
    _own: OwnFolder | None = field(default=None, init=False, repr=False, compare=False)
    _home: Path | None = field(default=None, init=False, repr=False, compare=False)
    _writer: Writer | None = field(default=None, init=False, repr=False, compare=False)
    _cut_last: Cuts | None = field(default=None, init=False, repr=False, compare=False)

    def learn_in(self, folder: Path, told: Told | None = None, *, tensorboard: bool = False) -> None:
        """Train in `folder`, so that a run that was cut short goes on there."""
        self._workplace, self._told, self._tensorboard = folder, told, tensorboard

    def save_files(self, folder: Path) -> None:
        """Copy the trained model into `folder`."""
        if self._home is not None:
            keep_folder(self._home / "model", folder / "model")

    def load_files(self, folder: Path) -> None:
        """Take the model in `folder` when it is needed.

        Raises:
            InputError: When there is none.
        """
        self._home, self._writer = folder, None
        if isinstance(self.trained_, tuple):
            self.trained_ = Trained(*self.trained_)
        if self.trained_ is not None and not (folder / "model").is_dir():
            raise InputError(f"there is no trained model in {folder}; fit and save the ensemble again")

    def fit(self, table: PredictionTable, selection: Selection) -> Self:
        """Train on the questions whose right answer is known.

        Raises:
            InvalidTable: When the table lacks labels, questions, or the texts of answers, or no right answer is known.
            InputError: When there is no such model.
            ConfigError: When the model cannot write, or read, that much.
            FusionError: When training diverges.
            MissingDependency: When transformers is not installed.
        """
        table.require_labels()
        self.agents_, self.accuracies_, self.open_ = table.agents, table.accuracies, is_open(table)
        self._writer = None
        tokenizer, about = load_tokenizer(self.model, table.num_agents), describe(self.model)
        wanted = targets(table)
        known = np.array([text is not None for text in wanted])
        if not known.any():
            raise InvalidTable("topla_summary learns to write right answers, and the table has none; give references")
        part = table.rows(known)
        reader = self._reader(tokenizer, about)
        rows = list(reader.rows(part, Selection(selection.mask[known])))
        self.cuts_ = tuple(reader.cuts)
        texts = [text for text in wanted if text is not None]
        ids = part.question_ids.tolist()
        unseen = held_out(ids, self.seed, most=_MOST_HELD_OUT)
        held = np.array([name in unseen for name in ids])
        end = tokenizer.eos_token_id
        assert isinstance(end, int), "a tokenizer has one token that ends a text"
        most = self.max_tokens - 1
        examples = [
            example(row, reader.tokens(text)[:most], causal=about.causal, end=end)
            for row, text in zip(rows, texts, strict=True)
        ]
        folder = self._folder()
        self.trained_ = train(
            lambda: load_writer(self.model, tokenizer).model,
            [one for one, out in zip(examples, held, strict=True) if not out],
            [one for one, out in zip(examples, held, strict=True) if out],
            collate=Collate(tokenizer.pad_token_id, attends=about.attends),
            folder=folder,
            mark=self._mark(examples, held),
            options=self._options(),
            tokenizer=tokenizer,
            told=self._told,
            tensorboard=self._tensorboard,
        )
        self._home = folder
        backed_N, settled_N = self._counted(table, selection)
        agreed_N = backed_N == 1
        # One of each kind is added, so that nothing is certain.
        self.agreed_ = float(((settled_N == table.labels)[agreed_N].sum() + 1) / (agreed_N.sum() + 2))
        asked = np.flatnonzero(held & (backed_N[known] > 1)).tolist()
        self._calibrate([rows[n] for n in asked], [texts[n] for n in asked])
        return self

    def fuse(self, table: PredictionTable, selection: Selection) -> Decision:
        """Write the answer to every question that somebody answers, unless all who do agree.

        Raises:
            NotFitted: Before fit.
            TableMismatch: When the agents are not those of fit.
            InvalidTable: When the table lacks questions, or the texts of answers.
        """
        if self.trained_ is None:
            raise not_fitted(self)
        table.require_agents(self.agents_)
        texts_of(table)
        backed_N, settled_N = self._counted(table, selection)
        open_N = backed_N > 1
        answers_N, texts, confidence_N = settled_N.copy(), _options(table, settled_N), np.zeros(len(table))
        written, logprobs_P = self._written(table.rows(open_N), Selection(selection.mask[open_N]))
        for n, text in zip(np.flatnonzero(open_N).tolist(), written, strict=True):
            option = place(table, selection, n, text)
            if option >= 0 or (self.open_ and text):
                answers_N[n] = option
                texts[n] = text
        confidence_N[open_N] = self._confidence(logprobs_P)
        confidence_N[backed_N == 1] = self.agreed_
        return Decision(answers_N, texts=tuple(texts) if self.open_ else None, confidence=confidence_N)

    def notes(self) -> tuple[str, ...]:
        """Return how training went, and what did not fit into the model, in fit and of what was fused last."""
        told = []
        if self.trained_ is not None:
            right, held = self.held_out_
            ended = ", ended early" if self.trained_.stopped else ""
            told.append(f"{self.trained_.steps} updates, {self.trained_.epochs:.3g} epochs{ended}")
            if self.trained_.loss is not None:
                told.append(f"loss on questions held out: {self.trained_.loss:.3f} nats a token")
            if held:
                told.append(f"right on {right} of the {held} questions held out on which agents differ")
        for when, cuts in (("in fit", Cuts(*self.cuts_)), ("now", self._cut_last)):
            if cuts is not None and cuts.dropped:
                told.append(f"{when}, {cuts}")
        return tuple(f"topla_summary: {what}" for what in told)

    def _counted(self, table: PredictionTable, selection: Selection) -> tuple[IntArray, IntArray]:
        """Return how many options of every question somebody backs, and the one that most do, -1 for none: int [N]."""
        counted = tally(table.answers, selection.mask, table.max_options)
        ranked_M = ranking(self.accuracies_, table.num_agents)
        return counted.backed.sum(axis=1), settle(leading(counted), table.answers, selection.mask, ranked_M)

    def _written(self, table: PredictionTable, selection: Selection) -> tuple[list[str], FloatArray]:
        self._cut_last = None
        if not len(table):
            return [], np.zeros(0)
        with _TURN:
            writer = self._ready()
            reader = self._reader(writer.tokenizer, writer.about)
            rows = list(reader.rows(table, selection))
            self._cut_last = reader.cuts
            return self._write(rows)

    def _write(self, rows: Sequence[Row]) -> tuple[list[str], FloatArray]:
        return write(self._ready(), rows, max_tokens=self.max_tokens, num_beams=self.num_beams, told=self._told)

    def _calibrate(self, rows: Sequence[Row], texts: Sequence[str]) -> None:
        """Learn how often a text of some log-probability is right, from questions held out on which agents differ."""
        from sklearn.linear_model import LogisticRegression

        self.calibration_, self.held_out_ = None, (0, 0)
        if not rows:
            return
        with _TURN:
            written, logprobs_P = self._write(rows)
        right_P = np.array([canonical(said) == canonical(text) for said, text in zip(written, texts, strict=True)])
        self.held_out_ = int(right_P.sum()), len(right_P)
        share = (right_P.sum() + 1) / (len(right_P) + 2)
        slope, offset = 0.0, float(np.log(share / (1 - share)))
        if right_P.any() and not right_P.all():
            line = LogisticRegression(C=10.0).fit(logprobs_P[:, None], right_P)
            # That the model is right where it is less sure is chance.
            if line.coef_[0, 0] > 0:
                slope, offset = float(line.coef_[0, 0]), float(line.intercept_[0])
        self.calibration_ = np.array([slope, offset])

    def _confidence(self, logprobs_P: FloatArray) -> FloatArray:
        if self.calibration_ is None:
            return np.exp(logprobs_P)
        slope, offset = self.calibration_
        # The logistic function, in a form that does not overflow.
        chance_P: FloatArray = np.exp(-np.logaddexp(0, -(slope * logprobs_P + offset)))
        return chance_P

    def _reader(self, tokenizer: "PreTrainedTokenizerBase", about: About) -> Reader:
        if self.max_tokens > about.writes:
            raise ConfigError(
                f"max_tokens is {self.max_tokens}, and the model writes {about.writes} at most; give no more than that"
            )
        assert self.accuracies_ is not None, "fit has labels"
        order = by_accuracy(self.accuracies_, names=self.agents_).tolist()
        return Reader(
            tokenizer=tokenizer,
            order=order,
            limit=about.limit - self.max_tokens if about.causal else about.limit,
            question_tokens=self.question_tokens,
            candidate_tokens=self.candidate_tokens,
            keep=self.keep,
            answers_follow=about.causal,
        )

    def _options(self) -> TrainOptions:
        names = [one.name for one in dataclasses.fields(TrainOptions)]
        return TrainOptions(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def _mark(self, examples: Sequence[object], held: BoolArray) -> str:
        """Return what names the run: everything that its result depends on."""
        digest = hashlib.sha256(json.dumps([content(self.model), *dataclasses.astuple(self._options())]).encode())
        for one, out in zip(examples, held.tolist(), strict=True):
            digest.update(json.dumps([one, out]).encode())
        return digest.hexdigest()

    def _folder(self) -> Path:
        """Return where to train: a new folder unless one was given, as what was saved or copied must stay."""
        if self._workplace is not None:
            return self._workplace
        self._own = OwnFolder()
        return self._own.path

    def _ready(self) -> Writer:
        if self._writer is None:
            assert self._home is not None, "fit and load_files say where the model is"
            folder = self._home / "model"
            self._writer = load_writer(folder, load_tokenizer(folder, len(self.agents_)), run=True)
        return self._writer


def _options(table: PredictionTable, answers_N: IntArray) -> list[str]:
    """Return the options' texts, "" where there is no answer."""
    if table.options is None:
        return ["" for _ in range(len(table))]
    return [row[k] if k >= 0 else "" for row, k in zip(table.options, answers_N.tolist(), strict=True)]


__all__ = ["ToplaSummary"]
