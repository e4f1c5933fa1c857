"""The reference profile of a bundle: what ordinary rows look like, how much ordinary windows wobble, and what comes
round with the hour, the weekday or the month."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np

from homeostat.domain.errors import Corrupt
from homeostat.engines.drift.counts import NumberLayout, Numbers
from homeostat.engines.drift.texts import Categories, CategoryLayout, Column, Layout, Prose, ProseLayout, total

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Profile:
    """What is kept of a stretch of rows: the counts of each column, and of rows that were refused, by what they broke
    (`amount: high`). Profiles of the same reference add up."""

    rows: int
    columns: Mapping[str, Column]
    refused: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Profile) -> Profile:
        return Profile.total([self, other])

    @staticmethod
    def total(parts: Sequence[Profile]) -> Profile:
        """All of them together, at least one."""
        merged = {name: total([part.columns[name] for part in parts]) for name in parts[0].columns}
        causes = sorted({cause for part in parts for cause in part.refused})
        refused = {cause: sum(part.refused.get(cause, 0) for part in parts) for cause in causes}
        return Profile(sum(part.rows for part in parts), merged, refused)

    def to_bytes(self) -> bytes:
        """Compressed MessagePack; only cells that hold a row are written. The same profile, the same bytes."""
        return _pack(_profile_out(self))

    @staticmethod
    def from_bytes(data: bytes) -> Profile:
        """Errors: `Corrupt`."""
        return _unpack(data, _profile_in, "a profile")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How much windows of the reference differ beyond chance: `wobble` by `test:subject`; they tell as much as
    `windows` that do not overlap."""

    windows: float
    wobble: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Season:
    """What windows of `length_ms` look like in each slot of a `cycle`, in few cells: of `windows` each. Only the
    columns whose slots differ are kept, and `wobble` names the tests that do better here than beside all windows."""

    cycle: str
    length_ms: int
    slots: Mapping[int, Profile]
    windows: Mapping[int, int]
    wobble: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reference:
    """`calibrations`: by the length of a window (ms), or, below 0, by the number of its rows."""

    layouts: Mapping[str, Layout]
    profile: Profile
    calibrations: Mapping[int, Calibration]
    seasons: tuple[Season, ...] = ()

    def calibration(self, window_ms: int) -> Calibration:
        """That of the longest calibrated length within `window_ms`, else of the shortest: shorter windows wobble
        more, so the choice errs towards silence. `window_ms` below 0: so many rows. Errors: KeyError, none of rows is
        known."""
        known = {abs(one): found for one, found in self.calibrations.items() if (one < 0) == (window_ms < 0)}
        if window_ms < 0 and not self.counted(-window_ms):
            raise KeyError(window_ms)
        fitting = [length for length in known if length <= abs(window_ms)]
        return known[max(fitting) if fitting else min(known)]

    def counted(self, rows: int) -> bool:
        """Windows of so many rows, or fewer, were calibrated."""
        return any(0 < -length <= rows for length in self.calibrations)

    def to_bytes(self) -> bytes:
        """As `Profile.to_bytes`."""
        layouts = {name: _layout_out(layout) for name, layout in self.layouts.items()}
        rows, columns, _ = _profile_out(self.profile)
        calibrations = [(length, c.windows, c.wobble) for length, c in self.calibrations.items()]
        return _pack((layouts, rows, columns, calibrations, [_season_out(one) for one in self.seasons]))

    @staticmethod
    def from_bytes(data: bytes) -> Reference:
        """Errors: `Corrupt` when the bytes are not a reference."""
        return _unpack(data, _reference_in, "a reference profile")


def _pack(plain: Any) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(plain))


def _unpack(data: bytes, read: Callable[[Any], T], what: str) -> T:
    try:
        return read(msgspec.msgpack.decode(zlib.decompress(data), strict=False))
    except (zlib.error, msgspec.MsgspecError, AttributeError, ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"{what} can't be read", where=str(error)) from error


def _reference_in(plain: Any) -> Reference:
    """Bundles made before there were seasons have four parts."""
    layouts, rows, columns, calibrations, *more = plain
    return Reference(
        {name: _layout_in(layout) for name, layout in layouts.items()},
        _profile_in((rows, columns, {})),
        {length: Calibration(windows, wobble) for length, windows, wobble in calibrations},
        tuple(_season_in(one) for one in (more[0] if more else ())),
    )


def _season_out(season: Season) -> list[Any]:
    slots = {slot: _profile_out(profile) for slot, profile in season.slots.items()}
    return [season.cycle, season.length_ms, slots, season.windows, season.wobble]


def _season_in(plain: list[Any]) -> Season:
    cycle, length_ms, slots, windows, wobble = plain
    return Season(cycle, length_ms, {slot: _profile_in(one) for slot, one in slots.items()}, windows, wobble)


def _profile_out(profile: Profile) -> tuple[int, dict[str, Any], Mapping[str, int]]:
    return profile.rows, {name: _column_out(column) for name, column in profile.columns.items()}, profile.refused


def _profile_in(plain: Any) -> Profile:
    rows, columns, refused = plain
    return Profile(rows, {name: _column_in(column) for name, column in columns.items()}, refused)


def _layout_out(layout: Layout) -> list[Any]:
    if isinstance(layout, ProseLayout):
        return [layout.values.known, layout.length.center, layout.length.scale]
    return [layout.center, layout.scale] if isinstance(layout, NumberLayout) else [layout.known]


def _layout_in(plain: list[Any]) -> Layout:
    if len(plain) == 3:
        return ProseLayout(CategoryLayout(tuple(plain[0])), NumberLayout(*plain[1:]))
    return NumberLayout(*plain) if len(plain) == 2 else CategoryLayout(tuple(plain[0]))


def _column_out(column: Column) -> list[Any]:
    if isinstance(column, Prose):
        return [_column_out(part) for part in (column.values, column.length, column.pieces)]
    if isinstance(column, Categories):
        return [column.missing, column.counts]
    return [column.missing, column.cells.astype("<u2").tobytes(), column.counts.astype("<i8").tobytes()]


def _column_in(plain: list[Any]) -> Column:
    if isinstance(plain[0], list):
        values, length, pieces = plain
        return Prose(_categories_in(values), _numbers_in(length), _categories_in(pieces))
    return _categories_in(plain) if len(plain) == 2 else _numbers_in(plain)


def _categories_in(plain: list[Any]) -> Categories:
    return Categories(plain[1], plain[0])


def _numbers_in(plain: list[Any]) -> Numbers:
    cells, counts = np.frombuffer(plain[1], "<u2"), np.frombuffer(plain[2], "<i8")
    return Numbers(cells.astype(np.int64), counts.astype(np.int64), plain[0])
