"""One thread for small work: threads that wait for each other cost more than they gain, most where cores are busy."""

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator

from threadpoolctl import ThreadpoolController

_LOCK = threading.Lock()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy and scikit-learn compute with one thread inside the context."""
    # How many threads there are belongs to the whole process: two that change it in turn would not put it back.
    with _LOCK, libraries(sklearn="sklearn" in sys.modules).limit(limits=1):
        yield


@functools.cache
def libraries(*, sklearn: bool) -> ThreadpoolController:
    """Return the libraries that keep threads; looking for them takes longer than fusing one question.

    Args:
        sklearn: Whether scikit-learn is loaded, which brings one of its own.
    """
    return ThreadpoolController()
