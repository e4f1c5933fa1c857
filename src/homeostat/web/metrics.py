"""`GET /metrics` of the control plane."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from homeostat.domain.figures import Figures, LogFigures
from homeostat.domain.gate import Verdict
from homeostat.services.figures import Gauges
from homeostat.serving.processes import processes
from homeostat.web.control import Loop


class Scrape:
    """Scrapes take turns, and keep nobody else waiting. `gauges` are made for the first of them; `processes`: name →
    pid (None: it does not run)."""

    def __init__(
        self, model: str, gauges: Callable[[], Gauges], loop: Loop, processes: Callable[[], Mapping[str, int | None]]
    ) -> None:
        self._model, self._make, self._loop, self._processes = model, gauges, loop, processes
        self._turns = threading.Lock()

    @cached_property
    def _gauges(self) -> Gauges:
        return self._make()

    def answer(self, request: Request) -> Response:
        encode, media = choose_encoder(request.headers.get("accept", ""))
        with self._turns:
            return Response(encode(self), headers={"content-type": media})

    def collect(self) -> Iterator[Metric]:
        figures = self._gauges.read()
        yield from _loop(self._loop)
        yield from _model(self._model, figures)
        yield from _release(self._model, figures)
        yield from _log(figures.log)
        yield from processes({name: pid for name, pid in self._processes().items() if pid})


def _loop(loop: Loop) -> Iterator[Metric]:
    yield GaugeMetricFamily("homeostat_control_leads", "1: this control plane leads.", loop.leads)
    turns = [(["done"], loop.turns.done), (["failed"], loop.turns.failed)]
    yield _counter("homeostat_control_turns", "Turns of the control loop.", ["outcome"], turns)
    at = GaugeMetricFamily("homeostat_control_turn_timestamp_seconds", "When the last good turn was over, since 1970.")
    at.add_metric([], loop.turns.last_s)
    yield at


def _model(model: str, figures: Figures) -> Iterator[Metric]:
    alerts = [([model, kind], n) for kind, n in figures.alerts.items()]
    yield _gauge("homeostat_alerts_open", "Open alerts of the loop.", ["model", "kind"], alerts)
    trainings = [([model, outcome], n) for outcome, n in figures.trainings.items()]
    yield _counter("homeostat_trainings", "Trainings that a trigger started.", ["model", "outcome"], trainings)
    labels = [] if figures.label_ms is None else [([model], figures.label_ms / 1_000)]
    yield _gauge("homeostat_label_timestamp_seconds", "When the newest label came, since 1970.", ["model"], labels)
    held = [([model, source], is_held) for source, is_held in figures.held.items()]
    said = "1: labels that the source gives now are held back."
    yield _gauge("homeostat_labels_held", said, ["model", "source"], held)


def _release(model: str, figures: Figures) -> Iterator[Metric]:
    releases = [([model, status], n) for status, n in figures.releases.items()]
    yield _gauge("homeostat_releases", "Releases by where they stand.", ["model", "status"], releases)
    weights = [([model, figures.release, str(version)], share) for version, share in figures.weights.items()]
    labels = ["model", "release", "version"]
    yield _gauge("homeostat_release_weight_ratio", "A version's share of the traffic.", labels, weights)
    lanes = [([model, lane, one.value], said == one) for lane, said in figures.lanes.items() for one in Verdict]
    yield _gauge("homeostat_release_lane", "1: so says the lane.", ["model", "lane", "verdict"], lanes)


def _log(log: LogFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("homeostat_log_waiting_segments", "Segments that are in no table yet.", log.segments)
    yield GaugeMetricFamily("homeostat_log_waiting_bytes", "Bytes of them.", log.bytes)
    yield GaugeMetricFamily("homeostat_log_lag_seconds", "How long the oldest has waited.", log.lag_ms / 1_000)
    yield GaugeMetricFamily("homeostat_log_lost_rows", "Rows answered without a record.", log.lost)
    failing = [([cause], bad) for cause, bad in log.failing.items()]
    yield _gauge("homeostat_log_failing", "1: something is wrong with the log.", ["cause"], failing)


Samples = Iterable[tuple[Sequence[str], float]]


def _gauge(name: str, what: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, what, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _counter(name: str, what: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
