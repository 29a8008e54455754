"""Tasks: what fits together is described, what does not is refused before any training."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optuna_kd.data import StreamingSet
from optuna_kd.models import checksum
from optuna_kd.registry import UnknownNameError
from optuna_kd.training import ImageClassification
from optuna_kd.training.offline import view_images

Make = Callable[..., ImageClassification]


class Flat(nn.Module):
    """A classifier without feature maps."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def small_maps(side: int = 2) -> nn.Module:
    """A network whose only maps are side x side."""
    conv = nn.Conv2d(1, 6, 8 // side, stride=8 // side)
    return nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * side * side, 10))


def test_layers_are_found_and_shown(task: ImageClassification) -> None:
    assert task.layers() == "teacher layer3 [32, 4, 4] -> student layer3 [16, 4, 4]"
    assert (task.num_classes, task.image_shape, task.student_name) == (10, (1, 8, 8), "ResNet")
    assert task.student_parameters == sum(p.numel() for p in task.make_student(0).parameters())


def test_layers_can_be_named(make_task: Make) -> None:
    task = make_task(teacher_layer="layer1", student_layer="layer2")
    assert task.layers().startswith("teacher layer1 [8, 8, 8] -> student layer2")


def test_validation_is_cut_stratified_and_apart(
    task: ImageClassification, digits: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    images, labels = digits["train"]
    assert (len(task.train_set), len(task.val_set)) == (160, 40)

    def rows(part: Any) -> list[bytes]:
        return [
            image.numpy().tobytes() + bytes([int(label)]) for image, label in zip(part.images, part.labels, strict=True)
        ]

    train, val = rows(task.train_set), rows(task.val_set)
    everything = [image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)]
    assert sorted(train + val) == sorted(everything)
    assert not set(train) & set(val)
    expected = np.bincount(labels, minlength=10) * 0.2
    assert np.abs(np.bincount(task.val_set.labels.numpy(), minlength=10) - expected).max() <= 1


def test_the_cut_is_always_the_same_and_its_size_an_argument(task: ImageClassification, make_task: Make) -> None:
    assert make_task().val_set.checksum == task.val_set.checksum
    assert len(make_task(val_share=0.5).val_set) == 100


def test_given_validation_data_leave_train_whole(make_task: Make, digits: dict[str, Any]) -> None:
    task = make_task(val=digits["test"], test=None)
    assert (len(task.train_set), len(task.val_set), task.test_set) == (200, 100, None)


