"""The methods, the samplers by name, and what fits to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from optuna_kd.goals import GOALS
from optuna_kd.pruners import CKAPruner, ParetoHalvingPruner
from optuna_kd.registry import Registry
from optuna_kd.samplers import MCTSSampler, UniADSSampler
from optuna_kd.study.seeding import PerTrialSampler

SAMPLERS: Registry[Callable[[int], BaseSampler]] = Registry("sampler")
SAMPLERS.add("mcts", lambda seed: MCTSSampler(seed=seed))
SAMPLERS.add("uct", lambda seed: MCTSSampler(seed=seed, selection="uct"))
SAMPLERS.add("uniads", lambda seed: UniADSSampler(seed=seed))
ONE_REWARD = ("mcts", "uct")  # samplers that cannot take several objectives
SEEDED_PER_TRIAL = ("mcts", "uct", "uniads")  # by themselves
SAMPLERS.add("random", lambda seed: RandomSampler(seed=_short(seed)))
SAMPLERS.add("tpe", lambda seed: TPESampler(seed=_short(seed)))
SAMPLERS.add("nsga2", lambda seed: NSGAIISampler(seed=_short(seed)))


@dataclass(frozen=True)
class Method:
    """A search method: its default space and parts.

    Args:
        space, sampler, pruner: Its defaults.
        objectives: Names of what is minimised; empty for one reward, which is maximised.
    """

    space: str
    sampler: str
    pruner: Callable[[], BasePruner]
    objectives: tuple[str, ...] = ()


METHODS: Registry[Method] = Registry("method")
METHODS.add("auto-kd", Method("auto-kd", "mcts", CKAPruner))
METHODS.add("uniads", Method("uniads", "uniads", ParetoHalvingPruner, ("cross_entropy", "parameters")))


def check_objectives(method: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Give the objectives of a method, or those asked for.

    Raises:
        ValueError: For objectives of a method that has one reward, for less than two different ones, and for costs
            alone.
        UnknownNameError: For an unknown method or objective.
    """
    preset = METHODS[method]
    if asked is None:
        return preset.objectives
    goals = tuple(name.strip() for name in ([asked] if isinstance(asked, str) else asked))
    if not preset.objectives:
        raise ValueError(f"The method {method!r} has one reward and no objectives to choose; got {list(goals)}.")
    if len(goals) < 2 or len(set(goals)) != len(goals):
        raise ValueError(f"The method {method!r} needs two different objectives or more; got {list(goals)}.")
    if "quality" not in [GOALS[name].kind for name in goals]:
        raise ValueError(f"One of the objectives has to be a quality, cross_entropy or error; got {list(goals)}.")
    return goals


def check_sampler(method: str, goals: Sequence[str], sampler: str | BaseSampler | None) -> None:
    """Refuse a sampler that cannot serve the objectives of a method.

    Raises:
        UnknownNameError: For an unknown one.
        ValueError: For a sampler of one reward where there are several objectives.
    """
    if isinstance(sampler, str):
        SAMPLERS[sampler]
    if goals and (sampler in ONE_REWARD or isinstance(sampler, MCTSSampler)):
        raise ValueError(
            f"MCTSSampler is for one reward; the method {method!r} has the objectives {list(goals)}. Samplers for "
            f"them: {', '.join(name for name in SAMPLERS if name not in ONE_REWARD)}."
        )


def create_sampler(name: str, seed: int) -> BaseSampler:
    """Create a sampler by name, of which 25 + 25 trials draw what 50 draw.

    Raises:
        UnknownNameError: For an unknown one.
    """
    create = SAMPLERS[name]
    return create(seed) if name in SEEDED_PER_TRIAL else PerTrialSampler(create, seed)


def _short(seed: int) -> int:
    return seed % 2**32  # numpy's legacy generators take 32 bits
