"""Rows 42, 43 and 47 for requests: REST endpoints, WebSockets beside Socket.IO, and back-channel logout."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
import websockets
from fastapi import Depends, FastAPI, WebSocket
from starlette.routing import Route

from iogate import Clock, RevokedToken, Server
from iogate.http import BackChannelLogout, Guard, HTTPRequest
from iogate.http.fastapi import require
from iogate.http.logout import BAD_ALLOWED
from iogate.server.session.handshake import Handshake
from tests.conformance.wire import within
from tests.gate.support import make_auth
from tests.http.test_backchannel_logout import CLIENT, ISSUER, logout_token
from tests.servers import make_token, serve

LOGOUT = "/backchannel-logout"


class _Still(Clock):
    """Nothing is forgiven while a test runs."""

    def monotonic(self) -> float:
        return 1000.0


async def test_bad_logouts_from_the_address_of_the_provider_keep_none_of_its_own_out() -> None:
    """Row 42: they are answered 429, and a token that verifies ends the session at once all the same."""
    io = Server(auth=make_auth(clock=_Still()))
    web = FastAPI()
    web.routes.append(Route(LOGOUT, BackChannelLogout(io, issuer=ISSUER, audience=CLIENT)))
    async with serve(io.asgi(web)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        bad = {"logout_token": logout_token(sub="ann", secret="z" * 40)}
        for _ in range(BAD_ALLOWED):
            assert (await http.post(LOGOUT, data=bad)).status_code == 400
        assert (await http.post(LOGOUT, data=bad)).status_code == 429
        assert (await http.post(LOGOUT, data={"logout_token": logout_token(sub="ann")})).status_code == 200


async def test_a_token_that_is_revoked_while_its_user_is_loaded_runs_no_endpoint() -> None:
    """Row 43: the identity is checked again after `load_user` has waited."""
    auth, ran = make_auth(), False
    io = Server(auth=auth)

    @auth.load_user
    async def load(claims: Mapping[str, Any]) -> str:
        await io.revoke(subject=claims["sub"])
        return "ann"

    web = FastAPI()

    @web.get("/", dependencies=[Depends(require(auth))])
    async def endpoint() -> None:
        nonlocal ran
        ran = True

    async with serve(io.asgi(web)) as url, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url, headers={"authorization": f"Bearer {make_token()}"})
    assert (answer.status_code, ran) == (401, False)


async def test_a_websocket_whose_token_is_revoked_gives_its_endpoint_no_message() -> None:
    """Row 43: it is closed, and what the client sends at that moment reaches nobody."""
    auth = make_auth()
    io, web = Server(auth=auth), FastAPI()
    came: list[str] = []
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @web.websocket("/own", dependencies=[Depends(require(auth))])
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        while (message := await websocket.receive())["type"] == "websocket.receive":
            came.append(message["text"])
            await websocket.send_text("")
        ended.set_result(message["code"])

    async with serve(io.asgi(web)) as url:
        headers = {"authorization": f"Bearer {make_token()}"}
        async with websockets.connect(
            f"{url.replace('http', 'ws')}/own", additional_headers=headers, proxy=None
        ) as peer:
            await peer.send("before")
            assert await within(peer.recv()) == ""
            revoking = asyncio.create_task(io.revoke(subject="ann"))
            await peer.send("after")
            await revoking
            assert await within(ended) == 1008
    assert came[:1] == ["before"]
    assert len(came) <= 2  # What was read before `revoke` began may have been handled.


async def test_what_a_request_says_is_logged_escaped_and_not_at_length(caplog: pytest.LogCaptureFixture) -> None:
    """Row 47: the path of a refused request, and an address that a proxy was told."""
    caplog.set_level(logging.INFO, "iogate")
    auth = make_auth()
    io = Server(auth=auth)
    await io.revoke(token_id="1")
    head = [(b"authorization", f"Bearer {make_token(jti='1')}".encode())]
    handshake = Handshake(head, path="/\r\nroot logged in" + "x" * 10_000, address="\x1b[2J" + "y" * 10_000)
    with pytest.raises(RevokedToken):
        await Guard(auth).check(HTTPRequest(handshake, "GET"))
    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert line.isprintable()
    assert len(line) < 600
