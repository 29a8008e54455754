"""Training one student: cycles that end at rungs, the same seed the same bits, and refusals with a name."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optuna_kd.distillers import DeadTermError
from optuna_kd.models import checksum
from optuna_kd.recipe import DistillerConfig, ProxyConfig, Recipe, TermConfig, TrainingConfig
from optuna_kd.rewards import MinibatchCKA
from optuna_kd.seeds import derive_seed
from optuna_kd.training import (
    ImageClassification,
    LossRejected,
    StudentTraining,
    TeacherKnowledge,
    accuracy,
    evaluate,
    store_knowledge,
)
from optuna_kd.training.lesson import Lesson
from optuna_kd.training.proxy import proxy_images

Make = Callable[..., ImageClassification]
KD = Recipe.from_string("none|l2*5 + kl@4*1")
LABELS = Recipe()


@pytest.fixture(scope="module")
def knowledge(task: ImageClassification) -> TeacherKnowledge:
    return store_knowledge(task)


def train(
    task: ImageClassification, recipe: Recipe = KD, epochs: int = 1, seed: int = 0, **more: Any
) -> StudentTraining:
    proxy = more.pop("proxy", ProxyConfig(epochs=epochs))
    training = StudentTraining(task, recipe, proxy, seed=seed, **more)
    for _ in training.run():
        pass
    return training


@pytest.mark.parametrize("text", ["labels", "none|l2*5 + kl@4*1", "mask>local>sample|kl*5 + pearson@4*1"])
def test_the_same_seed_gives_the_same_bits(task: ImageClassification, knowledge: TeacherKnowledge, text: str) -> None:
    recipe = Recipe.from_string(text)
    torch.manual_seed(1)
    first = train(task, recipe, epochs=2, seed=5, knowledge=knowledge)
    torch.manual_seed(2)  # the global generators have no say
    second = train(task, recipe, epochs=2, seed=5, knowledge=knowledge)
    assert checksum(first.student) == checksum(second.student)
    assert checksum(first.distiller.adapters) == checksum(second.distiller.adapters)
    assert checksum(train(task, recipe, epochs=2, seed=6, knowledge=knowledge).student) != checksum(first.student)


def test_recipes_share_initial_weights_and_batches(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    seen: list[list[Tensor]] = []
    starts = []
    for recipe in (LABELS, KD):
        batches: list[Tensor] = []

        class Spy(StudentTraining):
            def learn(self, lesson: Lesson) -> None:
                batches.append(lesson.indices)  # noqa: B023
                super().learn(lesson)

        training = Spy(task, recipe, ProxyConfig(epochs=2), seed=1, knowledge=knowledge)
        starts.append(checksum(training.student))
        list(training.run())
        seen.append(batches)
    assert starts[0] == starts[1]
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    per_epoch = [torch.cat(seen[0][:5]), torch.cat(seen[0][5:])]
    assert all(len(epoch.unique()) == 160 for epoch in per_epoch)  # every image once
    assert not torch.equal(*per_epoch)


def test_training_learns(make_task: Make) -> None:
    task = make_task(augment="none")
    training = StudentTraining(task, LABELS, ProxyConfig(epochs=10, rungs=(1, 10)), seed=0)
    first, last = training.run()
    assert last.metrics.cross_entropy < 0.7 * first.metrics.cross_entropy
    assert last.metrics.accuracy > 0.6
    assert last.losses["total"] < first.losses["total"]


def test_rungs_report_terms_and_epochs(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    training = StudentTraining(task, KD, ProxyConfig(epochs=4), seed=0, knowledge=knowledge)
    rungs = list(training.run())
    assert [rung.epoch for rung in rungs] == [1, 2, 4]
    losses = rungs[-1].losses
    assert set(losses) == {"cross_entropy", "features", "logits", "total"}
    parts = losses["cross_entropy"] + losses["features"] + losses["logits"]
    assert losses["total"] == pytest.approx(parts, rel=1e-5)


def test_a_proxy_can_be_left_at_a_rung(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    """Up to a rung a longer proxy is the shorter one: pruned trials lose nothing and show nothing else."""
    short = StudentTraining(task, KD, ProxyConfig(epochs=2, rungs=(1, 2)), seed=0, knowledge=knowledge)
    long = StudentTraining(task, KD, ProxyConfig(epochs=4, rungs=(1, 2, 4)), seed=0, knowledge=knowledge)
    for first, second in itertools.islice(zip(short.run(), long.run(), strict=False), 2):
        assert first == second


def rates(task: ImageClassification, proxy: ProxyConfig) -> list[float]:
    """The learning rate of every step."""
    training = StudentTraining(task, LABELS, proxy, seed=0)
    found: list[float] = []
    cycles = itertools.pairwise((0, *proxy.rungs))
    for start, end in cycles:
        for epoch in range(start, end):
            for _ in training.steps(epoch, (start, end)):
                found.append(training.optimizer.param_groups[0]["lr"])
    return found


def test_each_rung_ends_a_cosine_cycle_and_the_next_starts_warm(make_task: Make) -> None:
    task = make_task(batch_size=8, lr=0.2)  # 20 steps an epoch
    found = rates(task, ProxyConfig(epochs=4, rungs=(1, 2, 4)))
    cycles = [found[:20], found[20:40], found[40:]]
    assert [len(cycle) for cycle in cycles] == [20, 20, 40]
    for cycle in cycles:
        assert cycle[-1] < 0.03 * 0.2
        peak = cycle.index(max(cycle))
        assert cycle[peak:] == sorted(cycle[peak:], reverse=True)
    assert 0 < cycles[0][0] < 0.02  # the very first steps rise
    assert max(cycles[0]) == pytest.approx(0.2)
    assert [cycle[0] for cycle in cycles[1:]] == [0.2, 0.2]  # restarts do not
    middle = cycles[1][10]
    assert middle == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi / 2)))


def test_a_proxy_has_its_batches_and_a_recipe_its_own(make_task: Make) -> None:
    task = make_task(batch_size=40)  # 160 images
    chosen = dataclasses.replace(LABELS, training=TrainingConfig(batch_size=20, lr=0.1))
    for recipe, proxy, size in (
        (LABELS, ProxyConfig(epochs=1), 40),
        (LABELS, ProxyConfig(epochs=1, batch_size=16), 16),
        (chosen, ProxyConfig(epochs=1, batch_size=16), 20),
    ):
        training = StudentTraining(task, recipe, proxy, seed=0)
        sizes = []
        for lesson in training.lessons():
            if isinstance(lesson, Lesson):
                sizes.append(len(lesson.indices))
                lesson.learn()
        assert sizes == [size] * (160 // size)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers(make_task: Make, optimizer: str) -> None:
    task = make_task(optimizer=optimizer, lr=0.01)
    training = train(task)
    (group,) = training.optimizer.param_groups
    assert group["weight_decay"] == task.weight_decay
    assert (group.get("momentum") == 0.9) is (optimizer == "sgd")
    # Adapters are trained with the student.
    assert len(group["params"]) == len([*training.student.parameters(), *training.distiller.parameters()])
    assert len([*training.distiller.parameters()]) > 0


def test_an_exploding_training_is_rejected_with_the_term(make_task: Make) -> None:
    with pytest.raises(LossRejected, match=r"(non-finite|exploding) loss"):
        train(make_task(lr=1e6), epochs=3)


class Poisoned(nn.Module):
    """A network that puts out NaN from its third training step on."""

    def __init__(self, value: float, after: int = 2) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 10)
        self.value, self.after, self.steps = value, after, 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).relu().flatten(1))
        self.steps += self.training
        return logits * self.value if self.steps > self.after and self.training else logits


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "non-finite loss: cross_entropy is nan"),
        (math.inf, "non-finite loss: cross_entropy is (nan|inf)"),
        (1e8, r"exploding loss: cross_entropy is .*, above 10000"),
    ],
)
def test_a_loss_out_of_bounds_is_rejected_by_name(make_task: Make, value: float, message: str) -> None:
    task = make_task(student=lambda: Poisoned(value))
    with pytest.raises(LossRejected, match=message):
        train(task, LABELS)
    with pytest.raises(LossRejected, match=message):
        train(task)


def test_a_loss_that_grows_is_rejected(make_task: Make) -> None:
    task = make_task(student=lambda: Poisoned(300, after=5))
    with pytest.raises(LossRejected, match=r"exploding loss: a cross-entropy of .* in epoch 2, guessing has 2.3"):
        train(task, LABELS, epochs=4)


def test_rising_weights_are_no_explosion(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    """The total grows a hundredfold while the weight of a large term rises; nothing diverges."""
    term = TermConfig("features", "l2", weight=500.0)
    recipe = Recipe(DistillerConfig((term,), warmup=0.9))
    training = train(task, recipe, epochs=4, knowledge=knowledge)
    assert training.evaluate().cross_entropy < 10


class Detached(Poisoned):
    """A network whose maps come without gradient, as under a forgotten `torch.no_grad`."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.stem(images)
        logits: Tensor = self.head(maps.relu().flatten(1))
        return logits


