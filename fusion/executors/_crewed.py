"""What executors have in common: a crew that is hired on first use and let go when they are closed."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from fusion.executors._crew import Crew, Results

T = TypeVar("T")
R = TypeVar("R")


@dataclass(kw_only=True)
class Crewed:
    """An executor but for where its workers come from."""

    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    _crew: Crew | None = field(default=None, init=False, repr=False, compare=False)

    def count(self) -> int:
        """Return how many items are worked on at a time, at most; what that takes is set up now.

        Raises:
            FusionError: When there is nowhere to work.
        """
        return self._hired().size

    def map(self, function: Callable[[T], R], items: Iterable[T], *, kind: str = "") -> Results[T, R]:
        """Run `function` on every item and return an iterator over (index, result), in the order in which they end.

        Items are taken one by one as workers become free. An item whose worker is lost is given to another. What the
        function raises is raised here. Closing the iterator cancels the rest. Several threads may map at a time.

        Args:
            function: At the top level of a module.
            items: What can be pickled; may be a generator.
            kind: Items of one kind preferably go to workers that had that kind before: a model they loaded for it is
                still there. "" for items that any worker does equally well.

        Raises:
            UsageError: When the function cannot be pickled.
            FusionError: When there is nowhere to work; when it comes up later, from the iterator.
        """
        return self._hired().map(function, items, kind=kind)

    def close(self) -> None:
        """End the workers; the next map hires others."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew:
            crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hired(self) -> Crew:
        with self._lock:
            if self._crew is None:
                self._crew = self._hire()
            return self._crew

    def _hire(self) -> Crew:
        raise NotImplementedError
