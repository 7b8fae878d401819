"""`request.user` of a request with a token, for applications without `load_user`."""

from __future__ import annotations

from typing import Any

from iogate.auth import Principal
from iogate.http.guard import Admitted


class TokenUser:
    """The user of a verified token, in place of the session's user.

    It is authenticated, but has no permissions of a framework; the scopes of the token are in `principal.scopes`. It
    has no primary key: code that needs a database row raises `AttributeError`, and never finds the row of another user.

    Args:
        admitted: the verified identity.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, admitted: Admitted) -> None:
        self.principal: Principal = admitted.principal
        self.user: Any = admitted.user

    @property
    def username(self) -> str:
        """The subject."""
        return self.principal.subject

    display_name = identity = username

    def get_username(self) -> str:
        """Return the subject."""
        return self.principal.subject

    def has_perm(self, permission: str, obj: object = None) -> bool:
        """Return False: only users that `load_user` returns have permissions."""
        return False

    def has_perms(self, permissions: object, obj: object = None) -> bool:
        """Return False."""
        return False

    def has_module_perms(self, label: str) -> bool:
        """Return False."""
        return False

    async def ahas_perm(self, permission: str, obj: object = None) -> bool:
        """Return False."""
        return False

    async def ahas_perms(self, permissions: object, obj: object = None) -> bool:
        """Return False."""
        return False

    async def ahas_module_perms(self, label: str) -> bool:
        """Return False."""
        return False

    def __str__(self) -> str:
        return self.principal.subject


class Credentials:
    """The scopes of a token, as `request.auth`: Starlette's `@requires` checks them.

    Args:
        admitted: the verified identity.
    """

    def __init__(self, admitted: Admitted) -> None:
        self.scopes = ["authenticated", *sorted(admitted.principal.scopes)]
