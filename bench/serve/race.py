"""Who is measured when: the alternating rounds first, then every server alone, from one connection to many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.serve import world
from bench.serve.measure import Measured, Server, Unable, running
from bench.serve.servers import SERVERS
from bench.serve.stages import Shares, shares

IN_ROUNDS = ("echo", "ours", "unlogged", "hand")
ONE_WORKER = ("mlserver0",)
ROUND_S = 1
Rows = dict[tuple[str, int, int], Measured]  # by name, workers, connections


@dataclass(frozen=True)
class Effort:
    """`rounds`: how often the alternating servers take turns, each for `ROUND_S`; `seconds`: of every other load."""

    levels: Sequence[int]
    workers: Sequence[int]
    rounds: int
    seconds: int


class Race:
    """`rows` by server, workers and connections; `rounds`: what each server reached in each of the alternating
    rounds; `failed`: why a server has none."""

    def __init__(self, made: world.World, home: Path, effort: Effort) -> None:
        self._made, self._home, self._effort = made, home, effort
        self.rows: Rows = {}
        self.rounds: list[dict[str, Measured]] = []
        self.failed: dict[str, str] = {}
        self.shares: Shares | None = None

    def run(self, only: Sequence[str]) -> None:
        servers = dict[str, Server]()
        for key in only:
            with self._noting(key):
                servers[key] = SERVERS[key](self._made, self._home)
        self._rounds([servers[key] for key in IN_ROUNDS if key in servers])
        if ("ours", 1, 64) in self.rows:
            self._shares(servers["ours"])
        for server in servers.values():
            if server.key == "unlogged" or server.key in self.failed:
                continue
            for workers in self._effort.workers[:1] if server.key in ONE_WORKER else self._effort.workers:
                self._levels(server, workers)

    def _rounds(self, servers: Sequence[Server]) -> None:
        """All of them started; one after another under load, several times over."""
        with ExitStack() as stack:
            ready = {}
            for server in servers:
                with self._noting(server.key):
                    ready[server.key] = stack.enter_context(running(server, 1, self._made.score, self._home))
            for _ in range(self._effort.rounds):
                made = dict[str, Measured]()
                for key, one in ready.items():
                    with self._noting(key):
                        made[key] = one.load(64, ROUND_S)
                self.rounds.append(made)
        for key in ready:
            if several := [made[key] for made in self.rounds if key in made]:
                self.rows[key, 1, 64] = _median(several)

    def ratios(self, one: str, other: str) -> list[float]:
        """Of their throughput, round by round: what slows the machine down for a while slows both."""
        both = [made for made in self.rounds if one in made and other in made]
        return sorted(made[one].rps / made[other].rps for made in both)

    def _shares(self, ours: Server) -> None:
        head = f"POST {ours.path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\ncontent-type: application/json\r\n"
        ask = f"{head}Content-Length: {len(ours.body)}\r\n\r\n{ours.body}".encode()
        self.shares = shares(self._made.root, ask, self.rows["ours", 1, 64].cpu_us)

    def _levels(self, server: Server, workers: int) -> None:
        missing = [level for level in self._effort.levels if (server.key, workers, level) not in self.rows]
        if not missing:
            return
        name = server.key if workers == 1 else f"{server.key}, {workers} workers"
        with self._noting(name), running(server, workers, self._made.score, self._home) as one:
            for level in missing:
                self.rows[server.key, workers, level] = one.load(level, self._effort.seconds)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except Unable as error:
            self.failed[name] = str(error)


def _median(several: Sequence[Measured]) -> Measured:
    """The round in the middle; CPU time and the tail have medians of their own."""
    middle = sorted(several, key=lambda one: one.rps)[len(several) // 2]
    cpu_us, p99_ms = median(one.cpu_us for one in several), median(one.p99_ms for one in several)
    return replace(middle, cpu_us=cpu_us, p99_ms=p99_ms, errors=sum(one.errors for one in several))
