"""Reading what somebody else wrote: each value is what it has to be, or the error says what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LONGEST = 2_000  # characters of a text
MOST = 10_000  # values in a list


class CardError(ValueError):
    """A recipe card that cannot be read; the message says what is wrong with it."""


def require_object(value: object, what: str, keys: Iterable[str] | None = None) -> Mapping[str, Any]:
    """Give an object that has exactly these keys; None for any.

    Raises:
        CardError: If it is none, or has others; so do the functions below.
    """
    if not isinstance(value, Mapping):
        raise CardError(f"{what} is an object; got {_shown(value)}.")
    if keys is not None:
        missing, unknown = sorted(set(keys) - set(value)), sorted(set(value) - set(keys))
        if missing or unknown:
            problem = f"lacks {', '.join(missing)}" if missing else f"has unknown keys: {_shown(unknown)}"
            raise CardError(f"{what} {problem}.")
    return value


def require_text(value: object, what: str) -> str:
    """Give a text that is not endless."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise CardError(f"{what} is a text of at most {LONGEST:,} characters; got {_shown(value)}.")
    return value


def require_whole(value: object, what: str, low: int = 0) -> int:
    """Give a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise CardError(f"{what} is a whole number >= {low}; got {_shown(value)}.")
    return value


def require_share(value: object, what: str) -> float:
    """Give a number in [0, 1]."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise CardError(f"{what} is a share in [0, 1]; got {_shown(value)}.")
    return float(value)  # type: ignore[arg-type]


def require_list(value: object, what: str) -> Sequence[Any]:
    """Give a list that is not endless."""
    if not isinstance(value, list | tuple) or len(value) > MOST:
        raise CardError(f"{what} is a list of at most {MOST:,} values; got {_shown(value)}.")
    return value


def require_plain(value: object, what: str) -> Any:
    """Give a value that is nothing but texts, finite numbers, lists and objects."""
    if isinstance(value, Mapping):
        return {require_text(key, what): require_plain(found, what) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [require_plain(found, what) for found in require_list(value, what)]
    if isinstance(value, str):
        return require_text(value, what)
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise CardError(f"{what} is made of texts, finite numbers, lists and objects; got {_shown(value)}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
