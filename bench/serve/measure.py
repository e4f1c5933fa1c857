"""One server under wrk: throughput, latency, what its processes use, and how long it took to start."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATIENCE_S = 120
_LUA = 'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [==[%s]==]\n'


@dataclass(frozen=True)
class Server:
    """In `command` and `env`, {port} becomes the port, {other} and {third} further free ones, {workers} the number of
    workers. `more`: what the command needs besides for several workers. `read` takes the score out of an answer; None:
    there is none."""

    key: str
    command: Sequence[str]
    path: str
    body: str
    read: Callable[[Any], float] | None
    env: Mapping[str, str] = field(default_factory=dict)
    more: Sequence[str] = ()


@dataclass(frozen=True)
class Measured:
    """Good answers a second; percentiles of the latency; CPU time a request, and resident and proportional memory, of
    all its processes; from the start of the process to its first answer."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rss_mb: float
    pss_mb: float
    start_s: float
    errors: int


class Unable(Exception):
    """Why a server can't be measured."""


class Running:
    """A started server that has given its first, right answer."""

    def __init__(self, server: Server, pid: int, port: int, start_s: float, script: Path, alone: bool) -> None:
        self._server, self._pid, self._port, self._start_s = server, pid, port, start_s
        self._script, self._alone = script, alone

    def load(self, connections: int, seconds: float) -> Measured:
        """wrk on the second core; on both when the server has two workers."""
        before = sum(map(_cpu_s, tree(self._pid)))
        said = self._wrk(connections, seconds)
        after = tree(self._pid)
        spent = sum(map(_cpu_s, after)) - before
        count, rps = int(_found(r"(\d+) requests in", said)), float(_found(r"Requests/sec:\s+([\d.]+)", said))
        refused = sum(map(int, re.findall(r"responses: (\d+)", said)))
        if count == refused:
            raise Unable("it gave no good answer under load")
        errors = refused + sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
        rps *= 1 - refused / count
        rss, pss = (sum(_memory_mb(pid, name) for pid in after) for name in ("Rss", "Pss"))
        return Measured(rps, _ms(said, "50%"), _ms(said, "99%"), 1e6 * spent / count, rss, pss, self._start_s, errors)

    def _wrk(self, connections: int, seconds: float) -> str:
        address = f"http://127.0.0.1:{self._port}{self._server.path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
        command = on_core(1 if self._alone else None, [*command, "-s", str(self._script), address])
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def running(server: Server, workers: int, expected: float, folder: Path) -> Iterator[Running]:
    """One worker has the first core, more have all. Errors: `Unable`."""
    port, other, third = _free_ports()
    fill = {"port": port, "other": other, "third": third, "workers": workers}
    parts = [*server.command, *(server.more if workers > 1 else ())]
    command = on_core(0 if workers == 1 else None, [part.format_map(fill) for part in parts])
    env = os.environ | {"OMP_NUM_THREADS": "1"} | {name: text.format_map(fill) for name, text in server.env.items()}
    said, script = folder / f"{server.key}.out", folder / f"{server.key}.lua"
    script.write_text(_LUA % server.body)
    begun = time.monotonic()
    with said.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            answer = _first_answer(process, server, port, said)
            start_s = time.monotonic() - begun
            _agree(server, answer, expected)
            one = Running(server, process.pid, port, start_s, script, workers == 1)
            one.load(64, 1)  # warm
            yield one
        finally:
            _end(process)


def on_core(core: int | None, command: Sequence[str]) -> list[str]:
    pinned = core is not None and (os.cpu_count() or 1) > 1 and shutil.which("taskset") is not None
    return ["taskset", "-c", str(core), *command] if pinned else list(command)


def tree(pid: int) -> list[int]:
    """The process and all that stem from it, now."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields and fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(path.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """From the third field on; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _memory_mb(pid: int, name: str) -> float:
    try:
        return int(_found(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())) / 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _first_answer(process: subprocess.Popen[bytes], server: Server, port: int, said: Path) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", server.body.encode(), {"content-type": "application/json"}
    )
    end, reason = time.monotonic() + _PATIENCE_S, "no answer"
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:  # up, and not yet ready; or asked in the wrong way
            reason = f"{error.code} {error.read()[:200]!r}"
        except OSError:
            pass
        time.sleep(0.02)
    if process.poll() is None:
        raise Unable(f"no good answer within {_PATIENCE_S} s: {reason}")
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip(" │─╭╮╰╯")]
    raise Unable(f"it ended at once: {' / '.join(line.strip(' │') for line in lines[-2:])}")


def _agree(server: Server, answer: bytes, expected: float) -> None:
    if server.read is None:
        return
    score = server.read(json.loads(answer))
    if abs(score - expected) > 1e-5:
        raise Unable(f"it answers {score}, the model {expected}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """All of its processes: some peers leave theirs behind."""
    pids = tree(process.pid)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
    for pid in pids[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise Unable(f"nothing like {pattern} in: {text[-200:]}")
    return match[1]


def _ms(said: str, percentile: str) -> float:
    value = _found(rf"{percentile}\s+([\d.]+[mu]?s)", said)
    unit = value.lstrip("0123456789.")
    return float(value.removesuffix(unit)) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
