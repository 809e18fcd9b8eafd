"""The exceptions that fusion raises on purpose.

    FusionError
    +-- UsageError                what was asked cannot be done as it was asked (exit code 2)
    |   +-- ConfigError           a configuration file or value is wrong
    |   +-- UnknownName           no method, task, agent, column or format of that name
    |   +-- InvalidSpec           "name(key=value)" cannot be read, or the method refuses a value
    +-- TableError                recorded answers cannot be used
    |   +-- UnreadableTable       the file is missing, truncated or of another format
    |   +-- InvalidTable          the content breaks an invariant (duplicate ids, ragged rows, ...)
    |   +-- TableMismatch         two tables that must agree do not (agents, options, labels)
    |   +-- Leakage               fit and evaluation share questions
    +-- NotFitted                 a method was used before fit
    +-- MissingDependency         an optional package is not installed
    +-- OutputError               a result could not be written (full disk, read-only folder)
    +-- InputError                an input other than a table could not be read
    +-- EngineError               an engine cannot answer anything (missing key, model, server)
    +-- StoreError                a record store is damaged, locked or of another version
    +-- NoQuorum                  too few agents answered; lists what happened to each

Every message says what was expected, what was found and what to do about it.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import ClassVar


class FusionError(Exception):
    """Root of every exception that fusion raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(FusionError):
    """What was asked cannot be done as it was asked."""

    exit_code: ClassVar[int] = 2


class ConfigError(UsageError):
    """A configuration file, or a value in it, is wrong."""


class InvalidSpec(UsageError):
    """A method's textual form cannot be read, or the method refuses a parameter."""


class UnknownName(UsageError):
    """A name that nothing answers to; the message lists near names and all known ones.

    Args:
        kind: What was looked up, in the singular ("selector", "task", "agent").
        name: The name that was given.
        known: Every name that would have been accepted.
    """

    def __init__(self, *, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        super().__init__(f"unknown {kind} {name!r}{suggest(name, self.known)}")


class TableError(FusionError):
    """Recorded answers cannot be used."""


class UnreadableTable(TableError):
    """A table file is missing, truncated or in another format."""


class InvalidTable(TableError):
    """A table's content breaks one of its invariants."""


class TableMismatch(TableError):
    """Two tables that must agree do not."""


class Leakage(TableError):
    """The part to fit on and the part to evaluate on share questions."""


class NotFitted(FusionError):
    """A method was used before its fit."""


class MissingDependency(FusionError):
    """An optional package is not installed.

    Args:
        package: Name on the package index.
        purpose: What needs it, as in "reading inspect logs".
        extra: The extra of fusion that installs it, if there is one.
    """

    def __init__(self, package: str, *, purpose: str, extra: str | None = None) -> None:
        self.package = package
        target = f"'fusion[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package}; install it with: pip install {target}")


class OutputError(FusionError):
    """A result could not be written; nothing half-written is left behind."""


class InputError(FusionError):
    """An input other than a table could not be read."""


class EngineError(FusionError):
    """An engine cannot answer anything: its key, model or server is missing."""


class StoreError(FusionError):
    """A record store is damaged, locked or of another version."""


class NoQuorum(FusionError):
    """Too few agents answered a question.

    Args:
        question_id: Which question.
        needed: How many answers the quorum asks for.
        answered: How many there were.
        causes: What happened to every agent that did not answer, by name.
    """

    def __init__(self, question_id: str, *, needed: int, answered: int, causes: Mapping[str, str]) -> None:
        self.question_id = question_id
        self.needed = needed
        self.answered = answered
        self.causes = dict(causes)
        listed = "; ".join(f"{name}: {cause}" for name, cause in self.causes.items())
        super().__init__(
            f"question {question_id!r}: {answered} of the {needed} answers that the quorum needs ({listed}); "
            "run fusion doctor on the pool, lower the quorum or raise the deadline"
        )


_COMPARED = 2000


def suggest(name: str, known: Iterable[str], *, most: int = 12) -> str:
    """Return a tail for an error message: near names when there are any, and the known ones.

    Args:
        name: What was given.
        known: What would have been accepted.
        most: How many known names to list before "and n more".
    """
    names = list(known)
    if not names:
        return "; there is none to choose from"
    # Comparing with every id of a large table would take minutes.
    folded = {other.casefold().replace("-", "_"): other for other in names[:_COMPARED]}
    near = difflib.get_close_matches(name.casefold().replace("-", "_"), list(folded), n=3, cutoff=0.6)
    listed = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    hint = f"; did you mean {' or '.join(repr(folded[key]) for key in near)}?" if near else "; "
    return f"{hint} (known: {listed})" if near else f"{hint}known: {listed}"
