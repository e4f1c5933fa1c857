"""The control API: the verbs of a project over HTTP, with a page of them at /docs.

It never stands in the way of an answer: predictions are the data plane's. Nothing but a name of this machine is
taken for a host, so that a page from elsewhere can't reach it through the browser; and its own page asks nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

import homeostat
from homeostat import codec
from homeostat.domain.errors import Corrupt, HomeostatError, NotFound, Refused
from homeostat.domain.schema import Value
from homeostat.project import Project

_PAGES = Environment(
    loader=ChoiceLoader([PackageLoader("homeostat.web"), PackageLoader("homeostat.serving")]), autoescape=True
)
EXAMPLES = {
    "Start": '{"version": 2}',
    "Order": '{"reason": "checked by hand"}',
    "Feedback": '{"labels": [{"id": "a1", "label": 1}]}',
}
"""A body of each kind, for the page."""
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


class Why(BaseModel):
    """For the record."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field("", max_length=1_000)


class Order(Why):
    """Why, and who says so; the one that runs the server when that is not given."""

    who: str = Field("", max_length=200)


class Start(BaseModel):
    """The version to release, the newest when it is not given; why one that was refused before may be tried again; and
    who says so, the one that runs the server when that is not given."""

    model_config = ConfigDict(extra="forbid")
    version: int | None = None
    despite: str = Field("", max_length=1_000)
    who: str = Field("", max_length=200)


class Label(BaseModel):
    """What became of a prediction. `at`: when the label became known, ISO 8601 or milliseconds since 1970."""

    model_config = ConfigDict(extra="forbid")
    id: str | int
    label: str | int | float | bool
    at: str | int | None = None
    source: str | None = None


class Feedback(BaseModel):
    """Labels by prediction id: late, repeated or corrected; the last by the sender's time counts."""

    model_config = ConfigDict(extra="forbid")
    labels: list[Label] = Field(min_length=1, max_length=100_000)


def create(project: Project, hosts: list[str] = LOOPBACK) -> FastAPI:
    """The application over one project. Requests take turns: its services are not made for several threads."""
    turns = threading.Lock()
    title = f"Homeostat: {project.policy.name}"
    app = FastAPI(title=title, version=homeostat.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_exception_handler(HomeostatError, _refused)

    def answer(verb: Callable[[], Any]) -> Response:
        with turns:
            return Response(codec.encode(verb()), media_type="application/json")

    @app.get("/", include_in_schema=False)
    def home() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        host = request.headers["host"]
        return HTMLResponse(
            _PAGES.get_template("docs.html.jinja").render(api=app.openapi(), host=host, examples=EXAMPLES)
        )

    @app.get("/v1/status", summary="The state of the loop")
    def status() -> Response:
        return answer(lambda: project.status().json())

    @app.get("/v1/releases", summary="Every release, oldest first")
    def releases() -> Response:
        return answer(lambda: {"releases": project.release.history()})

    @app.post("/v1/releases", summary="Release a version", status_code=201)
    def start(order: Annotated[Start, Body()]) -> Response:
        return answer(lambda: project.release.start(order.version, order.despite, order.who))

    @app.get("/v1/releases/{release}", summary="A release with its evidence")
    def explain(release: str) -> Response:
        return answer(lambda: project.release.explain(release)[0])

    @app.get("/v1/releases/{release}/report", summary="The same as a page", response_class=HTMLResponse)
    def report(release: str) -> Response:
        with turns:
            return HTMLResponse(Path(project.release.explain(release)[1]).read_bytes())

    @app.post("/v1/releases/{release}/{order}", summary="approve, reject or rollback", status_code=202)
    def order(release: str, order: str, why: Annotated[Order, Body()]) -> Response:
        return answer(lambda: project.release.order(order, release, why.reason, why.who))

    @app.post("/v1/trainings", summary="Ask for a training", status_code=202)
    def train(why: Annotated[Why, Body()]) -> Response:
        return answer(lambda: project.retrain(why.reason))

    @app.get("/v1/predictions/{prediction}", summary="From a prediction to everything")
    def trace(prediction: str) -> Response:
        return answer(lambda: project.trace(prediction))

    @app.post("/v1/feedback", summary="Labels by prediction id")
    def feedback(given: Annotated[Feedback, Body()]) -> Response:
        rows: list[dict[str, Value]] = [label.model_dump(exclude_none=True) for label in given.labels]
        return answer(lambda: {"accepted": project.feedback(rows)})

    return app


async def _refused(_request: Request, error: Exception) -> Response:
    """What is wrong and the way out; never a trace, and a place only where the caller named it."""
    assert isinstance(error, HomeostatError)
    status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Refused) else 422
    status = 500 if isinstance(error, Corrupt) else status
    return JSONResponse({"error": {"message": error.what, "way_out": error.way_out}}, status)
