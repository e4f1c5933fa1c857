"""The data to learn from, version by version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import projects
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import ConfigError, DataError, NotFound
from homeostat.domain.event import Event
from homeostat.domain.policy import LogPolicy
from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.domain.quarantine import Fault
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.services.data import Data, content_digest
from homeostat.wiring.stores import in_memory
from homeostat.wiring.system import System

END_MS = projects.START_MS + 30 * DAY_MS


@pytest.fixture
def one(tmp_path: Path) -> System:
    made = projects.system(projects.make(tmp_path / "cards"))
    made.clock.move_to(END_MS + 40 * DAY_MS)
    return made


def answered(name: str, at_ms: int, row: Mapping[str, Any]) -> LogBatch:
    inputs = {field: [value] for field, value in row.items()}
    said = ([1], ["champion"], ["answer"], ["ok"], [9], [0.5], ["0"], [None])
    return LogBatch("cards", at_ms, "R1", 0, [name], ["k"], *said, inputs)


def serve(one: System, at_ms: int, name: str, label: str | None = None, label_ms: int = 0, **inputs: Any) -> None:
    row = {"amount": 5.0, "hour": 3, "country": None, "online": True, **inputs}
    one.stores.log.append(answered(name, at_ms, row))
    if label is not None:
        one.stores.labels.append(LabelBatch([name], [label], [label_ms or at_ms + DAY_MS]))


def test_the_same_content_is_the_same_version(one: System) -> None:
    first = one.data.snapshot()
    assert one.data.snapshot() == first
    assert (first.version, first.rows, one.stores.tables.version("datasets/cards")) == (0, 30 * 72, 0)
    serve(one, END_MS + HOUR_MS, "a", "1")
    second = one.data.snapshot()
    assert (second.version, second.rows) == (1, first.rows + 1)
    assert one.data.versions() == (first, second)
    assert one.data.read(first).equals(one.source())
    assert one.data.version(1) == second
    with pytest.raises(NotFound):
        one.data.version(2)


def test_a_table_that_was_written_before_a_crash_is_nobodys_version(one: System) -> None:
    one.stores.tables.write("datasets/cards", one.source().head(3))
    found = one.data.snapshot()
    assert found.version == 1
    assert one.data.versions() == (found,)


def test_a_table_that_a_process_wrote_and_did_not_record_is_taken_up(one: System) -> None:
    one.stores.tables.write("datasets/cards", one.data.newest())
    assert one.data.snapshot().version == 0


def test_served_rows_come_in_typed_as_the_projects_own(one: System) -> None:
    serve(one, END_MS + HOUR_MS, "a", "1", amount=7, country="fr", online=False)
    serve(one, END_MS + 2 * HOUR_MS, "unlabelled")
    serve(one, END_MS + 3 * HOUR_MS, "corrected", "1", END_MS + DAY_MS)
    one.stores.labels.append(LabelBatch(["corrected"], ["0"], [END_MS + 2 * DAY_MS]))
    frame = one.data.read(one.data.snapshot())
    assert frame.schema == one.source().schema
    assert frame.tail(2).drop(EVENT_MS, "__key").rows() == [(7.0, 3, "fr", False, 1), (5.0, 3, None, True, 0)]
    assert frame[EVENT_MS].to_list()[-2:] == [END_MS + HOUR_MS, END_MS + 3 * HOUR_MS]


def test_rows_younger_than_the_label_horizon_are_left_out(one: System) -> None:
    now = one.clock.now_ms()
    serve(one, END_MS, "no gap")
    serve(one, now - DAY_MS, "old enough", "1", now - 1)
    serve(one, now - DAY_MS + 1, "too young", "1", now - 1)
    frame = one.data.read(one.data.snapshot())
    assert frame[EVENT_MS][-1] == now - DAY_MS


def test_a_label_counts_from_the_moment_it_was_received(one: System) -> None:
    now = one.clock.now_ms()
    serve(one, END_MS + HOUR_MS, "known", "1", now)
    serve(one, END_MS + 2 * HOUR_MS, "corrected later", "1", now)
    one.stores.labels.append(LabelBatch(["corrected later"], ["0"], [now + 1]))
    serve(one, END_MS + 3 * HOUR_MS, "not yet", "1", now + 1)
    frame = one.data.read(one.data.snapshot())
    assert frame.filter(pl.col(EVENT_MS) > END_MS)["fraud"].to_list() == [1, 1]


def test_the_projects_own_young_rows_are_left_out_too(tmp_path: Path) -> None:
    one = projects.system(projects.make(tmp_path / "cards"))
    one = System(one.policy, one.code, one.source, in_memory(), type(one.clock)(END_MS - 5 * DAY_MS), one.ids)
    assert one.data.snapshot().until_ms == END_MS - 6 * DAY_MS
    early = System(one.policy, one.code, one.source, in_memory(), type(one.clock)(projects.START_MS), one.ids)
    with pytest.raises(DataError, match="no row is older than the label horizon"):
        early.data.snapshot()


def test_rows_that_do_not_continue_the_projects_own_are_left_out(one: System) -> None:
    """A file of 1998 is no history of what is served today."""
    serve(one, END_MS + 21 * DAY_MS, "after a gap longer than the window", "1")
    assert one.data.snapshot().until_ms < END_MS


def test_rows_go_on_although_the_log_has_lost_its_oldest_days(one: System) -> None:
    served = END_MS + 30 * DAY_MS
    serve(one, served, "what the log still holds", "1")
    assert one.data.snapshot().until_ms < END_MS
    removed = {"from_ms": END_MS, "until_ms": END_MS + 20 * DAY_MS}
    one.stores.journal.append(Event(0, "cards", "log.removed", "k", "log", "Log: gone.", removed))
    assert one.data.snapshot().until_ms == served


def private(one: System, **names: tuple[str, ...]) -> System:
    data = replace(one.policy.data, key="card")
    policy = replace(one.policy, data=data, log=LogPolicy(**names))
    return System(policy, one.code, one.source, one.stores, one.clock, one.ids)


def test_inputs_that_the_log_does_not_hold_are_learned_from_the_projects_own_rows_alone(one: System) -> None:
    serve(one, END_MS + HOUR_MS, "a", "1")
    careful = private(one, drop=("country",), hash=("amount",))
    found = careful.data.snapshot()
    assert found.until_ms < END_MS
    (event,) = one.stores.journal.read("cards", "data.versioned")
    assert event.text.endswith("Without served rows: the log does not hold amount, country.")
    assert private(one, hash=("card",)).data.snapshot().until_ms == END_MS + HOUR_MS


@pytest.mark.parametrize("name", ["contry", "fraud", "__key"])
def test_a_private_name_that_is_no_input_is_an_error(one: System, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r} is no input and not the key"):
        private(one, drop=(name,)).data.snapshot()


def test_fields_may_be_called_like_columns_of_the_log(tmp_path: Path) -> None:
    names = {"amount": "id", "hour": "label", "country": "score", "online": "inputs"}
    policy = projects.POLICY.replace("checks: checks.schema:Rows\n", "")
    root = projects.make(tmp_path / "p", projects.rows().rename(names), policy)
    one = projects.system(root)
    inputs = {"id": 5.0, "label": 3, "score": "de", "inputs": True}
    one.stores.log.append(answered("x", END_MS + HOUR_MS, inputs))
    one.stores.labels.append(LabelBatch(["x"], ["1"], [END_MS + DAY_MS]))
    last = one.data.read(one.data.snapshot()).row(-1, named=True)
    assert {**inputs, "fraud": 1}.items() <= last.items()


CELLS = {
    pl.Int64: st.integers(-9, 9),
    pl.Float64: st.floats(-9, 9, allow_nan=False),
    pl.String: st.text(max_size=3),
    pl.Boolean: st.booleans(),
}


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    n = draw(st.integers(1, 6))
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=3))
    columns = [st.lists(st.none() | CELLS[kind], min_size=n, max_size=n) for kind in kinds]
    values = [draw(column) for column in columns]
    return pl.DataFrame([pl.Series(f"c{i}", v, dtype=k) for i, (k, v) in enumerate(zip(kinds, values, strict=True))])


@given(frames(), st.data())
def test_the_digest_is_that_of_the_content(frame: pl.DataFrame, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(frame)))
    pieces = pl.concat([frame.head(cut), frame.tail(len(frame) - cut)], rechunk=False)
    assert content_digest(pieces) == content_digest(frame)
    other = data.draw(frames())
    same = frame.schema == other.schema and frame.equals(other, null_equal=True)
    signs = [[repr(value) for value in column] for column in (*frame.iter_columns(), *other.iter_columns())]
    if not same and signs[: frame.width] != signs[frame.width :]:  # 0.0 and -0.0 are equal, and not the same
        assert content_digest(other) != content_digest(frame)


@given(frames(), st.data())
def test_one_other_cell_is_other_content(frame: pl.DataFrame, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(frame.columns))
    values, kind = frame[name].to_list(), frame[name].dtype
    row = data.draw(st.integers(0, len(frame) - 1))
    value = data.draw((st.none() | CELLS[type(kind)]).filter(lambda one: repr(one) != repr(values[row])))
    values[row] = value
    assert content_digest(frame.with_columns(pl.Series(name, values, dtype=kind))) != content_digest(frame)
    assert content_digest(frame.rename({name: "other"})) != content_digest(frame)


def test_the_same_bytes_of_another_type_are_other_content() -> None:
    assert content_digest(pl.DataFrame({"a": [0]})) != content_digest(pl.DataFrame({"a": [0.0]}))


def test_texts_do_not_run_together() -> None:
    assert content_digest(pl.DataFrame({"a": ["ab", "c"]})) != content_digest(pl.DataFrame({"a": ["a", "bc"]}))
    assert content_digest(pl.DataFrame({"a": [None, ""]})) != content_digest(pl.DataFrame({"a": ["", None]}))


def test_a_columns_name_is_no_content() -> None:
    """The value 1 of `a` and the column `b` after it, or one column whose name holds both."""
    two = pl.DataFrame({"a": [1], "b": [2]})
    one = pl.DataFrame({"a:Int64:1;\0" + "\1" + "\0" * 7 + "b": [2]})
    assert content_digest(two) != content_digest(one)


def test_rows_that_arrive_out_of_order_are_put_in_order(one: System) -> None:
    """Two workers write one log."""
    for hour in (9, 2, 5):
        serve(one, END_MS + hour * HOUR_MS, f"h{hour}", "1")
    made = one.data.snapshot()
    assert made.until_ms == END_MS + 9 * HOUR_MS
    assert one.data.read(made)[EVENT_MS].is_sorted()


def test_the_gap_is_that_to_the_first_row_in_time(one: System) -> None:
    serve(one, END_MS + 21 * DAY_MS, "late, and first to arrive", "1")
    serve(one, END_MS + HOUR_MS, "early", "1")
    assert one.data.snapshot().rows == 30 * 72 + 2


def test_labels_of_a_boolean_target(tmp_path: Path) -> None:
    frame = projects.rows().with_columns(pl.col("fraud") == 1)
    policy = projects.POLICY.replace("checks: checks.schema:Rows\n", "")
    one = projects.system(projects.make(tmp_path / "p", frame, policy))
    for name in ("True", "False"):
        serve(one, END_MS + HOUR_MS, name, name)
    assert one.data.read(one.data.snapshot())["fraud"].to_list()[-2:] == [True, False]


def test_only_answered_rows_come_in(one: System) -> None:
    """Not a row that was refused, nor one that was scored unseen: it stands there once already."""
    serve(one, END_MS + HOUR_MS, "a", "1")
    for role in ("shadow", "failed", "rejected"):
        batch = answered("a" if role == "shadow" else role, END_MS + HOUR_MS, {"amount": -1.0})
        one.stores.log.append(replace(batch, role=[role]))
    one.stores.labels.append(LabelBatch(["rejected", "failed"], ["1", "1"], [END_MS + DAY_MS] * 2))
    assert one.data.snapshot().rows == 30 * 72 + 1


def test_no_window_means_the_whole_history_may_be_a_gap(one: System) -> None:
    policy = replace(one.policy, train=replace(one.policy.train, window=0))
    s = one.stores
    data = Data(policy, one.source, s.tables, s.log, s.labels, s.journal, one.clock)
    serve(one, END_MS + 25 * DAY_MS, "a", "1")
    assert data.snapshot().until_ms == END_MS + 25 * DAY_MS


def test_rows_of_a_broken_column_are_left_out_until_a_person_lets_them_through(one: System) -> None:
    whole = one.data.snapshot()
    for hour in range(6):
        serve(one, END_MS + hour * HOUR_MS, f"r{hour}", "1", amount=0.0 if hour in (2, 3) else 5.0 + hour)
    fault = Fault("amount", "zero", "it has been 0", 0.0, from_ms=END_MS + 2 * HOUR_MS)

    def told(body: Mapping[str, Any]) -> None:
        key = f"{len(one.stores.journal.read('cards', 'data.quarantined'))}"
        one.stores.journal.append(Event(END_MS, "cards", "data.quarantined", key, "broken amount:1", "", body))

    def served() -> list[float]:
        frame = one.data.read(one.data.snapshot())
        return frame.filter(pl.col(EVENT_MS) > whole.until_ms)["amount"].to_list()

    told({"fault": asdict(fault)})
    assert served() == [5.0, 6.0]
    told({"fault": asdict(replace(fault, until_ms=END_MS + 4 * HOUR_MS))})
    assert served() == [5.0, 6.0, 9.0, 10.0]
    (*_, event) = one.stores.journal.read("cards", "data.versioned")
    assert event.text.endswith("Without 2 rows in which a column was broken.")
    told({"fault": asdict(fault), "accepted": "ada", "reason": "free of charge"})
    assert served() == [5.0, 6.0, 0.0, 0.0, 9.0, 10.0]


def test_the_project_s_own_rows_are_left_out_unless_they_were_mended(tmp_path: Path) -> None:
    """What served the wrong values may have filled the table too, and been put right there since."""
    frame = projects.rows()
    day = range(projects.START_MS + 10 * DAY_MS, projects.START_MS + 11 * DAY_MS)
    within = pl.col("at").dt.timestamp("ms").is_in(list(day))
    sick = frame.with_columns(pl.when(within).then(0.0).otherwise("amount").alias("amount"))
    fault = Fault("amount", "zero", "it has been 0", 0.0, from_ms=day.start, until_ms=day.stop)
    for rows, left in ((sick, 29 * 72), (frame, 30 * 72)):
        one = projects.system(projects.make(tmp_path / str(left), rows))
        body = {"fault": asdict(fault)}
        one.stores.journal.append(Event(END_MS, "cards", "data.quarantined", "1", "broken amount:1", "", body))
        assert one.data.snapshot().rows == left
