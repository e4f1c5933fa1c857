"""One suite for tables, blobs and step results, over every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from homeostat.domain.errors import Corrupt, NotFound, Refused
from homeostat.ports import MISSING, Blobs, StepCache, Tables
from homeostat.stores.blobs import FileBlobs
from homeostat.stores.cache import FileCache
from homeostat.stores.memory_data import MemoryBlobs, MemoryCache, MemoryTables
from homeostat.stores.tables import DeltaTables

Stores = tuple[Tables, Blobs, StepCache]


@pytest.fixture(params=["files", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    if request.param == "memory":
        return MemoryTables(), MemoryBlobs(), MemoryCache()
    return DeltaTables(tmp_path / "tables"), FileBlobs(tmp_path / "blobs"), FileCache(tmp_path / "cache")


def test_every_version_of_a_table_stays_readable(stores: Stores) -> None:
    tables = stores[0]
    one, two = pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [3]})
    assert tables.version("datasets/price") is None
    versions = [tables.write("datasets/price", one), tables.append("datasets/price", two)]
    versions.append(tables.write("datasets/price", pl.DataFrame({"b": ["x"]})))
    assert versions == [0, 1, 2]
    assert tables.version("datasets/price") == 2
    rows = [sorted(tables.read("datasets/price", v).collect().to_series().to_list()) for v in (0, 1, None)]
    assert rows == [[1, 2], [1, 2, 3], ["x"]]
    assert tables.append("datasets/new", one) == 0


@pytest.mark.parametrize("version", [None, 7])
def test_a_table_that_is_not_there(stores: Stores, version: int | None) -> None:
    with pytest.raises(NotFound):
        stores[0].read("datasets/none", version).collect()


def test_a_blob_is_found_under_its_digest(stores: Stores) -> None:
    blobs = stores[1]
    digest = blobs.put(b"model")
    assert blobs.put(b"model") == digest
    assert blobs.get(digest) == b"model"
    for unknown in ("0" * 64, "../secret"):
        with pytest.raises(NotFound):
            blobs.get(unknown)


def test_a_result_comes_back_equal(stores: Stores) -> None:
    cache = stores[2]
    assert cache.get("k") is MISSING
    frame, array = pl.DataFrame({"a": [1.5, None], "t": ["x", None]}), np.array([[1.0, np.nan]], np.float32)
    cache.put("k", (frame, array, b"x", {"a": None}))
    got = cache.get("k")
    assert got[0].equals(frame)
    assert np.array_equal(got[1], array, equal_nan=True)
    assert got[2:] == (b"x", {"a": None})


def test_damage_on_disk_is_seen(tmp_path: Path) -> None:
    blobs, cache = FileBlobs(tmp_path / "blobs"), FileCache(tmp_path / "cache")
    digest = blobs.put(b"model")
    cache.put("k", 1)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Corrupt):
        blobs.get(digest)
    assert cache.get("k") is MISSING


def test_a_cache_that_others_may_write_to_is_not_read(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache")
    cache.put("k", 1)
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(Refused, match="someone else"):
        cache.get("k")
