"""Revocations of tokens that have not expired, and the stores that remember them."""

from __future__ import annotations

from iogate.revocation.memory import MemoryRevocations
from iogate.revocation.records import Revocation, Revocations
from iogate.revocation.sqlite import SQLiteRevocations

__all__ = ["MemoryRevocations", "Revocation", "Revocations", "SQLiteRevocations"]
