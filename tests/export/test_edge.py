"""The exported folder answers as the data plane does, in a browser, in Node and in Python, and its log comes back."""

from __future__ import annotations

import hashlib
import json
import math
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from export.pages import Site
from homeostat import cli
from homeostat.adapters.convert import OnnxConverter
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.errors import Corrupt, PipelineError, UsageError
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.transform import matrix
from homeostat.export.edge import predict
from homeostat.export.edge.folder import export
from homeostat.export.edge.graph import edge_graph, null_text
from homeostat.project import Project
from serving.worlds import World, loads

N = 1_000
TASKS = ("binary", "multiclass", "regression")
WEB = Path(__file__).parent / "web"
CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FIELDS = (
    Field("amount", Kind.NUMBER, low=0, high=1_000_000),
    Field("score", Kind.NUMBER, nullable=True),  # the name of an output
    Field("visits", Kind.INTEGER, nullable=True),
    Field("member", Kind.BOOLEAN, nullable=True),
    Field("country", Kind.TEXT, nullable=True, vocabulary=("", "de", "fr", "日本", "\uffff")),
    Field("edge/plan", Kind.TEXT, values=("free", "gold", "new"), vocabulary=("free", "gold")),
)
RECORD = {"amount": 3.5, "score": None, "visits": 2, "member": True, "country": "de", "edge/plan": "free"}
CLASSES: Mapping[str, tuple[Any, ...]] = {"binary": (False, True), "multiclass": ("a", "b", "c"), "regression": ()}


def records(n: int = N) -> list[dict[str, Any]]:
    """Everything that a field may hold: nulls, unknown texts, whole numbers that float64 can't tell apart."""
    rng = np.random.default_rng(5)
    odd = [None, 0, -3, 2**53 + 1, 2**62, *range(20)]
    texts = [None, "", "de", "fr", "日本", "xx", "\uffff", "\uffff\uffff", "de\0", " de"]
    return [
        {
            "amount": round(float(rng.gamma(2, 20)), 2),
            "score": None if rng.random() < 0.2 else float(rng.normal()),
            "visits": odd[rng.integers(len(odd))],
            "member": [None, False, True][rng.integers(3)],
            "country": texts[rng.integers(len(texts))],
            "edge/plan": ["free", "gold", "new"][rng.integers(3)],
        }
        for _ in range(n)
    ]


