"""Choosing the layer to tap, on our families, torchvision's and users' own networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models import Observer, create_model, find_layer, list_maps


@pytest.mark.parametrize(
    ("name", "size", "layer", "shape"),
    [
        ("resnet20", 32, "layer3", (64, 8, 8)),
        ("wrn_16_2", 32, "relu", (128, 8, 8)),
        ("vgg8", 32, "block4", (512, 4, 4)),
        ("mobilenetv2", 32, "blocks.4", (48, 4, 4)),
        ("mobilenetv2", 8, "conv2", (1280, 4, 4)),
        ("shufflenetv1", 32, "layer3", (960, 4, 4)),
        ("resnet18", 32, "layer2", (128, 4, 4)),
        ("resnet18", 224, "layer4", (512, 7, 7)),
        ("mobilenet_v2", 32, "features.6", (32, 4, 4)),
        ("densenet121", 32, "features.denseblock2", (512, 4, 4)),
        ("torchvision/vgg11", 224, "features", (512, 7, 7)),
        ("swin_t", 224, "permute", (768, 7, 7)),
        ("convnext_tiny", 224, "features", (768, 7, 7)),
        ("efficientnet_b0", 224, "features", (1280, 7, 7)),
        ("googlenet", 224, "inception5b", (1024, 7, 7)),
    ],
)
def test_chosen_layer(name: str, size: int, layer: str, shape: tuple[int, int, int]) -> None:
    # On the meta device nothing is computed, so the large networks cost no time.
    with torch.device("meta"):
        model = create_model(name, num_classes=10, input_size=size)
        found = find_layer(model, torch.zeros(2, 3, size, size))
    assert (found.name, found.shape) == (layer, shape)


def test_sequential_ends_on_its_last_activation() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Linear(128, 3)),
    )
    found = find_layer(model, torch.zeros(2, 1, 8, 8))
    assert (found.name, found.shape) == ("5", (8, 4, 4))


class Functional(nn.Module):
    """A user's class with functional activations and pooling, and one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(6 * 2 * 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(F.relu(self.conv1(images)))
        maps = self.pool(F.relu(self.conv2(maps)))
        return self.fc(maps.flatten(1))


def test_user_class_with_functional_parts() -> None:
    model = Functional()
    found = find_layer(model, torch.zeros(2, 1, 8, 8))
    assert (found.name, found.shape) == ("conv2", (6, 4, 4))
    # `pool` runs twice: its last output is the one that an observer returns, so it is the one listed.
    assert [(layer.name, layer.shape[1:]) for layer in list_maps(model, torch.zeros(2, 1, 8, 8))] == [
        ("conv1", (8, 8)),
        ("conv2", (4, 4)),
        ("pool", (2, 2)),
    ]


def test_found_shape_is_the_observed_shape() -> None:
    for model in (Functional(), create_model("resnet8x0.25", num_classes=3, in_channels=1, input_size=8)):
        found = find_layer(model, torch.zeros(2, 1, 8, 8))
        with Observer(model, [found.name]) as observe:
            assert observe(torch.zeros(2, 1, 8, 8)).features[0].shape[1:] == found.shape


def test_same_tensor_is_listed_once_by_its_outermost_name() -> None:
    model = create_model("resnet8x0.25", num_classes=3, in_channels=1, input_size=8)
    names = [layer.name for layer in list_maps(model, torch.zeros(2, 1, 8, 8))]
    assert "layer3" in names
    assert "layer3.0" not in names
    assert len(names) == len(set(names))


def test_without_a_large_map_the_last_one_is_taken() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, stride=4), nn.Conv2d(4, 6, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 2))
    )
    found = find_layer(model, torch.zeros(2, 1, 8, 8))
    assert (found.name, found.shape) == ("1", (6, 2, 2))


def test_without_any_map_the_error_names_what_was_seen() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match=r"No submodule of Sequential.*0 \[2, 64\], 1 \[2, 3\].*logits"):
        find_layer(model, torch.zeros(2, 1, 8, 8))


def test_dry_run_changes_nothing() -> None:
    model = create_model("resnet8x0.25", num_classes=3, in_channels=1, input_size=8).train()
    model.get_submodule("layer1").eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_layer(nn.DataParallel(model), torch.randn(2, 1, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        find_layer(model, torch.randn(2, 3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
