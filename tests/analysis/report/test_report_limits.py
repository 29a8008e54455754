"""Reports of large studies: a minute, 2 GB, 8 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[1] / "figures"
CODE = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
import made_up
from optuna_kd.analysis import build_report
study = made_up.KINDS[sys.argv[2]](5000)
started = time.process_time()
page, _ = build_report(study).save(sys.argv[3])
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, page.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise elsewhere")
@pytest.mark.parametrize("kind", ["uniads"])
def test_five_thousand_trials(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, FIGURES, kind, tmp_path],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, memory, size = map(float, done.stdout.split())
    assert seconds < 60
    assert memory < 2e9
    assert size < 8e6
