"""What the commands of the command line do, from plain options.

What the options say is in `task_options` (data, teacher, student) and `search_options` (space, proxy).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from torch import nn

from optuna_kd.analysis.dashboard import ARTIFACTS
from optuna_kd.cards import load_recipe
from optuna_kd.data import DataSplits
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.objective import DistillationObjective
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.rewards import REWARDS
from optuna_kd.runner.crew import Setup
from optuna_kd.runner.engines import LocalEngine
from optuna_kd.runner.estimate import estimate, seconds_per_step
from optuna_kd.runner.join import join
from optuna_kd.runner.plan import METHODS, Plan, check_method, parse_duration
from optuna_kd.runner.progress import create_reporter, format_seconds
from optuna_kd.runner.search import check_study_name, create_objective, search
from optuna_kd.runner.teacher import check_teacher, teacher_file
from optuna_kd.runner.workers import share_of_cores
from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.search_options import SearchOptions, chosen_engine, chosen_proxy, chosen_space, confirm_pair
from optuna_kd.search_space import SPACES, Space, UniADSSpace, create_space
from optuna_kd.storages import DEFAULT_URL, create_storage, show_storage
from optuna_kd.student import export_onnx
from optuna_kd.study import COMMAND, SAMPLERS, load_study, read_sources
from optuna_kd.task_options import (
    DIGITS,
    SEARCHED_SEEDS,
    TaskOptions,
    create_task,
    load_splits,
    network_factory,
    new_task,
    suitable_defaults,
    teacher_task,
)
from optuna_kd.training.distributed import join_ranks
from optuna_kd.training.full import FullRun, distill
from optuna_kd.training.ranks import Ranks
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification


def run_search(options: SearchOptions, console: Console) -> None:
    """Run the main job and print its table."""
    space, confirm, engine = chosen_space(options), confirm_pair(options.confirm), chosen_engine(options)
    budget = parse_duration(options.timeout) if options.timeout else None
    sampler = options.sampler or options.preset.sampler
    SAMPLERS[sampler], REWARDS[options.reward]
    objectives = tuple(map(str.strip, options.objectives.split(","))) if options.objectives is not None else None
    limits = {"max_params": options.max_params, "max_flops": options.max_flops}
    limits |= {"max_latency_ms": options.max_latency_ms, "budget": options.budget_params}
    check_method(
        options.method,
        objectives=objectives,
        sampler=options.sampler,
        reward=options.reward,
        limits=limits,
        screen=options.screen,
    )
    storing = options.storing
    splits = load_splits(options)
    defaults = suitable_defaults(options, splits)
    proxy = chosen_proxy(options, splits, defaults)
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
    engine.check(options.storage, plan.workers, options.device)
    reporter = create_reporter(True, console)

    def check_places() -> None:
        opened = create_storage(options.storage)
        if options.warm_start:
            read_sources(options.warm_start, runs=options.runs, storage=opened)

    try:
        task = create_task(options, splits, say=reporter, before_training=check_places)
        if proxy.batch_size is not None and options.proxy_batch is None:
            steps = proxy.epochs * max(1, round(proxy.subset * len(task.train_set)) // proxy.batch_size)
            reporter.note(f"Proxies    batches of {proxy.batch_size}, not {task.batch_size}, for more steps: {steps}")
        with contextlib.suppress(LossRejected):  # of a teacher, say, that the search refuses for a better reason
            seconds = estimate(_typical(task, space), plan, proxy).total
            workers = f"{plan.workers} worker{'s' if plan.workers > 1 else ''}"
            reporter.note(f"Estimate   {format_seconds(seconds)} with {workers}, less what is there already")
        result = search(
            task,
            method=options.method,
            trials=plan.trials,
            budget=budget,
            workers=plan.workers,
            engine=engine,
            together=options.together,
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
            knowledge=storing.mode,
            knowledge_limit=storing.limit,
            knowledge_dir=storing.directory,
            keep_knowledge=storing.keep,
            epochs=plan.epochs,
            seeds=plan.seeds,
            confirm=confirm,
            directory=options.runs,
            warm_start=options.warm_start or None,
            progress=reporter,
            profile=options.profile,
            name=f"{options.method}-{splits.name}-{options.student_name}".replace("/", "-"),
            student_config=None if options.chooses_student else StudentConfig(options.student_name),
            command=options.to_dict(),
        )
    finally:
        reporter.close()
    result.show(console)
    console.print(f"\nStudent    {result.directory / 'student.pt'}", highlight=False, soft_wrap=True)
    if result.front:
        console.print(f"Front      {result.directory / 'front'}", highlight=False, soft_wrap=True)
    console.print(f"Dashboard  {_dashboard_command(options)}", highlight=False, markup=False, soft_wrap=True)


def _dashboard_command(options: SearchOptions) -> str:
    """Give the command that opens the dashboard on a search, without what is the default."""
    words = ["optuna-kd", "dashboard"]
    if options.storage != DEFAULT_URL:
        words += ["--storage", show_storage(options.storage)]
    if options.runs != Path("runs"):
        words += ["--artifact-dir", str(options.runs / ARTIFACTS)]
    return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The options of `optuna-kd worker`; those that are None are the search's."""

    storage: str
    study_name: str
    workers: int
    together: int | None
    trials: int | None
    timeout: str | None
    data: str | None
    teacher_checkpoint: Path | None
    device: str | None
    runs: Path | None
    knowledge_dir: Path | None


