"""The data plane of a project, embedded in its state folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from homeostat.adapters.clock import SystemClock
from homeostat.adapters.plane import announce
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.adapters.source import column_names
from homeostat.domain.errors import ConfigError
from homeostat.domain.policy import Policy
from homeostat.engines.privacy import Mask
from homeostat.ports import Tracing
from homeostat.serving import messages
from homeostat.serving.meter import Meter
from homeostat.serving.tick import Engine, Home
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.days import DayTables
from homeostat.stores.files import secret
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.stores.routing import FileRouters
from homeostat.stores.segments import Rules
from homeostat.stores.shared import SharedMemory
from homeostat.wiring import STATE


def data_plane(
    root: Path, policy: Policy, worker: str = "plane", others: Mapping[Path, Policy] = MappingProxyType({})
) -> Engine:
    """It reads bundles and the routing document, and writes its own log segments; it knows no database. The models of
    the `others` are served too, each from its own project and into its own log. Errors: `ConfigError`."""
    state = root / STATE
    log, labels = logs(state, worker, policy)
    ids = messages.ids(secrets.token_hex(5))
    states = [state, *(other / STATE for other in others)]
    router = FileRouters([one / "routing.json" for one in states])
    blobs = FileBlobs(*(one / "blobs" for one in states))
    serving, runtime, clock = policy.serving, OnnxRuntime(), SystemClock()
    meter = Meter(SharedMemory(state / "metrics", worker))
    rules = serving.timeout / 1_000, _tracing(), serving.memory, meter, policy.feedback
    return Engine(blobs, runtime, log, labels, clock, router, ids, *rules, _homes(policy, worker, others))


def _homes(policy: Policy, worker: str, others: Mapping[Path, Policy]) -> dict[str, Home]:
    """By model. Errors: `ConfigError` where two projects have one of the same name."""
    homes = dict[str, Home]()
    for other, their in others.items():
        if their.name in (policy.name, *homes):
            way_out = "Serve it by itself, or give one of them another name."
            raise ConfigError(f"another project has a model {their.name!r} too", where=str(other), way_out=way_out)
        homes[their.name] = Home(*logs(other / STATE, beside(policy, worker), their), their.feedback)
    return homes


def beside(policy: Policy, worker: str) -> str:
    """What a worker of that project is called in others."""
    return f"{policy.name}-{worker}"


def _tracing() -> Tracing | None:
    """Spans where OTEL_* variables ask for them; OpenTelemetry is not imported otherwise."""
    name = _exporter(os.environ)
    if name is None:
        return None
    try:
        from homeostat.adapters import otel
    except ImportError:
        way_out = "Run pip install 'homeostat[otel]', or set OTEL_SDK_DISABLED=true."
        raise ConfigError(
            "OTEL_* variables ask for spans, but OpenTelemetry is not installed", way_out=way_out
        ) from None
    return otel.Spans(otel.provider(name).get_tracer("homeostat"))


def _exporter(environment: Mapping[str, str]) -> str | None:
    """Its name, as OpenTelemetry's own variables say it."""
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    name = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return None if disabled or name == "none" else name


@contextmanager
def announced(root: Path, worker: str, url: str) -> Iterator[None]:
    """While it lasts, the control plane knows where to ask this worker."""
    with announce(root / STATE / "workers", worker, url):
        yield


def database(state: Path, policy: Policy) -> str:
    """The URL of the control plane's database."""
    return policy.database or f"sqlite:///{state / 'state.db'}"


def logs(state: Path, worker: str, policy: Policy) -> tuple[SegmentLog, SegmentLabels]:
    """Of predictions and of labels, as the policy wants them; `worker` names the folder of this process's segments.
    Errors: `ConfigError`."""
    if policy.log.hidden:
        _check_private(policy, column_names(state.parent / policy.data.source))
    rule, tables = policy.log, DayTables(state / "tables")
    rules, segments = Rules(sync_ms=rule.sync), state / "log"
    mask = Mask(frozenset(rule.drop), frozenset(rule.hash), policy.data.key, secret(state / "keys" / "log"))
    log = SegmentLog(segments, worker, tables, rules, mask if rule.hidden else None, rule.strict)
    return log, SegmentLabels(segments, worker, tables, rules, mask.signals if rule.hidden else None)


def _check_private(policy: Policy, columns: Sequence[str]) -> None:
    """A mistyped name would leave in the log what must not be there. Of a machine without the data file nothing can be
    said; a run says it in any case. Errors: `ConfigError`."""
    inputs = [name for name in columns if name not in (policy.data.target, policy.data.key, *policy.data.drop)]
    for rule, names in (("drop", policy.log.drop), ("hash", policy.log.hash)):
        unknown = [name for name in names if name not in (*inputs, policy.data.key)]
        if columns and unknown:
            raise ConfigError(
                f"{unknown[0]!r} is no input and not the key",
                where=f"homeostat.yaml  log.{rule}",
                way_out=f"Inputs: {', '.join(inputs)}.",
            )
