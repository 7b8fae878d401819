"""A configuration says in one way where its keys come from, or is told how."""

from __future__ import annotations

import json
import logging
import ssl
from typing import Any

import pytest

from iogate import ConfigurationError, Discovery, InvalidToken, JWTAuth, KeySetURL
from iogate.auth.jws import split
from iogate.keys import choose
from tests.auth.tokens import SECRET, public_pem, rsa_key, sign, with_header
from tests.keys.support import ALGORITHMS, Issuer, jwk

ISSUER = "https://id.example.com"
SET = {"keys": [jwk("ES256"), jwk("ES384")]}


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        JWTAuth(**{"algorithms": ALGORITHMS} | settings)
    return str(error.value)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"secret": SECRET, "jwks": SET},
        {"jwks_url": ISSUER, "discover": ISSUER},
        {"public_key": public_pem(rsa_key()), "keys": lambda header, claims: None},
        {"secret": None, "jwks_url": None},
    ],
)
def test_there_is_exactly_one_source(keys: dict[str, Any]) -> None:
    message = refusal(**keys)
    assert "exactly one" in message
    assert "environment variable" in message
    assert SECRET not in message


@pytest.mark.parametrize("text", [SET, json.dumps(SET), json.dumps(SET).encode()], ids=["mapping", "text", "bytes"])
def test_a_key_set_that_is_given(text: Any) -> None:
    issuer = Issuer(ISSUER)
    auth = JWTAuth(jwks=text, algorithms=ALGORITHMS, clock=issuer.clock)
    assert auth.verify(issuer.token("ES256")).key_id == "ES256"
    principal = auth.verify(issuer.token("ES384"))
    assert principal.key_thumbprint is not None
    auth.recheck(principal)
    for bad in (issuer.token("ES256", kid="ES384"), issuer.token("ES256", kid="other")):
        with pytest.raises(InvalidToken):
            auth.verify(bad)
    assert repr(auth).startswith("JWTAuth(algorithms=['ES256', 'ES384'], keys=<KeySet of ['ES256', 'ES384']>")


async def test_what_a_fixed_key_set_has_not_does_not_exist() -> None:
    issuer = Issuer(ISSUER)
    auth = JWTAuth(jwks=SET, algorithms=ALGORITHMS, clock=issuer.clock)
    auth.start(print)
    await auth.ready()
    assert (await auth.verify_async(issuer.token())).subject == "alice"
    with pytest.raises(InvalidToken, match="no key"):
        await auth.verify_async(issuer.token(kid="other"))
    with pytest.raises(InvalidToken, match="no key"):
        auth.verify(issuer.token(kid="other"))
    await auth.stop(print)


async def test_what_is_fixed_is_not_gone_for() -> None:
    """Whoever asks all the same: `find` has said it already."""
    issuer = Issuer(ISSUER)
    with pytest.raises(InvalidToken, match="no key"):
        await choose({"jwks": SET}, ["ES256"], None).fetch(split(issuer.token()), "ES256")


def test_keys_of_a_set_that_are_left_out_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    JWTAuth(jwks={"keys": [jwk("ES256"), {"kty": "oct", "k": SECRET}]}, algorithms=["ES256"])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("jwks: key 2 is a JWK with a shared secret")
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"jwks": jwk("ES256")}, 'jwks: this is no key set: that is a JSON object with a list in "keys"'),
        ({"jwks": "https://id.example.com/keys"}, "jwks: the key set is not a JSON object"),
        ({"jwks": 5}, "jwks is a key set as a mapping or JSON text, and not int"),
        ({"jwks": {"keys": []}}, "jwks: the key set has no key"),
        ({"jwks": SET, "algorithms": ["RS256", "PS256"]}, "jwks has no key that goes with RS256 or PS256"),
        ({"jwks": SET, "algorithms": ["ES256", "HS256"]}, "'HS256', which has a shared secret, and jwks= gives public"),
        ({"jwks": SET, "algorithms": []}, "algorithms is needed"),
        ({"jwks_url": "https://id.example.com/keys"}, "jwks_url= needs issuer="),
        ({"keys": KeySetURL("https://id.example.com/keys")}, "keys= needs issuer="),
        ({"jwks_url": "http://id.example.com/keys", "issuer": ISSUER}, "is not https"),
        ({"discover": "http://id.example.com"}, "is not https"),
        ({"discover": "https://id.example.com?tenant=1"}, "has a query"),
        ({"discover": ISSUER, "issuer": ISSUER + "/"}, "leave issuer out"),
        ({"discover": ISSUER, "issuer": [ISSUER, "https://other.example.com"]}, "leave issuer out"),
        ({"keys": {}}, "empty mapping"),
        ({"keys": {"": SET}}, "one of them is empty"),
        ({"keys": {ISSUER: SECRET}}, "keys['https://id.example.com']: the key set is not a JSON object"),
        ({"keys": {ISSUER: Discovery("https://other.example.com")}}, "the discovery of another issuer"),
        ({"keys": {ISSUER: SET}, "issuer": "https://other.example.com"}, "leave issuer out"),
        ({"keys": SET}, "keys['keys'] is a key set as a mapping or JSON text, and not list"),
        ({"keys": SECRET}, "a key itself is given as secret="),
        ({"keys": KeySetURL}, "KeySetURL(...)"),
        ({"keys": {ISSUER: SET}, "audience": {"https://other.example.com": "chat"}}, "audience is a mapping"),
        ({"jwks": SET, "audience": {ISSUER: "chat"}}, "audience is a mapping"),
        ({"keys": {ISSUER: SET}, "audience": {ISSUER: []}}, "audience has no name"),
    ],
)
def test_what_does_not_go_together_is_told(settings: dict[str, Any], why: str) -> None:
    message = refusal(**settings)
    assert why in message
    assert SECRET not in message


def test_an_issuer_that_is_discovered_need_not_be_repeated() -> None:
    JWTAuth(discover=ISSUER, issuer=ISSUER, algorithms=["ES256"])
    assert repr(JWTAuth(discover=ISSUER, algorithms=["ES256"])).count(ISSUER) == 1


def test_what_may_be_a_secret_in_an_address_is_not_shown() -> None:
    keys = KeySetURL("https://id.example.com/keys?access_key=hunter2")
    assert repr(keys) == "KeySetURL('https://id.example.com/keys')"


@pytest.mark.parametrize(
    "settings",
    [
        {"secret": SECRET, "algorithms": ["HS256"]},
        {"public_key": public_pem(rsa_key()), "algorithms": ["RS256"]},
    ],
    ids=["secret", "public key"],
)
async def test_one_key_is_for_every_token_whatever_it_calls_its_key(settings: dict[str, Any]) -> None:
    """It does not change, so that nothing is removed, and it is nobody's by name."""
    auth = JWTAuth(**settings)
    (algorithm,) = settings["algorithms"]
    key = sign(algorithm, rsa_key(), kid="any") if algorithm == "RS256" else with_header(kid="any")
    assert list(auth.keys.find(split(key), algorithm).verifiers) == [algorithm]  # type: ignore[union-attr]
    assert auth.keys.issuers is None
    assert repr(auth.keys) == "<one key>"


def test_what_is_fetched_can_be_asked_how() -> None:
    """`iogate doctor` tells what is wrong with it, before and after the first reading."""
    context = ssl.create_default_context()
    keys = KeySetURL(ISSUER, network="private", ssl_context=context)
    assert (keys.network, keys.ssl_context) == ("private", context)
    assert (keys.keys, keys.trouble) == (None, "it has not answered yet")
