"""What the data plane speaks, as OpenAPI 3.1 made from the schemas of the served models, and as a page of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from homeostat.domain.schema import Field, Kind, Schema, Task, Value
from homeostat.serving.binary import EXTENSION, MEDIA
from homeostat.serving.edge import MOST
from homeostat.serving.messages import JSON
from homeostat.serving.mlflow import CSV
from homeostat.serving.score import Served
from homeostat.serving.typed import LONGEST_ID
from homeostat.serving.v2 import TAKEN, declared

Object = dict[str, Any]
_INFINITE = float(2**128 - 2**103)  # the least number that is infinite as a float32
_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}
_TEXT: Object = {"type": "string"}
_TYPES = {Kind.NUMBER: "number", Kind.INTEGER: "integer", Kind.BOOLEAN: "boolean", Kind.TEXT: "string"}
_ID: Object = {"oneOf": [{"type": "string", "minLength": 1, "maxLength": LONGEST_ID}, {"type": "integer", **_INT64}]}
_NAME: Object = {"oneOf": [*_ID["oneOf"], {"type": "null"}]}
_IDS: Object = {"type": "array", "items": _TEXT, "description": "What the log has these rows under."}
_DETAIL: Object = {
    "message": _TEXT,
    "field": {"type": "string", "description": "What was wrong."},
    "rule": {"type": "string", "description": "The rule it broke."},
    "record": {"type": "integer", "minimum": 0, "description": "The row, counted from 0."},
}
_WHY = {
    400: "The body can't be read.",
    404: "No such model is served.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The content type or coding is not spoken here; accept or accept-encoding say what is.",
    422: "The body breaks a rule; the field and the rule are named.",
    431: "The headers are too large.",
    500: "The model could not answer.",
    503: "Not ready, or too busy; try again after retry-after seconds.",
}


def document(models: Mapping[str, Served]) -> Object:
    """Every path with every answer that it can give."""
    paths = _shared(models)
    for name, served in models.items():
        paths |= _paths(name, served.champion.schema)
    if len(models) == 1:
        (served,) = models.values()
        paths["/invocations"] = {"post": _invocations("The one model that is served", served.champion.schema)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Homeostat: the data plane", "version": version("homeostat")},
        "paths": paths,
        "components": {"schemas": _ERRORS, "headers": _HEADERS, "parameters": _PARAMETERS},
    }


def page(models: Mapping[str, Served]) -> bytes:
    """HTML that asks nobody else for anything."""
    from jinja2 import Environment, PackageLoader

    pages = Environment(loader=PackageLoader("homeostat.serving"), autoescape=True)
    return pages.get_template("docs.html.jinja").render(api=document(models)).encode()


def _paths(name: str, schema: Schema) -> Object:
    v2 = f"/v2/models/{name}"
    return {
        f"/v1/models/{name}/predict": {"post": _predict(name, schema)},
        f"/v1/models/{name}/record": {"post": _record(name, schema)},
        f"/v1/models/{name}/predictions": {"post": _predictions(name, schema)},
        f"/v1/models/{name}/invocations": {"post": _invocations(name, schema)},
        f"{v2}/infer": {"post": _infer(name, schema)},
        v2: {"get": _get(f"Metadata of {name}", {"type": "object", "required": ["name", "inputs", "outputs"]}, 503)},
        f"{v2}/ready": {"get": _state(f"Whether {name} answers", "ready")},
    }


def _shared(models: Mapping[str, Served]) -> Object:
    extensions: Object = {"type": "array", "items": {"const": EXTENSION}}
    server = _object({"name": _TEXT, "version": _TEXT, "extensions": extensions})
    live = _get("Whether the process runs", _object({"live": {"const": True}}))
    return {
        "/v1/feedback": {"post": _feedback(models)},
        "/v2": {"get": _get("What serves here", server)},
        "/v2/health/live": {"get": live},
        "/v2/health/ready": {"get": _state("Whether every model is loaded and gives its stored scores", "ready")},
        "/v2/health/startup": {"get": _state("Whether every model has been ready once", "started")},
        "/ping": {"get": _state("The same as /v2/health/ready, for MLflow's clients", "ready")},
        "/health": {"get": _state("The same as /ping", "ready")},
        "/version": {"get": _get("The version of MLflow whose scoring protocol is spoken", _TEXT, media="text/plain")},
    }


# Records


def _predict(name: str, schema: Schema) -> Object:
    records = {"type": "array", "minItems": 1, "items": record(schema)}
    shape = {**_object({"records": records}), "additionalProperties": False}
    body = _body({JSON: _media(shape, {"records": [_example(schema)]})})
    version: Object = {"type": "integer", "description": "Where a canary split the request."}
    said = _object({"id": _TEXT, **_answer(schema), "model_version": version}, ("id", *_answer(schema)))
    many = {"type": "array", "items": said}
    answer = _object({"release": _TEXT, "model_version": {"type": "integer"}, "predictions": many})
    return _operation(f"Predictions of {name}, record by record", body, {JSON: {"schema": answer}}, "Error")


def _record(name: str, schema: Schema) -> Object:
    body = _body({JSON: _media(record(schema), _example(schema))})
    answer = _object({"id": _TEXT, "release": _TEXT, "model_version": {"type": "integer"}, **_answer(schema)})
    return _operation(f"One record, one prediction of {name}", body, {JSON: {"schema": answer}}, "Error")


def _predictions(name: str, schema: Schema) -> Object:
    """What was answered on the edge. Each row is judged by itself, so that no form of one forbids the request."""
    answered: Object = {"value": 1.5}
    if schema.task is not Task.REGRESSION:
        answered = {"score": 0.5, "label": schema.classes[-1]}
    if schema.task is Task.MULTICLASS:
        answered["scores"] = dict.fromkeys(map(str, schema.classes), round(1 / len(schema.classes), 3))
    made: Object = {"id": "a1", "at": 1_767_225_600_000, "bundle": "of the edge folder's manifest", "version": 1}
    example = {"predictions": [{**made, "inputs": _example(schema), "answer": answered}]}
    shape = _object({"predictions": {"type": "array", "minItems": 1, "maxItems": MOST, "items": {}}})
    refused = {"type": "array", "items": _object(_DETAIL, ("message", "record"))}
    answer = _object({"accepted": {"type": "integer"}, "refused": refused})
    body = _body({JSON: _media({**shape, "additionalProperties": False}, example)})
    operation = _operation(f"Predictions of {name} made on the edge", body, {JSON: {"schema": answer}}, "Error")
    operation["parameters"] = []
    operation["responses"]["200"].pop("headers")
    return operation


def record(schema: Schema) -> Object:
    """A record as a request must send it: the fields, and `id` and `key` where no field has their names."""
    known = {field.name: value(field) for field in schema.fields}
    extra = {name: _NAME for name in ("id", "key") if name not in known}
    return {**_object({**known, **extra}, known), "additionalProperties": False}


def value(field: Field) -> Object:
    """What the field may be."""
    shape: Object = {"type": [_TYPES[field.kind], "null"] if field.nullable else _TYPES[field.kind]}
    if field.kind is Kind.NUMBER:
        shape |= {"exclusiveMinimum": -_INFINITE, "exclusiveMaximum": _INFINITE}
    elif field.kind is Kind.INTEGER:
        shape |= _INT64
    if field.low is not None:
        shape["minimum"] = field.low
    if field.high is not None:
        shape["maximum"] = field.high
    if field.values is not None:
        shape["enum"] = [*field.values, None] if field.nullable else list(field.values)
    return shape


def _answer(schema: Schema) -> Object:
    number: Object = {"type": "number"}
    if schema.task is Task.REGRESSION:
        return {"value": number}
    known: Object = {"score": number, "label": {"enum": list(schema.classes)}}
    if schema.task is Task.MULTICLASS:
        known["scores"] = _object({str(name): number for name in schema.classes})
    return known


# MLflow


def _invocations(name: str, schema: Schema) -> Object:
    named: Object = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    listed: Object = {"type": "array", "minItems": 1, "items": {"type": "array"}}
    columns: Object = {"type": "object", "additionalProperties": {}}
    split = _object({"columns": {"type": "array"}, "data": listed, "index": {}}, ("data",))
    forms: Object = {
        "dataframe_split": split,
        "dataframe_records": named,
        "instances": {"oneOf": [named, listed]},
        "inputs": {"oneOf": [columns, named, listed]},
    }
    table = {"oneOf": [{**_object({form: shape}), "title": form} for form, shape in forms.items()]}
    body = _body({JSON: _media(table, {"dataframe_records": [_example(schema)]}), CSV: {"schema": _TEXT}})
    predicted = {"type": "number"} if schema.task is Task.REGRESSION else {"enum": list(schema.classes)}
    answer = _object({"predictions": {"type": "array", "items": predicted}, "ids": _IDS})
    return _operation(f"{name} by MLflow's scoring protocol", body, {JSON: {"schema": answer}}, "MlflowError")


# V2


def _infer(name: str, schema: Schema) -> Object:
    parameters: Object = {"type": ["object", "null"]}
    inputs: Object = {"type": "array", "minItems": len(schema.fields), "items": {"oneOf": _inputs(schema)}}
    wanted = _object({"name": {"enum": [told for told, _, _ in declared(schema)]}, "parameters": parameters}, ("name",))
    known: Object = {
        "inputs": inputs,
        "id": {"type": ["string", "null"], "maxLength": LONGEST_ID},
        "parameters": parameters,
        "outputs": {"type": ["array", "null"], "items": wanted},
    }
    tensors = [_tensor(field, _example(schema)[field.name]) for field in schema.fields]
    body = _body({JSON: _media(_object(known, ("inputs",)), {"inputs": tensors}), MEDIA: {"schema": {}}})
    answer = _object(
        {
            "model_name": {"const": name},
            "model_version": _TEXT,
            "id": _TEXT,
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _object({"name": _TEXT, "shape": {}, "datatype": _TEXT, "data": {}})},
        }
    )
    operation = _operation(
        f"{name} by the Open Inference Protocol V2", body, {JSON: {"schema": answer}, MEDIA: {"schema": {}}}, "V2Error"
    )
    operation["parameters"] = [*operation["parameters"], {"$ref": "#/components/parameters/binary"}]
    return operation


def _inputs(schema: Schema) -> Sequence[Object]:
    """The tensors that may come."""
    values = {field.name: (sorted(TAKEN[field.kind]), value(field)) for field in schema.fields}
    values |= {name: (["BYTES", "INT64"], _NAME) for name in ("id", "key") if name not in values}
    shape = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2}
    return [
        _object({"name": {"const": name}, "shape": shape, "datatype": {"enum": types},
                 "data": {"type": "array", "items": {"anyOf": [one, {"type": "array", "items": one}]}}})
        for name, (types, one) in values.items()
    ]  # fmt: skip


def _tensor(field: Field, one: Value) -> Object:
    told = {Kind.NUMBER: "FP64", Kind.INTEGER: "INT64", Kind.BOOLEAN: "BOOL", Kind.TEXT: "BYTES"}
    return {"name": field.name, "shape": [1], "datatype": told[field.kind], "data": [one]}


# The others


def _feedback(models: Mapping[str, Served]) -> Object:
    at: Object = {
        "oneOf": [{"type": "integer", "minimum": 0, "maximum": 253_402_300_799_999}, _MOMENT, {"type": "null"}]
    }
    schemas = [served.champion.schema for served in models.values()]
    known = [one for schema in schemas for one in schema.classes]
    closed = all(schema.task is Task.BINARY for schema in schemas)  # elsewhere a class may be new
    label: Object = {"enum": known} if closed else {"type": ["number", "string", "boolean"]}
    source: Object = {"anyOf": [_SIGNAL_NAME, {"type": "null"}]}
    said = _object({"id": _ID, "label": label, "at": at, "source": source}, ("id", "label"))
    given = {**said, "additionalProperties": False}
    model: Object = {"enum": [*models, None] if len(models) == 1 else list(models)}
    labels = {"type": "array", "minItems": 1, "items": given}
    value: Object = {"anyOf": [{"type": ["number", "boolean"]}, {"enum": ["up", "down"]}]}
    signal = _object({"id": _ID, "key": _ID, "name": _SIGNAL_NAME, "value": value, "at": at}, ("name",))
    one: Object = {"oneOf": [{"required": ["id"]}, {"required": ["key"]}], "additionalProperties": False}
    signals = {"type": "array", "minItems": 1, "items": {**signal, **one}}
    known_as = {"labels": labels, "signals": signals, "model": model}
    shape = {**_object(known_as, () if len(models) == 1 else ("model",)), "additionalProperties": False}
    shape["anyOf"] = [{"required": ["labels"]}, {"required": ["signals"]}]
    example = {"labels": [{"id": "a1", "label": known[0] if known else 1.5}]}
    answer = {JSON: {"schema": _object({"accepted": {"type": "integer"}})}}
    body = _body({JSON: _media(shape, example)})
    operation = _operation("Labels and signals by prediction id: late, repeated or corrected", body, answer, "Error")
    operation["parameters"] = []
    operation["responses"]["404"] = _error(404, "Error")
    operation["responses"]["200"].pop("headers")
    return operation


_SIGNAL_NAME: Object = {"type": "string", "minLength": 1, "maxLength": 64}
_MOMENT: Object = {"type": "string", "format": "date-time"}


def _get(summary: str, schema: Object, *others: int, media: str = JSON) -> Object:
    responses = {"200": {"description": "So it is.", "content": {media: {"schema": schema}}}}
    return {"summary": summary, "responses": responses | {str(one): _error(one, "Error", "V2Error") for one in others}}


def _state(summary: str, name: str) -> Object:
    operation = _get(summary, _object({name: {"const": True}}))
    not_yet = _object({name: {"const": False}, "reason": _TEXT})
    operation["responses"]["503"] = {"description": "Not yet, and why.", "content": {JSON: {"schema": not_yet}}}
    return operation


def _operation(summary: str, body: Object, answer: Object, error: str) -> Object:
    """A POST. What goes wrong before the protocol is known is told in the words of `Error`."""
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    good = {"description": "The answers, in order.", "headers": headers, "content": answer}
    bad = {str(one): _error(one, *dict.fromkeys((error, "Error"))) for one in _WHY if one != 404}
    parameters = [{"$ref": f"#/components/parameters/{name}"} for name in ("key", "traceparent")]
    return {"summary": summary, "requestBody": body, "parameters": parameters, "responses": {"200": good, **bad}}


def _error(status: int, *kinds: str) -> Object:
    shapes = [{"$ref": f"#/components/schemas/{kind}"} for kind in kinds]
    return {"description": _WHY[status], "content": {JSON: {"schema": {"anyOf": shapes} if shapes[1:] else shapes[0]}}}


def _body(content: Object) -> Object:
    return {"required": True, "content": content}


def _media(schema: Object, example: Any) -> Object:
    return {"schema": schema, "example": example}


def _object(properties: Object, required: Sequence[str] | Mapping[str, Any] | None = None) -> Object:
    """All are required unless `required` names some."""
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


def _example(schema: Schema) -> dict[str, Value]:
    return {field.name: _one(field) for field in schema.fields}


def _one(field: Field) -> Value:
    match field.kind:
        case Kind.BOOLEAN:
            return True
        case Kind.TEXT:
            return (field.values or field.vocabulary or ("text",))[0]
    between = max(field.low or 0.0, min(field.high or 1.0, 1.0))
    return round(between) if field.kind is Kind.INTEGER else between


_ERRORS: Object = {
    "Error": _object({"error": _object(_DETAIL, ("message",)), "ids": _IDS}, ("error",)),
    "V2Error": _object({"error": _TEXT, **_DETAIL, "ids": _IDS}, ("error",)),
    "MlflowError": _object({"error_code": _TEXT, **_DETAIL, "ids": _IDS}, ("error_code", "message")),
}
_HEADERS: Object = {
    "x-prediction-id": {"description": "The ids, with commas between; at most 100.", "schema": _TEXT},
    "x-release-id": {"description": "The release that answered.", "schema": _TEXT},
    "x-model-version": {"description": "The version; several where a canary split the request.", "schema": _TEXT},
}
_PARAMETERS: Object = {
    "key": {
        "name": "idempotency-key",
        "in": "header",
        "description": "Names the prediction: KEY, KEY-1, …; sent again, it is logged once.",
        "schema": _TEXT,
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C trace context; the answer carries it on.",
        "schema": _TEXT,
    },
    "binary": {
        "name": "inference-header-content-length",
        "in": "header",
        "description": "With binary tensors: the length of the JSON before them.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
