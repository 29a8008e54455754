"""What the commands of the command line do, from plain options."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn

from optuna_kd.data import DataSplits, load_data
from optuna_kd.models import create_model, load_weights
from optuna_kd.objective import dead_cells
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.runner.estimate import estimate, seconds_per_step
from optuna_kd.runner.main_job import Plan, parse_duration, search
from optuna_kd.runner.progress import create_reporter, format_seconds
from optuna_kd.runner.teacher import cache_folder, check_teacher, trained_teacher
from optuna_kd.search_space import SPACES, Space, create_space
from optuna_kd.student import export_onnx
from optuna_kd.training.full import distill
from optuna_kd.training.offline import knowledge_bytes
from optuna_kd.training.task import ImageClassification

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """Models and budgets that suit a data set on a CPU."""

    teacher: str
    student: str
    teacher_epochs: int
    proxy_epochs: int
    epochs: int
    seeds: int
    batch_size: int
    subset: float


# On the digits the student has 1,384 parameters and some 200 steps: little enough that teaching matters.
DIGITS = Defaults("resnet20", "resnet8x0.125", 30, proxy_epochs=8, epochs=15, seeds=10, batch_size=64, subset=1.0)
NATURAL = Defaults("resnet20", "resnet8", 30, proxy_epochs=12, epochs=60, seeds=3, batch_size=128, subset=0.2)


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options that make a task."""

    data: str
    teacher: str | None
    teacher_checkpoint: Path | None
    student: str | None
    device: str
    epochs: int | None
    seeds: int | None
    max_train: int | None
    batch_size: int | None
    image_size: int | None
    seed: int

    @property
    def defaults(self) -> Defaults:
        """What suits the data set."""
        return DIGITS if self.data == "digits" else NATURAL

    @property
    def teacher_name(self) -> str:
        """The teacher, by name."""
        return self.teacher or self.defaults.teacher

    @property
    def student_name(self) -> str:
        """The student, by name."""
        return self.student or self.defaults.student


@dataclass(frozen=True, kw_only=True)
class SearchOptions(TaskOptions):
    """The options of `optuna-kd search`."""

    trials: int | None
    timeout: str | None
    workers: int
    storage: str
    study_name: str | None
    space: str
    sampler: str
    reward: str
    temperatures: str | None
    proxy_epochs: int | None
    subset: float | None
    subset_by: str
    confirm: str
    runs: Path
    dry_run: bool


def run_search(options: SearchOptions, console: Console) -> None:
    """Run the main job and print its table."""
    defaults = options.defaults
    space = _space(options)
    confirm = _pair(options.confirm)
    plan = Plan(
        trials=options.trials or (None if options.timeout else 60),
        budget=parse_duration(options.timeout) if options.timeout else None,
        confirm=confirm,
        epochs=options.epochs or defaults.epochs,
        seeds=options.seeds or defaults.seeds,
        workers=options.workers,
    )
    splits = load_splits(options)
    proxy = _proxy(options, splits)
    if options.dry_run:
        dry_run(options, splits, plan, proxy, space, console)
        return
    reporter = create_reporter(True, console)
    try:
        task = create_task(options, splits, say=reporter.note)
        result = search(
            task,
            trials=options.trials,
            budget=options.timeout,
            workers=plan.workers,
            storage=options.storage,
            study_name=options.study_name,
            seed=options.seed,
            space=space,
            sampler=options.sampler,
            reward=options.reward,
            proxy=proxy,
            epochs=plan.epochs,
            seeds=plan.seeds,
            confirm=confirm,
            directory=options.runs,
            progress=reporter,
            name=f"auto-kd-{splits.name}-{options.student_name}".replace("/", "-"),
            student_config=StudentConfig(options.student_name),
        )
    finally:
        reporter.close()
    console.print(result.table())
    console.print(result.verdict, highlight=False)
    console.print(f"\nFound      {Recipe(result.recipe.distiller)}", highlight=False, markup=False)
    console.print(f"Student    {result.directory / 'student.pt'}", highlight=False, soft_wrap=True)
    console.print(f"Dashboard  optuna-dashboard {options.storage}", highlight=False, soft_wrap=True)


