"""What a client does about its token: which question it asks, after how long, and when it stops.

Pure: nothing here reads a clock, draws a random number, waits or sends. The two clients tell what has happened, and
are told what to do next: `Ask` for a token, `Try` it, or `Stop`.

                      the server says, or the network       then
    refused, ended    refresh                               ask "expired", at once; not let in with that: back off
                      login                                 ask "login", once; no token, or the same: stop
                      later                                 back off
                      never, or nothing about it            stop
    network           no connection, or one that was lost   back off
    sent out          DISCONNECT without a reason           stop: it was meant

Nothing loops: what is done at once is done once, until the client was let in and has stayed for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

Reason = Literal["connect", "reconnect", "expiring", "expired", "login"]
"""Why a token is asked for: first connection, another one, on the live connection, after its end, by the person."""

Retry = Literal["refresh", "login", "later", "never"]

_BY_URGENCY: Final[tuple[Retry, ...]] = ("refresh", "login", "later", "never")


class Refusal(NamedTuple):
    """What the server said when it refused the client, or ended it."""

    message: str
    retry: Retry
    data: Any = None

    @property
    def code(self) -> str | None:
        """The `code` in `data`, such as "invalid_token"."""
        return self.data.get("code") if isinstance(self.data, Mapping) else None


def read_refusal(payload: object) -> Refusal | None:
    """Return what a server said in `connect_error`, `unauthorized` or an acknowledgement; None: it was no server.

    An Engine.IO error (whose `code` is a number), an error of a proxy or of the network is no refusal: what caused it
    may pass. A refusal that does not say what to do is for good, or clients would loop.
    """
    if not isinstance(payload, Mapping) or not isinstance(payload.get("message"), str):
        return None
    data = payload.get("data", payload if "retry" in payload else None)
    if data is None and isinstance(payload.get("code"), int):
        return None
    retry = data.get("retry") if isinstance(data, Mapping) else None
    return Refusal(payload["message"], _retry(retry), data)


def read_error(data: object) -> Refusal:
    """Return what the acknowledgement of `authenticate` has under `error`."""
    message = member((data,), "message")
    retry = member((data,), "retry")
    return Refusal(message if isinstance(message, str) else "refused", _retry(retry), data)


def member(args: Sequence[object], name: str) -> object:
    """Return a member of the first argument of an event, or None."""
    return args[0].get(name) if args and isinstance(args[0], Mapping) else None


def most_urgent(refusals: Mapping[str, Refusal]) -> Refusal | None:
    """Return the refusal to follow, of those of several namespaces: the one that promises most."""
    return min(refusals.values(), key=lambda refusal: _BY_URGENCY.index(refusal.retry), default=None)


def _retry(value: Any) -> Retry:
    return value if value in _BY_URGENCY else "never"


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before another attempt.

    Args:
        first: seconds after the first failure; every further one doubles it.
        most: seconds that are never exceeded.
        attempts: failures in a row after which the client stops; 0: it does not.
    """

    first: float = 1.0
    most: float = 30.0
    attempts: int = 0

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait.

        Args:
            failures: how many there have been before this one.
            chance: a random number from 0 to 1, so that a fleet does not come back in one moment.
        """
        return min(self.first * 2.0 ** min(failures, 32), self.most) * (0.5 + chance / 2)


class Ask(NamedTuple):
    """Wait, then ask for a token."""

    reason: Reason
    delay: float = 0.0


class Try(NamedTuple):
    """Connect with the token of the standing."""


class Stop(NamedTuple):
    """Give up: because of the refusal of the standing, or because the server sent the client out."""


Action = Ask | Try | Stop


class Standing(msgspec.Struct, frozen=True):
    """Where a client stands: what has been tried since it was last let in and stayed.

    Every method takes what has happened, and `chance`, a random number from 0 to 1; it returns the next standing and
    what to do.

    Args:
        backoff: how long to wait.
        namespaces: where to come back to; empty until the client was let in for the first time.
        token: the one that was shown last.
        refusal: what the server said last, unless the network failed since.
        failures: in a row.
        renewed: whether the one attempt at once with a new token has been made.
        asked: whether the person has been asked.
    """

    backoff: Backoff = Backoff()
    namespaces: tuple[str, ...] = ()
    token: str | None = None
    refusal: Refusal | None = None
    failures: int = 0
    renewed: bool = False
    asked: bool = False

    def answered(self, reason: Reason, token: str | None, chance: float) -> tuple[Standing, Action]:
        """Go on with what was given as a token; None: there is none."""
        if reason == "login" and token in {None, self.token}:
            return self, Stop()
        if reason == "expired" and token is None:
            return self._refused(Refusal("there is no new token", "login"), chance)
        if reason == "expired" and token == self.token:
            return self._back_off("expired", chance)
        return replace(self, token=token), Try()

    def refused(self, refusals: Mapping[str, Refusal], chance: float) -> tuple[Standing, Action]:
        """Go on after an attempt that failed.

        Args:
            refusals: what the server said, by namespace; nothing, if it was the network.
            chance: a random number.
        """
        refusal = most_urgent(refusals)
        if refusal is None:
            return self.failed(self._again, chance)
        rest = tuple(name for name in self.namespaces if name not in refusals)
        if refusal.retry == "never" and rest:  # It has been in, and does not lose all for what it may no longer enter.
            return replace(self, namespaces=rest), Ask("reconnect")
        return self._refused(refusal, chance)

    def failed(self, reason: Reason, chance: float) -> tuple[Standing, Action]:
        """Go on when nobody has said anything: no connection, or no token because its source failed."""
        if reason == "login":  # The person had the chance.
            return self, Stop()
        return replace(self, refusal=None)._back_off(reason, chance)

    def ended(self, life: Life, now: float, chance: float) -> tuple[Standing, Action]:
        """Go on after the end of a connection that the client was let in on.

        Args:
            life: of that connection. To be let in and put out at once, again and again, is no success.
            now: seconds of the monotonic clock.
            chance: a random number.
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
        """Take note of where the client is in."""
        return replace(self, namespaces=tuple(namespaces))

    def refreshed(self, token: str) -> Standing:
        """Take note of a token that was accepted on the live connection."""
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
        # The token is nobody's business.
        return f"<Standing after {self.failures} failures, renewed={self.renewed}, asked={self.asked}>"


