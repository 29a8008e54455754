"""The first signal is a wish, the second an order."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from optuna_kd import stopping


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_once_asks_and_twice_ends(signum: signal.Signals, tmp_path: Path, ctrl_c: None) -> None:
    before, said = signal.getsignal(signum), []
    with stopping.on_signals(said.append, tmp_path / "stop"):
        stopping.check()
        assert not stopping.is_asked()
        send(signum)
        assert stopping.is_asked()
        assert (tmp_path / "stop").exists()
        with pytest.raises(stopping.Stopped) as caught:
            stopping.check()
        assert caught.value.signum == signum
        assert isinstance(caught.value, KeyboardInterrupt)
        with pytest.raises(stopping.Stopped, match=f"signal {signum}$"):
            send(signum)
    assert len(said) == 1
    assert "again" in said[0]
    assert signal.getsignal(signum) == before
    assert not stopping.is_asked()


def test_contexts_within_and_threads_change_nothing() -> None:
    with stopping.on_signals(print):
        handler = signal.getsignal(signal.SIGINT)
        with stopping.on_signals(print):
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler

    seen = []

    def work() -> None:
        with stopping.on_signals(print):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_file_is_a_wish_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stopping.listen(tmp_path / "stop")
        assert not stopping.is_asked()
        (tmp_path / "stop").touch()
        assert stopping.is_asked()
        stopping.listen()
        assert not stopping.is_asked()
        send(signal.SIGTERM)
        assert stopping.is_asked()
    finally:
        stopping.listen()
        signal.signal(signal.SIGTERM, before)
