"""KServe's inference client against a worker: python kserve_rest.py PORT."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from triton import COLUMNS, TYPES


def request(binary: bool, **changes: np.ndarray) -> InferRequest:
    inputs = []
    for name, values in {**COLUMNS, **changes}.items():
        inputs.append(InferInput(name, list(values.shape), TYPES[name]))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in ("score", "label")]
    return InferRequest("fraud", inputs, request_id="q", request_outputs=outputs)


async def main(base: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "fraud")
    for binary in (True, False):
        changes = {} if binary else {"class": np.array([1.5, 2.5])}
        answer = await client.infer(base, request(binary, **changes), model_name="fraud")
        score, label = answer.outputs
        np.testing.assert_allclose(score.as_numpy(), [0.5, 1 / (1 + np.exp(-1))])
        assert list(label.as_numpy()) == ["yes", "yes"]
        assert answer.id == "q" and answer.model_name == "fraud"
    try:
        await client.infer(base, request(True, amount=np.array([1, -1], np.float32)), model_name="fraud")
    except httpx.HTTPStatusError as error:
        assert "amount must be at least 0" in str(error), error
        assert error.response.headers["x-prediction-id"] == "q-0,q-1"
    else:
        raise AssertionError("no error")


if __name__ == "__main__":
    asyncio.run(main(f"http://127.0.0.1:{sys.argv[1]}"))
