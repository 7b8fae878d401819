"""The gate: the one place that decides whether a client is admitted.

    CONNECT or `authenticate` -> find the token -> verify it, check revocations, load the user -> find the namespace,
    check its scopes -> run middleware -> check everything again -> admit
                                          anything else at any step -> reject

Until `admit` has given a positive verdict, no socket of the connection is in a namespace or a room, and no handler
runs for it. Any exception is a rejection.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from iogate.auth import Auth, AuthPayload, Principal
from iogate.auth.interface import Revoked
from iogate.errors import (
    BAD_CREDENTIALS,
    AuthError,
    AuthUnavailable,
    CredentialsBadFormat,
    CredentialsRequired,
    InsufficientScope,
    InvalidToken,
    Refused,
    RevokedToken,
    TokenExpired,
    TooManyAttempts,
)
from iogate.protocol.socketio.packets import Oversized
from iogate.revocation import Revocations
from iogate.server.gate.attempts import (
    HELD_FRAMES,
    MAX_REJECTIONS,
    Admission,
    Attempt,
    Connect,
    Refresh,
    payload_size,
)
from iogate.server.gate.connection import Connection
from iogate.server.gate.expirations import Expirations
from iogate.server.gate.limits import FailureLimiter, SubjectLimiter
from iogate.server.identity import Identity, digest_of
from iogate.server.namespaces import dispatch
from iogate.server.namespaces.namespace import Namespace, Namespaces
from iogate.server.namespaces.socket import Socket
from iogate.server.session.handshake import Handshake
from iogate.server.session.sessions import Sessions
from iogate.server.settings import Limits

logger = logging.getLogger("iogate")

INVALID_NAMESPACE = "Invalid namespace"
"""The message that tells a client that there is no such namespace, as the official servers word it."""
REJECTION_ACK_TIMEOUT = 1.0
"""Seconds in which a client can confirm that it has read its rejection (a figure of the wire contract)."""


class Gate:
    """Decides which clients are admitted, and when their identities end.

    Args:
        auth: verifies tokens; None admits every client that the middleware accepts.
        sessions: the sessions of the server.
        namespaces: the namespaces of the server.
        revocations: the store of revoked tokens.
        limits: the limits of bad credentials and of connections per subject.
    """

    __slots__ = (
        "_auth",
        "_expirations",
        "_missing",
        "_namespaces",
        "_revocations",
        "authentication_timeout",
        "decision_timeout",
        "failures",
        "rejection_ack_timeout",
        "sessions",
        "subjects",
    )

    def __init__(
        self,
        auth: Auth | None,
        sessions: Sessions[Connection],
        namespaces: Namespaces,
        revocations: Revocations,
        limits: Limits,
    ) -> None:
        self._auth = auth
        self.sessions = sessions
        self._namespaces = namespaces
        self._revocations = revocations
        deadlines, connect_timeout = sessions.deadlines, sessions.settings.connect_timeout
        self.failures = FailureLimiter(limits.failures_per_address, deadlines.clock)
        self._missing = FailureLimiter(limits.missing_per_address, deadlines.clock, "CONNECTs without a token")
        self.subjects = SubjectLimiter(limits)
        self._expirations = Expirations(auth, deadlines)
        in_band = auth.authenticate_within if auth is not None else None
        self.authentication_timeout = deadlines.queue(in_band or connect_timeout, _authentication_timed_out)
        self.decision_timeout = deadlines.queue(connect_timeout, _decision_timed_out)
        self.rejection_ack_timeout = deadlines.queue(REJECTION_ACK_TIMEOUT, _finish_rejection)

    def open(self, handshake: Handshake) -> Connection:
        """Return a new connection, and start its deadlines. `Session.begin` then gives it its transport."""
        connection = Connection(self, secrets.token_urlsafe(15), handshake)
        self.add(connection)
        return connection

    def add(self, connection: Connection) -> None:
        """Register a new connection, and start its deadlines."""
        self.sessions.add(connection)
        self.authentication_timeout.start(connection)

    async def admit(self, attempt: Admission) -> None:
        """Admit a client to a namespace, let it authenticate in band, or reject it."""
        connection, current = attempt.connection, attempt.connection.identity
        with self._rejecting(attempt):
            identity = await self._identify(attempt)
            namespace = self._find(attempt, identity)
            if identity is None and isinstance(attempt, Connect) and self._allows_in_band():
                if attempt.pending:  # The predicate of a namespace may have ended the connection.
                    attempt.defer()
                return
            namespace.pending_connects += 1
            try:
                socket = await self._run_middleware(attempt, namespace, identity)
                # From here on there is no await and no application code, so what is checked now is still true when the
                # socket is registered. A hook that ignores its cancellation may arrive here late.
                if not attempt.pending:
                    return
                # A CONNECT without a token uses the connection's identity, which a refresh may have replaced meanwhile.
                identity = self._confirm(connection, connection.identity if identity is current else identity)
                self._check_scopes(namespace, identity)
                finish = connection.set_identity(identity)
                attempt.accept(socket)
            finally:
                namespace.pending_connects -= 1
            finish()
            if socket.connected:  # Code that `finish` called may have ended it.
                dispatch.connected(socket)

    async def refresh(self, attempt: Refresh) -> None:
        """Replace the identity of an admitted client by that of a new token, or reject the token."""
        with self._rejecting(attempt):
            identity = await self._identify(attempt)
            if not attempt.pending:
                return
            if identity is None:  # On a server without `auth` there is no identity to refresh.
                attempt.connection.attempt_finished(attempt)
                return
            confirmed = self._confirm(attempt.connection, identity)
            if confirmed is None or confirmed.digest != identity.digest:
                raise InvalidToken("an older token on a connection that has a newer one")
            attempt.connection.set_identity(confirmed)()
            if attempt.pending:
                attempt.accept()

    @contextmanager
    def _rejecting(self, attempt: Attempt) -> Iterator[None]:
        """Turn every exception into a rejection, if the verdict is still pending."""
        try:
            yield
        except Refused as refused:
            self._reject(attempt, refused)
        except asyncio.CancelledError:
            # If the connection has cancelled the attempt, it is not pending. If a hook has, that is a rejection.
            if attempt.pending:
                attempt.reject(AuthUnavailable("cancelled"))
            raise
        except BaseException as error:
            logger.exception("refused: the verdict failed")
            if attempt.pending:
                attempt.reject(AuthUnavailable("the verdict failed"))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # The process must end. Any other exception must not reach the transport.
        finally:
            self._namespaces.remove_if_empty(attempt.namespace)

    def _reject(self, attempt: Attempt, refused: Refused) -> None:
        # A function of its own: a local variable for an exception, in the function that catches it, keeps the traceback
        # and everything in its frames until the garbage collector runs.
        refusal = json_safe(refused)
        address = attempt.connection.handshake.address
        # `FailureLimiter` has logged the address of a flood, once.
        logged = isinstance(refusal, TooManyAttempts) and (
            self.failures.exceeded(address) or self._missing.exceeded(address)
        )
        level = logging.DEBUG if logged else logging.INFO
        logger.log(level, "refused: %s", refusal if isinstance(refusal, AuthError) else "by the application")
        if is_bad_credential(refusal):
            self.failures.add(address)
        elif isinstance(refusal, CredentialsRequired):
            self._missing.add(address)
        if attempt.pending:
            attempt.reject(refusal)

    async def _identify(self, attempt: Attempt) -> Identity | None:
        """Return the identity for an attempt; None for a client without a token, where that is allowed.

        A token is verified once per connection: a CONNECT to another namespace with the same token, or without one,
        uses the identity of the connection. As long as it has none, different tokens are verified one after another.
        """
        auth, connection = self._auth, attempt.connection
        if isinstance(attempt, Admission) and isinstance(attempt.payload, Oversized):
            raise CredentialsBadFormat(attempt.payload.reason)
        if isinstance(attempt, Connect):
            self._check_cost(attempt)
        if auth is None:
            return None
        token = attempt.credential(auth)
        if token is None:
            current = connection.identity
            if isinstance(attempt, Connect) and (current is not None or auth.guests or self._allows_in_band()):
                return current
            if self._missing.exceeded(connection.handshake.address):
                raise TooManyAttempts("no token, from an address with too many such: Limits(missing_per_address=...)")
            raise CredentialsRequired
        digest = digest_of(token)
        identity = connection.verified(digest)
        if identity is not None:
            return identity
        if connection.identity is not None:
            return await self._verify(attempt, token, digest)
        lock = connection.lock_verification()
        try:
            async with lock:
                return connection.verified(digest) or await self._verify(attempt, token, digest)
        finally:
            connection.unlock_verification()

    def _check_cost(self, attempt: Connect) -> None:
        """Reject a CONNECT if its connection holds too much already, or has abandoned too many verdicts."""
        connection = attempt.connection
        most = HELD_FRAMES * self.sessions.max_unverified
        if len(connection.attempts) + len(connection.waiting) + len(connection.sockets) > 1 and (
            connection.payload_bytes > most
        ):
            raise TooManyAttempts(f"the CONNECTs of the transport hold more than {most} bytes")
        if connection.abandoned >= MAX_REJECTIONS:
            raise TooManyAttempts("the transport has not waited for too many verdicts")

    async def _verify(self, attempt: Attempt, token: str, digest: bytes) -> Identity:
        """Return the identity that a token proves, with the application's user."""
        auth, connection = self._auth, attempt.connection
        assert auth is not None  # noqa: S101
        if connection.rejections >= MAX_REJECTIONS:
            raise TooManyAttempts("the transport has shown too many bad credentials")
        verification = verify_token(token, auth, self._revocations)
        if connection.identity is None:
            principal = await self.failures.verified(connection.handshake.address, verification)
        else:
            principal = await verification
        self._ensure_current(attempt, principal)
        _check_same_subject(connection.identity, principal)
        identity = Identity(principal, await auth.user_for(principal), digest)
        connection.candidate = identity
        return identity

    def _allows_in_band(self) -> bool:
        return self._auth is not None and self._auth.authenticate_within is not None and not self._auth.guests

    def _find(self, attempt: Admission, identity: Identity | None) -> Namespace:
        self._ensure_current(attempt, identity.principal if identity is not None else None)
        namespace = self._namespaces.find(attempt.namespace)
        if namespace is None:
            raise Refused(INVALID_NAMESPACE)
        return namespace

    async def _run_middleware(self, attempt: Admission, namespace: Namespace, identity: Identity | None) -> Socket:
        """Return the socket of an attempt, if its scopes suffice and all connect middleware accepts it."""
        connection = attempt.connection
        self._check_scopes(namespace, identity)
        payload = self._redacted(attempt.payload)
        handshake = connection.handshake.with_auth(payload)
        socket = Socket(attempt.socket_id, namespace, connection, handshake, identity)
        socket._payload_size = payload_size(payload)
        for middleware in namespace.handlers.connect_middleware:
            self._ensure_current(attempt, identity.principal if identity is not None else None)
            result = middleware(socket)
            if inspect.isawaitable(result):
                await result
        return socket

    def _ensure_current(self, attempt: Attempt, principal: Principal | None) -> None:
        """Raise unless the attempt is pending and the identity is still valid, before application code runs.

        Raises:
            asyncio.CancelledError: the client has left, or the deadline has passed.
            AuthError: the identity is no longer valid.
        """
        if not attempt.pending:
            raise asyncio.CancelledError
        # Without a task the attempt has not waited yet, so the identity is as it was when its token was verified.
        if attempt.task is not None and self._auth is not None and principal is not None:
            ensure_still_valid(principal, self._auth, self._revocations)

    def _confirm(self, connection: Connection, identity: Identity | None) -> Identity | None:
        """Return the identity for a connection. Hooks may have taken long, so everything is checked again.

        If the connection has meanwhile got the identity of a newer token, it keeps that.
        """
        if self._auth is None or identity is None:
            return identity
        current = connection.identity
        _check_same_subject(current, identity.principal)
        if current is not None and (current.digest == identity.digest or not current.is_older_than(identity.principal)):
            identity = current
        ensure_still_valid(identity.principal, self._auth, self._revocations)
        self.subjects.check(connection, identity.principal)
        return identity

    @staticmethod
    def _check_scopes(namespace: Namespace, identity: Identity | None) -> None:
        if not namespace.allows(identity.principal if identity is not None else None):
            raise InsufficientScope(namespace.scopes)

    def _redacted(self, payload: object) -> object:
        for source in self._auth.sources if self._auth is not None else ():
            if isinstance(source, AuthPayload):
                payload = source.redact(payload)
        return payload

    # After the verdict.

    def identity_changed(self, connection: Connection) -> None:
        """Start the deadlines of a connection's new identity, and count it for its subject."""
        if connection.identity is not None:
            self._expirations.start(connection)
            self.subjects.add(connection, connection.identity.principal)  # Last, because it may call handlers.

    def count_abandoned(self, connection: Connection) -> None:
        """Count a verdict that a client has not waited for: it costs as much as a bad token."""
        if connection.identity is None and self._auth is not None and not self.sessions.closing:
            self.failures.add(connection.handshake.address)

    def forget(self, connection: Connection) -> None:
        """Stop the deadlines of a closed connection, and stop counting it."""
        self.authentication_timeout.stop(connection)
        self._expirations.stop(connection)
        if connection.identity is not None:
            self.subjects.discard(connection, connection.identity.principal)