def test_a_term_without_gradient_is_an_error_with_its_name(make_task: Make) -> None:
    task = make_task(student=Detached, student_layer="stem")
    with pytest.raises(DeadTermError, match=r"'features'.*compares outputs without gradient") as caught:
        train(task)
    assert set(caught.value.terms) == {"features"}
    train(task, Recipe.from_string("kl@4*1"))  # logits still learn
    train(task, LABELS)


def test_a_constant_term_is_an_error_with_its_name(make_task: Make) -> None:
    def on_2x2() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 6, 4, stride=4), nn.Flatten(), nn.Linear(24, 10))

    task = make_task(teacher=on_2x2(), student=on_2x2, teacher_layer="0", student_layer="0")
    with pytest.raises(DeadTermError, match="'features'"):
        train(task, Recipe.from_string("local>channel|kl*5 + kl@4*1"))
    train(task, Recipe.from_string("local>sample|kl*5 + kl@4*1"))


def test_a_head_that_starts_at_zero_is_not_dead(make_task: Make, make_teacher: Callable[[int], nn.Module]) -> None:
    def zero_head() -> nn.Module:
        model = Poisoned(1.0)
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        return model

    train(make_task(student=zero_head))


def snapshot(teacher: nn.Module) -> tuple[str, list[bool], list[bool]]:
    return checksum(teacher), [m.training for m in teacher.modules()], [p.requires_grad for p in teacher.parameters()]


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize("offline", [True, False])
def test_the_teacher_is_untouched(make_task: Make, batchnorm: Any, offline: bool) -> None:
    task = make_task()
    before = snapshot(task.teacher)
    knowledge = store_knowledge(task) if offline else None
    config = dataclasses.replace(KD.distiller, teacher_batchnorm=batchnorm)
    training = StudentTraining(task, Recipe(config), ProxyConfig(epochs=1), seed=0, knowledge=knowledge)
    list(training.run())
    assert snapshot(task.teacher) == before
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_batch_statistics_ask_the_teacher_online(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    config = dataclasses.replace(KD.distiller, teacher_batchnorm="train")
    offline = train(task, KD, knowledge=knowledge)
    batch = train(task, Recipe(config), knowledge=knowledge)
    assert batch.knowledge is None
    assert offline.knowledge is knowledge
    assert checksum(batch.student) != checksum(offline.student)
    assert checksum(batch.student) == checksum(train(task, Recipe(config)).student)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_schedules_move_the_weights(make_task: Make, knowledge: TeacherKnowledge, optimizer: str) -> None:
    task = make_task(optimizer=optimizer, lr=0.02)

    def features(**schedule: float) -> list[float]:
        config = dataclasses.replace(KD.distiller, **schedule)
        training = StudentTraining(task, Recipe(config), ProxyConfig(epochs=4, rungs=(4,)), seed=0, knowledge=knowledge)
        return [float(terms["features"]) for epoch in range(4) for terms in training.steps(epoch, (0, 4))]

    plain, stopped, warmed = features(), features(stop=0.5), features(warmup=0.5)
    assert stopped[:10] == plain[:10]
    assert stopped[10:] == [0] * 10
    assert warmed[0] == 0
    assert warmed[1] == pytest.approx(plain[1] / 10, rel=0.2)
    assert warmed[-1] > 0


def test_zero_buffers_are_a_plain_first_step(task: ImageClassification) -> None:
    training = StudentTraining(task, LABELS, ProxyConfig(epochs=1), seed=0)
    model = task.make_student(derive_seed(0, "student"))
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for ours, theirs in zip(training.student.parameters(), model.parameters(), strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator)
            theirs.grad = ours.grad.clone()
        training.optimizer.step()
        plain.step()
    for ours, theirs in zip(training.student.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_share_of_images_is_stratified_and_fixed(task: ImageClassification) -> None:
    train_part, val = proxy_images(task, ProxyConfig(epochs=1, subset=0.5))
    assert len(train_part) == 80
    assert len(val) == 40
    counts, all_counts = task.train_set.labels[train_part].bincount(), task.train_set.labels.bincount()
    assert (counts - all_counts / 2).abs().max() <= 1
    assert torch.equal(train_part, proxy_images(task, ProxyConfig(epochs=1, subset=0.5))[0])


def test_a_share_of_classes_is_judged_on_them(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    proxy = ProxyConfig(epochs=1, subset=0.3, subset_by="classes")
    train_part, val = proxy_images(task, proxy)
    classes = set(task.train_set.labels[train_part].tolist())
    assert len(classes) == 3
    assert set(task.val_set.labels[val].tolist()) == classes
    assert len(val) == sum(int((task.val_set.labels == label).sum()) for label in classes)
    assert len(train_part) == sum(int((task.train_set.labels == label).sum()) for label in classes)
    training = StudentTraining(task, KD, proxy, seed=0, knowledge=knowledge)
    (rung,) = training.run()
    # The same by hand, on these images alone.
    with torch.no_grad():
        logits = training.student(task.prepare(task.val_set.images[val]))
    right = (logits.argmax(1) == task.val_set.labels[val]).float().mean()
    assert rung.metrics.accuracy == pytest.approx(float(right))


def test_a_subset_smaller_than_a_batch_trains(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    training = train(task, proxy=ProxyConfig(epochs=2, subset=0.1), knowledge=knowledge)
    assert len(training.indices) == 16
    assert training.steps_per_epoch == 1


@pytest.mark.parametrize("offline", [True, False])
def test_metrics_by_hand(task: ImageClassification, knowledge: TeacherKnowledge, offline: bool) -> None:
    student = task.make_student(4)
    metrics = evaluate(task, student, knowledge if offline else None)
    student.eval()
    images, labels = task.prepare(task.val_set.images), task.val_set.labels
    with torch.no_grad(), task.observe(student) as observe:
        known, taught = observe(images), task.teacher_knowledge(images)
    cka = MinibatchCKA()
    cka.update(known.features[0], taught.features[0])
    log_p = known.logits.log_softmax(1)
    assert metrics.num_classes == 10
    assert metrics.accuracy == pytest.approx(float((known.logits.argmax(1) == labels).float().mean()))
    assert metrics.cross_entropy == pytest.approx(float(-log_p.gather(1, labels[:, None]).mean()), rel=1e-5)
    assert metrics.cka == pytest.approx(cka.value(), rel=1e-5)
    distance = (log_p.exp() - taught.logits.softmax(1)).abs().sum(1).mean()
    assert metrics.l1 == pytest.approx(float(distance), rel=1e-4)


def test_a_student_equal_to_its_teacher_has_no_gap(make_task: Make, make_teacher: Callable[[int], nn.Module]) -> None:
    task = make_task(student=lambda: make_teacher(0))
    metrics = evaluate(task, make_teacher(0))
    assert metrics.gap == pytest.approx(0, abs=1e-6)
    assert metrics.l1 == pytest.approx(0, abs=1e-5)


def test_judging_changes_nothing(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    judged = StudentTraining(task, KD, ProxyConfig(epochs=2), seed=0, knowledge=knowledge)
    list(judged.run())
    assert checksum(judged.student) == checksum(train(task, epochs=2, knowledge=knowledge).student)


def test_accuracy_of_parts(task: ImageClassification, make_task: Make) -> None:
    student = task.make_student(0)
    student.train()
    before = checksum(student)
    score = accuracy(task, student, "test")
    assert student.training
    assert checksum(student) == before
    student.eval()
    assert task.test_set is not None
    with torch.no_grad():
        expected = (student(task.prepare(task.test_set.images)).argmax(1) == task.test_set.labels).float().mean()
    assert score == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="no test data"):
        accuracy(make_task(test=None), student, "test")


class Noisy(torch.utils.data.Dataset):
    """64 digits with a random transform of their own."""

    def __init__(self, digits: dict[str, Any]) -> None:
        self.images, self.targets = digits["train"][0][:64], digits["train"][1][:64]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).float() / 255
        return image + 0.1 * torch.rand(1), int(self.targets[index])


def test_streaming_data_train_repeatably_with_the_teacher_online(make_task: Make, digits: dict[str, Any]) -> None:
    task = make_task(train=Noisy(digits), val=digits["test"], batch_size=16)
    first, second = train(task, epochs=2, seed=1), train(task, epochs=2, seed=1)
    assert checksum(first.student) == checksum(second.student)
    assert first.knowledge is None
    assert 0 <= first.evaluate().accuracy <= 1


def test_every_kind_of_knowledge_trains(task: ImageClassification, knowledge: TeacherKnowledge) -> None:
    terms = (
        TermConfig("features", "gl2", 5, ("attention", "channel")),
        TermConfig("embeddings", "renyi", 0.5),
        TermConfig("logits", "kl", 1, ("zscore",), 2),
    )
    recipe = Recipe(DistillerConfig(terms, normalise="initial"))
    training = StudentTraining(task, recipe, ProxyConfig(epochs=1), seed=0, knowledge=knowledge)
    (rung,) = training.run()
    assert set(rung.losses) == {"cross_entropy", "features", "embeddings", "logits", "total"}
    assert all(map(math.isfinite, rung.losses.values()))


def test_dropout_follows_the_seed(make_task: Make) -> None:
    def student() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 10),
        )

    task = make_task(student=student)
    assert task.student_layer.name == "1"  # not the dropout
    first, second = (train(task, KD, epochs=1, seed=4) for _ in range(2))
    assert checksum(first.student) == checksum(second.student)


def test_a_validation_loss_that_is_not_finite_is_rejected(make_task: Make) -> None:
    task = make_task(lr=1e30, batch_size=160)
    with pytest.raises(LossRejected, match=r"non-finite|exploding"):
        list(StudentTraining(task, LABELS, ProxyConfig(epochs=2), seed=0).run())


def test_a_term_scaled_to_a_unit_gradient_may_begin_large(
    task: ImageClassification, knowledge: TeacherKnowledge
) -> None:
    term = TermConfig("features", "l2", weight=5e4)
    recipe = Recipe(DistillerConfig((term,), normalise="initial"))
    assert train(task, recipe, knowledge=knowledge).evaluate().cross_entropy < 10
    with pytest.raises(LossRejected, match="exploding loss: features"):
        train(task, Recipe(DistillerConfig((TermConfig("features", "l2", weight=5e6),))), knowledge=knowledge)


def test_a_sparse_proxy_keeps_its_zeros_and_is_repeatable(task: ImageClassification) -> None:
    proxy = ProxyConfig(epochs=3, rungs=(3,), sparsity=0.5)
    recipe = Recipe.from_string("kl@4*1")
    students = []
    for _ in range(2):
        training = StudentTraining(task, recipe, proxy, seed=3)
        before = [parameter.clone() for parameter in training.student.parameters()]
        assert training.sparse is not None
        layers = dict(training.sparse.density().layers)
        list(training.run())
        assert dict(training.sparse.density().layers) == layers  # regrown elsewhere, and as many
        assert training.sparse.density().overall == pytest.approx(0.5, abs=0.01)
        assert any(not torch.equal(old, new) for old, new in zip(before, training.student.parameters(), strict=True))
        students.append(training.student.state_dict())
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())
    assert StudentTraining(task, recipe, ProxyConfig(epochs=3), seed=3).sparse is None


