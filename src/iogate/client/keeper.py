"""The part of both clients that does not wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from socketio.exceptions import ConnectionError as NotConnected

from iogate.client.policy import Backoff, Life, Reason, Refusal, member, read_error, refresh_again
from iogate.client.refused import ConnectionRefused
from iogate.client.run import NotAnswered, Run, log_failure, logger
from iogate.clock import chance


class Keeper:
    """Mixin that keeps the token of a python-socketio client fresh; list it before the client among the base classes.

    See `AsyncClient` for the arguments.
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
        # python-socketio's own reconnection ignores why the server rejected or disconnected the client.
        super().__init__(reconnection=False, **options)  # type: ignore[call-arg]
        self.refusal: Refusal | None = None
        """The rejection that made the client give up; None otherwise."""
        self._get_token = get_token
        self._in_band = in_band
        self._comes_back = reconnection
        self._backoff = Backoff(reconnection_delay, reconnection_delay_max, reconnection_attempts)
        self._token_timeout = token_timeout
        self._run = Run(self._backoff)
        self._set_up()

    def _set_up(self) -> None:
        """Create the objects that the client waits on."""

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
        """Return True if the client must still handle a packet of this connection.

        A packet may be handled after its connection has ended. Even then a rejection counts, but not after
        `disconnect()`.
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

    # Connecting.

    def _is_decided(self, life: Life) -> bool:
        """Return True if there is nothing to wait for: each namespace has answered, or the connection has ended."""
        answered = {*self.namespaces, *self.failed_namespaces, *life.left}
        return life.over or answered.issuperset(self.connection_namespaces)

    def _check_entry(self) -> None:
        """Raise if the server has not admitted the client to all the namespaces.

        Raises:
            NotConnected: at least one namespace is missing.
        """
        missing = set(self.connection_namespaces) - set(self.namespaces)
        if missing:
            raise NotConnected(f"One or more namespaces failed to connect: {', '.join(sorted(missing))}")

    # Incoming events.

    def _heard(self, life: Life, event: str, namespace: str, args: Sequence[Any]) -> bool:
        """Record an event, and return True if it requires a refresh of the token."""
        if event in {"connect_error", "unauthorized"}:
            life.told(event, namespace, args[0] if args else None)
        return event == "token_expiring" and life.notice(member(args, "expires_at"))

    def _too_early(self, life: Life, event: str) -> bool:
        """Return True if the application must not see an event, because in-band authentication is not complete."""
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
    """Return the result of `get_token` if it is a token or None. An empty string counts as None.

    Raises:
        TypeError: the result is neither a string nor None.
    """
    if token is not None and not isinstance(token, str):
        raise TypeError(f"get_token gave {type(token).__name__}: it gives a str, or None")
    return token or None


def accepted(answer: object) -> object:
    """Return the data with which the server acknowledged `authenticate`.

    Raises:
        ConnectionRefused: the server rejected the token.
    """
    if isinstance(answer, Mapping) and "error" in answer:
        raise ConnectionRefused(read_error(answer["error"]))
    return answer
