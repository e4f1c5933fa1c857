"""One suite for the logs, over segments with Delta and over memory; then what only segments can suffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.domain.prediction import LABEL_COLUMNS, LOG_COLUMNS, LabelBatch, LogBatch
from homeostat.ports import LabelLog, PredictionLog
from homeostat.stores import frames
from homeostat.stores.memory_log import MemoryLabels, MemoryLog
from homeostat.stores.predictions import SegmentLabels, SegmentLog
from homeostat.stores.segments import Scan, frame


class Delta:
    """Tables enough for a log."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, frame: pl.DataFrame) -> int:
        raise NotImplementedError

    def append(self, name: str, frame: pl.DataFrame) -> int:
        (self._root / name).mkdir(parents=True, exist_ok=True)
        deltalake.write_deltalake(self._root / name, frame, mode="append")
        return deltalake.DeltaTable(self._root / name).version()

    def read(self, name: str, version: int | None = None) -> pl.LazyFrame:
        return pl.scan_delta(str(self._root / name), version=version)

    def version(self, name: str) -> int | None:
        there = deltalake.DeltaTable.is_deltatable(str(self._root / name))
        return deltalake.DeltaTable(self._root / name).version() if there else None


def batch(at_ms: int, *ids: str, model: str = "price", **changes: Any) -> LogBatch:
    n = len(ids)
    made = LogBatch(
        model, at_ms, "R1", 100, ids, ["k"] * n, [1] * n, ["champion"] * n, ["answer"] * n, ["ok"] * n, [7] * n,
        [0.1 + 0.2] * n, ["yes"] * n, [None] * n,
        {"x": [0.1] * n, "n": [2**53 + 1] * n, "t": ["ü"] * n, "b": [True] * n},
    )  # fmt: skip
    return replace(made, **changes)


def ids(rows: pl.DataFrame) -> list[str]:
    return rows["id"].to_list()


