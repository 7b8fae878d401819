"""Several issuers at once: a token's `iss` selects among them, and does nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from iogate import InvalidToken, JWTAuth
from tests.keys.support import ALGORITHMS, Issuer, jwk

ISSUER = "https://id.example.com"
OTHER = "https://other.example.com"


def _several(**settings: Any) -> JWTAuth:
    clock = Issuer(ISSUER).clock
    keys = {ISSUER: {"keys": [jwk("ES256", kid="1")]}, OTHER: {"keys": [jwk("ES384", kid="1")]}}
    return JWTAuth(keys=keys, algorithms=ALGORITHMS, clock=clock, **settings)


@pytest.mark.parametrize(("algorithm", "name"), [("ES256", ISSUER), ("ES384", OTHER)])
def test_each_issuer_has_keys_of_its_own_under_the_same_name(algorithm: str, name: str) -> None:
    auth = _several()
    principal = auth.verify(Issuer(name).token(algorithm, kid="1"))
    assert principal.issuer == name
    auth.recheck(principal)
    for stranger in {ISSUER, OTHER} - {name}:
        with pytest.raises(InvalidToken):
            auth.verify(Issuer(stranger).token(algorithm, kid="1"))


@pytest.mark.parametrize("name", [ISSUER + "/", ISSUER.upper(), "id.example.com", "", None, 5, [ISSUER], {ISSUER: 1}])
async def test_an_issuer_that_is_not_one_of_them_is_refused(name: Any) -> None:
    token = Issuer(ISSUER).token(kid="1", iss=name)
    with pytest.raises(InvalidToken, match="not an accepted issuer"):
        _several().verify(token)
    with pytest.raises(InvalidToken, match="not an accepted issuer"):
        await _several().verify_async(token)


async def test_an_unknown_key_of_a_known_issuer_is_refused() -> None:
    with pytest.raises(InvalidToken, match="no key"):
        await _several().verify_async(Issuer(ISSUER).token(kid="2"))


def test_the_server_has_a_name_at_each_issuer() -> None:
    auth = _several(audience={ISSUER: "chat", OTHER: ["talk", "speech"]})
    assert auth.verify(Issuer(ISSUER).token(kid="1", aud="chat")).audience == ("chat",)
    assert auth.verify(Issuer(OTHER).token("ES384", kid="1", aud=["mail", "speech"])).issuer == OTHER
    for bad in (Issuer(ISSUER).token(kid="1", aud="talk"), Issuer(OTHER).token("ES384", kid="1", aud="chat")):
        with pytest.raises(InvalidToken, match="aud"):
            auth.verify(bad)
