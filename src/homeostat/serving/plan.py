"""What the routing document means here: which path leads to which model, and which models are ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from homeostat.domain.rollout import Routing
from homeostat.serving import mlflow, openapi, v2
from homeostat.serving.binary import EXTENSION
from homeostat.serving.bundles import Shelf
from homeostat.serving.messages import RETRY, Refusal, Request, Response, json, refused
from homeostat.serving.mlflow import Mlflow
from homeostat.serving.pins import VARIANT, Barred, may_choose, variants
from homeostat.serving.records import Record, Records
from homeostat.serving.score import Served
from homeostat.serving.v2 import V2


@dataclass(frozen=True, slots=True)
class Target:
    """Where a prediction request goes."""

    served: Served
    codec: Records | Record | V2 | Mlflow | Barred


@dataclass(frozen=True, slots=True)
class Plan:
    """Replaced whole. `missing` says of a model why its champion can't answer; `complete`: every bundle that the
    document names is loaded; `started`: since this worker came up, every champion has been ready once. `cold`: models
    for which there is no room until somebody asks for them; `slow`: the paths of models that take long, `quick`: of the
    others; `variants`: of each model, by name and by number, for `testers`."""

    version: int = 0
    models: Mapping[str, Served] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    predict: Mapping[str, Target] = field(default_factory=dict)
    bundles: set[str] = field(default_factory=set)
    complete: bool = True
    started: bool = False
    cold: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()
    quick: frozenset[str] = frozenset()
    variants: Mapping[str, Mapping[str, Served]] = field(default_factory=dict)
    testers: Mapping[str, str] = field(default_factory=dict)

    def chosen(self, target: Target, request: Request) -> Target:
        """The variant that the caller chose; one that refuses, where it may not or where there is none."""
        known = self.variants[target.served.model]
        if not may_choose(request.headers.get("authorization", ""), self.testers):
            refusal = Refusal(403, f"{VARIANT} needs a token: authorization: Bearer TOKEN", rule="token", name=VARIANT)
        elif request.headers[VARIANT] not in known:
            refusal = Refusal(
                404, f"there is no such variant now, but {', '.join(known)}", rule="variant", name=VARIANT
            )
        else:
            return replace(target, served=known[request.headers[VARIANT]])
        return replace(target, codec=Barred(target.codec, refusal))

    def asks_cold(self, path: str) -> str | None:
        """The model that is to be loaded first, if the path is one's."""
        if not self.cold:
            return None
        parts = path.split("/")
        return parts[3] if parts[2:3] == ["models"] and parts[3] in self.cold else None

    def one(self, name: str | None) -> Served:
        """The model of that name; the only one there is where none is named. Errors: `Refusal`."""
        if name is None:
            return self._only()
        if name in self.models:
            return self.models[name]
        if name in self.missing or not self.version:
            raise Refusal(503, self.missing.get(name, "no model is released yet"), rule="ready")
        raise Refusal(404, f"no model {name} is served here", rule="model")

    def _only(self) -> Served:
        if len(self.models) + len(self.cold) > 1:
            raise Refusal(422, "name the model: several are served", rule="required", name="model")
        for served in self.models.values():
            return served
        raise Refusal(503, "; ".join(self.missing.values()) or "no model is released yet", rule="ready")

    def other(self, request: Request) -> Response:
        """Health and metadata. Errors: `Refusal`."""
        if request.path in self.predict:
            raise Refusal(405, "use POST", rule="POST")
        match request.path.strip("/").split("/"):
            case ["openapi.json"]:
                return _get(request, openapi.document(self.models))
            case ["docs"]:
                return _got(request, Response(200, openapi.page(self.models), media="text/html; charset=utf-8"))
            case ["v2"]:
                return _get(request, {"name": "homeostat", "version": version("homeostat"), "extensions": [EXTENSION]})
            case ["v2", "health", kind]:
                return self._health(request, kind)
            case ["ping" | "health"]:
                return self._state(request, "ready", self._all_ready)
            case ["version"]:
                return _got(request, Response(200, version("mlflow-skinny").encode(), media="text/plain"))
            case ["invocations"]:
                self.one(None)
            case ["v1", "models", name, "predict" | "record" | "invocations"]:
                self.one(name)
            case ["v2", "models", name, *rest]:
                return self._model(request, name, rest)
        raise Refusal(404, "nothing is here", rule="path")

    @property
    def _all_ready(self) -> bool:
        return not self.missing and bool(self.models)

    def _health(self, request: Request, kind: str) -> Response:
        match kind:
            case "live":
                return self._state(request, "live", True)
            case "ready":
                return self._state(request, "ready", self._all_ready)
            case "startup":
                return self._state(request, "started", self.started)
        raise Refusal(404, "nothing is here", rule="path")

    def _model(self, request: Request, name: str, rest: list[str]) -> Response:
        if rest[-1:] == ["ready"] and name in self.missing and name not in self.models:
            return self._state(request, "ready", False)
        served = self.one(name)
        versions = [arm.version for arm in (served.route.champion, *(share.arm for share in served.route.shares))]
        match rest:
            case ["versions", number, *_] if number not in map(str, versions):
                raise Refusal(404, f"version {number} of {name} is not served here", rule="version")
            case [] | ["versions", _]:
                return _get(request, served.champion.v2.metadata(versions))
            case ["ready"] | ["versions", _, "ready"]:
                return self._state(request, "ready", True)
        raise Refusal(404, "nothing is here", rule="path")

    def _state(self, request: Request, name: str, good: bool) -> Response:
        if good:
            return _get(request, {name: True})
        reasons = "; ".join(self.missing.values()) or "no model is released yet"
        return _got(request, json(503, {name: False, "reason": reasons}, RETRY))


