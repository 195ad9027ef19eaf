"""Names of operations: made unique, and as a path of scopes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def unique_names(names: Iterable[str]) -> list[str]:
    """Return the names with a number behind those that came before."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique


def scopes(name: str) -> Sequence[str]:
    """Return the parts of a name, the last of which is the operation's own.

    What TensorFlow calls ``Func/SCOPE/input/_0`` passes a tensor into a function that was put in place at SCOPE: it
    stands there.
    """
    parts = tuple(part for part in name.split("/") if part)
    return (parts[1:] if parts[:1] == ("Func",) and len(parts) > 2 else parts) or (name,)
