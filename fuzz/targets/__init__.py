"""The targets: functions that take any bytes and return whether something in them was accepted.

What is wrong with the bytes must end in a documented error, which the target takes for an answer. Any other exception
leaves it, and so does an `AssertionError` when what was accepted does not have the properties it should.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz.targets.engineio import engineio
from fuzz.targets.handshake import handshake
from fuzz.targets.key import key
from fuzz.targets.keyset import keyset
from fuzz.targets.logout import logout
from fuzz.targets.socketio import socketio_json, socketio_msgpack
from fuzz.targets.token import claims, token

Target = Callable[[bytes], bool]

TARGETS: dict[str, Target] = {
    function.__name__: function
    for function in (engineio, socketio_json, socketio_msgpack, handshake, token, claims, key, keyset, logout)
}

CORPUS = Path(__file__).parents[1] / "corpus"
"""A folder a target: inputs to begin with, and those that were found to break something once."""
DICTIONARIES = Path(__file__).parents[1] / "dictionaries"
"""A file a target, where there is one: words to put into the inputs."""
