"""How long a killed worker is missed: until its trial is known to be lost, and until the loss is made up for.

Claim: no trial is lost. Half of the lost ones are noticed within 2 s, and another worker is beyond the rung on the way
to which they were killed within 5 s; SQLite and PostgreSQL, four workers on two cores.

    python benchmarks/recovery.py    # starts a PostgreSQL server of its own, where its programs are installed

It is the chaos test (`tests/chaos`) without its dashboard, some times over: 60 trials of half a second of training with
four rungs, 20 workers killed by SIGKILL in the middle of a trial, each replaced at once. A trial counts as noticed when
the study shows it as closed, and as made up for when one that runs it again has reported the rung that it had not
reached, or has ended; both as seen by somebody who looks ten times a second. Then eight processes create one study in
an empty database at the same moment, ten times on each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "chaos"), str(TESTS / "storages")]

from creation_race import ROUNDS, race  # noqa: E402
from crowd import FINISHED, Crowd, Kill, begin, disturb, recovery_of  # noqa: E402
from server import Server  # noqa: E402

NOTICED, RECOVERED = 2.0, 5.0  # seconds, medians
RESULT = Path(__file__).parent / "results" / "recovery.json"


def disturbed(url: str, folder: Path) -> tuple[list[Kill], int]:
    """Run a study whose workers are killed; give the kills, and how many of its trials are finished."""
    folder.mkdir()
    crowd = Crowd(url, folder)
    try:
        study = begin(crowd)
        disturb(crowd, study)
    finally:
        crowd.stop()
    return crowd.kills, len(study.get_trials(deepcopy=False, states=FINISHED))


def measure(urls: list[str], folder: Path) -> dict[str, Any]:
    """Run a study in each of these databases; sum up what became of all kills."""
    runs = [disturbed(url, folder / f"run-{number}") for number, url in enumerate(urls)]
    kills = [kill for found, _ in runs for kill in found]
    lost = sum(kill.attempt is not None and kill.recovered is None for kill in kills)
    return {"runs": len(runs), "finished": [finished for _, finished in runs], "lost": lost, **recovery_of(kills)}


def raced(url: str) -> dict[str, int]:
    """Let processes race for each of these databases; count the rounds in which not all of them got one study."""
    failed, seen = race(url)
    rounds = list(zip(*seen, strict=False))
    return {"rounds": ROUNDS, "failed": ROUNDS - sum(len(set(answers)) == 1 for answers in rounds), "died": len(failed)}


def claims_of(recovery: dict[str, dict[str, Any]], races: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Hold the claims against what was found."""
    claims = []

    def claim(text: str, n: int, value: float, limit: float) -> None:
        claims.append({"claim": text, "n": n, "mean": value, "se": None, "met": value <= limit})

    for kind, found in recovery.items():
        claim(f"{kind}: no trial is lost", found["kills"], found["lost"], 0)
        noticed, recovered = found["noticed_s"], found["recovered_s"]
        claim(f"{kind}: noticed within {NOTICED:g} s, median", noticed["n"], noticed["median"], NOTICED)
        claim(f"{kind}: made up for within {RECOVERED:g} s, median", recovered["n"], recovered["median"], RECOVERED)
    for kind, counted in races.items():
        claim(f"{kind}: no race for an empty database fails", counted["rounds"], counted["failed"], 0)
    return claims


def main() -> None:
    # Here, because the processes that are forked import this file, too.
    from gauge_report import print_claims, surroundings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="studies in each kind of database")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    arguments = parser.parse_args()
    server = Server()
    try:
        server.start()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for kind in ("sqlite", "postgresql"):
                (folder / kind).mkdir()
            urls = {
                "sqlite": [f"sqlite:///{folder}/sqlite/run{run}.db" for run in range(arguments.runs)],
                "postgresql": [server.create_database("run") for _ in range(arguments.runs)],
            }
            recovery = {kind: measure(places, folder / kind) for kind, places in urls.items()}
            databases = [server.create_database("race") for _ in range(ROUNDS)]
            races = {
                "sqlite": raced(f"sqlite:///{folder}/raceROUND.db"),
                "postgresql": raced(databases[0].replace("/race0", "/raceROUND")),
            }
    finally:
        server.remove()
    claims = claims_of(recovery, races)
    content = {
        "claim": " ".join((__doc__ or "").split("\n\n")[1].split()),
        **surroundings(),
        "recovery": recovery,
        "races": races,
        "claims": claims,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"recovery": recovery, "races": races}, indent=2))
    print_claims(claims)


if __name__ == "__main__":
    main()
