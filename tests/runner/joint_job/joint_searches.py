"""A search for student and recipe, small enough for a test."""

from __future__ import annotations

import functools
from typing import Any

from optuna_kd.models import create_student
from optuna_kd.recipe import Options, ProxyConfig, StudentConfig
from optuna_kd.search_space import StudentSpace, UniADSSpace

FAMILY = StudentSpace(
    "resnet", {"depth_1": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "depth_3": 1, "base_width": 0.25}
)
# Plain KD for every student: they all learn, so that small searches have a front. Few temperatures: few controls.
SPACE = UniADSSpace(student=FAMILY, distiller=False, temperatures=(4,))
CONTROLS = 1 + 4  # labels only, and four weights at one temperature
SMALL: dict[str, Any] = {
    "method": "uniads",
    "space": SPACE,
    "trials": 5,
    "epochs": 1,
    "seeds": 2,
    "confirm": (2, 1),
    "proxy": ProxyConfig(epochs=2, rungs=(2,), subset=0.5),
    "study_name": "small",
    "progress": False,
}
build = functools.partial(create_student, num_classes=10, in_channels=1, input_size=8)


def student(**options: Any) -> StudentConfig:
    return StudentConfig("resnet", Options({**FAMILY.fixed, "depth_1": 1, "width": 1.0, **options}))
