"""What both clients have: everything that does not wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.policy import Backoff, Life, Reason, Refusal, member, read_error, refresh_again
from iogate.client.refused import ConnectionRefused
from iogate.client.run import NotAnswered, Run, log_failure, logger
from iogate.clock import chance


class Keeper:
    """Keeps the token of one of python-socketio's clients, which stands behind it in the order of the classes.

    Its arguments are explained in `AsyncClient`.
    """

    namespaces: dict[str, str]
    failed_namespaces: list[str]
    connection_namespaces: list[str]
    connection_auth: Any
    connection_headers: Any
    eio: Any
    _handle_eio_message: Any

    def __init__(
        self,
        *,
        get_token: Callable[[Reason], Any],
        in_band: bool = False,
        reconnection: bool = True,
        reconnection_attempts: int = 0,
        reconnection_delay: float = 1.0,
        reconnection_delay_max: float = 30.0,
        token_timeout: float = 20.0,
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
        self._token_timeout = token_timeout
        self._run = Run(self._backoff)
        self._set_up()

    def _set_up(self) -> None:
        """Make what the client waits with."""

    # One `connect()`, until its `disconnect()`.

    def _started(self, **where: Any) -> Run:
        self.refusal = None
        self._run = Run(self._backoff, where)
        return self._run

    def _forget(self, run: Run) -> None:
        """Drop everything that belongs to the user of a run, unless another run has begun."""
        if self._run is run:
            self._run = Run(self._backoff)
            self.connection_auth = self.connection_headers = None
            self.eio.on("message", self._handle_eio_message)

    def _is_current(self, run: Run, life: Life) -> bool:
        """Return True if a packet that was received in a life still matters to the client.

        A packet may be read after the end of its connection. A refusal counts even then, but not after `disconnect()`.
        """
        return self._run is run and run.life is life

    @staticmethod
    def _log_attempt(error: Exception) -> None:
        if not isinstance(error, NotConnected):
            logger.warning("connecting failed: %s", type(error).__name__)  # Its text may contain the URL.

    @staticmethod
    def _refresh_failed(error: Exception) -> None:
        """Log why there is no new token, unless the connection was lost or `authenticate` was not answered."""
        if isinstance(error, NotAnswered) or not isinstance(error, NotConnected):
            log_failure("expiring", error)

    # The way in.

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
