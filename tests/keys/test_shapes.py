"""The large identity providers: what they publish is understood, and their tokens are accepted."""

from __future__ import annotations

import pytest

from iogate import InvalidToken, JWTAuth
from tests.keys.shapes import PROVIDERS


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_token_is_accepted_with_the_key_it_names(provider: str) -> None:
    shape = PROVIDERS[provider]()
    [key] = [key for key in shape.keys if key["kid"] == shape.header["kid"]]
    auth = JWTAuth(public_key=key, algorithms=["RS256"], issuer=shape.issuer, **shape.settings)
    assert auth.verify(shape.token()).scopes == shape.scopes
    with pytest.raises(InvalidToken, match="iss"):
        auth.verify(shape.token(iss="https://other.example.com"))
