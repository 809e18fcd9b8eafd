"""What is shown while something takes long."""

import contextlib
import sys
from collections.abc import Iterator

from fusion.training._options import Told


@contextlib.contextmanager
def progress(told: Told | None) -> Iterator[Told]:
    """Yield what to tell of every step: `told`, or a bar on stderr when that is a terminal."""
    if told is not None:
        yield told
        return
    from tqdm import tqdm

    with tqdm(unit="", disable=not sys.stderr.isatty(), file=sys.stderr) as bar:

        def step(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield step
