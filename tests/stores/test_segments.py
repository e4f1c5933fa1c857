"""Segments: what a kill, a full disk, a broken one or an old version leaves of them."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from logged import batch, ids

from homeostat.stores import frames, health
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.follow import LABELS, PREDICTIONS, Stream
from homeostat.stores.predictions import SegmentLog
from homeostat.stores.segments import CLOSED, OPEN, Rules, Scan, Writer, frame

PAYLOADS = st.lists(st.binary(max_size=60), min_size=1, max_size=8)
DAMAGE = st.sampled_from(["whole", "whole", "whole", "cut", "flipped", "twice", "after garbage"])


def damaged(data: st.DataObject, made: bytes, how: str) -> bytes:
    if how == "cut":
        return made[: data.draw(st.integers(0, len(made) - 1))]
    if how == "flipped":
        at = data.draw(st.integers(0, len(made) - 1))
        return made[:at] + bytes([made[at] ^ data.draw(st.integers(1, 255))]) + made[at + 1 :]
    if how == "after garbage":
        garbage = data.draw(st.binary(min_size=1, max_size=40))
        return garbage + made[: data.draw(st.integers(0, 12))] + made  # a header that leads nowhere, too
    return made * 2 if how == "twice" else made


@settings(max_examples=300)
@given(PAYLOADS, st.data())
def test_damage_loses_only_what_is_damaged(payloads: Sequence[bytes], data: st.DataObject) -> None:
    hows = [data.draw(DAMAGE) for _ in payloads]
    made = [damaged(data, frame(i, payload), how) for i, (payload, how) in enumerate(zip(payloads, hows, strict=True))]
    for i, payload in enumerate(payloads):  # what follows must not chance to begin with just what was cut off
        missing = frame(i, payload)[len(made[i]) :]
        assume(not missing or not b"".join(made[i + 1 :]).startswith(missing))
    scan = Scan()
    scan.feed(b"".join(made), closed=True)
    times = {"whole": 1, "after garbage": 1, "twice": 2}
    expected = [
        (i, payload)
        for i, (payload, how) in enumerate(zip(payloads, hows, strict=True))
        for _ in range(times.get(how, 0))
    ]
    assert scan.fresh == expected
    assert scan.at == sum(map(len, made))
    torn = [
        one
        for one, how in zip(made, hows, strict=True)
        if how in ("flipped", "after garbage") or (how == "cut" and one)
    ]
    assert bool(torn) == bool(scan.lost)
    assert scan.lost <= len(torn)  # neighbours count once


@given(PAYLOADS, st.data())
def test_reading_in_pieces_gives_the_same(payloads: Sequence[bytes], data: st.DataObject) -> None:
    whole = b"".join(frame(i, payload) for i, payload in enumerate(payloads))
    scan = Scan()
    for end in sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5))):
        scan.feed(whole[scan.at : end], closed=False)
    scan.feed(whole[scan.at :], closed=True)
    assert [payload for _, payload in scan.fresh] == list(payloads)
    assert scan.lost == 0


def test_a_file_full_of_headers_is_read_in_one_go() -> None:
    """Each of them promises more than there is. Reading on from one to the next costs no more than the file."""
    header = bytearray(frame(1, b"")[:24])
    header[4:8] = (1 << 30).to_bytes(4, "little")
    scan = Scan()
    scan.feed(bytes(header) * 200_000 + frame(2, b"last"), closed=True)
    assert scan.fresh == [(2, b"last")]
    assert scan.lost == 1


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
VALUES = PLAIN | st.binary(max_size=5)
NESTED = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A record that is no batch of this version, though its checksum is right."""
    if draw(st.booleans()):
        return msgspec.msgpack.encode(draw(NESTED))
    whole = frames.pack(batch(1, "odd"))
    record: dict[str, Any] = msgspec.msgpack.decode(whole, ext_hook=lambda _code, data: bytes(data))
    for name in draw(st.lists(st.sampled_from(sorted(record)), min_size=1, max_size=3)):
        how = draw(st.sampled_from(["gone", "other", "values", "input"]))
        if how == "gone":
            record.pop(name, None)
        elif how == "other":
            record[name] = draw(NESTED)
        elif how == "values":
            record[name] = draw(st.lists(VALUES, max_size=2))
        else:
            record["inputs"] = {"x": draw(st.lists(NESTED, max_size=2))}
    packed = msgspec.msgpack.encode(record)
    return packed[: draw(st.integers(0, len(packed)))] if draw(st.booleans()) else packed


