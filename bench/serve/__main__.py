"""python -m bench.serve [--quick] [--json] [--only NAME ...] [--seconds S]

One LightGBM model behind every server: the limit (an echo on our own stack), ours with everything on, a skilled hand's
FastAPI, the products, each with its first core to itself and wrk on the second. `--quick`: 64 connections and one
worker only. The rows with two workers share both cores with wrk: compare them with each other only.

`ours_vs_echo`, `ours_vs_hand` and `log_cost` (against ours with a log that drops) come from short alternating rounds,
since machines are noisy: the median of the rounds' ratios; `within`: the middle half of them. `cpu_vs` compares CPU
time a request, steadier when other things run. `best_peer` is the quickest of the products as they ship (MLflow,
BentoML, LitServe, MLServer) and of FastAPI as tutorials have it. `ours_vs_tuned` is against MLServer with its pool
switched off, `ours_vs_hand` against the skilled hand's. What can't be installed or started is named with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.serve import world
from bench.serve.measure import Measured
from bench.serve.race import Effort, Race
from bench.serve.servers import PRODUCTS, SERVERS, TITLES, TUNED
from bench.serve.stages import Shares

FULL, QUICK = Effort((1, 8, 64, 256), (1, 2), 25, 5), Effort((64,), (1,), 6, 2)


def main() -> None:
    given = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed: apt-get install wrk")
    load, effort = os.getloadavg()[0], QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        race = Race(world.make(home), home, replace(effort, seconds=given.seconds or effort.seconds))
        race.run(given.only or list(SERVERS))
    summary = _summary(race) | {"load_before": load}
    sys.stdout.write(json.dumps(summary) + "\n" if given.json else _shown(race, summary))


def _arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="64 connections and one worker only")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument("--only", nargs="+", choices=SERVERS, metavar="NAME", help=", ".join(SERVERS))
    parser.add_argument("--seconds", type=int, help="of each measurement: 2 with --quick, else 5")
    return parser.parse_args()


def _summary(race: Race) -> dict[str, Any]:
    rows = {key: row for (key, workers, level), row in race.rows.items() if (workers, level) == (1, 64)}
    at, cpu = {key: row.rps for key, row in rows.items()}, {key: row.cpu_us for key, row in rows.items()}
    best = max((key for key in PRODUCTS if key in at), key=lambda key: at[key], default=None)
    ours = at.get("ours")
    rounds = {other: race.ratios("ours", other) for other in ("echo", "hand", "unlogged")}
    alternating = {other: median(ratios) if ratios else None for other, ratios in rounds.items()}
    log = alternating["unlogged"]
    levels: dict[str, dict[str, dict[int, object]]] = {}
    for (key, workers, level), row in sorted(race.rows.items()):
        levels.setdefault(key, {}).setdefault(f"workers_{workers}", {})[level] = asdict(row)
    return {
        "ours_rps": ours,
        "best_peer": best,
        "ours_vs_best_peer": _ratio(ours, at.get(best or "")),
        "ours_vs_tuned": _ratio(ours, at.get(TUNED)),
        "ours_vs_hand": alternating["hand"],
        "ours_vs_echo": alternating["echo"],
        "ours_vs": {key: _ratio(ours, rps) for key, rps in at.items() if key != "ours"},
        "cpu_vs": {key: cpu_us / cpu["ours"] for key, cpu_us in cpu.items() if key != "ours" and "ours" in cpu},
        "log_cost": None if log is None else 1 - log,
        "within": {
            "ours_vs_hand": _middle(rounds["hand"]),
            "ours_vs_echo": _middle(rounds["echo"]),
            "log_cost": _middle([1 - ratio for ratio in reversed(rounds["unlogged"])]),
        },
        "levels": levels,
        "stages": asdict(race.shares) if race.shares else None,
        "failed": race.failed,
    }


def _middle(ordered: Sequence[float]) -> tuple[float, float] | None:
    """The first and the third quartile."""
    quarter = len(ordered) // 4
    return (ordered[quarter], ordered[-1 - quarter]) if ordered else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _shown(race: Race, summary: Mapping[str, Any]) -> str:
    names = ("workers", "conns", "req/s", "p50 ms", "p99 ms", "CPU us", "RSS MB", "PSS MB", "start s", "errors")
    lines = [" " * 30 + "".join(f"{name:>9}" for name in names)]
    for (key, workers, level), row in sorted(race.rows.items(), key=_order):
        times = f"{row.rps:>9,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}{row.cpu_us:>9.1f}"
        uses = f"{row.rss_mb:>9.0f}{row.pss_mb:>9.0f}{row.start_s:>9.2f}{row.errors:>9}"
        lines.append(f"{TITLES[key]:30}{workers:>9}{level:>9}{times}{uses}")
    lines += [f"{name}: not measured: {reason}" for name, reason in race.failed.items()]
    lines.append("two workers and wrk share both cores; one worker has the first core alone, wrk the second")
    if race.shares:
        lines += ["", *_stages(race.shares)]
    lines += ["", *_ratios(summary)]
    return "\n".join(lines) + "\n"


def _stages(shares: Shares) -> Iterator[str]:
    us = shares.us | {"sockets, event loop": shares.rest_us}
    total = sum(us.values())
    yield f"ours: CPU microseconds a request, in turns of {shares.rows} as at 64 connections"
    yield from (f"{stage:24}{one:>8.2f}{one / total:>7.0%}" for stage, one in us.items())


def _order(item: tuple[tuple[str, int, int], Measured]) -> tuple[int, int, int]:
    key, workers, level = item[0]
    return workers, list(SERVERS).index(key), level


def _ratios(summary: Mapping[str, Any]) -> Iterator[str]:
    for name in ("ours_vs_best_peer", "ours_vs_tuned", "ours_vs_hand", "ours_vs_echo", "log_cost"):
        if (value := summary[name]) is not None:
            within, best = summary["within"].get(name), name == "ours_vs_best_peer"
            spread = f" [{within[0]:.3g}, {within[1]:.3g}]" if within else ""
            yield f"{name}: {value:.3g}{spread}" + (f" ({summary['best_peer']})" if best else "")
    yield "CPU time a request, in ours: " + ", ".join(f"{key} {value:.3g}" for key, value in summary["cpu_vs"].items())
    yield f"one-minute load average before: {summary['load_before']:.2f}"


if __name__ == "__main__":
    main()
