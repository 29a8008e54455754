"""Sparse training: exact counts, RigL's rule by hand, optimizer state, determinism, and what cannot be masked."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models import checksum, create_model
from optuna_kd.registry import UnknownNameError
from optuna_kd.training.masks import apportion, draw_mask, erk_densities, move_mask
from optuna_kd.training.sparse import SparseWeights

Optimizers = Callable[[nn.Module], torch.optim.Optimizer]


def digits_student(seed: int = 0, width: float = 0.5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(f"resnet8x{width:g}", num_classes=10, in_channels=1, input_size=8)


def mlp(inputs: int = 4, hidden: int = 5, outputs: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def masks_of(sparse: SparseWeights) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = sparse.state_dict()["masks"]
    return masks


def counts_of(sparse: SparseWeights) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks_of(sparse).items()}


def train(
    student: nn.Module,
    sparse: SparseWeights,
    optimizer: torch.optim.Optimizer,
    digits: dict[str, Any],
    steps: int,
    start: int = 0,
) -> list[float]:
    images = torch.as_tensor(digits["train"][0]).float() / 255
    labels = torch.as_tensor(digits["train"][1])
    losses = []
    for step in range(start, start + steps):
        batch = torch.randperm(len(labels), generator=torch.Generator().manual_seed(step))[:50]
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(student(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        sparse.after_step(optimizer)
        losses.append(float(loss.detach()))
    return losses


# How many, and where


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_the_overall_sparsity_is_met_exactly(distribution: Any, sparsity: float) -> None:
    student = digits_student()
    sparse = SparseWeights(student, sparsity, steps=100, seed=1, distribution=distribution)
    weights = {name: weight for name, weight in student.named_parameters() if name in masks_of(sparse)}
    size = sum(weight.numel() for weight in weights.values())
    kept = sum(counts_of(sparse).values())
    assert kept == round((1 - sparsity) * size)
    assert sum(int(weight.count_nonzero()) for weight in weights.values()) == kept
    density = sparse.density()
    assert density.overall == kept / size
    assert density.layers == {name: counts_of(sparse)[name] / weight.numel() for name, weight in weights.items()}
    parameters = sum(parameter.numel() for parameter in student.parameters())
    assert sparse.nonzero_parameters() == parameters - size + kept


def test_uniform_gives_every_layer_its_share() -> None:
    student = digits_student()
    sparse = SparseWeights(student, 0.7, steps=100, seed=1)
    for name, count in counts_of(sparse).items():
        assert abs(count - 0.3 * student.get_parameter(name).numel()) < 1


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, 0.99])
def test_erk_agrees_with_a_bisection(density: float) -> None:
    shapes = [(4, 1, 3, 3), (16, 16, 3, 3), (32, 16, 1, 1), (64, 64, 3, 3), (10, 64), (64, 128, 3)]
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    scores = np.array([sum(shape) for shape in shapes]) / sizes
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (np.minimum(1, middle * scores) * sizes).sum() < density * sizes.sum() else (
            low, middle,
        )  # fmt: skip
    expected = np.minimum(1, low * scores)
    found = erk_densities([torch.Size(shape) for shape in shapes], density)
    assert found == pytest.approx(expected.tolist(), abs=1e-9)
    assert max(found) <= 1
    assert np.dot(found, sizes) == pytest.approx(density * sizes.sum())


def test_erk_can_fill_every_layer_and_none() -> None:
    assert erk_densities([torch.Size((2, 3)), torch.Size((4, 5))], 1.0) == pytest.approx([1.0, 1.0])
    assert erk_densities([], 0.5) == []


def test_apportion_keeps_the_sum_and_one_weight_a_layer() -> None:
    assert apportion([3, 3, 3], [0.5, 0.5, 0.5]) in ([2, 1, 1], [1, 2, 1], [1, 1, 2])  # 4.5 rounds to even
    assert apportion([10, 20], [0.25, 0.6]) == [2, 12]
    assert apportion([5, 5], [1.0, 0.01]) == [5, 1]


def test_first_layer_depthwise_norms_and_biases_stay_dense() -> None:
    student = create_model("mobilenetv2", num_classes=10)
    sparse = SparseWeights(student, 0.5, steps=100, seed=0)
    modules = dict(student.named_modules())
    depthwise = {
        f"{name}.weight" for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    assert set(sparse.dense_layers) == {"conv1.0.weight", *depthwise}
    assert "classifier.0.weight" in masks_of(sparse)
    for name, parameter in student.named_parameters():
        if parameter.dim() == 1 or name in sparse.dense_layers:
            assert name not in masks_of(sparse)


def test_paper_resnet20_has_half_of_its_parameters() -> None:
    # Auto-KD, table 2: 0.27 M parameters become 0.13 M.
    sparse = SparseWeights(create_model("resnet20", num_classes=100), 0.5, steps=100, seed=0)
    assert sparse.nonzero_parameters() / 1e6 == pytest.approx(0.14, abs=0.005)


# The rule of RigL


def test_move_by_hand() -> None:
    active = torch.tensor([[True, True, True, False], [False, True, False, True]])
    weight = torch.tensor([[0.1, -0.9, 0.2, 0.0], [0.0, -0.3, 0.0, 0.8]])
    gradient = torch.tensor([[0.0, 9.0, 0.7, -0.6], [0.1, 0.2, -0.5, 9.0]])
    # Smallest active: 0.1 and 0.2. Candidates: these two and the masked; largest gradients: 0.7 (back) and 0.6.
    moved = move_mask(active, weight, gradient, 2)
    assert moved.tolist() == [[False, True, True, True], [False, True, False, True]]
    assert torch.equal(move_mask(active, weight, gradient, 0), active)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_move_agrees_with_numpy(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randperm(120, generator=generator).add(1).to(dtype).view(5, 8, 3)  # no ties, in any precision
    gradient = (torch.randperm(120, generator=generator).add(1).to(dtype) * -1).view(5, 8, 3)
    active = torch.rand(5, 8, 3, generator=generator) < 0.5
    w, g = (part.abs().double().numpy().ravel() for part in (weight, gradient))
    before = np.flatnonzero(active.numpy().ravel())
    kept = before[np.argsort(w[before])][20:]
    free = np.setdiff1d(np.arange(120), kept)
    expected = np.union1d(kept, free[np.argsort(-g[free])][:20])
    assert np.flatnonzero(move_mask(active, weight, gradient, 20).numpy().ravel()).tolist() == expected.tolist()


def test_schedule() -> None:
    sparse = SparseWeights(mlp(), 0.5, steps=400, seed=0, drop=0.3, every=50, until=0.75)
    assert [step for step in range(401) if sparse.drop_share(step)] == [50, 100, 150, 200, 250]
    assert sparse.drop_share(150) == pytest.approx(0.15)
    assert sparse.drop_share(100) == pytest.approx(0.3 / 2 * (1 + 0.5))
    assert sparse.drop_share(50) == pytest.approx(0.2799038106)
    static = SparseWeights(mlp(), 0.5, steps=400, seed=0, regrow=False)
    assert not any(static.drop_share(step) for step in range(401))


@pytest.mark.parametrize(("steps", "every"), [(1, 5), (24, 5), (100, 5), (1000, 50), (2000, 100), (32_000, 100)])
def test_a_twentieth_of_a_proxy_lies_between_changes(steps: int, every: int) -> None:
    assert SparseWeights(mlp(), 0.5, steps=steps, seed=0).every == every


@pytest.mark.parametrize("create", [sgd, adamw])
def test_a_change_of_masks_by_hand(create: Optimizers) -> None:
    model = mlp()
    weight = model.get_parameter("2.weight")  # 3x5, of which 8 are active
    sparse = SparseWeights(model, 0.5, steps=8, seed=0, drop=0.8, every=2, until=1.0)
    optimizer = create(model)
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    for step in (1, 2):
        before = masks_of(sparse)["2.weight"]
        optimizer.zero_grad()
        model(images).square().sum().backward()
        assert weight.grad is not None
        assert (weight.grad[~before] != 0).any()  # dense, as RigL needs it
        optimizer.step()
        stepped, gradient = weight.detach().clone(), weight.grad.clone()
        sparse.after_step(optimizer)
        after = masks_of(sparse)["2.weight"]
        if step == 1:
            assert torch.equal(before, after)
    count = int(0.8 / 2 * (1 + math.cos(math.pi * 2 / 8)) * 8)  # 5 of 8
    assert torch.equal(after, move_mask(before, stepped, gradient, count))
    new, stayed = after & ~before, after & before
    assert new.any()
    assert (weight[new] == 0).all()
    assert torch.equal(weight[stayed], stepped[stayed])
    state = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
    assert len(state) == (1 if create is sgd else 2)
    for value in state:
        assert (value[~after | new] == 0).all()
        assert (value[stayed] != 0).any()


@pytest.mark.parametrize("create", [sgd, adamw])
@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_counts_and_zeros_hold_through_a_training(
    digits: dict[str, Any], one_thread: None, create: Optimizers, distribution: Any
) -> None:
    student = digits_student()
    sparse = SparseWeights(student, 0.6, steps=40, seed=2, distribution=distribution)
    optimizer, counts, first = create(student), counts_of(sparse), masks_of(sparse)
    for step in range(40):
        before = masks_of(sparse)
        train(student, sparse, optimizer, digits, 1, start=step)
        after = masks_of(sparse)
        assert counts_of(sparse) == counts
        assert all(torch.equal(before[name], after[name]) for name in after) == (not sparse.drop_share(step + 1))
        for name, mask in after.items():
            weight = student.get_parameter(name)
            tensors = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
            assert all((tensor[~mask] == 0).all() for tensor in [weight, *tensors])
    assert sparse.density().layers == {
        name: count / student.get_parameter(name).numel() for name, count in counts.items()
    }
    full = [name for name, mask in first.items() if mask.all()]
    assert all(not torch.equal(first[name], mask) for name, mask in masks_of(sparse).items() if name not in full)


def test_masked_training_learns(digits: dict[str, Any], one_thread: None) -> None:
    student = digits_student()
    sparse = SparseWeights(student, 0.5, steps=80, seed=0)
    losses = train(student, sparse, sgd(student), digits, 80)
    assert losses[0] > 2
    assert max(losses[-5:]) < 0.5


# From the seed alone


def test_the_seed_decides_alone(digits: dict[str, Any], one_thread: None) -> None:
    def run(seed: int) -> tuple[str, dict[str, Tensor]]:
        student = digits_student()
        sparse = SparseWeights(student, 0.5, steps=10, seed=seed)
        drawn = masks_of(sparse)
        train(student, sparse, sgd(student), digits, 10)
        return checksum(student), drawn

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, masks = run(5)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    again, _ = run(5)
    assert first == again
    other, different = run(6)
    assert other != first
    assert all(not torch.equal(masks[name], different[name]) for name in masks)


@pytest.mark.parametrize("create", [sgd, adamw])
def test_a_checkpoint_goes_on_bit_identically(digits: dict[str, Any], one_thread: None, create: Optimizers) -> None:
    student = digits_student()
    sparse = SparseWeights(student, 0.5, steps=20, seed=0)
    optimizer = create(student)
    train(student, sparse, optimizer, digits, 11)
    saved = copy.deepcopy((student.state_dict(), optimizer.state_dict(), sparse.state_dict()))
    train(student, sparse, optimizer, digits, 9, start=11)

    resumed = digits_student(seed=7)
    masks = SparseWeights(resumed, 0.5, steps=20, seed=9)
    second = create(resumed)
    for target, state in zip((resumed, second, masks), saved, strict=True):
        target.load_state_dict(state)
    assert masks.step == 11
    train(resumed, masks, second, digits, 9, start=11)
    assert checksum(resumed) == checksum(student)
    assert all(torch.equal(mask, masks_of(masks)[name]) for name, mask in masks_of(sparse).items())


def test_masks_of_another_student_are_refused() -> None:
    sparse = SparseWeights(mlp(), 0.5, steps=10, seed=0)
    with pytest.raises(ValueError, match=r"\['2.weight'\] are on one side only"):
        sparse.load_state_dict({"step": 3, "masks": {}})
    with pytest.raises(ValueError, match=r"2.weight is \[3, 6\], but the weight is \[3, 5\]"):
        sparse.load_state_dict(SparseWeights(mlp(hidden=6), 0.5, steps=10, seed=0).state_dict())
    assert sparse.step == 0


# What cannot be masked, and what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1}, r"sparsity is a share in \[0, 1\); got 1"),
        ({"sparsity": -0.1}, r"sparsity is a share in \[0, 1\); got -0.1"),
        ({"sparsity": math.nan}, "sparsity is a share in .*; got nan"),
        ({"sparsity": True}, "got True"),
        ({"sparsity": "half"}, "got 'half'"),
        ({"drop": 1.1}, r"drop is a share in \[0, 1\]; got 1.1"),
        ({"until": 0}, r"until is a share in \(0, 1\]; got 0"),
        ({"steps": 0}, "steps is a whole number of optimizer steps >= 1; got 0"),
        ({"every": 2.5}, "every is a whole number .* got 2.5"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseWeights(mlp(), **{"steps": 10, "seed": 0, **arguments})


def test_an_unknown_distribution() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown distribution 'er'\. Did you mean 'erk'"):
        SparseWeights(mlp(), 0.5, steps=10, seed=0, distribution="er")  # type: ignore[arg-type]


def test_zero_sparsity_changes_nothing(digits: dict[str, Any], one_thread: None, caplog: Any) -> None:
    plain, student = digits_student(), digits_student()
    sparse = SparseWeights(student, 0, steps=5, seed=0)
    train(student, sparse, sgd(student), digits, 5)
    train(plain, SparseWeights(mlp(), 0.5, steps=5, seed=0), sgd(plain), digits, 5)
    assert checksum(plain) == checksum(student)
    assert sparse.density().overall == 1
    assert sparse.density().layers == {}
    assert sparse.nonzero_parameters() == sum(parameter.numel() for parameter in student.parameters())
    assert sparse.state_dict() == {"step": 5, "masks": {}}


@pytest.mark.parametrize("model", [nn.BatchNorm2d(3), nn.Linear(4, 2), nn.Identity()])
def test_nothing_to_mask_is_said(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sparse = SparseWeights(model, 0.5, steps=5, seed=0)
    assert "Nothing to mask" in caplog.text
    assert "sparsity=0" in caplog.text
    assert sparse.density().overall == 1


def test_tied_and_frozen_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    model[3].weight.requires_grad_(False)
    frozen = model[3].weight.clone()
    sparse = SparseWeights(model, 0.5, steps=5, seed=0, every=1)
    assert list(masks_of(sparse)) == ["1.weight"]
    assert torch.equal(model[3].weight, frozen)
    assert sparse.nonzero_parameters() == 3 * 16 + 4 * 4 - 8
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    sparse.after_step(optimizer)
    assert int(model[1].weight.count_nonzero()) <= 8


def test_without_a_gradient_the_mask_stays(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    sparse = SparseWeights(model, 0.5, steps=10, seed=0, every=1, drop=1.0)
    optimizer = sgd(model)
    before = masks_of(sparse)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    model[1].weight.grad = None
    sparse.after_step(optimizer)
    assert torch.equal(masks_of(sparse)["1.weight"], before["1.weight"])
    assert not torch.equal(masks_of(sparse)["2.weight"], before["2.weight"])
    assert not caplog.records
    optimizer.zero_grad()  # too early: said once
    sparse.after_step(optimizer)
    sparse.after_step(optimizer)
    assert [record.message for record in caplog.records] == [
        "No gradient to move the masks by: call after_step before zero_grad. regrow=False keeps the masks and "
        "silences this."
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_move_nothing(value: float) -> None:
    model = mlp()
    sparse = SparseWeights(model, 0.5, steps=10, seed=0, every=1, drop=1.0)
    before, weight = masks_of(sparse)["2.weight"], model.get_parameter("2.weight")
    weight.grad = torch.ones_like(weight)
    weight.grad[1, 2] = value
    sparse.after_step(sgd(model))  # a loss scaler has left the step out
    assert torch.equal(masks_of(sparse)["2.weight"], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = mlp(8, 16, 8).to(dtype)
    sparse = SparseWeights(model, 0.5, steps=10, seed=0, every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(5):
        model.zero_grad()
        model(torch.ones(2, 8, dtype=dtype)).square().sum().backward()
        optimizer.step()
        sparse.after_step(optimizer)
    weight = model.get_parameter("2.weight")
    assert weight.dtype == dtype
    assert counts_of(sparse) == {"2.weight": 64}
    assert (weight[~masks_of(sparse)["2.weight"]] == 0).all()


def test_channels_last_stays_and_draws_the_same_masks() -> None:
    plain = SparseWeights(create_model("resnet8", num_classes=10), 0.5, steps=10, seed=0)
    student = create_model("resnet8", num_classes=10).to(memory_format=torch.channels_last)
    sparse = SparseWeights(student, 0.5, steps=10, seed=0, every=1)
    assert all(torch.equal(mask, masks_of(sparse)[name]) for name, mask in masks_of(plain).items())
    optimizer = sgd(student)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    for _ in range(2):
        student(images).square().sum().backward()
        optimizer.step()
        sparse.after_step(optimizer)
    for name in masks_of(sparse):
        weight = student.get_parameter(name)
        if weight.dim() == 4:
            for tensor in (weight, sparse._masks[name], optimizer.state[weight]["momentum_buffer"]):
                assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_a_mask_is_drawn_evenly() -> None:
    weight = torch.zeros(20, 10)
    mean = torch.stack([draw_mask(weight, 60, seed) for seed in range(400)]).mean(0)
    assert (mean - 0.3).abs().max() < 0.12  # five standard deviations
    assert draw_mask(weight, 60, 0).sum() == 60


def test_layers_of_one_shape_get_different_masks() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    first, second = masks_of(SparseWeights(model, 0.5, steps=10, seed=0)).values()
    assert not torch.equal(first, second)


def test_a_wrapped_student_has_plain_names() -> None:
    sparse = SparseWeights(nn.DataParallel(mlp()), 0.5, steps=10, seed=0)
    assert list(masks_of(sparse)) == ["2.weight"]
