"""The endpoint of OpenID Connect Back-Channel Logout 1.0: who signs out at the issuer is out here too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from iogate.asgi_types import Receive, Scope, Send
from iogate.auth import JWTAuth
from iogate.auth.logout import LOGOUT_TYPES, Logout, LogoutRules, Replays
from iogate.errors import AuthError, ConfigurationError, InvalidToken

if TYPE_CHECKING:
    from iogate.server.server import Server

logger = logging.getLogger("iogate")

FORM = "application/x-www-form-urlencoded"
MAX_BODY = 16 * 1024
"""Bytes of a request that are read. A logout token has less than two thousand."""
MAX_FIELDS = 20
"""Parameters of a form. One counts, and others are allowed (section 2.5)."""
RETRY_AFTER = 5
"""Seconds after which the issuer may try again when it is this server that failed."""


class BackChannelLogout:
    """End the sockets of who signs out at the OpenID provider: an ASGI application to be mounted under one path.

    That path is what is registered at the provider as `backchannel_logout_uri`. With Starlette or FastAPI:

        logout = BackChannelLogout(io, issuer="https://id.example.com", audience="my-client-id")
        web.routes.append(Route("/backchannel-logout", logout))     # starlette.routing.Route
        app = io.asgi(web)

    (Not `mount`: it answers the path without a slash at the end with a redirect, which providers do not follow.) Or
    alone, under every path that is not the server's: `app = io.asgi(logout)`.

    A token with `sid` ends that session, one with `sub` alone all of that person. Either is compared with the claim of
    the same name in the access tokens of the sockets, and `iss` with theirs: if the provider does not put `sid` into
    access tokens, say `sessions=False`, and each logout ends all of the person.

    The provider is answered 200 when the sockets have ended and the revocation is kept; 400 if the request is not a
    good one; 503 if the revocation could not be kept, so that it comes again (the specification knows only 400 for
    that too, with which a provider would give up). Nothing tells a caller what is wrong with a token: the log does.

    Args:
        io: the server whose sockets are ended.
        issuer: the one accepted `iss`.
        audience: the client id that the application has at the provider: `aud` must have it.
        auth: what checks signatures; that of `io` unless said otherwise.
        sessions: whether the access tokens say which session they are of, in `sid`.
        leeway: seconds by which the clocks of provider and server may differ, at most 300.
        require_exp: whether a logout token must have `exp`. Providers older than 2023 may leave it out; then it counts
            for ten minutes from `iat`, as any other does at most.

    Raises:
        ConfigurationError: an argument is not sound, or there is nothing to check signatures with.
    """

    __slots__ = ("_auth", "_io", "_replays", "_rules", "_sessions")

    def __init__(
        self,
        io: Server,
        *,
        issuer: str,
        audience: str,
        auth: JWTAuth | None = None,
        sessions: bool = True,
        leeway: float = 30,
        require_exp: bool = True,
    ) -> None:
        found = auth if auth is not None else io.auth
        if not isinstance(found, JWTAuth):
            raise ConfigurationError(
                "the server has no JWTAuth to check logout tokens with: give one, auth=JWTAuth(...)"
            )
        self._auth = found
        self._io = io
        self._rules = LogoutRules(issuer, audience, leeway=leeway, require_exp=require_exp)
        self._replays = Replays()
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI says."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # The ASGI server answers 403.
        elif scope["type"] != "http":
            raise NotImplementedError(f"there is nothing to do here for {scope['type']!r}")
        elif scope["method"] != "POST":
            await _refuse(send, 405, "POST a logout token", (b"allow", b"POST"))
        elif _media_type(scope) != FORM:
            await _refuse(send, 415, f"the content type is {FORM}")
        else:
            await self._post(receive, send)

    async def _post(self, receive: Receive, send: Send) -> None:
        try:
            token = _logout_token(await _body(receive))
        except _TooLarge:
            await _refuse(send, 413, "the request is too large")
            return
        except ValueError:
            await _refuse(send, 400, "the form has exactly one logout_token")
            return
        except _Gone:
            return
        try:
            logout = await self._verified(token)
        except AuthError as error:
            logger.info("back-channel logout refused: %s", error)
            await _refuse(send, 400, "the logout token is not valid")
            return
        try:
            await self._carry_out(logout)
        except Exception:
            logger.exception("back-channel logout: the revocation could not be kept")
            retry = (b"retry-after", b"%d" % RETRY_AFTER)
            await _refuse(send, 503, "the logout could not be completed: try again", retry, code="server_error")
            return
        # Only now: the provider may come again with the same token if it was not carried out.
        self._replays.add(logout, self._auth.clock.wall())
        await _answer(send, 200, b"")

    async def _verified(self, token: str) -> Logout:
        """Return what a logout token asks for, or raise an `AuthError`."""
        claims = await self._auth.signed(token, LOGOUT_TYPES)
        logout = self._rules.check(claims, self._auth.clock.wall())
        self._replays.check(logout)
        if not self._sessions and logout.subject is None:
            raise InvalidToken("the token has only a sid, and the access tokens have none")
        return logout

    async def _carry_out(self, logout: Logout) -> None:
        if logout.session_id is not None and self._sessions:
            await self._io.revoke(session_id=logout.session_id, issuer=logout.issuer)
        else:
            await self._io.revoke(subject=logout.subject, issuer=logout.issuer)


class _TooLarge(Exception):
    """There is more of a request than is read."""


class _Gone(Exception):
    """The client has gone before its request was complete."""


def _media_type(scope: Scope) -> str:
    """Return the content type in lower case without its parameters; nothing if there is none, or several."""
    found = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    return found[0].decode("latin-1").partition(";")[0].strip().lower() if len(found) == 1 else ""


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _TooLarge
        more = message.get("more_body", False)
    return bytes(body)


def _logout_token(body: bytes) -> str:
    """Return the one logout token in a form, or raise a `ValueError`."""
    fields = parse_qsl(
        body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
    )
    (token,) = (value for name, value in fields if name == "logout_token")
    return token


async def _refuse(
    send: Send, status: int, description: str, *headers: tuple[bytes, bytes], code: str = "invalid_request"
) -> None:
    """Answer with the error object of OAuth 2.0 (RFC 6749, section 5.2), as section 2.8 allows."""
    body = msgspec.json.encode({"error": code, "error_description": description})
    await _answer(send, status, body, (b"content-type", b"application/json"), *headers)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fields = [*headers, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
