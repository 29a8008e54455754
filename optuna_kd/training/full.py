"""Full training of a known recipe, over several seeds, and what comes out of it."""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optuna_kd.cards import MethodResult, RecipeCard, TaskFacts, protocol_of, save_card
from optuna_kd.files import write_whole
from optuna_kd.models import create_student, unwrap
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.seeds import derive_seed
from optuna_kd.training.checkpoint import NO_CHECKPOINT, Checkpoint
from optuna_kd.training.evaluation import accuracy
from optuna_kd.training.offline import TeacherKnowledge, store_affordable
from optuna_kd.training.ranks import ALONE, Ranks
from optuna_kd.training.selection import Selection
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.together import Attempt, learn_alone, next_rung
from optuna_kd.training.trainer import StudentTraining


@dataclass(frozen=True)
class FullRun:
    """One full training: its seed and what the student scored after the last epoch.

    Args:
        seed: Index of the seed; equal indices share initial weights and batches across recipes.
        val_accuracy: Share correct on the validation data, in [0, 1].
        test_accuracy: Share correct on the test data; None where the task has none.
        cross_entropy: On the validation data, in nats; None for a training that was rejected.
        cka: Of student and teacher on the validation data; None likewise.
        seconds: Wall-clock time of the training.
        selected_epoch: The one with the best validation accuracy (`Selection`); None for a training that was rejected.
        selected_test_accuracy: Of the student of that epoch; None without test data.
    """

    seed: int
    val_accuracy: float
    test_accuracy: float | None
    cross_entropy: float | None
    cka: float | None
    seconds: float
    selected_epoch: int | None = None
    selected_test_accuracy: float | None = None


@dataclass(frozen=True)
class DistillResult:
    """Students trained by one recipe.

    Args:
        recipe: The recipe.
        epochs: Length of each training.
        runs: One per seed.
        student: The one with the best validation accuracy.
        card: What a file of results should say about task and student.
    """

    recipe: Recipe
    epochs: int
    runs: tuple[FullRun, ...]
    student: nn.Module
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def test_accuracies(self) -> list[float]:
        """Test accuracy of each seed; empty without test data."""
        return [run.test_accuracy for run in self.runs if run.test_accuracy is not None]

    def __str__(self) -> str:
        values, part = self.test_accuracies, "test"
        if not values:
            values, part = [run.val_accuracy for run in self.runs], "validation"
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{self.recipe}: {part} accuracy {100 * statistics.fmean(values):.2f}{spread} % over {len(values)} seeds"

    def to_card(self, name: str = "") -> RecipeCard:
        """Give the recipe card; `name` says which run it is of.

        Raises:
            ValueError: If this was not made by `distill`, so that nothing is known of the task.
        """
        if "facts" not in self.card:
            raise ValueError("This result does not say what it was trained on; those of distill do.")
        described, knowledge = self.card["task"], self.card["knowledge"]
        validation = tuple(run.val_accuracy for run in self.runs)
        tested = tuple(self.test_accuracies)
        selected = tuple(run.selected_test_accuracy for run in self.runs if run.selected_test_accuracy is not None)
        return RecipeCard(
            recipe=self.recipe,
            task=TaskFacts.from_dict(self.card["facts"]),
            teacher_accuracy=self.card["teacher_accuracy"],
            protocol=protocol_of(described, epochs=self.epochs, knowledge=knowledge),
            part="test" if tested else "validation",
            result=MethodResult(
                "distill",
                str(dataclasses.replace(self.recipe, student=None)),
                tested or validation,
                validation,
                selected,
            ),
            study=name,
        )

    def save(self, directory: str | Path) -> Path:
        """Write `student.pt` (a plain `state_dict`), `recipe.json`, `summary.json` and the card; return the folder."""
        folder = Path(directory)
        save_student(self.student.state_dict(), folder / "student.pt")
        self.recipe.save(folder / "recipe.json")
        summary = {
            **self.card,
            "recipe": str(self.recipe),
            "epochs": self.epochs,
            "runs": list(map(asdict, self.runs)),
        }
        write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        if "facts" in self.card:
            save_card(self.to_card(folder.resolve().name), folder)
        return folder


