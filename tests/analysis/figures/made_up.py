"""Studies of every kind, made up trial by trial: nothing is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial

import optuna_kd
from optuna_kd.objective import FunctionObjective
from optuna_kd.pruners.cka import CONTROL_GAPS, GAPS
from optuna_kd.pruners.rejection import REJECT_REASON
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.scales import LOG_OBJECTIVES
from optuna_kd.search_space import create_space
from optuna_kd.study import RECIPE, TASK

NASTY = "<b>p</b><script>alert('1')</script>&amp;$x^2$%{x}\n\t" + "ü" * 3000
START = datetime(2026, 1, 1)


def trial(
    params: dict[str, Any] | None = None,
    values: float | Sequence[float] | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
    distributions: dict[str, BaseDistribution] | None = None,
    reports: dict[int, float] | None = None,
    took: float = 1.0,
    **attributes: Any,
) -> optuna.trial.FrozenTrial:
    """Make a trial; strings become categorical, whole numbers 0 to 10, and floats 0 to 1, if nothing else is said."""
    known = {name: _distribution(value) for name, value in (params or {}).items()} | (distributions or {})
    several = isinstance(values, Sequence)
    made = create_trial(
        state=state,
        params=params or {},
        distributions=known,
        value=None if several else values,
        values=values if several else None,
        intermediate_values=reports or {},
        user_attrs=attributes,
    )
    if state.is_finished():
        made.datetime_start, made.datetime_complete = START, START + timedelta(seconds=took)
    return made


def _distribution(value: Any) -> BaseDistribution:
    if isinstance(value, str):
        return CategoricalDistribution(("a", "b", "c"))
    return IntDistribution(0, 10) if isinstance(value, int) else FloatDistribution(0, 1)


def study_of(
    trials: Sequence[optuna.trial.FrozenTrial], *directions: str, names: Sequence[str] = (), **attributes: Any
) -> Study:
    """Put trials into a study; it is maximised if nothing else is said."""
    study = optuna.create_study(directions=list(directions) or ["maximize"])
    if names:
        study.set_metric_names(list(names))
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    study.add_trials(trials)
    return study


def empty() -> Study:
    return study_of([])


def only_waiting() -> Study:
    study = empty()
    study.enqueue_trial({"x": 1.0})
    return study


def one_trial() -> Study:
    return study_of([trial({"x": 0.5}, 1.0)])


def one_without_parameters() -> Study:
    return study_of([trial({}, 1.0)])


def all_pruned() -> Study:
    pruned = TrialState.PRUNED
    return study_of([trial({"x": n / 9}, state=pruned, reports={1: n / 10, 2: n / 5}) for n in range(8)])


def pruned_without_reports() -> Study:
    return study_of([trial({"x": n / 9}, state=TrialState.PRUNED) for n in range(5)])


def all_failed() -> Study:
    return study_of([trial({"x": n / 9}, state=TrialState.FAIL) for n in range(5)])


def still_running() -> Study:
    study = study_of([trial({"x": n / 9, "kind": "ab"[n % 2]}, float(n), reports={1: n / 2}) for n in range(6)])
    for _ in range(2):
        running = study.ask()
        running.suggest_float("x", 0, 1)
        running.report(0.3, 1)
    study.enqueue_trial({"x": 0.1})
    return study


def numbers(count: int = 40) -> Study:
    """A stranger's study: floats, logarithms, integers, choices; minimised, and pruned by steps from 0."""
    rng = np.random.default_rng(0)
    ranges = {
        "learning rate": FloatDistribution(1e-5, 1e-1, log=True),
        "layers": IntDistribution(1, 4),
        "width": IntDistribution(8, 4096, log=True),
        "momentum": FloatDistribution(0, 1, step=0.1),
        "optimizer": CategoricalDistribution(("adam", "sgd", None, 3, True)),
    }
    trials = []
    for _ in range(count):
        params = {
            "learning rate": float(10 ** rng.uniform(-5, -1)),
            "layers": int(rng.integers(1, 5)),
            "width": int(2 ** rng.uniform(3, 12)),
            "momentum": round(float(rng.integers(0, 11)) / 10, 1),
            "optimizer": ("adam", "sgd", None, 3, True)[rng.integers(5)],
        }
        loss = abs(math.log10(params["learning rate"]) + 3) + rng.random() / 5
        steps = 30 if loss < 1 else int(rng.integers(1, 25))
        reports = {step: loss + 2 / (step + 1) for step in range(steps)}
        state = TrialState.COMPLETE if steps == 30 else TrialState.PRUNED
        value = loss if steps == 30 else None
        trials.append(trial(params, value, state=state, distributions=ranges, reports=reports, took=float(steps)))
    return study_of(trials, "minimize")


