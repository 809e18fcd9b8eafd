"""One call of a function as bytes: packed by the caller, answered in a worker, unpacked by the caller."""

import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fusion.errors import UsageError

Dumps = Callable[[object], bytes]


class _Value(NamedTuple):
    """What the function returned."""

    value: object


class _Raised(NamedTuple):
    """What the function raised, and where."""

    error: bytes
    trace: str


class _Parts(NamedTuple):
    """An exception whose constructor wants more than its `args`, so that pickle cannot make it again."""

    kind: type[BaseException]
    args: tuple[object, ...]
    state: Mapping[str, object]


def check_function(function: Callable[..., object], dumps: Dumps) -> None:
    """Refuse a function that cannot be sent to a worker.

    Raises:
        UsageError: When it cannot be pickled.
    """
    try:
        dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"workers need a function that can be pickled, such as one at the top level of a module; {function!r} "
            f"cannot: {error}"
        ) from error


def pack(function: Callable[..., object], item: object, dumps: Dumps) -> bytes:
    """Return a call as bytes."""
    return dumps((function, item))


def answer(call: bytes) -> bytes:
    """Run a packed call and return what it returned or raised."""
    try:
        function, item = pickle.loads(call)
        return pickle.dumps(_Value(function(item)))
    except Exception as error:  # whatever it is, it is raised where the call came from
        return pickle.dumps(_Raised(_error_bytes(error), "".join(traceback.format_exception(error))))


def unpack(reply: bytes) -> Any:
    """Return what the function returned, or raise what it raised, of the same type."""
    outcome = pickle.loads(reply)
    if isinstance(outcome, _Value):
        return outcome.value
    error = pickle.loads(outcome.error)
    if isinstance(error, _Parts):
        error = _whole(error)
    error.add_note(f"raised in a worker:\n{outcome.trace}")
    raise error


def _error_bytes(error: Exception) -> bytes:
    """Return bytes that can be read again: of the exception, of its parts, or of what it says."""
    for form in (error, _Parts(type(error), error.args, error.__dict__)):
        try:
            made = pickle.dumps(form)
            pickle.loads(made)
        except Exception:  # pickling runs foreign code
            continue
        return made
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _whole(parts: _Parts) -> BaseException:
    error = parts.kind.__new__(parts.kind, *parts.args)
    error.__dict__.update(parts.state)
    return error
