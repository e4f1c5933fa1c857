"""What all servers serve: one LightGBM model (100 trees of 31 leaves, 20 features) in the forms that they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

FEATURES = 20
NAMES = [f"f{i}" for i in range(FEATURES)]
ROW = [round(0.1 * i - 1, 3) for i in range(FEATURES)]
_PARAMS = {"n_estimators": 100, "learning_rate": 0.1, "num_leaves": 31}


@dataclass(frozen=True)
class World:
    """`root`: a project of ours that has released the model; `onnx`: from its bundle; `text`: LightGBM's own form;
    `score`: what every server must answer for `ROW`."""

    root: Path
    onnx: Path
    text: Path
    score: float


def make(folder: Path) -> World:
    x, y = _rows()
    root, onnx, text = _project(folder), folder / "model.onnx", folder / "model.txt"
    onnx.write_bytes(_released(root))
    text.write_text(_native(x, y))
    from homeostat.adapters.runtime import OnnxRuntime

    return World(root, onnx, text, float(OnnxRuntime().load(onnx.read_bytes())(np.array([ROW], np.float32))[0, 1]))


def released_project(folder: Path, trees: int) -> Path:
    """A project of ours that has released a model of so many trees."""
    root = _project(folder, trees)
    _released(root)
    return root


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """(n, k) and (n,)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5_000, FEATURES))
    return x, (x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=len(x)) > 0).astype(int)


def _project(folder: Path, trees: int = 100) -> Path:
    from homeostat import scaffold

    x, y = _rows()
    frame = pl.DataFrame({name: x[:, i] for i, name in enumerate(NAMES)}).with_columns(pl.Series("y", y))
    frame.write_parquet(folder / "rows.parquet")
    root = folder / "bench"
    scaffold.init(root, scaffold.Options(folder / "rows.parquet", "y"))
    train = root / "pipelines" / "train.py"
    written = train.read_text().replace('"num_leaves": 15', f'"num_leaves": {_PARAMS["num_leaves"]}')
    train.write_text(written.replace('"n_estimators": 100', f'"n_estimators": {trees}'))
    return root


def _released(root: Path) -> bytes:
    """Train, release the first version; → its ONNX file."""
    import homeostat

    opened = homeostat.load(root)
    version = opened.run().version
    assert version is not None
    system = opened.system
    system.plane = system.engine
    system.control.begin()
    system.control.settle()
    return system.bundles.file(system.bundles.load(version.bundle), "model.onnx")


def _native(x: np.ndarray, y: np.ndarray) -> str:
    """The same training once more: the pipeline keeps the ONNX file alone. `score` finds out if it differs."""
    from lightgbm import LGBMClassifier

    fitted = LGBMClassifier(**_PARAMS, random_state=0, n_jobs=1, deterministic=True, verbose=-1)
    text: str = fitted.fit(x.astype(np.float32), y).booster_.model_to_string()
    return text
