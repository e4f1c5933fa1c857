"""What a bundle keeps of its holdout: rows, truth, and what the evaluated model said of them."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.bundle import Bundle
from homeostat.engines.estimate import Held
from homeostat.ports import Blobs

Array = NDArray[np.float64]
FILE = "holdout.parquet"
ROWS = 20_000
"""At most, evenly over the holdout."""
TRUTH, OUTPUT = "@truth", "@output"


def pack(inputs: pl.DataFrame, y: Array, output: Array) -> bytes:
    """Rows in order of time: a column a field (n rows), y (n,), output (n, c)."""
    said = [pl.Series(f"{OUTPUT}{c}", output[:, c]) for c in range(output.shape[1])]
    rows = inputs.with_columns(pl.Series(TRUTH, y), *said).gather_every(-(-len(inputs) // ROWS) or 1)
    file = io.BytesIO()
    rows.write_parquet(file)
    return file.getvalue()


def held(blobs: Blobs, bundle: Bundle) -> Held | None:
    """None: the bundle is older than this file. Errors: `NotFound`, `Corrupt`."""
    if FILE not in bundle.files:
        return None
    rows = pl.read_parquet(io.BytesIO(blobs.get(bundle.files[FILE])))
    said = [name for name in rows.columns if name.startswith(OUTPUT)]
    inputs = rows.drop(TRUTH, *said)
    return Held(inputs, rows[TRUTH].to_numpy(), rows.select(said).to_numpy())


def shown(holdout: pl.DataFrame, names: tuple[str, ...], hidden: frozenset[str]) -> pl.DataFrame:
    """The inputs that may be kept: those that the log holds as they were served."""
    return holdout.select([name for name in names if name not in hidden])
