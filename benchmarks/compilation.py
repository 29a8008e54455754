"""Whether compiling a student pays back: steps of training as they are and compiled, and what compiling takes.

Claims: none; says after how many steps `torch.compile` has made up for its own time. A search trains many students of
some hundred steps each, in fresh processes, each of which compiles anew.

    python benchmarks/compilation.py
    python benchmarks/compilation.py --device cuda      # with CUDA graphs as well ("reduce-overhead")

Every step is a forward pass in autocast, a cross-entropy, a backward pass and SGD. The best of three rounds of ten
steps counts, after three to warm up; on a CPU on one thread, as workers of a search have it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from gauge_report import surroundings
from pieces import machine_of, write
from torch.nn import functional as F

from optuna_kd.models import create_model

RESULT = Path(__file__).parent / "results" / "compilation.json"
CASES = (("resnet20", 64), ("resnet20", 8), ("resnet8x0.25", 64), ("wrn16-2", 64))  # student, images of a batch
WARM_UP, STEPS, ROUNDS = 3, 10, 3


def measure(student: str, batch: int, device: str, dtype: torch.dtype, mode: str | None) -> tuple[float, float]:
    """Give the seconds of the first step, which compiles, and of one afterwards; no mode compiles nothing."""
    torch.manual_seed(0)
    model = create_model(student, num_classes=10, in_channels=3, input_size=(32, 32))
    model.to(device=device, memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    torch._dynamo.reset()
    run = model if mode is None else torch.compile(model, mode=mode)

    def seconds_of(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=dtype is torch.bfloat16):
                logits = run(images)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = seconds_of(1)
    seconds_of(WARM_UP)
    return first, min(seconds_of(STEPS) for _ in range(ROUNDS)) / STEPS


def compare(student: str, batch: int, device: str, dtype: torch.dtype, mode: str) -> dict[str, Any]:
    """Compare steps as they are with compiled ones."""
    (_, plain), (first, compiled) = (measure(student, batch, device, dtype, one) for one in (None, mode))
    gain = plain - compiled
    return {
        "student": student,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": mode,
        "plain_ms": round(1000 * plain, 2),
        "compiled_ms": round(1000 * compiled, 2),
        "times_faster": round(plain / compiled, 3),
        "compiling_seconds": round(first - compiled, 1),
        "pays_back_after_steps": round((first - compiled) / gain) if gain > 0.01 * plain else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--quick", action="store_true", help="one case, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    modes = ("default", "reduce-overhead") if arguments.device == "cuda" else ("default",)
    cases = CASES[2:3] if arguments.quick else CASES
    rows = []
    for (student, batch), dtype, mode in itertools.product(cases, (torch.float32, torch.bfloat16), modes):
        rows.append(row := compare(student, batch, arguments.device, dtype, mode))
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    claim = (__doc__ or "").splitlines()[0]
    write(arguments.out, {"claim": claim, **surroundings(), "machine": machine_of(arguments.device, 1), "rows": rows})


if __name__ == "__main__":
    main()
