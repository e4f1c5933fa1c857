"""Sockets, and who has their port."""

from __future__ import annotations

import os
import socket

from homeostat.domain.errors import Refused


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that other workers may share; port 0 takes a free one. Errors: `Refused` when somebody else has
    the port."""
    return _bound(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)


def alone(host: str, port: int) -> socket.socket:
    """A listening socket that is not shared. Errors: `Refused` when anybody has the port, other workers too."""
    return _bound(host, port, socket.SO_REUSEADDR, listens=True)


def hold(host: str, port: int) -> socket.socket:
    """A bound socket that never listens: it keeps the port for the workers of one data plane while they come and go.
    Errors: as `alone`."""
    alone(host, port).close()
    held = listen(host, port)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or `alone` would pass before a worker listens
    return held


def _bound(host: str, port: int, *options: int, listens: bool = False) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    for option in options:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        bound.bind((host, port))
        if listens:
            bound.listen()
    except OSError as error:
        bound.close()
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None
    return bound
