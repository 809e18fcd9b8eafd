"""What `run.py` measures in processes of their own; each prints one line of JSON.

python benchmarks/pruning/fresh.py compile                        compile the kernels, or find them compiled
python benchmarks/pruning/fresh.py write AGENTS QUESTIONS FILE    write a random table
python benchmarks/pruning/fresh.py search FILE SIZES THREADS      read a table and search it, as fusion does
"""

import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

TOP = 10


def compiling() -> dict[str, float]:
    """Return seconds of importing the search, of a first search of a small table and of a second one."""
    from benchmarks.pruning.tables import random_table

    table = random_table(8, 640)
    start = time.perf_counter()
    from fusion.selectors import DEFAULT_OBJECTIVE, Objective, Scorer, Space, search

    imported = time.perf_counter()
    seconds = {"import": imported - start}
    space = Space(num_agents=8, sizes=(2, 3, 4, 5), free=tuple(range(8)))
    for which in ("first", "second"):
        begun = time.perf_counter()
        search(Scorer.of(table, Objective.parse(DEFAULT_OBJECTIVE), threads=1), space, top=TOP)
        seconds[which] = time.perf_counter() - begun
    return seconds


def write(num_agents: int, num_questions: int, path: Path) -> dict[str, float]:
    """Write a random table."""
    from benchmarks.pruning.tables import random_table
    from fusion.data import write_table

    write_table(random_table(num_agents, num_questions), path)
    return {}


def searching(path: Path, sizes: tuple[int, ...], threads: int) -> dict[str, float]:
    """Return seconds of importing, reading, packing and counting, and searching, and the peak of memory."""
    start = time.perf_counter()
    from fusion.data import read_table
    from fusion.selectors import DEFAULT_OBJECTIVE, Objective, Scorer, Space, search

    imported = time.perf_counter()
    table = read_table(path)
    read = time.perf_counter()
    scorer = Scorer.of(table, Objective.parse(DEFAULT_OBJECTIVE), threads=threads)
    prepared = time.perf_counter()
    space = Space(num_agents=table.num_agents, sizes=sizes, free=tuple(range(table.num_agents)))
    found = search(scorer, space, top=TOP, method="exhaustive")
    searched = time.perf_counter()
    return {
        "import": imported - start,
        "read": read - imported,
        "prepare": prepared - read,
        "search": searched - prepared,
        "subsets": found.searched,
        "peak_mib": peak_mib(),
        "planes_mib": scorer.bits.nbytes / 2**20,
    }


def peak_mib() -> float:
    """Return the most memory that this process has held.

    Not that of getrusage: what a process held when this one was made of it counts there.
    """
    told = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert told, "Linux tells it"
    return int(told[1]) / 1024


def main() -> None:
    kind, *rest = sys.argv[1:]
    if kind == "compile":
        told = compiling()
    elif kind == "write":
        told = write(int(rest[0]), int(rest[1]), Path(rest[2]))
    else:
        told = searching(Path(rest[0]), tuple(map(int, rest[1].split(","))), int(rest[2]))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
