"""The folder: the graph, what it takes and must give, the code that runs it, and a signature over all of it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.errors import Corrupt, UsageError
from homeostat.domain.schema import Field, Kind, Schema, Task, Value
from homeostat.engines.answer import answers
from homeostat.engines.transform import codes, narrow
from homeostat.export.edge import predict
from homeostat.export.edge.graph import edge_graph, null_text
from homeostat.export.edge.key import Key
from homeostat.ports import Model
from homeostat.serving.limits import Limits, rules
from homeostat.stores.files import write_atomic

CODE = ("predict.py", "predict.mjs", "index.html")
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
Record = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Exported:
    """`fingerprint`: SHA-256 of the public key that verifies the folder; `checked`: records of the test vector that
    it answers as the bundle does."""

    folder: str
    model: str
    version: int
    bundle: str
    fingerprint: str
    files: tuple[str, ...]
    checked: int


def export(version: Version, manifest: Bundle, onnx: bytes, model: Model, key: Path, folder: Path) -> Exported:
    """Write the folder, or write it anew over an older one; `model` is `onnx`, loaded; `key` the file of the signing
    key, made where there is none. Errors: `UsageError` when the
    folder holds something else, `PipelineError` when the model can't be extended, `Corrupt` when the folder would not
    answer as the bundle does; then nothing is written."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).exists())):
        raise UsageError("there is something else", where=str(folder), way_out="Give an empty or a new folder.")
    rendering, pair = rendered(manifest, onnx, model), Key.of(key)
    files = _signed(rendering, version, pair)
    checked = _checked(files)
    folder.mkdir(parents=True, exist_ok=True)  # for a web server to read, as its owner's umask says
    for name, data in files.items():
        write_atomic(folder / name, data)
    return Exported(
        str(folder), version.model, version.number, version.bundle, pair.fingerprint, tuple(sorted(files)), checked
    )


def rendered(manifest: Bundle, onnx: bytes, model: Model) -> dict[str, bytes]:
    """Name → content, without the signed list."""
    schema = manifest.schema
    told = {"threshold": manifest.threshold} if schema.task is Task.BINARY else {}
    return {
        "model.onnx": edge_graph(schema, manifest.threshold, onnx),
        "schema.json": codec.encode(_told(manifest.model, schema)),
        "thresholds.json": codec.encode(told),
        "vector.json": codec.encode(_vector(manifest, model)),
        **{name: resources.files(__package__).joinpath(name).read_bytes() for name in CODE},
    }


def _signed(files: Mapping[str, bytes], version: Version, key: Key) -> dict[str, bytes]:
    """With the list of digests and its signature."""
    listed = {
        "model": version.model,
        "version": version.number,
        "bundle": version.bundle,
        "public_key": key.public.hex(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    manifest = codec.encode(listed)
    return {**files, SIGNATURE: key.sign(manifest).hex().encode(), MANIFEST: manifest}


def _checked(files: Mapping[str, bytes]) -> int:
    """Run the folder as its user will."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            (Path(scratch) / name).write_bytes(data)
        try:
            return predict.Edge(scratch, log=None).check()
        except (RuntimeError, ValueError, predict.Tampered) as error:
            raise Corrupt("the exported folder does not answer as the bundle does", where=str(error)) from error


def _told(model: str, schema: Schema) -> dict[str, Any]:
    """What `predict.py` and `predict.mjs` read. `labels` are the texts of `classes`."""
    return {
        "model": model,
        "task": schema.task.value,
        "target": schema.target,
        "fields": [{**_field(field), "rules": rules(field)} for field in schema.fields],
        "classes": schema.classes,
        "labels": [str(known) for known in schema.classes],
        "null_text": null_text(schema),
    }


def _field(field: Field) -> dict[str, Any]:
    """All but the vocabulary: the graph holds it."""
    return {name: value for name, value in asdict(field).items() if name != "vocabulary"}


# The test vector


def _vector(manifest: Bundle, model: Model) -> dict[str, Any]:
    """The bundle's sample as records, and one with gaps; and what the data plane answers to them."""
    schema, limits = manifest.schema, Limits(manifest.schema)
    records = [*(_record(schema, x) for x, _ in manifest.sample), _gaps(schema)]
    columns = {name: [record[name] for record in records] for name in schema.names}
    exact = codes(schema, columns)
    x = narrow(exact)
    faults = limits.faults(columns, exact, x)
    sound = [i for i in range(len(records)) if i not in faults]
    said = _answered(manifest, model(x[sound])) if sound else []
    return {"records": [records[i] for i in sound], "answers": said}


def _answered(manifest: Bundle, output: NDArray[np.float64]) -> list[dict[str, Any]]:
    """As the records protocol gives them, without ids."""
    schema, given = manifest.schema, answers(manifest.schema, manifest.threshold, output)
    if schema.task is Task.REGRESSION:
        return [{"value": value} for value in given.score]
    typed = {str(known): known for known in schema.classes}
    said: list[dict[str, Any]] = [
        {"score": score, "label": typed[str(label)]} for score, label in zip(given.score, given.label, strict=True)
    ]
    for answer, scores in zip(said, given.scores, strict=True):
        answer |= {"scores": dict(zip(typed, scores, strict=True))} if scores else {}
    return said


def _record(schema: Schema, x: tuple[float, ...]) -> Record:
    """A row of the model's matrix as somebody may have sent it: `engines.transform.codes`, backwards."""
    return dict(zip(schema.names, map(_value, schema.fields, x), strict=True))


def _value(field: Field, code: float) -> Value:
    if field.kind is Kind.TEXT:
        return field.vocabulary[int(code)] if code >= 0 else _unknown(field)
    if field.kind is Kind.BOOLEAN:
        return bool(code)
    return int(code) if field.kind is Kind.INTEGER else float(str(np.float32(code)))


def _unknown(field: Field) -> str:
    """A text that the vocabulary does not hold; one that may be sent, if there is one."""
    return next(_unheard(field), "?")


def _unheard(field: Field) -> Iterator[str]:
    return (text for text in field.values or ("?", "??") if text not in field.vocabulary)


def _gaps(schema: Schema) -> Record:
    """Null where it is allowed, elsewhere the plainest value that is."""
    return {field.name: None if field.nullable else _plain(field) for field in schema.fields}


def _plain(field: Field) -> Value:
    if field.kind is Kind.TEXT:
        return field.values[0] if field.values else _unknown(field)
    if field.kind is Kind.BOOLEAN:
        return False
    number = min(
        max(0.0, field.low if field.low is not None else 0.0), field.high if field.high is not None else np.inf
    )
    return int(np.ceil(number)) if field.kind is Kind.INTEGER else number