async def verify_token(token: str, auth: Auth, revocations: Revoked) -> Principal:
    """Return the identity that a token proves. This is the whole check of a token by itself.

    Raises:
        RevokedToken: the token is revoked.
        AuthError: any other error of `auth`.
    """
    principal = await auth.verify_async(token)
    if revocations.revoked(principal, auth.clock.wall()):
        raise RevokedToken
    return principal


def ensure_still_valid(principal: Principal, auth: Auth, revocations: Revoked) -> None:
    """Check again an identity whose token was verified some time ago.

    Raises:
        TokenExpired: the token has expired meanwhile.
        InvalidToken: its key was removed, and that invalidates its tokens.
        RevokedToken: the token is revoked.
    """
    auth.recheck(principal)
    if revocations.revoked(principal, auth.clock.wall()):
        raise RevokedToken


def _check_same_subject(current: Identity | None, principal: Principal) -> None:
    if current is not None and not current.is_of(principal):
        raise InvalidToken("another person's token on a connection that has an identity")


def is_bad_credential(refusal: Refused) -> bool:
    """Return True if a rejection counts against the client's address. An expired token does not count."""
    return isinstance(refusal, BAD_CREDENTIALS) and not isinstance(refusal, TokenExpired)


def json_safe(refusal: Refused) -> Refused:
    """Return the rejection, or a general one if the data of the application's rejection cannot be encoded as JSON."""
    if not isinstance(refusal, AuthError):
        try:
            msgspec.json.encode(refusal.payload())
        except Exception:
            logger.exception("the data of a refusal has no JSON")
            return AuthUnavailable("the data of a refusal has no JSON")
    return refusal


def _authentication_timed_out(connection: Connection) -> None:
    connection.authentication_timed_out()


def _decision_timed_out(attempt: Attempt) -> None:
    attempt.time_out()


def _finish_rejection(rejected: tuple[Connection, str]) -> None:
    connection, namespace = rejected
    connection.finish_rejection(namespace)
