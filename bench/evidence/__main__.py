"""The figures of docs/evidence.md: `python -m bench.evidence [--runs 500]`, ten minutes; `--runs 50` for a first look.

Each line: what was simulated, what is wanted, what came out, in how many runs; rates with their 99 % bounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np

from bench.evidence import peers
from bench.evidence.releases import (
    BOTH,
    NEVER,
    SEGMENTS,
    Events,
    Ints,
    Kind,
    as_they_come,
    at,
    bound,
    events,
    first,
    identical,
    labels,
    named,
    paired_path,
    steady,
    whole_calls,
    with_bursts,
    with_stuck,
    worlds,
)

LONG = 12_000
Line = tuple[str, str, str, int]
RULES: dict[str, Callable[[Events], Ints]] = {
    "this rule, E at 100": lambda seen: first(seen.path(1.0), 0.01),
    "99 % objective, one failed minute (Argo Rollouts)": lambda seen: peers.objective(seen, 0.99, 1),
    "99 % objective, five failed minutes (Flagger)": lambda seen: peers.objective(seen, 0.99, 5),
    "95 % objective, one failed minute": lambda seen: peers.objective(seen, 0.95, 1),
    "95 % objective, five failed minutes": lambda seen: peers.objective(seen, 0.95, 5),
    "z-test at .05, peeked each minute": peers.z_test,
    "Mann-Whitney judge after the hour (Kayenta)": peers.mann_whitney,
}


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    given.add_argument("--runs", type=int, default=500, help="of a long simulation; 20 times as many of a short one")
    runs = given.parse_args().runs
    for part in (errors, levels, quality, segments, limits):
        for what, wanted, found, many in part(runs):
            sys.stdout.write(f"| {what} | {wanted} | {found} | {many:,} |\n")
        sys.stdout.flush()


def errors(runs: int) -> Iterator[Line]:
    """Every rule on the same minutes: 600 requests a minute, 10 % of them the candidate's, .5 % bad, an hour."""
    many = 20 * runs
    same, worse = (events(np.random.default_rng(31), many, steady(60), at(60), ratio=ratio) for ratio in (1.0, 3.0))
    for name, rule in RULES.items():
        false, found = rule(same), rule(worse)
        wanted = "≤ 1 % false, ≥ 99 % found in ≤ 17 min" if name.startswith("this") else ""
        yield (
            f"errors: {name}",
            wanted,
            f"{_rate(false)} false; {_rate(found)} found, median {_median(found)} min",
            many,
        )


def levels(runs: int) -> Iterator[Line]:
    """An identical release under each world, 10,000 looks."""
    total = many = 0
    for seed, (name, world) in enumerate(worlds(np.random.default_rng(32), runs).items()):
        lanes = identical(100 + seed, runs, world)
        false = int(np.any(list(lanes.values()), axis=0).sum())
        each = ", ".join(f"{lane} {int(found.sum())}" for lane, found in lanes.items())
        total, many = total + false, many + runs
        yield f"identical, 10,000 looks: {name}", "≤ 5 %", f"{_share(false, runs)} ({each})", runs
    yield "all of these", "≤ 5 %", _share(total, many), many


def quality(runs: int) -> Iterator[Line]:
    """One label a minute; three in ten have the first outcome."""
    kinds = Kind(0.3, 0.02), Kind(0.7, 0.02)
    rows = labels(np.random.default_rng(33), runs, LONG, kinds, 1.0)
    for name, horizon, wanted in (("mature labels", 0, "≤ 1,300 labels"), ("no label is mature yet", LONG - 1, "")):
        found = first(paired_path(rows, kinds, horizon), 0.02)
        late = np.quantile(found[found != NEVER], 0.9)
        told = f"{_rate(found)} found; median {_median(found)} labels, nine in ten by {late:,.0f}"
        yield f"accuracy two points lower, 5 % of answers differ: {name}", wanted, told, runs


def segments(runs: int) -> Iterator[Line]:
    for name, harmed in (("the smallest of three, a fifth, loses ten points", 2), ("identical segments", None)):
        rng, worse = np.random.default_rng(34), (Kind(0.5, 0.10, 0.15), Kind(0.5, 0.10, 0.15))
        chosen = [worse if segment == harmed else BOTH for segment in range(len(SEGMENTS))]
        rows = [labels(rng, runs, 6_000, kinds, share) for kinds, share in zip(chosen, SEGMENTS, strict=True)]
        look, who = named(np.array([paired_path(row, kinds, 0) for row, kinds in zip(rows, chosen, strict=True)]))
        if harmed is None:
            yield f"segments: {name}, 6,000 labels", "≤ 1 %", f"{_rate(look)} alarms", runs
            continue
        wrong = sum(any(segment != harmed for segment in found) for found in who)
        told = f"{_rate(look)} found, median {_median(look)} labels; a healthy one named in {_share(wrong, runs)}"
        yield f"segments: {name}", "named, no healthy one", told, runs


def limits(runs: int) -> Iterator[Line]:
    """What breaks the rules, and what they are spared by. Bursts and the entity: four hours."""
    seen = events(np.random.default_rng(35), runs, steady(240), at(240))
    for counted, name in ((1, "one event a minute"), (15, "every bad answer")):
        found = first(with_bursts(np.random.default_rng(36), seen, 20, counted).path(1.0), 0.01)
        yield (
            f"bursts of 30 bad answers, three an hour, four hours: {name} counts",
            "≤ 1 %",
            f"{_rate(found)} false",
            runs,
        )
    alone = events(np.random.default_rng(37), runs, steady(240), at(240))
    for both, name in ((True, "breaks both versions"), (False, "breaks whichever version answers")):
        found = first(with_stuck(np.random.default_rng(38), alone, 1, both).path(1.0), 0.01)
        yield f"one entity with a row every minute that {name}", "", f"{_rate(found)} false", runs
    rng = np.random.default_rng(1)
    for rows in (1, 4, 32):
        found = first(whole_calls(rng, 4 * runs, 240, rows).path(1.0), 0.01)
        yield f"calls that fail whole, {rows} rows each", "", f"{_rate(found)} false", 4 * runs
    kinds = Kind(0.2, 0.04, 0.08, delay=60), Kind(0.8, -0.01, 0.04, delay=2_880)
    rows = labels(np.random.default_rng(39), runs, 6_000, kinds, 1.0)
    for name, path in (
        ("this rule", paired_path(rows, kinds, 2_880)),
        ("labels as they come", as_they_come(rows, kinds)),
    ):
        yield f"it errs elsewhere, bad news first: {name}", "≤ 2 %", f"{_rate(first(path, 0.02))} false", runs


def _rate(found: Ints) -> str:
    return _share(int((found != NEVER).sum()), len(found))


def _share(found: int, runs: int) -> str:
    low = 1 - bound(runs - found, runs) if found else 0.0
    return f"{found / runs:.2%} [{low:.2%}, {bound(found, runs):.2%}]"


def _median(found: Ints) -> str:
    return f"{np.median(found[found != NEVER]):,.0f}" if (found != NEVER).any() else "none"


if __name__ == "__main__":
    main()
