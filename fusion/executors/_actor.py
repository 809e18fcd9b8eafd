"""What runs in a worker of a Ray cluster."""

from fusion._version import __version__
from fusion.executors._call import answer


class Actor:
    """Answers packed calls, one after another, in one process, so that what a call loaded is there for the next."""

    def version(self) -> str:
        """Return the version of fusion there."""
        return __version__

    def run(self, call: bytes) -> bytes:
        """Answer a packed call."""
        return answer(call)
