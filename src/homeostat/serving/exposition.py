"""`GET /metrics`: what all workers have counted, in the text format of Prometheus or in OpenMetrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from homeostat.serving import meter as m
from homeostat.serving.messages import Response
from homeostat.serving.processes import processes
from homeostat.serving.sheet import WIDTH, read

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

_STATUS_NAMES = [str(status) for status in m.STATUSES]
Numbers = Sequence[float]
Rows = Mapping[tuple[str | int, ...], Numbers]
"""Labels → numbers, added up."""


def exposed(meter: m.Meter, accept: str) -> Response:
    """What a scrape of any worker is told: counts of every worker there ever was, states of those that live."""
    from prometheus_client.exposition import choose_encoder

    encode, media = choose_encoder(accept)
    return Response(200, encode(_Registry(meter)), media=media)


class _Registry:
    """As much of a registry as an encoder asks for."""

    def __init__(self, meter: m.Meter) -> None:
        self._sheets = [(name, pid, read(memory)) for name, pid, memory in meter.shared.all()]

    def collect(self) -> Iterator[Metric]:
        kinds = _added(rows for _, _, rows in self._sheets)
        yield from _requests(kinds["requests"])
        yield from _rows(kinds["rows"])
        yield from _labels(kinds["model"])
        yield from _queues(kinds["queue"])
        yield from _workers([(name, rows) for name, pid, rows in self._sheets if pid is not None])
        yield from processes({name: pid for name, pid, _ in self._sheets if pid is not None})


def _added(sheets: Iterable[Mapping[str, Numbers]]) -> Mapping[str, Rows]:
    """Kind → its rows, summed over the sheets."""
    kinds: defaultdict[str, dict[tuple[str | int, ...], Numbers]] = defaultdict(dict)
    for rows in sheets:
        for name, numbers in rows.items():
            kind, *labels = msgspec.json.decode(name, type=list[Any])
            before = kinds[kind].get(tuple(labels), [0.0] * WIDTH)
            kinds[kind][tuple(labels)] = [one + more for one, more in zip(before, numbers, strict=True)]
    return kinds


def _requests(rows: Rows) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    total = CounterMetricFamily(
        "homeostat_requests", "Requests by HTTP status; without a model: all but predictions.",
        labels=["model", "release", "status"],
    )  # fmt: skip
    seconds = HistogramMetricFamily(
        "homeostat_request_seconds", "From the moment the first request of a tick was complete to the tick's answers.",
        labels=["model", "release"],
    )  # fmt: skip
    for (model, release), numbers in rows.items():
        for status, n in zip(_STATUS_NAMES, numbers[m.STATUS :], strict=False):
            total.add_metric([str(model), str(release), status], n)
        if model:
            _histogram(seconds, [model, release], numbers, m.TIME, m.SECONDS)
    yield total
    yield seconds


def _rows(rows: Rows) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    labels = ["model", "release", "version"]
    total = CounterMetricFamily(
        "homeostat_predictions", "Rows of the prediction log, by what became of each.",
        labels=[*labels, "role", "status"],
    )  # fmt: skip
    seconds = HistogramMetricFamily("homeostat_model_seconds", "Calls of a model.", labels=labels)
    for named, numbers in rows.items():
        for outcome, n in zip(m.OUTCOMES, numbers[m.OUTCOME :], strict=False):
            total.add_metric([*map(str, named), *outcome], n)
        _histogram(seconds, named, numbers, m.CALL, m.SECONDS)
    yield total
    yield seconds


def _labels(rows: Rows) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    total = CounterMetricFamily("homeostat_labels", "Labels taken over HTTP.", labels=["model"])
    for (model,), numbers in rows.items():
        total.add_metric([str(model)], numbers[m.LABELS])
    yield total


def _queues(rows: Rows) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    seconds = HistogramMetricFamily("homeostat_tick_seconds", "Ticks, without the sending.", labels=["queue"])
    sizes = HistogramMetricFamily("homeostat_tick_requests", "Requests answered together.", labels=["queue"])
    for named, numbers in rows.items():
        _histogram(seconds, named, numbers, m.TICK, m.SECONDS)
        _histogram(sizes, named, numbers, m.SIZE, m.SIZES)
    yield seconds
    yield sizes


def _histogram(
    family: HistogramMetricFamily, labels: Sequence[str | int], numbers: Numbers, start: int, bounds: Sequence[float]
) -> None:
    below, buckets = 0.0, []
    for bound, n in zip([*map(str, map(float, bounds)), "+Inf"], numbers[start:], strict=False):
        below += n
        buckets.append((bound, below))
    family.add_metric([str(label) for label in labels], buckets, numbers[start + len(bounds) + 1])


def _workers(sheets: Sequence[tuple[str, Mapping[str, Numbers]]]) -> Iterator[Metric]:
    """States of each worker that lives."""
    from prometheus_client.core import GaugeMetricFamily

    limit = GaugeMetricFamily("homeostat_queue_limit", "Requests that may wait.", labels=["worker", "queue"])
    waiting = GaugeMetricFamily("homeostat_queue_waiting", "Requests that wait.", labels=["worker", "queue"])
    connections = GaugeMetricFamily("homeostat_connections", "Open connections.", labels=["worker"])
    routing = GaugeMetricFamily("homeostat_routing_version", "Of the routing document in force.", labels=["worker"])
    ready = GaugeMetricFamily("homeostat_ready", "Whether the champion can answer.", labels=["worker", "model"])
    for worker, rows in sheets:
        for name, numbers in rows.items():
            kind, *named = msgspec.json.decode(name, type=list[Any])
            if kind == "queue":
                limit.add_metric([worker, *named], numbers[m.LIMIT])
                waiting.add_metric([worker, *named], numbers[m.WAITING])
            elif kind == "model" and numbers[m.READY] != m.UNKNOWN:
                ready.add_metric([worker, *named], numbers[m.READY])
            elif kind == "worker":
                connections.add_metric([worker], numbers[m.CONNECTIONS])
                routing.add_metric([worker], numbers[m.ROUTING])
    yield from (limit, waiting, connections, routing, ready)
    yield GaugeMetricFamily("homeostat_workers", "Processes of the data plane that live.", len(sheets))
    info = GaugeMetricFamily("homeostat_build_info", "Always 1.", labels=["version"])
    info.add_metric([version("homeostat")], 1)
    yield info
