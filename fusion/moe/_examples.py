"""Examples to tune a mixture on: prompts, what is to be written, and the expert that each calls for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import InputError, suggest

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""A label that does not count."""


class TuneExample(NamedTuple):
    """One example.

    Attributes:
        prompt: Text, or messages as dictionaries of role and content.
        completion: What is to be written.
        expert: Place of the expert that it calls for; -1 for none.
    """

    prompt: str | list[dict[str, str]]
    completion: str
    expert: int


def read_examples(path: Path, experts: Sequence[str]) -> list[TuneExample]:
    """Read JSON lines: prompt and completion, or messages that end with the assistant's; and, as wanted, expert.

    Args:
        path: The file.
        experts: Names of the experts, in their order.

    Raises:
        InputError: When the file cannot be read, or a line is not like that.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; give a file of JSON lines") from error
    found = [_example(line, f"{path}, line {n}", experts) for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"{path} has no examples")
    return found


def _example(line: str, where: str, experts: Sequence[str]) -> TuneExample:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with prompt and completion, got {line[:60]}")
    name = row.get("expert")
    if name is not None and name not in experts:
        known = ", ".join(experts)
        raise InputError(f"{where}: no expert {name!r}{suggest(str(name), experts)}; the recipe has {known}")
    place = -1 if name is None else list(experts).index(name)
    messages = row.get("messages")
    if isinstance(messages, list) and messages and messages[-1].get("role") == "assistant":
        return TuneExample(messages[:-1], str(messages[-1]["content"]), place)
    if not isinstance(row.get("prompt"), (str, list)) or not isinstance(row.get("completion"), str):
        wanted = "prompt and completion, or messages that end with the assistant's"
        raise InputError(f"{where}: expected {wanted}, got {', '.join(sorted(row))}")
    return TuneExample(row["prompt"], row["completion"], place)


def encoded(examples: Sequence[TuneExample], tokenizer: Any, *, longest: int) -> list[dict[str, list[int]]]:
    """Return token ids, labels that count on completions alone, and experts.

    Messages are written by the chat template, texts as they are; every completion ends with the token that ends texts.
    What is too long loses the beginning of its prompt.

    Args:
        examples: The examples.
        tokenizer: Of the model.
        longest: Most tokens of an example.

    Raises:
        InputError: When there are messages and no chat template, or a completion alone is too long.
    """
    found = []
    for one in examples:
        if isinstance(one.prompt, str):
            prompt: list[int] = tokenizer(one.prompt)["input_ids"]
            ends = tokenizer.eos_token_id
            if prompt and prompt[-1] == ends:
                prompt = prompt[:-1]
        elif tokenizer.chat_template is None:
            raise InputError("examples are messages, and the base model's tokenizer has no chat template; give prompts")
        else:
            prompt = tokenizer.apply_chat_template(one.prompt, add_generation_prompt=True, return_dict=False)
        wanted = [*tokenizer(one.completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if len(wanted) >= longest:
            raise InputError(f"{len(wanted)} tokens of a completion do not fit into {longest}: {one.completion[:60]!r}")
        prompt = prompt[max(len(prompt) + len(wanted) - longest, 0) :]
        labels = [IGNORED] * len(prompt) + wanted
        found.append({"input_ids": [*prompt, *wanted], "labels": labels, "expert": [one.expert]})
    return found


@dataclass(frozen=True)
class TuneCollate:
    """Makes batches, padded on the right.

    Args:
        pad: The token to pad with.
    """

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> "dict[str, torch.Tensor]":
        """Return ids, mask, labels and experts."""
        import torch

        most = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> torch.Tensor:
            return torch.tensor([list(row[name]) + [value] * (most - len(row[name])) for row in rows])

        return {
            "input_ids": padded("input_ids", self.pad),
            "attention_mask": torch.tensor(
                [[1] * len(row["input_ids"]) + [0] * (most - len(row["input_ids"])) for row in rows]
            ),
            "labels": padded("labels", IGNORED),
            "expert": torch.tensor([row["expert"][0] for row in rows]),
        }