def many_objectives() -> Study:
    rng = np.random.default_rng(1)
    trials = [trial({"x": float(x)}, [float(x), 1 - float(x), *rng.random(2).tolist()]) for x in rng.random(30)]
    return study_of(trials, "minimize", "minimize", "maximize", "minimize")


def constrained() -> Study:
    """Two objectives; every third trial breaks a constraint, and the best of all is among those."""
    trials = []
    for n in range(30):
        made = trial({"x": n / 30, "size": n % 10}, [1.0 - n / 30, 100.0 * (1 + n % 7)])
        made.set_constraint("limit", 1.0 if n % 3 == 2 else -1.0)
        trials.append(made)
    return study_of(trials, "minimize", "minimize", names=("error", "bytes"))


def all_infeasible() -> Study:
    trials = []
    for n in range(6):
        made = trial({"x": n / 9}, [float(n), float(6 - n)])
        made.set_constraint("limit", 1.0)
        trials.append(made)
    return study_of(trials, "minimize", "minimize")


def mixed_spaces() -> Study:
    """Ranges that change, and a name that is a number here and a choice there."""
    trials = []
    for n in range(24):
        params: dict[str, Any] = {"kind": "abc"[n % 3]}
        ranges: dict[str, BaseDistribution] = {}
        if n % 3 == 0:
            params["size"], ranges["size"] = n, IntDistribution(0, 30 + n)
        elif n % 3 == 1:
            params["size"], ranges["size"] = "large", CategoricalDistribution(("small", "large"))
        else:
            params["rate"], ranges["rate"] = 0.1 * (n + 1), FloatDistribution(0.05, 10.0, log=n > 12)
        trials.append(trial(params, math.sin(n), distributions=ranges, reports={n % 4: float(n)}))
    return study_of(trials)


def odd_values() -> Study:
    """Infinite values, NaN at rungs and at the end, and the largest floats that there are."""
    values = [1.0, math.inf, -math.inf, 1e308, -1e308, 0.0, 5e-324, 2.0, 1.5, 1.2, 1.1, 1.05, 1.7]
    trials = [trial({"x": n / 20, "kind": "ab"[n % 2]}, value, reports={1: value}) for n, value in enumerate(values)]
    trials += [trial({"x": 0.9}, state=TrialState.PRUNED, reports={1: math.nan})]
    trials += [trial({"x": 0.8}, state=TrialState.PRUNED, reports={1: 1.0, 2: math.inf})]
    return study_of(trials)


def huge_values() -> Study:
    """Mostly the largest floats, so that quartiles are as large."""
    values = [math.inf, 1.0, 1e308, -1e308, -math.inf, 1e308, -1e308, 2.0]
    trials = []
    for n in range(32):
        value = values[n % 8] * (1 if n % 8 in (0, 2, 3, 4, 5, 6) else n)
        trials.append(trial({"x": n / 32, "kind": "ab"[n % 2]}, value, reports={1: value, 2: float(n)}))
    trials += [
        trial({"x": n / 32, "kind": "ab"[n % 2]}, state=TrialState.PRUNED, reports={1: (-1) ** n * 1e308})
        for n in range(3)
    ]
    return study_of(trials)


def equal_values() -> Study:
    return study_of([trial({"x": n / 20, "kind": "ab"[n % 2]}, 0.0, reports={1: 0.0}) for n in range(12)])


def odd_values_of_two() -> Study:
    values = [1.0, math.inf, 1e308, -1e308, 0.0, 2.0, 3.0, 0.5, 0.25, 4.0]
    trials = [trial({"x": n / 20}, [value, -value]) for n, value in enumerate(values)]
    return study_of(trials, "minimize", "minimize", **{LOG_OBJECTIVES: [1]})


def nasty_names(count: int = 24) -> Study:
    """Mark-up, LaTeX, templates and thousands of characters wherever a name or a text can stand."""
    ranges = {
        NASTY: CategoricalDistribution((NASTY + "1", NASTY[::-1], "<i>c</i>")),
        "<br>" * 20: FloatDistribution(0, 1),
        "\u202eevil\u0000": IntDistribution(0, 3),
    }
    trials = []
    for n in range(count):
        params = dict(zip(ranges, ((NASTY + "1", NASTY[::-1], "<i>c</i>")[n % 3], n / count, n % 4), strict=True))
        attributes = {RECIPE: NASTY}
        if n % 4 == 3:
            attributes[REJECT_REASON] = NASTY
        reports = {1: [n / 9, 2.0], 2: [n / 8, 2.0]}
        trials.append(
            trial(
                params,
                None if n % 4 == 3 else [float(n), float(n % 5)],
                state=TrialState.PRUNED if n % 4 == 3 else TrialState.COMPLETE,
                distributions=ranges,
                reports={step: told[0] for step, told in reports.items()},
                **attributes,
                **{RUNG_VALUES: {str(step): told for step, told in reports.items()}},
            )
        )
    return study_of(trials, "minimize", "maximize", names=(NASTY, "<script>2</script>"))


