"""Optuna's gRPC proxy in front of a database, for more workers than it has connections for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage, GrpcStorageProxy, run_grpc_proxy_server

from optuna_kd.storages.retries import quietly
from optuna_kd.storages.transient import persist

LOOPBACK = "127.0.0.1"
PORT = 13000


class PatientProxy(GrpcStorageProxy):
    """The client of a proxy, which waits for a proxy that is restarted.

    Args:
        host, port: Of the proxy.
        patience: Seconds for which it may be out of reach.
    """

    def __init__(self, host: str, port: int, *, patience: float) -> None:
        self._patience = patience
        super().__init__(host=host, port=port)


def serve(storage: BaseStorage, *, host: str = LOOPBACK, port: int = PORT) -> None:
    """Serve a storage to other machines, until the process ends; workers open it as `grpc://host:port`.

    It asks nobody for a password: whoever reaches the port can read and change every study. So it listens to this
    machine alone unless `host` says otherwise.
    """
    with quietly():
        run_grpc_proxy_server(storage, host=host, port=port)


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