@settings(max_examples=300)
@given(st.lists(odd(), min_size=1, max_size=3), st.integers(0, 2))
def test_a_record_that_makes_no_sense_is_the_only_one_lost(records: Sequence[bytes], at: int) -> None:
    """And what is read can be stored."""
    good = (9, frames.pack(batch(5, "good", "better")))
    fresh = [(i, record) for i, record in enumerate(records)]
    made, lost = PREDICTIONS.read([*fresh[:at], good, *fresh[at:]])
    assert lost <= len(records)
    rows = made["predictions/price"].filter(pl.col("stamp") == 9)
    assert rows.select("id", "at_ms", "status").rows() == [("good", 5, "ok"), ("better", 5, "ok")]
    for table in made.values():
        assert PREDICTIONS.stored(table).with_columns(day=PREDICTIONS.day)["day"].null_count() == 0


def test_two_wrong_records_do_not_make_a_right_one() -> None:
    """Together their columns are equally long."""
    odd = [batch(1, "a", "b", role=["answer"]), batch(1, "c", role=["answer", "shadow"])]
    records = [(i, frames.pack(one)) for i, one in enumerate([*odd, batch(1, "d")])]
    made, lost = PREDICTIONS.read(records)
    assert (ids(made["predictions/price"]), lost) == (["d"], 2)


@given(st.lists(st.binary(max_size=30) | NESTED.map(msgspec.msgpack.encode), max_size=4))
def test_odd_labels_are_lost_alone(records: Sequence[bytes]) -> None:
    good = msgspec.msgpack.encode({"id": ["a"], "label": ["yes"], "at_ms": [5]})
    made, _ = LABELS.read(list(enumerate([*records, good])))
    found = made["labels"].filter(pl.col("stamp") == len(records))
    assert found.select("id", "label", "at_ms").rows() == [("a", "yes", 5)]


def test_a_dead_writers_segment_and_its_torn_tail(tmp_path: Path) -> None:
    folder = tmp_path / "w1"
    folder.mkdir()
    whole = frame(1, frames.pack(batch(1, "a")))
    path = folder / f"predictions-1-1{OPEN}"
    path.write_bytes(whole + whole[:-5])  # as a kill in the middle of the second write leaves it
    reader = Stream(tmp_path, PREDICTIONS)
    assert ids(reader.rows("predictions/price", 0, 9)[0]) == ["a"]
    assert reader.lost == 0  # it may still be being written
    path.rename(path.with_suffix(CLOSED))
    assert ids(reader.rows("predictions/price", 0, 9)[0]) == ["a"]
    assert SegmentArchive(tmp_path, DayTables(tmp_path / "t")).compact() == (1, 1)


def test_closed_segments_are_not_kept_in_memory_for_ever(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, "w1", DayTables(tmp_path / "t"))
    for at in (10, 20, 30):
        log.append(batch(at, f"row{at}"))
        log.close()
    reader = Stream(tmp_path, PREDICTIONS, kept=0)
    for _ in range(2):  # the second time from the files again, and only from those that reach into the window
        assert [ids(rows) for rows in reader.rows("predictions/price", 20, 31)] == [["row20"], ["row30"]]
    first, *others = sorted(tmp_path.glob("w1/predictions-*"))
    first.write_bytes(b"")
    assert [ids(rows) for rows in reader.rows("predictions/price", 0, 99)] == [["row20"], ["row30"]]
    for path in others:
        path.unlink()
    assert reader.rows("predictions/price", 0, 99) == []


