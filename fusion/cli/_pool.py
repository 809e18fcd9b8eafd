"""Pool files, by path or by the name of one that comes with the package."""

from __future__ import annotations

from pathlib import Path


def find_pool(given: Path) -> Path:
    """Return the file that `given` stands for: itself, or the pool of that name in the package."""
    from fusion.demo import POOLS, pool_file
    from fusion.errors import ConfigError, suggest

    if given.exists() or given.suffix:
        return given
    if str(given) not in POOLS:
        raise ConfigError(
            f"there is no file {given}, and no pool of that name comes with the package{suggest(str(given), POOLS)}; "
            f"give the path of a YAML file, or one of {', '.join(POOLS)}"
        )
    return pool_file(str(given))
