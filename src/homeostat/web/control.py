"""The control loop in a process of its own, or beside the others of `homeostat up`. Of several on one database one
leads; the others wait for its last sign of life."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from homeostat.config import read_policy
from homeostat.control import Control
from homeostat.domain.errors import Deposed
from homeostat.services.leader import BEAT_S, Leader
from homeostat.wiring.system import System, project_system

TURN_S, LONGEST_S = 1.0, 60.0
_log = logging.getLogger("homeostat.control")


class _Heart(threading.Thread):
    """Signs of life, however long a turn of the loop takes: a training is no reason to lose the lead."""

    def __init__(self, leader: Leader, told: Callable[[int], None]) -> None:
        super().__init__(name="heart", daemon=True)
        self._leader, self._told = leader, told
        self._ended, self.began = threading.Event(), threading.Event()

    def run(self) -> None:
        term = -1
        while not self.began.is_set() or not self._ended.wait(BEAT_S):
            try:
                self._leader.look()
            except Exception:  # the stores refuse what is written meanwhile, if somebody else leads
                _log.exception("no sign of life could be given")
            if self._leader.term() != term:
                term = self._leader.term()
                self._told(term)
            self.began.set()
        self._leader.leave()

    def end(self) -> None:
        self._ended.set()
        self.join()


@dataclass
class Turns:
    """Of a loop, since its process began; `last_s`: when the last good one was over, since 1970."""

    done: int = 0
    failed: int = 0
    last_s: float = 0.0


class Loop(threading.Thread):
    """A turn a second, while this process leads. A turn that fails is told and tried again, ever more slowly."""

    def __init__(self, system: System, beside: Callable[[], None] = lambda: None) -> None:
        """`beside`: what else is looked after each time."""
        super().__init__(name="control", daemon=True)
        assert system.stores.leader is not None
        self._control, self._leader, self._beside = system.control, system.stores.leader, beside
        self._heart = _Heart(self._leader, _tell)
        self._ended = threading.Event()
        self.turns = Turns()

    @property
    def leads(self) -> bool:
        return bool(self._leader.term())

    def run(self) -> None:
        self._heart.start()
        self._heart.began.wait()
        pause, begun = 0.0, 0
        while not self._ended.wait(pause):
            self._beside()
            term = self._leader.term()
            try:
                if term:
                    _turn(self._control, term != begun)
                    self.turns.done, self.turns.last_s = self.turns.done + 1, time.time()
                pause, begun = TURN_S, term
            except Deposed:
                _log.warning("another control plane leads by now; this one is in reserve")
            except Exception:  # the next turn looks at the world anew
                self.turns.failed += 1
                pause = min(2 * pause or TURN_S, LONGEST_S)
                _log.exception("a turn of the control loop failed; the next one is in %.0f s", pause)

    def end(self) -> None:
        """After the turn under way."""
        self._ended.set()
        self.join()
        self._heart.end()


def _turn(control: Control, first: bool) -> None:
    if first:
        control.lead()
    control.turn()


def _tell(term: int) -> None:
    said = f"This control plane leads, in term {term}." if term else "This control plane is in reserve."
    _log.info(said)


def control(root: Path) -> None:
    """The loop alone, until SIGTERM or SIGINT; it says whether it leads. Main thread only."""
    logging.basicConfig(format="%(message)s")
    _log.setLevel(logging.INFO)
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    loop = Loop(project_system(root, read_policy(root), "control", leads=True))
    loop.start()
    stop.wait()
    loop.end()
