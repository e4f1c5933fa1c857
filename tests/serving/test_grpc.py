"""The data plane over gRPC, asked by Triton's client and by raw messages of its definition of the protocol."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from test_http import Server
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException
from worlds import GOOD, World, logistic

from homeostat.domain.errors import Refused
from homeostat.domain.feedback import Exploration, FeedbackPolicy
from homeostat.serving.grpc.messages import MESSAGES
from homeostat.serving.grpc.server import door, submitted
from homeostat.serving.grpc.translate import RPCS
from homeostat.serving.http import Hub, Limits
from homeostat.serving.limit import Limit
from homeostat.serving.messages import Request, Waiting

DTYPES = {"amount": "FP64", "items": "INT64", "member": "BOOL", "country": "BYTES", "class": "FP32"}
NUMPY = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_, "FP32": np.float32}


class Plane(Server):
    """The server of the HTTP tests with a door for gRPC."""

    def __init__(self, world: World, limits: Limits) -> None:
        super().__init__(world, limits)
        self.grpc_port = self.run(self._open())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self) -> int:
        self._door = door("127.0.0.1:0", self.hub)
        return await self._door.__aenter__()

    def shut(self) -> None:
        self.run(self._door.__aexit__(None, None, None))


@pytest.fixture
def plane() -> Iterator[Plane]:
    world = World()
    world.route(world.bundle(logistic))
    plane = Plane(world, Limits(max_body=100_000))
    yield plane
    plane.shut()
    plane.close()


@pytest.fixture
def triton(plane: Plane) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{plane.grpc_port}") as client:
        yield client


@pytest.fixture
def stub(plane: Plane) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{plane.grpc_port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, datatype: str, values: list[Any]) -> InferInput:
    one = InferInput(name, [len(values)], datatype)
    one.set_data_from_numpy(np.array(values, NUMPY[datatype]))
    return one


def inputs(n: int = 1, **changes: list[Any]) -> list[InferInput]:
    values = {name: [GOOD[name]] * n for name in DTYPES} | {"class": [1.0] * n} | changes
    return [tensor(name, DTYPES.get(name, "BYTES"), data) for name, data in values.items()]


def typed(*tensors: tuple[str, str, str, list[Any]], **more: Any) -> Any:
    """A request with typed contents: (name, datatype, its field of the contents, values)."""
    request = service_pb2.ModelInferRequest(model_name="fraud", **more)
    for name, datatype, field, values in tensors:
        one = request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        getattr(one.contents, field).extend(values)
    return request


TYPED = (
    ("amount", "FP64", "fp64_contents", [9.5, 10.5, 11.5]),
    ("items", "INT16", "int_contents", [-3, 3, 3]),
    ("member", "BOOL", "bool_contents", [True, False, True]),
    ("country", "BYTES", "bytes_contents", [b"de", b"fr", b"pl"]),
    ("class", "FP32", "fp32_contents", [float("nan"), 0.5, 1.0]),
)

RECORD = b'{"amount": 1.5, "items": 1, "member": true, "country": "de", "class": null}'


def sigmoid(amount: float) -> float:
    return float(1 / (1 + np.exp(10.5 - amount)))


def error(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str, dict[str, str]]:
    """→ code, text and trailing metadata of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **options)
    return raised.value.code().name, raised.value.details(), dict(raised.value.trailing_metadata())