def run_worker(options: WorkerOptions, console: Console) -> None:
    """Run trials of a study that `optuna-kd search` has begun, here or elsewhere."""
    check_study_name(options.study_name)  # of a database that others write to, too
    opened = create_storage(options.storage)
    try:
        study = load_study(options.study_name, storage=opened)
    except KeyError:
        names = ", ".join(name for name in optuna.get_all_study_names(opened) if "/" not in name) or "none"
        raise ValueError(f"There is no study {options.study_name!r} in this storage; there are: {names}.") from None
    stored = study.user_attrs.get(COMMAND)
    if stored is None:
        raise ValueError(
            f"The study {options.study_name!r} was not begun by `optuna-kd search`, so its task is unknown here. In a "
            "script, call optuna_kd.optimize(study, objective, total_trials=...) on every machine."
        )
    total = options.trials or study.user_attrs.get(TOTAL_TRIALS)
    budget = parse_duration(options.timeout) if options.timeout else None
    if total is None and budget is None:
        raise ValueError(
            f"The search {options.study_name!r} has no number of trials, so its workers do not know when to end. Give "
            "this one --timeout DURATION, or --trials TOTAL (of the study)."
        )
    own = ("data", "teacher_checkpoint", "device", "runs", "knowledge_dir")
    given = {name: value for name in own if (value := getattr(options, name)) is not None}
    _check_folders(stored, given)
    searched = SearchOptions.from_dict(
        stored,
        **given,
        storage=options.storage, study_name=options.study_name, workers=options.workers, together=options.together,
        timeout=None, dry_run=False,
    )  # fmt: skip
    limits = {"max_params": searched.max_params, "max_flops": searched.max_flops}
    limits |= {"max_latency_ms": searched.max_latency_ms, "budget": searched.budget_params}
    splits = load_splits(searched)
    proxy = chosen_proxy(searched, splits, suitable_defaults(searched, splits))
    plan = Plan(trials=total, budget=budget, workers=options.workers, together=options.together or 1)
    LocalEngine().check(options.storage, 2)
    reporter = create_reporter(True, console)
    try:
        task = create_task(searched, splits, say=reporter)
        join(
            Setup(
                task=task,
                teacher=check_teacher(task),
                objective=create_objective(task, searched.preset, proxy, searched.reward, limits, searched.screen),
                study=study,
                plan=plan,
                storage=opened,
                shared=options.storage,
                sampler=searched.sampler or searched.preset.sampler,
                seed=searched.seed,
                storing=searched.storing,
                folder=searched.runs / study.study_name,
                say=reporter,
                student_config=None,
            )
        )
    finally:
        reporter.close()


