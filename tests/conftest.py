"""Real services for the tests. Without one its tests are skipped, aloud; HOMEOSTAT_REQUIRE_SERVICES=1 forbids that."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from needs import lacking

# No test asserts a time: machines differ.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, on a server of this session's own.

    The server listens on a socket in its own folder only: no port can be taken, no other server be met by mistake.
    """
    binaries = _postgres_binaries()
    home = Path(tempfile.mkdtemp(prefix="homeostat-pg-", dir="/tmp"))  # a socket's path holds 107 bytes at most
    try:
        _give_away(home)
        _as_server(binaries / "initdb", "--pgdata", home / "data", "--username", "homeostat", "--auth", "trust")
        _start(binaries / "pg_ctl", home)
        try:
            yield f"postgresql+psycopg://homeostat@/postgres?host={home}"
        finally:
            _as_server(binaries / "pg_ctl", "stop", "--pgdata", home / "data", "--mode", "immediate", "--wait")
    finally:
        shutil.rmtree(home)


def _postgres_binaries() -> Path:
    """The newest installed server's; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb") or lacking("PostgreSQL is not installed: apt-get install postgresql")
    return Path(on_path).resolve().parent


def _start(pg_ctl: Path, home: Path) -> None:
    options = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c fsync=off"
    log = home / "server.log"
    _as_server(pg_ctl, "start", "--pgdata", home / "data", "--log", log, "--wait", "--options", options)


def _give_away(home: Path) -> None:
    """PostgreSQL refuses to run as root: then the folder and the server belong to the user `postgres`."""
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")


def _as_server(*command: str | Path) -> None:
    """Run it as the server's user, in a folder that this user may enter. Its output goes to a file, not to a pipe:
    the server would hold the pipe open."""
    prefix: Sequence[str] = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run([*prefix, *map(str, command)], stdout=output, stderr=output, cwd="/", check=False)
        output.seek(0)
        assert done.returncode == 0, output.read()
