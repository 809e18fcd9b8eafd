"""Who answers: agents, the pools they form, engines (a plug-in package), and the record of what they said."""

from typing import TYPE_CHECKING

from fusion._lazy import lazy
from fusion.agents._agent import Agent
from fusion.agents._pool import AgentPool

if TYPE_CHECKING:
    from fusion.agents._allowance import Allowance, allowed, allowing
    from fusion.agents._budget import Budget, paid_answers, sum_usage, sum_usd, usd
    from fusion.agents._doctor import Diagnosis, examine_pool
    from fusion.agents._engines import Engines
    from fusion.agents._estimate import Estimate
    from fusion.agents._key import RecordKey
    from fusion.agents._plan import AgentPlan, Asker
    from fusion.agents._pool_file import is_pool_file, read_pool, show_pool
    from fusion.agents._pool_schema import pool_schema
    from fusion.agents._record import Answerer, Progress, Recorder, Recording, statuses_json
    from fusion.agents._remote import RemoteAnswerer
    from fusion.agents._store import RecordStore
    from fusion.agents._store_gc import Swept, gc_store
    from fusion.agents._store_open import store_file
    from fusion.agents._store_parquet import Merged, check_export, export_store, import_store
    from fusion.agents._store_sql import Tally
    from fusion.agents._store_verify import Problem, damaged_rows, verify_store

_HOMES = {
    "AgentPlan": "fusion.agents._plan",
    "Allowance": "fusion.agents._allowance",
    "Answerer": "fusion.agents._record",
    "Asker": "fusion.agents._plan",
    "Budget": "fusion.agents._budget",
    "Diagnosis": "fusion.agents._doctor",
    "Engines": "fusion.agents._engines",
    "Estimate": "fusion.agents._estimate",
    "Merged": "fusion.agents._store_parquet",
    "Problem": "fusion.agents._store_verify",
    "Progress": "fusion.agents._record",
    "RecordKey": "fusion.agents._key",
    "RecordStore": "fusion.agents._store",
    "Recorder": "fusion.agents._record",
    "Recording": "fusion.agents._record",
    "RemoteAnswerer": "fusion.agents._remote",
    "Swept": "fusion.agents._store_gc",
    "Tally": "fusion.agents._store_sql",
    "allowed": "fusion.agents._allowance",
    "allowing": "fusion.agents._allowance",
    "check_export": "fusion.agents._store_parquet",
    "damaged_rows": "fusion.agents._store_verify",
    "examine_pool": "fusion.agents._doctor",
    "export_store": "fusion.agents._store_parquet",
    "gc_store": "fusion.agents._store_gc",
    "import_store": "fusion.agents._store_parquet",
    "is_pool_file": "fusion.agents._pool_file",
    "paid_answers": "fusion.agents._budget",
    "pool_schema": "fusion.agents._pool_schema",
    "read_pool": "fusion.agents._pool_file",
    "show_pool": "fusion.agents._pool_file",
    "statuses_json": "fusion.agents._record",
    "store_file": "fusion.agents._store_open",
    "sum_usage": "fusion.agents._budget",
    "sum_usd": "fusion.agents._budget",
    "usd": "fusion.agents._budget",
    "verify_store": "fusion.agents._store_verify",
}

__all__ = [
    "Agent",
    "AgentPlan",
    "AgentPool",
    "Allowance",
    "Answerer",
    "Asker",
    "Budget",
    "Diagnosis",
    "Engines",
    "Estimate",
    "Merged",
    "Problem",
    "Progress",
    "RecordKey",
    "RecordStore",
    "Recorder",
    "Recording",
    "RemoteAnswerer",
    "Swept",
    "Tally",
    "allowed",
    "allowing",
    "check_export",
    "damaged_rows",
    "examine_pool",
    "export_store",
    "gc_store",
    "import_store",
    "is_pool_file",
    "paid_answers",
    "pool_schema",
    "read_pool",
    "show_pool",
    "statuses_json",
    "store_file",
    "sum_usage",
    "sum_usd",
    "usd",
    "verify_store",
]

__getattr__ = lazy(__name__, _HOMES)
