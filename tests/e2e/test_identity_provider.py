"""A real identity provider (npm's oidc-provider) beside a real server: its tokens, and who signs out there."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from iogate import BackChannelLogout, JWTAuth, Server, Socket
from tests.conformance.wire import client
from tests.e2e.provider import AUDIENCE, CLIENT_ID, Provider, provider
from tests.e2e.test_python_client import client as connected
from tests.refusals import REVOKED
from tests.servers import serve

WITHIN = 5  # seconds
PATH = "/backchannel-logout"


async def published(running: Provider) -> dict[str, dict[str, Any]]:
    """Return the provider's keys by their `kid`, as a server would find them."""
    async with client(running.issuer) as http:
        document = (await http.get("/.well-known/openid-configuration")).json()
        assert document["issuer"] == running.issuer
        keys = (await http.get(document["jwks_uri"])).json()["keys"]
    return {key["kid"]: key for key in keys}


def claims(token: str) -> dict[str, Any]:
    """Read a token that needs no check: it comes from the provider."""
    body: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return body


def make_server(running: Provider, key: dict[str, Any]) -> Server:
    auth = JWTAuth(public_key=key, algorithms=[key["alg"]], issuer=running.issuer, audience=AUDIENCE)
    io = Server(auth=auth)
    io.on("echo", lambda socket, text: text)
    return io


async def test_keys_are_published_used_and_removed_while_the_provider_runs() -> None:
    async with provider() as running:
        assert set(await published(running)) == {"rs-1"}
        await running.add_key("es-1", "ES256")
        keys = await published(running)
        assert {kid: key["alg"] for kid, key in keys.items()} == {"rs-1": "RS256", "es-1": "ES256"}
        assert all("d" not in key for key in keys.values())
        for kid in ("rs-1", "es-1"):
            await running.sign_with(kid)
            auth = JWTAuth(public_key=keys[kid], algorithms=[keys[kid]["alg"]], issuer=running.issuer)
            principal = auth.verify(await running.machine_token())
            assert (principal.subject, principal.key_id, principal.audience) == ("machine", kid, (AUDIENCE,))
            assert principal.scopes == {"chat:read", "chat:write"}
        await running.remove_key("rs-1")
        assert set(await published(running)) == {"es-1"}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_who_signs_out_at_the_provider_is_out_here(algorithm: str, transports: list[str]) -> None:
    """The session that is signed out ends, told why; another session of the same person goes on."""
    gone: asyncio.Queue[str] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    async with provider() as running, asyncio.timeout(3 * WITHIN):
        if algorithm == "ES256":
            await running.add_key("es-1", algorithm)
            await running.sign_with("es-1")
        [key] = [key for key in (await published(running)).values() if key["alg"] == algorithm]
        io = make_server(running, key)

        @io.on("disconnect")
        async def leave(socket: Socket, reason: str) -> None:
            gone.put_nowait(socket.claims["sid"])

        logout = BackChannelLogout(io, issuer=running.issuer, audience=CLIENT_ID)
        async with serve(io.asgi(logout)) as url:
            await running.send_logouts_to(url + PATH)
            async with (
                running.sign_in("ann") as here,
                running.sign_in("ann") as elsewhere,
                connected(url, transports, auth={"token": here.access_token}) as peer,
                connected(url, transports, auth={"token": elsewhere.access_token}) as other,
            ):
                peer.on("unauthorized", told.put_nowait)
                await here.sign_out()
                assert (await told.get())["data"] == REVOKED["data"]
                assert await gone.get() == claims(here.id_token)["sid"]
                assert await other.call("echo", "still here") == "still here"
                assert gone.empty()
        await io.shutdown(timeout=1.0)
