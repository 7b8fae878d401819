"""Times as text for the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def moment(seconds: float) -> str:
    """Return a Unix time in seconds, before the year 10000, as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def distance(seconds: float) -> str:
    """Return a number of seconds from now in its two largest units: `in 59 minutes 30 seconds`, `3 days ago`."""
    rest, words = round(abs(seconds)), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    text = " ".join(words[:2]) or "0 seconds"
    return f"{text} ago" if seconds <= 0 else f"in {text}"
