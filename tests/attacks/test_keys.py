"""Rows 18 to 23: where keys come from.

The verifier of these servers gets its keys from a key server on loopback, which counts what it is asked. How each
source behaves by itself is in `tests/keys`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iogate import ConfigurationError, Discovery, InvalidToken, JWTAuth, KeySetURL, Server
from tests import refusals
from tests.attacks.bounds import Listener
from tests.attacks.doors import door
from tests.attacks.showing import UNHEARD, assert_undisturbed, connect, victim
from tests.auth.tokens import SECRET, forge, public_jwk, rsa_key, with_header
from tests.conformance.conftest import echo_server
from tests.conformance.wire import Session, said, session
from tests.gate.support import compact
from tests.keys.keyserver import (
    CONFIGURATION,
    KEYS,
    Answer,
    KeyServer,
    crash,
    document,
    endless,
    failure,
    key_server,
    large,
    redirect,
    text,
)
from tests.keys.support import ALGORITHMS, Issuer, discovery, jwk, key_set_url

REFUSED = ["44" + compact(refusals.INVALID)]
UNAVAILABLE = ["44" + compact(refusals.UNAVAILABLE)]


class Scene:
    """A server of iogate with somebody in it who must not notice what happens at the gate."""

    def __init__(self, io: Server, url: str, transport: str, alice: Session) -> None:
        self.io = io
        self.alice = alice
        self._url = url
        self._transport = transport

    async def show(self, token: object) -> list[str | bytes]:
        """Connect with a token, and return all that is answered, up to the end or to the entry."""
        async with session(self._url, self._transport) as stranger:
            await stranger.send(connect(token))
            return await said(stranger)

    async def enters(self, token: str) -> None:
        """Make sure that a token is a good one."""
        async with session(self._url, self._transport) as friend:
            await friend.send(connect(token))
            answer = await friend.receive()
            assert str(answer).startswith('40{"sid":'), answer

    async def undisturbed(self) -> None:
        """Make sure that the one inside still sends and gets events."""
        await assert_undisturbed(self.io, self.alice)


@asynccontextmanager
async def scene(auth: JWTAuth, transport: str, token: str) -> AsyncIterator[Scene]:
    """Serve behind this verifier, with somebody in who has this token."""
    io = echo_server(auth=auth, limits=UNHEARD)
    async with victim(io, transport, token) as (url, alice):
        yield Scene(io, url, transport, alice)


# Row 18: the name of a key

PATHS = ["../../../dev/null", "' OR 1=1 --", "a\0b", "k" * 3000, "http://127.0.0.1:9/key", "/jwks.json", "", "ES256 "]


@pytest.mark.parametrize("kid", PATHS)
def test_a_key_id_that_is_a_path_or_a_query(kid: str) -> None:
    """Row 18: where there is one key, the name that a token gives it changes nothing."""
    auth = door("HS256").auth
    assert auth.verify(with_header(kid=kid)).subject == "alice"
    with pytest.raises(InvalidToken):
        auth.verify(forge(header={"alg": "HS256", "kid": kid}, secret=b"\0"))


@pytest.mark.parametrize("kid", [None, 1, ["a"], {"a": 1}], ids=repr)
def test_a_key_id_that_is_no_text(kid: object) -> None:
    """Row 18."""
    with pytest.raises(InvalidToken):
        door("HS256").auth.verify(with_header(kid=kid))


async def test_a_key_id_that_is_looked_up(server: KeyServer, issuer: Issuer, transport: str) -> None:
    """Row 18: it is compared with the names of the known keys, and nothing is ever made of it."""
    async with scene(issuer.auth(key_set_url(server, issuer)), transport, issuer.token()) as stage:
        tokens = [issuer.token(kid=kid or " ") for kid in PATHS]
        assert [await stage.show(token) for token in tokens] == [REFUSED, *[UNAVAILABLE] * (len(tokens) - 1)]
        assert server.count() == 2
        issuer.clock.advance(30)
        assert [await stage.show(token) for token in reversed(tokens)] == [REFUSED] * len(tokens)
        assert {exchange.path for exchange in server.asked} == {KEYS}
        assert server.count() == 3
        await stage.undisturbed()


# Row 19: floods, and a key server that is down


async def test_a_flood_of_unknown_keys(server: KeyServer, issuer: Issuer, transport: str) -> None:
    """Row 19: at most one reading per cooldown, clients with a known key get in, and others are told to come later."""
    async with scene(issuer.auth(key_set_url(server, issuer, cooldown=30)), transport, issuer.token()) as stage:
        for round_ in range(3):
            tokens = [issuer.token(kid=f"{round_}-{number}") for number in range(20)]
            told = await asyncio.gather(*map(stage.show, tokens), stage.enters(issuer.token()))
            assert all(answer in (REFUSED, UNAVAILABLE) for answer in told[:-1])
            assert [await stage.show(issuer.token(kid="late"))] == [UNAVAILABLE]
            assert server.count() == 2 + round_
            issuer.clock.advance(30)
        await stage.undisturbed()


async def test_a_cooldown_that_is_used_up_hides_a_new_key(server: KeyServer, issuer: Issuer, transport: str) -> None:
    """Row 19: a client with a good token of a new key is told to come later, and enters when the cooldown is over.

    The attacker invents a key whenever there may be a reading, and before the new key is published.
    """
    async with scene(issuer.auth(key_set_url(server, issuer, cooldown=30)), transport, issuer.token()) as stage:
        assert await stage.show(issuer.token(kid="invented")) == REFUSED
        good = issuer.token("ES384")
        assert await stage.show(issuer.token("ES256", kid="ES384")) == UNAVAILABLE  # The name was guessed.
        server.publish(jwk("ES256"), jwk("ES384"))
        for _ in range(3):
            assert await stage.show(good) == UNAVAILABLE
        assert server.count() == 2
        issuer.clock.advance(30)
        assert await stage.show(issuer.token(kid="another invention")) == REFUSED
        await stage.enters(good)
        assert server.count() == 3
        await stage.undisturbed()


async def test_a_token_that_no_key_makes_good_uses_up_no_reading(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    """Row 19: of another issuer, for somebody else or too old, it is refused without a look at the key server."""
    auth = issuer.auth(key_set_url(server, issuer), audience="chat", max_age=600)
    now = issuer.clock.wall()
    fitting: dict[str, Any] = {"aud": "chat", "iat": now}
    async with scene(auth, transport, issuer.token(**fitting)) as stage:
        bad: list[dict[str, Any]] = [{"iss": "https://other.example"}, {"aud": "mail"}, {"iat": now - 601}, {"sub": 5}]
        for wrong in (*bad, {"exp": 9e11}):
            assert await stage.show(issuer.token(kid="invented", **fitting | wrong)) == REFUSED, wrong
        assert server.count() == 1
        server.publish(jwk("ES256"), jwk("ES384"))
        await stage.enters(issuer.token("ES384", **fitting))
        await stage.undisturbed()


TROUBLE: dict[str, Answer | None] = {
    "killed": None,
    "500": failure(500),
    "HTML": text("<!doctype html><title>Trouble</title>", content_type="text/html"),
    "100 MB": large(100_000_000),
    "endless": endless(),
    "an empty set": document({"keys": []}),
    "a redirect": redirect("/elsewhere"),
    "no answer": crash,
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_key_server_in_trouble(server: KeyServer, issuer: Issuer, transport: str, trouble: str) -> None:
    """Row 19: who is in does not notice, and who comes is served from the last good keys for the stated time."""
    keys = key_set_url(server, issuer, every=100, keep_for=1000)
    async with scene(issuer.auth(keys), transport, issuer.token()) as stage:
        answer = TROUBLE[trouble]
        if answer is None:
            await server.kill()
        else:
            server.answers[KEYS] = answer
        for _ in range(5):
            issuer.clock.advance(190)
            await keys.refresh()
            await stage.enters(issuer.token())
        assert await stage.show(issuer.token("ES384")) == UNAVAILABLE
        issuer.clock.advance(100)
        assert await stage.show(issuer.token()) == UNAVAILABLE
        await stage.undisturbed()


async def test_a_key_server_that_does_not_answer(server: KeyServer, issuer: Issuer, transport: str) -> None:
    """Row 19: who has a known key does not wait for it."""
    async with scene(issuer.auth(key_set_url(server, issuer)), transport, issuer.token()) as stage:
        server.answers[KEYS] = server.held
        waiting = asyncio.create_task(stage.show(issuer.token("ES384")))
        await server.was_asked(2)
        await stage.enters(issuer.token())
        await stage.undisturbed()
        assert not waiting.done()
        server.let_go()
        assert await waiting == UNAVAILABLE


@pytest.mark.parametrize("trouble", ["another issuer's document", "another issuer's keys"])
async def test_the_keys_of_another_issuer(server: KeyServer, issuer: Issuer, transport: str, trouble: str) -> None:
    """Row 19: a discovery that turns into somebody else's changes nothing; keys that do are no longer the old ones."""
    keys = discovery(server, issuer)
    async with scene(issuer.auth(keys), transport, issuer.token()) as stage:
        if trouble == "another issuer's keys":
            server.publish(jwk("ES384", kid="ES256"))
        else:
            server.publish(jwk("ES384"), issuer="https://other.example.com")
        await keys.refresh()
        other = Issuer("https://other.example.com").token("ES384")
        assert await stage.show(other) in (REFUSED, UNAVAILABLE)
        if trouble == "another issuer's keys":
            assert await stage.show(issuer.token()) in (REFUSED, UNAVAILABLE)
        else:
            await stage.enters(issuer.token())
        await stage.undisturbed()


