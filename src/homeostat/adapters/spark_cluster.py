"""Spark: a job of one task an item."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from homeostat.domain.errors import HomeostatError, UsageError
from homeostat.ports import Item, Result

GROUP = "homeostat predict"


class SparkCluster:
    """`ports.Cluster` on the Spark that spark-submit, or SPARK_CONF_DIR, leads to; else in this process. Its workers
    have Homeostat installed. A job an item, several at once, tells of each when it is ready."""

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        spark, ours = _spark()
        context = spark.sparkContext
        shipped = context.broadcast(work)

        def run(item: Item) -> Result:
            context.setJobGroup(GROUP, GROUP)
            done: list[Result] = context.parallelize([item], 1).map(lambda one: shipped.value(one)).collect()
            return done[0]

        with ThreadPoolExecutor(context.defaultParallelism) as pool:
            futures = [pool.submit(run, item) for item in items]
            try:
                for future in as_completed(futures):
                    yield _result(future.result)
            finally:
                if [future for future in futures if not future.cancel() and not future.done()]:
                    context.cancelJobGroup(GROUP)
        if ours:
            spark.stop()


def _result(get: Callable[[], Result]) -> Result:
    from py4j.protocol import Py4JError

    try:
        return get()
    except Py4JError as error:
        told = str(error).strip().splitlines()[0]
        way_out = "Spark's own log says why. Start again: what is done stays."
        raise HomeostatError("a task failed on Spark", where=told, way_out=way_out) from error


def _spark() -> tuple[Any, bool]:
    """The session, and whether it was opened for us."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UsageError("Spark is not installed", way_out="pip install 'homeostat[spark]'") from None
    ours = SparkSession.getActiveSession() is None
    return SparkSession.builder.appName(GROUP).getOrCreate(), ours
