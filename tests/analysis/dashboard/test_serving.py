"""The dashboard as a server: where it listens, what it refuses, and figures that keep up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import made_up
import optuna
import pytest
from optuna.study import Study

from optuna_kd.analysis.dashboard.cards import CARDS
from optuna_kd.analysis.dashboard.refreshing import Refresher
from optuna_kd.analysis.dashboard.serving import Dashboard, DashboardError, serve_dashboard
from optuna_kd.objective import FunctionObjective
from optuna_kd.storages import StorageError, create_storage, open_to_read
from optuna_kd.study import create_study

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kd.db'}"


def search(url: str, name: str = "ours", trials: int = 2) -> Study:
    """A study of ours that was run by hand."""
    study = create_study(storage=url, study_name=name, seed=0, sampler="random", load_if_exists=True)
    study.optimize(FunctionObjective(lambda recipe, *, seed, report: 0.5), n_trials=trials)
    return study


def foreign(url: str) -> Study:
    study = optuna.create_study(storage=create_storage(url), study_name="foreign")
    study.add_trials([made_up.trial({"x": n / 9}, float(n)) for n in range(3)])
    return study


def cards(study: Study) -> set[str]:
    names = study._storage.get_study_system_attrs(study._study_id)
    return {name.split(":")[2] for name in names if name.startswith("dashboard:plot_data:")}


@contextmanager
def opened(dashboard: Dashboard) -> Iterator[Callable[[str], Any]]:
    """Let it answer, and ask it."""
    thread = threading.Thread(target=dashboard.run)
    thread.start()

    def ask(path: str) -> Any:
        with urllib.request.urlopen(dashboard.address + path) as answer:
            return json.loads(answer.read())

    try:
        yield ask
    finally:
        dashboard.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_study_that_was_run_by_hand_has_its_cards(url: str, tmp_path: Path) -> None:
    study, stranger = search(url), foreign(url)
    with opened(Dashboard(create_storage(url), artifacts=tmp_path / "artifacts", port=0)) as ask:
        until(lambda: cards(study))
        page = ask("/api/studies/1")
    order = [card["id"] for card in page["plotly_graph_objects"]]
    assert order == [card for card in CARDS.values() if card in order]
    assert len(order) > 2
    assert "**Best so far:** reward **0.5**" in page["note"]["body"]
    assert cards(stranger) == set()
    assert not (tmp_path / "artifacts").exists()  # nothing is made by looking


def test_the_order_of_cards_is_the_dashboards_own_again(url: str, tmp_path: Path) -> None:
    import optuna_dashboard._custom_plot_data as plots

    own = plots.list_graph_object_ids
    search(url)
    with opened(Dashboard(create_storage(url), artifacts=tmp_path, port=0)):
        until(lambda: plots.list_graph_object_ids is not own)
    assert plots.list_graph_object_ids is own


def test_a_foreign_study_is_refreshed_by_name(url: str, tmp_path: Path) -> None:
    stranger = foreign(url)
    with opened(Dashboard(create_storage(url), artifacts=tmp_path, port=0, refresh=["foreign"])):
        until(lambda: cards(stranger))
    with pytest.raises(DashboardError, match=r"no study 'foregin' in this storage; there are: foreign\."):
        Dashboard(create_storage(url), artifacts=tmp_path, port=0, refresh=["foregin"])


def test_figures_keep_up_and_companions_have_none(url: str) -> None:
    study = search(url)
    companion = optuna.create_study(storage=create_storage(url), study_name="ours/controls")
    companion.set_user_attr("optuna_kd", {})
    refresher = Refresher(optuna.storages.get_storage(create_storage(url)))
    refresher.look()
    assert "optuna_kd.history" in cards(study)
    assert cards(companion) == set()
    published = study._storage.get_study_system_attrs(study._study_id)["optuna_kd:published"]
    assert published == {"finished": 2, "whole": 2}
    for _, publisher in refresher._publishers.values():
        publisher._began -= 1e6  # as if it had been open for days
    search(url, trials=3)
    refresher.look()
    assert study._storage.get_study_system_attrs(study._study_id)["optuna_kd:published"]["finished"] == 5


def test_a_storage_that_is_read_only_is_shown_as_it_is(url: str, tmp_path: Path) -> None:
    search(url)
    said: list[str] = []
    with opened(Dashboard(open_to_read(url), artifacts=tmp_path, port=0, say=said.append)) as ask:
        until(lambda: said)
        assert ask("/api/studies/1")["name"] == "ours"
    assert len(said) == 1
    assert "readonly database" in said[0]


def test_a_storage_that_goes_away_is_said_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    storage = optuna.storages.get_storage(create_storage(url))

    def fail() -> None:
        raise OSError("away")

    monkeypatch.setattr(storage, "get_all_studies", fail)
    with Refresher(storage, say=said.append, period=0.01):
        until(lambda: said)
        time.sleep(0.1)
    assert said == ["The studies cannot be read: away."]


def test_a_port_that_is_taken_and_an_address_that_is_not_ours(url: str, tmp_path: Path) -> None:
    search(url)
    first = Dashboard(create_storage(url), artifacts=tmp_path, port=0)
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(DashboardError, match=rf"Port {port} of 127\.0\.0\.1 is taken.*--port {port + 1}, or --port 0"):
        Dashboard(create_storage(url), artifacts=tmp_path, port=port)
    with pytest.raises(DashboardError, match=r"Cannot listen on 192\.0\.2\.1, port 0: .*\(--host\)"):
        Dashboard(create_storage(url), artifacts=tmp_path, host="192.0.2.1", port=0)
    first._server.server_close()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_who_can_reach_it_is_said(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    search(url)
    said: list[str] = []

    def interrupt(self: Dashboard) -> None:
        self._server.server_close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Dashboard, "run", interrupt)
    serve_dashboard(url, artifacts=tmp_path / "none", host=host, port=0, say=said.append)
    assert said[0].startswith("Dashboard  http://127.0.0.1:")
    assert said[1] == f"Storage    {url}"
    assert said[2] == f"Artifacts  {tmp_path / 'none'}, where there are none yet"
    everybody = "everybody in the network can read and change every study" in said[3]
    assert everybody is (host == "0.0.0.0")
    assert said[-1] == "Stopped."


def test_what_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no file"):
        serve_dashboard(f"sqlite:///{tmp_path / 'none.db'}", artifacts=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(url: str, tmp_path: Path, how: signal.Signals) -> None:
    search(url)
    command = [sys.executable, "-m", "optuna_kd.cli", "dashboard", "--storage", url, "--port", "0"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        # A shell starts what runs in the background, these tests perhaps, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert running.stdout is not None
        address = running.stdout.readline().split()[1]
        while "Ctrl-C" not in running.stdout.readline():
            pass
        with urllib.request.urlopen(f"{address}/dashboard/") as answer:
            assert b"Optuna Dashboard" in answer.read()
        running.send_signal(how)
        out, errors = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert (running.returncode, errors) == (0, "")
    assert out.endswith("Stopped.\n")
