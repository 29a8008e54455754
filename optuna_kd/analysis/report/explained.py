"""How to read a report, in plain sentences; HTML and Markdown say the same."""

from __future__ import annotations

import math

from optuna_kd.analysis.advice import Finding
from optuna_kd.analysis.closing import Closing
from optuna_kd.analysis.figures.wording import count

NO_SELECTED = "The card does not say what the epoch that is best on validation data scores on the test data."
NO_CLOSING = "There is no comparison over seeds here; the sentences at the top say why."
COMPARABLE = (
    "Results may be compared with those of cards and reports that carry the same twelve digits: they have the same "
    "data and split, teacher, student, preprocessing and epochs. Seeds and recipe are not in them."
)
LAST_EPOCH = (
    "The last epoch decides. The best epoch on test data, which papers often quote, lies about 0.3 points higher "
    "without any merit; the epoch chosen on validation data, among the last quarter of them, stands beside it and is "
    "honest, too."
)


def evidence_of(finding: Finding) -> str:
    """Give what a finding rests on as a sentence that stands behind it."""
    return finding.evidence[:1].upper() + finding.evidence[1:]


def headline(closing: Closing | None) -> str:
    """Say in a few words what the comparison comes to."""
    if closing is None:
        return "No verdict yet"
    return {
        "better": "Better than tuned KD, beyond noise",
        "level": "Not better than tuned KD, as far as these seeds can tell",
        "worse": "Worse than tuned KD",
        "one seed": "One seed says nothing about noise",
        "not compared": "Not compared with its controls",
    }[closing.outcome]


def how_to_read(closing: Closing) -> tuple[str, ...]:
    """Explain the two tables of the comparison."""
    said = [LAST_EPOCH]
    if closing.part == "test" and all(standing.selected is None for standing in closing.standings):
        said.append(NO_SELECTED)
    if closing.comparisons:
        said.append(
            "Equal seeds share initial weights and batches, so differences are paired. A paired t-test decides, with "
            "Holm's correction for all comparisons together at 5 %. Wilcoxon's signed-rank test (from 6 seeds on: with "
            "five its p-value cannot go below 0.06) and a bootstrap-t interval (from 10 on) stand beside it and decide "
            "nothing."
        )
    tuned = closing.tuned
    if tuned is not None and tuned.n > 1 and math.isfinite(tuned.detectable):
        said.append(
            f"The smallest true difference from tuned KD that {count(tuned.n, 'seed')} with this spread can show, four "
            f"times out of five, is {100 * tuned.detectable:.2f} points. To halve it takes about four times the seeds."
        )
    return tuple(said)
