"""Adding an operation takes one decorated function; recipes use it at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optuna_kd.distillers import (
    DISTANCES,
    TRANSFORMS,
    Distiller,
    InvalidChainError,
    OptionInfo,
    distance,
    transform,
)
from optuna_kd.models.knowledge import Knowledge
from optuna_kd.recipe import DistillerConfig, OpConfig, TermConfig


@pytest.fixture(autouse=True)
def _restored_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (TRANSFORMS, DISTANCES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def test_new_operations_run_in_full_precision_with_a_detached_teacher() -> None:
    seen = []

    @transform("shift", takes=("matrix",), stage="logit", source="a test", options={"by": OptionInfo(1.0, "how far")})
    def shift(student: Tensor, teacher: Tensor, *, by: float) -> list[tuple[Tensor, Tensor]]:
        """Add a constant."""
        seen.append((student.dtype, teacher.requires_grad))
        return [(student + by, teacher + by)]

    @distance("largest", takes=("matrix",), knowledge=("logits",), source="a test", uses_temperature=True)
    def largest(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Take the largest difference."""
        return temperature * (student - teacher).abs().max()

    term = TermConfig("logits", OpConfig("largest"), 0.5, (OpConfig("shift", {"by": 2}),), temperature=3)
    student = torch.tensor([[1.0, 2.0]], dtype=torch.float16, requires_grad=True)
    teacher = torch.tensor([[1.0, 6.0]], dtype=torch.float16, requires_grad=True)
    losses = Distiller(DistillerConfig((term,)))(Knowledge((), student), Knowledge((), teacher))
    assert losses["logits"].item() == 0.5 * 3 * 4
    assert seen == [(torch.float32, False)]
    assert TRANSFORMS["shift"].description == "Add a constant."


def test_taken_names_and_foreign_knowledge_are_refused() -> None:
    with pytest.raises(ValueError, match="'kl' is already registered"):
        distance("kl", takes=("matrix",), knowledge=("logits",), source="a test")(
            lambda student, teacher: student.sum()
        )

    @distance("rows_only", takes=("rows",), knowledge=("features",), source="a test")
    def rows_only(student: Tensor, teacher: Tensor) -> Tensor:
        """Compare rows."""
        return (student - teacher).abs().max()

    with pytest.raises(InvalidChainError, match="'rows_only' takes rows"):
        Distiller(DistillerConfig((TermConfig("features", OpConfig("rows_only")),)), [(3, 4, 4)], [(3, 4, 4)])
