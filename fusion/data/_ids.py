"""Ids of questions from the keys that a data set has."""

from collections.abc import Iterator, Sequence


def numbered(keys: Sequence[str]) -> Iterator[str]:
    """Yield the keys; the second row with one key has "/2" behind it, and so on.

    Ids must be unique, and nothing promises that a data set's keys are.

    Example:
        >>> list(numbered(["a", "b", "a"]))
        ['a', 'b', 'a/2']
    """
    taken: set[str] = set()
    for key in keys:
        name, count = key, 1
        while name in taken:
            count += 1
            name = f"{key}/{count}"
        taken.add(name)
        yield name


__all__ = ["numbered"]
