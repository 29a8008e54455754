"""Batch normalisation folded into convolutions: the same numbers, whatever the model does and however it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from optuna_kd.models import FrozenTeacher, Knowledge, Observer, checksum, create_model, find_layer, model_names
from optuna_kd.models.folding import fold_batchnorm


def trained(model: nn.Module, seed: int = 0) -> Any:
    """Give a model statistics and weights of normalisation that make every fold count."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=draw)
    return model.eval().requires_grad_(False)


def small(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return trained(create_model("resnet8x0.5", num_classes=4, in_channels=1, input_size=8), seed)


def batch(channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(5, channels, side, side, generator=torch.Generator().manual_seed(1))


def pair_batch() -> Tensor:
    return batch(channels=2)


def is_folded(teacher: FrozenTeacher) -> bool:
    return teacher._folded is not None


def assert_says(teacher: FrozenTeacher, model: nn.Module, images: Tensor) -> None:
    with torch.no_grad(), Observer(model, teacher.layers) as observe:
        expected = observe(images)
    known = teacher(images)
    for values, right in zip((*known.features, known.logits), (*expected.features, expected.logits), strict=True):
        assert values.shape == right.shape
        if len(images):
            assert (values - right).abs().max() < 1e-5 * right.abs().max()


class Pair(nn.Module):
    """A convolution, its normalisation, and what `path` does with them before the classifier."""

    def __init__(self, path: Callable[[Any, Tensor], Tensor] | None = None, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 8, **{"kernel_size": 3, "padding": 1, **options})
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 3)
        self.path = path or (lambda self, images: F.relu(self.norm(self.conv(images)), inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.path(self, images).mean((2, 3)))


def test_one_fold_by_hand() -> None:
    model = Pair(bias=True)
    with torch.no_grad():
        model.conv.weight.fill_(1.0)
        model.conv.bias.fill_(2.0)
        model.norm.running_mean.fill_(5.0)
        model.norm.running_var.fill_(4.0 - model.norm.eps)
        model.norm.weight.fill_(3.0)
        model.norm.bias.fill_(7.0)
    twin: Any = fold_batchnorm(model.eval(), pair_batch())
    twin(pair_batch())
    # (w x + 2 - 5) / 2 * 3 + 7 = 1.5 w x + 2.5
    torch.testing.assert_close(twin.conv.weight, torch.full((8, 2, 3, 3), 1.5))
    torch.testing.assert_close(twin.conv.bias, torch.full((8,), 2.5))
    assert model.conv.weight.unique().tolist() == [1.0]


LARGE = {"resnet44", "resnet56", "resnet110", "resnet32x4", "vgg16", "vgg19", "wrn_40_2"}  # as their smaller siblings
FAMILIES = [*(name for name in model_names() if name not in LARGE), "torchvision/resnet18", "torchvision/densenet121"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = trained(create_model(name, num_classes=5))
    images = batch(3, 32)[:2]
    before = checksum(model)
    teacher = FrozenTeacher(model, [find_layer(model, images).name], fold=True)
    assert_says(teacher, model, images)
    assert is_folded(teacher)
    assert checksum(model) == before


def test_a_tap_between_the_two_sees_the_unnormalised_maps() -> None:
    model = small()
    inside = FrozenTeacher(model, ["layer1.0.conv2", "layer1.0.bn2", "conv1", "layer2"], fold=True)
    assert_says(inside, model, batch())
    assert is_folded(inside)
    twin: Any = fold_batchnorm(model, batch(), ["conv1"])
    assert torch.equal(twin.conv1(batch()), model.conv1(batch()))
    assert twin.bn1.forward.__name__ == "forward"
    assert twin.layer1[0].bn1.forward.__name__ == "_identity"


class Wrapped(Pair):
    """Its tapped block holds both layers and puts out what lies between them."""

    class Block(nn.Module):
        def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
            super().__init__()
            self.conv, self.norm, self.seen = conv, norm, torch.zeros(())

        def forward(self, images: Tensor) -> Tensor:
            maps = self.conv(images)
            self.seen = self.norm(maps)
            return maps

    def __init__(self) -> None:
        super().__init__(lambda self, images: (self.block(images), self.block.seen)[1])
        self.block = self.Block(self.conv, self.norm)


UNFOLDABLE: dict[str, Callable[[], nn.Module]] = {
    "the convolution is read twice": lambda: Pair(lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x))),
    "something lies between": lambda: Pair(lambda m, x: m.norm(F.relu(m.conv(x)))),
    "it changes in place": lambda: Pair(lambda m, x: m.norm(m.conv(x).relu_())),
    "the normalisation runs twice": lambda: Pair(lambda m, x: m.norm(m.norm(m.conv(x)))),
    "the convolution runs twice": lambda: Pair(lambda m, x: m.norm(m.conv(x)) + m.conv(x + 1)),
    "functions instead of modules": lambda: Pair(
        lambda m, x: F.batch_norm(m.conv(x), m.norm.running_mean, m.norm.running_var)
    ),
    "no running statistics": lambda: _without_statistics(),
    "a weight with a rule of its own": lambda: _parametrized(),
    "maps taken as views": lambda: Pair(lambda m, x: m.norm(m.conv(x)).view(-1, 64).view(-1, 8, 8, 8)),
    "channels too few": lambda: Pair(lambda m, x: m.norm(m.conv(x)), kernel_size=1, stride=2, padding=0),
}


def _without_statistics() -> nn.Module:
    model = Pair()
    model.norm = nn.BatchNorm2d(8, track_running_stats=False)
    return model


def _parametrized() -> nn.Module:
    model = Pair()
    parametrizations.weight_norm(model.conv)
    return model


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_what_cannot_be_folded_is_left_alone(case: str) -> None:
    # Untrained: the normalisation is almost the identity, so that numbers alone would not tell.
    model = UNFOLDABLE[case]().eval()
    assert fold_batchnorm(model, pair_batch()) is None
    teacher = FrozenTeacher(trained(model), [], fold=True)
    assert_says(teacher, model, pair_batch())
    assert not is_folded(teacher)


def test_a_block_that_puts_out_what_lies_between() -> None:
    assert fold_batchnorm(Wrapped().eval(), pair_batch(), ["block"]) is None
    assert fold_batchnorm(Wrapped().eval(), pair_batch()) is not None


def test_a_normalisation_without_weights_is_folded() -> None:
    model = Pair(bias=False)
    model.norm = nn.BatchNorm2d(8, affine=False)
    teacher = FrozenTeacher(trained(model), ["norm"], fold=True)
    assert_says(teacher, model, pair_batch())
    assert is_folded(teacher)


def test_half_precision_is_left_alone() -> None:
    assert fold_batchnorm(small().bfloat16(), batch().bfloat16()) is None
    assert fold_batchnorm(small().double(), batch().double()) is not None


def test_wrapped_models_are_left_alone() -> None:
    assert fold_batchnorm(nn.DataParallel(small()), batch()) is None
    assert fold_batchnorm(nn.Sequential(small(), torch.compile(nn.Identity(), backend="eager")), batch()) is None  # type: ignore[arg-type]


def test_a_model_that_cannot_be_copied_is_asked_itself() -> None:
    model = small()
    model.generator = (step for step in range(3))
    teacher = FrozenTeacher(model, ["layer3"], fold=True)
    assert_says(teacher, model, batch())
    assert not is_folded(teacher)


def test_a_twin_that_says_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, images: Tensor, layers: Any) -> nn.Module:
        return small(seed=5)

    monkeypatch.setattr("optuna_kd.models.knowledge.fold_batchnorm", wrong)
    model = small()
    teacher = FrozenTeacher(model, ["layer3"], fold=True)
    assert_says(teacher, model, batch())
    assert not is_folded(teacher)