class TestAnswers:
    def test_triton_gets_answers_and_the_log_has_them(self, plane: Plane, triton: InferenceServerClient) -> None:
        answer = triton.infer("fraud", inputs(3, amount=[9.5, 10.5, 11.5]), request_id="r")
        assert answer.as_numpy("score").tolist() == pytest.approx([sigmoid(x) for x in (9.5, 10.5, 11.5)])
        assert answer.as_numpy("label").tolist() == [b"no", b"yes", b"yes"]
        assert answer.as_numpy("id").tolist() == [b"r-0", b"r-1", b"r-2"]
        whole = answer.get_response()
        assert (whole.id, whole.model_name, whole.model_version) == ("r", "fraud", "1")
        assert whole.parameters["prediction_ids"].string_param == "r-0,r-1,r-2"
        assert whole.parameters["release"].string_param == "R1"
        assert [row["id"] for row in plane.world.rows()] == ["r-0", "r-1", "r-2"]
        assert plane.world.rows()[0]["inputs"] == {**GOOD, "amount": 9.5, "class": 1.0}

    def test_only_what_was_wanted_and_a_version_and_keys(self, plane: Plane, triton: InferenceServerClient) -> None:
        more = [*inputs(), tensor("id", "BYTES", ["mine"]), tensor("key", "INT64", [7])]
        answer = triton.infer("fraud", more, model_version="1", outputs=[InferRequestedOutput("label")])
        assert [output.name for output in answer.get_response().outputs] == ["label"]
        assert (plane.world.rows()[0]["id"], plane.world.rows()[0]["key"]) == ("mine", "7")

    def test_typed_contents_and_trailing_metadata(self, plane: Plane, stub: Any) -> None:
        answer, call = stub.ModelInfer.with_call(typed(*TYPED, id="t"))
        assert np.frombuffer(answer.raw_output_contents[0]).tolist() == pytest.approx(list(map(sigmoid, TYPED[0][3])))
        told = dict(call.trailing_metadata())
        assert told == {"x-prediction-id": "t-0,t-1,t-2", "x-release-id": "R1", "x-model-version": "1"}
        assert [row["inputs"]["class"] for row in plane.world.rows()] == [None, 0.5, 1.0]

    def test_the_exploration_slice_is_told(self) -> None:
        world = World(told=FeedbackPolicy(selective=True, exploration=Exploration(5_000, "no")))
        world.route(world.bundle(logistic))
        plane = Plane(world, Limits())
        with grpc.insecure_channel(f"127.0.0.1:{plane.grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            _, call = stub.ModelInfer.with_call(typed(*TYPED, id="t"))
        plane.shut()
        plane.close()
        told = dict(call.trailing_metadata())
        marked = [row["id"] for row in world.labels.signals(0, 2**62).to_dicts()]
        assert (told["x-explore"].split(","), told["x-explore-as"]) == (marked, "no")
        assert 0 < len(marked) < len(TYPED[0][3])

    def test_the_same_key_gives_the_same_ids(self, plane: Plane, stub: Any) -> None:
        for _ in range(2):
            _, call = stub.ModelInfer.with_call(typed(*TYPED), metadata=[("idempotency-key", "once")])
            assert dict(call.trailing_metadata())["x-prediction-id"] == "once,once-1,once-2"
        assert [row["id"] for row in plane.world.rows()] == ["once", "once-1", "once-2"]

    def test_a_trace_goes_on(self, stub: Any) -> None:
        parent = f"00-{'a' * 32}-{'b' * 16}-01"
        _, call = stub.ModelInfer.with_call(typed(*TYPED), metadata=[("traceparent", parent)])
        assert dict(call.trailing_metadata())["traceparent"].startswith(f"00-{'a' * 32}-")

    def test_health_and_metadata(self, triton: InferenceServerClient) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("fraud")
        assert triton.is_model_ready("fraud", "1")
        server, model = triton.get_server_metadata(), triton.get_model_metadata("fraud")
        assert (server.name, "binary_tensor_data" in server.extensions) == ("homeostat", True)
        assert (model.name, list(model.versions)) == ("fraud", ["1"])
        assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs[:1]] == [("amount", "FP64", [-1])]
        assert [one.name for one in model.outputs] == ["score", "label", "id"]

    def test_nothing_is_released_yet(self) -> None:
        plane = Plane(World(), Limits())
        with InferenceServerClient(f"127.0.0.1:{plane.grpc_port}") as client:
            assert (client.is_server_live(), client.is_server_ready()) == (True, False)
            with pytest.raises(InferenceServerException, match="no model is released yet") as none:
                client.infer("fraud", inputs())
            assert none.value.status() == "StatusCode.UNAVAILABLE"
        plane.shut()
        plane.close()


