"""Training: batches of one length, loss on answers alone, and hints to inner layers while a trunk is made."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.members.mixtures import Text

BATCH = 32
CHUNK = 32
"""Batches that are sorted by length together."""
_cross_entropy = torch.nn.functional.cross_entropy


class Row(NamedTuple):
    """A text as tokens.

    Attributes:
        ids: Prompt, answer and end.
        prompt: Tokens of the prompt.
        content: Token that begins the right option; -1 for none.
        stem: Position before the first option, where `content` can be known; -1 for none.
        ends: Last position of each option.
        flags: Which options are right, as `Text.flags`.
        units: As `Text.units`.
        tens: As `Text.tens`.
    """

    ids: list[int]
    prompt: int
    content: int
    stem: int
    ends: list[int]
    flags: tuple[int, ...]
    units: int
    tens: int


def rows(found: Sequence[Text], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """Return texts as tokens."""
    prompts = tokenizer([text.prompt for text in found])["input_ids"]
    answers = tokenizer([text.answer for text in found])["input_ids"]
    contents = tokenizer([f" {text.content}" for text in found])["input_ids"]
    breaks = {i for token, i in tokenizer.get_vocab().items() if token.startswith("\u010a")}
    told = []
    for text, prompt, answer, content in zip(found, prompts, answers, contents, strict=True):
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        if not text.flags:
            told.append(Row(ids, len(prompt), -1, -1, [], (), text.units, text.tens))
            continue
        lines = [p for p, token in enumerate(prompt) if token in breaks]
        assert len(lines) == len(text.flags) + 1, "every option has a line of its own, and so has the cue"
        # A word that is spelled begins with a blank of its own.
        first = content[0] if len(content) == 1 else content[1]
        stem = lines[0] - 1 if len(content) == 1 and text.content.isdigit() else -1
        told.append(Row(ids, len(prompt), first, stem, [p - 1 for p in lines[1:]], text.flags, -1, -1))
    return told


def batches(source: Iterator[Text], tokenizer: PreTrainedTokenizerFast, stream: random.Random) -> Iterator[list[Row]]:
    """Yield batches of rows of about one length, for ever, in an order drawn from the stream."""
    while True:
        found = rows([next(source) for _ in range(BATCH * CHUNK)], tokenizer)
        found.sort(key=lambda row: len(row.ids))
        cut = [found[i : i + BATCH] for i in range(0, len(found), BATCH)]
        stream.shuffle(cut)
        yield from cut


class Hints(torch.nn.Module):
    """Linear readers of inner layers, thrown away after training.

    They ask layer 1 for the token before, layer 2 for the letter of an option, the layer two before the last for
    the right option at the end of the question, and the last but one for the right option, at each option and at the
    end of the prompt.

    Args:
        hidden: Width of the model.
        vocabulary: Tokens.
        digits: Whether to ask for digits of numbers that are to be written.
    """

    def __init__(self, hidden: int, vocabulary: int, *, digits: bool) -> None:
        super().__init__()
        self.before = torch.nn.Linear(hidden, vocabulary, bias=False)
        self.stem = torch.nn.Linear(hidden, vocabulary, bias=False)
        self.last = torch.nn.Linear(hidden, vocabulary, bias=False)
        self.letter = torch.nn.Linear(hidden, 5)
        self.flag = torch.nn.Linear(hidden, 2)
        self.units = torch.nn.Linear(hidden, 10) if digits else None
        self.tens = torch.nn.Linear(hidden, 19) if digits else None
        for weights in self.parameters():
            torch.nn.init.normal_(weights, std=0.02)

    def forward(
        self, layers: Sequence[torch.Tensor], ids_BT: torch.Tensor, batch: Sequence[Row], generator: torch.Generator
    ) -> torch.Tensor:
        """Return the sum of the readers' losses, in nats.

        Args:
            layers: Float [B, T, D] each, the embeddings first.
            ids_BT: int64 [B, T], what was read.
            batch: B rows.
            generator: Draws the fifth of the positions that is asked for the token before.
        """
        depth = len(layers) - 1
        asked_BT = (ids_BT[:, 1:] != 0) & (torch.rand(ids_BT[:, 1:].shape, generator=generator) < 0.2)
        b_P, t_P = asked_BT.nonzero(as_tuple=True)
        loss = _cross_entropy(self.before(layers[1][b_P, t_P + 1]), ids_BT[b_P, t_P])
        told = [
            (self.letter, 2, [(b, p, k) for b, row in enumerate(batch) for k, p in enumerate(row.ends)]),
            (self.stem, depth - 2, [(b, row.stem, row.content) for b, row in enumerate(batch) if row.stem >= 0]),
            (self.last, depth - 1, [(b, row.prompt - 1, row.content) for b, row in enumerate(batch) if row.flags]),
            (
                self.flag,
                depth - 1,
                [(b, p, flag) for b, row in enumerate(batch) for p, flag in zip(row.ends, row.flags, strict=True)],
            ),
        ]
        if self.units is not None and self.tens is not None:
            last = [(b, row.prompt - 1, row) for b, row in enumerate(batch)]
            told.append((self.units, depth - 2, [(b, p, row.units) for b, p, row in last if row.units >= 0]))
            told.append((self.tens, depth - 2, [(b, p, row.tens) for b, p, row in last if row.tens >= 0]))
        for head, layer, places in told:
            if places:
                b_P, t_P, wanted_P = torch.tensor(places).T
                loss = loss + _cross_entropy(head(layers[layer][b_P, t_P]), wanted_P)
        return loss


def fit(
    model: PreTrainedModel,
    source: Iterator[list[Row]],
    *,
    steps: int,
    rate: float,
    planned: int | None = None,
    hints: Hints | None = None,
    note: Callable[[int, float], None] | None = None,
) -> float:
    """Train in place; return the mean loss over the last tenth of the steps, in nats per answer token.

    Args:
        model: Goes on from the weights that it has.
        source: Batches.
        steps: Updates.
        planned: Updates that the schedule is laid out for; by default `steps`.
        rate: Highest learning rate; it rises over the first 300 steps at most and falls as a cosine to 2 %.
        hints: Readers whose loss is added, less and less.
        note: Told of every hundredth step and its mean loss.
    """
    parameters = [*model.parameters(), *(hints.parameters() if hints else ())]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    planned = planned or steps
    warm, losses = min(300, planned // 10), []
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    model.train()
    for step in range(steps):
        batch = next(source)
        share = step / planned
        for options in optimizer.param_groups:
            options["lr"] = rate * min((step + 1) / warm, 0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        width = max(len(row.ids) for row in batch)
        ids_BT = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch])
        places = [(b, t) for b, row in enumerate(batch) for t in range(row.prompt - 1, len(row.ids) - 1)]
        b_P, t_P = torch.tensor(places).T
        told = model.base_model(ids_BT[:, :-1], output_hidden_states=hints is not None, use_cache=False)
        logits_PV = head(told.last_hidden_state[b_P, t_P])
        loss = _cross_entropy(logits_PV, ids_BT[b_P, t_P + 1])
        losses.append(float(loss.detach()))
        if hints is not None:
            loss = loss + (1 - 0.9 * share) * hints(told.hidden_states, ids_BT[:, :-1], batch, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if note is not None and step % 100 == 99:
            note(step + 1, sum(losses[-100:]) / 100)
    last = losses[-max(steps // 10, 1) :]
    return sum(last) / len(last)
