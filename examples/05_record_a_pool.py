"""Record a pool on a task, replay an ensemble on the record, and go on where the record stopped."""

import tempfile
from pathlib import Path

from fusion import Ensemble, RecordOptions, bench, read_pool, record

pool = read_pool(Path(__file__).parent / "pools" / "echo.yaml")
with tempfile.TemporaryDirectory() as folder:
    first = record(pool, "micro", folder, options=RecordOptions(limit="100"))
    more = record(pool, "micro", folder, options=RecordOptions(limit="300"))
for before, after in zip(first.members, more.members, strict=True):
    print(f"{after.agent}: {after.calls} calls, {after.recorded} on record before, {after.failed_share:.0%} failed")
    assert after.recorded >= before.calls * (1 - before.failed_share)
decision = Ensemble(pool, "all_agents", "vote").replay(more.table).decision
print(f"the vote is right on {100 * (decision.answers == more.table.labels).mean():.1f} %")
print(bench(more.table, "all_agents+vote").verdict)
