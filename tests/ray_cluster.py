"""A Ray cluster of two small nodes on this machine."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

_STORE = 80 * 2**20


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """Yield a `ray.cluster_utils.Cluster` of two nodes with one core each; its processes end with the context."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'fusion[ray]'")
    # Workers inherit this from their node, and import from here what tests have them do.
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with mock.patch.dict(os.environ, {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths}):
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": _STORE},
        )
        try:
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)
            yield cluster
        finally:
            cluster.shutdown()
