"""One suite for the routing document, over the file and over memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeostat.domain.errors import Deposed, Refused
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.ports import Router
from homeostat.stores.memory import MemoryRouter
from homeostat.stores.routing import FileRouter


def routing(version: int) -> Routing:
    route = Route("R1", Arm(1, "b1"), Arm(2, "b2"), weight=100, shadow=True, salt="s")
    return Routing(version, {"price": route})


class RouterCases:
    @pytest.fixture
    def router(self, tmp_path: Path) -> Router:
        raise NotImplementedError

    def test_replaced_whole_and_in_order(self, router: Router) -> None:
        assert router.read() == Routing()
        router.publish(routing(1))
        router.publish(routing(2))
        assert router.read() == routing(2)
        for version in (1, 2, 4):
            with pytest.raises(Refused, match="at version 2"):
                router.publish(routing(version))
        assert router.read() == routing(2)


class TestMemoryRouter(RouterCases):
    @pytest.fixture
    def router(self) -> Router:
        return MemoryRouter()


class TestFileRouter(RouterCases):
    @pytest.fixture
    def router(self, tmp_path: Path) -> Router:
        return FileRouter(tmp_path / "state" / "routing.json")

    def test_a_damaged_file_falls_back_to_the_one_before(self, tmp_path: Path) -> None:
        path = tmp_path / "routing.json"
        router = FileRouter(path)
        router.publish(routing(1))
        router.publish(routing(2))
        for damage in (b"", b"{", b'{"version": 3, "routes": {"price": {"release": "R", "champion": 5}}}', b"\xff"):
            path.write_bytes(damage)
            assert router.read() == routing(1)
        path.unlink()
        assert router.read() == routing(1)


def test_who_led_before_can_not_overwrite_what_was_published_since(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    old, new = FileRouter(path, lambda: 1), FileRouter(path, lambda: 2)
    old.publish(Routing(1))
    new.publish(Routing(2))
    with pytest.raises(Deposed):
        old.publish(Routing(3))
    assert (new.read().version, new.read().term) == (2, 2)
