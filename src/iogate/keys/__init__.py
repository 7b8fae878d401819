"""Where keys come from: given once, from a file, from an issuer elsewhere, or from a function of the application."""

from __future__ import annotations

from iogate.keys.choice import KeysArgument, choose
from iogate.keys.file import KeySetFile
from iogate.keys.remote import Discovery, KeySetURL

__all__ = ["Discovery", "KeySetFile", "KeySetURL", "KeysArgument", "choose"]
