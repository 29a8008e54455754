"""Who runs a trial, so that another process of the same machine sees at once when it is gone."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Name this process, as `is_gone` reads it: machine, process id, and when the process began."""
    return f"{_machine() or platform.node()}/{os.getpid()}/{_began(os.getpid())}"


def process_of(owner: str) -> str:
    """Give the name of a process, without the number that it may end in (`is_counting`)."""
    return "/".join(owner.split("/")[:3])


def is_counting(owner: str) -> bool:
    """Whether a process ends its name in a number that it counts on, to show that it is alive."""
    return owner.count("/") == 3


def is_here(process: str) -> bool:
    """Whether it can be seen from here if a process that `this_process` named has ended."""
    machine = process.partition("/")[0]
    return bool(machine) and machine == _machine()


def is_gone(process: str) -> bool:
    """Whether a process that `this_process` named has certainly ended; False where that cannot be seen from here."""
    _, number, began, *_ = [*process.split("/"), "", ""]
    # Another process may have its number by now.
    return is_here(process) and number.isdigit() and _began(int(number)) != began


@cache
def _machine() -> str:
    """Name the machine since its start and, within it, the container; empty where there is no /proc."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        numbers = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {numbers}".encode()).hexdigest()[:12]


def _began(process: int) -> str:
    """Say when a process began, in ticks since the machine did; empty if there is none, or it is a zombie."""
    try:
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
