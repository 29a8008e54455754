"""Optuna's gRPC proxy as a URL, and the command that starts one."""

from __future__ import annotations

import importlib.util
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from proxy_server import free_port, start_proxy

from optuna_kd.storages import StorageError, claim_trial, create_storage, opening, retire_lost_trials, serve
from optuna_kd.storages import proxy as proxy_module
from optuna_kd.study import create_study, optimize, space_of

pytestmark = pytest.mark.usefixtures("quiet_optuna")
pytest.importorskip("grpc", reason="grpcio is not installed")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    """The URL of a proxy before a SQLite file."""
    port = free_port()
    server = start_proxy(f"sqlite:///{tmp_path / 'kd.db'}", port)
    try:
        create_storage(f"grpc://127.0.0.1:{port}", patience=60)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


def test_a_study_through_a_proxy(proxy: str) -> None:
    study = create_study(storage=proxy, study_name="s", seed=0, sampler="random")
    optimize(study, lambda trial: len(str(space_of(trial.study).suggest(trial))), total_trials=5)
    again = create_study(storage=proxy, study_name="s", seed=0, sampler="random", load_if_exists=True)
    assert [trial.state for trial in again.trials] == [TrialState.COMPLETE] * 5
    memory = create_study(storage=None, seed=0, sampler="random")
    optimize(memory, lambda trial: len(str(space_of(trial.study).suggest(trial))), total_trials=5)
    assert [trial.params for trial in again.trials] == [trial.params for trial in memory.trials]


def test_a_trial_whose_process_is_gone_is_missed_without_a_heartbeat(proxy: str) -> None:
    study = create_study(storage=proxy, study_name="s", seed=0)
    code = (
        "import os, sys, optuna; from optuna_kd.storages import claim_trial, create_storage; "
        "claim_trial(optuna.load_study(study_name='s', storage=create_storage(sys.argv[1])), 5); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, proxy], timeout=60, check=False)
    assert retire_lost_trials(study) == 1
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_proxy_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    port, database = free_port(), f"sqlite:///{tmp_path / 'kd.db'}"
    server = start_proxy(database, port)
    study = optuna.create_study(storage=create_storage(f"grpc://127.0.0.1:{port}", patience=60))
    trial = claim_trial(study, 1)
    assert trial is not None
    server.kill()
    server.communicate()
    server = start_proxy(database, port)
    try:
        study.tell(trial, 1.0)  # before it listens
        assert study.best_value == 1.0
    finally:
        server.kill()
        server.communicate()


def test_it_listens_to_this_machine_alone_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    server = start_proxy(f"sqlite:///{tmp_path / 'kd.db'}", port)
    try:
        create_storage(f"grpc://127.0.0.1:{port}", patience=60)
        addresses = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        listening = re.findall(rf"\s([0-9A-F]+):{port:04X}\s[0-9A-F]+:0000\s0A\s", addresses)
        assert listening in (["0100007F"], ["0000000000000000FFFF00000100007F"])  # 127.0.0.1, also as IPv6
        assert server.stdout is not None
        said = [next(line for line in server.stdout if line.startswith(word)) for word in ("Serving", "Reach")]
    finally:
        server.kill()
        server.communicate()
    assert f"as grpc://127.0.0.1:{port}" in said[0]
    assert "this machine alone" in said[1]


def test_a_port_has_one_proxy(proxy: str, tmp_path: Path) -> None:
    port = int(proxy.rpartition(":")[2])
    second = start_proxy(f"sqlite:///{tmp_path / 'other.db'}", port)
    try:
        said, _ = second.communicate(timeout=60)
    finally:
        second.kill()
    assert second.returncode == 2
    (line,) = said.splitlines()  # not that it serves
    assert (
        line
        == f"Error: Port {port} of 127.0.0.1 is taken, perhaps by another proxy. Choose another one: --port {port + 1}."
    )
    with pytest.raises(StorageError, match=rf"Port {port} of 0\.0\.0\.0 is taken"):
        serve(create_storage(f"sqlite:///{tmp_path / 'other.db'}"), host="0.0.0.0", port=port)


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Cannot listen on 192\.0\.2\.1, port 13000: .*\(--host\)"):
        serve(create_storage(f"sqlite:///{tmp_path / 'kd.db'}"), host="192.0.2.1")


def test_a_proxy_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "DEADLINE", 1.0)
    monkeypatch.setattr(opening, "PATIENCE", 2.0)
    port = free_port()
    server = start_proxy(f"sqlite:///{tmp_path / 'kd.db'}", port)
    try:
        storage = create_storage(f"grpc://127.0.0.1:{port}", patience=60)
        assert storage.get_all_studies() == []
        server.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(Exception, match=r"DEADLINE_EXCEEDED|UNAVAILABLE"):
            storage.get_all_studies()
        assert time.monotonic() - started < 20
        server.send_signal(signal.SIGCONT)
        assert storage.get_all_studies() == []
    finally:
        server.kill()
        server.communicate()


def test_what_a_proxy_lacks_is_said_once(proxy: str, caplog: pytest.LogCaptureFixture) -> None:
    opening._tell_of_proxy.cache_clear()
    with caplog.at_level(logging.INFO, logger="optuna_kd"):
        create_storage(proxy)
        create_storage(proxy)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "optuna_kd.storages.opening"]
    assert said.startswith(f"{proxy} is a proxy: it passes on no heartbeats")


def test_nobody_there() -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"grpc://127\.0\.0\.1:9: nobody answers there\. Start the proxy first"):
        create_storage("grpc://127.0.0.1:9", patience=1)
    assert time.monotonic() - started < 10
    with pytest.raises(StorageError, match="write host and port"):
        create_storage("grpc://localhost")


def test_only_databases_are_served() -> None:
    with pytest.raises(StorageError, match="Only a database can be served; got in memory"):
        serve(InMemoryStorage())


def test_without_grpcio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r'pip install "optuna-kd\[grpc\]"'):
        create_storage("grpc://localhost:13000")
    with pytest.raises(StorageError, match=r'pip install "optuna-kd\[grpc\]"'):
        serve(create_storage("sqlite://"))


def test_workers_behind_a_proxy_and_before_it_share_a_total(tmp_path: Path) -> None:
    port, database = free_port(), f"sqlite:///{tmp_path / 'kd.db'}"
    server = start_proxy(database, port)
    try:
        behind = optuna.create_study(study_name="s", storage=create_storage(f"grpc://127.0.0.1:{port}", patience=60))
        before = optuna.load_study(study_name="s", storage=create_storage(database))
        assert claim_trial(behind, 2) is not None
        assert claim_trial(before, 2) is not None
        assert claim_trial(before, 2) is None
        assert claim_trial(behind, 2) is None
    finally:
        server.kill()
        server.communicate()
