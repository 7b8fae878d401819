"""Tokens of the factory are what their names say, for every algorithm."""

from __future__ import annotations

import base64
import json

import pytest

from iogate import ConfigurationError, CredentialsBadFormat, InvalidToken, JWTAuth, TokenExpired
from iogate.testing import FakeClock, TokenFactory


@pytest.mark.parametrize(
    "algorithm", ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA"]
)
def test_its_auth_accepts_a_good_token_of_every_algorithm_and_refuses_the_others(algorithm: str) -> None:
    tokens = TokenFactory(algorithm)
    assert tokens.auth().verify(tokens.good()).subject == "alice"
    for kind in (tokens.wrong_key(), tokens.tampered(), tokens.none_algorithm()):
        with pytest.raises(InvalidToken):
            tokens.auth().verify(kind)


def test_an_unknown_algorithm_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="HS256"):
        TokenFactory("none")


def test_two_factories_do_not_accept_the_tokens_of_each_other() -> None:
    with pytest.raises(InvalidToken):
        TokenFactory().auth().verify(TokenFactory().good())


def test_claims_given_to_a_method_win_over_those_of_the_factory() -> None:
    tokens = TokenFactory(iss="https://issuer.example", aud="chat")
    principal = tokens.auth(issuer="https://issuer.example", audience="chat").verify(tokens.good(sub="bob", name="Bob"))
    assert (principal.subject, principal.claims["name"], principal.audience) == ("bob", "Bob", ("chat",))
    with pytest.raises(InvalidToken):
        tokens.auth(issuer="https://issuer.example").verify(tokens.good(iss="https://elsewhere.example"))


def test_a_claim_that_is_none_is_left_out() -> None:
    tokens = TokenFactory()
    principal = tokens.auth().verify(tokens.good(jti=None))
    assert principal.token_id is None
    assert "jti" not in principal.claims


def test_every_token_has_an_id_of_its_own() -> None:
    tokens = TokenFactory()
    auth = tokens.auth()
    assert auth.verify(tokens.good()).token_id != auth.verify(tokens.good()).token_id


def test_an_expired_token_is_only_expired() -> None:
    tokens = TokenFactory(clock=FakeClock())
    with pytest.raises(TokenExpired):
        tokens.auth().verify(tokens.expired())
    assert tokens.auth(leeway=30).verify(tokens.expired(by=20)).subject == "alice"


def test_a_token_that_is_not_yet_valid_becomes_valid() -> None:
    clock = FakeClock()
    tokens = TokenFactory(clock=clock)
    token = tokens.not_yet_valid(within=10)
    with pytest.raises(InvalidToken):
        tokens.auth().verify(token)
    clock.advance(11)
    assert tokens.auth().verify(token).subject == "alice"


def test_a_good_token_expires_when_its_life_is_over_by_the_clock_of_the_factory() -> None:
    clock = FakeClock()
    tokens = TokenFactory(clock=clock, lifetime=60)
    token = tokens.good()
    clock.advance(59)
    tokens.auth().verify(token)
    clock.advance(1)
    with pytest.raises(TokenExpired):
        tokens.auth().verify(token)


def test_a_token_without_a_claim_is_refused_where_it_is_required() -> None:
    tokens = TokenFactory()
    with pytest.raises(InvalidToken):
        tokens.auth().verify(tokens.without("exp"))
    assert tokens.auth(require=["exp"]).verify(tokens.without("sub", "jti")).subject == ""


@pytest.mark.parametrize("kind", list(TokenFactory().bad()))
def test_none_of_the_bad_tokens_is_accepted(kind: str) -> None:
    tokens = TokenFactory()
    with pytest.raises((InvalidToken, CredentialsBadFormat)):
        tokens.auth().verify(tokens.bad()[kind])


def test_the_keys_can_be_given_to_an_application_that_reads_its_own() -> None:
    shared, pair = TokenFactory(), TokenFactory("ES256")
    assert shared.secret is not None
    assert shared.public_key is None
    assert pair.secret is None
    assert JWTAuth(secret=shared.secret, algorithms=["HS256"]).verify(shared.good()).subject == "alice"
    assert pair.public_key is not None
    assert "d" not in pair.public_key
    assert JWTAuth(public_key=pair.public_key, algorithms=["ES256"]).verify(pair.good()).subject == "alice"


def test_many_gives_a_token_for_each_subject() -> None:
    tokens = TokenFactory()
    assert [tokens.auth().verify(token).subject for token in tokens.many("ann", "ben")] == ["ann", "ben"]


def test_the_key_id_stands_in_the_header() -> None:
    tokens = TokenFactory(key_id="2026-01")
    head = tokens.good().split(".")[0]
    assert json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"] == "2026-01"


def test_its_repr_shows_no_key() -> None:
    tokens = TokenFactory()
    assert repr(tokens) == "TokenFactory('HS256')"
