"""What a report says of a finished search, in HTML and in Markdown."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import optuna
import pytest
from made_cards import LINE, compared_card, make_card
from report_studies import Page, judged, report_of, searched, with_command

from optuna_kd.analysis import Finding, RuleCheck, Status, figures
from optuna_kd.analysis.report import Report, build_report
from optuna_kd.cards import MethodResult
from optuna_kd.recipe import Recipe
from optuna_kd.study.findings import CONFIRMED

LARGEST = 8_000_000  # bytes


@pytest.fixture(scope="module")
def report() -> Report:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = report_of(with_command(searched()))
    return dataclasses.replace(
        found,
        findings=(Finding("Use kl: it is better by 2 points.", "better by 2 points in 12 trials"),),
        rules=tuple(
            RuleCheck(f"rule {n}", "Auto-KD", status, "12 trials", "a reading") for n, status in enumerate(Status)
        ),
    )


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.to_html())


def test_what_was_searched_is_said(page: Page) -> None:
    for text in (
        "auto-kd: the recipe for one student",
        "10,368 recipes",
        "digits: 10 classes, images 1×8×8",
        "958 images to train, 239 to validate (these choose), 600 to test, read once, after everything was chosen",
        "resnet20, 272,186 parameters, compared maps 64×4×4, 98.30 % on the validation data",
        "resnet8x0.125, 1,384 parameters",
        "reward (maximised)",
        "12 epochs, judged after 3, 6 and 12",
        "15 epochs, 10 seeds a method",
        "Sampler tpe",
    ):
        assert text in page.text
    assert re.search(r"20: \d+ ran to the end, \d+ stopped early", page.text)


def test_the_recipe_is_said_in_words_and_as_code(page: Page) -> None:
    for text in (
        LINE,
        "The student minimises the cross-entropy with the labels, and 2 terms that compare it with the teacher.",
        "The feature maps, after attention, are compared by kl, with weight 50.",
        "The logits are compared by pearson at temperature 8, with weight 5.",
        f'optuna_kd.Recipe.from_string("{LINE}")',
        "optuna_kd.distill(task, recipe, epochs=15, seeds=10)",
    ):
        assert text in page.text


def test_is_it_real_has_all_numbers(page: Page, report: Report) -> None:
    closing = report.closing
    assert closing is not None
    assert page.text.count(closing.verdict) == 2
    assert "Better than tuned KD, beyond noise" in page.text
    own = closing.standings[0].last
    assert own.sd is not None
    assert own.bounds is not None
    expected = f"{100 * own.mean:.2f} ± {100 * own.sd:.2f} {100 * own.bounds[0]:.2f} to {100 * own.bounds[1]:.2f}"
    assert f"searched recipe 10 {expected}" in page.text
    tuned = closing.tuned
    assert tuned is not None
    assert f"tuned KD {100 * tuned.difference:+.2f} {100 * tuned.interval[0]:+.2f} to" in page.text
    assert "yes, better" in page.text
    assert closing.comparable in page.text
    assert f"is {100 * tuned.detectable:.2f} points" in page.text
    assert "Warning" not in page.text


def test_the_selected_epoch_stands_beside_the_last_one(report: Report) -> None:
    card = compared_card()

    def chosen(result: MethodResult) -> MethodResult:
        return dataclasses.replace(result, selected=tuple(value + 0.002 for value in result.accuracies))

    card = dataclasses.replace(card, result=chosen(card.result), controls=tuple(map(chosen, card.controls)))
    report = judged(report, card)
    text = Page(report.to_html()).text
    assert "test, last epoch, % 95 % interval test, epoch chosen on validation, % 95 % interval chosen − last" in text
    assert "does not say what the epoch" not in text
    assert "| **+0.20** |" in report.to_markdown()


def test_few_seeds_need_more(page: Page, report: Report) -> None:
    text = Page(judged(report, compared_card(seeds=3)).to_html()).text
    assert "Warning. 3 seeds are too few" in text
    assert "from 6 seeds on" in text
    assert "from 10 seeds on" in text
    one = Page(judged(report, compared_card(seeds=1)).to_html()).text
    assert "One seed says nothing about noise" in one
    assert text.count("from 6 seeds on") == 3 + 1  # one a control, and how to read it
    assert page.text.count("from 6 seeds on") == 1


def test_validation_data_only_is_a_warning(report: Report) -> None:
    text = judged(report, compared_card(part="validation")).to_markdown()
    assert "**Warning.** There are no test data." in text
    assert "validation, last epoch, %" in text
    assert "test, last epoch" not in text


@pytest.mark.parametrize(
    ("gain", "headline", "tone"),
    [(-0.02, "Worse than tuned KD", "worse"), (0.0, "Not better than tuned KD", "level"), (0.02, "Better", "better")],
)
def test_the_verdict_has_its_colour_and_its_words(report: Report, gain: float, headline: str, tone: str) -> None:
    html = judged(report, compared_card(gain)).to_html()
    assert f'<section class="verdict {tone}"' in html
    assert headline in Page(html).text


def test_a_card_without_controls_is_not_judged(report: Report) -> None:
    text = Page(judged(report, make_card(controls=())).to_html()).text
    assert "Not compared with its controls" in text
    assert "searched recipe 3 92.00 ± 2.00" in text


def test_trials_after_the_comparison_are_said() -> None:
    study = searched(trials=8, **{CONFIRMED: {"recipe": Recipe.from_string(LINE).to_dict(), "complete_trials": 1}})
    assert re.search(r"older than the search: \d+ trials ran to the end since", report_of(study).missing[0])


def test_guidance_and_rules_have_their_place(page: Page, report: Report) -> None:
    assert "What to do now Use kl: it is better by 2 points. Better by 2 points in 12 trials" in page.text
    for number, sign in enumerate(("✓ supported", "✗ contradicted", "? open", "– not tested")):
        assert f"rule {number} Auto-KD {sign} 12 trials" in page.text
    text = report.to_markdown()
    assert "- Use kl: it is better by 2 points. Better by 2 points in 12 trials" in text
    assert "| rule 1 | Auto-KD | ✗ contradicted | 12 trials |" in text
    bare = dataclasses.replace(report, findings=(), rules=())
    assert "What to do now" not in bare.to_markdown() + Page(bare.to_html()).text


def test_every_figure_is_there_with_its_sentence_its_numbers_and_its_notes(page: Page, report: Report) -> None:
    assert [chart.name for chart in report.charts] == list(figures.CHARTS)
    drawn = [attributes for tag, attributes in page.tags if attributes.get("class") == "plot"]
    expected = [chart for chart in report.charts if not chart.is_empty]
    assert len(drawn) == len(expected) + 1  # and that of the seeds
    ids = page.ids()
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert all(name in ids for name in str(attributes["aria-labelledby"]).split())
        assert attributes["data-drawing"] in ids
    for chart in report.charts:
        assert " ".join(chart.title.split()) in page.text
        for note in chart.notes:
            assert note in page.text
    assert "Not drawn, for want of data" in page.text


def test_the_page_is_made_for_everybody(page: Page) -> None:
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = page.ids()
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links[0] == "#report"  # the skip link comes first
    assert all(link is not None and link[1:] in ids for link in links)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    tables = [tag for tag, _ in page.tags if tag == "table"]
    assert len(tables) == len([tag for tag, _ in page.tags if tag == "caption"])


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(name)
            assert not address or address.startswith(("#", "data:")), (tag, address)
    (policy,) = [
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_both_files_are_written(report: Report, tmp_path: Path) -> None:
    page, text = report.save(tmp_path / "deep")
    assert (page, text) == (tmp_path / "deep" / "report.html", tmp_path / "deep" / "report.md")
    assert page.read_text(encoding="utf-8") == report.to_html()
    assert text.read_text(encoding="utf-8") == report.to_markdown()
    assert page.stat().st_size < LARGEST
    assert report.save(tmp_path / "mine.HTML") == (tmp_path / "mine.HTML", tmp_path / "mine.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "mine.HTML", "mine.md"]


def test_the_storage_is_named_without_its_password() -> None:
    study = optuna.create_study()
    assert build_report(study).repeat == ()  # in memory there is nothing to show again
    shown = build_report(study, storage="postgresql+psycopg://me:***@host/kd").repeat[0].code
    assert "optuna-kd dashboard --storage 'postgresql+psycopg://me:***@host/kd'" in shown


def test_markdown_lists_the_same_methods_and_figures(report: Report) -> None:
    text = report.to_markdown()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What was searched", "The recipe", "Is it real?", "What to do now", "Figures",
        "Rules of thumb, held against this search", "Versions, and how to repeat it",
    ]  # fmt: skip
    assert text.count("\n### ") == len(report.charts) + 1
    assert "| **searched recipe** | **10** |" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
