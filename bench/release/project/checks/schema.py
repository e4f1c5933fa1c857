"""What a row must look like, in training and in a request."""

import pandera.polars as pa
import polars as pl

Rows = pa.DataFrameSchema(
    {
        "amount": pa.Column(pl.Float64, pa.Check.in_range(0, 100_000)),
        "orders": pa.Column(pl.Int64, pa.Check.ge(0)),
        "spent": pa.Column(pl.Float64, pa.Check.ge(0)),
        "country": pa.Column(pl.String, nullable=True),
        "visits": pa.Column(pl.Int64, pa.Check.ge(0)),
        "hint": pa.Column(pl.Float64),
        "fraud": pa.Column(pl.Int64, pa.Check.isin([0, 1])),
    }
)