def run_distill(options: TaskOptions, recipe_file: Path, out: Path, console: Console) -> None:
    """Train a known recipe in full and write the student."""
    recipe = Recipe.load(recipe_file)
    defaults = options.defaults
    student = options.student or (recipe.student.name if recipe.student else defaults.student)
    options = _replace(options, student=student)
    splits = load_splits(options)
    task = create_task(options, splits, say=lambda text: console.print(text, highlight=False, soft_wrap=True))
    check_teacher(task)
    seeds = options.seeds or defaults.seeds
    result = distill(
        task,
        Recipe(recipe.distiller, StudentConfig(student)),
        epochs=options.epochs or defaults.epochs,
        seeds=seeds,
        seed=options.seed,
        on_run=lambda run: console.print(
            f"seed {run.seed}  validation {100 * run.val_accuracy:.2f} %  "
            + (f"test {100 * run.test_accuracy:.2f} %  " if run.test_accuracy is not None else "")
            + f"{run.seconds:.1f} s",
            highlight=False,
        ),
    )
    folder = result.save(out)
    console.print(str(result), highlight=False, markup=False)
    console.print(f"Student    {folder / 'student.pt'}", highlight=False, soft_wrap=True)


def show_spaces(console: Console) -> None:
    """Print what can be searched."""
    for name in SPACES:
        space = create_space(name)
        table = Table(title=f"{name}: {space.size():,} recipes", caption=space.description, title_justify="left")
        table.add_column("factor")
        table.add_column("options")
        for factor, choices in space.factors().items():
            table.add_row(factor.partition("__")[0], "  ".join(map(str, choices)))
        console.print(table)


def run_export(run: Path, onnx: Path, console: Console) -> None:
    """Write the student of a finished search as ONNX."""
    file = export_onnx(run, onnx)
    console.print(f"Wrote {file}: images [N, C, H, W] in [0, 1] -> logits [N, K]", highlight=False, markup=False)


