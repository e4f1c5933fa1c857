"""The model runtime: onnxruntime on one thread."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from homeostat.domain.errors import Corrupt
from homeostat.ports import Model, Runtime

_SILENT = 4  # what matters to the caller is raised
ROWWISE = "homeostat.rowwise"
"""In a model's metadata: each row's output has the same bytes however many rows come with it."""
MOST, ROOM = 16, 64 * 1_024 * 1_024
"""Models that are kept, and bytes of their files."""


class OnnxRuntime:
    """`ports.Runtime` for the model files of bundles: one float32 input (n, k); the last output holds the
    probabilities (n, c), or the values (n,) or (n, 1)."""

    def load(self, onnx: bytes) -> Model:
        """Errors: `Corrupt` when the bytes are not a model onnxruntime can run."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a worker a core: threads would fight
        options.log_severity_level = _SILENT
        try:
            session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Corrupt("a bundle's model file can't be loaded", where=type(error).__name__) from error
        return _model(session)


def _model(session: ort.InferenceSession) -> Model:
    source, wanted = session.get_inputs()[0].name, [session.get_outputs()[-1].name]

    def predict(x: NDArray[np.float32], /) -> NDArray[np.float64]:
        output = np.asarray(session.run(wanted, {source: x})[0], np.float64)
        return output if output.ndim == 2 else output.reshape(-1, 1)

    def paired(x: NDArray[np.float32], /) -> NDArray[np.float64]:
        # A single row would take another kernel (matrix-vector), whose sums round otherwise: the same row must give
        # the same bytes alone and in a batch.
        return predict(x) if len(x) != 1 else predict(x.repeat(2, axis=0))[:1]

    return predict if ROWWISE in session.get_modelmeta().custom_metadata_map else paired


class KeptModels:
    """`ports.Runtime` that keeps the models it was asked for last, `most` of them, of files of at most `room` bytes
    together: what trains, probes and compares asks for the same few again and again."""

    def __init__(self, runtime: Runtime, most: int = MOST, room: int = ROOM) -> None:
        self._runtime, self._most, self._room = runtime, most, room
        self._models: dict[bytes, Model] = {}  # those asked for last at the end
        self._lock = threading.Lock()

    def load(self, onnx: bytes) -> Model:
        """Errors: those of the runtime."""
        with self._lock:
            model = self._models.pop(onnx, None) or self._runtime.load(onnx)
            self._models[onnx] = model
            while len(self._models) > self._most or sum(map(len, self._models)) > self._room:
                del self._models[next(iter(self._models))]
        return model
