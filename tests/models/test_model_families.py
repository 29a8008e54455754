"""The families by name: published sizes, every name trains, maps stay comparable on small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optuna_kd.models import (
    check_input,
    count_parameters,
    create_model,
    describe_models,
    find_layer,
    model_names,
)
from optuna_kd.models.blocks import fit_strides, shuffle_channels
from optuna_kd.models.catalog import MODELS, ModelInfo, register_model
from optuna_kd.registry import UnknownNameError

# For 100 classes and 3 channels. Exact counts of the CIFAR-100 code of CRD (Tian et al. 2020, RepDistiller),
# which agree with the rounded ones in print: He et al. 2016, table 6 for 10 classes (ResNet-20 0.27 M, 32
# 0.46 M, 44 0.66 M, 56 0.85 M, 110 1.7 M), Zagoruyko and Komodakis 2016, table 4 (WRN-40-1 0.6 M, WRN-40-2
# 2.2 M; WRN-16-1 0.2 M and WRN-16-2 0.7 M in "Paying More Attention to Attention", 2017, table 1).
PUBLISHED = {
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenetv2": 812_836,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=100)
    assert count_parameters(model) == count


@pytest.mark.parametrize("depth", [8, 14, 20, 110])
def test_resnet_count_follows_from_its_layers(depth: int) -> None:
    # By hand: stem 3*16*9 + 2*16; a block c -> d has 9cd + 9dd + 4d, its projection cd + 2d; fc 64*100 + 100.
    n = (depth - 2) // 6

    def block(c: int, d: int) -> int:
        return 9 * c * d + 9 * d * d + 4 * d + (c * d + 2 * d if c != d else 0)

    stages = sum(block(c, d) + (n - 1) * block(d, d) for c, d in ((16, 16), (16, 32), (32, 64)))
    with torch.device("meta"):
        model = create_model(f"resnet{depth}", num_classes=100)
    assert count_parameters(model) == 3 * 16 * 9 + 2 * 16 + stages + 64 * 100 + 100


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("resnet20", "layer2.0.downsample.1.running_mean"),
        ("wrn_16_2", "block1.layer.0.convShortcut.weight"),
        ("vgg13", "block4.4.num_batches_tracked"),
        ("mobilenetv2", "blocks.6.0.conv.7.weight"),
        ("shufflenetv1", "layer3.3.conv3.weight"),
        ("shufflenetv2", "layer1.0.bn5.bias"),
    ],
)
def test_published_checkpoints_find_their_names(name: str, key: str) -> None:
    with torch.device("meta"):
        assert key in create_model(name, num_classes=100).state_dict()


def test_size_of_the_images_does_not_change_the_parameters() -> None:
    for name in ("resnet20", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"):
        with torch.device("meta"):
            shapes = [
                [parameter.shape for parameter in create_model(name, num_classes=3, input_size=size).parameters()]
                for size in (8, 16, 32)
            ]
        assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_every_name_runs_and_every_parameter_learns(name: str, channels: int, size: int) -> None:
    # Gradients at 8x8; at 32x32, four times the map and all the strides, the forward pass is enough.
    model = create_model(name, num_classes=7, in_channels=channels, input_size=size)
    images = torch.randn(2, channels, size, size)
    if size == 32:
        with torch.no_grad():
            assert model.eval()(images).shape == (2, 7)
        return
    logits = model(images)
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [info.name for info in describe_models() if info.name not in ("vgg16", "vgg19")])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_tapped_map_is_comparable_in_space(name: str, size: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10, input_size=size)
        channels, height, width = find_layer(model, torch.zeros(1, 3, size, size)).shape
    assert height == width
    assert height >= 4
    assert channels >= 48


@pytest.mark.parametrize(
    ("name", "side"), [("resnet20", 8), ("wrn_16_2", 8), ("vgg8", 4), ("shufflenetv1", 4), ("mobilenetv2", 2)]
)
def test_strides_at_32_are_the_published_ones(name: str, side: int) -> None:
    model = create_model(name, num_classes=10).eval()
    seen: list[torch.Size] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert seen[-1][-1] == side


@pytest.mark.parametrize(
    ("strides", "size", "expected"),
    [
        ((1, 2, 2), 32, (1, 2, 2)),
        ((1, 2, 2), 16, (1, 2, 2)),
        ((1, 2, 2), 8, (1, 2, 1)),
        ((2, 2, 2), 28, (2, 2, 2)),  # 28, 14, 7, 4
        ((2, 2, 2, 2), 32, (2, 2, 2, 1)),
        ((2, 2, 2), 9, (2, 1, 1)),  # 9, 5
    ],
)
def test_fit_strides(strides: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert fit_strides(strides, size) == expected


def test_shuffle_interleaves_the_groups() -> None:
    maps = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(maps, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ResNet-20", "resnet20"),
        ("resnet_8x4", "resnet8x4"),
        ("WRN-16-2", "wrn_16_2"),
        ("wrn16_2", "wrn_16_2"),
        ("VGG-8", "vgg8"),
        ("ShuffleNetV1", "shufflenetv1"),
        ("ShuffleV2", "shufflenetv2"),
        ("MobileNetV2", "mobilenetv2"),
        ("resnet3-3-3", "resnet20"),
    ],
)
def test_usual_spellings(spelling: str, name: str) -> None:
    with torch.device("meta"):
        model, expected = create_model(spelling, num_classes=5), create_model(name, num_classes=5)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet8x0.25", [4, 4, 8, 16]),
        ("resnet8x4", [32, 64, 128, 256]),  # the published exception: the stem stays at 32
        ("resnet20x1.5", [24, 24, 48, 96]),
        ("resnet1-3-7x0.5", [8, 8, 16, 32]),
    ],
)
def test_width_of_a_resnet(name: str, widths: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=5)
    stages = [model.get_submodule(f"layer{i}.0.conv1").out_channels for i in (1, 2, 3)]
    assert [model.get_submodule("conv1").out_channels, *stages] == widths


def test_blocks_of_a_resnet_by_stage() -> None:
    with torch.device("meta"):
        model = create_model("resnet1-3-5", num_classes=5)
    assert [len(list(model.get_submodule(f"layer{i}").children())) for i in (1, 2, 3)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet21", "6n\\+2"),
        ("wrn_17_2", "6n\\+4"),
        ("resnet8x0.01", "no channels"),
        ("resnet0-1-1", "one block"),
    ],
)
def test_sizes_that_do_not_exist(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create_model(name, num_classes=10)


def test_unknown_name_suggests_over_both_lists() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'shufflenetv1'.*resnet20.*torchvision"):
        create_model("shuflenetv1", num_classes=10)
    with pytest.raises(UnknownNameError, match="Did you mean 'efficientnet_b0'"):
        create_model("eficientnet_b0", num_classes=10)
    with pytest.raises(UnknownNameError):
        create_model("torchvision/resnet20", num_classes=10)


def test_numbers_and_images_too_small() -> None:
    with pytest.raises(ValueError, match="7x7 are too small"):
        create_model("resnet8", num_classes=10, input_size=7)
    with pytest.raises(ValueError, match="num_classes"):
        create_model("resnet8", num_classes=0)
    with pytest.raises(ValueError, match="in_channels"):
        create_model("resnet8", num_classes=2, in_channels=0)


def test_shorter_side_decides() -> None:
    model = create_model("resnet8", num_classes=3, input_size=(8, 32)).eval()
    layer = find_layer(model, torch.zeros(1, 3, 8, 32))
    assert layer.shape == (64, 4, 16)


def test_taken_name_and_alias() -> None:
    info = MODELS["resnet20"]
    with pytest.raises(ValueError, match="already registered"):
        register_model(info)
    with pytest.raises(ValueError, match="already registered"):
        register_model(ModelInfo("a_new_name", "resnet", info.factory, ""), "mobile_half")
    assert MODELS["resnet20"] is info
    assert "a_new_name" not in MODELS


def test_torchvision_by_name_for_any_channel_count() -> None:
    model = create_model("resnet18", num_classes=5, in_channels=2)
    assert type(model).__module__.startswith("torchvision")
    assert model.eval()(torch.randn(1, 2, 32, 32)).shape == (1, 5)


def test_prefix_chooses_torchvision() -> None:
    with torch.device("meta"):
        ours = create_model("vgg13", num_classes=10)
        theirs = create_model("torchvision/vgg13", num_classes=10)
    assert count_parameters(theirs) > 10 * count_parameters(ours)
    assert "torchvision/vgg13" in model_names(torchvision=True)
    assert "torchvision/vgg13" not in model_names()


def test_imagenet_depths_that_fit_our_rule_stay_with_torchvision() -> None:
    with torch.device("meta"):
        assert hasattr(create_model("resnet50", num_classes=10), "layer4")
        assert not hasattr(create_model("resnet50x1", num_classes=10), "layer4")


def test_vision_transformer_is_built_for_the_image_size() -> None:
    with torch.device("meta"):
        model = create_model("vit_b_16", num_classes=10, in_channels=1, input_size=32)
        assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)


def test_check_input_accepts_and_leaves_the_model_alone() -> None:
    model = create_model("resnet8x0.25", num_classes=4, in_channels=1, input_size=8).train()
    model.get_submodule("bn1").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_input(model, 1, 8)
    assert model.training
    assert not model.get_submodule("bn1").training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_check_input_says_that_the_images_are_too_small() -> None:
    model = create_model("torchvision/squeezenet1_1", num_classes=4)
    with pytest.raises(ValueError, match="Images of 8x8 are smaller than the network's stride allows; it runs on 32x"):
        check_input(model, 3, 8)


def test_check_input_says_that_the_channels_differ() -> None:
    with pytest.raises(ValueError, match=r"takes images of 3 channels; these have 1.*in_channels=1"):
        check_input(create_model("resnet8", num_classes=4), 1, 32)


def test_check_input_passes_other_causes_on() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"does not run on images \[3, 32, 32\].*shapes cannot be multiplied"):
        check_input(model, 3, 32)
