"""Texts of strangers on a terminal."""

from __future__ import annotations


def safe(text: str) -> str:
    """Escape what is not printable, so that a text from a token or a key server cannot drive the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
