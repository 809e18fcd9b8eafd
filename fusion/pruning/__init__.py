"""From a record of a pool to its best small sub-ensembles, with evidence."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy

if TYPE_CHECKING:
    from fusion.pruning._config import PruneConfig
    from fusion.pruning._options import PruneOptions
    from fusion.pruning._prune import Setting, prepare, prune
    from fusion.pruning._result import PruneResult, RivalResult, SubsetResult

_HOMES = {
    "PruneConfig": "fusion.pruning._config",
    "PruneOptions": "fusion.pruning._options",
    "PruneResult": "fusion.pruning._result",
    "RivalResult": "fusion.pruning._result",
    "Setting": "fusion.pruning._prune",
    "SubsetResult": "fusion.pruning._result",
    "prepare": "fusion.pruning._prune",
    "prune": "fusion.pruning._prune",
}

__all__ = [
    "PruneConfig",
    "PruneOptions",
    "PruneResult",
    "RivalResult",
    "Setting",
    "SubsetResult",
    "prepare",
    "prune",
]

__getattr__ = lazy(__name__, _HOMES)
