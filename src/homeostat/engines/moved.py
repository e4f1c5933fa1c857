"""Why a metric moved: the move of the mean loss split by segment into mix and within, then ranked beside drift.

With shares w and mean losses m of the segments, before (0) and now (1), and the mean loss M0 before:
    M1 - M0 = sum (w1 - w0) (m0 - M0)  +  sum w1 (m1 - m0)
                       mix                     within
(Kitagawa 1955; Oaxaca 1973). M0 changes no sum, since the shares sum to 1; it makes a segment's own mix mean
something: more rows where the model always was worse. A segment that is new has m0 = M0, one that is gone m1 = m0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window
from homeostat.domain.moved import Explained, Part, Ranked
from homeostat.domain.schema import Schema
from homeostat.engines.groups import Group, groups, halves, placed, plain
from homeostat.engines.report import words

Array = NDArray[np.float64]
LEAST = 40
"""Rows of each sample; fewer say nothing of segments."""
Z = 1.96
SEGMENT = ("within", "mix")
"""Causes that are segments: their rows changed, or became more or fewer."""
CHANGES = ("release.promoted", "release.rolled_back", "data.versioned", "training.done", "environment.changed")
"""What somebody, or the loop, changed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """n rows in order of time: a column a field, losses (n,) in [0, 1], prediction ids (n of them, or none)."""

    frame: pl.DataFrame
    losses: Array
    ids: Sequence[str] = ()

    def only(self, which: NDArray[np.bool_]) -> Sample:
        ids = [one for one, kept in zip(self.ids, which, strict=True) if kept] if self.ids else ()
        return Sample(self.frame.filter(pl.Series(which)), self.losses[which], ids)


def decompose(schema: Schema, before: Sample, now: Sample) -> tuple[Part, ...]:
    """The parts of the move, the largest first. Segments are found on one half of either sample and measured on the
    other. () where a sample has fewer than `LEAST` rows."""
    if min(len(before.losses), len(now.losses)) < LEAST:
        return ()
    old, new = halves(len(before.losses)), halves(len(now.losses))
    found = _segments(schema, before.only(old), now.only(new))
    return measured(found, before.only(~old), now.only(~new))


def _segments(schema: Schema, before: Sample, now: Sample) -> list[Group]:
    names = [field.name for field in schema.fields if field.name in before.frame.columns]
    both = pl.concat([before.frame.select(names), now.frame.select(names)], how="vertical_relaxed")
    samples = np.repeat([0, 1], [len(before.losses), len(now.losses)])
    fields = [field for field in schema.fields if field.name in names]
    found = groups(fields, both, np.concatenate([before.losses, now.losses]), samples)
    nullable = {field.name: field.nullable for field in fields}
    return [plain(group, nullable) for group in found]


def measured(segments: Sequence[Group], before: Sample, now: Sample) -> tuple[Part, ...]:
    """Each segment's part, the largest first."""
    old, new = placed(segments, before.frame), placed(segments, now.frame)
    level = float(before.losses.mean())
    parts = [_part(group, before, old == place, now, new == place, level) for place, group in enumerate(segments)]
    return tuple(sorted(parts, key=lambda part: -abs(part.total)))


def _part(
    group: Group, before: Sample, old: NDArray[np.bool_], now: Sample, new: NDArray[np.bool_], level: float
) -> Part:
    w0, w1 = float(old.mean()), float(new.mean())
    m0 = float(before.losses[old].mean()) if old.any() else level
    m1 = float(now.losses[new].mean()) if new.any() else m0
    mix, within = (w1 - w0) * (m0 - level), w1 * (m1 - m0)
    error = Z * float(
        np.sqrt(_within_error(before, old, now, new) + _mix_error(w0, w1, m0 - level, len(old), len(new)))
    )
    worst = np.argmax(np.where(new, now.losses, -1)) if now.ids and new.any() else None
    return Part(
        segment=str(group),
        fields=group.fields,
        n=int(new.sum()),
        share_before=w0,
        share=w1,
        loss_before=m0,
        loss=m1,
        mix=mix,
        within=within,
        low=mix + within - error,
        high=mix + within + error,
        example=now.ids[int(worst)] if worst is not None else "",
    )


