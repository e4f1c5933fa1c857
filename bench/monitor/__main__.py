"""Drift beside others and the limit: `python -m bench.monitor [--quick] [--json]`.

By default: 1M and 10M rows of 20 columns beside a stored reference, the scan that is the limit, Evidently and NannyML
(each in an environment of its own, at sizes they finish within two minutes), and what counting costs a row. `--rates`:
the table of false alarms and power, with 1,000 windows half an hour. `--history FILE --every 30m --drop a,b`: real
rows, with their drift taken away and left in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.monitor import history, rates, speed
from bench.serve.environments import programs
from bench.serve.measure import Unable
from homeostat.domain.units import DAY_MS, duration_ms

PEERS = Path(__file__).parent / "peers"
LIMIT_S = 120


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m bench.monitor", description=__doc__)
    given.add_argument("--quick", action="store_true", help="1M rows, peers at 10,000")
    given.add_argument("--json", action="store_true")
    given.add_argument(
        "--rates", type=int, metavar="WINDOWS", help="simulate so many windows of each size, such as 1000"
    )
    given.add_argument("--history", type=Path, metavar="FILE", help="a CSV file whose rows stand in even steps")
    given.add_argument("--every", default="1h")
    given.add_argument("--drop", default="")
    args = given.parse_args()
    if args.rates:
        for line in rates.table(args.rates):
            sys.stdout.write(f"| {' | '.join(line)} |\n")
            sys.stdout.flush()
    elif args.history:
        _histories(
            history.read(args.history, int(str(duration_ms(args.every))), tuple(filter(None, args.drop.split(","))))
        )
    else:
        found = _race(args.quick)
        sys.stdout.write(json.dumps(found, indent=2) + "\n" if args.json else _shown(found))


def _histories(frame: Any) -> None:
    for what, rows in (("shuffled within its seasons", history.shuffled(frame, 1)), ("as it was", frame)):
        for one in history.watch(rows):
            columns = ", ".join(f"{name} {count}" for name, count in one.columns.most_common(4)) or "none"
            days = one.length_ms / DAY_MS
            sys.stdout.write(f"| {what} | {days:g} d | {one.windows} | {one.alarms} | {one.first_day} | {columns} |\n")


def _race(quick: bool) -> dict[str, Any]:
    sizes = (1_000_000,) if quick else (1_000_000, 10_000_000)
    found: dict[str, Any] = {"ours": speed.ours(sizes), "us_per_row": speed.per_row(), "peers": {}}
    for product in ("evidently", "nannyml"):
        for count in (10_000,) if quick else (10_000, 100_000, 1_000_000):
            told = _peer(product, count)
            found["peers"].setdefault(product, {})[str(count)] = told
            if isinstance(told, str):
                break
    return found


def _peer(product: str, count: int) -> dict[str, float] | str:
    """Its seconds, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("reference.parquet", "current.parquet")]
        for seed, path in enumerate(files):
            speed.rows(count, seed).write_parquet(path)
        try:
            command = [programs(product, PEERS) / "python", PEERS / "run.py", product, *files]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except Unable as error:
            return str(error)
        except subprocess.TimeoutExpired:
            return f"not within {LIMIT_S} s"
    told: dict[str, float] = json.loads(done.stdout) if done.returncode == 0 else {}
    return told or done.stderr[-300:]


def _shown(found: dict[str, Any]) -> str:
    lines = []
    for count, made in found["ours"].items():
        took = ((name, made[name]["wall_s"], made[name]["cpu_s"]) for name in ("scan", "ours"))
        lines += [f"{int(count):>12,} rows  {name:10} {wall:8.2f} s  ({cpu:.2f} CPU s)" for name, wall, cpu in took]
        lines.append(f"{int(count):>12,} rows  peak memory of ours {made['peak_mb']:.0f} MB")
    for product, sizes in found["peers"].items():
        lines += [f"{int(count):>12,} rows  {product:10} {told}" for count, told in sizes.items()]
    lines += [f"{us:12.2f} us a row: {what}" for what, us in found["us_per_row"].items()]
    return "\n".join(lines) + "\n"


main()
