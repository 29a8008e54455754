"""What a search ends with: the student, the recipe, the table and one honest sentence."""

from __future__ import annotations

import io
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from optuna.study import Study
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from optuna_kd.analysis.statistics import Comparison, compare
from optuna_kd.analysis.verdict import SEARCHED, TUNED, judge, outcome_of
from optuna_kd.cards import installed_versions, save_card
from optuna_kd.files import write_whole
from optuna_kd.models import count_parameters, latency_ms, student_label
from optuna_kd.recipe import Recipe, StudentConfig
from optuna_kd.runner.search_card import card_of_search, publish
from optuna_kd.study import STUDY_ID, count_complete, count_finished, settings_of
from optuna_kd.training.evaluation import accuracy
from optuna_kd.training.full import mean_and_sd, student_card
from optuna_kd.training.task import ImageClassification

AVOIDED = 6  # options that the closing report names
UNTRIED = 0.5  # weight of an option that nothing is known of; below it the sampler avoids it


@dataclass(frozen=True)
class Row:
    """One line of the closing table.

    Args:
        method: Name.
        recipe: What it trained with; None for the teacher.
        accuracies: One per seed, in [0, 1], last epoch.
        parameters: Of the network that is kept.
        latency_ms: One image on one CPU thread.
        seconds: Mean wall-clock time of one training; None for the teacher.
    """

    method: str
    recipe: str | None
    accuracies: tuple[float, ...]
    parameters: int
    latency_ms: float
    seconds: float | None


@dataclass(frozen=True)
class FrontRow:
    """A trial of the Pareto front and the student trained in full by its recipe, with one seed.

    Args:
        trial: Number of the trial.
        recipe: Student and recipe.
        values: Of the trial, by objective: from its proxy.
        costs: Parameters, FLOPs and latency in milliseconds of the student.
        val_accuracy: Of the trained student, in [0, 1]; None where it was not trained in full.
        test_accuracy: Likewise; None also without test data.
        folder: Where student and recipe are; None where it was not trained in full.
    """

    trial: int
    recipe: Recipe
    values: Mapping[str, float]
    costs: Mapping[str, float]
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class OptionRow:
    """What became of one option of the search space.

    Args:
        parameter: Of the study.
        option: The choice or the value; an interval of a longer range is a text.
        visits: Finished trials that took it.
        failures: Those of them that failed, were pruned, or stand in the lower half.
        weight: From 1 down to 0.05; random draws of the sampler are proportional to it.
    """

    parameter: str
    option: Any
    visits: int
    failures: int
    weight: float


