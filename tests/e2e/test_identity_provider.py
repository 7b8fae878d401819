"""A real identity provider (npm's oidc-provider) and a real server: its tokens, its keys, and who signs out there."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from iogate import BackChannelLogout, Discovery, JWTAuth, Server, Socket
from iogate.testing import FakeClock
from tests.conformance.wire import client as http_client
from tests.e2e.official import call, connect, of, run_client, wait
from tests.e2e.provider import AUDIENCE, CLIENT_ID, Provider, provider
from tests.e2e.test_python_client import client as connected
from tests.e2e.test_python_client import refusal_of
from tests.refusals import INVALID, REVOKED, UNAVAILABLE
from tests.servers import serve

WITHIN = 15  # seconds
PATH = "/backchannel-logout"
COOLDOWN = 30  # seconds, of the clock of the keys


class Chat:
    """The provider, and a server that finds its keys by discovery. The clock of the keys stands still."""

    def __init__(self, running: Provider, **settings: Any) -> None:
        self.provider = running
        self.clock = FakeClock()
        self.keys = Discovery(running.issuer, network="loopback", cooldown=COOLDOWN, clock=self.clock, **settings)
        auth = JWTAuth(keys=self.keys, algorithms=["RS256", "ES256"], audience=AUDIENCE, profile="access-token")
        self.io = Server(auth=auth)
        self.io.on("echo", lambda socket, text: text)
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.io.on("disconnect", lambda socket, reason: self.left.put_nowait(socket.claims["jti"]))
        self.url = ""

    async def takes(self, token: str, transports: list[str]) -> None:
        """Make sure that somebody who comes with this token is let in and served."""
        async with connected(self.url, transports, auth={"token": token}) as peer:
            assert await peer.call("echo", "hello") == "hello"

    async def refuses(self, token: str, transports: list[str]) -> None:
        """Make sure that a client with this token is told that it is not valid, and no more."""
        assert await refusal_of(self.url, transports, {"token": token}) == INVALID

    async def delays(self, token: str, transports: list[str]) -> None:
        """Make sure that a client with this token is told to come later: its key may be a new one."""
        assert await refusal_of(self.url, transports, {"token": token}) == UNAVAILABLE


@asynccontextmanager
async def chat(**settings: Any) -> AsyncIterator[Chat]:
    """Run both."""
    async with asyncio.timeout(WITHIN), provider() as running:
        server = Chat(running, **settings)
        logout = BackChannelLogout(server.io, issuer=running.issuer, audience=CLIENT_ID)
        async with serve(server.io.asgi(logout)) as server.url:
            yield server
            await server.io.shutdown(timeout=1.0)


def claims(token: str) -> dict[str, Any]:
    """Read a token that needs no check: it comes from the provider."""
    body: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return body


async def published(running: Provider) -> dict[str, str]:
    """Return the algorithms of the provider's keys by their `kid`."""
    async with http_client(running.issuer) as http:
        document = (await http.get("/.well-known/openid-configuration")).json()
        assert document["issuer"] == running.issuer
        keys = (await http.get(document["jwks_uri"])).json()["keys"]
    assert all("d" not in key for key in keys)
    return {key["kid"]: key["alg"] for key in keys}


async def test_the_provider_publishes_uses_and_removes_keys_while_it_runs() -> None:
    async with provider() as running:
        assert await published(running) == {"rs-1": "RS256"}
        await running.add_key("es-1", "ES256")
        assert await published(running) == {"rs-1": "RS256", "es-1": "ES256"}
        await running.sign_with("es-1")
        await running.remove_key("rs-1")
        assert await published(running) == {"es-1": "ES256"}


async def test_its_tokens_are_accepted_whichever_of_its_keys_signs_them(transports: list[str]) -> None:
    """Those of programs and those of people; the official client shows them too."""
    async with chat() as server:
        seen: list[Socket] = []
        server.io.on("connect", seen.append)
        for kid, algorithm in {"rs-1": "RS256", "es-1": "ES256"}.items():
            if kid == "es-1":
                await server.provider.add_key(kid, algorithm)
                await server.provider.sign_with(kid)
            await server.takes(await server.provider.machine_token(), transports)
            async with server.provider.sign_in("ann") as ann:
                lines = await run_client(
                    server.url,
                    connect(auth={"token": ann.access_token}),
                    wait("connect"),
                    call("echo", "hello"),
                    transports=transports,
                )
                assert [line["args"] for line in of(lines, "ack")] == [["hello"]]
            machine, person = (socket.principal for socket in seen[-2:])
            assert machine is not None
            assert person is not None
            assert (machine.subject, person.subject) == ("machine", "ann")
            assert machine.key_id == person.key_id == kid
            assert machine.scopes == person.scopes == {"chat:read", "chat:write"}


