"""What the tests need of the machine: without it they are skipped, aloud, unless HOMEOSTAT_REQUIRE_SERVICES=1."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """`what` says what is missing and how to get it."""
    if os.environ.get("HOMEOSTAT_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """Its path; Debian keeps servers off the PATH."""
    return (
        shutil.which(name) or shutil.which(name, path="/usr/sbin") or lacking(f"no {name}: apt-get install {package}")
    )
