"""The public front: a study in, a figure out, and nothing written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest

from optuna_kd import visualization

PLOTS = [getattr(visualization, name) for name in visualization.__all__]


def some_study(storage: str | None = None) -> optuna.Study:
    study = optuna.create_study(
        directions=["minimize", "minimize"], storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(0)
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        x = trial.suggest_float("x", 0, 1) if kind == "a" else 0.5
        return x, 1 - x

    study.optimize(objective, n_trials=12)
    return study


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_every_plot_gives_a_figure(plot: object) -> None:
    figure = plot(some_study())  # type: ignore[operator]
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text


def test_a_storage_may_be_read_only(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    some_study(f"sqlite:///{file}")
    file.chmod(stat.S_IRUSR)
    content = file.read_bytes()
    study = optuna.load_study(study_name="s", storage=f"sqlite:///file:{file}?mode=ro&uri=true")
    for plot in PLOTS:
        assert isinstance(plot(study), go.Figure)
    assert file.read_bytes() == content


def test_arguments_are_passed_on() -> None:
    study = some_study()
    assert "value 1" in visualization.plot_optimization_history(study, objective=1).layout.title.text
    assert "value 1" in visualization.plot_search_tree(study, objective="value 1").layout.title.text
    assert visualization.plot_pareto_front(study, axes=(0, 1)).layout.xaxis.title.text.startswith("value 0")
    assert "value 1" in str(visualization.plot_parallel_coordinate(study, objective=1).layout.annotations)
    with pytest.raises(ValueError, match="Unknown objective 'speed'"):
        visualization.plot_optimization_history(study, objective="speed")
    with pytest.raises(ValueError, match="Unknown parameter 'depth'"):
        visualization.plot_learning_curves(study, by="depth")


@pytest.mark.parametrize("study", ["mine", None])
def test_what_is_no_study_is_an_error(study: Any) -> None:
    with pytest.raises(TypeError, match=r"A study is expected, such as .*; got "):
        visualization.plot_optimization_history(study)


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; import optuna\n"
        "from optuna_kd import visualization\n"
        "print(len(visualization.plot_search_tree(optuna.create_study()).data), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "0 False", done.stderr
