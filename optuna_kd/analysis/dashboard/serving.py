"""Stock optuna-dashboard on a storage, with the artifacts of its searches and figures that are up to date."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
import optuna_dashboard
from optuna.storages import BaseStorage

from optuna_kd.analysis.dashboard._compat import cards_in_order
from optuna_kd.analysis.dashboard.artifacts import ArtifactFolder
from optuna_kd.analysis.dashboard.cards import CARDS
from optuna_kd.analysis.dashboard.refreshing import Refresher
from optuna_kd.cards import printable
from optuna_kd.ports import why_not
from optuna_kd.storages import LOOPBACK, StorageError, create_storage, open_to_read, show_storage

PORT = 8080


class DashboardError(ValueError):
    """The dashboard cannot be opened; the message says what to do."""


class Dashboard:
    """The dashboard of a storage, which listens as soon as it is made.

    Args:
        storage: What it shows; figures of studies of ours are published while it is open.
        artifacts: Folder of artifacts; it need not be there yet.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        refresh: Names of studies that optuna_kd did not make and whose figures are published as well.
        say: Told what happens.

    Raises:
        DashboardError: If the address cannot be had, and for a study to refresh that is not there.
    """

    def __init__(
        self,
        storage: BaseStorage,
        *,
        artifacts: str | Path,
        host: str = LOOPBACK[0],
        port: int = PORT,
        refresh: Sequence[str] = (),
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        # With Optuna's cache: without it, the dashboard reads every trial again every few seconds.
        cached = optuna.storages.get_storage(storage)
        known = optuna.get_all_study_names(cached) if refresh else ()
        if missing := [name for name in refresh if name not in known]:
            names = printable(", ".join(name for name in known if "/" not in name)) or "none"
            raise DashboardError(f"There is no study {missing[0]!r} in this storage; there are: {names}.")
        self._order = {card: place for place, card in enumerate(CARDS.values())}
        self._refresher = Refresher(cached, refresh, say)
        self._server = _listen(host, port)
        self._server.set_app(optuna_dashboard.wsgi(cached, artifact_store=ArtifactFolder(artifacts)))

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        host, port = self._server.server_name, self._server.server_port
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{name}:{port}"

    def run(self) -> None:
        """Answer until `stop` is called, or Ctrl-C is pressed."""
        try:
            with cards_in_order(self._order), self._refresher:
                self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End `run`, which another thread is in."""
        self._server.shutdown()


def serve_dashboard(
    storage: str,
    *,
    artifacts: str | Path,
    host: str = LOOPBACK[0],
    port: int = PORT,
    refresh: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> None:
    """Open the dashboard on a storage, say where it is, and answer until Ctrl-C.

    Args:
        storage: A URL; the storage has to be there. One that is read-only is shown as it is.
        artifacts: Folder of artifacts.
        host: Address to listen on; it asks nobody for a password, so this machine alone is the default.
        port: Port to listen on; 0 takes a free one.
        refresh: Studies that optuna_kd did not make and whose figures are published as well.
        say: Told, line by line, where it is and what happens.

    Raises:
        StorageError: If there is no such storage, or it cannot be read.
        DashboardError: If the port is taken, or there is no study of a name.
    """
    readable = open_to_read(storage)  # nothing is created by looking
    try:
        opened = create_storage(storage)
    except StorageError as error:
        opened = readable
        say(f"Read-only  {error} It is shown as it is: no new figures, no notes")
    dashboard = Dashboard(opened, artifacts=artifacts, host=host, port=port, refresh=refresh, say=say)
    say(f"Dashboard  {dashboard.address}")
    say(f"Storage    {show_storage(storage)}")
    say(f"Artifacts  {artifacts}{'' if Path(artifacts).is_dir() else ', where there are none yet'}")
    if host in LOOPBACK:
        say("Reach      this machine alone; --host 0.0.0.0 lets others in, without a password")
    else:
        say("Reach      everybody in the network can read and change every study: there is no password")
    say("Stop it with Ctrl-C.")
    try:
        dashboard.run()
    except KeyboardInterrupt:
        say("Stopped.")


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64  # a page asks for several things at once

    def server_bind(self) -> None:
        """As `HTTPServer` does, without asking for the name of the host: where no name server answers, that hangs."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: whoever asked has gone, or got an answer that says what failed."""


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every request."""


def _listen(host: str, port: int) -> _Server:
    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Server((host, port), _QuietHandler)
    except OSError as error:
        reason = why_not(error, host, port, "another dashboard", ", or --port 0 for one that is free")
        raise DashboardError(reason) from None


__all__ = ["PORT", "Dashboard", "DashboardError", "serve_dashboard"]
