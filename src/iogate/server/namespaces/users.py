"""The rooms of users: one per subject, or, with several issuers, one per issuer and subject."""

from __future__ import annotations

from iogate.auth import Principal
from iogate.errors import ConfigurationError
from iogate.printable import printable
from iogate.server.namespaces.rooms import room_of_user


class Users:
    """Names users by issuer and subject.

    Args:
        issuers: the accepted issuers; None if issuers are not distinguished.
    """

    __slots__ = ("_issuers", "_several")

    def __init__(self, issuers: frozenset[str] | None) -> None:
        self._issuers = issuers
        self._several = issuers is not None and len(issuers) > 1

    def room(self, subject: str, issuer: str | None) -> str:
        """Return the name of a user's room. `Server.user_room` documents it."""
        if not subject:
            raise ConfigurationError(
                'a user is named by the sub of the tokens, which is empty here: write io.user_room("bob")'
            )
        issuer = self.issuer(issuer, "user_room")
        return room_of_user(subject, issuer if self._several else None)

    def room_of(self, principal: Principal) -> str:
        """Return the name of the room for a verified identity, which has a subject."""
        return room_of_user(principal.subject, (principal.issuer or "") if self._several else None)

    def issuer(self, issuer: str | None, method: str) -> str | None:
        """Return the issuer for an argument; None if issuers are not distinguished and none is given.

        Args:
            issuer: the argument; None if it was left out.
            method: the name of the method, for the error message.

        Raises:
            ConfigurationError: the issuer is missing, or is not accepted.
        """
        known = self._issuers
        if known is None:
            return issuer
        names = ", ".join(printable(repr(name)) for name in sorted(known))
        if issuer is None and len(known) > 1:
            raise ConfigurationError(
                f"auth accepts several issuers, and each may have such a user, session or token: add the issuer,"
                f" {method}(..., issuer=...), with one of {names}"
            )
        if issuer is not None and issuer not in known:
            raise ConfigurationError(f"issuer is {printable(repr(issuer))}, which auth does not accept: give {names}")
        return issuer if issuer is not None else next(iter(known), None)
