"""The engine "ray": what it refuses, what a worker gets, and how it treats the machine that it runs on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from optuna_kd.registry import UnknownNameError
from optuna_kd.runner import ray_cluster, ray_engine
from optuna_kd.runner.engines import ENGINES, LocalEngine
from optuna_kd.runner.ray_cluster import address_of, connected
from optuna_kd.runner.ray_engine import RayEngine, part_of
from optuna_kd.storages import this_process

POSTGRES = "postgresql+psycopg://user:secret@db.example/kd"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is installed, and there is no cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_engine, "require_ray", lambda: None)


def test_engines_by_name() -> None:
    assert list(ENGINES) == ["local", "ray"]
    assert ENGINES["ray"]() == RayEngine()
    with pytest.raises(UnknownNameError, match="Did you mean 'ray'"):
        ENGINES["rya"]


def test_without_ray_there_is_one_line_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "require_ray", ray_cluster.require_ray)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs Ray\. Install it: pip install "optuna-kd\[ray\]"'):
        RayEngine().check(POSTGRES, 2)


@pytest.mark.parametrize("address", ["head.example:6379", "10.0.0.7:6379", "auto", "ray://head.example:10001"])
@pytest.mark.parametrize(
    "storage",
    [
        "sqlite:///kd.db", "journal:///kd.log", "grpc://localhost:13000", "grpc://127.0.0.1:13000",
        "postgresql+psycopg://user:secret@localhost/kd", "postgresql+psycopg://user:secret@/kd?host=/var/run",
        "postgresql+psycopg:///kd",
    ],
)  # fmt: skip
def test_a_storage_of_this_machine_alone_is_refused_for_a_cluster(address: str, storage: str) -> None:
    with pytest.raises(ValueError, match=r"may be on others: use PostgreSQL or MySQL.*grpc://") as refused:
        RayEngine(address).check(storage, 2)
    assert address in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", [None, "local", "127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_a_storage_of_this_machine_will_do_for_workers_of_this_machine(address: str | None) -> None:
    RayEngine(address).check("sqlite:///kd.db", 2)


@pytest.mark.parametrize("storage", [POSTGRES, "mysql+pymysql://user@db.example/kd", "grpc://db.example:13000"])
def test_what_other_machines_can_open(storage: str) -> None:
    RayEngine("head.example:6379").check(storage, 100)


def test_the_address_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    assert address_of(None) == "head.example:6379"
    assert address_of("other.example:6379") == "other.example:6379"
    assert address_of("local") is None
    with pytest.raises(ValueError, match=r"Ray at head\.example:6379"):
        RayEngine().check("sqlite:///kd.db", 2)


@pytest.mark.parametrize("storage", [None, "sqlite:///:memory:"])
def test_one_worker_on_ray_is_another_process_too(storage: str | None) -> None:
    with pytest.raises(ValueError, match="need a storage with a URL"):
        RayEngine().check(storage, 1)
    LocalEngine().check(storage, 1)
    with pytest.raises(ValueError, match=r"2 workers need a storage with a URL.*workers=1"):
        LocalEngine().check(storage, 2)


def test_a_url_that_cannot_be_read_is_left_to_those_who_open_it() -> None:
    RayEngine("head.example:6379").check("no url", 2)
    LocalEngine().check("no url", 2)


def test_the_gpu_is_not_the_users_to_choose() -> None:
    RayEngine().check(POSTGRES, 2, "cuda")
    with pytest.raises(ValueError, match="use --device cuda instead of cuda:1"):
        RayEngine().check(POSTGRES, 2, "cuda:1")
    with pytest.raises(ValueError, match="Workers without a GPU"):
        RayEngine(gpus_per_worker=0).check(POSTGRES, 2, "cuda")


@pytest.mark.parametrize("cpus", [0, -1.0, float("nan")])
def test_processors_are_more_than_none(cpus: float) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        RayEngine(cpus_per_worker=cpus)


@pytest.mark.parametrize("gpus", [-0.5, 1.5, float("nan")])
def test_gpus_are_a_part_of_one_or_whole(gpus: float) -> None:
    with pytest.raises(ValueError, match=r"0\.25 say, or a whole number"):
        RayEngine(gpus_per_worker=gpus)


def test_what_a_worker_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "share_of_cores", lambda workers: 8 // workers)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def got(engine: RayEngine, device: str) -> tuple[float, float, int, str | None]:
        share = engine.share(device, 4)
        return share.cpus, share.gpus, share.threads, share.device

    there = "head.example:6379"
    assert got(RayEngine(), "cpu") == (1.0, 0.0, 2, None)
    assert got(RayEngine(), "cuda") == (1.0, 0.5, 2, None)
    assert got(RayEngine(there), "cuda") == (1.0, 1.0, 1, None)
    assert got(RayEngine(there, 4.0, 0.25), "cuda") == (4.0, 0.25, 4, None)
    assert got(RayEngine(there, 0.5), "cpu") == (0.5, 0.0, 1, None)
    assert got(RayEngine(there, gpus_per_worker=0.25), "cpu") == (1.0, 0.25, 1, "cuda")  # from a machine without


@pytest.mark.parametrize(
    ("gpus", "workers", "part"),
    [(1, 1, 1.0), (1, 4, 0.25), (2, 3, 0.5), (1, 3, 0.3333), (4, 2, 1.0), (8, 17, 0.3333), (0, 4, 0.25)],
)
def test_workers_fit_on_gpus_that_cannot_be_put_together(gpus: int, workers: int, part: float) -> None:
    assert part_of(gpus, workers) == part
    assert gpus * int(1 / part) >= workers or not gpus


class SmallRay(ModuleType):
    """What `connected` uses of Ray."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.options: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.error: Exception | None = None
        self.is_open = False
        self.machines = 1
        self.switch: object = None

    def is_initialized(self) -> bool:
        return self.is_open

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}, {"Alive": False}, {"Alive": self.machines > 1}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="10.0.0.7:6379")

    def init(self, **options: Any) -> None:
        self.options, self.environment = options, dict(os.environ)
        self.switch = sys.modules["ray._private"].ray_constants.ENABLE_RAY_CLUSTER
        os.environ["RAY_AUTH_MODE"] = "token"  # as it does
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.error is not None:
            raise self.error
        self.is_open = True

    def shutdown(self) -> None:
        self.is_open = False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallRay]:
    small, private = SmallRay(), ModuleType("ray._private")
    private.ray_constants = ModuleType("ray._private.ray_constants")  # type: ignore[attr-defined]
    private.ray_constants.ENABLE_RAY_CLUSTER = True  # type: ignore[attr-defined]
    for module in (small, private, private.ray_constants):  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ray_cluster, "SHORT", str(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    yield small
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_ray_of_this_machine_alone(ray: SmallRay, tmp_path: Path) -> None:
    before = dict(os.environ)
    with connected(None, 1.5) as given:
        assert given is ray
        assert dict(os.environ) == before
        assert ray.options["address"] == "local"
        assert ray.options["num_cpus"] == 2
        assert (ray.options["include_dashboard"], ray.options["log_to_driver"]) == (False, False)
        assert ray.environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert ray.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"  # so that it listens on loopback
        assert ray.switch is False
        assert len(ray.environment["RAY_AUTH_TOKEN"]) == 64
        folder = Path(ray.options["_temp_dir"])
        assert folder.parent == tmp_path
        assert folder.is_dir()
    assert not ray.is_open
    assert list(tmp_path.iterdir()) == []
    assert sys.modules["ray._private"].ray_constants.ENABLE_RAY_CLUSTER is True


def test_a_cluster_that_is_there(ray: SmallRay, tmp_path: Path) -> None:
    with connected("head.example:6379", 1.5):
        assert ray.options["address"] == "head.example:6379"
        assert not {"num_cpus", "_temp_dir", "include_dashboard"} & set(ray.options)
        assert "RAY_AUTH_TOKEN" not in ray.environment
        assert ray.switch is True
    assert list(tmp_path.iterdir()) == []


def test_a_connection_of_the_program_stays(ray: SmallRay) -> None:
    ray.is_open = True
    with connected(None, 1.0):
        pass
    assert ray.is_open
    assert ray.options == {}
    RayEngine().check("sqlite:///kd.db", 2)
    ray.machines = 2
    with pytest.raises(ValueError, match=r"Ray at 10\.0\.0\.7:6379 may be on others"):
        RayEngine().check("sqlite:///kd.db", 2)


def test_a_cluster_that_is_not_there(ray: SmallRay, tmp_path: Path) -> None:
    ray.error = ConnectionError("Could not connect.\nAnd a page of advice.")
    with (
        pytest.raises(ValueError, match=r"There is no Ray at 'head:6379': Could not connect\.$"),
        connected("head:6379", 1),
    ):
        pass
    with pytest.raises(ValueError, match="There is no Ray on this machine: Could not"), connected(None, 1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_of_runs_that_were_killed_go(ray: SmallRay, tmp_path: Path) -> None:
    for name, owner in {"dead": this_process().rpartition("/")[0] + "/1", "alive": this_process()}.items():
        (tmp_path / f"optuna_kd-ray-{name}").mkdir()
        (tmp_path / f"optuna_kd-ray-{name}" / "owner").write_text(owner)
    (tmp_path / "optuna_kd-ray-unknown").mkdir()
    with connected(None, 1):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    expected = {"optuna_kd-ray-alive", "optuna_kd-ray-unknown"}
    assert left == expected | (set() if Path("/proc/self/stat").exists() else {"optuna_kd-ray-dead"})


def test_signals_are_left_alone_outside_the_main_thread(ray: SmallRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    errors: list[BaseException] = []

    def connect() -> None:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(connected(None, 1))
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert errors == []
