"""Keys from elsewhere, over the life of a server: from before its first connection to after its last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from iogate import Server, Socket
from iogate.keys import refreshed
from tests import refusals
from tests.conformance.conftest import echo_server
from tests.conformance.wire import echoes, ends, said, session, within
from tests.gate.support import authenticate, compact, connect, hear, unauthorized
from tests.keys.keyserver import KEYS, KeyServer, failure
from tests.keys.support import Issuer, jwk, key_set_url
from tests.servers import serve

UNAVAILABLE = ["44" + compact(refusals.UNAVAILABLE)]
INVALID = ["44" + compact(refusals.INVALID)]


async def enter(client: Any, token: str) -> None:
    await client.send(connect(token))
    assert str(await within(client.receive())).startswith('40{"sid":')


async def test_the_keys_are_there_before_the_first_connection(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with serve(io) as url:
        assert server.count() == 1
        async with session(url, transport) as alice:
            await enter(alice, issuer.token())
            await echoes(alice)
        assert server.count() == 1


async def test_a_server_without_keys_does_not_start_and_says_why(server: KeyServer, issuer: Issuer) -> None:
    await server.kill()
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer, start_within=0.1)))
    failed, message = await _start(io)
    assert failed == "lifespan.startup.failed"
    assert server.jwks_url in message
    assert "cannot be reached" in message
    assert _background() == []


async def test_a_server_may_start_without_keys_and_refuses_until_there_are(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    answer = server.answers[KEYS]
    server.answers[KEYS] = failure(503)
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer, start_within=None)))
    async with serve(io) as url:
        await server.was_asked()
        async with session(url, transport) as alice:
            await alice.send(connect(issuer.token()))
            assert await said(alice) == UNAVAILABLE
        server.answers[KEYS] = answer
        issuer.clock.advance(2)
        async with session(url, transport) as alice:
            await enter(alice, issuer.token())


async def test_a_server_that_is_mounted_without_a_lifespan_begins_with_its_first_client(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer)))
    app = io.asgi()

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await app(scope, receive, send)

    async with serve(mounted, "uvicorn") as url:
        assert server.asked == []
        async with session(url, "websocket" if transport == "websocket" else "polling") as alice:
            await enter(alice, issuer.token())
        await io.shutdown()
    assert _background() == []


async def test_nothing_of_the_keys_outlives_the_server(server: KeyServer, issuer: Issuer) -> None:
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with serve(io):
        assert len(_background()) == 1
    assert _background() == []
    async with serve(io):  # And it can begin again.
        assert len(_background()) == 1


async def test_a_removed_key_ends_the_sockets_it_signed_and_no_others(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    """`revoke_removed`: with the key, what was signed with it counts no more."""
    server.publish(jwk("ES256"), jwk("ES384"))
    keys = key_set_url(server, issuer, revoke_removed=True)
    io = echo_server(auth=issuer.auth(keys))
    async with serve(io) as url, session(url, transport) as alice, session(url, transport) as bob:
        await enter(alice, issuer.token("ES256", sub="alice"))
        await enter(bob, issuer.token("ES384", sub="bob"))
        server.publish(jwk("ES384"))
        await keys.refresh()
        assert await hear(alice) == ("unauthorized", unauthorized(refusals.INVALID))
        await ends(alice)
        await echoes(bob)
        assert [socket.principal.subject for socket in await io.fetch_sockets()] == ["bob"]


async def test_sockets_stay_when_a_key_is_removed_unless_that_was_said(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    keys = key_set_url(server, issuer)
    io = echo_server(auth=issuer.auth(keys))
    async with serve(io) as url, session(url, transport) as alice:
        await enter(alice, issuer.token())
        server.publish(jwk("ES384"))
        await keys.refresh()
        await echoes(alice)


async def test_a_key_that_is_removed_while_hooks_run_lets_nobody_in(
    server: KeyServer, issuer: Issuer, transport: str
) -> None:
    keys = key_set_url(server, issuer, revoke_removed=True)
    io = echo_server(auth=issuer.auth(keys))
    asked, go_on = asyncio.Event(), asyncio.Event()

    @io.use
    async def slow(socket: Socket) -> None:
        asked.set()
        await go_on.wait()

    async with serve(io) as url, session(url, transport) as alice:
        await alice.send(connect(issuer.token()))
        await within(asked.wait())
        server.publish(jwk("ES384"))
        await keys.refresh()
        go_on.set()
        assert await said(alice) == INVALID


@pytest.mark.parametrize("end", ["revocation", "expiry"])
async def test_a_token_that_ends_while_its_key_is_read_lets_nobody_in(
    server: KeyServer, issuer: Issuer, transport: str, end: str
) -> None:
    """G11: what held before the key was read is looked at again after it."""
    io = echo_server(auth=issuer.auth(key_set_url(server, issuer)))
    async with serve(io) as url, session(url, transport) as alice:
        server.answers[KEYS] = server.stalled({"keys": [jwk("ES256"), jwk("ES384")]})
        await alice.send(connect(issuer.token("ES384", jti="t1", exp=issuer.clock.wall() + 5)))
        await server.was_asked(2)
        if end == "revocation":
            await io.revoke(token_id="t1")
        else:
            issuer.clock.advance(5)
        server.let_go()
        assert await said(alice) == ["44" + compact(refusals.REVOKED if end == "revocation" else refusals.EXPIRED)]
        assert await io.fetch_sockets() == []


async def test_a_key_server_that_is_slow_tells_nobody_to_sign_in(
    server: KeyServer, issuer: Issuer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the deadline of the verdict its client is told to come later, and it gets in when there is the key."""
    monkeypatch.setattr(refreshed, "PATIENCE", 0.05)
    keys = key_set_url(server, issuer)
    async with serve(echo_server(auth=issuer.auth(keys))) as url:
        server.answers[KEYS] = server.stalled({"keys": [jwk("ES256"), jwk("ES384")]})
        async with session(url, transport) as alice:
            await alice.send(connect(issuer.token("ES384")))
            assert await said(alice) == UNAVAILABLE
        server.let_go()
        await keys.refresh()
        async with session(url, transport) as alice:
            await enter(alice, issuer.token("ES384"))


