"""python -m bench.release [--quick] [--json]

Eight candidates, one after another, released by a real `homeostat up` under load (80 requests a second, Poisson, each
with its card as the key; the truth comes back a second later). Six are bad and should be stopped, each by its lane;
two should be promoted. Beside it what Flagger's and Argo's fixed thresholds and a judge like Kayenta's would have done
with the same callers. About four minutes; `--quick`: three candidates, a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

from bench.release.outcome import all_of
from bench.release.show import show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.release", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three candidates, a minute")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    given = parser.parse_args()
    logging.getLogger("homeostat").setLevel(logging.CRITICAL)  # the peers' candidates fail in this process
    with tempfile.TemporaryDirectory() as folder:
        outcomes = asyncio.run(all_of(Path(folder), given.quick, _tell))
    show(outcomes, sys.stderr if given.json else sys.stdout)
    if given.json:
        sys.stdout.write(json.dumps([one.json() for one in outcomes]) + "\n")
    return 0 if all(one.as_it_should and one.foretold for one in outcomes) else 1


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
