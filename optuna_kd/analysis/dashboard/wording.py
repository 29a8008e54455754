"""What the notes of studies and of trials have in common."""

from __future__ import annotations

from optuna.storages import InMemoryStorage
from optuna.study import Study

from optuna_kd.storages import show_storage
from optuna_kd.storages.urls import backend_of


def link(study: Study, number: int) -> str:
    """Give a trial as a link to its page."""
    return f"[trial {number}](/dashboard/studies/{study._study_id}/trials?numbers={number})"


def snippet(study: Study, *lines: str, imports: str = "") -> str:
    """Give Python code that begins with loading a study."""
    where = "" if isinstance(backend_of(study._storage), InMemoryStorage) else show_storage(study._storage)
    # In lines of their own: pages do not wrap code.
    loading = [
        "import optuna_kd",
        *filter(None, [imports]),
        "",
        "study = optuna_kd.load_study(",
        f"    {study.study_name!r},",
        f"    storage={where!r},",
        ")",
    ]
    return "\n".join(["```python", *loading, *lines, "```"])


def told(amount: int) -> str:
    """Give the verb of so many."""
    return "is" if amount == 1 else "are"
