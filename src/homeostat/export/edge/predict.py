"""Predictions from this folder, without a network: it needs numpy and onnxruntime only.

python predict.py < records.json          # {"records": [{"field": value, …}]} or a list → the answers
python predict.py --check                 # every file is as it was signed, and the test vector gives its answers
python predict.py --sync http://host:8701 # send the log to the data plane

from predict import Edge
edge = Edge("folder")
edge.predict([{"amount": 12.5, "country": "de"}])
edge.sync("http://host:8701")
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Record = dict[str, Any]
LOG = "predictions.jsonl"
TOLERANCE = 1e-6
_AT_ONCE, _BYTES = 200, 250_000  # predictions, and about how many bytes of them, a request of `sync`
_WORDS = {"number": "a number", "integer": "an integer", "boolean": "true or false", "text": "text"}


class Tampered(Exception):
    """A file is not the one that was signed."""


class Refused(ValueError):
    """A record that does not fit the schema: what the data plane answers with a 422."""

    def __init__(self, rule: str, message: str, field: str = "", record: int | None = None) -> None:
        super().__init__(message)
        self.rule, self.message, self.field, self.record = rule, message, field, record


class Edge:
    """The model in `folder`. `log`: where answers are written before they are given; None: nowhere. One process a
    log. `fingerprint`: that of the key which must have signed; "": any. Errors: `Tampered`."""

    def __init__(self, folder: str | Path, log: str | Path | None = LOG, fingerprint: str = "") -> None:
        self.folder, self.log = Path(folder), None if log is None else Path(folder) / log
        self._lock = threading.Lock()
        self.manifest = manifest(self.folder, fingerprint)
        self.schema: dict[str, Any] = json.loads(self._file("schema.json"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(self._file("model.onnx"), options, ["CPUExecutionProvider"])

    def predict(self, records: Sequence[Record]) -> list[Record]:
        """A dictionary a record: `id`, and `value`, or `score` and `label`, and for several classes `scores`. A record
        may carry its own `id` and `key`. Errors: `Refused`, then nothing is answered; RuntimeError when the model gives
        no number; OSError when the log can't be written."""
        validate(self.schema, records)
        ids = [uuid.uuid4().hex if one.get("id") is None else str(one["id"]) for one in records]
        if len(set(ids)) < len(ids):
            raise Refused("once", "an id stands twice in one request", "id")
        answers = self._answers(records)
        if self.log is not None:
            self._write(self.log, records, ids, answers)
        return [{"id": name, **answer} for name, answer in zip(ids, answers, strict=True)]

    def check(self) -> int:
        """Every file is as it was signed, and the test vector's records give its answers. → how many records.
        Errors: `Tampered`, RuntimeError."""
        for name in self.manifest["files"]:
            self._file(name)
        vector = json.loads(self._file("vector.json"))
        validate(self.schema, vector["records"])
        for given, expected in zip(self._answers(vector["records"]), vector["answers"], strict=True):
            if not _alike(given, expected):
                raise RuntimeError(f"the test vector gives {given}, not {expected}")
        return len(vector["records"])

    def sync(self, url: str) -> Record:
        """Send the log to the data plane at `url`, and empty it. Sent twice, a prediction is kept once. → `accepted`,
        a number, and `refused`, a list: those leave the log too. Errors: OSError without a network: the log stays."""
        done: Record = {"accepted": 0, "refused": []}
        for part in _parts(list(self._logged())):
            body = json.dumps({"predictions": part}).encode()
            asked = urllib.request.Request(f"{url.rstrip('/')}/v1/models/{self.schema['model']}/predictions", body)
            with urllib.request.urlopen(asked, timeout=30) as response:
                said = json.load(response)
            done["accepted"] += said["accepted"]
            done["refused"] += [{**part[error["record"]], "error": error} for error in said["refused"]]
            self._forget({row["id"] for row in part})
        return done

    def _file(self, name: str) -> bytes:
        return _signed(self.folder, name, self.manifest["files"].get(name, ""))

    def _answers(self, records: Sequence[Record]) -> list[Record]:
        feeds = {field["name"]: _column(self.schema, field, records) for field in self.schema["fields"]}
        score, *rest = self._session.run(None, feeds)
        if not all(np.isfinite(one).all() for one in (score, *rest[1:])):
            raise RuntimeError("the model could not answer")
        if not rest:
            return [{"value": value} for value in score.tolist()]
        typed = dict(zip(self.schema["labels"], self.schema["classes"], strict=True))
        columns = [score.tolist(), [typed[label] for label in rest[0].tolist()]]
        if rest[1:]:
            columns.append([dict(zip(typed, row, strict=True)) for row in rest[1].tolist()])
        names = ("score", "label", "scores")[: len(columns)]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _write(self, log: Path, records: Sequence[Record], ids: Sequence[str], answers: Sequence[Record]) -> None:
        names = [field["name"] for field in self.schema["fields"]]
        common = {
            "at": time.time_ns() // 1_000_000,
            "bundle": self.manifest["bundle"],
            "version": self.manifest["version"],
        }
        rows = []
        for record, name, answer in zip(records, ids, answers, strict=True):
            key = {} if record.get("key") is None else {"key": str(record["key"])}
            inputs = {field: record[field] for field in names}
            rows.append({"id": name, **key, **common, "inputs": inputs, "answer": answer})
        with self._lock, log.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))

    def _logged(self) -> Iterator[Record]:
        """What waits. A line that was torn, when the process was killed, was never answered: it is left out."""
        text = self.log.read_text("utf-8", "replace") if self.log is not None and self.log.exists() else ""
        for line in text.split("\n"):
            try:
                if line:
                    yield json.loads(line)
            except ValueError:
                continue

    def _forget(self, ids: set[str]) -> None:
        """Written beside and renamed: the log is whole at any moment."""
        assert self.log is not None
        with self._lock:
            fresh = self.log.with_suffix(".new")
            fresh.write_text(_lines([row for row in self._logged() if row["id"] not in ids]), "utf-8")
            fresh.replace(self.log)