def test_students_depend_on_their_seed_alone(task: ImageClassification) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = checksum(task.make_student(1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert checksum(task.make_student(1)) == first != checksum(task.make_student(2))


def test_the_teacher_is_frozen(task: ImageClassification) -> None:
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())
    assert not task.teacher.training
    known = task.teacher_knowledge(task.prepare(task.val_set.images[:4]))
    assert not known.logits.requires_grad
    assert not known.features[0].requires_grad


def test_auto_normalisation_standardises_bytes(task: ImageClassification) -> None:
    prepared = task.prepare(task.train_set.images)
    assert float(prepared.mean()) == pytest.approx(0, abs=1e-4)
    assert float(prepared.std()) == pytest.approx(1, abs=1e-3)


def test_floats_and_none_are_left_alone(make_task: Make, digits: dict[str, Any]) -> None:
    images, labels = digits["train"]
    floats = make_task(train=(images.astype(np.float32) * 3, labels), test=None)
    torch.testing.assert_close(floats.prepare(floats.train_set.images), floats.train_set.images)
    plain = make_task(normalize=None)
    torch.testing.assert_close(plain.prepare(plain.train_set.images), plain.train_set.images / 255)


def test_given_normalisation_is_used(make_task: Make) -> None:
    task = make_task(normalize=([0.5], [0.25]))
    raw = task.train_set.images[:4]
    torch.testing.assert_close(task.prepare(raw), (raw / 255 - 0.5) / 0.25)


@pytest.mark.parametrize(("augment", "views"), [("none", 1), ("shift", 2), ("auto", 2)])
def test_views_make_sense_only_with_augmentation(make_task: Make, augment: str, views: int) -> None:
    assert make_task(augment=augment).views == views


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "resnet56"}, "teacher is a torch.nn.Module; got str"),
        ({"student": Flat()}, "student is a function that returns a fresh network.*got Flat. Pass `lambda"),
        ({"student": "resnet20"}, "student is a function.*got str"),
        ({"optimizer": "adam"}, "Unknown optimizer 'adam'. Did you mean 'adamw'"),
        ({"augment": "crop"}, "Unknown augmentation 'crop'. Did you mean 'crop-flip'"),
        ({"batch_size": 0}, "batch_size must be a whole number > 0; got 0"),
        ({"lr": -1}, "lr must be a number > 0; got -1"),
        ({"views": 0}, "views must be a whole number > 0; got 0"),
        ({"device": "quantum"}, "device 'quantum' cannot be used here"),
        ({"device": "meta"}, "The device 'meta' has shapes and no numbers: nothing can be trained on it"),
        ({"val_share": 1.0}, "must be between 0 and 1"),
        ({"num_classes": 5}, r"The labels of train go from 0 to 9; with 5 classes they must be in 0..4"),
        ({"num_classes": 12}, "teacher has 10 outputs, but the data have 12 classes"),
        ({"num_classes": 0}, "at least 2 classes; num_classes is 0"),
        ({"normalize": "imagenet"}, r'normalize is "auto", None or a pair \(mean, std\)'),
        ({"normalize": ([0.5], [-1.0])}, "normalize is"),
        ({"normalize": ([float("nan")], [1.0])}, "normalize is"),
        ({"normalize": ([0.5] * 3, [0.5] * 3)}, "normalize has 3 channels, the images have 1"),
        ({"teacher_layer": "layer9"}, "Unknown layer 'layer9'"),
        ({"student_layer": "layr3"}, "Unknown layer 'layr3'. Did you mean 'layer3'"),
        ({"student": Flat}, "No submodule of Flat puts out maps"),
        ({"teacher": Flat(7), "student": Flat}, "teacher has 7 outputs, but the data have 10 classes"),
        ({"student": lambda: nn.Sequential(nn.Conv2d(1, 10, 3))}, "it must be logits"),
        ({"student": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))},
         "The student does not take these images: The model takes images of 3 channels; these have 1"),
        ({"teacher": nn.Sequential(nn.Conv2d(1, 4, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))},
         "The teacher does not take these images: Images of 8x8 are smaller than the network's stride allows"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make_task: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, UnknownNameError), match=message):
        make_task(**changes)


def test_data_that_do_not_fit_are_refused(make_task: Make, digits: dict[str, Any]) -> None:
    images, labels = digits["train"]
    with pytest.raises(ValueError, match="at least 2 classes; the data have 1"):
        make_task(train=(images, np.zeros_like(labels)), test=None)
    with pytest.raises(ValueError, match=r"images of val are \[3, 8, 8\] \(C, H, W\), those of train \[1, 8, 8\]"):
        make_task(val=(np.repeat(images, 3, axis=1), labels))
    with pytest.raises(ValueError, match="teacher has 10 outputs, but the data have 11 classes"):
        make_task(test=(images, labels + 1))
    with pytest.raises(ValueError, match=r"labels of test go from 1 to 10; with 10 classes"):
        make_task(test=(images, labels + 1), num_classes=10)
    with pytest.raises(TypeError, match="Accepted are"):
        make_task(train="digits")


def test_small_maps_get_a_warning_that_names_the_switch(make_task: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        task = make_task(student=small_maps, teacher=small_maps(4))
    assert task.student_layer.shape == (6, 2, 2)
    (record,) = caplog.records
    assert "tapped map of the student" in record.message
    assert "student_layer=..." in record.message


def test_streaming_data_are_announced_once_and_not_augmented(
    make_task: Make, digits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        task = make_task(train=Noisy(digits))
    assert task.is_streaming
    assert task.augmentation.name == "none"
    assert ["asked online" in record.message for record in caplog.records] == [True]


class Noisy(torch.utils.data.Dataset):
    """A data set with a random transform of its own."""

    def __init__(self, digits: dict[str, Any]) -> None:
        self.images, self.targets = digits["train"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).float() / 255
        return image + 0.1 * torch.rand(1), int(self.targets[index])


def test_the_description_is_json_and_the_same_in_another_process_s_eyes(
    task: ImageClassification, make_task: Make
) -> None:
    described = task.describe()
    assert json.loads(json.dumps(described)) == described
    assert make_task().describe() == described


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("teacher", {"teacher"}),
        ("student", {"student"}),
        ("train", {"data", "validation", "preprocessing"}),
        ("val_share", {"data", "validation", "preprocessing"}),
        ("normalize", {"preprocessing"}),
        ("augment", {"preprocessing"}),
        ("views", {"preprocessing"}),
        ("lr", {"optimizer"}),
        ("batch_size", {"optimizer"}),
        ("teacher_layer", {"teacher_layer"}),
    ],
)
def test_every_change_that_matters_is_described(
    task: ImageClassification,
    make_task: Make,
    make_teacher: Callable[[int], nn.Module],
    digits: dict[str, Any],
    change: str,
    keys: set[str],
) -> None:
    images, labels = digits["train"]
    values = {
        "teacher": make_teacher(1),
        "student": lambda: small_maps(4),
        "train": (np.clip(images, 1, 255), labels),
        "val_share": 0.3,
        "normalize": ([0.5], [0.5]),
        "augment": "crop-flip",
        "views": 3,
        "lr": 0.05,
        "batch_size": 16,
        "teacher_layer": "layer2",
    }
    found, before = make_task(**{change: values[change]}).describe(), task.describe()
    different = {key for key in before if found[key] != before[key]}
    # The layer goes with its network.
    assert different - {f"{change}_layer"} == keys - {f"{change}_layer"} or different == keys


