"""Who answers: agents, the pools they form, engines (a plug-in package), and the record of what they said."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy
from fusion.agents._agent import Agent
from fusion.agents._pool import AgentPool

if TYPE_CHECKING:
    from fusion.agents._budget import Budget, sum_usage, usd
    from fusion.agents._engines import Engines
    from fusion.agents._estimate import Estimate
    from fusion.agents._plan import AgentPlan, Asker
    from fusion.agents._pool_file import read_pool
    from fusion.agents._record import Answerer, Progress, Recorder, Recording, statuses_json
    from fusion.agents._store import RecordStore

_HOMES = {
    "AgentPlan": "fusion.agents._plan",
    "Answerer": "fusion.agents._record",
    "Asker": "fusion.agents._plan",
    "Budget": "fusion.agents._budget",
    "Engines": "fusion.agents._engines",
    "Estimate": "fusion.agents._estimate",
    "Progress": "fusion.agents._record",
    "RecordStore": "fusion.agents._store",
    "Recorder": "fusion.agents._record",
    "Recording": "fusion.agents._record",
    "read_pool": "fusion.agents._pool_file",
    "statuses_json": "fusion.agents._record",
    "sum_usage": "fusion.agents._budget",
    "usd": "fusion.agents._budget",
}

__all__ = [
    "Agent",
    "AgentPlan",
    "AgentPool",
    "Answerer",
    "Asker",
    "Budget",
    "Engines",
    "Estimate",
    "Progress",
    "RecordStore",
    "Recorder",
    "Recording",
    "read_pool",
    "statuses_json",
    "sum_usage",
    "usd",
]

__getattr__ = lazy(__name__, _HOMES)
