"""From a record of a pool to its best small sub-ensembles, with evidence."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.pruning._config import PruneConfig
    from fusion.pruning._evidence import AdditionResult, Evidence
    from fusion.pruning._jobs import JobFound, JobResult, JobsResult, run_jobs
    from fusion.pruning._jobs_file import JobsConfig, read_jobs
    from fusion.pruning._options import PruneOptions
    from fusion.pruning._prune import Setting, prepare, prune
    from fusion.pruning._result import PruneResult, RivalResult, SubsetResult
    from fusion.pruning._worth import WorthResult

_HOMES = {
    "AdditionResult": "fusion.pruning._evidence",
    "WorthResult": "fusion.pruning._worth",
    "Evidence": "fusion.pruning._evidence",
    "JobFound": "fusion.pruning._jobs",
    "JobResult": "fusion.pruning._jobs",
    "JobsConfig": "fusion.pruning._jobs_file",
    "JobsResult": "fusion.pruning._jobs",
    "PruneConfig": "fusion.pruning._config",
    "PruneOptions": "fusion.pruning._options",
    "PruneResult": "fusion.pruning._result",
    "RivalResult": "fusion.pruning._result",
    "Setting": "fusion.pruning._prune",
    "SubsetResult": "fusion.pruning._result",
    "prepare": "fusion.pruning._prune",
    "prune": "fusion.pruning._prune",
    "read_jobs": "fusion.pruning._jobs_file",
    "run_jobs": "fusion.pruning._jobs",
}

__all__ = [
    "AdditionResult",
    "Evidence",
    "JobFound",
    "JobResult",
    "JobsConfig",
    "JobsResult",
    "PruneConfig",
    "PruneOptions",
    "PruneResult",
    "RivalResult",
    "Setting",
    "SubsetResult",
    "WorthResult",
    "prepare",
    "prune",
    "read_jobs",
    "run_jobs",
]

__getattr__ = lazy(__name__, _HOMES)
