"""Experiment tracking and the model registry: MLflow's own tables and folders, readable by `mlflow ui`.

MLflow reports how it is used to its makers unless `MLFLOW_DISABLE_TELEMETRY` is set before it is imported. A project's
own pipeline may import it first, so it is set when this module is imported, not when MLflow is needed.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError, UsageError
from homeostat.domain.gate import Measurement
from homeostat.domain.units import model_name

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

RUN, BUNDLE = "homeostat.run", "homeostat.bundle"
"""Tags of an MLflow run and of a model version."""
_ODD = re.compile(r"^\.+|[^\w. :-]")  # what MLflow refuses in the name of a parameter; "/" in some places only
_NEEDS = {"mlflow": "mlflow-skinny", "onnx": "onnx", "onnxruntime": "onnxruntime"}
"""What a model's folder asks for where it is served: package → the installed one that tells the version."""
_PYTHON = platform.python_version()
_changing = threading.RLock()


class MlflowTracker:
    """`ports.Tracker`: an experiment and a registered model of the model's name, in the database at `uri`; files and
    models below the folder `artifacts`. Only the client is used: nothing global in MLflow is changed."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self._uri, self._artifacts = uri, artifacts.absolute()

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

        tags = {RUN: run, "mlflow.source.name": "homeostat"}
        found = self._run(model, run) or self._client.create_run(self._experiment(model), run_name=run, tags=tags)
        if found.info.status == "FINISHED":
            return
        at = found.info.start_time
        metrics = [Metric(name, value, at, 0) for name, value in _values(measurements)]
        self._client.log_batch(found.info.run_id, metrics, [Param(*one) for one in _plain(params).items()])
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
        """Those that were registered here: a person may have added others."""
        found, token = [], None
        while True:
            page = self._client.search_model_versions(f"name = '{_named(model)}'", max_results=1_000, page_token=token)
            found += [_version(one) for one in page if {RUN, BUNDLE} <= set(one.tags)]
            token = page.token
            if not token:
                return sorted(found, key=lambda one: one.number)

    @cached_property
    def _client(self) -> Any:
        """The first one makes the database. MLflow is imported here: a second and a half. Errors: `UsageError`."""
        with _quiet():
            from mlflow import MlflowClient, telemetry
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            if telemetry.get_telemetry_client() is not None:  # MLflow was imported before this module
                read_again: Callable[[], None] = telemetry.set_telemetry_client
                read_again()
            try:
                with _silent("mlflow"):
                    _make_database(self._uri)
                    client = MlflowClient(self._uri, self._uri)
                    client.search_experiments(max_results=1)
            except (MlflowException, SQLAlchemyError) as error:
                raise _unusable(self._uri, error) from error
            return client

    def _experiment(self, model: str) -> str:
        """One that a person deleted comes back: the loop goes on, and its runs are evidence."""
        known = self._client.get_experiment_by_name(_named(model))
        if known is not None:
            if known.lifecycle_stage == "deleted":
                self._client.restore_experiment(known.experiment_id)
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
    with _changing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Only errors are logged meanwhile: MLflow tells on stderr how it makes a database."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _make_database(uri: str) -> None:
    """A SQLite file appears whole or not at all. MLflow makes it in dozens of migrations; a process killed between
    them, or a second one that starts meanwhile, would leave one that no MLflow opens."""
    from mlflow import MlflowClient
    from sqlalchemy import make_url

    url = make_url(uri)
    place = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not url.database or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=place.parent) as name:
        draft, whole = Path(name) / "draft.db", Path(name) / "whole.db"
        MlflowClient(f"sqlite:///{draft}", f"sqlite:///{draft}").search_experiments(max_results=1)
        shutil.copyfile(draft, whole)  # MLflow keeps the draft open
        with suppress(FileExistsError):  # another process was first
            place.hardlink_to(whole)


def _unusable(uri: str, error: Exception) -> UsageError:
    from sqlalchemy import make_url

    what = re.split(r"\n|\. ", str(error))[0]
    return UsageError(
        f"MLflow can't use its database: {what}",
        where=make_url(uri).render_as_string(hide_password=True),
        way_out="Run `mlflow db upgrade` if an older MLflow made it, or bring it back from a backup.",
    )


def _named(model: str) -> str:
    try:
        model_name(model)
    except ValueError as error:
        raise ConfigError(str(error), where="homeostat.yaml: name") from None
    return model


def _plain(params: Mapping[str, str]) -> Mapping[str, str]:
    """Under names that MLflow takes: `a[0]` becomes `a_0_`. Of two that become one the last is kept."""
    return {_ODD.sub("_", name): value for name, value in params.items()}


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
            place = Path(name) / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        yield Path(name)


def _write_model(folder: Path, onnx: bytes) -> None:
    """A folder in MLflow's model format, which its ONNX and pyfunc flavours load. It is there whole or not at all:
    another run's version may point at it. Written here, as `mlflow.onnx` would import pandas for it."""
    from mlflow.models import Model

    if folder.exists():
        return
    staged = folder.with_name(f".{folder.name}")
    staged.mkdir(parents=True, exist_ok=True)
    (staged / "model.onnx").write_bytes(onnx)
    needs = [f"{name}=={version(package)}" for name, package in _NEEDS.items()]
    (staged / "requirements.txt").write_text("\n".join(needs) + "\n")
    (staged / "python_env.yaml").write_text(f"python: {_PYTHON}\ndependencies:\n- -r requirements.txt\n")
    model = Model()
    model.add_flavor(
        "onnx",
        data="model.onnx",
        onnx_version=version("onnx"),
        providers=["CPUExecutionProvider"],
        onnx_session_options=None,
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.onnx",
        data="model.onnx",
        env={"virtualenv": "python_env.yaml"},
        python_version=_PYTHON,
    )
    model.save(str(staged / "MLmodel"))
    staged.rename(folder)


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), found.tags[BUNDLE], found.tags[RUN])