class LogCases:
    @pytest.fixture
    def log(self, tmp_path: Path) -> PredictionLog:
        raise NotImplementedError

    @pytest.fixture
    def settle(self) -> Callable[[], Any]:
        """What happens between writing and reading."""
        return lambda: None

    def test_rows_come_back_exactly(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(5, "a", "b", key=["k", None], scores=[[0.1, 0.9], None], score=[0.1 + 0.2, None]))
        settle()
        rows = log.read("price", 0, 10)
        assert tuple(rows.columns) == LOG_COLUMNS
        assert rows.row(0, named=True) == {
            "id": "a", "key": "k", "at_ms": 5, "release": "R1", "version": 1, "arm": "champion", "role": "answer",
            "weight": 100, "status": "ok", "model_us": 7, "score": 0.1 + 0.2, "label": "yes", "scores": [0.1, 0.9],
            "inputs": {"x": 0.1, "n": 2**53 + 1, "t": "ü", "b": True},
        }  # fmt: skip
        assert rows.row(1, named=True)["score"] is None
        assert rows.schema["inputs"] == pl.Struct({"x": pl.Float64, "n": pl.Int64, "t": pl.String, "b": pl.Boolean})

    def test_windows_are_half_open_and_in_order(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        for at_ms, name in ((10, "a"), (20, "b"), (20, "c"), (30, "d")):
            log.append(batch(at_ms, name))
            assert ids(log.read("price", at_ms, at_ms + 1))[-1] == name
        settle()
        assert ids(log.read("price", 10, 30)) == ["a", "b", "c"]
        assert ids(log.read("price", 20, 31)) == ["b", "c", "d"]
        log.append(batch(15, "late"))
        assert ids(log.read("price", 10, 20)) == ["a", "late"]
        assert ids(log.read("price", 40, 50)) == ids(log.read("other", 0, 50)) == []
        assert tuple(log.read("other", 0, 50).columns) == LOG_COLUMNS

    def test_no_row_twice(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(1, "a", "a", score=[0.1, 0.2]))
        settle()
        log.append(batch(2, "a", score=[0.3]))
        log.append(batch(3, "a", role=["shadow"], score=[0.4]))
        settle()
        assert log.read("price", 0, 9)["score"].to_list() == [0.1, 0.4]

    def test_find_over_models(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(1, "a", "b"))
        log.append(batch(2, "c", model="fraud"))
        log.append(batch(3, "a", role=["shadow"]))
        settle()
        assert log.find("a")["role"].to_list() == ["answer", "shadow"]
        assert ids(log.find("c")) == ["c"]
        assert log.find("z").height == 0

    def test_a_schema_may_change(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(1, "a", inputs={"x": [1.5], "gone": ["old"], "null": [None]}))
        settle()
        log.append(batch(2, "b", inputs={"x": [2], "new": [True]}))
        log.append(batch(3, "c", inputs={}))
        settle()
        assert log.read("price", 0, 9)["inputs"].to_list() == [
            {"x": 1.5, "gone": "old", "null": None, "new": None},
            {"x": 2.0, "gone": None, "null": None, "new": True},
            {"x": None, "gone": None, "null": None, "new": None},
        ]


class TestMemoryLog(LogCases):
    @pytest.fixture
    def log(self) -> PredictionLog:
        return MemoryLog()


class TestSegmentLog(LogCases):
    @pytest.fixture
    def log(self, tmp_path: Path) -> PredictionLog:
        return SegmentLog(tmp_path / "log", "w1", Delta(tmp_path / "tables"))


class TestCompactedLog(TestSegmentLog):
    @pytest.fixture
    def settle(self, log: PredictionLog) -> Callable[[], Any]:
        assert isinstance(log, SegmentLog)
        return lambda: (log.close(), log.compact())


class LabelCases:
    @pytest.fixture
    def labels(self, tmp_path: Path) -> LabelLog:
        raise NotImplementedError

    def test_the_last_received_counts(self, labels: LabelLog) -> None:
        labels.append(LabelBatch(["a", "b"], ["yes", "1.5"], [10, 10]))
        labels.append(LabelBatch(["a"], ["no"], [20]))
        labels.append(LabelBatch(["c", "a"], ["x", "maybe"], [20, 15]))
        rows = labels.read(0, 30)
        assert tuple(rows.columns) == LABEL_COLUMNS
        assert sorted(rows.rows()) == [("a", "maybe", 15), ("b", "1.5", 10), ("c", "x", 20)]
        assert sorted(labels.read(0, 15).rows()) == [("a", "yes", 10), ("b", "1.5", 10)]
        assert labels.read(30, 40).height == 0


class TestMemoryLabels(LabelCases):
    @pytest.fixture
    def labels(self) -> LabelLog:
        return MemoryLabels()


class TestSegmentLabels(LabelCases):
    @pytest.fixture
    def labels(self, tmp_path: Path) -> LabelLog:
        return SegmentLabels(tmp_path / "log", "w1", Delta(tmp_path / "tables"))

    def test_compaction_keeps_history_and_order(self, tmp_path: Path, labels: LabelLog) -> None:
        assert isinstance(labels, SegmentLabels)
        for label in ("no", "yes", "no"):
            labels.append(LabelBatch(["a"], [label], [10]))
        labels.close()
        assert labels.compact() == 2  # the third repeats the first
        labels.append(LabelBatch(["a"], ["perhaps"], [10]))
        assert labels.read(0, 99).rows() == [("a", "perhaps", 10)]
        assert Delta(tmp_path / "tables").read("labels").collect().height == 2


class Crashing(Delta):
    """Commits, then dies before the caller hears of it."""

    def append(self, name: str, frame: pl.DataFrame) -> int:
        super().append(name, frame)
        raise KeyboardInterrupt


class TestSegments:
    def test_a_crash_between_commit_and_delete_changes_nothing(self, tmp_path: Path) -> None:
        writer = SegmentLog(tmp_path / "log", "w1", Delta(tmp_path / "t"))
        writer.append(batch(1, "a", "b"))
        writer.append(batch(2, "c", model="fraud"))
        writer.close()
        for _ in range(2):  # one table a call
            with pytest.raises(KeyboardInterrupt):
                SegmentLog(tmp_path / "log", "x", Crashing(tmp_path / "t")).compact()
            assert ids(writer.read("price", 0, 9)) == ["a", "b"]
        assert list((tmp_path / "log").glob("w1/*"))
        assert writer.compact() == 0
        assert not list((tmp_path / "log").glob("w1/*"))
        assert ids(writer.read("price", 0, 9)) == ["a", "b"]
        assert ids(writer.find("c")) == ["c"]
        assert Delta(tmp_path / "t").read("predictions/price").collect().height == 2

    def test_open_segments_of_others_are_read_and_left_alone(self, tmp_path: Path) -> None:
        one, two = (SegmentLog(tmp_path / "log", name, Delta(tmp_path / "t"), limit=400) for name in ("w1", "w2"))
        for i in range(4):
            one.append(batch(i, f"one{i}"))
            two.append(batch(i, f"two{i}"))
        assert ids(one.read("price", 0, 9)) == [f"{name}{i}" for i in range(4) for name in ("one", "two")]
        moved = one.compact()
        assert 0 < moved <= 8
        two.append(batch(9, "last"))
        assert ids(two.read("price", 0, 99))[-1] == "last"
        assert two.read("price", 0, 99).height == 9

    def test_a_dead_writers_segment_is_closed_and_its_torn_tail_counted(self, tmp_path: Path) -> None:
        writer = SegmentLog(tmp_path / "log", "w1", Delta(tmp_path / "t"))
        writer.append(batch(1, "a"))
        (path,) = (tmp_path / "log").glob("w1/*")
        whole = path.read_bytes()
        writer.close()
        (closed,) = (tmp_path / "log").glob("w1/*")
        closed.unlink()
        path.write_bytes(whole + whole[:-5])  # as a kill in the middle of the second write leaves it
        reader = SegmentLog(tmp_path / "log", "r", Delta(tmp_path / "t"))
        assert ids(reader.read("price", 0, 9)) == ["a"]
        assert reader.lost == 0  # it may still be being written
        reader.compact()
        assert reader.compact() == 0
        assert reader.lost == 1
        assert ids(reader.read("price", 0, 9)) == ["a"]

    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.data())
    def test_damage_loses_only_the_damaged_frame(self, payloads: Sequence[bytes], data: st.DataObject) -> None:
        made = [frame(i, payload) for i, payload in enumerate(payloads)]
        hit = data.draw(st.integers(0, len(made) - 1))
        at = data.draw(st.integers(0, len(made[hit]) - 1))
        broken = bytearray(made[hit])
        broken[at] ^= data.draw(st.integers(1, 255))
        scan = Scan()
        scan.feed(b"".join([*made[:hit], bytes(broken), *made[hit + 1 :]]), closed=True)
        assert scan.fresh == [(i, payload) for i, payload in enumerate(payloads) if i != hit]
        assert scan.lost == 1

    @given(st.lists(st.binary(max_size=60), max_size=5), st.data())
    def test_reading_in_pieces_gives_the_same(self, payloads: Sequence[bytes], data: st.DataObject) -> None:
        whole = b"".join(frame(i, payload) for i, payload in enumerate(payloads))
        scan = Scan()
        for cut in sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5))):
            scan.feed(whole[scan.at : cut], closed=False)
        scan.feed(whole[scan.at :], closed=True)
        assert [payload for _, payload in scan.fresh] == list(payloads)
        assert scan.lost == 0

    def test_packing_is_exact(self) -> None:
        made = batch(1, "a", "b", inputs={"x": [0.1, 5e-324], "n": [1, None], "m": [1.0, None]}, score=[1e308, -0.0])
        back = frames.unpack(frames.pack(made))
        assert back.inputs == {"x": [0.1, 5e-324], "n": [1, None], "m": [1.0, None]}
        assert str(back.score) == "[1e+308, -0.0]"
