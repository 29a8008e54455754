"""Two processes that train together, started once for many checks: functions of `rank_checks` and `rank_ends`."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

START = 300.0  # seconds; torch, and what it imports at the first optimizer, twice on a machine that has other work
TIMEOUT = 120.0  # seconds; a check that takes longer hangs


class Pair:
    """The two processes, from outside; they start when they are needed, and again when they have ended."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self._answers: list[queue.Queue[str]] = []

    def run(self, check: str, *arguments: Any) -> list[Any]:
        """Run a function in both, at the same time; give what each of them returned."""
        self.begin(check, *arguments)
        return [self.answer(rank) for rank in range(2)]

    def begin(self, check: str, *arguments: Any) -> None:
        """Let a function begin in both."""
        if not self.processes:
            self._start()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([check, arguments]) + "\n")
            process.stdin.flush()

    def answer(self, rank: int, timeout: float = TIMEOUT) -> Any:
        """Give what a function has returned in one of them."""
        try:
            line = self._answers[rank].get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise AssertionError(f"Rank {rank} hangs.") from None
        if not line:
            code = self.processes[rank].wait()
            self.close()
            raise AssertionError(f"Rank {rank} has ended with {code}.")
        result, problem = json.loads(line)
        if problem is not None:
            self.close()  # what the other one says is of no use to anybody
            raise AssertionError(f"On rank {rank}:\n{problem}")
        return result

    def close(self) -> None:
        """End both."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes = []

    def _start(self) -> None:
        import torch.distributed as dist

        # As under torchrun the meeting point is out here: no port is chosen first, and taken by somebody else then.
        self._store = dist.TCPStore(
            "127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60), wait_for_workers=False
        )
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip
        self._answers = [queue.Queue() for _ in self.processes]
        for process, answers in zip(self.processes, self._answers, strict=True):
            threading.Thread(target=_read, args=(process.stdout, answers), daemon=True).start()
        for rank in range(2):
            assert self.answer(rank, START) == "ready"


def _read(stream: IO[str], answers: queue.Queue[str]) -> None:
    for line in stream:
        answers.put(line)
    answers.put("")


def main() -> None:
    """Be one of the two."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    import rank_checks
    import rank_ends
    import torch

    from optuna_kd.training import join_ranks

    torch.set_num_threads(1)
    checks = {**vars(rank_checks), **vars(rank_ends)}
    torch.optim.SGD([torch.zeros(1)])

    def answer(result: Any, problem: str | None = None) -> None:
        print(json.dumps([result, problem]), file=answers, flush=True)

    with join_ranks() as ranks:
        answer("ready")
        for line in sys.stdin:
            check, arguments = json.loads(line)
            try:
                answer(checks[check](ranks, *arguments))
            except Exception:
                answer(None, traceback.format_exc())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