def dry_run(
    options: SearchOptions, splits: DataSplits, plan: Plan, proxy: ProxyConfig, space: Space, console: Console
) -> None:
    """Say what a search would do and cost, without training or writing anything."""
    factory = _factory(options.teacher_name, splits)
    task = _task(options, splits, factory())
    live = space.without(dead_cells(task))
    cost = estimate(task, plan, proxy)
    teacher = 0.0
    if options.teacher_checkpoint is None:
        steps = options.defaults.teacher_epochs * max(1, len(task.train_set) // task.batch_size)
        as_student = _task(options, splits, factory(), factory, augment="auto")
        teacher = steps * seconds_per_step(as_student, Recipe())
    left_out = f", without {', '.join(map(str, live.dead))}" if live.dead else ""
    for name, text in (
        ("Data", f"{splits.name}: {_counts(task)}, {task.num_classes} classes, {list(task.image_shape)}"),
        ("Layers", task.layers()),
        ("Space", f"{live.name}: {live.size():,} recipes{left_out}"),
        ("Proxy", f"{proxy.epochs} epochs, rungs {list(proxy.rungs)}, subset {proxy.subset:g}"),
        ("Teacher", f"{options.teacher_name}, {format_seconds(teacher)} if it is not in the cache"),
        ("Controls", format_seconds(cost.controls)),
        ("Trials", f"{plan.trials or 'as many as fit'}: {format_seconds(cost.trials)}"),
        ("Confirm", format_seconds(cost.confirmation)),
        ("Full", f"4 methods x {plan.seeds} seeds x {plan.epochs} epochs: {format_seconds(cost.full)}"),
        ("Total", f"about {format_seconds(cost.total + teacher)} with {plan.workers} workers"),
        ("Disk", f"{knowledge_bytes(task) / 2**20:.1f} MB for the teacher's outputs while it runs"),
    ):
        console.print(f"{name:<10} {text}", highlight=False, soft_wrap=True, markup=False)


def load_splits(options: TaskOptions) -> DataSplits:
    """Load the data of a task."""
    cache = cache_folder() / "images"
    return load_data(options.data, image_size=options.image_size, max_train=options.max_train, cache_dir=cache)


def create_task(options: TaskOptions, splits: DataSplits, *, say: Callable[[str], None]) -> ImageClassification:
    """Create the task of a command: load or train the teacher, name the student."""
    factory = _factory(options.teacher_name, splits)
    _factory(options.student_name, splits)()  # an unknown student must not cost a trained teacher
    if options.teacher_checkpoint is not None:
        teacher = factory()
        load_weights(teacher, options.teacher_checkpoint)
        say(f"Teacher {options.teacher_name} from {options.teacher_checkpoint}")
    else:
        teacher = trained_teacher(
            factory,
            lambda network, student: _task(options, splits, network, student, augment="auto"),
            name=options.teacher_name,
            epochs=options.defaults.teacher_epochs,
            say=say,
        )
    return _task(options, splits, teacher)


def _task(
    options: TaskOptions,
    splits: DataSplits,
    teacher: nn.Module,
    student: Callable[[], nn.Module] | None = None,
    augment: str | None = None,
) -> ImageClassification:
    return ImageClassification(
        teacher,
        student or _factory(options.student_name, splits),
        splits.train,
        splits.val,
        splits.test,
        num_classes=splits.num_classes,
        augment=augment or splits.augment,
        batch_size=options.batch_size or options.defaults.batch_size,
        device=options.device,
        student_name=options.student_name,
    )


def _factory(name: str, splits: DataSplits) -> Callable[[], nn.Module]:
    channels, height, width = splits.shape
    return functools.partial(
        create_model,
        name,
        num_classes=splits.num_classes,
        in_channels=channels,
        input_size=min(height, width),
    )


def _space(options: SearchOptions) -> Space:
    if options.temperatures is None:
        return create_space(options.space)
    if options.space != "auto-kd":
        raise ValueError(f"--temperatures belongs to --space auto-kd; got --space {options.space}.")
    try:
        values = tuple(int(part) for part in options.temperatures.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1 or len(set(values)) != len(values):
        raise ValueError(
            f"--temperatures is a list of different whole numbers like 1,4,8,16; got {options.temperatures!r}."
        )
    return create_space("auto-kd", temperatures=values)


def _proxy(options: SearchOptions, splits: DataSplits) -> ProxyConfig:
    epochs = options.proxy_epochs or options.defaults.proxy_epochs
    subset = options.defaults.subset if options.subset is None else options.subset
    if not subset > 0:
        raise ValueError(f"--subset is a share up to 1 or a number of images above; got {subset:g}.")
    if options.subset_by not in ("images", "classes"):
        raise ValueError(f"--subset-by is images or classes; got {options.subset_by!r}.")
    if subset > 1:
        subset = min(1.0, subset / _training_images(splits))
    return ProxyConfig(epochs=epochs, subset=subset, subset_by=options.subset_by)  # type: ignore[arg-type]


def _training_images(splits: DataSplits) -> int:
    return round(len(splits.train) * (1.0 if splits.val is not None else 0.8))


def _pair(text: str) -> tuple[int, int]:
    parts: Sequence[str] = text.lower().split("x")
    try:
        if text == "0":
            return (0, 0)
        recipes, seeds = map(int, parts)
    except ValueError:
        raise ValueError(f"--confirm reads like 5x3 (recipes x seeds), or 0; got {text!r}.") from None
    return recipes, seeds


def _counts(task: ImageClassification) -> str:
    parts = {"training": task.train_set, "validation": task.val_set, "test": task.test_set}
    return ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)


def _replace(options: TaskOptions, **changes: object) -> TaskOptions:
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]
