"""profile="access-token": JWT access tokens after RFC 9068, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from iogate import ConfigurationError, InvalidToken, JWTAuth

from .tokens import CLOCK, GOOD, NOW, SECRET, forge

ISSUER = "https://id.example.com"
ACCESS: dict[str, Any] = GOOD | {"iss": ISSUER, "aud": "chat", "client_id": "app", "iat": NOW, "jti": "1"}
HEADER = {"alg": "HS256", "typ": "at+jwt"}


def auth(**settings: Any) -> JWTAuth:
    defaults: dict[str, Any] = {"profile": "access-token", "issuer": ISSUER, "audience": "chat"}
    return JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK, **defaults | settings)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_an_access_token_is_accepted(typ: str) -> None:
    assert auth().verify(forge(ACCESS, header=HEADER | {"typ": typ})).subject == "alice"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "logout+jwt", "", None, 5])
def test_a_token_of_another_type_is_refused(typ: Any) -> None:
    with pytest.raises(InvalidToken, match="type"):
        auth().verify(forge(ACCESS, header=HEADER | {"typ": typ}))


def test_a_token_without_a_type_is_refused() -> None:
    with pytest.raises(InvalidToken, match="type"):
        auth().verify(forge(ACCESS, header={"alg": "HS256"}))


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_a_token_without_one_of_its_claims_is_refused(name: str) -> None:
    claims = {claim: value for claim, value in ACCESS.items() if claim != name}
    with pytest.raises(InvalidToken, match=name):
        auth().verify(forge(claims, header=HEADER))


def test_more_can_be_required() -> None:
    with pytest.raises(InvalidToken, match="tenant"):
        auth(require=["tenant"]).verify(forge(ACCESS, header=HEADER))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"profile": "id-token"}, 'write profile="access-token"'),
        ({"profile": True}, 'write profile="access-token"'),
        ({"issuer": None}, "give both"),
        ({"audience": None}, "give both"),
        ({"token_types": ["JWT"]}, "leave token_types out"),
    ],
)
def test_what_does_not_go_with_the_profile_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        auth(**settings)


def test_who_overrides_one_verification_overrides_both() -> None:
    with pytest.raises(ConfigurationError, match="verify_async"):

        class Half(JWTAuth):
            def verify(self, token: str) -> Any:
                return super().verify(token)
