"""fusion: LLM ensembles. Record once, prune, fuse, and compare with paired statistics.

The public names below are imported on first use; `import fusion` alone loads nothing heavy.
"""

from typing import TYPE_CHECKING

from fusion._lazy import lazy
from fusion._version import __version__

if TYPE_CHECKING:
    from fusion.agents import Agent, AgentPool, RecordStore, read_pool
    from fusion.data import PredictionTable, load_task, make_question, read_table
    from fusion.ensemble import Ensemble
    from fusion.errors import FusionError
    from fusion.evaluation import BenchOptions, BenchResult, bench, compare
    from fusion.live import Limits
    from fusion.pruning import PruneOptions, PruneResult, prune
    from fusion.recording import RecordOptions, record
    from fusion.schema import Question, Spec, System

_HOMES = {
    "Agent": "fusion.agents",
    "AgentPool": "fusion.agents",
    "BenchOptions": "fusion.evaluation",
    "BenchResult": "fusion.evaluation",
    "Ensemble": "fusion.ensemble",
    "FusionError": "fusion.errors",
    "Limits": "fusion.live",
    "PredictionTable": "fusion.data",
    "PruneOptions": "fusion.pruning",
    "PruneResult": "fusion.pruning",
    "Question": "fusion.schema",
    "RecordOptions": "fusion.recording",
    "RecordStore": "fusion.agents",
    "Spec": "fusion.schema",
    "System": "fusion.schema",
    "bench": "fusion.evaluation",
    "compare": "fusion.evaluation",
    "load_task": "fusion.data",
    "make_question": "fusion.data",
    "prune": "fusion.pruning",
    "read_pool": "fusion.agents",
    "read_table": "fusion.data",
    "record": "fusion.recording",
}

__all__ = [
    "Agent",
    "AgentPool",
    "BenchOptions",
    "BenchResult",
    "Ensemble",
    "FusionError",
    "Limits",
    "PredictionTable",
    "PruneOptions",
    "PruneResult",
    "Question",
    "RecordOptions",
    "RecordStore",
    "Spec",
    "System",
    "__version__",
    "bench",
    "compare",
    "load_task",
    "make_question",
    "prune",
    "read_pool",
    "read_table",
    "record",
]


__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
