"""Does serving score as the bundle does? Rows of the log, scored once more by the champion's model."""

from __future__ import annotations

import numpy as np

from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.policy import Policy
from homeostat.engines.answer import output_of
from homeostat.engines.drift.profile import PREDICTION
from homeostat.engines.transform import matrix
from homeostat.ports import Blobs, Model, PredictionLog, Runtime
from homeostat.services.champion import Champion
from homeostat.services.scored import inputs_of, scored_by

TEST = "same scores"
SAMPLE = 200
"""Rows that are scored again in each window: the newest."""
NEWEST = 24
"""The part of a window that they come from."""
APART = 1e-4
"""How far two scores may be, relative to the larger of 1 and the value; as where a model is exported."""


class Skew:
    """Between training and serving: one transform and one model must give one score."""

    def __init__(self, policy: Policy, log: PredictionLog, blobs: Blobs, runtime: Runtime) -> None:
        self.policy, self.log, self.blobs, self.runtime = policy, log, blobs, runtime
        self._model: tuple[str, Model] | None = None

    def reading(self, champion: Champion, start: int, end: int) -> Reading:
        """Of a window's last rows. Unknown where the log does not hold the inputs as they were served."""
        schema, hidden = champion.bundle.schema, sorted(self.policy.log.hidden & set(champion.bundle.schema.names))
        if hidden:
            return _unknown(f"the log does not hold {hidden[0]} as it was served")
        log = self.log.read(self.policy.name, end - max(1, (end - start) // NEWEST), end)
        rows = scored_by(log, champion.arm.version).tail(SAMPLE)
        if rows.is_empty():
            return _unknown("no row to score again")
        logged, inputs = output_of(schema, rows), inputs_of(log, rows)
        given = self._loaded(champion)(matrix(schema, inputs.select(schema.names).to_dict()))
        apart = np.nan_to_num(np.abs(given - logged) / np.maximum(1, np.abs(given)), nan=np.inf).max(axis=1)
        wrong = int((apart > APART).sum())
        words = f"{wrong} of {len(rows)} rows, scored once more by version {champion.arm.version}, give other scores"
        worst = str(rows["id"][int(np.argmax(apart))]) if wrong else ""
        share, reason = wrong / len(rows), f"{PREDICTION}: {words}" + (f", as {worst}" if wrong else "")
        verdict = Verdict.HARM if wrong else Verdict.OK
        return Reading(PREDICTION, TEST, verdict, share, float(not wrong), reason, example=worst)

    def _loaded(self, champion: Champion) -> Model:
        if self._model is None or self._model[0] != champion.arm.bundle:
            onnx = self.blobs.get(champion.bundle.files["model.onnx"])
            self._model = champion.arm.bundle, self.runtime.load(onnx)
        return self._model[1]


def _unknown(why: str) -> Reading:
    return Reading(PREDICTION, TEST, Verdict.UNKNOWN, 0.0, 1.0, f"{PREDICTION}: {why}")
