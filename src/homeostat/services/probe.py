"""Before a training is paid for: would it help? And would an earlier version?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import HomeostatError
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Status
from homeostat.domain.schema import Schema
from homeostat.domain.trigger import Probed, Remembered
from homeostat.domain.units import iso
from homeostat.engines import labels, metrics, probe
from homeostat.engines.evaluation import Evaluation, comparable
from homeostat.engines.split import LEAST_TRAIN
from homeostat.engines.transform import matrix
from homeostat.ports import Clock, Rollouts, Router, Runtime, StepCache
from homeostat.services import sweep
from homeostat.services.bundles import Bundles
from homeostat.services.data import Data, content_digest
from homeostat.services.release_seen import refusal
from homeostat.services.steps import Steps
from homeostat.services.training import Rows, Training, native

Array = NDArray[np.float64]
MEMORY = 8
"""So many earlier versions are remembered: those that served last."""
HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class _Newest:
    """The champion on the labels that a probe is tested on: the `rows` that it has not learned from, and its losses on
    them; `known`: the rows before."""

    champion: Bundle
    known: pl.DataFrame
    rows: pl.DataFrame
    losses: Array


class Probes:
    """Nothing is registered or released here. A probe's fit is a cached step like any other: asked again about the
    same rows, it costs nothing."""

    def __init__(
        self,
        policy: Policy,
        data: Data,
        training: Training,
        bundles: Bundles,
        runtime: Runtime,
        router: Router,
        rollouts: Rollouts,
        cache: StepCache,
        clock: Clock,
    ) -> None:
        self.policy, self.data, self.training, self.bundles = policy, data, training, bundles
        self.runtime, self.router, self.rollouts, self.cache, self.clock = runtime, router, rollouts, cache, clock

    def refit(
        self,
        window_ms: int,
        swept: bool = False,
        needed: float = probe.HELPS,
        changed_ms: int = 0,
        forgot_ms: int = 0,
    ) -> Probed:
        """A training on the newest `window_ms` (0: all); with `swept`, of the parameters that a sweep finds; `needed`:
        E from which it is worth it. Where that is surely better, it forgets what was before a change that began at
        about `changed_ms`, or, as the last training did, before `forgot_ms` (0: neither). What a probe can't tell,
        since the champion can't answer these rows, a training must; where nothing can be fitted, none would help."""
        try:
            frame = self.data.newest()
            schema = self.training.schema(frame)
            halfway = probe.halfway(frame[EVENT_MS].to_numpy(), changed_ms)
            found = self._newest(frame, schema, halfway)
            if isinstance(found, Probed):
                return found
            begins = [forgot_ms] if forgot_ms else []
            if halfway:
                begins += probe.halves(found.known[EVENT_MS].to_numpy(), changed_ms)
            return self._fitted(found, schema, window_ms, swept, needed, begins)
        except HomeostatError as error:
            return Probed(False, f"no model can be fitted: {error.what}")

    def remembered(self, since_ms: int, least: float) -> Remembered | None:
        """The earlier version that is surely better than the champion on the newest labels, and as good as when it was
        made: a season that returns, or a champion that was a mistake. Labels from before a change at `since_ms` (0:
        none is known) speak for the world that went: they don't count, where enough have come since. None where there
        is no such version, or the champion loses less than `least` there."""
        try:
            frame = self.data.newest()
            schema = self.training.schema(frame)
            found = self._newest(frame, schema, since_ms)
        except HomeostatError:
            return None
        if isinstance(found, Probed) or found.losses.mean() < least:
            return None
        earlier = [one for one in self._earlier() if self._fresh(one, found, schema)]
        tried = [Remembered(one, self._beside(one, found, len(earlier))) for one in earlier]
        better = [one for one in tried if one.probed.helps]
        return max(better, key=lambda one: one.probed.gain, default=None)

    def _newest(self, frame: pl.DataFrame, schema: Schema, since_ms: int = 0) -> _Newest | Probed:
        route = self.router.read().routes.get(self.policy.name)
        if route is None:
            return Probed(True, "nothing is served yet")
        champion = self.bundles.load(route.champion.bundle)
        if not comparable(champion.schema, schema):
            return Probed(True, "the champion knows other inputs or other classes than these rows")
        start = probe.newest(frame[EVENT_MS].to_numpy(), self.policy.train.holdout, since_ms)
        rows = frame[start:].filter(pl.col(EVENT_MS) > champion.trained_until_ms)
        if len(rows) < probe.LEAST:
            needed = f"{probe.LEAST} are needed"
            return Probed(False, f"the champion has learned from all but {len(rows)} of the newest labels; {needed}")
        losses = self._losses(champion, champion.schema, rows, self._output(champion, rows))
        return _Newest(champion, frame[:start], rows, losses)

    def _fitted(
        self, found: _Newest, schema: Schema, window_ms: int, swept: bool, needed: float, begins: Sequence[int]
    ) -> Probed:
        newest = int(found.rows[EVENT_MS][-1])
        known = found.known.filter(pl.col(EVENT_MS) > newest - window_ms) if window_ms else found.known
        if len(known) < LEAST_TRAIN:
            return Probed(False, f"there are {len(known)} labels to learn from; {LEAST_TRAIN} are needed")
        started = self.clock.timer_ns()
        steps = Steps(self.cache, self.clock, lambda _done, _total, _doing: None, 1)
        rows = Rows(known, content_digest(known))
        chosen = (
            sweep.sweep(self.training, rows, schema, steps)
            if swept
            else sweep.kept(self.bundles, found.champion, self.training)
        )
        losses = self._fit(found, schema, rows, steps, chosen)
        who = "a model fitted on the rows before" + (f", {sweep.told(chosen.values)}," if swept else "")
        fitted, since = len(known) * (1 + swept * chosen.tried), 0
        for begin in begins:
            after = known.filter(pl.col(EVENT_MS) >= begin)
            if not probe.FEW <= len(after) < len(known):
                continue
            others = self._fit(found, schema, Rows(after, content_digest(after)), steps, chosen)
            fitted += len(after)
            if probe.gain(losses, others)[1] >= probe.SURE:
                losses, since = others, begin
                who = f"a model fitted on the rows since {iso(since)} alone"
        seconds = (self.clock.timer_ns() - started) / 1e9
        made = _judged(who, found.losses, losses, needed)
        price = seconds / HOUR_S * self.policy.retrain.price
        return replace(made, rows=fitted, seconds=seconds, price=price, since_ms=since)

    def _fit(self, found: _Newest, schema: Schema, rows: Rows, steps: Steps, chosen: sweep.Swept) -> Array:
        """→ the losses, on the newest rows, of a model that learns from these."""
        fitted = self.training.fit(rows, schema, steps, " (probe)", chosen.values)
        x = matrix(schema, found.rows.select(schema.names).to_dict())
        return self._losses(found.champion, schema, found.rows, native(fitted.estimator, schema, x))

    def _earlier(self) -> Iterator[Version]:
        """That served before the champion, the last ones first; a bundle that was refused since is none."""
        records = self.rollouts.all(self.policy.name)
        served = [one.candidate for one in records if one.status is Status.PROMOTED]
        known = list({one.bundle: one for one in reversed(served)}.values())[1 : MEMORY + 1]
        return (one for one in known if refusal(one.bundle, records) is None)

    def _fresh(self, version: Version, found: _Newest, schema: Schema) -> bool:
        """It can answer these rows, and has learned from none of them."""
        bundle = self.bundles.load(version.bundle)
        return comparable(bundle.schema, schema) and bundle.trained_until_ms < int(found.rows[EVENT_MS][0])

    def _beside(self, version: Version, found: _Newest, tried: int) -> Probed:
        bundle = self.bundles.load(version.bundle)
        losses = self._losses(found.champion, bundle.schema, found.rows, self._output(bundle, found.rows))
        made = codec.decode(self.bundles.file(bundle, "evaluation.json"), Evaluation).loss
        ordinary = made.scaled(bundle.loss_scale / found.champion.loss_scale).worse(probe.ORDINARY)
        who = f"version {version.number}, which served before,"
        judged = _judged(who, found.losses, losses, probe.SURE * tried)
        return replace(judged, helps=judged.helps and float(losses.mean()) <= ordinary)

    def _output(self, bundle: Bundle, rows: pl.DataFrame) -> Array:
        x = matrix(bundle.schema, rows.select(bundle.schema.names).to_dict())
        return self.runtime.load(self.bundles.file(bundle, "model.onnx"))(x)

    def _losses(self, champion: Bundle, schema: Schema, rows: pl.DataFrame, output: Array) -> Array:
        """In the champion's unit."""
        y = labels.truth(schema, rows[schema.target].to_list())
        return metrics.losses(schema.task, y, output, champion.loss_scale)


def _judged(who: str, champion: Array, other: Array, needed: float) -> Probed:
    gained, evidence = probe.gain(champion, other)
    helps = evidence >= needed
    word = "is better" if helps else "is no better" if gained <= 0 else "is not surely better"
    told = f"{who} {word} on the newest {len(champion):,} labels: loss {other.mean():.3g}, the champion's "
    told += f"{champion.mean():.3g} (E = {evidence:.3g}, helps at {needed:.3g})"
    return Probed(helps, told, gained, evidence, len(champion))


def costs(probes: Sequence[Probed]) -> str:
    """The cost lines of those that cost something."""
    return " ".join(one.cost for one in probes if one.cost)