class TestErrors:
    REFUSED = (
        ({"country": ["xx"]}, "country", "one of de, fr, pl", "0"),
        ({"amount": [-1.0]}, "amount", "at least 0", "0"),
        ({"tip": ["1"]}, "tip", "unknown", None),
    )

    @pytest.mark.parametrize("change", REFUSED, ids=lambda change: change[1])
    def test_a_refusal_is_told_in_words_and_metadata(self, stub: Any, change: Any) -> None:
        values, field, rule, record = change
        raw = service_pb2.ModelInferRequest(model_name="fraud")
        for one in inputs(**values):
            raw.inputs.append(one._get_tensor())
            raw.raw_input_contents.append(one._get_content())
        code, text, told = error(stub.ModelInfer, raw)
        assert (code, text.startswith(f"{field} ") or field in text) == ("INVALID_ARGUMENT", True)
        assert (told["x-error-field"], told["x-error-rule"], told.get("x-error-record")) == (field, rule, record)
        assert "x-prediction-id" in told  # refused rows are logged too

    def test_what_is_not_there(self, triton: InferenceServerClient, stub: Any) -> None:
        for name, version in (("other", ""), ("fraud", "9"), ("a/../fraud", ""), ("", "")):
            with pytest.raises(InferenceServerException) as missing:
                triton.infer(name, inputs(), model_version=version)
            assert missing.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(InferenceServerException, match="no model other"):
            triton.get_model_metadata("other")
        assert error(stub.ModelConfig, service_pb2.ModelConfigRequest(name="fraud"))[0] == "UNIMPLEMENTED"

    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            (typed(*TYPED[1:]), "input amount is missing"),
            (typed(*TYPED, raw_input_contents=[b""] * 5), "raw_input_contents must hold each input"),
            (typed(*TYPED[:1], raw_input_contents=[b"", b""]), "raw_input_contents must hold each input"),
            (typed(("items", "INT8", "int_contents", [300])), "items must have values of INT8"),
            (typed(("amount", "FP64", "fp32_contents", [1.0]), *TYPED[1:]), "amount must"),
            (typed(("amount", "FP16", "fp32_contents", [1.0]), *TYPED[1:]), "amount must"),
            (typed(("amount", "BF16", "fp32_contents", [1.0]), *TYPED[1:]), "amount must have datatype"),
            (service_pb2.ModelInferRequest(model_name="fraud"), "inputs must not be empty"),
        ],
    )
    def test_contents_that_do_not_fit(self, stub: Any, request_: Any, text: str) -> None:
        code, said, _ = error(stub.ModelInfer, request_)
        assert (code, text in said) == ("INVALID_ARGUMENT", True), said

    def test_shedding_says_when_to_come_again(self, plane: Plane, stub: Any) -> None:
        plane.hub._quick.limit = Limit(0)
        code, text, told = error(stub.ModelInfer, typed(*TYPED))
        assert (code, text, told["retry-after"]) == ("UNAVAILABLE", "too many requests are waiting", "1")

    def test_a_model_that_fails_tells_no_secret(self, plane: Plane, stub: Any) -> None:
        def failing(x: Any, /) -> Any:
            raise RuntimeError(f"secret {x}")

        plane.world.route(plane.world.bundle(failing))
        code, text, told = error(stub.ModelInfer, typed(*TYPED))
        assert (code, text) == ("INTERNAL", "the model could not answer")
        assert "secret" not in str(told)

    def test_no_message_and_one_too_large(self, plane: Plane) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{plane.grpc_port}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            assert error(call, b"\xff\xff\xff")[:2] == ("INVALID_ARGUMENT", "not a message of the protocol")
            assert error(call, b"\0" * 100_001)[0] == "RESOURCE_EXHAUSTED"

    def test_a_failure_of_ours_tells_no_more_than_that(
        self, plane: Plane, stub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: Any) -> Any:
            raise KeyError("secret")

        monkeypatch.setattr(plane.hub, "submit", broken)
        code, text, told = error(stub.ServerLive, service_pb2.ServerLiveRequest())
        assert (code, text, told) == ("INTERNAL", "the request got no answer", {})
        assert "secret" in caplog.text


