"""Where a batch job is done."""

from __future__ import annotations

from collections.abc import Callable

from homeostat.adapters.ray_cluster import RayCluster
from homeostat.adapters.spark_cluster import SparkCluster
from homeostat.domain.errors import UsageError
from homeostat.ports import Cluster

LOCAL = "local"
ENGINES: dict[str, Callable[[], Cluster]] = {"ray": RayCluster, "spark": SparkCluster}


def cluster(engine: str) -> Cluster | None:
    """None: this machine alone. Errors: `UsageError`."""
    if engine == LOCAL:
        return None
    if engine not in ENGINES:
        raise UsageError(f"no such engine: {engine}", way_out=f"Known: {', '.join((LOCAL, *ENGINES))}.")
    return ENGINES[engine]()
