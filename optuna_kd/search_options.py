"""From the options of `optuna-kd search` to its space, its proxy and its confirmation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna_kd.data import DataSplits
from optuna_kd.models import STUDENTS
from optuna_kd.recipe import ProxyConfig, halving_rungs
from optuna_kd.runner.engines import ENGINES, Engine
from optuna_kd.runner.plan import parse_size
from optuna_kd.runner.storing import Storing
from optuna_kd.search_space import SPACES, Space, StudentSpace, UniADSSpace, create_space
from optuna_kd.study import METHODS, Method
from optuna_kd.task_options import (
    DIGITS_WIDTH,
    SEARCHED_PROXY_EPOCHS,
    Defaults,
    TaskOptions,
    suitable_batch,
    training_images,
)

ENGINE_OPTIONS = {"ray_address": "address", "cpus_per_worker": "cpus_per_worker", "gpus_per_worker": "gpus_per_worker"}


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
    sparsity: float = 0.0
    narrow: float = 1.0
    proxy_batch: int | None = None
    together: int | None = None
    engine: str = "local"
    ray_address: str | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None
    knowledge: str = "auto"
    knowledge_limit: str = "2GB"
    knowledge_dir: Path | None = None
    keep_knowledge: bool = True
    profile: bool = False
    warm_start: tuple[str, ...] = ()
    confirm: str
    runs: Path
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """Give what makes the same task and objective elsewhere, as plain JSON: not where it runs, and for how long."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        left_out = {"storage", "study_name", "config", "dry_run", "profile", "workers", "together", "timeout", "engine"}
        left_out |= {"warm_start", *ENGINE_OPTIONS}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if name not in left_out
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], **changes: Any) -> SearchOptions:
        """Take back what `to_dict` gave; `changes` are what is otherwise here, and what it leaves out."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in stored.items() if name in known} | changes
        for name in ("teacher_checkpoint", "knowledge_dir", "runs"):
            if isinstance(values.get(name), str):
                values[name] = Path(values[name])
        return cls(**values)

    @property
    def storing(self) -> Storing:
        """What is kept of the teacher's knowledge."""
        return Storing(self.knowledge, parse_size(self.knowledge_limit), self.knowledge_dir, self.keep_knowledge)

    @property
    def preset(self) -> Method:
        """The method."""
        return METHODS[self.method]

    @property
    def chooses_student(self) -> bool:
        """Whether the search chooses the student."""
        return bool(self.preset.objectives)


def chosen_space(options: SearchOptions) -> Space:
    """Give the space that the options name; a `ValueError` says which of them do not belong to it."""
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


def chosen_engine(options: SearchOptions) -> Engine:
    """Give what runs the workers; a `ValueError` says which options do not belong to it."""
    kind = ENGINES[options.engine]
    given = {argument: getattr(options, name) for name, argument in ENGINE_OPTIONS.items()}
    given = {argument: value for argument, value in given.items() if value is not None}
    known = {field.name for field in dataclasses.fields(kind)}
    for name, argument in ENGINE_OPTIONS.items():
        if argument in given and argument not in known:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --engine ray; got --engine {options.engine}.")
    engine: Engine = kind(**given)
    return engine


def chosen_proxy(options: SearchOptions, splits: DataSplits, defaults: Defaults) -> ProxyConfig:
    """Give the proxy: what the options leave open is what suits the data."""
    suitable = SEARCHED_PROXY_EPOCHS if options.chooses_student else defaults.proxy_epochs
    epochs = options.proxy_epochs or suitable
    subset = defaults.subset if options.subset is None else options.subset
    if not subset > 0:
        raise ValueError(f"--subset is a share up to 1 or a number of images above; got {subset:g}.")
    if options.subset_by not in ("images", "classes"):
        raise ValueError(f"--subset-by is images or classes; got {options.subset_by!r}.")
    images = training_images(splits)
    if subset > 1:
        subset = min(1.0, subset / images)
    batch_size = options.batch_size or defaults.batch_size
    return ProxyConfig(
        epochs=epochs,
        rungs=halving_rungs(epochs) if options.chooses_student else (),
        subset=subset,
        subset_by=options.subset_by,  # type: ignore[arg-type]
        sparsity=options.sparsity,
        narrow=options.narrow,
        batch_size=options.proxy_batch or suitable_batch(epochs, round(subset * images), batch_size),
    )


def confirm_pair(text: str) -> tuple[int, int]:
    """Read `--confirm`: recipes x seeds, as in 5x3, or 0."""
    parts: Sequence[str] = text.lower().split("x")
    try:
        if text == "0":
            return (0, 0)
        recipes, seeds = map(int, parts)
    except ValueError:
        raise ValueError(f"--confirm reads like 5x3 (recipes x seeds), or 0; got {text!r}.") from None
    return recipes, seeds