@dataclass(frozen=True)
class Model:
    """A data plane that serves a model, and the same model exported."""

    world: World
    folder: Path
    version: Version
    manifest: Bundle
    onnx: bytes

    def expected(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        response = self.world.records(*rows)
        assert response.status == 200, response.body
        return [{name: value for name, value in one.items() if name != "id"} for one in loads(response)["predictions"]]


def trained(task: str, root: Path) -> Model:
    from lightgbm import LGBMClassifier, LGBMRegressor

    schema, rows = Schema(FIELDS, Task(task), "y", CLASSES[task]), records(3_000)
    x = matrix(schema, {name: [row[name] for row in rows] for name in schema.names})
    z = np.nan_to_num(x[:, 0] / 30 + x[:, 1] + x[:, 3] + x[:, 4] - x[:, 5])
    make = LGBMRegressor if task == "regression" else LGBMClassifier
    y = {"binary": (z > 2).astype(int), "multiclass": np.digitize(z, [1, 3]), "regression": z}[task]
    onnx = OnnxConverter()(make(n_estimators=30, n_jobs=1, verbose=-1).fit(x, y), len(FIELDS))
    model = OnnxRuntime().load(onnx)
    whole = x[np.isfinite(x).all(axis=1)][:10]
    sample = tuple((tuple(row), tuple(out)) for row, out in zip(whole.tolist(), model(whole).tolist(), strict=True))
    world = World()
    bundle = world.bundle(onnx, schema, threshold=0.37, sample=sample)
    world.route(bundle)
    version, manifest = Version("fraud", 1, bundle, "run"), Bundle("fraud", schema, 0.37, 1, {}, "run", 1, 0, 0, sample)
    made = export(version, manifest, onnx, model, root / "key", root / task)
    assert made.checked == 11
    return Model(world, root / task, version, manifest, onnx)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("edge")
    return {task: trained(task, root) for task in TASKS}


def alike(given: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return given.keys() == expected.keys() and all(alike(given[name], expected[name]) for name in expected)
    if isinstance(expected, float):
        return math.isclose(given, expected, rel_tol=1e-6, abs_tol=1e-6)
    return type(given) is type(expected) and bool(given == expected)


def same(given: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len({one.pop("id") for one in given}) == len(expected) == N
    wrong = [pair for pair in zip(given, expected, strict=True) if not alike(*pair)]
    assert not wrong, wrong[:3]


def python(folder: Path, *arguments: str, stdin: str = "") -> Any:
    """Run predict.py where numpy and onnxruntime are all that is installed."""
    site = folder.parent / "site"
    site.mkdir(exist_ok=True)
    for package in (np, onnxruntime):
        for found in Path(str(package.__file__)).parents[1].glob(f"{package.__name__}*"):
            if not (site / found.name).exists():
                (site / found.name).symlink_to(found)
    command = [sys.executable, "-S", "predict.py", *arguments]
    alone = {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=folder, env=alone, input=stdin, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


Jobs = Callable[..., list[Any]]


@pytest.fixture
def js(node: str, runtime_web: Path, tmp_path: Path) -> Jobs:
    """Runs jobs in one Node, each on the `predict.mjs` of its folder. → what came of each."""

    def work(*jobs: tuple[Path, Mapping[str, Any]]) -> list[Any]:
        given = [{"folder": str(folder), "log": str(tmp_path / f"{folder.name}.jsonl"), **job} for folder, job in jobs]
        (tmp_path / "jobs.json").write_text(json.dumps(given))
        command = [node, WEB / "node.mjs", runtime_web / "ort.node.min.mjs", tmp_path / "jobs.json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told: list[Any] = json.loads(done.stdout)
        return told

    return work


# The same answers


@pytest.mark.parametrize("task", TASKS)
def test_python_answers_as_the_data_plane_does(models: dict[str, Model], task: str, tmp_path: Path) -> None:
    folder = shutil.copytree(models[task].folder, tmp_path / task)
    rows = records()
    same(python(folder, stdin=json.dumps({"records": rows})), models[task].expected(rows))
    logged = [json.loads(line) for line in (folder / predict.LOG).read_text().split("\n") if line]
    assert [row["inputs"] for row in logged] == rows
    if task == TASKS[0]:  # an error is a line
        fault = {**rows[1], "nowhere": 1}
        assert python(folder, stdin=json.dumps([rows[0], fault])) == "record 1: field nowhere is unknown\n"
        assert python(folder, stdin=json.dumps(rows[0])).startswith("send a list of records")
        assert python(folder, stdin="[1]") == "record 0: the record does not have the expected form\n"
        assert python(folder, stdin="{").startswith("Expecting property name")
        assert "refused" in python(folder, "--sync", "http://127.0.0.1:1")
        assert "another key" in python(folder, "--check", "--fingerprint", "00")
    assert {row["bundle"] for row in logged} == {models[task].version.bundle}
    assert python(folder, "--check") == {"checked": 11}


def test_node_answers_as_the_data_plane_does(models: dict[str, Model], js: Jobs) -> None:
    rows = records()
    told = js(*((models[task].folder, job) for job in ({"records": rows}, {"check": True}) for task in TASKS))
    for task, one in zip(TASKS, told, strict=False):
        same(one["result"], models[task].expected(rows))
    assert told[3:] == [{"result": 11}] * 3


def test_a_model_of_scikit_learn_is_extended_too(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    schema = Schema(FIELDS[:1], Task.MULTICLASS, "y", (1, 2, 3))  # a newer opset: its ReduceMax is another one
    x = np.linspace(0, 10, 90, dtype=np.float32).reshape(-1, 1)
    onnx = OnnxConverter()(LogisticRegression().fit(x, np.arange(90) // 30), 1)
    manifest = Bundle("m", schema, 0.5, 1, {}, "run", 1, 0)
    made = export(Version("m", 1, "b", "r"), manifest, onnx, OnnxRuntime().load(onnx), tmp_path / "key", tmp_path / "e")
    edge = predict.Edge(made.folder, log=None)
    told = edge.predict([{"amount": value} for value in x[:, 0].tolist()])
    output = OnnxRuntime().load(onnx)(x)
    assert [one["label"] for one in told] == (output.argmax(axis=1) + 1).tolist()
    assert np.allclose([list(one["scores"].values()) for one in told], output, atol=1e-6)


# Refusals

BAD: tuple[dict[str, Any], ...] = (
    {"amount": -0.5},
    {"amount": 1_000_001},
    {"amount": None},
    {"amount": "12"},
    {"amount": True},
    {"score": 1e39},
    {"visits": 2.5},
    {"member": 1},
    {"country": 5},
    {"edge/plan": "silver"},
    {"edge/plan": None},
    {"unknown": 1},
    {"id": ""},
    {"key": 1.5},
    {"amount": -1, "edge/plan": "silver"},
)


def refused(model: Model, rows: list[dict[str, Any]]) -> dict[str, Any]:
    response = model.world.records(*rows)
    assert response.status == 422
    return {name: value for name, value in loads(response)["error"].items() if value}


def cases() -> Iterator[list[dict[str, Any]]]:
    yield from ([{**RECORD, **bad}] for bad in BAD)
    yield [RECORD, {name: value for name, value in RECORD.items() if name != "visits"}]
    yield [{**RECORD, "id": "a"}, {**RECORD, "id": "a"}]


def test_python_refuses_what_the_data_plane_refuses(models: dict[str, Model]) -> None:
    edge = predict.Edge(models["binary"].folder, log=None)
    for rows in cases():
        with pytest.raises(predict.Refused) as error:
            edge.predict(rows)
        told = {name: getattr(error.value, name) for name in ("field", "rule", "record", "message")}
        assert {name: value for name, value in told.items() if value} == refused(models["binary"], rows)
    for rows, rule in (([], "not empty"), ([{**RECORD, "score": math.nan}], "finite")):  # no JSON
        with pytest.raises(predict.Refused) as error:
            edge.predict(rows)
        assert error.value.rule == rule


def test_node_refuses_what_the_data_plane_refuses(models: dict[str, Model], js: Jobs) -> None:
    model = models["binary"]
    told = js(*((model.folder, {"records": rows}) for rows in cases()))
    for rows, one in zip(cases(), told, strict=True):
        assert one.pop("kind") == "Refused", rows
        assert {name: value for name, value in one.items() if value} == refused(model, rows)


# The signature


@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "thresholds.json", "vector.json", "predict.mjs"])
def test_a_file_that_was_changed_is_noticed(models: dict[str, Model], tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(models["binary"].folder, tmp_path / "copy")
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(predict.Tampered, match=f"{name} is not the file that was signed"):
        predict.Edge(folder).check()


def test_a_list_that_was_changed_is_noticed(models: dict[str, Model], tmp_path: Path, js: Jobs) -> None:
    folder = shutil.copytree(models["binary"].folder, tmp_path / "copy")
    key = json.loads((folder / "manifest.json").read_text())["public_key"]
    with pytest.raises(predict.Tampered, match="another key"):
        predict.Edge(folder, fingerprint="0" * 64)
    predict.Edge(folder, fingerprint=hashlib.sha256(bytes.fromhex(key)).hexdigest())
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"version":1', '"version":2'))
    with pytest.raises(predict.Tampered, match="does not match its signature"):
        predict.Edge(folder)
    (told,) = js((folder, {"check": True}))
    assert (told["kind"], told["message"]) == ("Tampered", "manifest.json does not match its signature")


@settings(max_examples=15)
@given(st.binary(max_size=80), st.integers(0, 511))
def test_signatures_are_verified(message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key().public_bytes_raw(), bytearray(key.sign(message))
    assert predict.signed_by(public, bytes(signature), message)
    assert not predict.signed_by(public, bytes(signature), message + b"x")
    more = int.from_bytes(signature[32:], "little") + predict._ORDER  # the same point, but not the same signature
    assert not predict.signed_by(public, bytes(signature[:32]) + more.to_bytes(32, "little"), message)
    signature[bit // 8] ^= 1 << bit % 8
    assert not predict.signed_by(public, bytes(signature), message)
    assert not predict.signed_by(public, bytes(signature[:63]), message)


# What can't be exported


def test_what_can_not_be_exported_is_said(models: dict[str, Model], tmp_path: Path) -> None:
    model = models["binary"]
    runtime = OnnxRuntime().load(model.onnx)
    write: Callable[[Path], Any] = partial(export, model.version, model.manifest, model.onnx, runtime, tmp_path / "key")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="something else"):
        write(tmp_path / "mine")
    first = write(tmp_path / "new")
    assert write(tmp_path / "new") == first
    (tmp_path / "key").write_text("no key")
    with pytest.raises(Corrupt, match="signing key"):
        write(tmp_path / "other")
    with pytest.raises(PipelineError, match="NUL"):
        edge_graph(Schema((Field("a", Kind.TEXT, vocabulary=("\0",)),), Task.BINARY, "y", (0, 1)), 0.5, model.onnx)


def test_a_folder_that_would_answer_otherwise_is_not_written(models: dict[str, Model], tmp_path: Path) -> None:
    model = models["regression"]

    def other(x: Any, /) -> Any:
        return OnnxRuntime().load(model.onnx)(x) + 0.01

    with pytest.raises(Corrupt, match="does not answer as the bundle does"):
        export(model.version, model.manifest, model.onnx, other, tmp_path / "key", tmp_path / "edge")
    assert not (tmp_path / "edge").exists()


def test_the_text_that_stands_for_null_is_no_known_one() -> None:
    known = ("\uffff", "\uffff" * 4)
    schema = Schema((Field("a", Kind.TEXT, nullable=True, vocabulary=known),), Task.REGRESSION, "y")
    null = null_text(schema)
    assert not {null, null * 2} & set(known)


def test_the_graph_stands_alone(models: dict[str, Model]) -> None:
    """Fed by hand: one input a field, under its name."""
    session = onnxruntime.InferenceSession(models["binary"].folder / "model.onnx")
    assert [one.name for one in session.get_inputs()] == [field.name for field in FIELDS]
    feeds = {
        one.name: np.array(["de"], object) if "string" in one.type else np.array([np.nan])
        for one in session.get_inputs()
    }
    score, label = session.run(None, feeds)
    assert (score.shape, score.dtype, label.tolist()) == ((1,), np.float64, [str(bool(score[0] >= 0.37))])


# In a browser, and back


def card(i: int) -> dict[str, Any]:
    country = ("de", None, "xx")[i % 3]
    return {"id": f"e{i}", "amount": 10.0 + i, "hour": i % 24, "country": country, "online": i % 2 == 0}


def test_a_browser_answers_as_the_data_plane_does_and_sends_its_log(
    models: dict[str, Model],
    exported: Path,
    project: Project,
    plane: str,
    chromium: str,
    runtime_web: Path,
    tmp_path: Path,
) -> None:
    rows, cards = records(), [card(i) for i in range(N)]
    jobs = [{"module": f"/{task}/predict.mjs", "name": task, "records": rows} for task in TASKS]
    jobs.append({"module": "/project/predict.mjs", "name": "cards", "records": cards, "sync": plane})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    shutil.copy(WEB / "browser.html", tmp_path)
    results: queue.Queue[Any] = queue.Queue()
    folders = {"web": tmp_path, "project": exported, **{task: model.folder for task, model in models.items()}}
    site = type("Mine", (Site,), {"folders": folders, "runtime": runtime_web, "results": results})
    with ThreadingHTTPServer(("127.0.0.1", 0), site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/browser.html"
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        with (tmp_path / "chromium.log").open("w") as log:
            browser = subprocess.Popen([chromium, *CHROMIUM, profile, address], stdout=log, stderr=log)
            try:
                told = results.get(timeout=120)
            except queue.Empty:
                pytest.fail((tmp_path / "chromium.log").read_text())
            finally:
                browser.terminate()
                browser.wait()
                server.shutdown()
    for task, result in zip(TASKS, told["results"], strict=False):
        same(result["answers"], models[task].expected(rows))
        assert (result["checked"], result["waiting"]) == (11, N)  # not sent: the log holds them
    mine = told["results"][-1]
    assert (mine["synced"], mine["waiting"]) == ({"accepted": N, "refused": []}, 0)
    for i in (0, 1, 2, N - 1):
        assert project.trace(f"e{i}").inputs == {name: value for name, value in card(i).items() if name != "id"}
    page, form = json.loads(told["page"]), {"amount": 12.5, "hour": 3, "country": None, "online": True}
    assert alike(page["score"], predict.Edge(exported, log=None).predict([form])[0]["score"])


def test_python_sends_its_log_and_labels_find_it(exported: Path, project: Project, plane: str, tmp_path: Path) -> None:
    edge = predict.Edge(exported, log=tmp_path / "log.jsonl")
    answer, other = edge.predict([{**card(5), "id": "py-1", "key": 7}, {**card(6), "id": "py-2"}])
    assert edge.log is not None
    with pytest.raises(OSError, match="refused"):  # no network: the log stays
        edge.sync("http://127.0.0.1:9")
    torn = edge.log.read_text() + '\n{"id": "torn'
    edge.log.write_text(torn)
    assert edge.sync(plane) == {"accepted": 2, "refused": []}
    assert edge.sync(plane) == {"accepted": 0, "refused": []}
    edge.log.write_text(torn)  # the answer to the first time was lost
    assert edge.sync(plane) == {"accepted": 2, "refused": []}
    assert project.system.stores.log.find("py-1").height == 1
    assert project.feedback([{"id": "py-1", "label": 1}]) == 1
    found = project.trace("py-1")
    assert (found.key, found.bundle, found.label is not None) == ("7", edge.manifest["bundle"], True)
    assert found.run is not None
    assert (found.scores[0].version, found.scores[0].score, found.scores[0].role) == (1, answer["score"], "answer")
    said = CliRunner().invoke(cli.app, ["trace", "py-2", "-p", str(project.root)])
    assert (said.exit_code, "answered on the edge" in said.stdout, other["id"]) == (0, True, "py-2")


def test_node_sends_its_log(exported: Path, project: Project, plane: str, js: Jobs) -> None:
    rows = [{**card(i), "id": f"js-{i}"} for i in range(3)]
    answered, refused, sent, again = js(
        *(
            (exported, job)
            for job in ({"records": rows}, {"sync": "http://127.0.0.1:9"}, {"sync": plane}, {"sync": plane})
        )
    )
    assert (len(answered["result"]), refused["kind"]) == (3, "TypeError")  # no network: the log stays
    assert sent == {"result": {"accepted": 3, "refused": []}}
    assert again == {"result": {"accepted": 0, "refused": []}}
    assert project.trace("js-2").bundle == json.loads((exported / "manifest.json").read_text())["bundle"]
