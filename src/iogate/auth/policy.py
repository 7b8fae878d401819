"""What a configuration accepts, apart from the keys: numbers and names that are fixed when it is made.

Each check is a call of its own, so that `iogate token show` can tell them apart, and `iogate doctor` reads the fields.
"""

from __future__ import annotations

import math
from collections.abc import Container

import msgspec

from iogate.auth import jws
from iogate.auth.claims import YEAR_10000, ClaimRules
from iogate.errors import CredentialsBadFormat

MAX_TOKEN_BYTES = 8192
"""Bytes of a token that are looked at, unless a configuration says otherwise."""
TOKEN_TYPES = ("JWT", "at+jwt")
"""The accepted `typ`, unless a configuration says otherwise."""

CLOCK_STEP = 3600.0
"""Seconds by which the server's clock may be set back, and a revoked token is still not accepted again."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a token.

    Args:
        algorithms: the accepted algorithms, by exact name.
        rules: what is asked of the claims.
        types: the accepted `typ`, as `jws.media_type` gives them.
        type_required: whether a token without `typ` is refused.
        max_token_bytes: the size above which a token is not looked at.
        expiry_grace: seconds that a socket is left after its token has expired.
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
        """Take a token apart, and check all of it that needs no key.

        Args:
            token: what was given as one.
            types: the accepted `typ` in place of those of the policy, for tokens of another use.
            required: whether there must be one, in place of what the policy says.

        Returns:
            Its parts, and its algorithm. No claim of it is proven.

        Raises:
            CredentialsBadFormat: it is not a string, is empty, or is too large.
            InvalidToken: its form or its header is wrong.
        """
        # The order matters: what is cheap and bounded comes first, cryptography only for what is well formed, and no
        # claim counts before the signature is good.
        compact = jws.split(self.check_size(token))
        algorithm = jws.check_algorithm(compact.header, self.algorithms)
        jws.check_parameters(compact.header)
        required = self.type_required if required is None else required
        jws.check_type(compact.header, self.types if types is None else types, required=required)
        return compact, algorithm

    def revocation_end(self, now: float, issued_before: float | None, key_id: str | None) -> float:
        """Return until when a revocation must be remembered, as Unix time in seconds; infinity means for ever.

        That is as long as a token that it means can be accepted, or a socket with such a token can be open. It means
        tokens that were issued by now, or before `issued_before` if that is later. A key can sign tokens with any date
        at any time, so the revocation of a key never ends unless it has `issued_before`.

        Args:
            now: Unix time in seconds.
            issued_before: the latest `iat` that the revocation means; None if it has no such limit.
            key_id: the `kid` that it names, if any.
        """
        if key_id is not None and issued_before is None:
            return math.inf
        issued_by = max(now + self.rules.leeway, issued_before or 0.0)
        end = self.rules.accepted_until(issued_by) + self.expiry_grace + CLOCK_STEP
        return end if end < YEAR_10000 else math.inf

    def check_size(self, token: object) -> str:
        """Return the text of a token, if it is one, and not too large."""
        if not isinstance(token, str) or not token:
            raise CredentialsBadFormat("the token is not a string with something in it")
        if len(token) > self.max_token_bytes:
            raise CredentialsBadFormat("the token is larger than max_token_bytes")
        return token
