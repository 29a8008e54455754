"""The front door of the runner: arguments turned into a study, an objective and a job."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig, StudentConfig
from optuna_kd.runner.crew import Setup
from optuna_kd.runner.engines import ENGINES, Engine
from optuna_kd.runner.joint_job import JointJob
from optuna_kd.runner.main_job import MainJob
from optuna_kd.runner.plan import Plan, check_method, parse_duration
from optuna_kd.runner.progress import Reporter, create_reporter
from optuna_kd.runner.result import SearchResult
from optuna_kd.runner.storing import Storing
from optuna_kd.runner.teacher import check_teacher
from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.search_space import Space, UniADSSpace, create_space
from optuna_kd.storages import DEFAULT_URL, create_storage, creation_lock, is_shareable
from optuna_kd.study import (
    COMMAND,
    KNOWLEDGE,
    METHODS,
    SAMPLERS,
    STUDY_ID,
    Method,
    Sources,
    create_study,
    is_begun,
    queue,
    read_sources,
    require_same,
)
from optuna_kd.training.knowledge_plan import LIMIT, KnowledgePlan
from optuna_kd.training.task import ImageClassification

TOGETHER = 8  # trials at a time on a GPU, which a single small student leaves idle


def search(
    task: ImageClassification,
    *,
    method: str = "auto-kd",
    trials: int | None = None,
    budget: str | float | None = None,
    workers: int = 1,
    engine: str | Engine = "local",
    together: int | None = None,
    storage: str | BaseStorage | None = DEFAULT_URL,
    study_name: str | None = None,
    seed: int = 0,
    space: str | Space | None = None,
    objectives: Sequence[str] | None = None,
    max_params: float | None = None,
    max_flops: float | None = None,
    max_latency_ms: float | None = None,
    budget_params: float | None = None,
    screen: float = 0.0,
    sampler: str | BaseSampler | None = None,
    pruner: BasePruner | None = None,
    reward: str = "bounded",
    proxy: ProxyConfig | None = None,
    knowledge: str = "auto",
    knowledge_limit: int = LIMIT,
    knowledge_dir: str | Path | None = None,
    keep_knowledge: bool = True,
    epochs: int = 60,
    seeds: int = 10,
    confirm: tuple[int, int] | Literal[0] = (5, 3),
    directory: str | Path = "runs",
    warm_start: Sources | None = None,
    progress: bool | Reporter = True,
    profile: bool = False,
    name: str | None = None,
    student_config: StudentConfig | None = None,
    command: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Find a recipe, or a student and its recipe; train it so and with the controls, and compare them honestly.

    Running it again with the same arguments goes on where it was stopped; finished work is kept.

    Args:
        task: What is to be distilled. For "uniads" its student factory takes a `StudentConfig`.
        method: "auto-kd": the recipe for one student; "uniads": student and recipe together, a front of them.
        trials: Total of the study; 60 unless a budget is given.
        budget: Instead of trials: the time for all of it, in seconds or as text ("20m", "1h30m").
        workers: Processes; each gets its share of the cores. More than one need a storage with a URL.
        engine: "local": the workers are processes of this machine; "ray": actors of a Ray cluster, see `RayEngine`.
        together: Trials that each of them trains at a time, those of students with the same layers as one stacked
            network; None is 1 on a CPU, where it gains little, and where the student is searched too, else 8.
        storage: A database URL; None keeps everything in memory.
        study_name: None derives it from everything that must not change inside a study.
        seed: All randomness derives from it.
        space: "auto-kd", "auto-kd-extended", "feature-only", "naive", "uniads", or a space; None is the method's.
        objectives: What "uniads" minimises; see `create_study`.
        max_params: Of "uniads": parameters that a student may have. Likewise:
        max_flops: Floating-point operations for one image.
        max_latency_ms: Milliseconds for one image on one CPU thread of this machine.
        budget_params: For its objective `budget_gap`.
        screen: Share of its students that are not trained because of their training-free score (DisWOT); in [0, 1).
        sampler: "mcts", "uct", "uniads", "random", "tpe", "nsga2", or an Optuna sampler; None is the method's.
        pruner: None is the method's.
        reward: Of "auto-kd": "bounded", "paper", "ce", "ce-l1" or "accuracy".
        proxy: Length, rungs and subset of the proxies.
        knowledge: How the teacher is asked: "replay" stores its outputs for some augmented views of each image, exact;
            "aligned" those for the clean images, moved as the images are, approximate; "online" nothing; "auto" is
            replay where it fits.
        knowledge_limit: Bytes that may be stored.
        knowledge_dir: Store on disk, in half precision, in this folder.
        keep_knowledge: Whether such files stay for the next search.
        epochs: Of each full training.
        seeds: Students per method in the closing table.
        confirm: How many of the best recipes are scored again, and with how many new seeds each; 0 for none.
        directory: Results are written to `<directory>/<study name>/`.
        warm_start: Recipes that did well elsewhere, which a new study tries first, those of the most similar tasks;
            see `create_study`. "auto" takes those of `directory`.
        progress: False says nothing.
        profile: Write what takes the time of a training step to `profile.txt` beside the results.
        name: First part of a derived study name; None is the method.
        student_config: The student by its registered name, for the recipe file; None for a student of your own.
        command: How to make the task again, as plain JSON; kept with the study for `optuna-kd worker`.

    Raises:
        StudyMismatchError: If the study exists with other settings; both are named.
        StorageError: If the storage cannot be opened.
        TeacherError: If the teacher is not better than chance.
        ValueError: For arguments out of range, and for a folder that cannot be written to.
    """
    confirm_plan = (confirm, 0) if isinstance(confirm, int) else confirm
    seconds = parse_duration(budget) if budget is not None else None
    preset = METHODS[method]
    if together is None:
        together = 1 if task.device.type == "cpu" or preset.objectives else TOGETHER
    trials = 60 if trials is None and seconds is None else trials
    plan = Plan(trials, seconds, confirm_plan, epochs, seeds, workers, together)
    limits = {"max_params": max_params, "max_flops": max_flops, "max_latency_ms": max_latency_ms}
    limits["budget"] = budget_params
    check_method(method, objectives=objectives, sampler=sampler, reward=reward, limits=limits, screen=screen)
    objective = create_objective(task, preset, proxy, reward, limits, screen)
    space = space if isinstance(space, Space) else create_space(space or preset.space)
    objective.check(space, objectives=len(objectives or preset.objectives) or 1)
    feasible = objective.find_feasible(space) if isinstance(objective, JointDistillationObjective) else None
    sampler = sampler or preset.sampler
    if isinstance(sampler, str):
        SAMPLERS[sampler]  # names and teacher are checked before anything is written
    engine = ENGINES[engine]() if isinstance(engine, str) else engine
    engine.check(storage, workers, str(task.device))
    storing = Storing(
        knowledge, knowledge_limit, None if knowledge_dir is None else Path(knowledge_dir), keep_knowledge
    )
    asking = storing.plan(task, objective.proxy)
    teacher = check_teacher(task)
    opened = create_storage(storage)
    study_name = study_name or derived_name(name or method, objective, seed, space, sampler, objectives, knowledge)
    check_study_name(study_name)
    reporter = create_reporter(progress)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failed trials are told by the reporter
    try:
        study = create_study(
            method,
            storage=opened,
            study_name=study_name,
            seed=seed,
            space=space,
            objectives=objectives,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        tie_knowledge(study, asking)
        if plan.trials is not None:
            study.set_user_attr(TOTAL_TRIALS, plan.trials)
        if command is not None:
            study.set_user_attr(COMMAND, dict(command))
        folder = Path(directory) / study.study_name
        if is_shareable(storage):  # in memory every run is another study, and its results take the place of the last
            set_aside(folder, study, reporter)
        check_folder(folder)
        if feasible is not None:
            begin_with(study, space, feasible)
        if warm_start is not None:
            warm_up(study, objective, warm_start, Path(directory), opened, reporter)
        setup = Setup(
            task=task,
            teacher=teacher,
            objective=objective,
            study=study,
            plan=plan,
            storage=opened,
            shared=str(storage) if is_shareable(storage) else opened,
            sampler=sampler,
            seed=seed,
            storing=storing,
            folder=folder,
            say=reporter,
            student_config=student_config,
            profile=profile,
            engine=engine,
        )
        return (JointJob if preset.objectives else MainJob)(setup)()
    finally:
        reporter.close()
        optuna.logging.set_verbosity(verbosity)


def tie_knowledge(study: Study, plan: KnowledgePlan) -> None:
    """Remember how the teacher is asked: stored views repeat and others do not, so trials of both do not compare.

    Raises:
        StudyMismatchError: If the study began otherwise.
    """
    stored = study.user_attrs.get(KNOWLEDGE)
    if stored is None:
        study.set_user_attr(KNOWLEDGE, plan.mode)
    elif stored != plan.mode:
        asked = f"{plan.mode} ({plan.reason})" if plan.reason else plan.mode
        require_same(study, {"knowledge": stored}, {"knowledge": asked})


def set_aside(folder: Path, study: Study, say: Reporter) -> None:
    """Keep the results that another study of the same name, of another database, has left in a folder."""
    try:
        owner = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["study_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if owner == study.user_attrs.get(STUDY_ID):
        return
    kept = folder.with_name(f"{folder.name}.{owner}")
    folder.rename(kept)
    say.note(f"Kept       {folder} held the results of another study of this name; they are in {kept} now")


def check_folder(folder: Path) -> None:
    """Refuse a folder that the results cannot be written to: it would show after hours of training.

    Raises:
        ValueError: Saying why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise ValueError(
            f"Results cannot be written to {folder}: {error.strerror}. Choose another folder (directory=..., --runs)."
        ) from None


def begin_with(study: Study, space: Space, student: StudentConfig) -> None:
    """Queue the smallest student that keeps the limits as the first trial; its recipe is the sampler's choice.

    It is one end of the front, the cheapest trial there is, and a sampler may need dozens of trials to find it: in a
    space of 256 students each of its four choices is one of four.
    """
    if isinstance(space, UniADSSpace) and space.student and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(space.student.values_of(student)))


def warm_up(
    study: Study,
    objective: DistillationObjective,
    sources: Sources,
    runs: Path,
    storage: BaseStorage,
    say: Reporter,
) -> None:
    """Put recipes that did well on similar tasks before the trials of a study that is not begun."""
    if is_begun(study):
        say.note("Warm start it has begun already, and goes on as it is")
        return
    candidates, notes = read_sources(sources, runs=runs, storage=storage)
    space, _ = objective.bind(study)  # cut to the task: recipes that cannot teach here are not begun with
    with creation_lock(storage):
        if not is_begun(study):
            notes = [*queue(study, candidates, objective.task.facts(), space), *notes]
    for note in notes:
        say.note(f"Warm start {note}")


def create_objective(
    task: ImageClassification,
    preset: Method,
    proxy: ProxyConfig | None,
    reward: str,
    limits: Mapping[str, float | None],
    screen: float,
) -> DistillationObjective:
    """Create the objective of a method."""
    if preset.objectives:
        return JointDistillationObjective(task, proxy=proxy, screen=screen, **limits)  # type: ignore[arg-type]
    return DistillationObjective(task, proxy=proxy, reward=reward)


def check_study_name(name: str) -> None:
    """Refuse a name that cannot be the name of a folder, or would leave that of the results.

    Raises:
        ValueError: With the name.
    """
    if not name.strip() or name in (".", "..") or any(character in name for character in "/\\\0"):
        raise ValueError(f"A study name is also the name of a folder, so without / and \\; got {name!r}.")


def derived_name(
    name: str,
    objective: DistillationObjective,
    seed: int,
    space: Space,
    sampler: str | BaseSampler,
    objectives: Sequence[str] | None = None,
    knowledge: str = "auto",
) -> str:
    """Derive a study name from everything that must not change inside a study."""
    described = {
        **objective.describe(space),
        "seed": seed,
        "space": space.to_dict(),
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
        **({} if objectives is None else {"objectives": list(objectives)}),
        **({} if knowledge == "auto" else {"knowledge": knowledge}),
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"
