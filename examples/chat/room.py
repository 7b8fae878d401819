"""What the chat room knows: who is there, and what was said last. Plain data, in memory."""

from __future__ import annotations

import secrets
import time
from collections import deque
from typing import Any

from .accounts import Person

HISTORY = 50
"""Messages that somebody who comes in is shown."""


class Room:
    """The people in the room, once each however many tabs they have open, and the recent messages."""

    def __init__(self) -> None:
        self._people: dict[Person, set[str]] = {}
        self._said: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def enter(self, person: Person, socket_id: str) -> bool:
        """Note one more tab of a person; return whether it is the first."""
        tabs = self._people.setdefault(person, set())
        tabs.add(socket_id)
        return len(tabs) == 1

    def leave(self, person: Person, socket_id: str) -> bool:
        """Note that a tab has gone; return whether it was the last."""
        tabs = self._people.get(person, set())
        tabs.discard(socket_id)
        return not tabs and self._people.pop(person, None) is not None

    def people(self) -> list[dict[str, str]]:
        """Return who is there, by name."""
        return [describe(p) for p in sorted(self._people, key=lambda p: (p.name.lower(), p.id))]

    def say(self, person: Person, text: str) -> dict[str, Any]:
        """Keep a message, and return it as the clients read it. `at` is Unix time in milliseconds."""
        message = {
            "id": secrets.token_hex(8),
            "from": describe(person),
            "text": text,
            "at": int(time.time() * 1000),
        }
        self._said.append(message)
        return message

    def history(self) -> list[dict[str, Any]]:
        """Return the recent messages, oldest first."""
        return list(self._said)


def describe(person: Person) -> dict[str, str]:
    """Return a person as the clients read it."""
    return {"id": person.id, "name": person.name}
