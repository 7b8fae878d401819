"""What both clients have: everything that does not wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.policy import (
    Action,
    Ask,
    Backoff,
    Life,
    Reason,
    Refusal,
    Standing,
    member,
    read_error,
    refresh_again,
)
from iogate.client.refused import ConnectionRefused
from iogate.clock import chance

logger = logging.getLogger("iogate.client")

FLUSH_TIMEOUT = 1.0
"""Seconds that what is to be sent may take when the client hangs up."""

NUDGE = 0.02
"""Seconds between two looks at whether the old transport is at its end."""


class Keeper:
    """Keeps the token of one of python-socketio's clients, which stands behind it in the order of the classes.

    Its arguments are explained in `AsyncClient`.
    """

    namespaces: dict[str, str]
    failed_namespaces: list[str]
    connection_namespaces: list[str]

    def __init__(
        self,
        *,
        get_token: Callable[[Reason], Any],
        in_band: bool = False,
        reconnection: bool = True,
        reconnection_attempts: int = 0,
        reconnection_delay: float = 1.0,
        reconnection_delay_max: float = 30.0,
        **options: Any,
    ) -> None:
        # python-socketio's own way of coming back does not look at what the server said.
        super().__init__(reconnection=False, **options)  # type: ignore[call-arg]
        self.refusal: Refusal | None = None
        """Why the client has stopped, if the server refused it."""
        self._get_token = get_token
        self._in_band = in_band
        self._comes_back = reconnection
        self._backoff = Backoff(reconnection_delay, reconnection_delay_max, reconnection_attempts)
        self._standing = Standing(self._backoff)
        self._life = Life()
        self._where: dict[str, Any] = {}
        self._set_up()

    def _set_up(self) -> None:
        """Make what the client waits with."""

    # The way in, and back. The names say what has happened; the answers say what to do.

    def _started(self, **where: Any) -> Action:
        self.refusal = None
        self._standing = Standing(self._backoff)
        self._where = where
        return Ask("connect")

    def _token_failed(self, reason: Reason, error: Exception) -> Action:
        # Its text may hold anything.
        logger.warning("get_token(%r) failed: %s", reason, type(error).__name__)
        self._standing, action = self._standing.failed(reason, chance())
        return action

    def _token_given(self, reason: Reason, token: str | None) -> Action:
        self._standing, action = self._standing.answered(reason, token, chance())
        return action

    def _attempt_failed(self, life: Life) -> Action:
        self._standing, action = self._standing.refused(life.refusals, chance())
        return action

    def _let_in(self, life: Life) -> None:
        life.since = time.monotonic()
        self._standing = self._standing.let_in(self.namespaces)

    def _ended(self, life: Life) -> Action:
        self._standing, action = self._standing.ended(life, time.monotonic(), chance())
        return action

    def _stopped(self, error: Exception | None) -> Exception:
        self.refusal = self._standing.refusal
        if self.refusal is not None:
            return ConnectionRefused(self.refusal)
        return error or NotConnected("Disconnected by the server")

    def _arguments(self, auth: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what python-socketio's `connect` is to be called with."""
        standing = self._standing
        where = {name: value for name, value in self._where.items() if name != "auth"}
        if standing.namespaces:
            where["namespaces"] = list(standing.namespaces)
        with_token = standing.token is not None and not self._in_band
        token = {"token": standing.token} if with_token else {}
        return where | {"auth": {**(auth or {}), **token}, "wait": False}

    def _is_decided(self, life: Life) -> bool:
        """Say whether there is nothing to wait for: each namespace has answered, or nobody will any more."""
        answered = {*self.namespaces, *self.failed_namespaces, *life.left}
        return life.over or answered.issuperset(self.connection_namespaces)

    def _check_entry(self) -> None:
        """Refuse a connection without all of its namespaces.

        Raises:
            NotConnected: it is one.
        """
        missing = set(self.connection_namespaces) - set(self.namespaces)
        if missing:
            raise NotConnected(f"One or more namespaces failed to connect: {', '.join(sorted(missing))}")

    # What comes in.

    def _heard(self, life: Life, event: str, namespace: str, args: Sequence[Any]) -> bool:
        """Take note of an event; say whether the token is to be refreshed."""
        if event in {"connect_error", "unauthorized"}:
            life.told(event, namespace, args[0] if args else None)
        return event == "token_expiring" and life.notice(member(args, "expires_at"))

    def _too_early(self, life: Life, event: str) -> bool:
        """Say whether an event is not for the application, which does not know of the connection yet."""
        return self._in_band and not life.entered and event in {"connect", "disconnect"}

    def _sent_out(self, life: Life, namespace: str) -> None:
        life.left.add(namespace)
        life.sent_out = life.sent_out or not set(self.namespaces) - life.left

    # The token of the live connection.

    def _refreshed(self, life: Life, token: str) -> None:
        self._standing = self._standing.refreshed(token)
        life.refreshing = (
            False  # Before the application is told: what it does then may take longer than the token lives.
        )

    def _is_new(self, token: str | None) -> bool:
        return token is not None and token != self._standing.token

    def _refresh_again(self, refusal: Refusal | None, failures: int) -> float | None:
        return refresh_again(refusal, failures, self._backoff, chance())

    def _one_of(self, namespace: str) -> str:
        return namespace if namespace in self.namespaces else next(iter(self.namespaces), namespace)


def checked(token: object) -> str | None:
    """Return what `get_token` gave, if it is a token or nothing.

    Raises:
        TypeError: it is something else.
    """
    if token is not None and not isinstance(token, str):
        raise TypeError(f"get_token gave {type(token).__name__}: it gives a str, or None")
    return token or None


def accepted(answer: object) -> object:
    """Return what the server acknowledged `authenticate` with.

    Raises:
        ConnectionRefused: that it refused.
    """
    if isinstance(answer, Mapping) and "error" in answer:
        raise ConnectionRefused(read_error(answer["error"]))
    return answer
