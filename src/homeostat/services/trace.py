"""From a prediction to everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from homeostat.domain.errors import NotFound
from homeostat.domain.prediction import PINNED, UNRELEASED, Role
from homeostat.domain.rollout import Rollout
from homeostat.domain.trace import Label, Score, Trace
from homeostat.ports import LabelLog, PredictionLog, Rollouts, Tracker
from homeostat.services.bundles import Bundles

_FOREVER = 2**62


class Traces:
    """Reads only."""

    def __init__(
        self,
        model: str,
        log: PredictionLog,
        labels: LabelLog,
        rollouts: Rollouts,
        bundles: Bundles,
        tracker: Tracker,
    ) -> None:
        self.model, self.log, self.labels, self.rollouts, self.bundles = model, log, labels, rollouts, bundles
        self.tracker = tracker

    def trace(self, prediction: str) -> Trace:
        """The prediction of that id, else the first of the W3C trace of that id.

        Errors: `NotFound`; `Corrupt` when what is stored about it was damaged."""
        rows = self.log.find(prediction)
        if rows.is_empty():
            raise NotFound(
                f"no prediction {prediction!r}",
                way_out="Its id is in the answer and in the header x-prediction-id.",
            )
        names = rows["id"].unique(maintain_order=True).to_list()
        rows = rows if names == [prediction] else self.log.find(names[0])  # shadow is in no trace
        row = min(rows.iter_rows(named=True), key=_rank)
        rollout, bundle = self._served(row)
        manifest = self.bundles.load(bundle) if bundle else None
        return Trace(
            id=names[0],
            model=self.model,
            key=row["key"],
            at_ms=row["at_ms"],
            release=row["release"],
            weight=row["weight"],
            arm=row["arm"],
            inputs=row["inputs"] or {},
            scores=tuple(_score(one) for one in rows.iter_rows(named=True)),
            label=self._label(names[0]),
            rollout=rollout,
            bundle=bundle,
            run=self.bundles.record(manifest) if manifest else None,
            environment=self.bundles.file(manifest, "environment.txt").decode() if manifest else "",
            others=tuple(names[1:]),
        )

    def _served(self, row: Mapping[str, Any]) -> tuple[Rollout | None, str]:
        """The release in force, and the bundle that answered; None and "" where there is none. The variants of an
        experiment need not have been released."""
        if row["release"].startswith(UNRELEASED):
            return None, row["release"].partition(":")[2]
        release = row["release"].removeprefix(PINNED)
        rollout = next((one for one in self.rollouts.all(self.model) if one.id == release), None)
        if row["role"] in (Role.REJECTED, Role.SHED):
            return rollout, ""
        versions = (rollout.candidate, rollout.champion) if rollout else self.tracker.versions(self.model)
        return rollout, next((one.bundle for one in versions if one and one.number == row["version"]), "")

    def _label(self, prediction: str) -> Label | None:
        found = self.labels.read(-_FOREVER, _FOREVER).filter(pl.col("id") == prediction)
        return Label(found["label"][0], int(found["at_ms"][0])) if found.height else None


def _rank(row: Mapping[str, Any]) -> int:
    """The answer first: its id may have been refused before, or its candidate have failed."""
    return [Role.ANSWER, Role.REJECTED, Role.FAILED, Role.SHADOW, Role.SHED].index(Role(row["role"]))


def _score(row: Mapping[str, Any]) -> Score:
    scores = tuple(row["scores"]) if row["scores"] is not None else None
    return Score(row["version"], row["role"], row["status"], row["score"], row["label"], scores)
