"""Local: processes on this machine.

Each worker is a Python process of its own that loads what it needs once and keeps it. One that dies, such as when
memory runs out, is replaced, and its item is run again; what the others do goes on. The processes are spawned: a script
that uses them begins its work below `if __name__ == "__main__":`.

Example:
    >>> import math
    >>> with Local(workers=1) as executor:
    ...     sorted(executor.map(math.sqrt, [4, 9]))
    [(0, 2.0), (1, 3.0)]
"""

import os
import pickle
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from annotated_types import Ge

from fusion.executors._crew import Crew
from fusion.executors._crewed import Crewed
from fusion.executors._process import ProcessWorker

__all__ = ["Local"]


@dataclass(kw_only=True)
class Local(Crewed):
    """The executor of processes on this machine.

    Args:
        workers: Number of processes; by default one a core.
        max_retries: How often an item whose process died is given to another.
    """

    workers: Annotated[int, Ge(1)] | None = None
    max_retries: Annotated[int, Ge(0)] = 3

    def _hire(self) -> Crew:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        size = self.workers or cores
        return Crew(
            partial(ProcessWorker, max(1, cores // size)),
            size=size,
            max_retries=self.max_retries,
            dumps=pickle.dumps,
            hint='A script that starts workers needs its work below: if __name__ == "__main__":',
        )
