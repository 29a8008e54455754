"""What notes say: the best that keeps the constraints, how far a study is, and why a trial is worth a look."""

from __future__ import annotations

from pathlib import Path

import made_up
import optuna
import pytest
from made_cards import make_card
from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.analysis.dashboard.study_note import study_note
from optuna_kd.analysis.dashboard.trial_notes import trial_notes
from optuna_kd.analysis.table import read_table
from optuna_kd.cards.showing import prose
from optuna_kd.objective import FunctionObjective
from optuna_kd.recipe import Recipe
from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.storages import create_storage
from optuna_kd.study import CARD, FACTS, create_study, recipe_of, record_confirmed

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def note(study: Study, artifacts: tuple[str, ...] = ()) -> str:
    return study_note(read_table(study), study, artifacts)


def notes(study: Study) -> dict[int, str]:
    return trial_notes(read_table(study), study)


@pytest.fixture
def searched() -> Study:
    """A search of ours whose trials are worth 0.1, 0.2, ..."""
    study = create_study(storage=None, seed=0, sampler="random", study_name="searched")
    worth = iter(range(1, 9))
    study.optimize(FunctionObjective(lambda recipe, *, seed, report: next(worth) / 10), n_trials=6)
    return study


def test_a_foreign_study() -> None:
    found = note(made_up.study_of([made_up.trial({"x": 0.25}, 3.0), made_up.trial({"x": 0.5}, 2.0)], "minimize"))
    assert "An Optuna study in which `value` is minimised." in found
    assert "**Best so far:** value **2**, [trial 1](/dashboard/studies/0/trials?numbers=1): `x = 0.5`" in found
    assert "**Progress:** 2 trials: 2 ran to the end. They took 2 s of training." in found
    assert "load_study" not in found  # which is for studies of ours


def test_names_are_no_markup() -> None:
    picture = "![p](http://a.test/p.png)"
    failed = made_up.trial({}, state=TrialState.FAIL)
    found = note(made_up.study_of([made_up.trial({picture: 0.25}, 3.0), failed], "minimize", names=[picture]))
    assert f"**Best so far:** {prose(picture)} **3**" in found
    assert picture not in found.replace(f"`{picture}`", "")
    assert "**Progress:** 1 trials: 1 ran to the end; 1 failed." in found


@pytest.mark.parametrize(("kind", "said"), [("empty", "0 trials."), ("only_waiting", "0 trials; 1 waiting to run.")])
def test_nothing_yet(kind: str, said: str) -> None:
    study = made_up.KINDS[kind]()
    assert "**Best so far:** there is no complete trial yet." in note(study)
    assert note(study).endswith(f"**Progress:** {said}")
    assert notes(study) == {}


def test_a_search_of_ours(searched: Study) -> None:
    searched.set_user_attr(FACTS, make_card().task.to_dict())
    searched.set_user_attr(TOTAL_TRIALS, 60)
    found = note(searched)
    assert "how `resnet20` (272,186 parameters) teaches `resnet8x0.125` (1,384 parameters) on `digits`" in found
    best = searched.trials[5].user_attrs["recipe"]
    assert f"value **0.6**, [trial 5](/dashboard/studies/0/trials?numbers=5): `{best}`" in found
    assert "**Progress:** 6 of 60 trials: 6 ran to the end" in found
    assert "in memory" not in found
    assert "Study Artifacts" not in found
    assert "On the page *History*, under *Study Artifacts*: card\\.json and student\\.pt." in note(
        searched, ("student.pt", "card.json")
    )


def test_the_confirmed_recipe_until_there_is_another_trial(searched: Study) -> None:
    recipe = recipe_of(searched, searched.trials[2])
    record_confirmed(searched, recipe)
    assert f"**To use:** `{recipe}`, the best over new seeds" in note(searched)
    searched.optimize(FunctionObjective(lambda recipe, *, seed, report: 0.1), n_trials=1)
    assert "To use" not in note(searched)


def test_the_closing_table(searched: Study) -> None:
    searched.set_user_attr(CARD, make_card().to_dict())
    found = note(searched)
    assert "> The searched recipe beats tuned KD beyond noise" in found
    assert "| searched recipe | 92.00 | 87.03 to 96.97 | 3 |" in found
    assert "optuna-kd distill --recipe card.json" in found
    searched.set_user_attr(CARD, {"format": "optuna_kd.card", "version": 99})  # of a later version
    assert "| method |" not in note(searched)


