"""The rows of a window, read once for all that look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.monitor import Reading
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.schema import Value
from homeostat.engines.answer import output_of
from homeostat.engines.drift.example import example
from homeostat.engines.drift.profile import PREDICTION, Reference, answered
from homeostat.ports import PredictionLog
from homeostat.services.champion import Champion
from homeostat.services.scored import inputs_of, scored_by

MOST = 200_000
"""Rows of a window that estimates and metrics look at, and of those that broken columns are looked for in."""


def part_words(share: float) -> str:
    """Of so many ids; "" of all."""
    return f" (a sample by id, {share:.2%})" if share < 1 else ""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one version scored in a stretch of time: n `rows` of the log, their `inputs` as served, a column a field
    (null where the log does not hold them), and the `output` (n, c). `share` of them, chosen by their ids."""

    rows: pl.DataFrame
    inputs: pl.DataFrame
    output: NDArray[np.float64]
    share: float = 1.0

    @property
    def words(self) -> str:
        """Says aloud that it is a part."""
        return part_words(self.share)

    def example(self, reference: Reference, classes: Sequence[Value], reading: Reading) -> str:
        """The id of a prediction that shows what a reading says; "": the version scored none."""
        if reading.example or not len(self.rows):
            return reading.example
        subject = reading.subject
        column = answered(self.output, classes) if subject == PREDICTION else self.inputs[subject]
        place = example(reading.test, reference.layouts[subject], reference.profile.columns[subject], column)
        return str(self.rows["id"][-1 if place is None else place])


class Windows:
    """The last window that was asked for is kept: drift, estimate and metric ask one after the other."""

    def __init__(self, policy: Policy, log: PredictionLog) -> None:
        self.policy, self.log = policy, log
        self._last: tuple[tuple[int, int, int], Rows] | None = None

    def read(self, champion: Champion, start_ms: int, end_ms: int, known: int = 0) -> Rows:
        """The champion's, in order of time. `known`: how many there are, as far as that is known; of more than `MOST` a
        sample of so many, so that no window is too large for the memory."""
        which = champion.arm.version, start_ms, end_ms
        if self._last is None or self._last[0] != which:
            self._last = which, self._read(champion, start_ms, end_ms, min(1.0, MOST / max(known, 1)))
        return self._last[1]

    def refused(self, start_ms: int, end_ms: int) -> str:
        """The id of the last request that broke a rule, "" where none did."""
        log = self.log.read(self.policy.name, start_ms, end_ms, False)
        ids = log.filter(pl.col("role") == Role.REJECTED.value)["id"]
        return str(ids[-1]) if len(ids) else ""

    def _read(self, champion: Champion, start_ms: int, end_ms: int, share: float) -> Rows:
        log, schema = self.log.read(self.policy.name, start_ms, end_ms, True, share), champion.bundle.schema
        rows = scored_by(log, champion.arm.version)
        inputs = inputs_of(log, rows) if len(rows) else pl.DataFrame()
        shown = set(inputs.columns) - self.policy.log.hidden
        columns = {name: inputs[name] if name in shown else pl.Series([None] * len(rows)) for name in schema.names}
        return Rows(rows, pl.DataFrame(columns), output_of(schema, rows), share)