def test_a_segment_is_closed_when_it_is_large_or_old(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.suffix for path in tmp_path.iterdir())

    never = 3_600_000
    writer = Writer(tmp_path, "predictions", Rules(limit=100, age_ms=never, sync_ms=never))
    writer.append(b"x" * 50)
    writer.tend()
    assert names() == [OPEN]
    writer.append(b"x" * 50)
    assert names() == [CLOSED]
    writer.close()
    writer = Writer(tmp_path, "predictions", Rules(age_ms=0, sync_ms=never))
    writer.append(b"")
    assert names() == [OPEN, CLOSED]
    writer.tend()
    assert names() == [CLOSED, CLOSED]
    writer.close()


def test_the_disk_has_it_after_a_while_without_being_asked(tmp_path: Path) -> None:
    synced = Event()
    writer = Writer(tmp_path, "predictions", Rules(sync_ms=1), lambda error: synced.set() if error is None else None)
    for _ in range(2):
        synced.clear()
        writer.append(b"x")
        assert synced.wait(60)
    writer.close()
    heard: list[OSError | None] = []
    writer = Writer(tmp_path, "predictions", Rules(sync_ms=0), heard.append)
    writer.append(b"x")
    assert heard == [None]  # before `append` returned
    writer.close()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond `size` bytes: as a full disk, it takes what fits of a write,
    and then says no."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("strict", [True, False])
def test_a_full_disk(tmp_path: Path, strict: bool) -> None:
    log = SegmentLog(tmp_path, "w1", DayTables(tmp_path / "t"), strict=strict)
    for at in range(1, 4):
        log.append(batch(at, f"row{at}"))
    (path,) = tmp_path.glob(f"w1/*{OPEN}")
    size = path.stat().st_size
    assert size > 512  # what is left for `health`
    assert health.troubles(tmp_path) == {}
    with files_up_to(size + 100):
        for _ in range(3):
            if strict:
                with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
                    log.append(batch(5, "lost", "too"))
            else:
                log.append(batch(5, "lost", "too"))
        assert path.stat().st_size == size  # no torn frame in the middle
        said = health.troubles(tmp_path)[health.WRITING]
        assert os.strerror(errno.EFBIG) in said
        assert ("requests get a 503" if strict else "6 rows were answered without a record") in said
        assert "log.max_size" in said
    log.append(batch(6, "after"))  # room again: by itself
    assert health.troubles(tmp_path) == {}
    assert ids(log.read("price", 0, 9)) == ["row1", "row2", "row3", "after"]
    assert log.lost == 0


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, "w1", DayTables(tmp_path / "t"))
    with files_up_to(0):
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            log.append(batch(1, "a"))
        assert "no room" in health.troubles(tmp_path)[health.WRITING]
    log.append(batch(2, "b"))
    assert health.troubles(tmp_path) == {}
    assert ids(log.read("price", 0, 9)) == ["b"]


def test_what_the_dead_complained_of_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "w1"
    folder.mkdir()
    (folder / "1-1.health").write_bytes(msgspec.json.encode(health.State(health.WRITING, "no room", 1)))
    assert health.troubles(tmp_path) == {}
    health.forget_the_dead(tmp_path)
    assert list(folder.iterdir()) == []


def test_segments_that_nobody_compacts_are_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "w1"
    folder.mkdir()
    path = folder / f"predictions-1-1{CLOSED}"
    path.touch()
    assert health.troubles(tmp_path) == {}
    os.utime(path, (0, 0))
    assert "homeostat compact" in health.troubles(tmp_path)[health.COMPACTING]


def test_a_sync_that_fails_is_told_until_one_works(tmp_path: Path) -> None:
    mine = health.Health(tmp_path / "w1", health.WRITING)
    mine.begin()
    mine.synced(OSError(errno.EIO, "broken"))
    mine.good()  # an append that works
    assert "broken" in health.troubles(tmp_path)[health.WRITING]
    mine.synced(None)
    mine.good()
    assert health.troubles(tmp_path) == {}