def refuse(request: Request, error: Refusal) -> Response:
    """In the words of the protocol that the path belongs to."""
    if request.path.startswith("/v2"):
        return v2.refused(error)
    return mlflow.refused(error) if request.path.endswith("/invocations") else refused(error)


def _get(request: Request, value: object) -> Response:
    return _got(request, json(200, value))


def _got(request: Request, response: Response) -> Response:
    if request.method != "GET":
        raise Refusal(405, "use GET", rule="GET, HEAD")
    return response


def build(routing: Routing, shelf: Shelf, before: Plan, room: float, used: Mapping[str, int]) -> Plan:
    """Load what the document names, those first that were `used` last (ms), while there is `room` (bytes). A model
    whose champion is not ready keeps the route it had."""
    models: dict[str, Served] = {}
    missing: dict[str, str] = {}
    cold: set[str] = set()
    complete = True
    for name in sorted(routing.routes, key=lambda name: -used.get(name, 0)):
        route = routing.in_force(name)
        if sum(served.size for served in models.values()) >= room:
            cold.add(name)
            continue
        champion = shelf.load(route.champion.bundle)
        beside = [shelf.load(share.arm.bundle) for share in route.shares]
        if champion is not None:
            models[name] = Served(name, route, champion, beside[0] if beside else None, tuple(beside[1:]))
        elif name in before.models:
            models[name] = before.models[name]
        if champion is None:
            arm = route.champion
            missing[name] = f"{name} version {arm.version} is not ready: {shelf.reason(arm.bundle)}"
        complete = complete and champion is not None and None not in beside
    chosen = {name: variants(served) for name, served in models.items()}
    predict = {path: target for served in models.values() for path, target in _paths(served, chosen[served.model])}
    bundles = {loaded.id for served in models.values() for loaded in served.loaded}
    if len(models) == len(routing.routes) == 1:
        (only,) = models.values()
        predict["/invocations"] = Target(only, only.champion.mlflow)
    started = before.started or (bool(models) and not missing)
    slow = frozenset(path for path, target in predict.items() if target.served.slow)
    known = frozenset(cold), slow, frozenset(predict) - slow, chosen, routing.testers
    return Plan(routing.version, models, missing, predict, bundles, complete, started, *known)


def _paths(served: Served, chosen: Mapping[str, Served]) -> Iterator[tuple[str, Target]]:
    champion, name = served.champion, served.model
    yield f"/v1/models/{name}/predict", Target(served, champion.records)
    yield f"/v1/models/{name}/record", Target(served, champion.records.one)
    yield f"/v1/models/{name}/invocations", Target(served, champion.mlflow)
    yield f"/v2/models/{name}/infer", Target(served, champion.v2)
    for number, pinned in chosen.items():
        if number.isdigit():
            yield f"/v2/models/{name}/versions/{number}/infer", Target(pinned, champion.v2)
