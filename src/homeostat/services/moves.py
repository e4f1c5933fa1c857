"""Why the loss of what a version scored is not what it was when the version was made."""

from __future__ import annotations

import polars as pl

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window
from homeostat.domain.moved import Explained
from homeostat.domain.policy import Policy
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.evaluation import Evaluation
from homeostat.engines.failures import Labelled
from homeostat.engines.moved import CHANGES, Sample, explained
from homeostat.ports import Blobs, Clock, Journal, LabelLog, PredictionLog
from homeostat.services.holdout import held
from homeostat.services.scored import inputs_of, labelled, scored_by
from homeostat.services.windows import MOST

DRIFT = "monitor.drift"


class Moves:
    """Reads only."""

    def __init__(
        self, policy: Policy, log: PredictionLog, labels: LabelLog, journal: Journal, blobs: Blobs, clock: Clock
    ) -> None:
        self.policy, self.log, self.labels, self.journal = policy, log, labels, journal
        self.blobs, self.clock = blobs, clock

    def explain(self, bundle: Bundle, version: int, start_ms: int, end_ms: int) -> Explained | None:
        """The version's labelled rows of that time beside its holdout; before labels come, what drifted and what was
        changed. None: it keeps no holdout."""
        rows, _, share = self.rows(bundle, version, start_ms, end_ms)
        kept = held(self.blobs, bundle)
        if kept is None:
            return None
        before = metrics.losses(bundle.schema.task, kept.y, kept.output, bundle.loss_scale)
        return explained(
            bundle.schema,
            Window(start_ms, end_ms, len(rows)),
            version,
            Sample(kept.frame, before),
            Sample(rows.frame, rows.losses, rows.ids),
            self._drifted(start_ms, end_ms),
            self.evaluation(bundle).importance,
            self._changes(2 * start_ms - end_ms, end_ms),
            share,
        )

    def read(self, start_ms: int, end_ms: int, inputs: bool = True) -> tuple[pl.DataFrame, float]:
        """Rows of the log, and the share of the ids that they are: of a stretch whose windows hold more than `MOST`
        answers about so many, so that none is too large for the memory."""
        judged = self.journal.read(self.policy.name, DRIFT, str(min(self.policy.monitor.windows)))
        known = sum(int(one.body["rows"]) for one in judged if start_ms < one.body["end_ms"] <= end_ms)
        share = min(1.0, MOST / max(known, 1))
        return self.log.read(self.policy.name, start_ms, end_ms, inputs, share), share

    def rows(self, bundle: Bundle, version: int, start_ms: int, end_ms: int) -> tuple[Labelled, pl.DataFrame, float]:
        """The version's labelled rows of a stretch; all that it scored there: id, at_ms, known (has a label); the share
        of the ids that these are."""
        log, share = self.read(start_ms, end_ms)
        rows = scored_by(log, version)
        joined, y = labelled(bundle.schema, rows, self.labels.read(start_ms, self.clock.now_ms() + 1, rows["id"]))
        output = output_of(bundle.schema, joined)
        frame = self.shown(bundle, inputs_of(log, joined) if len(joined) else None)
        losses = metrics.losses(bundle.schema.task, y, output, bundle.loss_scale)
        told = rows.select("id", "at_ms", known=pl.col("id").is_in(joined["id"].to_list()))
        return Labelled(frame, y, output, losses, joined["id"].to_list()), told, share

    def shown(self, bundle: Bundle, inputs: pl.DataFrame | None) -> pl.DataFrame:
        """Those columns that the log holds as they were served; without a row for None."""
        names = [name for name in bundle.schema.names if name not in self.policy.log.hidden]
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Null)) if inputs is None else inputs.select(names)

    def evaluation(self, bundle: Bundle) -> Evaluation:
        return codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation)

    def _drifted(self, start_ms: int, end_ms: int) -> list[Reading]:
        """What drifted in windows that overlap this one."""
        events = self.journal.read(self.policy.name, DRIFT)
        inside = [one for one in events if one.body["start_ms"] < end_ms and one.body["end_ms"] > start_ms]
        said = [reading for one in inside for reading in one.body["readings"]]
        return [Reading(**{**reading, "verdict": Verdict(reading["verdict"])}) for reading in said]

    def _changes(self, start_ms: int, end_ms: int) -> list[Event]:
        events = self.journal.read(self.policy.name)
        return [one for one in events if one.kind in CHANGES and start_ms <= one.at_ms < end_ms]
