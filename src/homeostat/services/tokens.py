"""Who may choose the variant that answers: names, and the digests of their tokens in the routing document."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from homeostat.domain.errors import NotFound, Refused
from homeostat.ports import Router

_TRIES = 5  # the control loop may publish at the same moment


class Tokens:
    """A token is told once and kept by nobody here. It is 256 random bits, so that a plain SHA-256 hides it."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def names(self) -> Sequence[str]:
        return sorted(self._router.read().testers)

    def add(self, name: str) -> str:
        """→ the token. Errors: `Refused` when the name has one already."""
        if name in self._router.read().testers:
            raise Refused(f"{name!r} has a token already", way_out=f"Remove it first: homeostat token remove {name}")
        token = secrets.token_urlsafe(32)
        self._publish({name: sha256(token.encode()).hexdigest()})
        return token

    def remove(self, name: str) -> None:
        """Every worker refuses it within a second. Errors: `NotFound`."""
        if name not in self._router.read().testers:
            known = ", ".join(self.names()) or "nobody"
            raise NotFound(f"{name!r} has no token", way_out=f"Tokens have: {known}.")
        self._publish({}, name)

    def _publish(self, added: Mapping[str, str], removed: str = "") -> None:
        for tries in range(_TRIES):
            routing = self._router.read()
            kept = {name: digest for name, digest in routing.testers.items() if name != removed}
            testers = {**kept, **added}
            try:
                self._router.publish(replace(routing, version=routing.version + 1, testers=testers))
            except Refused:
                if tries == _TRIES - 1:
                    raise
            else:
                return
