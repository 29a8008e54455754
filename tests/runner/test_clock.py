"""The time that is left, as measured."""

from __future__ import annotations

import pytest

from optuna_kd.runner.run import Clock


def test_the_clock_measures_after_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("optuna_kd.runner.run.time.monotonic", lambda: now[0])
    clock = Clock(planned=10)
    clock.started = now[0]
    assert clock.left() is None
    now[0] = 130.0  # workers were starting
    clock.advance(2)
    assert clock.left() is None
    now[0] = 134.0
    clock.advance(2)
    assert clock.seconds_per_epoch == 2.0
    assert clock.left() == 12.0
    assert clock.elapsed() == 34.0
    clock.advance(100)
    assert clock.left() == 0.0
