"""Evaluating systems on questions they have not seen, and comparing them pairwise.

Resolved on first use: the statistics need scipy.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.evaluation._bench import DEFAULT_SYSTEMS, bench, compare_pairs, file_name, fit_and_test
    from fusion.evaluation._compare import CompareResult, compare, read_run
    from fusion.evaluation._config import BenchConfig, Price, Prices
    from fusion.evaluation._options import BenchOptions
    from fusion.evaluation._result import (
        BenchResult,
        ConfidenceBin,
        JsonFile,
        PairedResult,
        RiskCoverageCurve,
        SelectiveResult,
        SystemResult,
        Weights,
        as_json,
    )
    from fusion.evaluation._verdict import beats, p_value, points, said
    from fusion.stopwatch import versions

_HOMES = {
    "DEFAULT_SYSTEMS": "fusion.evaluation._bench",
    "BenchConfig": "fusion.evaluation._config",
    "BenchOptions": "fusion.evaluation._options",
    "BenchResult": "fusion.evaluation._result",
    "CompareResult": "fusion.evaluation._compare",
    "ConfidenceBin": "fusion.evaluation._result",
    "JsonFile": "fusion.evaluation._result",
    "PairedResult": "fusion.evaluation._result",
    "Price": "fusion.evaluation._config",
    "Prices": "fusion.evaluation._config",
    "RiskCoverageCurve": "fusion.evaluation._result",
    "SelectiveResult": "fusion.evaluation._result",
    "SystemResult": "fusion.evaluation._result",
    "Weights": "fusion.evaluation._result",
    "as_json": "fusion.evaluation._result",
    "beats": "fusion.evaluation._verdict",
    "bench": "fusion.evaluation._bench",
    "compare": "fusion.evaluation._compare",
    "compare_pairs": "fusion.evaluation._bench",
    "file_name": "fusion.evaluation._bench",
    "fit_and_test": "fusion.evaluation._bench",
    "p_value": "fusion.evaluation._verdict",
    "points": "fusion.evaluation._verdict",
    "read_run": "fusion.evaluation._compare",
    "said": "fusion.evaluation._verdict",
    "versions": "fusion.stopwatch",
}

__all__ = [
    "DEFAULT_SYSTEMS",
    "BenchConfig",
    "BenchOptions",
    "BenchResult",
    "CompareResult",
    "ConfidenceBin",
    "JsonFile",
    "PairedResult",
    "Price",
    "Prices",
    "RiskCoverageCurve",
    "SelectiveResult",
    "SystemResult",
    "Weights",
    "as_json",
    "beats",
    "bench",
    "compare",
    "compare_pairs",
    "file_name",
    "fit_and_test",
    "p_value",
    "points",
    "read_run",
    "said",
    "versions",
]

__getattr__ = lazy(__name__, _HOMES)
