"""A gRPC proxy in a process of its own, as `optuna-kd serve` starts it."""

from __future__ import annotations

import socket
import subprocess
import sys


def free_port() -> int:
    """Give a port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_proxy(database: str, port: int) -> subprocess.Popen[str]:
    """Serve a database; whoever starts it kills it."""
    command = [sys.executable, "-m", "optuna_kd.cli", "serve", "--storage", database, "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
