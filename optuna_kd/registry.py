"""Named parts: what exists, what it is, and a helpful error for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
_LISTED = 40  # names in an error message


class UnknownNameError(ValueError):
    """A name that no registry entry carries; the message suggests what was meant."""


def suggest_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for an unknown `name`: what came, what was probably meant, what exists."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(each if each.isprintable() else repr(each) for each in names[:_LISTED])
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} Known: {listed}{more}.")


class Registry(Generic[T], Mapping[str, T]):
    """A mapping from names to parts of one kind. A name can be taken only once.

    Args:
        kind: What the parts are, in the singular; used in error messages ("Unknown distance 'kll'...").

    Raises:
        ValueError: On `add` of a taken name.
        UnknownNameError: On look-up of a name that is not there (a `ValueError`, not a `KeyError`,
            because it is wrong input rather than a wrong program).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register `entry` under `name` and return it."""
        if name in self._entries:
            raise ValueError(f"The {self.kind} {name!r} is already registered; choose another name.")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise suggest_name(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
