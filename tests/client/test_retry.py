"""What both clients do for each code of the wire contract: they follow its `retry`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import socketio

from iogate import Refused, Socket
from iogate.client import ConnectionRefused
from iogate.client.policy import Retry
from tests.client.peers import WITHIN, Kind, Source, client, world
from tests.client.silent import answering
from tests.client.test_clients import lose

CODES: list[tuple[str, str, Retry]] = [
    ("credentials_required", "No authorization token was found", "login"),
    ("credentials_bad_scheme", "Format is Authorization: Bearer [token]", "never"),
    ("credentials_bad_format", "Format is Authorization: Bearer [token]", "never"),
    ("invalid_token", "jwt expired", "refresh"),
    ("invalid_token", "invalid token", "login"),
    ("revoked_token", "The token has been revoked", "login"),
    ("insufficient_scope", "Insufficient scope", "never"),
    ("timeout", "Authentication timed out", "login"),
    ("too_many", "Too many attempts", "later"),
    ("unavailable", "Authentication is unavailable", "later"),
]
AFTER_THREE: dict[Retry, list[str]] = {
    # What is asked for after three refusals with the same `retry`, before the server accepts the client.
    "later": ["reconnect", "reconnect", "reconnect"],
    "refresh": ["expired", "expired", "expired"],
    "login": ["login"],
    "never": [],
}


def refuse(code: str, message: str, retry: Retry) -> Refused:
    data = {"message": message, "code": code, "type": "UnauthorizedError", "retry": retry}
    return Refused(message, data=data)


@pytest.mark.parametrize(("code", "message", "retry"), CODES)
async def test_a_client_that_was_in_follows_the_code_on_its_way_back(
    kind: Kind, code: str, message: str, retry: Retry
) -> None:
    """With `later` it backs off and comes again, however often; it never stops or asks the person to sign in."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        refusals = 0

        @place.io.use
        def decide(socket: Socket) -> None:
            nonlocal refusals
            if 0 < refusals <= 3:
                refusals += 1
                raise refuse(code, message, retry)

        await peer.do("connect", place.url)
        await peer.hear("connect")
        refusals = 1
        lose(place.io)
        if retry in {"later", "refresh"}:
            await peer.hear("connect")
            assert peer.client.refusal is None
            assert peer.count("login_required") == 0
        else:
            await peer.hear("disconnect")
            await peer.rests()
            assert peer.client.refusal is not None
            assert peer.client.refusal.code == code
            if retry == "login":
                await peer.hear("login_required")
            else:
                assert peer.count("login_required") == 0
        assert source.reasons == ["connect", "reconnect", *AFTER_THREE[retry]]


@pytest.mark.parametrize(("code", "message", "retry"), CODES)
async def test_a_patient_connect_follows_the_code(kind: Kind, code: str, message: str, retry: Retry) -> None:
    """The first connect with `retry=True` does the same."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        refusals = 0

        @place.io.use
        def decide(socket: Socket) -> None:
            nonlocal refusals
            refusals += 1
            if refusals <= 3:
                raise refuse(code, message, retry)

        connecting = peer.do("connect", place.url, retry=True)
        if retry in {"later", "refresh"}:
            await connecting
        else:
            with pytest.raises(ConnectionRefused) as refused:
                await connecting
            assert refused.value.retry == retry
        asked = ["connect" if reason == "reconnect" else reason for reason in AFTER_THREE[retry]]
        assert source.reasons == ["connect", *asked]


@pytest.mark.parametrize(("code", "message", "retry"), CODES)
async def test_a_refresh_follows_the_code(kind: Kind, code: str, message: str, retry: Retry) -> None:
    """With `later` and `refresh` it is tried again on the live connection; with the others the connection lives on."""
    async with world() as place, client(kind, source := Source(place.tokens)) as peer:
        loads = 0

        @place.auth.load_user
        def load_user(claims: Any) -> str:
            nonlocal loads
            loads += 1
            if 2 <= loads <= 4:
                raise refuse(code, message, retry)
            return str(claims["sub"])

        await peer.do("connect", place.url)
        await place.until_next()
        if retry in {"later", "refresh"}:
            await peer.hear("token_refreshed")
            assert source.reasons == ["connect", *["expiring"] * 4]
        else:
            [refusal] = await peer.hear("token_refresh_failed")
            assert refusal.retry == retry
            assert source.reasons == ["connect", "expiring"]
        assert await peer.do("call", "whoami") == "alice"
        assert peer.count("disconnect") == 0
        assert peer.count("login_required") == 0


@pytest.mark.parametrize(
    ("status", "code", "retry"),
    [(401, "unavailable", "later"), (429, "too_many", "later"), (503, "unavailable", "later")],
)
async def test_a_refusal_in_the_answer_to_the_first_request_is_followed(
    kind: Kind, status: int, code: str, retry: str
) -> None:
    """Before Socket.IO is reached: the same `data` is the body, as JSON."""
    body = json.dumps({"message": "m", "code": code, "type": "UnauthorizedError", "retry": retry})
    reasons: list[str] = []

    def get_token(reason: str) -> str:
        reasons.append(reason)
        return "token"

    async with answering(body, status, "application/json") as (url, heads), client(kind, get_token) as peer:
        with pytest.raises(ConnectionRefused) as refused:
            await peer.do("connect", url)
        assert (refused.value.retry, refused.value.refusal.code) == (retry, code)
        connecting = asyncio.create_task(peer.do("connect", url, retry=True))
        async with asyncio.timeout(WITHIN):
            for _ in range(4):
                await heads.get()
        await peer.do("disconnect")
        with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
            await connecting
        assert set(reasons) == {"connect"}


@pytest.mark.parametrize(
    ("body", "content_type"), [("{not json", "application/json"), ("busy", "text/html"), ("", "a/b")]
)
@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_of_something_else_is_the_network(
    kind: Kind, body: str, content_type: str, status: int
) -> None:
    """A proxy that answers nonsense for a while does not stop the client."""
    reasons: list[str] = []

    def get_token(reason: str) -> str:
        reasons.append(reason)
        return "token"

    async with answering(body, status, content_type) as (url, heads), client(kind, get_token) as peer:
        connecting = asyncio.create_task(peer.do("connect", url, retry=True))
        async with asyncio.timeout(WITHIN):
            for _ in range(3):
                await heads.get()
        assert not connecting.done()
        await peer.do("disconnect")
        with pytest.raises(socketio.exceptions.ConnectionError, match="Disconnected"):
            await connecting
        assert set(reasons) == {"connect"}
