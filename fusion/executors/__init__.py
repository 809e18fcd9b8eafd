"""Where work runs: executors (a plug-in package), which run a function on many items in other processes."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.executors._open import open_executor

__all__ = ["open_executor"]

__getattr__ = lazy(__name__, {"open_executor": "fusion.executors._open"})
