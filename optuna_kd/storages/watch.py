"""Who is still alive, seen by the clock of the one who looks: clocks of different machines are not compared."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

from optuna_kd.storages.processes import is_counting, is_gone, is_here, process_of

GRACE = 120.0  # seconds without a sign after which a worker is lost; more than twice as long as it takes to give two


class Watch:
    """What this process sees of the others.

    Args:
        clock: Gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace = GRACE
        self._clock = clock
        self._looked: dict[int, float] = {}  # when, by study
        self._seen: dict[int, dict[str, tuple[Hashable, float]]] = {}  # by study: who, the last sign, its age
        self._blind = -math.inf  # when last

    def __reduce__(self) -> tuple[type[Watch], tuple[()]]:
        return Watch, ()  # another process sees for itself

    def lost(self, study_id: int, owners: Mapping[int, str], beats: Mapping[int, Hashable] | None = None) -> list[int]:
        """List the trials of those who are lost: on this machine at once, elsewhere when their signs have stopped.

        Args:
            study_id: The study.
            owners: Of each of its running trials, who runs it (`OWNER`); empty where nobody has signed.
            beats: Of trials whose storage keeps heartbeats, what changes with each.
        """
        signs: dict[str, set[Hashable]] = defaultdict(set)
        for trial_id, owner in owners.items():
            beat = (beats or {}).get(trial_id)
            if not is_here(owner) and (beat is not None or is_counting(owner)):
                signs[_who(trial_id, owner)].add((trial_id, owner, beat))
        silent = self._silent(study_id, {who: frozenset(sign) for who, sign in signs.items()})
        return [trial_id for trial_id, owner in owners.items() if is_gone(owner) or _who(trial_id, owner) in silent]

    def was_blind(self) -> None:
        """Remember that until now nobody's signs came through."""
        self._blind = self._clock()

    def sees(self, seconds: float) -> bool:
        """Whether signs have come through for so long."""
        return self._clock() - self._blind >= seconds

    def _silent(self, study_id: int, signs: Mapping[str, Hashable]) -> set[str]:
        now = self._clock()
        # A look counts for half the grace at most: while the storage was away, or this process asleep, nobody's signs
        # came through, and now everybody has the time to give another.
        passed = min(now - self._looked.get(study_id, now), self.grace / 2)
        before = self._seen.get(study_id, {})
        ages = {
            who: before[who][1] + passed if before.get(who, ("",))[0] == sign else 0.0 for who, sign in signs.items()
        }
        self._looked[study_id] = now
        self._seen[study_id] = {who: (sign, ages[who]) for who, sign in signs.items()}
        return {who for who, age in ages.items() if age >= self.grace}


def _who(trial_id: int, owner: str) -> str:
    return process_of(owner) or f"trial {trial_id}"