def _parts(rows: Sequence[Record]) -> Iterator[list[Record]]:
    """A request's worth each."""
    part: list[Record] = []
    size = 0
    for row in rows:
        more = len(json.dumps(row))
        if part and (size + more > _BYTES or len(part) == _AT_ONCE):
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    if part:
        yield part


def _lines(rows: Sequence[Record]) -> str:
    """A line break on both sides: after a line that was torn the next one is whole."""
    return "".join(f"\n{json.dumps(row)}\n" for row in rows)


def _column(schema: Record, field: Record, records: Sequence[Record]) -> np.ndarray[Any, Any]:
    """(n,) as the graph takes it."""
    values = [record[field["name"]] for record in records]
    if field["kind"] != "text":
        return np.array([math.nan if value is None else value for value in values], np.float64)
    null = schema["null_text"]  # a text that looks like it is sent doubled: neither is in the vocabulary
    return np.array([null if value is None else null * 2 if value == null else value for value in values], object)


def _alike(given: Any, expected: Any) -> bool:
    """Numbers within `TOLERANCE`, all else equal."""
    if isinstance(expected, dict):
        return given.keys() == expected.keys() and all(_alike(given[name], expected[name]) for name in expected)
    if isinstance(expected, float):
        return math.isclose(given, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(given == expected)


# Validation: the rules of the data plane, in its order and its words


def validate(schema: Record, records: Sequence[Record]) -> None:
    """Errors: `Refused`, for the first record that does not fit."""
    if not records:
        raise Refused("not empty", "records must not be empty", "records")
    for number, record in enumerate(records):
        for find in (_form, _limits):
            fault = find(schema, record)
            if fault is not None:
                fault.record = number
                raise fault


def _form(schema: Record, record: Any) -> Refused | None:
    """Names and types."""
    if not isinstance(record, dict):
        return Refused("type", "the record does not have the expected form")
    known = {field["name"] for field in schema["fields"]}
    for name, value in record.items():
        if name not in known | {"id", "key"}:
            return Refused("unknown", f"field {name} is unknown", name)
        if name not in known and value is not None and not _names(value):
            return Refused("length" if value == "" else "type", f"{name} does not have the expected form", name)
    for field in schema["fields"]:
        name = field["name"]
        if name not in record:
            return Refused("required", f"field {name} is missing", name)
        value = record[name]
        if value is None and not field["nullable"]:
            return Refused("not null", f"{name} must not be null", name)
        if value is not None and not _fits(field["kind"], value):
            return Refused("type", f"{name} must be {_WORDS[field['kind']]}", name)
    return None


def _fits(kind: str, value: Any) -> bool:
    if kind in ("number", "integer"):
        return isinstance(value, (int, float) if kind == "number" else int) and not isinstance(value, bool)
    return isinstance(value, bool) if kind == "boolean" else isinstance(value, str) and _utf8(value)


def _utf8(text: str) -> bool:
    """Half a surrogate pair is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(value: Any) -> bool:
    """An id or a key: a whole number, or a text of 1 to 256 characters."""
    return _fits("integer", value) or (isinstance(value, str) and 0 < len(value) <= 256)


def _limits(schema: Record, record: Record) -> Refused | None:
    """Ranges, then listed texts."""
    for field in schema["fields"]:
        value, rule = record[field["name"]], ""
        if field["kind"] in ("number", "integer") and value is not None:
            if field["low"] is not None and value < field["low"]:
                rule = field["rules"]["low"]
            elif field["high"] is not None and value > field["high"]:
                rule = field["rules"]["high"]
            elif not _finite(field["kind"], value):
                rule = "finite"
        if rule:
            return Refused(rule, f"{field['name']} must be {rule}", field["name"])
    for field in schema["fields"]:
        if field["values"] is not None and record[field["name"]] not in (None, *field["values"]):
            rule = field["rules"]["values"]
            return Refused(rule, f"{field['name']} must be {rule}", field["name"])
    return None


def _finite(kind: str, value: float) -> bool:
    """As the model sees it, in float32."""
    if kind == "integer" and not -(2**63) <= value < 2**63:
        return False
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(float(value))))
    except OverflowError:
        return False


# The signature


def manifest(folder: Path, fingerprint: str = "") -> Record:
    """The signed list of files. Errors: `Tampered`."""
    data = (folder / "manifest.json").read_bytes()
    read: Record = json.loads(data)
    key = bytes.fromhex(read["public_key"])
    if fingerprint and hashlib.sha256(key).hexdigest() != fingerprint:
        raise Tampered("manifest.json was signed with another key")
    if not signed_by(key, bytes.fromhex((folder / "manifest.sig").read_text()), data):
        raise Tampered("manifest.json does not match its signature")
    return read


def _signed(folder: Path, name: str, digest: str) -> bytes:
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise Tampered(f"{name} is not the file that was signed")
    return data


_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
Point = tuple[int, int]


def signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature is sound: RFC 8032, section 5.1.7, without the cofactor. Nothing here is secret, so
    that time may depend on the data."""
    point, first = _point(key), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or point is None or first is None or scalar >= _ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % _ORDER
    base = _point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert base is not None
    return _times(scalar, base) == _add(first, _times(challenge, point))


def _point(data: bytes) -> Point | None:
    """RFC 8032, section 5.1.3; None: not on the curve."""
    number = int.from_bytes(data, "little")
    y, sign = number & (2**255 - 1), number >> 255
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if len(data) != 32 or y >= _P or (x * x - square) % _P or (sign and not x):
        return None
    return (_P - x if x & 1 != sign else x), y


def _add(a: Point, b: Point) -> Point:
    """The sum on the twisted Edwards curve -x² + y² = 1 + d x² y²."""
    product = _D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, _P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, _P)
    return x % _P, y % _P


def _times(scalar: int, point: Point) -> Point:
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions from this folder, without a network.")
    parser.add_argument("--check", action="store_true", help="verify every file and the test vector")
    parser.add_argument("--sync", metavar="URL", help="send the log to the data plane")
    parser.add_argument("--fingerprint", default="", help="of the key that must have signed")
    given = parser.parse_args()
    try:
        said = _said(Edge(Path(__file__).parent, LOG, given.fingerprint), given)
    except (Tampered, OSError, RuntimeError, ValueError) as error:  # `Refused` is one of the last
        where = f"record {error.record}: " if isinstance(error, Refused) and error.record is not None else ""
        sys.exit(f"{where}{error}")
    sys.stdout.write(json.dumps(said) + "\n")


def _said(edge: Edge, given: argparse.Namespace) -> Any:
    if given.check:
        return {"checked": edge.check()}
    if given.sync:
        return edge.sync(given.sync)
    asked = json.load(sys.stdin)
    records = asked.get("records") if isinstance(asked, dict) else asked
    if not isinstance(records, list):
        raise Refused("type", 'send a list of records, or {"records": [{field: value, …}, …]}', "records")
    return edge.predict(records)


if __name__ == "__main__":
    main()