# Row 20: several issuers


async def test_one_key_id_at_two_issuers(transport: str) -> None:
    """Row 20: each has keys of its own, however they are named."""
    async with key_server() as here, key_server() as there:
        here.publish(jwk("ES256", kid="1"))
        there.publish(jwk("ES384", kid="1"))
        alice, bob = Issuer(here.url), Issuer(there.url)
        keys = {here.url: key_set_url(here, alice), there.url: key_set_url(there, alice)}
        auth = JWTAuth(keys=keys, algorithms=ALGORITHMS, clock=alice.clock)
        async with scene(auth, transport, alice.token(kid="1")) as stage:
            await stage.enters(bob.token("ES384", kid="1"))
            assert await stage.show(alice.token("ES384", kid="1")) == REFUSED
            assert await stage.show(bob.token("ES256", kid="1")) == REFUSED
            await stage.undisturbed()


async def test_an_issuer_that_is_not_configured(
    server: KeyServer, issuer: Issuer, transport: str, listener: Listener
) -> None:
    """Row 20: nobody is asked about it, and it least of all."""
    auth = JWTAuth(keys={issuer.name: discovery(server, issuer)}, algorithms=ALGORITHMS, clock=issuer.clock)
    async with scene(auth, transport, issuer.token()) as stage:
        asked = len(server.asked)
        for name in (listener.url, issuer.name + "/", issuer.name.upper(), None, [issuer.name]):
            for kid in ("ES256", "unknown"):
                assert await stage.show(issuer.token(kid=kid, iss=name)) == REFUSED, name
        listener.assert_nobody_came()
        assert len(server.asked) == asked
        await stage.undisturbed()


