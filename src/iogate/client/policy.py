"""The policy of a client: when it requests a token, how long it waits, and when it gives up.

Pure: nothing here reads a clock, draws a random number, waits or sends. The clients report what has happened, and
receive the next action: `Ask` for a token, `Try` to connect with it, or `Stop`.

                         `retry` of the server, or cause     action
    rejected or          refresh                             ask "expired" at once; if rejected again: back off
    disconnected         login                               ask "login" once; no token, or the same: stop
    with a reason        later                               back off
                         never, or no `retry`                stop
    network failure      no connection, or it was lost       back off
    disconnected         DISCONNECT without a reason         stop: the server intended it

There are no endless loops: an immediate retry is made only once, until the client has been admitted and has stayed
connected for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

Reason = Literal["connect", "reconnect", "expiring", "expired", "login"]
"""Why a token is requested.

"connect" is for the first connection, "reconnect" for a later one, "expiring" for a refresh on the live connection,
"expired" after the server has asked for a new token, and "login" if the user must sign in.
"""

Retry = Literal["refresh", "login", "later", "never"]

_BY_URGENCY: Final[tuple[Retry, ...]] = ("refresh", "login", "later", "never")


class Refusal(NamedTuple):
    """The reason that the server gave when it rejected or disconnected the client."""

    message: str
    retry: Retry
    data: Any = None

    @property
    def code(self) -> str | None:
        """The `code` in `data`, such as "invalid_token"."""
        return self.data.get("code") if isinstance(self.data, Mapping) else None


def read_refusal(payload: object) -> Refusal | None:
    """Return the rejection in the data of `connect_error` or `unauthorized`; None if there is none.

    An Engine.IO error (its `code` is a number) and an error of a proxy or of the network are not rejections: their
    cause may be temporary. A rejection without a known `retry` counts as "never"; otherwise clients would loop.
    """
    if not isinstance(payload, Mapping) or not isinstance(payload.get("message"), str):
        return None
    data = payload.get("data", payload if "retry" in payload else None)
    if data is None and isinstance(payload.get("code"), int):
        return None
    retry = data.get("retry") if isinstance(data, Mapping) else None
    return Refusal(payload["message"], _retry(retry), data)


def read_error(data: object) -> Refusal:
    """Return the rejection under `error` in the acknowledgement of `authenticate`."""
    message = member((data,), "message")
    retry = member((data,), "retry")
    return Refusal(message if isinstance(message, str) else "refused", _retry(retry), data)


def member(args: Sequence[object], name: str) -> object:
    """Return a member of the first argument of an event, or None."""
    return args[0].get(name) if args and isinstance(args[0], Mapping) else None


def most_urgent(refusals: Mapping[str, Refusal]) -> Refusal | None:
    """Return the rejection to act on if several namespaces rejected the client: the one most likely to be resolved."""
    return min(refusals.values(), key=lambda refusal: _BY_URGENCY.index(refusal.retry), default=None)


def _retry(value: Any) -> Retry:
    return value if value in _BY_URGENCY else "never"


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before another attempt.

    Args:
        first: seconds after the first failure. Each further failure doubles the delay.
        most: the maximum delay in seconds.
        attempts: consecutive failures after which the client gives up; 0 for no limit.
    """

    first: float = 1.0
    most: float = 30.0
    attempts: int = 0

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait.

        Args:
            failures: the number of failures before this one.
            chance: a random number from 0 to 1. It spreads the retries, so that many clients do not reconnect at the
                same time.
        """
        return min(self.first * 2.0 ** min(failures, 32), self.most) * (0.5 + chance / 2)


class Ask(NamedTuple):
    """Wait `delay` seconds, then request a token."""

    reason: Reason
    delay: float = 0.0


class Try(NamedTuple):
    """Connect with `Standing.token`."""


class Stop(NamedTuple):
    """Give up. `Standing.refusal` is the reason, if the server gave one."""


Action = Ask | Try | Stop


class Standing(msgspec.Struct, frozen=True):
    """What a client has tried since it was last admitted and stayed connected.

    The methods that return an action take an event and `chance`, a random number from 0 to 1. They return the next
    state and the action.

    Args:
        backoff: how long to wait.
        namespaces: the namespaces to reconnect to; empty until the client is admitted for the first time.
        token: the last token that was sent.
        refusal: the last rejection, unless a network failure followed it.
        failures: the number of consecutive failures.
        renewed: True if the one immediate attempt with a new token has been made.
        asked: True if the user has been asked to sign in.
    """

    backoff: Backoff = Backoff()
    namespaces: tuple[str, ...] = ()
    token: str | None = None
    refusal: Refusal | None = None
    failures: int = 0
    renewed: bool = False
    asked: bool = False

    def answered(self, reason: Reason, token: str | None, chance: float) -> tuple[Standing, Action]:
        """Continue with the result of a request for a token; None if there is no token."""
        if reason == "login" and token in {None, self.token}:
            return self, Stop()
        if reason == "expired" and token is None:
            return self._refused(Refusal("there is no new token", "login"), chance)
        if reason == "expired" and token == self.token:
            return self._back_off("expired", chance)
        return replace(self, token=token), Try()

    def refused(self, refusals: Mapping[str, Refusal], chance: float) -> tuple[Standing, Action]:
        """Continue after a failed attempt.

        Args:
            refusals: the rejections by namespace; empty if the network failed.
            chance: a random number from 0 to 1.
        """
        refusal = most_urgent(refusals)
        if refusal is None:
            return self.failed(self._again, chance)
        rest = tuple(name for name in self.namespaces if name not in refusals)
        if refusal.retry == "never" and rest:  # Reconnect to the other namespaces that admitted the client before.
            return replace(self, namespaces=rest), Ask("reconnect")
        return self._refused(refusal, chance)

    def failed(self, reason: Reason, chance: float) -> tuple[Standing, Action]:
        """Continue after a failure without an answer: the server could not be reached, or `get_token` failed."""
        if reason == "login":  # The user was asked, and `get_token` failed.
            return self, Stop()
        return replace(self, refusal=None)._back_off(reason, chance)

    def ended(self, life: Life, now: float, chance: float) -> tuple[Standing, Action]:
        """Continue after the end of a connection on which the client was admitted.

        Args:
            life: the record of the connection. A connection that ends within `Backoff.first` seconds does not count as
                a success.
            now: seconds of the monotonic clock.
            chance: a random number from 0 to 1.
        """
        stayed = life.since is not None and now - life.since >= self.backoff.first
        standing = Standing(self.backoff, self.namespaces, self.token) if stayed else replace(self, refusal=None)
        refusal = most_urgent(life.refusals)
        if refusal is not None:
            return standing._refused(refusal, chance)
        if life.sent_out:
            return standing, Stop()
        rest = tuple(name for name in self.namespaces if name not in life.left)
        return replace(standing, namespaces=rest)._back_off("reconnect", chance)

    def let_in(self, namespaces: Iterable[str]) -> Standing:
        """Record the namespaces that have admitted the client."""
        return replace(self, namespaces=tuple(namespaces))

    def refreshed(self, token: str) -> Standing:
        """Record a token that the server accepted on the live connection."""
        return replace(self, token=token)

    @property
    def _again(self) -> Reason:
        return "reconnect" if self.namespaces else "connect"

    def _refused(self, refusal: Refusal, chance: float) -> tuple[Standing, Action]:
        told = replace(self, refusal=refusal)
        if refusal.retry == "later":
            return told._back_off(self._again, chance)
        if refusal.retry == "refresh":
            if self.renewed:
                return told._back_off("expired", chance)
            return replace(told, renewed=True), Ask("expired")
        if refusal.retry == "login" and not self.asked:
            return replace(told, asked=True), Ask("login")
        return told, Stop()

    def _back_off(self, reason: Reason, chance: float) -> tuple[Standing, Action]:
        if self.backoff.attempts and self.failures >= self.backoff.attempts:
            return self, Stop()
        delay = self.backoff.delay(self.failures, chance)
        return replace(self, failures=self.failures + 1), Ask(reason, delay)

    def __repr__(self) -> str:
        # Omit the token, which is secret.
        return f"<Standing after {self.failures} failures, renewed={self.renewed}, asked={self.asked}>"


def refresh_again(refusal: Refusal | None, failures: int, backoff: Backoff, chance: float) -> float | None:
    """Return the seconds to wait before the next attempt of a failed refresh; None to make no further attempt.

    The number of attempts needs no limit: the server ends the connection when the current token expires.

    Args:
        refusal: the rejection by the server; None if there was no answer or no new token.
        failures: the number of failures before this one.
        backoff: how long to wait.
        chance: a random number from 0 to 1.
    """
    if refusal is not None and refusal.retry in {"login", "never"}:
        return None
    if refusal is not None and refusal.retry == "refresh" and failures == 0:
        return 0.0
    return backoff.delay(failures, chance)


class Life:
    """What has happened on one connection, from its first packet to its end."""

    def __init__(self) -> None:
        self.since: float | None = None  # When the server admitted the client, in seconds of the monotonic clock.
        self.over = False
        self.followed = False  # True if a task or thread already reconnects.
        self.sent_out = False
        self.left: set[str] = set()  # Namespaces from which the server has disconnected the client.
        self.refusals: dict[str, Refusal] = {}
        self.refreshing = False
        self._noticed = 0.0
        self._heard = 0  # `unauthorized` events received, minus those that rejected a refresh.

    @property
    def entered(self) -> bool:
        """True if the server has admitted the client."""
        return self.since is not None

    def told(self, event: str, namespace: str, payload: object) -> None:
        """Record a `connect_error` or an `unauthorized`."""
        refusal = read_refusal(payload)
        if event == "unauthorized" and self.entered:
            self._heard += 1
            if self._heard <= 0:
                return
        if refusal is not None:
            self.refusals[namespace] = refusal

    def forgive(self) -> None:
        """Record that one `unauthorized`, received or still to come, is about a refresh.

        The connection continues, so this event is not kept as the reason for its end.
        """
        if self._heard > 0:
            self.refusals.clear()
        self._heard -= 1

    def notice(self, expires_at: object) -> bool:
        """Record a `token_expiring`, and return True if it must start a refresh.

        It must not if a refresh is running, if the connection has ended, or if the event reports no later expiry than
        before.
        """
        moment = float(expires_at) if isinstance(expires_at, int | float) else self._noticed + 1
        if self.over or self.refreshing or moment <= self._noticed:
            return False
        self._noticed, self.refreshing = moment, True
        return True
