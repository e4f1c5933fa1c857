"""A release is one immutable bundle: everything that decides an answer, under one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeostat.domain.schema import Schema


@dataclass(frozen=True, slots=True)
class Bundle:
    """The manifest. Its own blob's digest is the bundle's id.

    `threshold`: a binary score at or above it is answered as the second class. `files` maps a name to the digest
    of its blob: `model.onnx`, `evaluated.onnx`, `profile` (reference profile), `habits.json` (what each input does in
    ordinary life), `environment.txt`, `evaluation.json`, `holdout.parquet` (its rows, their truth, what the evaluated
    model said), `run.json`, `report.html`. `model.onnx` has learned from rows until `trained_until_ms`;
    `evaluated.onnx` is the model that was judged on the holdout and learned until `evaluated_until_ms`: the same one
    unless it was refitted.
    `loss_scale` is the absolute error that counts as a loss of 1 (regression; 1 otherwise): losses lie in [0, 1].
    `sample`: rows of the holdout with the scores they must give when the bundle is loaded.
    """

    model: str
    schema: Schema
    threshold: float
    loss_scale: float
    files: Mapping[str, str]
    run: str
    dataset_version: int
    trained_until_ms: int
    evaluated_until_ms: int = 0
    sample: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of a model: the number people say, and the bundle it stands for."""

    model: str
    number: int
    bundle: str
    run: str


@dataclass(frozen=True, slots=True)
class Backtest:
    """A candidate beside the champion `champion` (a bundle's id) on `n` rows of the holdout that neither has learned
    from, before any release: the mean paired difference of their losses, in [-1, 1]; below 0 the candidate is better.
    """

    champion: str
    mean: float
    n: int
