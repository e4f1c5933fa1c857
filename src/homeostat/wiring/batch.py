"""A batch job of a project, and no more of it: the whole system takes longer to begin than 250,000 rows to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from homeostat.adapters.clock import SystemClock
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.batch import Batch, BatchResult, Logs, Shipped, Terms
from homeostat.domain.errors import NotFound, UsageError
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Arm
from homeostat.ports import Blobs, Progress, Router
from homeostat.services.bundles import Bundles
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.routing import FileRouter
from homeostat.wiring import STATE
from homeostat.wiring.cluster import LOCAL, cluster


def predict_file(
    root: Path,
    policy: Policy,
    source: str | Path,
    out: str | Path,
    terms: Terms,
    progress: Progress,
    *,
    engine: str = LOCAL,
    logs: Callable[[], Logs] | None = None,
) -> BatchResult:
    """`Project.predict_file`, which says what it does; `logs` opens those that are to keep the answers."""
    if logs and engine != LOCAL:
        raise UsageError("the prediction log is on this machine", way_out="Use --log with --engine local.")
    serves = champion(FileRouter(root / STATE / "routing.json"), policy.name)
    ship = partial(_shipped, FileBlobs(root / STATE / "blobs"))
    batch = Batch(ship, SystemClock(), logs() if logs else None, cluster(engine))
    return batch.score(serves, source, out, replace(terms, exploration=policy.feedback.exploration), progress)


def champion(router: Router, model: str) -> Arm:
    """What serves. Errors: `NotFound` before the first release."""
    route = router.read().routes.get(model)
    if route is None:
        raise nothing_serves(model)
    return route.champion


def nothing_serves(model: str) -> NotFound:
    return NotFound(f"{model} serves no version yet", way_out="Start with `homeostat up`.")


def own_logs(root: Path, policy: Policy) -> Logs:
    """For a process that is about this job alone."""
    from homeostat.wiring.plane import logs  # a job without a log does without it

    return logs(root / STATE, "local", policy)


def _shipped(blobs: Blobs, bundle: str) -> Shipped:
    manifest = Bundles(blobs).load(bundle)
    return Shipped(bundle, blobs.get(bundle), blobs.get(manifest.files["model.onnx"]), OnnxRuntime())
