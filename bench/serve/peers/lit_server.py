"""LitServe: onnxruntime. No batching and the default queue: its ZeroMQ queue was no quicker here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime

NAMES = [f"f{i}" for i in range(20)]


class Scorer(litserve.LitAPI):
    def setup(self, device: str) -> None:
        del device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = Path(os.environ["BENCH_MODEL"]).read_bytes()
        self.session = onnxruntime.InferenceSession(model, options)
        self.source, self.wanted = self.session.get_inputs()[0].name, [self.session.get_outputs()[-1].name]

    def decode_request(self, request) -> np.ndarray:  # an annotation would be taken for the request's form
        return np.array([[record[name] for name in NAMES] for record in request["records"]], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(self.wanted, {self.source: x})[0][:, 1]

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"predictions": [{"score": float(score)} for score in output]}


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    server = litserve.LitServer(Scorer(), accelerator="cpu", workers_per_device=workers)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=workers,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
