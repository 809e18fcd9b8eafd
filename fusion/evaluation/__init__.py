"""Evaluating systems on questions they have not seen, and comparing them pairwise.

Resolved on first use: the statistics need scipy.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.evaluation._bench import DEFAULT_SYSTEMS, BenchOptions, bench
    from fusion.evaluation._compare import CompareResult, compare, read_run
    from fusion.evaluation._config import BenchConfig, Prices
    from fusion.evaluation._result import BenchResult, PairedResult, SystemResult
    from fusion.stopwatch import versions

_HOMES = {
    "DEFAULT_SYSTEMS": "fusion.evaluation._bench",
    "BenchConfig": "fusion.evaluation._config",
    "BenchOptions": "fusion.evaluation._bench",
    "BenchResult": "fusion.evaluation._result",
    "CompareResult": "fusion.evaluation._compare",
    "PairedResult": "fusion.evaluation._result",
    "Prices": "fusion.evaluation._config",
    "SystemResult": "fusion.evaluation._result",
    "bench": "fusion.evaluation._bench",
    "compare": "fusion.evaluation._compare",
    "read_run": "fusion.evaluation._compare",
    "versions": "fusion.stopwatch",
}

__all__ = [
    "DEFAULT_SYSTEMS",
    "BenchConfig",
    "BenchOptions",
    "BenchResult",
    "CompareResult",
    "PairedResult",
    "Prices",
    "SystemResult",
    "bench",
    "compare",
    "read_run",
    "versions",
]

__getattr__ = lazy(__name__, _HOMES)