async def test_a_bound_token_lets_nobody_in(
    server: KeyServer, issuer: Issuer, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which setting would accept it; and with that it is a token like any other."""
    caplog.set_level("INFO", "iogate")
    bound = issuer.token(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
    async with (
        serve(echo_server(auth=issuer.auth(key_set_url(server, issuer)))) as url,
        session(url, transport) as mallory,
    ):
        await mallory.send(connect(bound))
        assert await said(mallory) == INVALID
    assert "accept_bound_tokens=True" in caplog.text
    auth = issuer.auth(key_set_url(server, issuer), accept_bound_tokens=True)
    async with serve(echo_server(auth=auth)) as url, session(url, transport) as alice:
        await enter(alice, bound)


async def test_rotation_refuses_nobody(server: KeyServer, issuer: Issuer, transport: str) -> None:
    """The new key is published, then used, and the old one is removed when its last token has ended."""
    keys = key_set_url(server, issuer, revoke_removed=True)
    io = echo_server(auth=issuer.auth(keys))
    async with serve(io) as url, session(url, transport) as alice, session(url, transport) as bob:
        await enter(alice, issuer.token("ES256"))
        server.publish(jwk("ES256"), jwk("ES384"))
        await enter(bob, issuer.token("ES384", sub="bob"))  # Its key is found by the first token that names it.
        async with session(url, transport) as carol:
            await enter(carol, issuer.token("ES256", sub="carol"))
        await alice.send(authenticate(issuer.token("ES384")))
        assert (await hear(alice))[0] == "authenticated"
        server.publish(jwk("ES384"))
        await keys.refresh()
        await echoes(alice)
        await echoes(bob)
        assert server.count() == 3


async def _start(io: Server) -> tuple[str, str]:
    """Run the beginning of the lifespan, and return what became of it."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(Exception, match="no keys"):
        await io.asgi()({"type": "lifespan"}, receive, send)
    (message,) = sent
    return message["type"], message["message"]


def _background() -> list[str]:
    """Return what keeps keys fresh in this event loop."""
    return [task.get_name() for task in asyncio.all_tasks() if "_keep_fresh" in repr(task.get_coro())]
