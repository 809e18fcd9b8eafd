"""Evaluating systems on questions they have not seen, and comparing them pairwise.

Resolved on first use: the statistics need scipy.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.evaluation._bench import DEFAULT_SYSTEMS, bench, compare_pairs, file_name, fit_and_test
    from fusion.evaluation._compare import CompareResult, compare, read_run
    from fusion.evaluation._config import BenchConfig, Price, Prices
    from fusion.evaluation._drift import DriftDetector, Fall
    from fusion.evaluation._faults import Fault, FaultKind, inject
    from fusion.evaluation._logged import explored
    from fusion.evaluation._off_policy import Estimate, OffPolicyValue, estimate_value
    from fusion.evaluation._options import BenchOptions
    from fusion.evaluation._policy import CostPoint, PolicyCard
    from fusion.evaluation._prequential import prequential
    from fusion.evaluation._prequential_result import (
        BlockResult,
        DriftAlarm,
        PrequentialResult,
        StreamScore,
        merged_blocks,
    )
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
    from fusion.evaluation._stream import PrequentialOptions
    from fusion.evaluation._verdict import beats, p_value, points, said
    from fusion.stopwatch import versions

_HOMES = {
    "BenchConfig": "fusion.evaluation._config",
    "BenchOptions": "fusion.evaluation._options",
    "BenchResult": "fusion.evaluation._result",
    "BlockResult": "fusion.evaluation._prequential_result",
    "CompareResult": "fusion.evaluation._compare",
    "ConfidenceBin": "fusion.evaluation._result",
    "CostPoint": "fusion.evaluation._policy",
    "DEFAULT_SYSTEMS": "fusion.evaluation._bench",
    "DriftAlarm": "fusion.evaluation._prequential_result",
    "DriftDetector": "fusion.evaluation._drift",
    "Estimate": "fusion.evaluation._off_policy",
    "Fall": "fusion.evaluation._drift",
    "Fault": "fusion.evaluation._faults",
    "FaultKind": "fusion.evaluation._faults",
    "JsonFile": "fusion.evaluation._result",
    "OffPolicyValue": "fusion.evaluation._off_policy",
    "PairedResult": "fusion.evaluation._result",
    "PolicyCard": "fusion.evaluation._policy",
    "PrequentialOptions": "fusion.evaluation._stream",
    "PrequentialResult": "fusion.evaluation._prequential_result",
    "Price": "fusion.evaluation._config",
    "Prices": "fusion.evaluation._config",
    "RiskCoverageCurve": "fusion.evaluation._result",
    "StreamScore": "fusion.evaluation._prequential_result",
    "SelectiveResult": "fusion.evaluation._result",
    "SystemResult": "fusion.evaluation._result",
    "Weights": "fusion.evaluation._result",
    "as_json": "fusion.evaluation._result",
    "beats": "fusion.evaluation._verdict",
    "bench": "fusion.evaluation._bench",
    "compare": "fusion.evaluation._compare",
    "compare_pairs": "fusion.evaluation._bench",
    "estimate_value": "fusion.evaluation._off_policy",
    "explored": "fusion.evaluation._logged",
    "file_name": "fusion.evaluation._bench",
    "fit_and_test": "fusion.evaluation._bench",
    "inject": "fusion.evaluation._faults",
    "merged_blocks": "fusion.evaluation._prequential_result",
    "p_value": "fusion.evaluation._verdict",
    "points": "fusion.evaluation._verdict",
    "prequential": "fusion.evaluation._prequential",
    "read_run": "fusion.evaluation._compare",
    "said": "fusion.evaluation._verdict",
    "versions": "fusion.stopwatch",
}

__all__ = [
    "DEFAULT_SYSTEMS",
    "BenchConfig",
    "BenchOptions",
    "BenchResult",
    "BlockResult",
    "CompareResult",
    "ConfidenceBin",
    "CostPoint",
    "DriftAlarm",
    "DriftDetector",
    "Estimate",
    "Fall",
    "Fault",
    "FaultKind",
    "JsonFile",
    "OffPolicyValue",
    "PairedResult",
    "PolicyCard",
    "PrequentialOptions",
    "PrequentialResult",
    "Price",
    "Prices",
    "RiskCoverageCurve",
    "SelectiveResult",
    "StreamScore",
    "SystemResult",
    "Weights",
    "as_json",
    "beats",
    "bench",
    "compare",
    "compare_pairs",
    "estimate_value",
    "explored",
    "file_name",
    "fit_and_test",
    "inject",
    "merged_blocks",
    "p_value",
    "points",
    "prequential",
    "read_run",
    "said",
    "versions",
]

__getattr__ = lazy(__name__, _HOMES)
