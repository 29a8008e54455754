"""A database that workers on other machines use through this one. Nothing here imports torch."""

from __future__ import annotations

from rich.console import Console

from optuna_kd.storages import LOOPBACK, create_storage, serve, show_storage


def run_serve(storage: str, host: str, port: int, console: Console) -> None:
    """Serve a storage to workers on other machines, as gRPC proxy, until it is stopped."""
    opened = create_storage(storage)

    def say_where() -> None:
        name = host if host != "0.0.0.0" else "THIS-HOST"
        console.print(f"Serving    {show_storage(storage)} as grpc://{name}:{port}", highlight=False, soft_wrap=True)
        if host in LOOPBACK:
            reach = "Reach      this machine alone; --host 0.0.0.0 lets others in, without a password"
        else:
            reach = "Reach      whoever reaches this port can read and change every study: there is no password"
        console.print(reach, highlight=False, soft_wrap=True)

    serve(opened, host=host, port=port, ready=say_where)
