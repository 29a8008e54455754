"""Memory layout, latency, checksums and files of weights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optuna_kd.models import checksum, create_model, latency_ms, load_weights, memory_format


def small(num_classes: int = 10) -> Any:
    return create_model("resnet8x0.25", num_classes=num_classes, in_channels=1, input_size=8)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("resnet8x0.25", "cpu", torch.contiguous_format),
        ("resnet8x0.25", "cuda", torch.channels_last),
        ("resnet8x0.5", "cpu", torch.channels_last),  # its narrowest shortcut has 8 channels
        ("resnet20", "cpu", torch.channels_last),
        ("resnet20", "mps", torch.contiguous_format),
    ],
)
def test_layout_by_width_and_device(name: str, device: str, expected: torch.memory_format) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    assert memory_format(model, device) is expected


def test_layout_without_convolutions() -> None:
    assert memory_format(nn.Linear(2, 2), "cpu") is torch.contiguous_format


TRAIN = """
import torch
from torch.nn import functional as F
from optuna_kd.models import create_model, memory_format
torch.set_num_threads(1)
torch.manual_seed(0)
for name in ("resnet8x0.0625", "resnet8x0.25"):
    model = create_model(name, num_classes=10, in_channels=1, input_size=8)
    layout = memory_format(model, "cpu")
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(300):
        images = torch.randn(16, 1, 8, 8).contiguous(memory_format=layout)
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.randint(10, (16,))).backward()
        optimizer.step()
"""


def test_narrowest_students_train_without_corrupting_memory() -> None:
    # In a process of its own: on a CPU with the fault, the wrong layout aborts it.
    result = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_latency_restores_threads_and_modes() -> None:
    model, threads = small().train(), torch.get_num_threads()
    assert 0 < latency_ms(model, torch.zeros(4, 1, 8, 8), repeats=3) < 1000
    assert latency_ms(model, torch.zeros(1, 8, 8), repeats=1) > 0
    assert model.training
    assert torch.get_num_threads() == threads
    with pytest.raises(RuntimeError):
        latency_ms(model, torch.zeros(1, 3, 8, 8))
    assert model.training
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats"):
        latency_ms(model, torch.zeros(1, 1, 8, 8), repeats=0)


def test_checksum_depends_on_the_weights_alone() -> None:
    model = small()
    first = checksum(model)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert checksum(model.to(memory_format=torch.channels_last).eval()) == first
    assert checksum(nn.DataParallel(model)) == first
    assert checksum(small()) != first
    assert checksum(model.double()) != first
    model.float().bn1.running_mean[0] = 1.0
    assert checksum(model) != first


def test_checksum_of_known_weights() -> None:
    # sha256 of "bias:torch.float32:[1];" + bytes of 0.0 + "weight:torch.float32:[1, 1];" + bytes of 1.0.
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert checksum(layer) == "63d9509c089906fc"
    assert checksum(layer.bfloat16()) != "63d9509c089906fc"


@pytest.mark.parametrize(
    "pack",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"model": {f"_orig_mod.module.{name}": value for name, value in weights.items()}},
        lambda weights: {n: v for n, v in weights.items() if not n.endswith("num_batches_tracked")},
    ],
)
def test_weights_come_back(tmp_path: Path, pack: Any) -> None:
    source, target = small(), small()
    torch.save(pack(source.state_dict()), tmp_path / "weights.pt")
    load_weights(nn.DataParallel(target), tmp_path / "weights.pt")
    assert checksum(target) == checksum(source)


def test_a_submodule_called_module_keeps_its_name(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("module", nn.Linear(2, 2))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    load_weights(model, str(tmp_path / "weights.pt"))


def test_other_classes_are_reported_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = small(num_classes=10)
    before = checksum(model)
    torch.save(small(num_classes=100).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"fc\.weight: file \[100, 16\], model \[10, 16\]") as error:
        load_weights(model, tmp_path / "weights.pt")
    assert "Missing" not in str(error.value)
    assert checksum(model) == before


def test_another_network_is_reported_with_five_names_each(tmp_path: Path) -> None:
    torch.save(create_model("wrn_16_1", num_classes=10).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"Missing: .*and \d+ more\. Unexpected: .*and \d+ more\.") as error:
        load_weights(small(), tmp_path / "weights.pt")
    missing, unexpected = str(error.value).split("Missing: ")[1].split(" Unexpected: ")
    assert missing.count(";") == unexpected.split(" Different")[0].count(";") == 4


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran.txt"),))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "evil.pt")
    with pytest.raises(ValueError, match=r"only files with a plain state_dict.*torch\.save"):
        load_weights(small(), "evil.pt")
    assert not Path("ran.txt").exists()


def test_whole_models_and_other_files_are_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "model.pt")
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "empty.pt").touch()
    for name in ("model.pt", "text.pt", "empty.pt"):
        with pytest.raises(ValueError, match="only files with a plain state_dict"):
            load_weights(small(), tmp_path / name)
    for content, words in (({"epoch": 1}, "a dict with epoch"), ([1, 2], "list"), (torch.zeros(2), "Tensor")):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=f"holds .*{words}.*'state_dict' or 'model'"):
            load_weights(small(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no file of weights"):
        load_weights(small(), tmp_path / "none.pt")
