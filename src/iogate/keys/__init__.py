"""Sources of keys: static keys, a file, an issuer's URL, or a function of the application."""

from __future__ import annotations

from iogate.keys.choice import KeysArgument, choose
from iogate.keys.file import KeySetFile
from iogate.keys.remote import Discovery, KeySetURL

__all__ = ["Discovery", "KeySetFile", "KeySetURL", "KeysArgument", "choose"]
