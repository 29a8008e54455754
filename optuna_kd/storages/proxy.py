"""Optuna's gRPC proxy in front of a database, for more workers than it has connections for."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage, run_grpc_proxy_server

from optuna_kd.ports import try_port, why_not
from optuna_kd.storages.pulse import Pulsing
from optuna_kd.storages.retries import quietly
from optuna_kd.storages.transient import persist
from optuna_kd.storages.urls import LOOPBACK, StorageError, backend_of, show_storage

PORT = 13000
# Seconds for a call. The proxy itself waits five minutes for its database; a call that was made again before would be
# done twice then, and start two trials.
DEADLINE = 330.0


class PatientProxy(Pulsing, GrpcStorageProxy):
    """The client of a proxy, which waits for a proxy that is restarted, and shows that its process is alive.

    Args:
        host, port: Of the proxy.
        patience: Seconds for which it may be out of reach.
    """

    def __init__(self, host: str, port: int, *, patience: float) -> None:
        self._patience = patience
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        super()._setup()
        for name, call in list(vars(self._stub).items()):
            setattr(self._stub, name, functools.partial(call, timeout=DEADLINE))

    def record_heartbeat(self, trial_id: int) -> None:
        """Show that this process is alive; one sign that is missed because the proxy is away does no harm."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not _is_away(error):
                raise
            self.pulse.rush()


def serve(
    storage: BaseStorage,
    *,
    host: str = LOOPBACK[0],
    port: int = PORT,
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Serve a database to other machines, until the process ends; workers open it as `grpc://host:port`.

    It asks nobody for a password: whoever reaches the port can read and change every study. So it listens to this
    machine alone unless `host` says otherwise.

    Args:
        storage: The database.
        host: Address to listen on.
        port: Port to listen on.
        ready: Called, by another thread, as soon as somebody answers there.

    Raises:
        StorageError: Without grpcio (the extra `grpc`), for a storage that is no database, and for a port that cannot
            be had.
    """
    if importlib.util.find_spec("grpc") is None:
        raise StorageError('Serving a storage needs grpcio. Install it: pip install "optuna-kd[grpc]".')
    if not isinstance(backend_of(storage), RDBStorage):
        raise StorageError(f"Only a database can be served; got {show_storage(storage)}.")
    try:
        try_port(host, port)  # gRPC shares it with whoever listens there, and each would serve some of the workers
    except OSError as error:
        raise StorageError(why_not(error, host, port, "another proxy")) from None
    threading.Thread(target=_await, args=(host.strip("[]"), port, ready), daemon=True).start()
    with quietly():
        run_grpc_proxy_server(get_storage(storage), host=host, port=port)


def _await(host: str, port: int, ready: Callable[[], object]) -> None:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            break
        time.sleep(0.05)
    ready()


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(GrpcStorageProxy, name)

    @functools.wraps(method)
    def tried_again(self: PatientProxy, *args: Any, **options: Any) -> Any:
        return persist(
            lambda: method(self, *args, **options),
            patience=self._patience,
            name=f"grpc://{self._host}:{self._port}",
            is_transient=_is_away,
        )

    return tried_again


def _is_away(error: BaseException) -> bool:
    import grpc  # an extra

    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return isinstance(error, grpc.RpcError) and error.code() in away


for _name in sorted(BaseStorage.__abstractmethods__):
    setattr(PatientProxy, _name, _patient(_name))
