"""The requirements for tokens in a configuration, except for the keys. They do not change after it is created.

Each check is a separate function, so that `iogate token show` can report them one by one. `iogate doctor` reads the
fields.
"""

from __future__ import annotations

import math
from collections.abc import Container

import msgspec

from iogate.auth import jws
from iogate.auth.claims import YEAR_10000, ClaimRules
from iogate.errors import CredentialsBadFormat

MAX_TOKEN_BYTES = 8192
"""Default of the maximum size of a token in bytes."""
TOKEN_TYPES = ("JWT", "at+jwt")
"""Default of the accepted values of `typ`."""

CLOCK_STEP = 3600.0
"""Seconds by which the server's clock may be set back without a revoked token being accepted again."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements for tokens.

    Args:
        algorithms: the accepted algorithms, by exact name.
        rules: the rules for the claims.
        types: the accepted values of `typ`, as `jws.media_type` returns them.
        type_required: if True, a token without `typ` is rejected.
        max_token_bytes: size in bytes above which a token is rejected without being parsed.
        expiry_grace: seconds after the expiry of a token (plus `leeway`) until its sockets are disconnected.
    """

    algorithms: frozenset[str]
    rules: ClaimRules
    types: frozenset[str] = frozenset(map(jws.media_type, TOKEN_TYPES))
    type_required: bool = False
    max_token_bytes: int = MAX_TOKEN_BYTES
    expiry_grace: float = 0

    def open(
        self, token: object, types: Container[str] | None = None, *, required: bool | None = None
    ) -> tuple[jws.Compact, str]:
        """Split a token into its parts, and check the size, the format and the header. This does not need a key.

        Args:
            token: the token.
            types: the accepted values of `typ`, instead of `self.types`, for tokens that are not access tokens.
            required: if True, `typ` is required. None: as `self.type_required` says.

        Returns:
            The parts and the algorithm. The claims are NOT verified.

        Raises:
            CredentialsBadFormat: the token is not a string, is empty, or is too large.
            InvalidToken: the format or the header of the token is wrong.
        """
        # The order matters: cheap checks with a bounded cost run first, cryptography runs only on well-formed tokens,
        # and the claims are not trusted before the signature is verified.
        compact = jws.split(self.check_size(token))
        algorithm = jws.check_algorithm(compact.header, self.algorithms)
        jws.check_parameters(compact.header)
        required = self.type_required if required is None else required
        jws.check_type(compact.header, self.types if types is None else types, required=required)
        return compact, algorithm

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return the Unix time in seconds until which a revocation must be remembered; infinity means for ever.

        It must be remembered as long as a token that it matches can be accepted, or a socket with such a token can be
        open. The result covers tokens that were issued until now or until `issued_before`, whichever is later. A key
        can sign tokens with any date at any time, so the revocation of a key never ends unless it has `issued_before`.

        Args:
            now: Unix time in seconds.
            issued_before: the latest `iat` that the revocation matches, Unix time in seconds; None if it has no limit.
            key_id: the `kid` that the revocation names, or None.
        """
        if key_id is not None and issued_before is None:
            return math.inf
        issued_by = max(now + self.rules.leeway, issued_before or 0.0)
        end = self.rules.accepted_until(issued_by) + self.expiry_grace + CLOCK_STEP
        return end if end < YEAR_10000 else math.inf

    def check_size(self, token: object) -> str:
        """Return the token, or raise `CredentialsBadFormat` if it is not a string, is empty, or is too large."""
        if not isinstance(token, str) or not token:
            raise CredentialsBadFormat("the token is not a string with something in it")
        if len(token) > self.max_token_bytes:
            raise CredentialsBadFormat("the token is larger than max_token_bytes")
        return token
