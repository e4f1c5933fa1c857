"""One suite for the routing document, over the file and over memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.domain.errors import Deposed, Refused
from homeostat.domain.rollout import Arm, Route, Routing, Share
from homeostat.ports import Router
from homeostat.stores.memory import MemoryRouter
from homeostat.stores.routing import FileRouter


def routing(version: int) -> Routing:
    rules = {"only": {"country": ("de", None, 1, True)}, "never": {"age": (7.5,)}}
    route = Route("R1", Arm(1, "b1"), Arm(2, "b2"), weight=100, shadow=True, salt="s", **rules)
    over = Route("E1", Arm(1, "b1"), Arm(2, "b2"), 3_000, more=(Share(Arm(3, "b3"), 3_000),))
    return Routing(version, {"price": route}, {"price": over}, {"ann": "digest"})


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

    def test_of_writers_in_several_processes_one_is_first(self, tmp_path: Path) -> None:
        """Each adds one to the version until it has won ten times: no document is lost."""
        writer = (
            "import sys; from pathlib import Path; from dataclasses import replace\n"
            "from homeostat.domain.errors import Refused; from homeostat.stores.routing import FileRouter\n"
            "router, won = FileRouter(Path(sys.argv[1])), 0\n"
            "while won < 10:\n"
            "    last = router.read()\n"
            "    told = {**last.testers, f'{sys.argv[2]}-{won}': 'digest'}\n"
            "    try: router.publish(replace(last, version=last.version + 1, testers=told)); won += 1\n"
            "    except Refused: pass\n"
        )
        path = tmp_path / "routing.json"
        command = [sys.executable, "-c", writer, str(path)]
        writers = [subprocess.Popen([*command, name]) for name in "abc"]
        assert [one.wait(60) for one in writers] == [0, 0, 0]
        last = FileRouter(path).read()
        assert (last.version, len(last.testers)) == (30, 30)


def test_who_led_before_can_not_overwrite_what_was_published_since(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    old, new = FileRouter(path, lambda: 1), FileRouter(path, lambda: 2)
    old.publish(Routing(1))
    new.publish(Routing(2))
    with pytest.raises(Deposed):
        old.publish(Routing(3))
    assert (new.read().version, new.read().term) == (2, 2)
