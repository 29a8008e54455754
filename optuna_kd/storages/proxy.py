"""Optuna's gRPC proxy in front of a database, for more workers than it has connections for."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage, run_grpc_proxy_server

from optuna_kd.storages.pulse import Pulsing
from optuna_kd.storages.retries import quietly
from optuna_kd.storages.transient import persist
from optuna_kd.storages.urls import StorageError, backend_of, show_storage

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT = 13000


class PatientProxy(Pulsing, GrpcStorageProxy):
    """The client of a proxy, which waits for a proxy that is restarted, and shows that its process is alive.

    Args:
        host, port: Of the proxy.
        patience: Seconds for which it may be out of reach.
    """

    def __init__(self, host: str, port: int, *, patience: float) -> None:
        self._patience = patience
        super().__init__(host=host, port=port)

    def record_heartbeat(self, trial_id: int) -> None:
        """Show that this process is alive; one sign that is missed because the proxy is away does no harm."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not _is_away(error):
                raise
            self.pulse.rush()


def serve(storage: BaseStorage, *, host: str = LOOPBACK[0], port: int = PORT) -> None:
    """Serve a database to other machines, until the process ends; workers open it as `grpc://host:port`.

    It asks nobody for a password: whoever reaches the port can read and change every study. So it listens to this
    machine alone unless `host` says otherwise.

    Raises:
        StorageError: Without grpcio (the extra `grpc`), and for a storage that is no database.
    """
    if importlib.util.find_spec("grpc") is None:
        raise StorageError('Serving a storage needs grpcio. Install it: pip install "optuna-kd[grpc]".')
    if not isinstance(backend_of(storage), RDBStorage):
        raise StorageError(f"Only a database can be served; got {show_storage(storage)}.")
    with quietly():
        run_grpc_proxy_server(get_storage(storage), host=host, port=port)


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

    return isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.UNAVAILABLE


for _name in sorted(BaseStorage.__abstractmethods__):
    setattr(PatientProxy, _name, _patient(_name))
