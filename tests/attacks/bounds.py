"""What an attack may cost, counted: signatures that are checked, bytes that are allocated, connections made."""

from __future__ import annotations

import socket
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from joserfc.jws import JWSRegistry

from iogate import JWTAuth
from iogate.server.session.heads import WORK_PER_TURN, Quota
from tests.attacks.tokens import Bad

SMALL = 1_000_000
"""Bytes that an attack may allocate at most, at any one time."""


class Cryptography:
    """Counts the signatures that joserfc is asked to check, from when it is made; a verifier must be made after it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        for kind in {type(model) for model in JWSRegistry.algorithms.values()}:
            patch.setattr(kind, "verify", self._counting(kind.verify))

    def _counting(self, verify: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return verify(*args, **kwargs)

        return counted


def assert_small(auth: JWTAuth, bad: Bad) -> None:
    """Make sure that a refusal takes little memory."""
    with peak_below(SMALL, bad.name), pytest.raises(bad.error):
        auth.verify(bad.token)


@contextmanager
def peak_below(most: int, what: str = "") -> Iterator[None]:
    """Make sure that Python allocates no more than so many bytes at any one time meanwhile."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < most, what


class Listener:
    """Somebody on loopback who would notice if he were asked, and a watch over all that this process asks of others."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[str] = []

    def watch(self, event: str, args: tuple[Any, ...]) -> None:
        """Note an attempt to reach the listener, or a name that is looked up (an audit hook)."""
        port = self._socket.getsockname()[1]
        if event == "socket.connect" and port in args[1]:
            self.asked.append(f"{event} {args[1]}")
            raise ConnectionRefusedError("who would answer this is the test itself")
        if event == "socket.getaddrinfo" and args[0] not in {"127.0.0.1", b"127.0.0.1"}:
            self.asked.append(f"{event} {args[0]}")

    def assert_nobody_came(self) -> None:
        """Make sure that no connection was opened, tried, or prepared."""
        assert self.asked == []
        with pytest.raises(BlockingIOError):
            self._socket.accept()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


_listening: list[Listener] = []
_hooked: list[None] = []


@contextmanager
def listening() -> Iterator[Listener]:
    """Listen on loopback."""
    if not _hooked:  # An audit hook is there for as long as the process is.
        sys.addaudithook(_audit)
        _hooked.append(None)
    listener = Listener()
    _listening.append(listener)
    try:
        yield listener
    finally:
        _listening.remove(listener)
        listener.close()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    for listener in _listening:
        if event.startswith("socket."):
            listener.watch(event, args)


class FullQuota(Quota):
    """A quota of which nothing is left."""

    def take(self, work: int = WORK_PER_TURN) -> bool:
        return False

    def begin_waiting(self) -> None:
        """Begin what waits."""
        while self._waiting:
            piece, _ = self._waiting.popleft()
            piece()