def test_students_may_run_in_half_precision(task: ImageClassification, make_task: Make) -> None:
    """Weights and losses stay float32; a rung scores the network as it learns, up to rounding as in float32."""
    half = make_task(precision="bfloat16")
    training = StudentTraining(half, KD, ProxyConfig(epochs=2, rungs=(2,)), seed=0)
    seen: list[torch.dtype] = []
    training.distiller.register_forward_pre_hook(
        lambda _, given: seen.extend(known.logits.dtype for known in given[:2])
    )
    (rung,) = training.run()
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in training.parameters} == {torch.float32}
    (whole,) = StudentTraining(task, KD, ProxyConfig(epochs=2, rungs=(2,)), seed=0).run()
    assert rung.losses["total"] == pytest.approx(whole.losses["total"], rel=0.1)
    assert rung.losses["total"] != whole.losses["total"]
    assert rung.metrics == evaluate(task, training.student, precision=training.precision)
    exact = evaluate(task, training.student)
    assert rung.metrics.cross_entropy == pytest.approx(exact.cross_entropy, rel=0.01)
    assert rung.metrics.cross_entropy != exact.cross_entropy
    assert rung.metrics.cka == pytest.approx(exact.cka, abs=0.01)


def test_a_precision_that_is_none_is_refused_with_the_task(make_task: Make) -> None:
    with pytest.raises(ValueError, match=r"Unknown precision 'float16'\. Did you mean 'bfloat16'"):
        make_task(precision="float16")
    with pytest.raises(ValueError, match="deterministic=True goes with float32"):
        make_task(precision="bfloat16", deterministic=True)
