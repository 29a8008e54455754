"""Reading knowledge off a model: observer, frozen teacher."""

from __future__ import annotations

import gc
import pickle
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models import FrozenTeacher, Knowledge, Observer, checksum, create_model, unwrap
from optuna_kd.registry import UnknownNameError


def small() -> Any:
    torch.manual_seed(0)
    return create_model("resnet8x0.25", num_classes=4, in_channels=1, input_size=8)


def batch() -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_knowledge_averages_maps_into_embeddings() -> None:
    maps = torch.arange(8.0).reshape(1, 2, 2, 2).requires_grad_()
    known = Knowledge((maps,), torch.zeros(1, 3))
    assert known.embeddings[0].tolist() == [[1.5, 5.5]]
    assert not known.detach().features[0].requires_grad


def test_observer_returns_maps_in_the_order_asked() -> None:
    model, images = small().eval(), batch()
    with Observer(model, ["layer3", "layer1", "layer3"]) as observe:
        known = observe(images)
    assert [maps.shape[1] for maps in known.features] == [16, 4, 16]
    assert torch.equal(known.logits, model(images))
    assert torch.equal(model.fc(known.embeddings[0]), known.logits)


def test_observer_gradients_reach_the_model() -> None:
    model = small()
    with Observer(model, ["layer1"]) as observe:
        observe(batch()).features[0].square().sum().backward()
    assert model.conv1.weight.grad.abs().sum() > 0
    assert model.fc.weight.grad is None


def test_observer_keeps_no_tensor() -> None:
    model = small()
    with Observer(model, ["layer3"]) as observe:
        known = observe(batch())
        maps = weakref.ref(known.features[0])
        del known
        gc.collect()
        assert maps() is None
        model(batch())  # a call that is not the observer's leaves nothing behind either
        assert observe._record.maps == {}


def test_observer_removes_its_hooks() -> None:
    model = small()
    observe = Observer(model, ["layer3", "layer1"])
    assert hooks(model) == 2
    observe.close()
    observe.close()
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="closed"):
        observe(batch())


def test_forgotten_observers_do_not_pile_up() -> None:
    model = small()
    for _ in range(5):
        Observer(model, ["layer3"])(batch())
    gc.collect()
    assert hooks(model) == 0


def test_observer_survives_a_failed_call() -> None:
    model = small()
    with Observer(model, ["layer3"]) as observe:
        with pytest.raises(RuntimeError):
            observe(torch.zeros(1, 5, 8, 8))
        assert observe(batch()).logits.shape == (6, 4)


def test_a_hooked_model_can_be_pickled() -> None:
    model = small()
    with Observer(model, ["layer3"]):
        copy = pickle.loads(pickle.dumps(model))
    assert checksum(copy) == checksum(model)


class Inplace(nn.Module):
    """Changes the map in place right after the tapped layer, and runs one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu_(self.conv(images))
        return self.fc(self.twice(self.twice(maps)).mean((2, 3)))


def test_in_place_operations_keep_the_gradients_right() -> None:
    torch.manual_seed(0)
    model, images = Inplace(), batch()
    with Observer(model, ["conv"]) as observe:
        known = observe(images)
    (known.features[0].sum() + known.logits.sum()).backward()
    maps = F.relu(F.conv2d(images, model.conv.weight, model.conv.bias, padding=1))
    assert torch.equal(known.features[0], maps)
    (expected,) = torch.autograd.grad(maps.sum() + _head(model, maps).sum(), model.conv.weight)
    torch.testing.assert_close(model.conv.weight.grad, expected)


def _head(model: Inplace, maps: Tensor) -> Tensor:
    return model.fc(model.twice(model.twice(maps)).mean((2, 3)))


def test_last_output_of_a_repeated_layer_counts() -> None:
    model, images = Inplace(), batch()
    with Observer(model, ["twice"]) as observe:
        known = observe(images)
    assert torch.equal(model.fc(known.features[0].mean((2, 3))), known.logits)


def test_unknown_layer_suggests() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'layer33'\. Did you mean 'layer3'.*list_maps"):
        Observer(small(), ["layer33"])
    with pytest.raises(UnknownNameError):
        Observer(small(), [""])
    with pytest.raises(TypeError, match="sequence of names"):
        Observer(small(), "layer3")


def test_a_layer_without_maps_is_refused() -> None:
    with (
        Observer(small(), ["fc"]) as observe,
        pytest.raises(TypeError, match=r"'fc' puts out a tensor \[6, 4\]"),
    ):
        observe(batch())


def test_a_layer_that_does_not_run_is_reported() -> None:
    model = small()
    model.idle = nn.Conv2d(1, 1, 1)
    with Observer(model, ["idle"]) as observe, pytest.raises(RuntimeError, match="'idle' did not run"):
        observe(batch())


class Returns(nn.Module):
    """Puts out whatever it was given."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.conv(images).mean((2, 3)))