# Row 21: addresses


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example.com/keys",
        "file:///etc/passwd",
        "ftp://id.example.com/keys",
        "https://user:password@id.example.com/keys",
        "https://127.0.0.1/keys",
        "https://[::ffff:10.0.0.1]/keys",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
@pytest.mark.parametrize("source", [KeySetURL, Discovery])
def test_an_address_of_keys_that_leads_elsewhere(address: str, source: Any, listener: Listener) -> None:
    """Row 21: a server does not start with it."""
    with pytest.raises(ConfigurationError) as error:
        source(address)
    assert "password@" not in str(error.value)
    listener.assert_nobody_came()


async def test_a_key_server_that_sends_the_server_elsewhere(
    server: KeyServer, issuer: Issuer, transport: str, listener: Listener
) -> None:
    """Row 21: neither a redirect nor a description makes it ask another machine than the rules allow."""
    keys = discovery(server, issuer)
    async with scene(issuer.auth(keys), transport, issuer.token()) as stage:
        for answer in (
            redirect(listener.url),
            document({"issuer": issuer.name, "jwks_uri": listener.url.replace("127.0.0.1", "10.0.0.1")}),
            document({"issuer": issuer.name, "jwks_uri": listener.url.replace("http://", "http://name:password@")}),
            document({"issuer": issuer.name, "jwks_uri": "file:///etc/passwd"}),
        ):
            server.answers[CONFIGURATION] = answer
            await keys.refresh()
        server.answers[KEYS] = redirect(listener.url, 307)
        server.answers[CONFIGURATION] = document({"issuer": issuer.name, "jwks_uri": server.jwks_url})
        await keys.refresh()
        listener.assert_nobody_came()
        await stage.enters(issuer.token())
        await stage.undisturbed()


