"""What the commands of the command line do, from plain options."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import nn

from optuna_kd.data import DataSplits, load_data
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import STUDENTS, check_input, create_model, create_student, load_weights, student_name
from optuna_kd.objective import DistillationObjective
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig, halving_rungs
from optuna_kd.rewards import REWARDS
from optuna_kd.runner.estimate import estimate, seconds_per_step
from optuna_kd.runner.plan import METHODS, Plan, check_method, parse_duration
from optuna_kd.runner.progress import Reporter, create_reporter, format_seconds
from optuna_kd.runner.search import check_shareable, search
from optuna_kd.runner.teacher import cache_folder, check_teacher, teacher_file, trained_teacher
from optuna_kd.runner.workers import share_of_cores
from optuna_kd.search_space import SPACES, Space, StudentSpace, UniADSSpace, create_space
from optuna_kd.storages import create_storage
from optuna_kd.student import export_onnx
from optuna_kd.study import METHODS as STUDY_METHODS
from optuna_kd.study import SAMPLERS, Method
from optuna_kd.training.full import FullRun, distill
from optuna_kd.training.offline import LIMIT, knowledge_bytes
from optuna_kd.training.task import ImageClassification, resolve_device
from optuna_kd.training.trainer import proxy_images

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """Models and budgets that suit a data set."""

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
# Of searched students, where a name is the family: on the digits its widths are a quarter of the published ones.
FAMILY, DIGITS_WIDTH, SEARCHED_SEEDS = "resnet", 0.25, 5
NATURAL = Defaults("resnet20", "resnet8", 30, proxy_epochs=12, epochs=30, seeds=3, batch_size=128, subset=0.2)
MANY_IMAGES = 10_000  # above which a CPU gets a third of the epochs by default
PROXY_IMAGES = 1_000  # below which a proxy is not cut by default: it would rank noise


def suitable_defaults(options: TaskOptions, splits: DataSplits) -> Defaults:
    """Choose what suits data and device; every part can be given on the command line."""
    if splits.name == "digits":
        return DIGITS
    images = _training_images(splits)
    defaults = dataclasses.replace(NATURAL, subset=max(NATURAL.subset, min(1.0, PROXY_IMAGES / images)))
    if images > MANY_IMAGES and resolve_device(options.device).type == "cpu":
        return dataclasses.replace(defaults, teacher_epochs=10, epochs=10)
    return defaults


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
    config: StudentConfig | None = None  # the student of a recipe

    @property
    def chooses_student(self) -> bool:
        """Whether the search chooses the student."""
        return False

    @property
    def teacher_name(self) -> str:
        """The teacher, by name."""
        return self.teacher or NATURAL.teacher

    @property
    def student_name(self) -> str:
        """The student, by name; of searched students, their family."""
        default = FAMILY if self.chooses_student else (DIGITS if self.data == "digits" else NATURAL).student
        return self.student or (student_name(self.config) if self.config else default)


@dataclass(frozen=True, kw_only=True)
class SearchOptions(TaskOptions):
    """The options of `optuna-kd search`."""

    method: str
    trials: int | None
    timeout: str | None
    workers: int
    storage: str
    study_name: str | None
    space: str | None
    objectives: str | None
    max_params: float | None
    max_flops: float | None
    max_latency_ms: float | None
    budget_params: float | None
    screen: float
    chain: int | None
    sampler: str | None
    reward: str
    temperatures: str | None
    proxy_epochs: int | None
    subset: float | None
    subset_by: str
    confirm: str
    runs: Path
    dry_run: bool

    @property
    def preset(self) -> Method:
        """The method."""
        return STUDY_METHODS[self.method]

    @property
    def chooses_student(self) -> bool:
        """Whether the search chooses the student."""
        return bool(self.preset.objectives)


def run_search(options: SearchOptions, console: Console) -> None:
    """Run the main job and print its table."""
    space, confirm = _space(options), _pair(options.confirm)
    budget = parse_duration(options.timeout) if options.timeout else None
    sampler = options.sampler or options.preset.sampler
    SAMPLERS[sampler], REWARDS[options.reward]
    objectives = tuple(map(str.strip, options.objectives.split(","))) if options.objectives else None
    limits = {"max_params": options.max_params, "max_flops": options.max_flops}
    limits |= {"max_latency_ms": options.max_latency_ms, "budget": options.budget_params}
    check_method(options.method, objectives=objectives, sampler=options.sampler, reward=options.reward, limits=limits)
    splits = load_splits(options)
    defaults = suitable_defaults(options, splits)
    proxy = _proxy(options, splits, defaults)
    plan = Plan(
        trials=options.trials or (None if budget else 60),
        budget=budget,
        confirm=confirm,
        epochs=options.epochs or defaults.epochs,
        seeds=options.seeds or (min(defaults.seeds, SEARCHED_SEEDS) if options.chooses_student else defaults.seeds),
        workers=options.workers,
    )
    if options.dry_run:
        dry_run(options, splits, plan, proxy, space, console)
        return
    check_shareable(options.storage, plan.workers)
    reporter = create_reporter(True, console)
    try:
        task = create_task(options, splits, say=reporter, before_training=lambda: create_storage(options.storage))
        seconds = estimate(_typical(task, space), plan, proxy).total
        reporter.note(f"Estimate   {format_seconds(seconds)} with {plan.workers} workers, less what is there already")
        result = search(
            task,
            method=options.method,
            trials=plan.trials,
            budget=budget,
            workers=plan.workers,
            storage=options.storage,
            study_name=options.study_name,
            seed=options.seed,
            space=space,
            objectives=objectives,
            max_params=options.max_params,
            max_flops=options.max_flops,
            max_latency_ms=options.max_latency_ms,
            budget_params=options.budget_params,
            screen=options.screen,
            sampler=sampler,
            reward=options.reward,
            proxy=proxy,
            epochs=plan.epochs,
            seeds=plan.seeds,
            confirm=confirm,
            directory=options.runs,
            progress=reporter,
            name=f"{options.method}-{splits.name}-{options.student_name}".replace("/", "-"),
            student_config=None if options.chooses_student else StudentConfig(options.student_name),
        )
    finally:
        reporter.close()
    if result.front:
        console.print(result.front_table())
        console.print(f"{result.knee}\n", highlight=False, soft_wrap=not console.is_terminal)
    console.print(result.table())
    console.print(result.verdict, highlight=False, soft_wrap=not console.is_terminal)
    console.print(f"\nStudent    {result.directory / 'student.pt'}", highlight=False, soft_wrap=True)
    if result.front:
        console.print(f"Front      {result.directory / 'front'}", highlight=False, soft_wrap=True)
    console.print(f"Dashboard  optuna-dashboard {options.storage}", highlight=False, soft_wrap=True)


def run_distill(options: TaskOptions, recipe_file: Path, out: Path, console: Console) -> None:
    """Train a known recipe, from a file or by name, in full and write the student."""
    name = str(recipe_file)
    recipe = RECIPES[name] if name in RECIPES and not recipe_file.exists() else Recipe.load(recipe_file)
    if options.student is None:
        options = dataclasses.replace(options, config=recipe.student)
    recipe = dataclasses.replace(recipe, student=options.config or StudentConfig(options.student_name))
    splits = load_splits(options)
    defaults = suitable_defaults(options, splits)
    reporter = create_reporter(True, console)
    seeds = options.seeds or defaults.seeds
    try:
        task = create_task(options, splits, say=reporter)
        check_teacher(task)
        reporter.phase("Full training", seeds)

        def show(run: FullRun) -> None:
            test = f"  test {100 * run.test_accuracy:.2f} %" if run.test_accuracy is not None else ""
            reporter.advance(f"seed {run.seed}  validation {100 * run.val_accuracy:.2f} %{test}  {run.seconds:.1f} s")

        result = distill(
            task, recipe, epochs=options.epochs or defaults.epochs, seeds=seeds, seed=options.seed, on_run=show
        )
    finally:
        reporter.close()
    folder = result.save(out)
    console.print(str(result), highlight=False, markup=False, soft_wrap=True)
    console.print(f"Student    {folder / 'student.pt'}", highlight=False, soft_wrap=True)


def show_spaces(console: Console) -> None:
    """Print what can be searched."""
    for name in SPACES:
        space = create_space(name)
        console.print(f"[bold]{name}[/bold]  {space.size():,} recipes: {space.description}", highlight=False)
        for factor, choices in space.factors().items():
            options = "  ".join(map(str, choices))
            where = factor.partition("__")[2]
            if not where:  # the same factor with fewer options elsewhere in the tree is no news
                console.print(f"  {factor:<20} {options}", highlight=False, markup=False)
        console.print()
    console.print("[bold]recipes by name[/bold]  for `optuna-kd distill --recipe NAME`", highlight=False)
    for name, recipe in RECIPES.items():
        console.print(f"  {name:<20} {recipe}", highlight=False, markup=False, soft_wrap=True)


def run_export(run: Path, onnx: Path, console: Console) -> None:
    """Write the student of a finished search as ONNX."""
    file = export_onnx(run, onnx)
    console.print(f"Wrote {file}: images [N, C, H, W] in [0, 1] -> logits [N, K]", highlight=False, markup=False)


def dry_run(
    options: SearchOptions, splits: DataSplits, plan: Plan, proxy: ProxyConfig, space: Space, console: Console
) -> None:
    """Say what a search would do and cost, without training or writing anything."""
    factory = _factory(options.teacher_name, splits)
    open_task = _task(options, splits, factory())
    task = _typical(open_task, space)
    objective = JointDistillationObjective(open_task) if options.chooses_student else DistillationObjective(task)
    live = objective.live_space(space)
    cost = estimate(task, plan, proxy)
    teacher, note = _teacher_cost(options, splits, factory)
    left_out = f", without {', '.join(map(str, live.dead))}" if live.dead else ""
    for name, text in (
        ("Data", f"{splits.name}: {_counts(task)}, {task.num_classes} classes, {list(task.image_shape)}"),
        ("Layers", task.layers()),
        ("Space", f"{live.name}: {live.size():,} recipes{left_out}"),
        ("Proxy", f"{proxy.epochs} epochs, rungs {list(proxy.rungs)}, subset {proxy.subset:g}"),
        ("Teacher", f"{options.teacher_name}, {note}"),
        ("Controls", format_seconds(cost.controls)),
        ("Trials", f"{plan.trials or 'as many as fit'}: {format_seconds(cost.trials)}"),
        ("Confirm", format_seconds(cost.confirmation)),
        ("Full", f"{METHODS} methods x {plan.seeds} seeds x {plan.epochs} epochs: {format_seconds(cost.full)}"),
        ("Total", f"about {format_seconds(cost.total + teacher)} with {plan.workers} workers"),
        ("Disk", _disk(task, proxy)),
    ):
        console.print(f"{name:<10} {text}", highlight=False, soft_wrap=True, markup=False)


def _disk(task: ImageClassification, proxy: ProxyConfig) -> str:
    for images, what in ((len(task.train_set), "all"), (len(proxy_images(task, proxy)[0]), "the proxies'")):
        size = knowledge_bytes(task, images)
        if size <= LIMIT:
            return (
                f"{size / 2**20:.1f} MB for the teacher's outputs on {what} images, {task.views} views, while it runs"
            )
    return f"none: the teacher's outputs would take {size / 2**30:.1f} GB, so it is asked online"


def _teacher_cost(options: SearchOptions, splits: DataSplits, factory: Callable[[], nn.Module]) -> tuple[float, str]:
    """Seconds until there is a teacher, and how it comes."""
    if options.teacher_checkpoint is not None:
        return 0.0, f"from {options.teacher_checkpoint}"
    as_student = _as_student(options, splits, factory(), factory)
    epochs = suitable_defaults(options, splits).teacher_epochs
    if teacher_file(as_student, options.teacher_name, epochs).is_file():
        return 0.0, "from the cache"
    steps = epochs * max(1, len(as_student.train_set) // as_student.batch_size)
    seconds = steps * seconds_per_step(as_student, Recipe(), share_of_cores(1))
    return seconds, f"trained first, {epochs} epochs: {format_seconds(seconds)}"


def load_splits(options: TaskOptions) -> DataSplits:
    """Load the data of a task."""
    cache = cache_folder() / "images"
    return load_data(options.data, image_size=options.image_size, max_train=options.max_train, cache_dir=cache)


def create_task(
    options: TaskOptions,
    splits: DataSplits,
    *,
    say: Reporter,
    before_training: Callable[[], object] = lambda: None,
) -> ImageClassification:
    """Create the task of a command: load or train the teacher, name the student.

    `before_training` is called when all options are known to fit, before a teacher is trained for nothing.
    """
    factory = _factory(options.teacher_name, splits)
    # A student that is unknown or does not fit must not cost a trained teacher.
    if not options.chooses_student:
        check_input(_factory(options.student_name, splits)(), splits.shape[0], splits.shape[1:])
    if options.teacher_checkpoint is not None:
        teacher = factory()
        load_weights(teacher, options.teacher_checkpoint)
        say.note(f"Teacher {options.teacher_name} from {options.teacher_checkpoint}")
    else:

        def as_student(network: nn.Module, student: Callable[[], nn.Module]) -> ImageClassification:
            task = _as_student(options, splits, network, student)
            before_training()
            return task

        teacher = trained_teacher(
            factory,
            as_student,
            name=options.teacher_name,
            epochs=suitable_defaults(options, splits).teacher_epochs,
            say=say,
        )
    return _task(options, splits, teacher)


def _as_student(
    options: TaskOptions, splits: DataSplits, teacher: nn.Module, student: Callable[[], nn.Module]
) -> ImageClassification:
    """Give the task in which a teacher is trained as the student; its name does not depend on who learns from it."""
    return _task(dataclasses.replace(options, student=options.teacher_name), splits, teacher, student, augment="auto")


def _task(
    options: TaskOptions,
    splits: DataSplits,
    teacher: nn.Module,
    student: Callable[..., nn.Module] | None = None,
    augment: str | None = None,
) -> ImageClassification:
    return ImageClassification(
        teacher,
        student or (_students(splits) if options.chooses_student else _factory(options.student_name, splits)),
        splits.train,
        splits.val,
        splits.test,
        num_classes=splits.num_classes,
        augment=augment or splits.augment,
        batch_size=options.batch_size or suitable_defaults(options, splits).batch_size,
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
        input_size=(height, width),
    )


def _students(splits: DataSplits) -> Callable[[StudentConfig], nn.Module]:
    channels, height, width = splits.shape
    return functools.partial(
        create_student, num_classes=splits.num_classes, in_channels=channels, input_size=(height, width)
    )


def _typical(task: ImageClassification, space: Space) -> ImageClassification:
    """Give the task itself, or, where the search chooses the student, the task with a middling one."""
    if not task.is_open:
        return task
    assert isinstance(space, UniADSSpace)
    assert space.student is not None
    students = space.student.all()
    return task.with_student(students[len(students) // 2])


def _space(options: SearchOptions) -> Space:
    name = options.space or options.preset.space
    if options.chooses_student:
        return _joint_space(options, name)
    if SPACES[name] is UniADSSpace:
        raise ValueError(f"--space {name} chooses the student: use it with --method uniads.")
    for option, value in (("--chain", options.chain), ("--objectives", options.objectives)):
        if value is not None:
            raise ValueError(f"{option} belongs to --method uniads; got {value}.")
    if options.temperatures is None:
        return create_space(name)
    if name != "auto-kd":
        raise ValueError(f"--temperatures belongs to --space auto-kd; got --space {name}.")
    try:
        values = tuple(int(part) for part in options.temperatures.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1 or len(set(values)) != len(values):
        raise ValueError(
            f"--temperatures is a list of different whole numbers like 1,4,8,16; got {options.temperatures!r}."
        )
    return create_space("auto-kd", temperatures=values)


def _joint_space(options: SearchOptions, name: str) -> Space:
    if name != "uniads" or options.temperatures is not None:
        given = f"--space {name}" if name != "uniads" else "--temperatures"
        raise ValueError(f"--method {options.method} searches the space uniads as it is; got {given}.")
    family = options.student_name
    STUDENTS[family]
    fixed = {"base_width": DIGITS_WIDTH} if options.data == "digits" else {}
    return UniADSSpace(student=StudentSpace(family, fixed=fixed), chain=options.chain or 1)


def _proxy(options: SearchOptions, splits: DataSplits, defaults: Defaults) -> ProxyConfig:
    epochs = options.proxy_epochs or defaults.proxy_epochs
    subset = defaults.subset if options.subset is None else options.subset
    if not subset > 0:
        raise ValueError(f"--subset is a share up to 1 or a number of images above; got {subset:g}.")
    if options.subset_by not in ("images", "classes"):
        raise ValueError(f"--subset-by is images or classes; got {options.subset_by!r}.")
    if subset > 1:
        subset = min(1.0, subset / _training_images(splits))
    if options.chooses_student:
        rungs = halving_rungs(epochs)
        return ProxyConfig(epochs=epochs, rungs=rungs, subset=subset, subset_by=options.subset_by)  # type: ignore[arg-type]
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
