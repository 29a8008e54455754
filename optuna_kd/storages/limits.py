"""How long PostgreSQL may keep one waiting: a lost network and a machine that vanished say nothing by themselves."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy.engine import URL

LIBPQ = ("psycopg", "psycopg2", "psycopg2cffi")  # drivers that hand their arguments on to PostgreSQL's own library
CONNECT_SECONDS = 10
# A connection over which nothing comes any more ends within a minute; through a socket file these mean nothing.
NETWORK = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
# For a lock somebody waits a while, and then again (`persist`), with a word; who has one and says nothing loses it.
SESSION = {"lock_timeout": "30s", "idle_in_transaction_session_timeout": "60s"}

# Not as arguments of the connection: those of the user would get lost, poolers refuse them, and PGTZ beats them. What
# the user, the role or the database has limited stays. Heartbeats are stored without a zone, so all need the same.
PREPARATION = " UNION ALL ".join((
    *(
        f"SELECT set_config(name, '{value}', false) FROM pg_settings "
        f"WHERE name = '{name}' AND setting = '0' AND source <> 'client'"
        for name, value in SESSION.items()
    ),
    "SELECT set_config('TimeZone', 'UTC', false)",
))  # fmt: skip


def connect_arguments(url: URL) -> dict[str, Any]:
    """Give what the driver is told about waiting, as far as it takes that and the user has not said it.

    Args:
        url: Of the database; what its query says stays, and `PGCONNECT_TIMEOUT`.
    """
    if url.get_backend_name() != "postgresql" or url.get_driver_name() not in LIBPQ:
        return {}
    wanted = dict(NETWORK)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        wanted["connect_timeout"] = CONNECT_SECONDS
    return {name: value for name, value in wanted.items() if name not in url.query}
