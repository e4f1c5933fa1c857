"""A web server for exported folders, as a browser meets them."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any


class Site(SimpleHTTPRequestHandler):
    """The exported folders as a web server gives them, with onnxruntime-web beside each; results come by POST."""

    folders: Mapping[str, Path]
    runtime: Path
    results: queue.Queue[Any]

    def translate_path(self, path: str) -> str:
        top, *rest = path.strip("/").split("/")
        if rest[:1] == ["onnxruntime-web"]:
            return str(self.runtime / rest[1])
        return str(self.folders[top].joinpath(*rest)) if top in self.folders else str(self.folders["web"] / top)

    def guess_type(self, path: Any) -> str:
        return {".mjs": "text/javascript", ".wasm": "application/wasm"}.get(Path(path).suffix) or super().guess_type(
            path
        )

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
