"""The findings of `iogate doctor`, and text helpers that several checks use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Level = Literal["wrong", "weak", "note", "good"]
"""`wrong`: unsafe, or it cannot work; `weak`: should be changed; `note`: worth knowing; `good`: as it should be."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""All levels, the worst first."""

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Finding(NamedTuple):
    """One finding of a check.

    Args:
        level: how serious it is.
        subject: what it is about, usually the name of the argument that sets it.
        text: what was found, and what it means.
        advice: what to write instead; empty if there is nothing to change.
    """

    level: Level
    subject: str
    text: str
    advice: str = ""


def span(seconds: float) -> str:
    """Return a number of seconds as text, in the largest unit that leaves no remainder: `366 days`, `90 seconds`."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}{'' if seconds == size else 's'}"
    return f"{seconds:g} seconds"


def listing(names: Iterable[str]) -> str:
    """Return names in alphabetical order, separated by commas."""
    return ", ".join(sorted(names))
