"""What the doctor finds, and words that several of its checks need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Level = Literal["wrong", "weak", "note", "good"]
"""`wrong`: unsafe, or it cannot work; `weak`: it should be changed; `note`: to be known; `good`: as it should be."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""The worst first."""

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Finding(NamedTuple):
    """One thing that was found.

    Args:
        level: how bad it is.
        subject: what it is about: mostly the argument that it stands in.
        text: what is the case, and what it means.
        advice: what to write instead, if there is something.
    """

    level: Level
    subject: str
    text: str
    advice: str = ""


def span(seconds: float) -> str:
    """Return a span of time in the largest unit that has no remainder: `366 days`, `90 seconds`."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}{'' if seconds == size else 's'}"
    return f"{seconds:g} seconds"


def listing(names: Iterable[str]) -> str:
    """Return names with commas between them, in order."""
    return ", ".join(sorted(names))
