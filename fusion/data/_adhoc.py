"""Questions that belong to no task."""

import hashlib
import json
from collections.abc import Sequence

from fusion.data._choice import LETTERS, choice_question, list_options
from fusion.errors import UsageError
from fusion.schema import Message, Question


def make_question(text: str, *, options: Sequence[str] = ()) -> Question:
    r"""Return a question of one's own; with options it is asked as multiple choice.

    Its id is a hash of what is asked, so the same question has the same id again.

    Raises:
        UsageError: When the text is blank, there is one option only or more than 26, or an option occurs twice.

    Example:
        >>> question = make_question("Which is a fruit?", options=["pear", "pea"])
        >>> question.messages[0].content
        'Which is a fruit?\nA. pear\nB. pea\nAnswer:'
    """
    if not text.strip():
        raise UsageError("a question must not be blank")
    if isinstance(options, str):
        raise UsageError(f"options are a list of texts, got the text {options!r}; write [{options!r}, ...]")
    if len(options) > len(LETTERS):
        raise UsageError(f"at most {len(LETTERS)} options can be told apart by letters, got {len(options)}")
    if options and (len(options) < 2 or len(set(options)) < len(options)):
        raise UsageError(f"give two different options or more, or none for an open question; got {list(options)}")
    said = json.dumps([text, *options]).encode()
    question_id = f"ask/{hashlib.blake2b(said, digest_size=8).hexdigest()}"
    if not options:
        return Question(id=question_id, messages=(Message("user", text),), text=text)
    prompt = f"{text}\n{list_options(options)}Answer:"
    return choice_question(question_id, (Message("user", prompt),), options, label=None, reference="", text=text)
