"""Where images live: on the device that trains, as they are, once."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import TensorDataset

from optuna_kd.data import ImageSet, Normalizer, StreamingSet, create_augmentation, make_resident, residence


def make_set(n: int = 12) -> ImageSet:
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(n) % 3, ("a", "b", "c"))


def test_on_the_cpu_nothing_is_copied() -> None:
    data = make_set()
    assert make_resident(data, "cpu") is data
    assert data.to("cpu") is data


def test_images_move_and_labels_and_checksum_stay() -> None:
    data = make_set()
    checksum = data.checksum
    moved = data.to("meta")  # has no pixels, so that whoever reads some fails
    assert moved.images.device.type == "meta"
    assert moved.images.dtype == torch.uint8
    assert moved.labels is data.labels
    assert moved.class_names == ("a", "b", "c")
    assert moved.checksum == checksum
    images, labels = moved.batch([4, 2])
    assert images.device.type == "meta"
    assert labels.tolist() == [1, 2]
    assert moved.subset([4, 2]).images.device.type == "meta"


@pytest.mark.parametrize("name", ["none", "shift", "crop-flip", "crop-flip-cutout"])
@pytest.mark.parametrize("normalizer", [Normalizer((0.5,) * 3, (0.2,) * 3), Normalizer.identity()])
def test_a_batch_is_made_on_the_device_of_the_images(name: str, normalizer: Normalizer) -> None:
    augmentation = create_augmentation(name, (3, 32, 32))
    # Fake tensors check the device of every operation, as the real one would.
    with FakeTensorMode():
        images = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device="cuda")
        table = torch.zeros(8, len(augmentation.columns), dtype=torch.int64)
        views = augmentation.hide(normalizer(augmentation.apply(images, table)), table)
        assert views.device.type == "cuda"
        assert views.dtype == torch.float32
        assert views.shape == images.shape


def test_images_that_would_fill_the_device_stay_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_set()
    monkeypatch.setattr(residence, "_room", lambda device: 2 * data.images.nbytes)
    assert make_resident(data, "cuda") is data
    assert "stay in main memory, and each batch is copied" in caplog.text


def test_a_device_without_room_after_all_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: ImageSet, device: torch.device) -> ImageSet:
        raise torch.OutOfMemoryError("others use it, too")

    monkeypatch.setattr(residence, "_room", lambda device: None)
    monkeypatch.setattr(ImageSet, "to", full)
    data = make_set()
    assert make_resident(data, "cuda") is data
    assert "cuda has no room" in caplog.text


def test_what_is_streamed_stays_what_it_is() -> None:
    streaming = StreamingSet(TensorDataset(torch.zeros(3, 1, 4, 4), torch.arange(3)), torch.arange(3))
    assert make_resident(streaming, "cuda") is streaming


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_pixels_of_the_cpu() -> None:
    here = make_set()
    there = make_resident(here, "cuda")
    assert isinstance(there, ImageSet)
    index = [3, 0, 11, 3]
    augmentation = create_augmentation("crop-flip-cutout", (3, 32, 32))
    table = augmentation.draw(12, seed=1)[index]
    normalizer = Normalizer.fit(there.images)
    assert normalizer == Normalizer.fit(here.images)
    views = []
    for data in (here, there):
        images, labels = data.batch(index)
        cropped = augmentation.apply(images, table)
        assert cropped.device == data.images.device
        views.append((cropped.cpu(), augmentation.hide(normalizer(cropped), table).cpu(), labels))
    assert torch.equal(views[0][0], views[1][0])
    # A GPU divides by 255 as it multiplies by its inverse.
    torch.testing.assert_close(views[0][1], views[1][1], rtol=1e-6, atol=1e-6)
    assert torch.equal(views[0][2], views[1][2])