def test_streams_that_do_not_change_are_prepared_like_resident_data(digits: dict[str, Any], make_task: Make) -> None:
    """Too large for memory is no reason to lose augmentation and normalisation."""
    images, labels = (torch.from_numpy(array) for array in digits["train"])

    class Plain(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return images[index], int(labels[index])

    stream = StreamingSet(Plain(), labels, is_random=False)
    streamed, resident = make_task(train=stream, augment="shift"), make_task(augment="shift")
    assert not streamed.is_streaming
    assert streamed.augmentation == resident.augmentation
    some = torch.tensor([3, 1, 4])
    assert streamed.normalizer.mean == pytest.approx(resident.normalizer.mean, abs=1e-5)
    torch.testing.assert_close(view_images(streamed, 1, some), view_images(resident, 1, some), rtol=1e-3, atol=1e-3)


def test_another_test_set_is_another_task(make_task: Make, digits: dict[str, Any]) -> None:
    images, labels = digits["test"]
    assert make_task().describe() != make_task(test=(images, (labels + 1) % 10)).describe()
    assert make_task(test=None).describe()["test"] == "none"
    with pytest.raises(ValueError, match=r"images of test are \[1, 12, 12\]"):
        make_task(test=(np.zeros((10, 12, 12), dtype=np.uint8), np.arange(10)))
    with pytest.raises(ValueError, match="validation part has 3 images; at least 4"):
        make_task(val=(images[:3], labels[:3]))


def test_a_precision_that_is_not_plain_belongs_to_the_study(make_task: Make) -> None:
    """Small students are trained in float32 everywhere, unless it is asked otherwise."""
    assert "precision" not in make_task().describe()
    assert "precision" not in make_task(precision="float32").describe()
    assert make_task(precision="bfloat16").describe()["precision"] == "bfloat16"


def test_floats_that_nobody_scaled_are_noticed(
    make_task: Make, digits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = digits["train"]
    make_task(train=(images.astype("float32") / 255, labels))
    assert not [record for record in caplog.records if "floats" in record.message]
    make_task(train=(images.astype("float32"), labels))
    (message,) = [record.message for record in caplog.records if "floats" in record.message]
    assert message.startswith("The images are floats up to 255, and floats are taken as they are.")


def test_a_task_moves_to_another_device_with_its_precision(make_task: Make) -> None:
    task = make_task()
    described = task.describe()
    chosen = described.get("precision", "float32")  # of the student; the teacher may gain where it does not
    task.move_to("cpu")
    assert (task.precision, task.describe()) == ("auto", described)
    known = task.teacher_knowledge(task.prepare(task.train_set.batch([0, 1])[0]))
    task.move_to("meta")
    assert task.device == torch.device("meta")
    assert {parameter.device.type for parameter in task.teacher.parameters()} == {"meta"}
    assert {part.images.device.type for part in (task.train_set, task.val_set)} == {"meta"}
    assert task.train_set.labels.device.type == "cpu"
    moved = task.teacher_knowledge(torch.zeros(2, 1, 8, 8, device="meta"))
    assert (moved.logits.device.type, moved.logits.shape) == ("meta", known.logits.shape)
    assert task.precision == chosen  # what the study was begun with
    with pytest.raises(ValueError, match="The device 'nowhere' cannot be used here"):
        task.move_to("nowhere")
