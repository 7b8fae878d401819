"""The gate: the one place where it is decided whether a client is let in.

    CONNECT or `authenticate` -> which token is it -> is it good, is it revoked, who is it -> the namespace and its
    scopes -> middleware -> is all of that still true -> let in
                                                         anything else on the way -> refuse

Until `admit` has said yes, no socket of the connection is in a namespace or a room, and no handler knows of it.
Whatever goes wrong on the way is a refusal.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
from iogate.server import dispatch
from iogate.server.attempts import HELD_FRAMES, MAX_REFUSALS, Attempt, Connect, Entry, Refresh, payload_size
from iogate.server.identity import Identity, digest_of
from iogate.server.limits import Failures
from iogate.server.socket import Socket

if TYPE_CHECKING:
    from iogate.server.connection import Connection
    from iogate.server.namespace import Namespace, Namespaces

logger = logging.getLogger("iogate")

INVALID_NAMESPACE = "Invalid namespace"
"""The message that tells a client that there is no such namespace, as the official servers word it."""


class Gate:
    """Decides who is let in.

    Args:
        auth: what verifies tokens; None lets everybody through to the middleware.
        namespaces: where they may ask to be let in.
        revocations: the tokens that are good no more.
        failures: the addresses that have sent too many bad tokens.
        missing: the addresses that have sent too many CONNECTs without a token.
    """

    __slots__ = ("_auth", "_failures", "_missing", "_namespaces", "_revocations")

    def __init__(
        self,
        auth: Auth | None,
        namespaces: Namespaces,
        revocations: Revocations,
        failures: Failures,
        missing: Failures,
    ) -> None:
        self._auth = auth
        self._namespaces = namespaces
        self._revocations = revocations
        self._failures = failures
        self._missing = missing

    async def admit(self, attempt: Entry) -> None:
        """Let a client into a namespace, leave it outside until it authenticates, or refuse it."""
        connection, known = attempt.connection, attempt.connection.identity
        with self._refusing(attempt):
            identity = await self._identify(attempt)
            namespace = self._find(attempt, identity)
            if identity is None and isinstance(attempt, Connect) and self._may_wait():
                if attempt.pending:  # The predicate of a namespace may have ended the connection.
                    attempt.wait()
                return
            namespace.visitors += 1
            try:
                socket = await self._examine(attempt, namespace, identity)
                # From here on there is no await and no application code, so what is checked now is still true when the
                # socket is registered. A hook that ignores its cancellation may arrive here late.
                if not attempt.pending:
                    return
                # A CONNECT without a token uses the connection's identity, which a refresh may have replaced meanwhile.
                identity = self._confirm(connection, connection.identity if identity is known else identity)
                self._check_scopes(namespace, identity)
                settle = connection.adopt(identity)
                attempt.accept(socket)
            finally:
                namespace.visitors -= 1
            settle()
            if socket.connected:  # Code that `settle` called may have ended it.
                dispatch.connected(socket)

    async def refresh(self, attempt: Refresh) -> None:
        """Let a client that is in put another token in the place of the one it has, or refuse that."""
        with self._refusing(attempt):
            identity = await self._identify(attempt)
            if not attempt.pending:
                return
            if identity is None:  # On a server without `auth` nobody has an identity to refresh.
                attempt.connection.decided(attempt)
                return
            confirmed = self._confirm(attempt.connection, identity)
            if confirmed is None or confirmed.digest != identity.digest:
                raise InvalidToken("an older token on a connection that has a newer one")
            attempt.connection.adopt(confirmed)()
            if attempt.pending:
                attempt.accept()

    @contextmanager
    def _refusing(self, attempt: Attempt) -> Iterator[None]:
        """Turn whatever is raised into a refusal, if the verdict is still waited for."""
        try:
            yield
        except Refused as refused:
            self._refuse(attempt, refused)
        except asyncio.CancelledError:
            # The connection's own doing (then nobody waits for a verdict any more), or a hook's: that is a refusal.
            if attempt.pending:
                attempt.refuse(AuthUnavailable("cancelled"))
            raise
        except BaseException as error:
            logger.exception("refused: the verdict failed")
            if attempt.pending:
                attempt.refuse(AuthUnavailable("the verdict failed"))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # The process is to end. Whatever else it is, it is no affair of the transport's.
        finally:
            self._namespaces.release(attempt.namespace)

    def _refuse(self, attempt: Attempt, refused: Refused) -> None:
        # In a function of its own: where an exception is caught, a variable for it would keep its traceback, and with
        # that everything on the way to here, until the garbage collector comes.
        refusal = tellable(refused)
        address = attempt.connection.handshake.address
        # `Failures` has logged the address of a flood, once.
        told = isinstance(refusal, TooManyAttempts) and (
            self._failures.exceeded(address) or self._missing.exceeded(address)
        )
        level = logging.DEBUG if told else logging.INFO
        logger.log(level, "refused: %s", refusal if isinstance(refusal, AuthError) else "by the application")
        if counts(refusal):
            self._failures.add(address)
        elif isinstance(refusal, CredentialsRequired):
            self._missing.add(address)
        if attempt.pending:
            attempt.refuse(refusal)

    async def _identify(self, attempt: Attempt) -> Identity | None:
        """Return the identity behind an attempt; None is nobody, where that is allowed.

        A token is verified once per transport: a CONNECT to another namespace with the same token, or none, uses the
        identity that the connection has. As long as it has none, different tokens are verified one by one.
        """
        auth, connection = self._auth, attempt.connection
        if isinstance(attempt, Entry) and isinstance(attempt.payload, Oversized):
            raise CredentialsBadFormat(attempt.payload.reason)
        if isinstance(attempt, Connect):
            self._check_cost(attempt)
        if auth is None:
            return None
        token = attempt.credential(auth)
        if token is None:
            known = connection.identity
            if isinstance(attempt, Connect) and (known is not None or auth.guests or self._may_wait()):
                return known
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

    @staticmethod
    def _check_cost(attempt: Connect) -> None:
        """Refuse a CONNECT if its connection holds too much already, or has given up too many verdicts."""
        connection = attempt.connection
        most = HELD_FRAMES * connection.server.max_unverified
        if len(connection.attempts) + len(connection.waiting) + len(connection.sockets) > 1 and (
            connection.payload_bytes > most
        ):
            raise TooManyAttempts(f"the CONNECTs of the transport hold more than {most} bytes")
        if connection.abandoned >= MAX_REFUSALS:
            raise TooManyAttempts("the transport has not waited for too many verdicts")

    async def _verify(self, attempt: Attempt, token: str, digest: bytes) -> Identity:
        """Return the identity that a token proves, with the application's user."""
        auth, connection = self._auth, attempt.connection
        assert auth is not None  # noqa: S101
        if connection.refusals >= MAX_REFUSALS:
            raise TooManyAttempts("the transport has shown too many bad credentials")
        verification = proven(token, auth, self._revocations)
        if connection.identity is None:
            principal = await self._failures.verified(connection.handshake.address, verification)
        else:
            principal = await verification
        self._ensure_current(attempt, principal)
        _check_person(connection.identity, principal)
        identity = Identity(principal, await auth.user_for(principal), digest)
        connection.candidate = identity
        return identity

    def _may_wait(self) -> bool:
        return self._auth is not None and self._auth.authenticate_within is not None and not self._auth.guests

    def _find(self, attempt: Entry, identity: Identity | None) -> Namespace:
        self._ensure_current(attempt, identity.principal if identity is not None else None)
        namespace = self._namespaces.find(attempt.namespace)
        if namespace is None:
            raise Refused(INVALID_NAMESPACE)
        return namespace

    async def _examine(self, attempt: Entry, namespace: Namespace, identity: Identity | None) -> Socket:
        """Return a socket that may be let in, or raise."""
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
        """Raise unless the attempt is still open and the identity still holds, before application code runs.

        Raises:
            asyncio.CancelledError: the client has left, or the deadline has passed.
            AuthError: the identity no longer holds.
        """
        if not attempt.pending:
            raise asyncio.CancelledError
        # Without a task the attempt has not waited yet, so the identity is as it was when its token was verified.
        if attempt.task is not None and self._auth is not None and principal is not None:
            hold(principal, self._auth, self._revocations)

    def _confirm(self, connection: Connection, identity: Identity | None) -> Identity | None:
        """Return the identity for a connection. Hooks may have taken long, so everything is checked again.

        A connection that has come by a newer token meanwhile keeps that.
        """
        if self._auth is None or identity is None:
            return identity
        known = connection.identity
        _check_person(known, identity.principal)
        if known is not None and (known.digest == identity.digest or not known.is_older_than(identity.principal)):
            identity = known
        hold(identity.principal, self._auth, self._revocations)
        connection.server.subjects.check(connection, identity.principal)
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


