"""Listening sockets of the HTTP servers."""

from __future__ import annotations

import socket

BACKLOG = 128  # connections that are taken at once; each is a file of the process


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `OSError` where the address is in use or not of this machine."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # asyncio turns Nagle's algorithm off (a delay of 40 ms for small answers) only on a socket that names its protocol.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