async def test_keys_rotate_without_one_refused_user() -> None:
    """Whether a key is published before it signs or not; people come in all the while, with old tokens and new."""
    transports = ["websocket"]
    async with chat() as server, AsyncExitStack() as stack:
        first = await server.provider.machine_token()
        here = await stack.enter_async_context(connected(server.url, transports, auth={"token": first}))

        # Unannounced: the server has not heard of the key when the first tokens come.
        await server.provider.add_key("es-1", "ES256")
        await server.provider.sign_with("es-1")
        second = await server.provider.machine_token()
        await asyncio.gather(*(server.takes(token, transports) for token in [first, second] * 5))

        # Announced, while the last fetch for an unknown key is too recent for another.
        await server.provider.add_key("rs-2", "RS256")
        await server.keys.refresh()
        await server.provider.sign_with("rs-2")
        third = await server.provider.machine_token()
        await asyncio.gather(*(server.takes(token, transports) for token in [first, second, third] * 4))

        # The old ones go. Who is in stays: the key was not removed because it was stolen.
        await server.provider.remove_key("rs-1")
        await server.provider.remove_key("es-1")
        await server.keys.refresh()
        await asyncio.gather(
            *(server.takes(third, transports) for _ in range(5)),
            # The key of the second was asked for when the token was first shown, so it is known to be gone.
            server.delays(first, transports),
            server.refuses(second, transports),
        )
        server.clock.advance(COOLDOWN)
        await server.refuses(first, transports)
        assert await here.call("echo", "still here") == "still here"


async def test_a_new_key_is_asked_for_once_a_cooldown(transports: list[str]) -> None:
    async with chat() as server:
        await server.provider.add_key("rs-2", "RS256")
        await server.provider.sign_with("rs-2")
        await server.takes(await server.provider.machine_token(), transports)
        await server.provider.add_key("rs-3", "RS256")
        await server.provider.sign_with("rs-3")
        token = await server.provider.machine_token()
        await server.delays(token, transports)
        server.clock.advance(COOLDOWN)
        await server.takes(token, transports)


async def test_a_removed_key_ends_the_sockets_whose_tokens_it_signed_if_so_configured(transports: list[str]) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()
    async with chat(revoke_removed=True) as server:
        await server.provider.add_key("es-1", "ES256")
        await server.keys.refresh()
        old = await server.provider.machine_token()
        await server.provider.sign_with("es-1")
        new = await server.provider.machine_token()
        async with (
            connected(server.url, transports, auth={"token": old}) as leaving,
            connected(server.url, transports, auth={"token": new}) as staying,
        ):
            leaving.on("unauthorized", told.put_nowait)
            await server.provider.remove_key("rs-1")
            await server.keys.refresh()
            assert (await told.get())["data"] == INVALID["data"]
            assert await server.left.get() == claims(old)["jti"]
            assert await staying.call("echo", "still here") == "still here"
            assert server.left.empty()
        await server.refuses(old, transports)


async def test_a_provider_that_is_down_is_not_noticed(transports: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Who is in stays, and who comes is let in by the keys that were read last, as long as they may be kept."""
    caplog.set_level(logging.INFO, "iogate")
    async with chat(keep_for=3600) as server:
        token = await server.provider.machine_token()
        async with connected(server.url, transports, auth={"token": token}) as peer:
            await server.provider.kill()
            await server.keys.refresh()
            await server.takes(token, transports)
            server.clock.advance(3600)
            await server.takes(token, transports)
            server.clock.advance(1)
            assert await refusal_of(server.url, transports, {"token": token}) == UNAVAILABLE
            assert await peer.call("echo", "still here") == "still here"
    assert "could not be read" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_who_signs_out_at_the_provider_is_out_here(algorithm: str, transports: list[str]) -> None:
    """The session that is signed out ends, told why; another session of the same person goes on."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    async with chat() as server, AsyncExitStack() as stack:
        if algorithm == "ES256":
            await server.provider.add_key("es-1", algorithm)
            await server.provider.sign_with("es-1")
        await server.provider.send_logouts_to(server.url + PATH)
        here, elsewhere = [await stack.enter_async_context(server.provider.sign_in("ann")) for _ in range(2)]
        assert claims(here.access_token)["sid"] == claims(here.id_token)["sid"]
        async with (
            connected(server.url, transports, auth={"token": here.access_token}) as peer,
            connected(server.url, transports, auth={"token": elsewhere.access_token}) as other,
        ):
            peer.on("unauthorized", told.put_nowait)
            await here.sign_out()
            assert (await told.get())["data"] == REVOKED["data"]
            assert await server.left.get() == claims(here.access_token)["jti"]
            assert await other.call("echo", "still here") == "still here"
            assert server.left.empty()
        assert await refusal_of(server.url, transports, {"token": here.access_token}) == REVOKED
