"""Sockets that several processes share."""

from __future__ import annotations

import os
import socket

from homeostat.domain.errors import Refused


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that other workers may share; port 0 takes a free one. Errors: `Refused` when somebody else has
    the port."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        why = os.strerror(error.errno or 0)
        raise Refused(f"can't listen on {host}:{port}: {why}", way_out="Choose another --port.") from None
    return bound