def test_calls_and_requests_of_one_turn_share_a_tick() -> None:
    world, sizes = World(), []

    def counting(x: Any, /) -> Any:
        sizes.append(len(x))
        return logistic(x)

    world.route(world.bundle(counting))
    message = MESSAGES["ModelInferRequest"].FromString(typed(*TYPED).SerializeToString())

    async def ask() -> list[int]:
        hub = Hub(world.engine, Limits(), asyncio.get_running_loop())
        http = Request("POST", "/v1/models/fraud/predict", b'{"records": [%b]}' % RECORD)
        asked = [submitted(hub, RPCS["ModelInfer"].ask(message, {})), submitted(hub, http)]
        return [response.status for response in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [200, 200]
    assert sizes == [4]


class Held(Hub):
    """Answers only when it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.held: list[Waiting] = []
        self.holds = threading.Event()

    def submit(self, request: Waiting) -> None:
        self.held.append(request)
        self.holds.set()

    async def release(self) -> None:
        for request in self.held:
            super().submit(request)


def test_what_is_under_way_is_answered_before_the_door_shuts(plane: Plane) -> None:
    async def opened() -> tuple[Held, Any, int]:
        hub = Held(plane.world.engine, Limits(), asyncio.get_running_loop())
        way = door("127.0.0.1:0", hub)
        return hub, way, await way.__aenter__()

    hub, way, port = plane.run(opened())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer.future(typed(*TYPED))
        assert hub.holds.wait(20)
        shutting = asyncio.run_coroutine_threadsafe(way.__aexit__(None, None, None), plane._loop)
        for _ in range(50):
            plane.run(asyncio.sleep(0))
        assert not shutting.done()
        plane.run(hub.release())
        assert len(call.result(20).outputs) == 3
        shutting.result(20)
        assert error(stub.ServerLive, service_pb2.ServerLiveRequest())[0] == "UNAVAILABLE"


def test_a_call_that_was_cancelled_harms_no_other() -> None:
    world = World()
    world.route(world.bundle(logistic))
    health = Request("GET", "/v2/health/live")

    async def ask() -> int:
        hub = Hub(world.engine, Limits(), asyncio.get_running_loop())
        one, other = (asyncio.create_task(submitted(hub, health)) for _ in range(2))
        await asyncio.sleep(0)  # both wait for the next tick
        one.cancel()
        return (await other).status

    assert asyncio.run(ask()) == 200


def test_a_taken_port_is_told(plane: Plane) -> None:
    async def again(port: int) -> None:
        async with door(f"127.0.0.1:{port}", plane.hub):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Refused, match="can't listen"):
        plane.run(again(taken.getsockname()[1]))


def test_our_numbers_are_the_published_ones() -> None:
    """Every field of ours is, under its number, of the same type in Triton's definition."""
    nested = {"TensorMetadata": "ModelMetadataResponse", "InferInputTensor": "ModelInferRequest",
              "InferRequestedOutputTensor": "ModelInferRequest", "InferOutputTensor": "ModelInferResponse"}  # fmt: skip
    for name, ours in MESSAGES.items():
        if name == "Parameter":
            theirs = service_pb2.ModelInferResponse.ParametersEntry
        else:
            theirs = getattr(getattr(service_pb2, nested[name]) if name in nested else service_pb2, name)
        for field in ours.DESCRIPTOR.fields:
            other = theirs.DESCRIPTOR.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), name


def test_a_data_plane_without_grpc_does_not_import_it() -> None:
    code = "import sys, homeostat.web.serve; print([name for name in sys.modules if name.startswith('grpc')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
