from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import homeostat
from homeostat import scaffold
from homeostat.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one registered version."""
    root = tmp_path_factory.mktemp("up")
    rng = np.random.default_rng(5)
    n = 3_000
    amount, hour = rng.gamma(2, 20, n), np.arange(n) % 24
    risky = amount / 60 + (hour < 6) + rng.normal(size=n) > 1.5
    frame = pl.DataFrame(
        {
            "at": pl.datetime_range(
                pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1) + pl.duration(hours=n - 1), "1h", eager=True
            ).dt.strftime("%Y-%m-%d %H:%M:%S"),
            "amount": amount.round(2),
            "hour": hour,
            "country": rng.choice(["de", "fr", "pl"], n),
            "fraud": risky.astype(int),
        }
    )
    frame.write_csv(root / "rows.csv")
    scaffold.init(root / "cards", scaffold.Options(root / "rows.csv", "fraud", time=("at",)))
    opened = homeostat.load(root / "cards")
    opened.run()
    return opened