async def proven(token: str, auth: Auth, revocations: Revoked) -> Principal:
    """Return the identity that a token proves, if that was not revoked: all that is asked of the token itself.

    Raises:
        RevokedToken: it was revoked.
        AuthError: whatever else `auth` says.
    """
    principal = await auth.verify_async(token)
    if revocations.revoked(principal, auth.clock.wall()):
        raise RevokedToken
    return principal


def hold(principal: Principal, auth: Auth, revocations: Revoked) -> None:
    """See whether what a token has proven a while ago still holds.

    Raises:
        TokenExpired: it has expired meanwhile.
        InvalidToken: its key was removed, and that is to matter.
        RevokedToken: it was revoked.
    """
    auth.recheck(principal)
    if revocations.revoked(principal, auth.clock.wall()):
        raise RevokedToken


def _check_person(known: Identity | None, principal: Principal) -> None:
    if known is not None and not known.is_of(principal):
        raise InvalidToken("another person's token on a connection that has an identity")


def counts(refusal: Refused) -> bool:
    """Say whether a refusal counts against the address that it was given to. Who has merely waited too long may."""
    return isinstance(refusal, BAD_CREDENTIALS) and not isinstance(refusal, TokenExpired)


def tellable(refusal: Refused) -> Refused:
    """Return a refusal that can be written down: the data of the application's own may have no JSON."""
    if not isinstance(refusal, AuthError):
        try:
            msgspec.json.encode(refusal.payload())
        except Exception:
            logger.exception("the data of a refusal has no JSON")
            return AuthUnavailable("the data of a refusal has no JSON")
    return refusal
