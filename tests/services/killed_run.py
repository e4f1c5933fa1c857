"""One run of the project in a folder, for a test that kills it: python killed_run.py FOLDER."""

from __future__ import annotations

import sys

import homeostat

if __name__ == "__main__":
    homeostat.load(sys.argv[1]).run()