def _within_error(before: Sample, old: NDArray[np.bool_], now: Sample, new: NDArray[np.bool_]) -> float:
    """The variance of w1 (m1 - m0), the shares taken as they are."""
    spread = sum(
        float(sample.losses[inside].var()) / int(inside.sum())
        for sample, inside in ((before, old), (now, new))
        if inside.any()
    )
    return float(new.mean()) ** 2 * spread


def _mix_error(w0: float, w1: float, apart: float, n0: int, n1: int) -> float:
    return apart**2 * (w0 * (1 - w0) / n0 + w1 * (1 - w1) / n1)


def causes(
    parts: Sequence[Part],
    drifted: Sequence[Reading],
    importance: Mapping[str, float],
    changes: Sequence[Event],
) -> tuple[Ranked, ...]:
    """Ranked by what they account for, in units of the loss: segments whose part goes the way of the move and is sure
    (its interval leaves out 0); inputs that drifted, by their effect in [0, 1] times what the model loses without them
    (`importance`: field → mean loss with its values shuffled, less the loss as it is); last what was changed in that
    time, the newest first."""
    move = sum(part.total for part in parts)
    sure = [part for part in parts if part.low > 0 or part.high < 0]
    found = [_cause(part, move, drifted) for part in sure if part.total * move > 0]
    found += list(_drift(drifted, importance))
    found.sort(key=lambda cause: -cause.size)
    newest = sorted(changes, key=lambda event: -event.at_ms)
    return (*found, *(Ranked("change", event.kind, 0.0, _happened(event)) for event in newest))


def _cause(part: Part, move: float, drifted: Sequence[Reading]) -> Ranked:
    kind = "within" if abs(part.within) >= abs(part.mix) else "mix"
    rows = f"{words.percent(part.share)} of the rows, {words.percent(part.share_before)} before"
    loss = f"loss {words.number(part.loss_before)} before, {words.number(part.loss)} now"
    account = f"{_signed(part.total)} of {_signed(move)}"
    why = "its rows changed for the " + ("worse" if part.within > 0 else "better") if kind == "within" else "more of it"
    if kind == "mix" and part.share < part.share_before:
        why = "less of it"
    moved = {reading.subject for reading in drifted if reading.verdict is Verdict.HARM}
    also = sorted(moved.intersection(part.fields))
    drift = f"; {words.listed(also)} drifted" if also else ""
    return Ranked(
        kind, part.segment, abs(part.total), f"{part.segment} ({rows}): {loss}; {why}, {account}{drift}", part.example
    )


def _drift(drifted: Sequence[Reading], importance: Mapping[str, float]) -> Iterator[Ranked]:
    """Each input once, by its largest effect."""
    largest: dict[str, Reading] = {}
    for reading in drifted:
        if reading.verdict is Verdict.HARM and reading.effect >= largest.get(reading.subject, reading).effect:
            largest[reading.subject] = reading
    for subject, reading in largest.items():
        if subject in importance:
            size = max(importance[subject], 0.0) * min(reading.effect, 1.0)
            yield Ranked("drift", subject, size, f"{reading.reason}; accounts for {words.number(size)} at most")


def _happened(event: Event) -> str:
    return f"{words.time(event.at_ms)}: {event.text}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + words.number(value)


def explained(
    schema: Schema,
    window: Window,
    version: int,
    before: Sample,
    now: Sample,
    drifted: Sequence[Reading],
    importance: Mapping[str, float],
    changes: Sequence[Event],
    share: float = 1.0,
) -> Explained:
    """A window beside the reference rows. `share`: of its ids that were looked at."""
    parts = decompose(schema, before, now)
    old, new = ~halves(len(before.losses)), ~halves(len(now.losses))
    return Explained(
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        version=version,
        before=_mean(before.losses[old]),
        now=_mean(now.losses[new]),
        reference_rows=len(before.losses),
        rows=len(now.losses),
        parts=parts,
        causes=causes(parts, drifted, importance, changes),
        share=share,
    )


def _mean(losses: Array) -> float:
    return float(losses.mean()) if len(losses) else np.nan
