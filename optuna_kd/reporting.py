"""Reports of studies in a storage, and of a search that has just ended. Nothing here imports torch."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.analysis.report import build_report
from optuna_kd.registry import suggest_name
from optuna_kd.storages import StorageError, open_to_read, show_storage
from optuna_kd.storages.reading import UNREADABLE
from optuna_kd.storages.transient import reason_of
from optuna_kd.study import SETTINGS, load_study

_LISTED = 20  # studies that an error names


def report_from_storage(study: str | None, storage: str, out: str | Path) -> tuple[Path, Path]:
    """Write the report of a study, as HTML and as Markdown; its storage is only read.

    Args:
        study: Its name; None where the storage holds one searched study.
        storage: A database URL.
        out: A folder, or the HTML file.

    Returns:
        The two files.

    Raises:
        StorageError: If there is no such storage, or it cannot be read.
        ValueError: If there is no such study, or none is named and there are several; the message names them.
        OSError: If a file cannot be written.
    """
    shown = show_storage(storage)
    opened = open_to_read(storage)
    try:
        report = build_report(_load(_chosen(study, opened, shown), opened), storage=shown)
    except UNREADABLE as error:
        raise StorageError(f"Cannot read the storage {shown}: {reason_of(error)}.") from None
    return report.save(out)


def report_of_search(study: Study, folder: Path) -> str:
    """Write the report of a search that has just ended beside its results; give the line that says so.

    Whatever goes wrong, the results are there, so it is a line as well and not an error.
    """
    started = time.perf_counter()
    try:
        page, _ = build_report(study).save(folder)
    except Exception as error:
        return f"Report     could not be written ({type(error).__name__}: {error}); `optuna-kd report` tries again"
    took = time.perf_counter() - started
    return f"Report     {page}" + (f" ({took:.0f} s)" if took >= 10 else "")


def _chosen(name: str | None, storage: BaseStorage, shown: str) -> str:
    """Give the name of the study to report on: companions of searches and foreign ones only count where named."""
    found = storage.get_all_studies()
    names = [study.study_name for study in found]
    if name is not None:
        if name not in names:
            raise suggest_name(f"study in {shown}:", name, names) if names else ValueError(f"{shown} holds no studies.")
        return name
    known = set(names)
    searched = [
        study.study_name
        for study in found
        if SETTINGS in study.user_attrs and study.study_name.rpartition("/")[0] not in known
    ]
    candidates = searched or names
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ValueError(f"{shown} holds no studies.")
    listed = ", ".join(repr(each) for each in sorted(candidates)[:_LISTED])
    more = f" and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    raise ValueError(f"{shown} holds {len(candidates)} studies; say which: {listed}{more}.")


def _load(name: str, storage: BaseStorage) -> Study:
    """Load a study with its sampler, which knows what to recommend; a foreign one, or one of later, without."""
    try:
        return load_study(name, storage=storage)
    except (ValueError, KeyError, TypeError):
        return optuna.load_study(study_name=name, storage=storage)
