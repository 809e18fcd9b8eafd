"""Conversations as plain text, for models without a chat template."""

from collections.abc import Sequence

from fusion.schema import Message


def plain_prompt(messages: Sequence[Message]) -> str:
    r"""Return the conversation as one text to continue, laid out as base models are asked.

    The system prompt and every finished turn end with an empty line; an answer follows its question after a blank.

    Example:
        >>> plain_prompt([Message("system", "Add."), Message("user", "1+1="), Message("assistant", "2"),
        ...               Message("user", "2+2=")])
        'Add.\n\n1+1= 2\n\n2+2='
    """
    text = ""
    for message in messages:
        if message.role == "assistant":
            text = f"{text.removesuffix(_GAP)} {message.content}{_GAP}"
        else:
            text += message.content + _GAP
    return text.removesuffix(_GAP)


_GAP = "\n\n"
