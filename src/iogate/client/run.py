"""The state of a client from one `connect()` to its `disconnect()`. The next `connect()` starts with a new state."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.policy import Action, Backoff, Life, Reason, Refusal, Standing
from iogate.client.refused import ConnectionRefused
from iogate.clock import chance

logger = logging.getLogger("iogate.client")


class NotAnswered(NotConnected):  # type: ignore[misc]
    """A function of the application did not return in time."""


class Run:
    """One use of a client: its arguments, its token, and its progress.

    Code that works for a run keeps a reference to it and checks `stopped` after each wait. So a token that `get_token`
    returns after `disconnect()` is not used, even if the client is connected as another user by then.

    Args:
        backoff: how long to wait between attempts.
        where: the arguments of `connect()`; None if it was not called, so that there is nothing to stop.
    """

    def __init__(self, backoff: Backoff, where: dict[str, Any] | None = None) -> None:
        self.where = where or {}
        self.standing = Standing(backoff)
        self.life = Life()
        self.stopped = where is None
        self.following = False  # True while the client is connecting or waits to connect.
        self.request: Any = None  # The pending request for a token; there is at most one.

    def go_on(self) -> None:
        """Raise if the run has been stopped.

        Raises:
            NotConnected: the run has been stopped.
        """
        if self.stopped:
            raise NotConnected("Disconnected")

    def is_over(self, life: Life | None = None) -> bool:
        """Return True if the run has been stopped or the given connection has ended: there is nothing to wait for."""
        return self.stopped or (life is not None and life.over)

    # Events. The returned actions say what to do next.

    def token_failed(self, reason: Reason, error: Exception) -> Action:
        """Continue without a token, because `get_token` raised or did not return."""
        log_failure(reason, error)
        self.standing, action = self.standing.failed(reason, chance())
        return action

    def token_given(self, reason: Reason, token: str | None) -> Action:
        """Continue with the token that `get_token` returned."""
        self.standing, action = self.standing.answered(reason, token, chance())
        return action

    def attempt_failed(self, life: Life) -> Action:
        """Continue after an attempt that did not lead to a connection."""
        self.standing, action = self.standing.refused(life.refusals, chance())
        return action

    def let_in(self, life: Life, namespaces: Mapping[str, str]) -> None:
        """Record that the server has admitted the client."""
        life.since = time.monotonic()
        self.standing = self.standing.let_in(namespaces)

    def ended(self, life: Life) -> Action:
        """Continue after the end of a connection."""
        self.standing, action = self.standing.ended(life, time.monotonic(), chance())
        return action

    def refreshed(self, life: Life, token: str) -> None:
        """Record a token that the server accepted on the live connection."""
        self.standing = self.standing.refreshed(token)
        life.refreshing = False

    def is_new(self, token: str | None) -> bool:
        """Return True if this token is not the one in use."""
        return token is not None and token != self.standing.token

    def may_share_request(self, reason: Reason) -> bool:
        """Return True if the result of the pending request for a token also serves this reason.

        Each result is the newest token of the signed-in user. Only a new sign-in needs a separate request.
        """
        return reason != "login" or self.request.reason == "login"

    def failure(self, error: Exception | None) -> tuple[Exception, Refusal | None]:
        """Return the exception to raise when the client gives up, and the server's rejection if that is the reason."""
        refusal = self.standing.refusal
        if refusal is not None:
            return ConnectionRefused(refusal), refusal
        return error or NotConnected("Disconnected by the server"), None

    def arguments(self, where: Mapping[str, Any], *, in_band: bool) -> dict[str, Any]:
        """Return the arguments for python-socketio's `connect`.

        Args:
            where: the arguments of `connect()`, with functions replaced by their results.
            in_band: True if the token is sent later, with `authenticate`.
        """
        standing = self.standing
        token = {} if standing.token is None or in_band else {"token": standing.token}
        namespaces = {"namespaces": list(standing.namespaces)} if standing.namespaces else {}
        return {**where, **namespaces, "auth": {**(where["auth"] or {}), **token}, "wait": False}


def log_failure(reason: Reason, error: Exception) -> None:
    """Log that `get_token` returned no token. The text of its exceptions is omitted: it may contain a token."""
    detail = str(error) if isinstance(error, NotAnswered) else type(error).__name__
    logger.warning("get_token(%r) failed: %s", reason, detail)
