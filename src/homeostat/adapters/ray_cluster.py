"""Ray: a task an item."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from homeostat.domain.errors import HomeostatError, UsageError
from homeostat.ports import Item, Result

RETRIES = 5
"""How often a task is started again whose worker died."""


class RayCluster:
    """`ports.Cluster` on the Ray cluster at RAY_ADDRESS, else on one of this machine's own. Its workers have Homeostat
    installed."""

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
        shipped = ray.put(work)  # once a machine, not once a task
        task = ray.remote(_call).options(max_retries=RETRIES)
        waiting = [task.remote(shipped, item) for item in items]
        try:
            while waiting:
                ready, waiting = ray.wait(waiting)
                yield _result(ray, ready[0])
        finally:
            for reference in waiting:
                ray.cancel(reference)
            if ours:
                ray.shutdown()


def _call(work: Callable[[Item], Result], item: Item) -> Result:
    return work(item)


def _result(ray: ModuleType, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        told = str(error).strip().splitlines()[-1]
        raise HomeostatError("a task failed on Ray", where=told, way_out="Start again: what is done stays.") from error


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed", way_out="pip install 'homeostat[ray]'") from None
    module: ModuleType = ray
    return module
