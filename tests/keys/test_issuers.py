"""Several issuers at once: a token's `iss` selects among them, and does nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iogate import AuthUnavailable, Discovery, InvalidToken, JWTAuth, KeySetURL
from tests.keys.keyserver import KeyServer, key_server
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


# Several issuers elsewhere


@asynccontextmanager
async def elsewhere() -> AsyncIterator[tuple[JWTAuth, dict[str, KeyServer]]]:
    """Two issuers, one found by its discovery and one by the address of its keys."""
    async with key_server() as here, key_server() as there:
        here.publish(jwk("ES256", kid="1"))
        there.publish(jwk("ES384", kid="1"))
        clock = Issuer("").clock
        keys = {
            here.url: Discovery(here.url, network="loopback", clock=clock, revoke_removed=True),
            there.url: KeySetURL(there.jwks_url, network="loopback", clock=clock),
        }
        yield JWTAuth(keys=keys, algorithms=ALGORITHMS, clock=clock), {"ES256": here, "ES384": there}


async def test_each_issuer_is_asked_for_its_own_keys() -> None:
    async with elsewhere() as (auth, servers):
        for algorithm, server in servers.items():
            token = Issuer(server.url).token(algorithm, kid="1")
            assert (await auth.verify_async(token)).issuer == server.url
            assert server.count() == 1
        for algorithm, server in servers.items():
            (other,) = set(servers.values()) - {server}
            with pytest.raises(InvalidToken):
                await auth.verify_async(Issuer(other.url).token(algorithm, kid="1"))


async def test_a_stranger_causes_no_request() -> None:
    async with elsewhere() as (auth, servers):
        with pytest.raises(InvalidToken):
            await auth.verify_async(Issuer("https://stranger.example.com").token(kid="1"))
        assert [server.asked for server in servers.values()] == [[], []]


async def test_one_issuer_that_is_away_is_nothing_to_the_users_of_the_other() -> None:
    async with elsewhere() as (auth, servers):
        await servers["ES256"].kill()
        token = Issuer(servers["ES384"].url).token("ES384", kid="1")
        assert (await auth.verify_async(token)).subject == "alice"
        with pytest.raises(AuthUnavailable):
            await auth.verify_async(Issuer(servers["ES256"].url).token("ES256", kid="1"))


async def test_they_begin_and_end_together() -> None:
    async with elsewhere() as (auth, servers):
        told: list[str] = []

        def changed() -> None:
            told.append("changed")

        auth.start(changed)
        await auth.ready()
        assert [server.count() for server in servers.values()] == [1, 1]
        assert all(server.url in repr(auth) for server in servers.values())
        principal = auth.verify(Issuer(servers["ES256"].url).token("ES256", kid="1"))
        auth.recheck(principal)
        servers["ES256"].publish(jwk("ES384", kid="2"))
        with pytest.raises(InvalidToken):
            await auth.verify_async(Issuer(servers["ES256"].url).token("ES256", kid="new"))
        assert told == ["changed"]
        with pytest.raises(InvalidToken, match="removed"):
            auth.recheck(principal)
        await auth.stop(changed)
