"""What processes use, as Prometheus' own clients name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def processes(pids: Mapping[str, int]) -> Iterator[Metric]:
    """`pids`: name → pid. One that has ended meanwhile is left out."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    cpu = CounterMetricFamily("process_cpu_seconds", "CPU time, user and system.", labels=["process"])
    memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", labels=["process"])
    files = GaugeMetricFamily("process_open_fds", "Open files and sockets.", labels=["process"])
    began = GaugeMetricFamily("process_start_time_seconds", "When it began, since 1970.", labels=["process"])
    for name, pid in pids.items():
        try:
            one = psutil.Process(pid)
            with one.oneshot():
                times = one.cpu_times()
                cpu.add_metric([name], times.user + times.system)
                memory.add_metric([name], one.memory_info().rss)
                files.add_metric([name], one.num_fds())
                began.add_metric([name], one.create_time())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    yield from (cpu, memory, files, began)
