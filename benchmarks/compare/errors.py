"""What can go wrong with a measurement."""

from __future__ import annotations


class MeasurementError(Exception):
    """A server or the load generator did not do what it was to do; the message says what."""
