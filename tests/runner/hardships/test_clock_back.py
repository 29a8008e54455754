"""The clock of the machine goes back, an hour in every trial: nothing waits for it, and nothing comes out otherwise."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from optuna_kd.storages import create_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")

# Laid over the C library, so that SQLite and datetime see it as well as time.time.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long back;
void go_back(long seconds) { back += seconds; }
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec -= back;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""

STUDY = """
import ctypes, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import digits_worker
from optuna_kd import optimize

objective = digits_worker.create_objective(Path(sys.argv[2]))

def clocked(trial):
    ctypes.CDLL(None).go_back(ctypes.c_long(3600))
    return objective(trial)

optimize(digits_worker.join_study(sys.argv[1]), clocked, total_trials=4)
began = time.monotonic()
optimize(digits_worker.join_study(sys.argv[1]), clocked, total_trials=10**6, timeout=0.1)
print(time.monotonic() - began)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A library that lets the clock go back in the processes that load it first."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("A clock that goes back needs a C compiler, and Linux.")
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    return library


def test_a_study_whose_clock_goes_back(clock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = f"sqlite:///{tmp_path / 'kd.db'}", Path(__file__).parents[2] / "chaos"
    command = [sys.executable, "-c", STUDY, url, tmp_path / "checkpoints", folder]
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(clock)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "taken for lost" not in done.stderr
    assert float(done.stdout) < 60  # a budget of a tenth of a second is over after one trial more
    trials = optuna.load_study(study_name="chaos", storage=create_storage(url)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * len(trials)
    assert len(trials) in (5, 6)
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    assert all(later < earlier - 3000 for earlier, later in itertools.pairwise(starts)), "the clock did not go back"
    monkeypatch.syspath_prepend(str(folder))
    from digits_worker import undisturbed

    twins = undisturbed(range(4))
    for trial in trials[:4]:
        twin = twins[trial.number]
        assert (trial.params, trial.values, trial.intermediate_values) == (
            twin.params, twin.values, twin.intermediate_values
        )  # fmt: skip