def change_weights(model: Any) -> None:
    model.load_state_dict(small(seed=2).state_dict())


def replace_tensors(model: Any) -> None:
    model.load_state_dict(small(seed=2).state_dict(), assign=True)


def average(model: Any) -> None:
    for old, new in zip(model.parameters(), small(seed=2).parameters(), strict=True):
        old.data.mul_(0.5).add_(new.data, alpha=0.5)


def average_convolution(model: Any) -> None:
    model.layer1[0].conv1.weight.data.mul_(0.5)


def change_statistics(model: Any) -> None:
    model.bn1.running_var.data.mul_(4.0)


def change_module(model: Any) -> None:
    model.layer2[0].bn1 = trained(nn.Sequential(nn.BatchNorm2d(16)), seed=3)[0]


def change_setting(model: Any) -> None:
    model.bn1.eps = 1.0


def change_type(model: Any) -> None:
    change_weights(model.double())


def change_classifier(model: Any) -> None:
    model.fc.bias.data.add_(1.0)


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        replace_tensors,
        average,
        average_convolution,
        change_statistics,
        change_module,
        change_setting,
        change_type,
        change_classifier,
    ],
)
def test_the_teacher_follows_changes_of_the_model(change: Callable[[nn.Module], None]) -> None:
    model = small()
    teacher = FrozenTeacher(model, ["layer3"], fold=True)
    first = teacher(batch())
    change(model)
    images = batch().to(next(model.parameters()).dtype)
    assert_says(teacher, model, images)
    assert is_folded(teacher)
    assert not torch.allclose(teacher(images).logits.float(), first.logits, rtol=1e-3, atol=1e-3)


def test_hooks_that_come_later_are_run() -> None:
    model = small()
    teacher = FrozenTeacher(model, ["layer3"], fold=True)
    first = teacher(batch())
    handle = model.layer2.register_forward_hook(lambda module, args, output: 2 * output)
    assert_says(teacher, model, batch())
    assert not is_folded(teacher)
    handle.remove()
    torch.testing.assert_close(teacher(batch()).logits, first.logits, rtol=1e-4, atol=1e-4)
    assert is_folded(teacher)


def test_another_observer_does_not_matter() -> None:
    model = small()
    teacher, calls = FrozenTeacher(model, ["layer3"], fold=True), []
    teacher._make_folded = lambda images, make=teacher._make_folded: (calls.append(1), make(images))[1]  # type: ignore[method-assign,misc]
    for _ in range(2):
        with Observer(model, ["layer1"]):
            assert_says(teacher, model, batch())
    assert len(calls) == 1


def test_only_the_folded_weights_take_memory() -> None:
    model = small()
    twin: Any = fold_batchnorm(model, batch())
    assert twin.fc.weight is model.fc.weight
    assert twin.bn1.running_mean is model.bn1.running_mean
    assert twin.conv1.weight is not model.conv1.weight


def test_a_batch_normalised_by_itself_is_not_folded() -> None:
    model = small()
    teacher = FrozenTeacher(model, ["layer3"], "train", fold=True)
    known: Knowledge = teacher(batch())
    assert not is_folded(teacher)
    assert torch.equal(known.logits, model.train()(batch()))


def test_a_closed_teacher_stays_closed() -> None:
    teacher = FrozenTeacher(small(), ["layer3"], fold=True)
    teacher(batch())
    teacher.close()
    with pytest.raises(RuntimeError, match="closed"):
        teacher(batch())


def test_an_empty_batch_decides_nothing() -> None:
    model = small()
    teacher = FrozenTeacher(model, ["layer3"], fold=True)
    assert_says(teacher, model, batch()[:0])
    assert not is_folded(teacher)
    assert_says(teacher, model, batch())
    assert is_folded(teacher)