@dataclass(frozen=True)
class SearchResult:
    """The outcome of `optuna_kd.search`.

    Args:
        study: The searched study.
        recipe: The recipe that was found.
        student: The student trained with it that has the best validation accuracy.
        rows: The closing table: teacher, controls, recipe.
        comparisons: The recipe against each control, paired over the seeds.
        verdict: One sentence.
        part: "test", or "validation" where the task has no test data.
        directory: Where student, recipe and summary were written.
        front: Of a search with several objectives, the smallest student first.
        knee: Which of them is recommended and why, in one sentence.
        options: Of its space: what the search came to avoid first.
    """

    study: Study
    recipe: Recipe
    student: nn.Module
    rows: tuple[Row, ...]
    comparisons: Mapping[str, Comparison]
    verdict: str
    part: str
    directory: Path
    front: tuple[FrontRow, ...] = ()
    knee: str = ""
    options: tuple[OptionRow, ...] = ()

    def show(self, console: Console) -> None:
        """Print the tables and the verdict; sentences are wrapped in a terminal only."""
        soft = not console.is_terminal
        if self.front:
            console.print(self.front_table())
            console.print(f"{self.knee}\n", highlight=False, soft_wrap=soft)
        if any(option.weight < UNTRIED and option.visits > 1 for option in self.options):
            console.print(self.options_table())
        console.print(self.table())
        for row in self.rows:
            if row.recipe:
                console.print(f"{row.method}: {row.recipe}", highlight=False, markup=False, style="dim", soft_wrap=soft)
        console.print(f"\n{self.verdict}", highlight=False, soft_wrap=soft)

    def options_table(self) -> Table:
        """The options that the search came to avoid, for a rich console."""
        table = Table(
            title="Options that the search draws least (weak: rejected, pruned, or in the worse half)",
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
        )
        for name in ("parameter", "option"):
            table.add_column(name, overflow="fold")
        for name in ("tried", "weak", "weight"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in [option for option in self.options if option.weight < UNTRIED and option.visits > 1][:AVOIDED]:
            table.add_row(row.parameter, str(row.option), f"{row.visits}", f"{row.failures}", f"{row.weight:.2f}")
        return table

    def front_table(self) -> Table:
        """The Pareto front, for a rich console."""
        goals = list(self.front[0].values)
        table = Table(
            title="Pareto front: values of the proxies, accuracies of full trainings with one seed",
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
        )
        table.add_column("student", no_wrap=False, overflow="fold")
        for name in (*(goal for goal in goals if goal not in self.front[0].costs), "parameters", "MFLOPs", "ms"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(f"{self.part} %", justify="right", no_wrap=True)
        for row in self.front:
            assert row.recipe.student is not None
            accuracy = row.test_accuracy if self.part == "test" else row.val_accuracy
            table.add_row(
                ("* " if row.recipe == self.recipe else "  ") + student_label(row.recipe.student),
                *(f"{row.values[goal]:.4g}" for goal in goals if goal not in row.costs),
                f"{row.costs['parameters']:,.0f}",
                f"{row.costs['flops'] / 1e6:.3g}",
                f"{row.costs['latency_ms']:.2f}",
                "" if accuracy is None else f"{100 * accuracy:.2f}",
            )
        return table

    def table(self) -> Table:
        """The closing table, for a rich console."""
        seeds = len(self.rows[-1].accuracies)
        over = "1 seed" if seeds == 1 else f"mean ± sd over {seeds} seeds"
        table = Table(
            title=f"{self.part.capitalize()} accuracy after the last epoch, {over}",
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
        )
        for name in ("method", "accuracy %", "parameters", "CPU ms", "train s"):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in self.rows:
            mean, sd = mean_and_sd(row.accuracies)
            spread = f" ± {100 * sd:.2f}" if len(row.accuracies) > 1 else " " * 7
            table.add_row(
                row.method,
                f"{100 * mean:.2f}{spread}",
                f"{row.parameters:,}",
                f"{row.latency_ms:.2f}",
                "" if row.seconds is None else f"{row.seconds:.1f}",
            )
        return table

    def __str__(self) -> str:
        """The closing table and the verdict, as the command line prints them."""
        console = Console(file=io.StringIO(), width=100, record=True)
        self.show(console)
        return console.export_text().rstrip()

    def save(self, directory: str | Path) -> Path:
        """Copy `student.pt`, `recipe.json`, `summary.json`, the card and the report to another folder; return it."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("student.pt", "recipe.json", "summary.json", "card.json", "card.md"):
            shutil.copy2(self.directory / name, folder / name)
        for name in ("report.html", "report.md"):
            if (self.directory / name).exists():  # a search ends well without them
                shutil.copy2(self.directory / name, folder / name)
        return folder


def conclude(
    study: Study,
    task: ImageClassification,
    methods: Mapping[str, Recipe],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    *,
    student_file: Any,
    teacher: float,
    epochs: int,
    student_config: StudentConfig | None = None,
    storage: str = "in memory",
) -> SearchResult:
    """Choose the student by validation accuracy, compare the methods, write the files.

    Args:
        study: The searched study.
        task: Its task.
        methods: Recipe of each method, the searched one among them.
        records: The full trainings of each method, one per seed, in the same order of seeds.
        folder: Where to write.
        student_file: `student_file(index)` is the file of the searched student of a seed.
        teacher: Accuracy of the teacher on the validation data.
        epochs: Of each full training.
        student_config: Name of the student, where it is a registered model.
        storage: Where the study is, to be shown.
    """
    part = "test" if task.test_set is not None else "validation"
    field = "test_accuracy" if part == "test" else "val_accuracy"
    student = task.make_student(seed=0)
    parameters, latency = count_parameters(student), latency_ms(student, _example(task))
    rows = [
        Row(
            "teacher",
            None,
            (accuracy(task, task.teacher, "test" if part == "test" else "val"),),
            count_parameters(task.teacher),
            latency_ms(task.teacher, _example(task)),
            None,
        )
    ]
    values: dict[str, list[float]] = {}
    for method, recipe in methods.items():
        runs = records[method]
        values[method] = [run[field] for run in runs]
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        rows.append(
            Row(method, str(replace(recipe, student=None)), tuple(values[method]), parameters, latency, seconds)
        )
    controls = {name: found for name, found in values.items() if name != SEARCHED}
    comparisons = compare(values[SEARCHED], controls)
    is_tuned = methods[SEARCHED] == methods[TUNED]
    verdict = judge(comparisons, same_recipe=is_tuned)

    trained = [run for run in records[SEARCHED] if "reject_reason" not in run]
    if not trained:
        raise ValueError(
            f"Every full training with the recipe {methods[SEARCHED]} was rejected: "
            f"{records[SEARCHED][0]['reject_reason']}. Try a lower learning rate."
        )
    best = max(trained, key=lambda run: run["val_accuracy"])
    write_whole(folder / "student.pt", student_file(best["seed"]).read_bytes())
    student.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
    recipe = replace(methods[SEARCHED], student=student_config)
    recipe.save(folder / "recipe.json")
    result = SearchResult(study, recipe, student.eval(), tuple(rows), comparisons, verdict, part, folder)
    summary = {"storage": storage, **_summary(result, task, records)}
    write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    card = card_of_search(
        study, task, recipe, {method: (methods[method], records[method]) for method in methods}, SEARCHED,
        teacher=teacher, epochs=epochs, verdict=verdict, outcome=outcome_of(comparisons[TUNED], same_recipe=is_tuned),
    )  # fmt: skip
    save_card(card, folder)
    publish(study, card)
    return result


def _summary(
    result: SearchResult, task: ImageClassification, records: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    return {
        "study": result.study.study_name,
        "study_id": result.study.user_attrs.get(STUDY_ID),
        "seed": settings_of(result.study)["seed"],
        "trials": {"finished": count_finished(result.study), "complete": count_complete(result.study)},
        "verdict": result.verdict,
        "recipe": str(replace(result.recipe, student=None)),
        "accuracy_of": "test data, read once per student after its training; the recipe, the controls and the "
        "student were chosen on validation data"
        if result.part == "test"
        else "validation data, on which the recipe, the controls and the student were chosen as well: all figures "
        "are optimistic, and those of the searched recipe most",
        "table": [{**asdict(row), "accuracies": list(row.accuracies)} for row in result.rows],
        "comparisons": {name: found.to_dict() for name, found in result.comparisons.items()},
        "runs": {method: [dict(run) for run in runs] for method, runs in records.items()},
        **student_card(task),
        "layers": task.layers(),
        "images": {
            "train": len(task.train_set),
            "validation": len(task.val_set),
            "test": len(task.test_set) if task.test_set is not None else 0,
        },
        "versions": installed_versions(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _example(task: ImageClassification) -> torch.Tensor:
    return torch.zeros(1, *task.image_shape)