def distill(
    task: ImageClassification,
    recipe: Recipe | str,
    *,
    epochs: int = 60,
    seeds: int = 5,
    seed: int = 0,
    knowledge: TeacherKnowledge | None = None,
    on_run: Callable[[FullRun], None] | None = None,
    ranks: Ranks = ALONE,
) -> DistillResult:
    """Train students in full by a known recipe.

    Args:
        task: What is to be distilled. Its test data are read here, once per student, after the training.
        recipe: What to train with: a `Recipe`, or its line.
        epochs: Of each training: one cosine cycle.
        seeds: How many students.
        seed: From which all seeds derive.
        knowledge: Stored outputs of the teacher; None stores them first if they fit into memory.
        on_run: Called after each student.
        ranks: The processes that train each student together (`join_ranks`), all with the same arguments; the teacher
            is that of rank 0. Each of them gets the result.

    Raises:
        optuna_kd.distillers.InvalidChainError: If the recipe cannot be built on the maps of the task.
        optuna_kd.training.LossRejected: If a loss is not finite or explodes.
        optuna_kd.training.KnowledgeMismatchError: For knowledge of another teacher, split or preprocessing.
    """
    recipe = Recipe.from_string(recipe) if isinstance(recipe, str) else recipe
    if seeds < 1 or epochs < 1:
        raise ValueError(f"distill needs at least 1 seed and 1 epoch; got seeds={seeds!r}, epochs={epochs!r}.")
    task = task.for_recipe(recipe)
    if (state := ranks.state_of_leader(task.teacher.state_dict)) is not None:
        task.teacher.load_state_dict(state)
    arguments = {"recipe": str(recipe), "epochs": epochs, "seeds": seeds, "seed": seed}
    ranks.require_same(lambda: {**arguments, **task.describe()})
    is_chosen = recipe.student is not None and recipe.student == task.student_config
    if knowledge is not None:
        knowledge.check(task)
    else:  # without terms too: stored views repeat, and all recipes are to see the same images
        knowledge = store_affordable(task, torch.arange(len(task.train_set)))
    runs: list[FullRun] = []
    best: nn.Module | None = None
    for index in range(seeds):
        with task.settings():
            run, student = train_student(
                task, recipe, epochs=epochs, seed=seed, index=index, knowledge=knowledge, ranks=ranks
            )
        if best is None or run.val_accuracy > max(other.val_accuracy for other in runs):
            best = student
        runs.append(run)
        if on_run is not None:
            on_run(run)
    assert best is not None
    if recipe.student is not None and not is_chosen and not _is_model(recipe.student, task, best):
        recipe = dataclasses.replace(recipe, student=None)  # it was found for another student
    card = {
        "task": task.describe(),
        "layers": task.layers(),
        **student_card(task),
        "facts": task.facts().to_dict(),
        "teacher_accuracy": accuracy(task, task.teacher, "val"),
        "knowledge": knowledge.mode if knowledge is not None else "online",
    }
    return DistillResult(recipe, epochs, tuple(runs), best, card)


def _is_model(config: StudentConfig, task: ImageClassification, student: nn.Module) -> bool:
    """Whether the registered model of this name and these options has the weights of a student."""
    channels, height, width = task.image_shape
    try:
        model = create_student(config, num_classes=task.num_classes, in_channels=channels, input_size=(height, width))
    except ValueError:
        return False

    def shapes(network: nn.Module) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in network.state_dict().items()}

    return shapes(model) == shapes(student)


def student_card(task: ImageClassification) -> dict[str, Any]:
    """Say what `optuna_kd.load_student` needs to know of a student beside its weights and its recipe."""
    return {
        "student": {
            "name": task.student_name,
            "classes": task.num_classes,
            "image_shape": list(task.image_shape),
            "class_names": list(task.train_set.class_names or ()),
        },
        "preprocessing": task.preprocessing(),
    }


def train_student(
    task: ImageClassification,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    index: int,
    knowledge: TeacherKnowledge | None = None,
    ranks: Ranks = ALONE,
) -> tuple[FullRun, nn.Module]:
    """Train one student in full; equal `seed` and `index` give equal initial weights and batches."""
    return learn_alone(
        attempt_student(task, recipe, epochs=epochs, seed=seed, index=index, knowledge=knowledge, ranks=ranks)
    )


def attempt_student(
    task: ImageClassification,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    index: int,
    knowledge: TeacherKnowledge | None = None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    ranks: Ranks = ALONE,
) -> Attempt[tuple[FullRun, nn.Module]]:
    """Train one student in full, as `train_student` does, step by step: alone or beside others."""
    started = time.perf_counter()
    schedule = ProxyConfig(epochs=epochs, rungs=(epochs,))
    seed = derive_seed(seed, "full", index)
    checkpoint = checkpoint if ranks.leads else NO_CHECKPOINT
    selection = Selection(task, epochs, ranks)
    with checkpoint.until_the_end():
        training = StudentTraining(
            task, recipe, schedule, seed=seed, knowledge=knowledge, checkpoint=checkpoint, ranks=ranks,
            selection=selection,
        )  # fmt: skip
        rung = yield from next_rung(training.lessons())
    assert rung is not None  # its one and only
    seconds = time.perf_counter() - started
    training.observer.close()
    student, metrics = unwrap(training.student), rung.metrics
    test = selected_test = None
    if task.test_set is not None:  # read once, for both students
        test = ranks.agree(lambda: accuracy(task, student, "test"))
        selected_test = test
        if selection.epoch != epochs:
            selected_test = ranks.agree(lambda: accuracy(task, selection.student(student), "test"))
    run = FullRun(
        index, metrics.accuracy, test, metrics.cross_entropy, metrics.cka, round(seconds, 3), selection.epoch,
        selected_test,
    )  # fmt: skip
    return run, student


def save_student(state: dict[str, Tensor], path: Path) -> None:
    """Write a plain `state_dict`, on the CPU and in the default memory layout, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    buffer = io.BytesIO()  # to a file torch writes with errors of its own where the disk is full
    torch.save(plain, buffer)
    write_whole(path, buffer.getvalue())


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
