"""The protocol's messages: the published names and field numbers of what is read or written here. On the wire, names
do not count, and fields that are not listed are skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "inference"
SERVICE = f"{_PACKAGE}.GRPCInferenceService"
_FIELDS: Mapping[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3",
    "ModelMetadataResponse": """string name = 1; repeated string versions = 2; string platform = 3;
        repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5""",
    "InferTensorContents": """repeated bool bool_contents = 1; repeated int32 int_contents = 2;
        repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5;
        repeated float fp32_contents = 6; repeated double fp64_contents = 7; repeated bytes bytes_contents = 8""",
    "InferInputTensor": """string name = 1; string datatype = 2; repeated int64 shape = 3;
        InferTensorContents contents = 5""",
    "InferRequestedOutputTensor": "string name = 1",
    "ModelInferRequest": """string model_name = 1; string model_version = 2; string id = 3;
        repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6;
        repeated bytes raw_input_contents = 7""",
    "InferParameter": "string string_param = 3",
    "Parameter": "string key = 1; InferParameter value = 2",  # on the wire, a map is a list of these
    "InferOutputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3",
    "ModelInferResponse": """string model_name = 1; string model_version = 2; string id = 3;
        repeated Parameter parameters = 4; repeated InferOutputTensor outputs = 5;
        repeated bytes raw_output_contents = 6""",
}
_FIELD = re.compile(r"(repeated )?(\w+) (\w+) = (\d+)")


def _built() -> Mapping[str, Any]:
    """Name → class. In a pool of its own: a client's definition of the same package may be in this process."""
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=_PACKAGE, syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for repeated, kind, field, number in _FIELD.findall(fields):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                typed = {"type": kinds.TYPE_MESSAGE, "type_name": f".{_PACKAGE}.{kind}"}
            else:
                typed = {"type": kinds.Type.Value(f"TYPE_{kind.upper()}")}
            message.field.add(name=field, number=int(number), label=label, **typed)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


MESSAGES = _built()
