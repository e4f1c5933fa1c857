"""What a payment must be like. Checked before each training; a request that breaks it is refused."""

import pandera.polars as pa
import polars as pl

Payments = pa.DataFrameSchema(
    {
        "amount": pa.Column(pl.Float64, pa.Check.ge(0)),
        "hour": pa.Column(pl.Int64, pa.Check.in_range(0, 23)),
        "category": pa.Column(pl.String, pa.Check.isin(["grocery", "travel", "electronics", "gifts"])),
        "online": pa.Column(pl.Boolean),
        "account_days": pa.Column(pl.Int64, pa.Check.ge(0)),
        "fraud": pa.Column(pl.Int64, pa.Check.isin([0, 1])),
    }
)