def test_logits_may_come_in_an_object() -> None:
    with Observer(Returns(lambda x: SimpleNamespace(logits=x)), ["conv"]) as observe:
        assert observe(batch()).logits.shape == (6, 2)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [(lambda x: (x, x), "a tuple"), (lambda x: x[0], r"a tensor \[2\]"), (lambda x: {"a": x}, "a dict")],
)
def test_other_outputs_are_refused(wrap: Any, words: str) -> None:
    with Observer(Returns(wrap), ["conv"]) as observe, pytest.raises(TypeError, match=f"{words}.*logits"):
        observe(batch())


def test_wrapped_models_are_tapped_by_their_own_names() -> None:
    model = small().eval()
    compiled: Any = torch.compile(model, backend="eager")
    parallel = nn.DataParallel(model)
    assert unwrap(parallel) is model
    assert unwrap(compiled) is model
    compiled(batch())  # traced without hooks: the observer must not rely on this graph
    for wrapped in (compiled, parallel):
        with Observer(wrapped, ["layer3"]) as observe:
            assert observe(batch()).features[0].shape == (6, 16, 4, 4)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_teacher_is_never_changed(batchnorm: Any) -> None:
    model = small().train()
    model.bn1.running_mean.fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teacher = FrozenTeacher(model, ["layer3"], batchnorm)
    model.train()
    first = teacher(batch())
    model.train()
    second = teacher(batch())
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.features[0], second.features[0])
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.bn1.track_running_stats


def test_teacher_knowledge_serves_a_students_backward_pass() -> None:
    student, teacher = small(), FrozenTeacher(small(), ["layer3"])
    known = teacher(batch().requires_grad_())
    assert not known.logits.requires_grad
    assert not known.features[0].is_inference()
    with Observer(student, ["layer3"]) as observe:
        (observe(batch()).features[0] * known.features[0]).sum().backward()
    assert student.conv1.weight.grad.isfinite().all()


def test_teacher_normalises_as_asked() -> None:
    model, images = small(), batch()
    model.bn1.running_mean.fill_(3.0)
    expected = model.eval()(images)
    assert torch.equal(FrozenTeacher(model, ["layer3"])(images).logits, expected)
    statistics = FrozenTeacher(model, ["layer3"], "train")(images).logits
    assert torch.equal(statistics, model.train()(images))
    assert not torch.allclose(statistics, expected)


def test_teacher_refuses_other_modes_and_closes() -> None:
    model = small()
    with pytest.raises(ValueError, match="'eval' or 'train'; got 'batch'"):
        FrozenTeacher(model, ["layer3"], "batch")  # type: ignore[arg-type]
    FrozenTeacher(model, ["layer3"]).close()
    assert hooks(model) == 0


def test_an_observer_travels_to_another_process() -> None:
    """A task carries its teacher's to the workers."""
    observer, images = Observer(small().eval(), ["layer3"]), batch()
    copied = pickle.loads(pickle.dumps(observer))
    assert torch.equal(copied(images).features[0], observer(images).features[0])
    copied.close()
    assert (hooks(copied.model), hooks(observer.model)) == (0, 1)
    with pytest.raises(RuntimeError, match="closed"):
        pickle.loads(pickle.dumps(copied))(images)
