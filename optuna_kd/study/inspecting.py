"""Looking at the studies of a storage: which of them are finished, and what each would hand on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.cards import CardError, RecipeCard, TaskFacts
from optuna_kd.study.findings import count_finished
from optuna_kd.study.loading import load_study
from optuna_kd.study.settings import CARD, FACTS, SETTINGS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspected:
    """A study in a storage.

    Args:
        name: Of the study.
        study: With the sampler that it was made with; None if this optuna_kd cannot read it.
        card: Of a finished search.
        problem: Where there is no card, one sentence about it.
    """

    name: str
    study: Study | None
    card: RecipeCard | None
    problem: str = ""


def search_beside(study: Study) -> str | None:
    """Name the search whose trainings a study keeps (its controls, confirmation or full ones); None for any other."""
    name = study.study_name.rpartition("/")[0]
    if not name or SETTINGS in study.user_attrs:
        return None
    try:
        attributes = study._storage.get_study_user_attrs(study._storage.get_study_id_from_name(name))
    except KeyError:
        return None
    return name if SETTINGS in attributes else None


def inspect_storage(storage: BaseStorage) -> Iterator[Inspected]:
    """Look at every study of a storage, without the companions of searches."""
    studies = storage.get_all_studies()
    names = {found.study_name for found in studies}
    for found in sorted(studies, key=lambda study: study.study_name):
        if found.study_name.rpartition("/")[0] in names:
            continue
        if SETTINGS not in found.user_attrs:
            yield Inspected(found.study_name, None, None, "not made by optuna_kd")
            continue
        try:
            study = load_study(found.study_name, storage=storage)
        except (ValueError, KeyError, TypeError) as error:  # of a later version, or deleted while we look
            yield Inspected(found.study_name, None, None, f"it cannot be read: {error}")
            continue
        yield inspect_study(study)


def inspect_study(study: Study) -> Inspected:
    """Look at one study."""
    try:
        card = card_of(study)
    except CardError as error:
        return Inspected(study.study_name, study, None, f"its card cannot be read: {error}")
    if card is None:
        trials = count_finished(study)
        return Inspected(
            study.study_name, study, None, f"no card: {trials} finished trials; a search that ends adds one"
        )
    return Inspected(study.study_name, study, card)


def card_of(study: Study) -> RecipeCard | None:
    """Read the recipe card of a finished search; None where there is none.

    Raises:
        CardError: If it cannot be read.
    """
    stored = study.user_attrs.get(CARD)
    return None if stored is None else RecipeCard.from_dict(stored)


def facts_of(study: Study) -> TaskFacts | None:
    """Read what a study was run on; None where that is not known, as for a training function of one's own."""
    stored = study.user_attrs.get(FACTS)
    try:
        return None if stored is None else TaskFacts.from_dict(stored)
    except CardError as error:
        logger.warning("What the study %r was run on cannot be read: %s", study.study_name, error)
        return None
