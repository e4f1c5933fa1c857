"""Bundles in memory: loaded, checked against their stored sample, kept warm."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.errors import HomeostatError
from homeostat.domain.schema import Kind, Schema, Value
from homeostat.engines.answer import width
from homeostat.ports import Blobs, Model, Runtime
from homeostat.serving.limits import Limits
from homeostat.serving.mlflow import Mlflow
from homeostat.serving.records import Records
from homeostat.serving.v2 import V2

KEPT = 4
SLOW_S = 0.002
"""A model that takes longer for `TICK` rows is not called on the event loop."""
TICK = 16
FOOTPRINT = 6
"""Memory that a model takes, in bytes of its file: 5.5 measured for 100 trees of 31 leaves."""
TOLERANCE = 1e-5  # relative and absolute, between stored and computed scores of the sample
_log = logging.getLogger("homeostat.serving")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle that answers. `typed` gives a label its own type back; `slow`: see `SLOW_S`; `size`: bytes of
    memory, about; `places`: of its fields, as `Inputs` has them; `numeric`: all are numbers."""

    id: str
    manifest: Bundle
    model: Model
    limits: Limits
    records: Records
    v2: V2
    mlflow: Mlflow
    typed: Mapping[str | None, Value]
    slow: bool
    size: int
    places: Mapping[str, int | None]
    numeric: bool

    @property
    def schema(self) -> Schema:
        return self.manifest.schema


class Shelf:
    """Bundles by id. One thread loads at a time; a bundle that failed is tried again when asked for again."""

    def __init__(self, blobs: Blobs, runtime: Runtime, kept: int = KEPT) -> None:
        self._blobs, self._runtime, self._kept = blobs, runtime, kept
        self._loaded: dict[str, Loaded] = {}
        self._reasons: dict[str, str] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def get(self, bundle: str) -> Loaded | None:
        return self._loaded.get(bundle)

    def reason(self, bundle: str) -> str:
        """Why it is not ready."""
        return self._reasons.get(bundle, "the bundle is being loaded")

    def schema(self, bundle: str) -> Schema:
        """Without loading it."""
        return codec.decode(self._blobs.get(bundle), Bundle).schema

    def load(self, bundle: str) -> Loaded | None:
        """None when it can't answer: see `reason`."""
        with self._lock:
            if bundle not in self._loaded and bundle not in self._refused:
                try:
                    self._loaded[bundle] = self._open(bundle)
                    self._reasons.pop(bundle, None)
                except Exception as error:  # whatever it is: this bundle can't answer, the others can
                    _log.warning("bundle %s is not ready: %s", bundle[:12], error)
                    self._reasons[bundle] = _told(error)
            return self._loaded.get(bundle)

    def retain(self, used: set[str], room: float = math.inf) -> None:
        """Of the bundles that are not in use keep the newest `kept`, and fewer where they do not fit in `room` (bytes);
        one in any case: it may be about to be released."""
        with self._lock:
            spare = [bundle for bundle in self._loaded if bundle not in used]
            while len(spare) > self._kept or (len(spare) > 1 and self._size() > room):
                del self._loaded[spare.pop(0)]

    def refuse(self, bundle: str, reason: str) -> None:
        """Unload it, and load it no more until it is pardoned."""
        with self._lock:
            self._refused.add(bundle)
            self._reasons[bundle] = reason
            self._loaded.pop(bundle, None)

    def pardon(self, routed: set[str]) -> None:
        """Those that are not routed any more may be loaded again: it would be for another release."""
        with self._lock:
            self._refused &= routed

    def _size(self) -> int:
        return sum(loaded.size for loaded in self._loaded.values())

    def _open(self, bundle: str) -> Loaded:
        manifest = codec.decode(self._blobs.get(bundle), Bundle)
        onnx = self._blobs.get(manifest.files["model.onnx"])
        model = self._runtime.load(onnx)
        verify(manifest, model)
        schema = manifest.schema
        typed: dict[str | None, Value] = {str(known): known for known in schema.classes}
        codecs = Records(schema), V2(manifest.model, schema), Mlflow(schema)
        slow, size, free = is_slow(manifest, model), FOOTPRINT * len(onnx), count()
        places = {field.name: next(free) if field.kind is Kind.NUMBER else None for field in schema.fields}
        numeric = None not in places.values()
        return Loaded(bundle, manifest, model, Limits(schema), *codecs, typed, slow, size, places, numeric)


def is_slow(manifest: Bundle, model: Model) -> bool:
    """Measured on the sample: the quickest of three calls."""
    if not manifest.sample:
        return False
    x, took = np.resize(_inputs(manifest), (TICK, len(manifest.schema.fields))), []
    for _ in range(3):
        started = time.perf_counter()
        model(x)
        took.append(time.perf_counter() - started)
    return min(took) > SLOW_S


def _inputs(manifest: Bundle) -> NDArray[np.float32]:
    """(n, k) of the sample."""
    return np.array([row for row, _ in manifest.sample], np.float32).reshape(len(manifest.sample), -1)


class Unfit(ValueError):
    """The model is not the one that the manifest describes."""


def verify(manifest: Bundle, model: Model) -> None:
    """Errors: `Unfit` unless the sample gives the stored scores."""
    if not manifest.sample:
        return
    x = _inputs(manifest)
    stored = np.array([scores for _, scores in manifest.sample], np.float64).reshape(len(x), -1)
    output = model(x)
    if output.shape != (len(x), width(manifest.schema)) or output.shape != stored.shape:
        raise Unfit("the model's output has another shape than the sample's")
    if not np.allclose(output, stored, rtol=TOLERANCE, atol=TOLERANCE):
        raise Unfit("the sample does not give the stored scores")


def _told(error: Exception) -> str:
    """The reason as a stranger may read it: no paths, no traces."""
    if isinstance(error, HomeostatError):
        return error.what
    return str(error) if isinstance(error, Unfit) else f"the model failed on its sample ({type(error).__name__})"