def refresh_again(refusal: Refusal | None, failures: int, backoff: Backoff, chance: float) -> float | None:
    """Return the seconds after which a refresh that did not succeed is tried again; None: it is not.

    The connection lives on as it was until its token ends, and the server ends it then: so there is no other limit.

    Args:
        refusal: what the server said; None: nothing, or there was no new token.
        failures: how many there have been before this one.
        backoff: how long to wait.
        chance: a random number from 0 to 1.
    """
    if refusal is not None and refusal.retry in {"login", "never"}:
        return None
    if refusal is not None and refusal.retry == "refresh" and failures == 0:
        return 0.0
    return backoff.delay(failures, chance)


class Life:
    """What happened on one connection, from its first packet to its end."""

    def __init__(self) -> None:
        self.since: float | None = None  # When the client was let in, on the monotonic clock.
        self.over = False
        self.followed = False  # Whether somebody sees to what comes after it.
        self.sent_out = False
        self.left: set[str] = set()  # Namespaces that the server sent the client out of.
        self.refusals: dict[str, Refusal] = {}
        self.refreshing = False
        self._noticed = 0.0
        self._heard = 0  # `unauthorized` that came, less those that were the answer to a refresh.

    @property
    def entered(self) -> bool:
        """Whether the client was let in."""
        return self.since is not None

    def told(self, event: str, namespace: str, payload: object) -> None:
        """Take note of `connect_error` or `unauthorized`."""
        refusal = read_refusal(payload)
        if event == "unauthorized" and self.entered:
            self._heard += 1
            if self._heard <= 0:
                return
        if refusal is not None:
            self.refusals[namespace] = refusal

    def forgive(self) -> None:
        """Take note that an `unauthorized`, heard or still to come, was about a refresh: it does not end anything."""
        if self._heard > 0:
            self.refusals.clear()
        self._heard -= 1

    def notice(self, expires_at: object) -> bool:
        """Say whether a `token_expiring` asks for a refresh: not while there is one, nor if it says what was known."""
        moment = float(expires_at) if isinstance(expires_at, int | float) else self._noticed + 1
        if self.over or self.refreshing or moment <= self._noticed:
            return False
        self._noticed, self.refreshing = moment, True
        return True
