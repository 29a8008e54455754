"""Ports to listen on: whether one is free, and what is said where it is not."""

from __future__ import annotations

import errno
import os
import socket


def try_port(host: str, port: int) -> None:
    """Take a port, alone, and give it back: a server that shares its port with others would not notice that it does.

    Raises:
        OSError: If it cannot be had.
    """
    name = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
        if os.name == "posix":  # elsewhere this option shares the port; here it forgets connections that are over
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((name, port))


def why_not(error: OSError, host: str, port: int, other: str, choice: str = "") -> str:
    """Say why a port cannot be had, and what to do.

    Args:
        error: What came of trying.
        host: Where.
        port: Likewise.
        other: Who may have it.
        choice: What else may be done than to take another port.
    """
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken, perhaps by {other}. Choose another one: --port {port + 1}{choice}."
    return (
        f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose an address of this machine "
        "(--host) and a port above 1023 (--port)."
    )
