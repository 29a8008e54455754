"""What makes a search fast, measured: the ladder of the paper's Table 2, the throughput of a step, the ranking.

    python benchmarks/acceleration.py --data DIR                 # all three parts
    python benchmarks/acceleration.py --part ladder --data DIR

`--part` chooses: "ladder" (`ladder.py`), "throughput" (`throughput.py`), "ranking" (`ranking.py`); each says there what
it claims. DIR holds CIFAR-10: a release of it, or an image folder. Ladder and ranking keep every measurement beside
their results, so the command can be stopped and run again; `--quick` shows in some minutes that everything runs.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from gauge_report import print_claims

PARTS = ("ladder", "throughput", "ranking")  # modules with a function `run`
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=3, help="repeats, by seed (3)")
    parser.add_argument("--processes", type=int, default=2, help="processes at once (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--device", default="auto", help='of ladder and throughput: "auto", "cpu", "cuda", ...')
    ladder = parser.add_argument_group("of the ladder alone")
    ladder.add_argument("--images", type=int, help="training images of the students (2,000; on a GPU 45,000)")
    ladder.add_argument("--epochs", type=int, help="of a full training, timed (10; on a GPU 240)")
    ladder.add_argument("--search-epochs", type=int, help="of a full training, in whole searches (10; on a GPU 20)")
    ladder.add_argument("--timed-epochs", type=int, help="after which a timed candidate is cut (10; on a GPU 4)")
    ladder.add_argument("--stacked", type=int, help="candidates side by side in a process (1; on a GPU 8)")
    ladder.add_argument("--minutes", type=float, help="after which nothing new begins")
    ladder.add_argument("--only", choices=["timing", "searches"], help="one half of the ladder")
    arguments = vars(parser.parse_args())
    part, out = arguments.pop("part"), arguments.pop("out")
    shared = {name: arguments.pop(name) for name in ("data", "seeds", "processes", "quick")}
    if not shared["quick"] and shared["data"] is None:
        parser.error("--data DIR is needed, the folder of CIFAR-10; without it there is --quick")
    own = {"ladder": arguments, "throughput": {"device": arguments["device"]}, "ranking": {}}
    for name in PARTS if part == "all" else (part,):
        print(f"\n{name}", flush=True)
        run = importlib.import_module(name).run
        content = run(out=out / f"{name}.json", **shared, **own[name])
        print_claims(content["claims"])


if __name__ == "__main__":
    main()