def _check_folders(stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse folders of a database that lead out of others, unless they are given here, and one that adds storing."""
    for name in ("runs", "knowledge_dir"):
        folder, option = stored.get(name), f"--{name.replace('_', '-')}"
        if name not in given and folder is not None and ".." in Path(folder).parts:
            raise ValueError(
                f"The search has {option} {folder}, which leads out of a folder, and a worker takes that from nobody's "
                f"database. Say where it is here: {option} DIR."
            )
    if "knowledge_dir" in given and stored.get("knowledge_dir") is None:
        raise ValueError(
            "The search keeps the teacher's outputs in memory, in full precision: leave --knowledge-dir out."
        )


def run_distill(options: TaskOptions, recipe_file: Path, out: Path, console: Console) -> None:
    """Train a known recipe, from a file or by name, in full and write the student; by all processes of `torchrun`."""
    with join_ranks() as ranks:
        _run_distill(options, recipe_file, out, console, ranks)


def _run_distill(options: TaskOptions, recipe_file: Path, out: Path, console: Console, ranks: Ranks) -> None:
    name = str(recipe_file)
    is_file = recipe_file.exists() or recipe_file.suffix or len(recipe_file.parts) > 1
    recipe = load_recipe(recipe_file) if is_file else RECIPES[name]
    if options.student is None:
        options = dataclasses.replace(options, config=recipe.student)
    options = dataclasses.replace(options, device=ranks.device(options.device))
    recipe = dataclasses.replace(recipe, student=options.config or StudentConfig(options.student_name))
    splits = load_splits(options)
    defaults = suitable_defaults(options, splits)
    reporter = create_reporter(ranks.leads, console)
    seeds = options.seeds or defaults.seeds
    try:
        with ranks.together():  # the others get the teacher of rank 0, which may have to train it first
            if ranks.leads:
                task = create_task(options, splits, say=reporter)
            else:
                task = new_task(options, splits, network_factory(options.teacher_name, splits)())
        ranks.agree(lambda: check_teacher(task))
        reporter.phase("Full training", seeds)

        def show(run: FullRun) -> None:
            test = f"  test {100 * run.test_accuracy:.2f} %" if run.test_accuracy is not None else ""
            reporter.advance(f"seed {run.seed}  validation {100 * run.val_accuracy:.2f} %{test}  {run.seconds:.1f} s")

        result = distill(
            task, recipe, epochs=options.epochs or defaults.epochs, seeds=seeds, seed=options.seed, on_run=show,
            ranks=ranks,
        )  # fmt: skip
    finally:
        reporter.close()
    if not ranks.leads:
        return
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
    factory = network_factory(options.teacher_name, splits)
    open_task = new_task(options, splits, factory())
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
        ("Proxy", _in_words(proxy)),
        ("Teacher", f"{options.teacher_name}, {note}"),
        ("Controls", format_seconds(cost.controls)),
        ("Trials", f"{plan.trials or 'as many as fit'}: {format_seconds(cost.trials)}"),
        ("Confirm", format_seconds(cost.confirmation)),
        ("Full", f"{METHODS} methods x {plan.seeds} seeds x {plan.epochs} epochs: {format_seconds(cost.full)}"),
        ("Total", f"about {format_seconds(cost.total + teacher)} with {plan.workers} workers"),
        ("Knowledge", str(options.storing.plan(task, proxy))),
    ):
        console.print(f"{name:<11}{text}", highlight=False, soft_wrap=True, markup=False)


def _in_words(proxy: ProxyConfig) -> str:
    batches = f", batches of {proxy.batch_size}" if proxy.batch_size is not None else ""
    return f"{proxy.epochs} epochs, rungs {list(proxy.rungs)}, subset {proxy.subset:g}{batches}"


def _teacher_cost(options: SearchOptions, splits: DataSplits, factory: Callable[[], nn.Module]) -> tuple[float, str]:
    """Seconds until there is a teacher, and how it comes."""
    if options.teacher_checkpoint is not None:
        return 0.0, f"from {options.teacher_checkpoint}"
    as_student = teacher_task(options, splits, factory(), factory)
    epochs = suitable_defaults(options, splits).teacher_epochs
    if teacher_file(as_student, options.teacher_name, epochs).is_file():
        return 0.0, "from the cache"
    steps = epochs * max(1, len(as_student.train_set) // as_student.batch_size)
    seconds = steps * seconds_per_step(as_student, Recipe(), share_of_cores(1))
    return seconds, f"trained first, {epochs} epochs: {format_seconds(seconds)}"


def _typical(task: ImageClassification, space: Space) -> ImageClassification:
    """Give the task itself, or, where the search chooses the student, the task with a middling one."""
    if not task.is_open:
        return task
    assert isinstance(space, UniADSSpace)
    assert space.student is not None
    students = space.student.all()
    return task.with_student(students[len(students) // 2])


def _counts(task: ImageClassification) -> str:
    parts = {"training": task.train_set, "validation": task.val_set, "test": task.test_set}
    return ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)


__all__ = [
    "DIGITS",
    "SearchOptions",
    "TaskOptions",
    "WorkerOptions",
    "create_task",
    "dry_run",
    "load_splits",
    "run_distill",
    "run_export",
    "run_search",
    "run_worker",
    "show_spaces",
]
