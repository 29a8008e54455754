"""The load-bearing walls: search without torch, training without optuna, and an import that costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optuna_kd

PACKAGE = Path(optuna_kd.__file__).parent
MODULES = {
    ".".join(["optuna_kd", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
NO_TORCH = (
    "search_space", "samplers", "pruners", "analysis", "recipe", "recipe_parts", "recipe_notation", "registry", "seeds",
    "scales", "study", "storages", "goals", "pareto", "presets", "visualization", "durations", "cards", "files", "zoo",
    "serving", "reporting", "lazy", "ports",
)  # fmt: skip
NO_OPTUNA = ("distillers", "models", "data", "training", "rewards", "student", "cards")


def rooms(names: tuple[str, ...]) -> list[str]:
    return [module for module in MODULES if module.partition(".")[2].split(".")[0] in names]


def imports_of(module: str, *, lazy: bool = True) -> set[str]:
    """Give all modules that a module names in import statements; without `lazy`, those outside functions."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in _statements(tree, lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, [base, node.module or ""]))
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return found


def _statements(tree: ast.AST, lazy: bool) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if (is_function and not lazy) or is_for_types:
            continue
        nodes += [node, *_statements(node, lazy)]
    return nodes


def reached_from(module: str) -> set[str]:
    """Give every module that is loaded with this one: its parents, and their imports, and so on."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in MODULES:
            waiting += imports_of(current, lazy=False)
        parent = current.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return seen


def test_the_walk_sees_the_package() -> None:
    # Guards the guards: a walk that finds nothing would hold every wall.
    assert len(rooms(NO_TORCH)) > 15
    assert len(rooms(NO_OPTUNA)) > 30
    assert "torch" in reached_from("optuna_kd.objective")
    assert "optuna" in reached_from("optuna_kd.objective")
    assert "optuna_kd.seeds" in reached_from("optuna_kd.training.trainer")


@pytest.mark.parametrize("module", rooms(NO_TORCH))
def test_search_imports_no_torch(module: str) -> None:
    assert not {name for name in reached_from(module) if name.split(".")[0] in ("torch", "torchvision")}
    # Not even inside of functions.
    assert not {name for name in imports_of(module) if name.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize("module", rooms(NO_OPTUNA))
def test_training_imports_no_optuna(module: str) -> None:
    assert not {name for name in reached_from(module) if name.split(".")[0] == "optuna"}
    assert not {name for name in imports_of(module) if name.split(".")[0] == "optuna"}


@pytest.mark.parametrize("module", rooms(NO_OPTUNA))
def test_training_does_not_know_who_calls_it(module: str) -> None:
    above = ("optuna_kd.runner", "optuna_kd.objective", "optuna_kd.study", "optuna_kd.cli", "optuna_kd.commands")
    assert not {name for name in reached_from(module) if name.startswith(above)}


def test_recipes_import_neither() -> None:
    for module in rooms(("recipe", "registry", "seeds")):
        assert not {name for name in reached_from(module) if name.split(".")[0] in ("torch", "optuna", "numpy")}


def python(code: str) -> str:
    """Run code in a fresh interpreter and give what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_search_runs_without_torch() -> None:
    loads = "; ".join(f"import {module}" for module in rooms(NO_TORCH))
    assert python(f"import sys; {loads}; print('torch' in sys.modules)") == "False"


def test_a_study_is_created_and_asked_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import optuna_kd\n"
        "study = optuna_kd.create_study(storage=None, seed=0)\n"
        "from optuna_kd.study import space_of\n"
        "print(space_of(study).suggest(study.ask()))"
    )
    assert "|" in python(code)


def test_training_runs_without_optuna_and_importing_it_draws_nothing() -> None:
    loads = "; ".join(f"import {module}" for module in rooms(NO_OPTUNA))
    code = (
        "import sys, torch; sys.modules['optuna'] = None; before = torch.get_rng_state(), torch.get_num_threads()\n"
        f"{loads}\n"
        "print(torch.equal(before[0], torch.get_rng_state()), before[1] == torch.get_num_threads())"
    )
    assert python(code) == "True True"  # and nothing else is printed


def test_the_package_is_imported_in_no_time() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import optuna_kd; took = time.perf_counter() - start\n"
        "print(took, 'torch' in sys.modules, 'optuna' in sys.modules)"
    )
    took, torch, optuna = python(code).split()
    assert float(took) < 1.0
    assert (torch, optuna) == ("False", "False")


def test_every_public_name_has_a_home() -> None:
    assert set(optuna_kd.__all__) == set(optuna_kd._HOMES)
    assert set(optuna_kd.__all__) <= set(dir(optuna_kd))
    for name in optuna_kd.__all__:
        assert getattr(optuna_kd, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        optuna_kd.serach  # noqa: B018
