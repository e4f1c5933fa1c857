"""From closed segments to tables: each row once, whatever is killed when.

Rows are appended to their table, then their segments are deleted. A crash between the two leaves rows that the next
pass finds in the table by their identity and their time: it reads no more of the table than the time around them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl

from homeostat.ports import Census
from homeostat.stores import frames, health
from homeostat.stores.days import DAY, DayTables
from homeostat.stores.follow import LABELS, PREDICTIONS, SIGNALS, B, Format, load
from homeostat.stores.segments import CLOSED, Scan, close_orphans, segments
from homeostat.stores.tallies import Tallies

GROUP = 32 << 20
"""Bytes of segments that become one commit; what a pass holds in memory is a few times this."""
RETRY_MS = 3_600_000
"""A row that came a second time is known again within this time; later it is kept twice, and still read once."""


class SegmentArchive:
    """`ports.Archive`: segments under `root`, tables. One at a time over all processes: others wait. `census` counts
    predictions as they pass, into `tallies`."""

    def __init__(
        self,
        root: Path,
        tables: DayTables,
        group: int = GROUP,
        tallies: Tallies | None = None,
        census: Census | None = None,
    ) -> None:
        self._root, self._tables, self._group = root, tables, group
        self._tallies, self._census = tallies, census

    def compact(self) -> tuple[int, int]:
        """Move all closed segments. → rows moved, and damaged records passed over."""
        with _alone(self._root):
            health.forget_the_dead(self._root)
            self._settle()
            done = self._stream(PREDICTIONS), self._stream(LABELS), self._stream(SIGNALS)
        return sum(moved for moved, _ in done), sum(lost for _, lost in done)

    def days(self) -> Mapping[date, int]:
        """Bytes of each day in the tables."""
        return self._tables.days()

    def remove(self, before: date) -> None:
        """The days before that one, with their labels and signals."""
        with _alone(self._root):
            self._settle()
            self._tables.remove(before)

    def tidy(self, today: date) -> None:
        with _alone(self._root):
            self._settle()
            self._tables.tidy(today)

    def _stream(self, form: Format[B]) -> tuple[int, int]:
        close_orphans(self._root, form.stream)
        moved = lost = 0
        for paths in self._groups(form.stream):
            parts: dict[str, list[pl.DataFrame]] = {}
            for path in paths:
                made, bad = load(path, form, Scan())
                lost += bad
                for table, rows in made.items():
                    parts.setdefault(table, []).append(rows)
            for table, some in sorted(parts.items()):
                moved += self._move(form, table, pl.concat(some, how="diagonal_relaxed"))
            for path in paths:
                path.unlink(missing_ok=True)
        return moved, lost

    def _groups(self, stream: str) -> Iterator[Sequence[Path]]:
        group: list[Path] = []
        size = 0
        for path in [path for path in segments(self._root, stream) if path.suffix == CLOSED]:
            if group and size + path.stat().st_size > self._group:
                yield group
                group, size = [], 0
            group.append(path)
            size += path.stat().st_size
        if group:
            yield group

    def _move(self, form: Format[B], table: str, rows: pl.DataFrame) -> int:
        """Append the rows whose identity is new; the first of equals, in order of arrival."""
        new = rows.sort("stamp", maintain_order=True).unique(form.identity, keep="first", maintain_order=True)
        known = self._known(form, table, new)
        if known is not None:
            new = new.join(known, on=form.identity, how="anti", maintain_order="left", nulls_equal=True)
        if new.height:
            if self._tallies is not None and self._census is not None and form.stream == PREDICTIONS.stream:
                self._tallies.add(table, frames.shown(new), self._census)
            self._tables.append(table, form.stored(new).with_columns(form.day.alias(DAY)))
        return new.height

    def _settle(self) -> None:
        """Before anything is committed."""
        if self._tallies is not None:
            for table in self._tables.names():
                self._tallies.settle(table)

    def _known(self, form: Format[B], table: str, new: pl.DataFrame) -> pl.DataFrame | None:
        """Identities of the table's rows around the times of the new ones that may be the same."""
        stored = self._tables.read(table)
        if stored is None:
            return None
        times = new["at_ms"].to_numpy()
        near = pl.col("at_ms").is_between(int(times.min()) - RETRY_MS, int(times.max()) + RETRY_MS)
        same = pl.col("id").is_in(new["id"].implode())
        known = frames.since_then(stored, new).filter(near & same).select(form.identity).collect()
        return known.with_columns(pl.col("source").fill_null("")) if "source" in form.identity else known


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One compactor at a time, over all processes."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "compact.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
