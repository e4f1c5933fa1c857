"""Callers who choose their variant: for tests, with a token. What they are answered is no evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

from homeostat.domain.prediction import PINNED
from homeostat.domain.rollout import Arm, Route
from homeostat.domain.units import ALL
from homeostat.serving.bundles import Loaded
from homeostat.serving.messages import Answered, Ask, Refusal, Request, Response
from homeostat.serving.score import Served

VARIANT = "x-homeostat-variant"


def may_choose(authorization: str, testers: Mapping[str, str]) -> bool:
    """Whether it carries the token of one of them. Every digest is compared, each in constant time: how long it takes
    tells nothing of them."""
    kind, _, token = authorization.partition(" ")
    digest = sha256(token.strip().encode(errors="surrogatepass")).hexdigest()
    same = [compare_digest(digest, known) for known in testers.values()]
    return kind.lower() == "bearer" and any(same)


def variants(served: Served) -> dict[str, Served]:
    """Everything that a caller may choose: all rows to one arm, unseen by any rule, marked in the log. A candidate that
    fails is still replaced by the champion."""
    route = served.route
    champion = _pinned(served, route.champion, None)
    known = {"champion": champion, str(route.champion.version): champion}
    for share, loaded in served.beside:
        pinned = _pinned(served, share.arm, loaded)
        known[str(share.arm.version)] = pinned
        known.setdefault("candidate", pinned)
    return known


def _pinned(served: Served, arm: Arm, loaded: Loaded | None) -> Served:
    whole, release = served.route, PINNED + served.route.release
    if arm == whole.champion:
        return replace(served, route=Route(release, arm), candidate=None, more=())
    return replace(served, route=Route(release, whole.champion, arm, ALL), candidate=loaded, more=())


class Codec(Protocol):
    """As far as a refused request needs it."""

    def salvage(self, request: Request) -> Ask: ...

    def refuse(self, error: Refusal) -> Response: ...


@dataclass(frozen=True, slots=True)
class Barred:
    """A protocol in which every request is refused."""

    codec: Codec
    refusal: Refusal

    def decode(self, _: Request) -> Ask:
        raise self.refusal

    def salvage(self, request: Request) -> Ask:
        return self.codec.salvage(request)

    def encode(self, _: Ask, __: Answered) -> Response:
        return self.refuse(self.refusal)

    def refuse(self, error: Refusal) -> Response:
        return self.codec.refuse(error)
