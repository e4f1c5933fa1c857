"""Runs inside a peer's own environment: PRODUCT REFERENCE.parquet CURRENT.parquet → seconds, as JSON."""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # it would tell its makers
os.environ["DO_NOT_TRACK"] = "1"


def evidently(reference: object, current: object) -> None:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    Report([DataDriftPreset()]).run(current, reference)


def nannyml(reference: object, current: object) -> None:
    from nannyml import UnivariateDriftCalculator

    names = list(reference.columns)
    size = len(reference) // 10
    made = UnivariateDriftCalculator(column_names=names, chunk_size=size, continuous_methods=["kolmogorov_smirnov"])
    made.fit(reference).calculate(current)


def main() -> None:
    import pandas

    product, reference, current = sys.argv[1:]
    old, new = pandas.read_parquet(reference), pandas.read_parquet(current)
    work = {"evidently": evidently, "nannyml": nannyml}[product]
    started, cpu = time.perf_counter(), time.process_time()
    work(old, new)
    found = {"wall_s": round(time.perf_counter() - started, 2), "cpu_s": round(time.process_time() - cpu, 2)}
    sys.stdout.write(json.dumps(found))


main()
