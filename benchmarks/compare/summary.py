"""From the rounds to the figures: medians, and ratios that are made within a round before they are compared.

The machine is faster in one minute than in the next, for all peers alike. A ratio of two figures of the same round
does not show that; a ratio of two medians may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """The median of some values, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure | None:
        """Return the figure, or None of no values."""
        return cls(median(values), min(values), max(values)) if values else None


def ratios(values: Sequence[float | None], others: Sequence[float | None]) -> list[float]:
    """Return value / other for each round that has both; an other of zero has none.

    Args:
        values: those of one peer, by round.
        others: those of the one that it is compared with, by round.
    """
    pairs = zip(values, others, strict=True)
    return [value / other for value, other in pairs if value is not None and other is not None and other > 0]


def ratio(values: Sequence[float | None], others: Sequence[float | None]) -> Figure | None:
    """Return the ratio to another peer, or None if no round has both."""
    return Figure.of(ratios(values, others))


def rounded(value: float) -> str:
    """Write a number with three digits that count, and spaces between thousands.

    The spaces are such that no line breaks there.
    """
    value = float(f"{value:.2e}")
    if value == 0:
        return "0"
    digits = 3
    magnitude = 0
    scaled = abs(value)
    while scaled >= 10:
        scaled /= 10
        magnitude += 1
    while scaled < 1:
        scaled *= 10
        magnitude -= 1
    places = digits - 1 - magnitude
    if places > 0:
        return f"{value:.{places}f}"
    return f"{round(value, places):,.0f}".replace(",", "\N{NO-BREAK SPACE}")