def odd_attributes() -> Study:
    """Attributes under our names that hold something else."""
    odd = {
        "seconds": "long", "epochs": [1], GAPS: {"a": "b", "1": None}, RUNG_VALUES: "none", RECIPE: 7,
        REJECT_REASON: 3,
    }  # fmt: skip
    trials = [trial({"x": n / 9}, float(n), reports={1: 0.5}, **odd) for n in range(4)]
    trials.append(trial({"x": 0.9}, state=TrialState.PRUNED, reports={1: 0.5}, **odd))
    return study_of(trials, **{TASK: {"proxy": [], "reward": 3, "classes": "ten"}, CONTROL_GAPS: 3})


def auto_kd(count: int = 40) -> Study:
    """A search of one reward in our space, with the attributes that `DistillationObjective` leaves."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna_kd.create_study(storage=None, seed=0, sampler="random")
    rungs = (3, 6, 12)
    study.set_user_attr(TASK, {"reward": "bounded", "classes": 10, "proxy": {"epochs": 12, "rungs": list(rungs)}})
    study.set_user_attr(CONTROL_GAPS, {"3": 0.5, "6": 0.45, "12": 0.4})
    rng = np.random.default_rng(0)

    def train(recipe: Any, *, seed: int, report: Callable[..., None]) -> dict[str, float]:
        text = str(recipe)
        quality = 0.5 + 0.2 * ("kl" in text.split(" + ")[0]) - 0.1 * ("mask" in text) + 0.05 * rng.standard_normal()
        if "l2*50" in text:
            raise optuna_kd.LossRejected("exploding loss: 31, above 3 times the first loss of 4.2")
        for rung in rungs:
            gap = 0.6 - 0.3 * quality * rung / 12
            report(rung, quality * (1 - 1 / rung), gap)
        return {"reward": quality, "epochs": 12, "cka": 0.7}

    study.optimize(FunctionObjective(train), n_trials=count)
    return study


def uniads(count: int = 40) -> Study:
    """A joint search in our space: pruned, rejected and infeasible students."""
    rng = np.random.default_rng(0)
    space = create_space("uniads")
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drafts = [asked.ask() for _ in range(min(count, 300))]
    for draft in drafts:
        space.suggest(draft)
    trials = []
    for draft in itertools.islice(itertools.cycle(drafts), count):
        size = float(1000 * 4 ** rng.uniform(0, 4))
        loss = 3 / math.log(size) + 0.1 * rng.random()
        reports = {rung: [loss + 2 / rung, size] for rung in (3, 6, 12, 24)}
        made: dict[str, Any] = {"epochs": 24, "seconds": 24 * size / 1e4, "parameters": size, RECIPE: "kl@4*1"}
        state, values = TrialState.COMPLETE, [loss, size]
        if size > 100_000:
            state, reports, made = (
                TrialState.PRUNED,
                {},
                {REJECT_REASON: "infeasible: 1 parameters", "parameters": size},
            )
        elif loss > 0.38:
            state, reports = TrialState.PRUNED, {3: reports[3]}
            made |= {"epochs": 3, "seconds": 3 * size / 1e4}
        elif rng.random() < 0.1:
            state, reports = TrialState.PRUNED, {3: reports[3], 6: reports[6]}
            made |= {"epochs": 6, "seconds": 6 * size / 1e4, REJECT_REASON: "collapsed: a validation loss of 2.4"}
        numbers = {rung: told[0] for rung, told in reports.items()}
        if state is TrialState.PRUNED and reports:
            numbers[max(reports) + 1] = math.nan
        trials.append(
            trial(
                draft.params,
                values if state is TrialState.COMPLETE else None,
                state=state,
                distributions=draft.distributions,
                reports=numbers,
                **made,
                **({RUNG_VALUES: {str(rung): told for rung, told in reports.items()}} if reports else {}),
            )
        )
    return study_of(
        trials, "minimize", "minimize", names=("cross_entropy", "parameters"),
        **{LOG_OBJECTIVES: [1], TASK: {"classes": 10, "proxy": {"epochs": 24, "subset": 0.5, "narrow": 0.71}}},
    )  # fmt: skip


KINDS: dict[str, Callable[[], Study]] = {
    made.__name__: made
    for made in (
        empty, only_waiting, one_trial, one_without_parameters, all_pruned, pruned_without_reports, all_failed,
        still_running, numbers, many_objectives, constrained, all_infeasible, mixed_spaces, odd_values, huge_values,
        equal_values, odd_values_of_two, nasty_names, odd_attributes, auto_kd, uniads,
    )
}  # fmt: skip
