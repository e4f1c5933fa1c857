"""NVIDIA's tritonclient against a worker: python triton.py PORT."""

import sys

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException

COLUMNS = {
    "amount": np.array([10.5, 11.5], np.float32),
    "items": np.array([3, 4], np.int64),
    "member": np.array([True, False]),
    "country": np.array(["de", "pl"], np.object_),
    "class": np.array([np.nan, 2.5], np.float64),
}
TYPES = {"amount": "FP32", "items": "INT64", "member": "BOOL", "country": "BYTES", "class": "FP64"}


def inputs(binary: bool, **changes: np.ndarray) -> list[http.InferInput]:
    made = []
    for name, values in {**COLUMNS, **changes}.items():
        made.append(http.InferInput(name, list(values.shape), TYPES[name]))
        made[-1].set_data_from_numpy(values, binary_data=binary)
    return made


def scores_and_labels(client: http.InferenceServerClient) -> None:
    finite = {"class": np.array([1.5, 2.5])}  # NaN has no JSON
    for binary, changes in ((True, {}), (False, finite)):
        for raw in (True, False):
            wanted = [http.InferRequestedOutput(name, binary_data=raw) for name in ("score", "label", "id")]
            result = client.infer("fraud", inputs(binary, **changes), request_id="q", outputs=wanted)
            np.testing.assert_allclose(result.as_numpy("score"), [0.5, 1 / (1 + np.exp(-1))])
            texts = result.as_numpy("id"), result.as_numpy("label")
            assert [[text.decode() if raw else text for text in one] for one in texts] == [
                ["q-0", "q-1"],
                ["yes", "yes"],
            ]
    assert client.infer("fraud", inputs(True)).as_numpy("score")[0] == 0.5  # no outputs named: all, binary


def compressed(client: http.InferenceServerClient) -> None:
    for coding in ("gzip", "deflate"):
        result = client.infer(
            "fraud", inputs(True), request_compression_algorithm=coding, response_compression_algorithm=coding
        )
        assert result.as_numpy("score")[0] == 0.5


def metadata(client: http.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("fraud")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    about = client.get_model_metadata("fraud")
    assert [one["name"] for one in about["inputs"]] == list(COLUMNS)


def errors(client: http.InferenceServerClient) -> None:
    few = inputs(True)[:-1]
    cases = [
        ("amount must be at least 0", "fraud", inputs(True, amount=np.array([1, -1], np.float32))),
        ("country must be one of de, fr, pl", "fraud", inputs(True, country=np.array(["de", "xx"], np.object_))),
        ("input class is missing", "fraud", few),
        ("no model nothing is served here", "nothing", few),
    ]
    for message, model, sent in cases:
        try:
            client.infer(model, sent)
        except InferenceServerException as error:
            assert error.message() == message, error.message()
        else:
            raise AssertionError(f"no error: {message}")


if __name__ == "__main__":
    with http.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}") as client:
        scores_and_labels(client)
        compressed(client)
        metadata(client)
        errors(client)
