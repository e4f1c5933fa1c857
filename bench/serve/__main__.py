"""python -m bench.serve [--quick] [--json] [--only NAME ...] [--seconds S]

One LightGBM model behind every server: the limit (an echo on our own stack), ours with everything on, a skilled hand's
FastAPI, the products, each with its first core to itself and wrk on the second. `--quick`: 64 connections and one
worker only. The rows with two workers share both cores with wrk: compare them with each other only.

`ours_vs_echo`, `ours_vs_hand` and `log_cost` (against ours with a log that drops) come from alternating rounds, since
machines are noisy: the ratio of the medians. `cpu_vs_echo` compares CPU time a request, steadier still. `best_peer` is
the quickest of the products (MLflow, BentoML, LitServe, MLServer in two set-ups) and of FastAPI as tutorials have it;
the skilled hand's is not among them. What can't be installed or started is named with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

from bench.serve import world
from bench.serve.measure import Measured, Server, Unable, running
from bench.serve.servers import PRODUCTS, SERVERS, TITLES

LEVELS, QUICK = (1, 8, 64, 256), (64,)
ROUNDS = 5
IN_ROUNDS = ("echo", "ours", "unlogged", "hand")
Rows = dict[tuple[str, int, int], Measured]  # by name, workers, connections


@dataclass
class Found:
    rows: Rows = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    batch: int = 0

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except Unable as error:
            self.failed[name] = str(error)


def main() -> None:
    given = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed: apt-get install wrk")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(given.only or list(SERVERS), given.quick, given.seconds or (2 if given.quick else 5), folder)
    summary = _summary(found) | {"load_before": load}
    sys.stdout.write(json.dumps(summary) + "\n" if given.json else _shown(found, summary))


def _arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="64 connections and one worker only")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument("--only", nargs="+", choices=SERVERS, metavar="NAME", help=", ".join(SERVERS))
    parser.add_argument("--seconds", type=int, help="of each measurement: 2 with --quick, else 5")
    return parser.parse_args()


def _measured(only: Sequence[str], quick: bool, seconds: int, folder: str) -> Found:
    found, home = Found(), Path(folder)
    made = world.make(home)
    servers = dict[str, Server]()
    for key in only:
        with found.noting(key):
            servers[key] = SERVERS[key](made, home)
    _rounds(found, [servers[key] for key in IN_ROUNDS if key in servers], made, seconds, home)
    if ("ours", 1, 64) in found.rows:
        _stages(found, made, servers["ours"])
    for server in servers.values():
        for workers in (1,) if quick or server.key == "unlogged" else (1, 2):
            _levels(found, server, workers, QUICK if quick else LEVELS, made, seconds, home)
    return found


def _rounds(found: Found, servers: Sequence[Server], made: world.World, seconds: int, home: Path) -> None:
    """All of them started; one after another under load, several times over."""
    with ExitStack() as stack:
        ready = {}
        for server in servers:
            with found.noting(server.key):
                ready[server.key] = stack.enter_context(running(server, 1, made.score, home))
        each: dict[str, list[Measured]] = {key: [] for key in ready}
        for _ in range(ROUNDS):
            for key, one in ready.items():
                each[key].append(one.load(64, seconds))
    found.rows |= {(key, 1, 64): _median(several) for key, several in each.items()}


def _median(several: Sequence[Measured]) -> Measured:
    """The round in the middle; CPU time and the tail have medians of their own."""
    middle = sorted(several, key=lambda one: one.rps)[len(several) // 2]
    cpu_us, p99_ms = median(one.cpu_us for one in several), median(one.p99_ms for one in several)
    return replace(middle, cpu_us=cpu_us, p99_ms=p99_ms, errors=sum(one.errors for one in several))


def _stages(found: Found, made: world.World, ours: Server) -> None:
    from bench.serve.stages import shares

    head = f"POST {ours.path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\ncontent-type: application/json\r\n"
    ask = f"{head}Content-Length: {len(ours.body)}\r\n\r\n{ours.body}".encode()
    taken = shares(made.root, ask, found.rows["ours", 1, 64].cpu_us)
    found.batch, found.stages = taken.rows, taken.us | {"sockets, event loop": taken.rest_us}


def _levels(
    found: Found, server: Server, workers: int, levels: Sequence[int], made: world.World, seconds: int, home: Path
) -> None:
    missing = [level for level in levels if (server.key, workers, level) not in found.rows]
    if not missing or server.key in found.failed or server.key == "unlogged":
        return
    name = server.key if workers == 1 else f"{server.key}, {workers} workers"
    with found.noting(name), running(server, workers, made.score, home) as one:
        for level in missing:
            found.rows[server.key, workers, level] = one.load(level, seconds)


def _summary(found: Found) -> dict[str, object]:
    at = {key: row.rps for (key, workers, level), row in found.rows.items() if (workers, level) == (1, 64)}
    best = max((key for key in PRODUCTS if key in at), key=lambda key: at[key], default=None)
    ours, unlogged = at.get("ours"), at.get("unlogged")
    levels: dict[str, dict[str, dict[int, object]]] = {}
    for (key, workers, level), row in sorted(found.rows.items()):
        levels.setdefault(key, {}).setdefault(f"workers_{workers}", {})[level] = asdict(row)
    return {
        "ours_rps": ours,
        "best_peer": best,
        "ours_vs_best_peer": _ratio(ours, at.get(best or "")),
        "ours_vs_hand": _ratio(ours, at.get("hand")),
        "ours_vs_echo": _ratio(ours, at.get("echo")),
        "ours_vs": {key: _ratio(ours, rps) for key, rps in at.items() if key != "ours"},
        "cpu_vs_echo": _cheaper(found, "echo"),
        "log_cost": 1 - ours / unlogged if ours and unlogged else None,
        "levels": levels,
        "stages_us": found.stages,
        "stages_batch": found.batch,
        "failed": found.failed,
    }


def _cheaper(found: Found, key: str) -> float | None:
    """Its CPU time a request over ours: steadier than throughput when something else runs on the machine."""
    both = [found.rows.get((one, 1, 64)) for one in (key, "ours")]
    return both[0].cpu_us / both[1].cpu_us if both[0] and both[1] else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _shown(found: Found, summary: Mapping[str, object]) -> str:
    names = ("workers", "conns", "req/s", "p50 ms", "p99 ms", "CPU us", "RSS MB", "PSS MB", "start s", "errors")
    lines = [" " * 30 + "".join(f"{name:>9}" for name in names)]
    for (key, workers, level), row in sorted(found.rows.items(), key=_order):
        times = f"{row.rps:>9,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}{row.cpu_us:>9.1f}"
        uses = f"{row.rss_mb:>9.0f}{row.pss_mb:>9.0f}{row.start_s:>9.2f}{row.errors:>9}"
        lines.append(f"{TITLES[key]:30}{workers:>9}{level:>9}{times}{uses}")
    lines += [f"{name}: not measured: {reason}" for name, reason in found.failed.items()]
    lines.append("two workers and wrk share both cores; one worker has the first core alone, wrk the second")
    if found.stages:
        lines.append(f"\nmicroseconds a request in turns of {found.batch}, as at 64 connections")
        total = sum(found.stages.values())
        lines += [f"{stage:24}{us:>8.2f}{us / total:>7.0%}" for stage, us in found.stages.items()]
    lines += ["", *_ratios(summary)]
    return "\n".join(lines) + "\n"


def _order(item: tuple[tuple[str, int, int], Measured]) -> tuple[int, int, int]:
    key, workers, level = item[0]
    return workers, list(SERVERS).index(key), level


def _ratios(summary: Mapping[str, object]) -> Iterator[str]:
    for name in ("ours_vs_best_peer", "ours_vs_hand", "ours_vs_echo", "cpu_vs_echo", "log_cost"):
        if isinstance(value := summary[name], float):
            yield f"{name}: {value:.3g}" + (f" ({summary['best_peer']})" if name == "ours_vs_best_peer" else "")
    yield f"one-minute load average before: {summary['load_before']:.2f}"


if __name__ == "__main__":
    main()
