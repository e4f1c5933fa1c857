"""Experiment tracking and the model registry: MLflow's own tables and folders, readable by `mlflow ui`."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from homeostat.domain.bundle import Version
from homeostat.domain.gate import Measurement

RUN, BUNDLE = "homeostat.run", "homeostat.bundle"
"""Tags of an MLflow run and of a model version."""
_importing = threading.Lock()


class MlflowTracker:
    """`ports.Tracker`: an experiment and a registered model of the model's name, in the database at `uri`; files and
    models below the folder `artifacts`. Only the client is used: nothing global in MLflow is changed."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self._uri, self._artifacts = uri, artifacts

    def log_run(
        self,
        run: str,
        model: str,
        params: Mapping[str, str],
        measurements: Sequence[Measurement],
        files: Mapping[str, bytes],
    ) -> None:
        """A run that was not finished, because of a crash, is completed; a finished one is left alone."""
        from mlflow.entities import Metric, Param

        known = self._run(model, run)
        found = known or self._client.create_run(self._experiment(model), run_name=run, tags={RUN: run})
        if found.info.status == "FINISHED":
            return
        at = found.info.start_time
        metrics = [Metric(name, value, at, 0) for name, value in _values(measurements)]
        self._client.log_batch(found.info.run_id, metrics, [Param(name, value) for name, value in params.items()])
        with _folder(files) as folder:
            self._client.log_artifacts(found.info.run_id, str(folder))
        self._client.set_terminated(found.info.run_id)

    def register(self, model: str, run: str, bundle: str, onnx: bytes) -> Version:
        known = next((one for one in self.versions(model) if (one.run, one.bundle) == (run, bundle)), None)
        if known is not None:
            return known
        found = self._run(model, run)
        source = self._artifacts / model / "models" / bundle
        _write_model(source, onnx)
        with _quiet():
            made = self._client.create_model_version(
                self._registered(model),
                source=source.as_uri(),
                run_id=found.info.run_id if found else None,
                tags={RUN: run, BUNDLE: bundle},
            )
        return _version(made)

    def alias(self, version: Version, alias: str) -> None:
        self._client.set_registered_model_alias(version.model, alias, str(version.number))

    def versions(self, model: str) -> Sequence[Version]:
        found, token = [], None
        while True:
            page = self._client.search_model_versions(f"name = '{model}'", max_results=1_000, page_token=token)
            found += [_version(one) for one in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda one: one.number)

    @cached_property
    def _client(self) -> Any:
        """The first one makes the database. MLflow is imported here: a second and a half."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow when it is imported
        with _quiet():
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):  # after the import, which sets up its own logging
                logging.getLogger(name).setLevel(logging.ERROR)
            client = MlflowClient(self._uri, self._uri)
            client.search_experiments(max_results=1)
            return client

    def _experiment(self, model: str) -> str:
        known = self._client.get_experiment_by_name(model)
        if known is not None:
            return str(known.experiment_id)
        place = (self._artifacts / model / "runs").as_uri()
        return str(self._client.create_experiment(model, artifact_location=place))

    def _run(self, model: str, run: str) -> Any:
        """The MLflow run of that id, None before it was logged."""
        found = self._client.search_runs([self._experiment(model)], f"tags.`{RUN}` = '{run}'", max_results=1)
        return found[0] if found else None

    def _registered(self, model: str) -> str:
        if not self._client.search_registered_models(f"name = '{model}'", max_results=1):
            self._client.create_registered_model(model)
        return model


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's warnings about itself are not the user's to see."""
    with _importing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _values(measurements: Sequence[Measurement]) -> Iterator[tuple[str, float]]:
    """The values and the ends of their intervals that could be measured."""
    for one in measurements:
        for name, value in ((one.metric, one.value), (f"{one.metric}.low", one.low), (f"{one.metric}.high", one.high)):
            if math.isfinite(value):
                yield name, value


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def _write_model(folder: Path, onnx: bytes) -> None:
    """A folder in MLflow's model format, which its ONNX and pyfunc flavours load."""
    from mlflow.models import Model

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    model = Model()
    model.add_flavor("onnx", data="model.onnx", providers=["CPUExecutionProvider"], onnx_session_options=None)
    model.add_flavor("python_function", loader_module="mlflow.onnx", data="model.onnx")
    model.save(str(folder / "MLmodel"))


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), found.tags[BUNDLE], found.tags[RUN])
