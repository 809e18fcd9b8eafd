"""Pool files, by path or by the name of one that comes with the package."""

from __future__ import annotations

from pathlib import Path


def find_pool(given: Path) -> Path:
    """Return the file that `given` stands for: itself, or the pool of that name in the package."""
    from fusion.demo import POOLS, pool_file

    return pool_file(str(given)) if str(given) in POOLS and not given.exists() else given
