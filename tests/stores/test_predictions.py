"""One suite for the logs: over segments, over segments that are compacted at once, and over memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from datetime import date
from math import copysign
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from logged import batch, ids

from homeostat.domain.prediction import (
    EVENT_COLUMNS,
    LABEL_COLUMNS,
    LOG_COLUMNS,
    SIGNAL_COLUMNS,
    Inputs,
    LabelBatch,
    Role,
    SignalBatch,
)
from homeostat.ports import LabelLog, PredictionLog
from homeostat.stores import frames
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.memory_log import MemoryLabels, MemoryLog
from homeostat.stores.predictions import SegmentLabels, SegmentLog


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

    def test_equal_values_and_blocks_of_numbers_come_back_exactly(
        self, log: PredictionLog, settle: Callable[[], Any]
    ) -> None:
        names, n = [f"p{i}" for i in range(20)], 20
        x, z = [0.1 * i for i in range(n)], [-0.0] * n
        apart = {"n": [None] * n, "t": ["ü"] * n, "b": [True, False] * 10}
        places = {"x": 0, "n": None, "z": 1, "t": None, "b": None}
        inputs = Inputs(places, memoryview(array("d", [*x, *z])), n, apart)
        log.append(batch(5, *names, inputs=inputs))
        log.append(batch(6, *(f"q{name}" for name in names), inputs={name: list(inputs[name]) for name in places}))
        settle()
        rows = log.read("price", 0, 10)
        one, other = (part.drop("id", "at_ms").to_dicts() for part in (rows.head(n), rows.tail(n)))
        assert one == other
        assert rows["inputs"].struct.fields == list(places)
        assert rows["inputs"].struct.field("x").to_list() == x * 2
        assert [copysign(1, zero) for zero in rows["inputs"].struct.field("z")] == [-1.0] * 2 * n
        assert one[3]["inputs"] == {"x": x[3], "n": None, "z": 0.0, "t": "ü", "b": False}

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

    def test_a_share_is_the_same_ids_wherever_they_lie(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        for at in range(20):
            log.append(batch(at, *(f"{at}-{one}" for one in range(20))))
        settle()
        half = log.read("price", 0, 20, True, 0.5)["id"].to_list()
        names = pl.DataFrame({"id": [f"{at}-{one}" for at in range(20) for one in range(20)]})
        assert half == names.filter(frames.part(0.5))["id"].to_list()
        assert 140 < len(half) < 260
        assert set(log.read("price", 0, 20, False, 0.1)["id"]) < set(half)
        assert len(log.read("price", 0, 20, True, 1.0)) == 400

    def test_find_over_models(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(1, "a", "b"))
        log.append(batch(2, "c", model="fraud"))
        log.append(batch(3, "a", role=["shadow"]))
        settle()
        assert log.find("a")["role"].to_list() == ["answer", "shadow"]
        assert ids(log.find("c")) == ["c"]
        assert log.find("z").height == 0

    def test_rows_are_found_by_their_trace(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        one, other = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
        log.append(batch(1, "before"))
        settle()
        log.append(batch(2, "a", "b", "c", trace=[one, None, other]))
        log.append(batch(3, "d", trace=[one]))
        log.append(batch(4, "after", other))
        settle()
        assert ids(log.find(one)) == ["a", "d"]
        assert ids(log.find(other)) == [other]  # a prediction may be called so
        assert log.find("f" * 32).height == 0
        rows = log.read("price", 0, 9)
        assert ids(rows) == ["before", "a", "b", "c", "d", "after", other]
        assert tuple(rows.columns) == LOG_COLUMNS

    def test_a_request_that_was_shed_has_no_inputs(self, log: PredictionLog, settle: Callable[[], Any]) -> None:
        log.append(batch(1, "a", role=[Role.SHED.value], status=["shed"], score=[None], label=[None], inputs={}))
        settle()
        assert log.read("price", 0, 9).select("role", "status", "score").row(0) == ("shed", "shed", None)

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

    @pytest.fixture(params=[False, True])
    def settle(self, log: PredictionLog, request: pytest.FixtureRequest) -> Callable[[], Any]:
        """Asked in between, it grows in steps."""
        return lambda: log.read("price", 0, 99) if request.param else None


class TestSegmentLog(LogCases):
    @pytest.fixture
    def log(self, tmp_path: Path) -> PredictionLog:
        return SegmentLog(tmp_path / "log", "w1", DayTables(tmp_path / "tables"))


class TestCompactedLog(TestSegmentLog):
    @pytest.fixture
    def settle(self, log: PredictionLog, tmp_path: Path) -> Callable[[], Any]:
        assert isinstance(log, SegmentLog)
        archive = SegmentArchive(tmp_path / "log", DayTables(tmp_path / "tables"))
        return lambda: (log.close(), archive.compact(), archive.tidy(date(2026, 1, 1)))


class LabelCases:
    @pytest.fixture
    def labels(self, tmp_path: Path) -> LabelLog:
        raise NotImplementedError

    def test_the_last_by_the_senders_time_counts(self, labels: LabelLog) -> None:
        labels.append(LabelBatch(["a", "b"], ["yes", "1.5"], [10, 10]))
        labels.append(LabelBatch(["a"], ["no"], [20]))
        labels.append(LabelBatch(["c", "a"], ["x", "maybe"], [20, 15], ["clerk", "crowd"]))
        rows = labels.read(0, 30)
        assert tuple(rows.columns) == LABEL_COLUMNS
        assert sorted(rows.rows()) == [("a", "no", 20, ""), ("b", "1.5", 10, ""), ("c", "x", 20, "clerk")]
        assert sorted(labels.read(0, 20).rows()) == [("a", "maybe", 15, "crowd"), ("b", "1.5", 10, "")]
        assert [row[1:] for row in labels.received(0, 30).filter(id="a").rows()] == [
            ("yes", 10, ""),
            ("maybe", 15, "crowd"),
            ("no", 20, ""),
        ]
        assert labels.read(30, 40).height == 0
        some = pl.Series(["b", "a", "unheard of"])
        assert sorted(labels.read(0, 30, some).rows()) == [("a", "no", 20, ""), ("b", "1.5", 10, "")]
        assert labels.received(0, 30, some).equals(labels.received(0, 30).filter(pl.col("id") != "c"))

    def test_of_a_signal_the_last_received_counts(self, labels: LabelLog) -> None:
        labels.append_signals(
            SignalBatch(["a", "a", "b"], ["amount", "rating", "amount"], [0.1 + 0.2, 5.0, 7.0], [9] * 3)
        )
        labels.append_signals(SignalBatch(["a"], ["amount"], [-1e300], [12]))
        labels.append(LabelBatch(["a"], ["yes"], [10]))
        rows = labels.signals(0, 20)
        assert tuple(rows.columns) == SIGNAL_COLUMNS
        assert sorted(rows.rows()) == [("a", "amount", -1e300, 12), ("a", "rating", 5.0, 9), ("b", "amount", 7.0, 9)]
        assert sorted(labels.signals(0, 10).rows())[0] == ("a", "amount", 0.1 + 0.2, 9)
        amounts = [one for one in sorted(rows.rows()) if one[1] == "amount"]
        assert sorted(labels.signals(0, 20, "amount").rows()) == amounts
        assert labels.read(0, 20).height == 1

    def test_events_of_entities_are_kept_apart(self, labels: LabelLog) -> None:
        labels.append_signals(SignalBatch(["", "", "a"], ["bought"] * 3, [1, 1, 1], [5, 7, 6], ["k1", "k1", None]))
        assert labels.signals(0, 9).rows() == [("a", "bought", 1.0, 6)]
        events = labels.events(0, 9)
        assert tuple(events.columns) == EVENT_COLUMNS
        assert events.rows() == [("", "k1", "bought", 1, 5), ("a", None, "bought", 1, 6), ("", "k1", "bought", 1, 7)]


class TestMemoryLabels(LabelCases):
    @pytest.fixture
    def labels(self) -> LabelLog:
        return MemoryLabels()


class TestSegmentLabels(LabelCases):
    @pytest.fixture
    def labels(self, tmp_path: Path) -> LabelLog:
        return SegmentLabels(tmp_path / "log", "w1", DayTables(tmp_path / "tables"))

    def test_compaction_keeps_history_and_order(self, tmp_path: Path, labels: LabelLog) -> None:
        assert isinstance(labels, SegmentLabels)
        for label in ("no", "yes", "no"):
            labels.append(LabelBatch(["a"], [label], [10]))
        labels.append_signals(SignalBatch(["a"], ["amount"], [1.5], [10]))
        labels.close()
        tables = DayTables(tmp_path / "tables")
        assert SegmentArchive(tmp_path / "log", tables).compact() == (3, 0)  # the third label repeats the first
        assert (labels.read(0, 99, pl.Series(["a"])).height, labels.read(0, 99, pl.Series(["b"])).height) == (1, 0)
        assert labels.signals(0, 99).rows() == [("a", "amount", 1.5, 10)]
        labels.append(LabelBatch(["a"], ["perhaps"], [10]))
        assert labels.read(0, 99).rows() == [("a", "perhaps", 10, "")]
        stored = tables.read("labels")
        assert stored is not None
        assert stored.collect().height == 2

    def test_a_table_of_before_there_were_sources(self, tmp_path: Path, labels: LabelLog) -> None:
        assert isinstance(labels, SegmentLabels)
        tables, archive = (
            DayTables(tmp_path / "tables"),
            SegmentArchive(tmp_path / "log", DayTables(tmp_path / "tables")),
        )
        old = {"id": ["a"], "label": ["yes"], "at_ms": [10], "stamp": [1], "day": [date(2026, 1, 1)]}
        tables.append("labels", pl.DataFrame(old))
        tables.append("signals", pl.DataFrame(old | {"name": ["rating"], "value": [4.0]}).drop("label"))
        assert labels.read(0, 99).rows() == [("a", "yes", 10, "")]
        assert labels.events(0, 99).rows() == [("a", None, "rating", 4.0, 10)]
        labels.append(LabelBatch(["a", "b"], ["yes", "no"], [10, 11], ["", "clerk"]))  # the first is there already
        labels.append_signals(SignalBatch(["a", ""], ["rating", "bought"], [4.0, 1.0], [10, 12], [None, "k"]))
        labels.close()
        assert archive.compact() == (2, 0)
        assert sorted(labels.received(0, 99).rows()) == [("a", "yes", 10, ""), ("b", "no", 11, "clerk")]
        assert labels.events(0, 99)["key"].to_list() == [None, "k"]

    def test_records_of_before_there_were_sources(self) -> None:
        old = msgspec.msgpack.encode({"id": ["a"], "label": ["yes"], "at_ms": [10]})
        assert frames.unpack_labels(old) == LabelBatch(["a"], ["yes"], [10], ("",))