def test_what_breaks_a_constraint_is_never_the_best() -> None:
    study = made_up.constrained()  # the smallest error of all is that of trial 29, which breaks it
    found = note(study)
    assert "**The front**, of 1 trial; first its knee" in found
    assert "| [trial 28](/dashboard/studies/0/trials?numbers=28) | 0.06667 | 100 | " in found
    assert "10 complete trials of 30 break a constraint and are never the best here" in found
    assert "### The knee of the front" in notes(study)[28]
    assert 29 not in notes(study)
    nothing = made_up.all_infeasible()
    assert "**The front:** there is no complete trial that keeps all constraints yet." in note(nothing)
    assert notes(nothing) == {}


def test_one_objective_with_a_constraint() -> None:
    trials = [made_up.trial({"x": n / 9}, float(n)) for n in range(4)]
    for trial, excess in zip(trials, (-1.0, -1.0, -1.0, 0.5), strict=True):
        trial.set_constraint("limit", excess)
    study = made_up.study_of(trials)
    assert "value **2**, [trial 2]" in note(study)
    assert "1 complete trial of 4 breaks a constraint and is never the best here" in note(study)
    assert "none of the 3 other trials that ran to the end and keep all constraints was better" in notes(study)[2]


def test_the_front_and_its_knee() -> None:
    points = [(0.0, 10.0), (1.0, 1.0), (10.0, 0.0), (5.0, 5.0)]
    study = made_up.study_of(
        [made_up.trial({"x": n / 9}, each) for n, each in enumerate(points)], "minimize", "minimize"
    )
    found = notes(study)
    assert sorted(found) == [0, 1, 2]
    assert found[1].startswith("### The knee of the front")
    assert "value 0 **1**, value 1 **1**" in found[1]
    assert found[0].startswith("### On the front")
    lines = [line for line in note(study).splitlines() if line.startswith("| [")]
    assert next(line.split("]")[0] for line in lines) == "| [trial 1"
    assert len(lines) == 3


def test_the_first_rejected_and_failed_trials_say_why() -> None:
    trials = [
        made_up.trial({"x": 0.1}, state=TrialState.PRUNED, reject_reason=f"not finite <b>{n}</b>") for n in range(5)
    ]
    trials += [made_up.trial({"x": 0.1}, state=TrialState.FAIL, fail_reason="RuntimeError('no | bar')")]
    found = notes(made_up.study_of([*trials, made_up.trial({"x": 0.5}, 1.0)]))
    assert sorted(found) == [0, 1, 2, 5, 6]
    assert found[0] == "### Rejected\n\nnot finite \\<b\\>0\\</b\\>\n\n`x = 0.1`"
    assert found[5].startswith("### Failed\n\nRuntimeError('no \\| bar')")
    assert found[6].startswith("### The best so far\n\nvalue **1**, the only trial that ran to the end")


def test_what_was_scored_again(searched: Study) -> None:
    companion = optuna.create_study(storage=searched._storage, study_name="searched/confirmation", direction="maximize")
    for number, rewards in ((5, (0.4, 0.6)), (4, (0.55, 0.65))):
        recipe = recipe_of(searched, searched.trials[number])
        for index, reward in enumerate(rewards):
            companion.add_trial(optuna.create_trial(value=reward, user_attrs={"key": f"{recipe.digest}/{index}"}))
    found = notes(searched)
    assert sorted(found) == [4, 5]
    assert "With 2 new seeds its recipe had a mean reward of **0.5** (0.4, 0.6): the best had 0.6." in found[5]
    assert found[5].startswith("### The best so far")
    assert "**0.6** (0.55, 0.65): the best of those that were scored again." in found[4]
    assert "recipe = recipe_of(study, study.trials[4])" in found[4]


def test_the_code_in_a_note_runs(tmp_path: Path, searched: Study) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    storage = create_storage(url)
    optuna.copy_study(from_study_name="searched", from_storage=searched._storage, to_storage=storage)
    study = optuna.load_study(study_name="searched", storage=storage)
    for text in (note(study), notes(study)[5]):
        code = text.split("```python\n")[1].split("\n```")[0]
        found: dict[str, object] = {}
        exec(code, found)
        assert isinstance(found["recipe"], Recipe)