# Row 22: what is in a key set


async def test_a_key_set_with_keys_of_every_kind(
    server: KeyServer, issuer: Issuer, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 22: the good ones serve, the others are logged and unused."""
    encoded = json.loads(json.dumps(SECRET))
    server.publish(
        {"kty": "oct", "kid": "secret", "k": encoded, "alg": "HS256"},
        public_jwk(rsa_key(1024), kid="small"),
        jwk("ES384", kid="encryption") | {"use": "enc"},
        jwk("ES384", kid="operations") | {"key_ops": ["encrypt"]},
        jwk("ES256", kid="double"),
        jwk("ES256", kid="broken") | {"x": "AA"},
        {"kty": "RSA", "kid": "double", "n": "AQAB", "e": "AQAB"},
        public_jwk(rsa_key(), kid="twice"),
        public_jwk(rsa_key(3072), kid="twice"),
        jwk("ES256"),
    )
    auth = issuer.auth(key_set_url(server, issuer), algorithms=[*ALGORITHMS, "RS256"])
    async with scene(auth, transport, issuer.token()) as stage:
        await stage.enters(issuer.token(kid="double"))
        for bad in (
            issuer.token("ES384", kid="encryption"),
            issuer.token("ES384", kid="operations"),
            issuer.token("ES256", kid="broken"),
            issuer.token("ES256", kid="secret"),
            forge({"sub": "mallory", "exp": issuer.clock.wall() + 60, "iss": issuer.name}, secret=SECRET.encode()),
        ):
            assert await stage.show(bad) in (REFUSED, UNAVAILABLE)
        await stage.undisturbed()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name in ("'secret'", "'small'", "'encryption'", "'operations'", "'broken'", "'double'", "'twice'"):
        assert any(name in message for message in told), name
    assert SECRET not in caplog.text


# Row 23: a token that was good


@pytest.mark.parametrize("end", ["expiry", "revocation", "removal of its key"])
async def test_a_token_that_was_good(server: KeyServer, issuer: Issuer, transport: str, end: str) -> None:
    """Row 23: a verdict is kept for nobody but the connection that it was for."""
    keys = key_set_url(server, issuer)
    token = issuer.token(sub="bob", jti="1", exp=issuer.clock.wall() + 100)
    async with scene(issuer.auth(keys), transport, issuer.token("ES256")) as stage:
        await stage.enters(token)
        await stage.enters(token)
        if end == "expiry":
            issuer.clock.advance(100)
            assert await stage.show(token) == ["44" + compact(refusals.EXPIRED)]
        elif end == "revocation":
            await stage.io.revoke(token_id="1", issuer=issuer.name)
            assert await stage.show(token) == ["44" + compact(refusals.REVOKED)]
        else:
            server.publish(jwk("ES384"))
            await keys.refresh()
            assert await stage.show(token) == REFUSED
        await stage.undisturbed()


async def test_a_token_that_differs_in_little_from_a_good_one(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    """Row 23: no part of a token stands for the whole."""
    good, other = issuer.token(sub="bob"), issuer.token(sub="mallory")
    async with scene(issuer.auth(key_set_url(server, issuer)), transport, issuer.token()) as stage:
        await stage.enters(good)
        head, body, seal = good.split(".")
        for bad in (
            f"{head}.{other.split('.')[1]}.{seal}",
            f"{head}.{body}.{other.split('.')[2]}",
            f"{issuer.token(kid='x').split('.')[0]}.{body}.{seal}",
        ):
            assert await stage.show(bad) == REFUSED
        await stage.undisturbed()
