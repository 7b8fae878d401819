"""The endpoint of OpenID Connect Back-Channel Logout 1.0: a logout at the issuer ends the sockets of the user here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from iogate.asgi_types import Receive, Scope, Send
from iogate.auth import JWTAuth
from iogate.auth.logout import LOGOUT_TYPES, Logout, LogoutRules, Replays
from iogate.errors import AuthError, AuthUnavailable, ConfigurationError, InvalidToken
from iogate.http.body import BODY_TIMEOUT, may_say_close
from iogate.http.limits import BadRequests, Displaced, OpenRequests
from iogate.http.refusals import RefusalLog, shown
from iogate.keys.fixed import NO_KEY
from iogate.keys.issuers import Issuers
from iogate.keys.refreshed import Refreshed
from iogate.server.server import Server, core_of
from iogate.server.session.handshake import Handshake

logger = logging.getLogger("iogate")

FORM = "application/x-www-form-urlencoded"
MAX_BODY = 16 * 1024
"""Maximum size of a request body in bytes. A logout token has less than 2000."""
MAX_FIELDS = 20
"""Maximum number of parameters in a form. Only `logout_token` is used; others are allowed (section 2.5)."""
RETRY_AFTER = 5
"""Seconds after which the issuer may retry a request that was answered 429 or 503."""
VERIFY_TIMEOUT = 10.0
"""Seconds for the verdict on a logout token, including the time to read keys."""
KEY_PAUSE = 5.0
"""Seconds between two reads of the issuer's keys that are caused by logout tokens with an unknown key."""
MAX_OPEN = 1000
"""Requests that are read or verified at a time. Above that, the oldest one of the busiest source is answered 429."""
BAD_ALLOWED = 20
"""Bad requests that an address may send at once. Further bad ones are answered 429; valid ones are always accepted."""
BAD_REFILL = 0.5
"""Bad requests per second that an address may send after that."""
_RETRY = (b"retry-after", b"%d" % RETRY_AFTER)


class BackChannelLogout:
    """Disconnect users who log out at the OpenID provider: an ASGI application for one path.

    Register the URL of that path at the provider as `backchannel_logout_uri`. With Starlette or FastAPI:

        logout = BackChannelLogout(io, issuer="https://id.example.com", audience="my-client-id")
        web.routes.append(Route("/backchannel-logout", logout))     # starlette.routing.Route
        app = io.asgi(web)

    Do not use `mount`: it answers the path without a trailing slash with a redirect, which providers do not follow. To
    serve nothing else, use `app = io.asgi(logout)`, which handles every path that is not the server's.

    A token with `sid` ends that session. A token with only `sub` ends all sessions of that user. The claim is compared
    with the claim of the same name in the access tokens of the sockets, and `iss` with their `iss`. If the provider
    does not put `sid` into access tokens, set `sessions=False`; each logout then ends all sessions of the user.

    The endpoint answers the provider with 200 when the sockets have ended and the revocation is stored; with 400 if the
    request is not valid; with 503 if the revocation could not be stored or the keys could not be read, so that the
    provider retries. (The specification uses 400 for that too, but a provider would then give up.) The response does
    not say what is wrong with a token. The log does, once per address and reason, and then as a count per minute.

    Any client can send requests to this endpoint, so their cost is limited. A body must arrive within five seconds, at
    most 1000 requests are open at a time, and an address that sends many bad requests is answered 429. A valid token is
    always accepted, even if its address has sent many bad requests. Unknown keys cause at most one read of the keys
    every five seconds, independent of the `cooldown` for access tokens.

    Args:
        io: the server whose sockets are disconnected.
        issuer: the only accepted `iss`.
        audience: the client id of the application at the provider; `aud` must contain it.
        auth: verifies the signatures; by default the `auth` of `io`.
        sessions: True if the access tokens contain the id of their session in `sid`.
        leeway: seconds by which the clocks of provider and server may differ, at most 300.
        require_exp: True if a logout token must have `exp`. Providers from before 2023 may omit it. A logout token is
            valid for at most ten minutes from `iat`, with or without `exp`.

    Raises:
        ConfigurationError: an argument is not valid, or there is no `JWTAuth` to verify signatures with.
    """

    __slots__ = (
        "_auth",
        "_bad",
        "_io",
        "_keys",
        "_log",
        "_open",
        "_read_at",
        "_reading",
        "_readings",
        "_replays",
        "_rules",
        "_sessions",
    )

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
        found = auth if auth is not None else core_of(io).auth
        if not isinstance(found, JWTAuth):
            raise ConfigurationError(
                "the server has no JWTAuth to check logout tokens with: give one, auth=JWTAuth(...)"
            )
        known = getattr(core_of(io).auth, "issuers", None)
        if known is not None and issuer not in known:
            raise ConfigurationError(
                f"issuer is {issuer!r}, whose tokens the server does not accept: a logout there would end no socket"
            )
        self._auth = found
        self._io = io
        self._rules = LogoutRules(issuer, audience, leeway=leeway, require_exp=require_exp)
        self._replays = Replays()
        self._sessions = sessions
        keys = found.keys.sources.get(issuer) if isinstance(found.keys, Issuers) else found.keys
        self._keys = keys if isinstance(keys, Refreshed) else None
        self._reading: asyncio.Task[None] | None = None
        self._readings = 0
        self._read_at = -KEY_PAUSE
        self._open = OpenRequests(MAX_OPEN)
        self._bad = BadRequests(BAD_ALLOWED, BAD_REFILL, found.clock)
        self._log = RefusalLog("back-channel logout", found.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI).

        Raises:
            NotImplementedError: the scope is neither "http" nor "websocket".
        """
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # The ASGI server answers 403.
        elif scope["type"] != "http":
            raise NotImplementedError(f"there is nothing to do here for {scope['type']!r}")
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        address = core_of(self._io).proxies.client(client[0] if client else None, Handshake(scope["headers"]).headers)
        if scope["method"] != "POST":
            allow = (b"allow", b"POST")
            await self._reject(send, address, 405, "POST a logout token", "bad_method", allow)
        elif _media_type(scope) != FORM:
            await self._reject(send, address, 415, f"the content type is {FORM}", "bad_content_type")
        else:
            close = [(b"connection", b"close")] if may_say_close(scope) else []
            await self._post(address, receive, send, close)

    async def _post(self, address: str | None, receive: Receive, send: Send, close: list[tuple[bytes, bytes]]) -> None:
        read = False
        try:
            async with self._open.open(address, BODY_TIMEOUT) as deadline:
                token = _logout_token(await _body(receive))
                read = True
                deadline.reschedule(asyncio.get_running_loop().time() + VERIFY_TIMEOUT)
                logout = await self._verified(token)
        except _Gone:
            return
        except _TooLarge:
            await self._reject(send, address, 413, "the request is too large", "too_large", *close)
        except _BadForm:
            await self._reject(send, address, 400, "the form has exactly one logout_token", "bad_form")
        except AuthUnavailable as error:
            self._log.add(address, error.code, "back-channel logout refused: %s, from %s", error, shown(address))
            await _unavailable(send)
        except AuthError as error:
            await self._reject(send, address, 400, "the logout token is not valid", error.code, reason=str(error))
        except Displaced:
            await self._reject(send, address, 429, "too many requests are open", "displaced", _RETRY, *close)
        except TimeoutError:
            if not read:
                await self._reject(send, address, 408, "the request took too long", "slow_body", *close)
                return
            self._log.add(
                address, "slow_keys", "back-channel logout refused: no verdict in time, from %s", shown(address)
            )
            await _unavailable(send)
        else:
            await self._complete(logout, send)

    async def _complete(self, logout: Logout, send: Send) -> None:
        try:
            await self._carry_out(logout)
        except Exception:
            logger.exception("back-channel logout: the revocation could not be kept")
            await _unavailable(send)
            return
        # Add it only now: if the logout failed, the provider may retry with the same token.
        self._replays.add(logout, self._auth.clock.wall())
        await _answer(send, 200, b"")

    async def _reject(
        self,
        send: Send,
        address: str | None,
        status: int,
        description: str,
        code: str,
        *headers: tuple[bytes, bytes],
        reason: str = "",
    ) -> None:
        """Log a bad request, count it against its address, and answer it."""
        self._log.add(address, code, "back-channel logout refused: %s, from %s", reason or description, shown(address))
        if self._bad.add(address) and status != 429:
            status, description, headers = 429, "too many bad requests", (_RETRY, *headers)
        await _refuse(send, status, description, *headers)

    async def _verified(self, token: str) -> Logout:
        """Return the logout that a token requests, or raise an `AuthError`."""
        claims = await self._signed(token)
        logout = self._rules.check(claims, self._auth.clock.wall())
        self._replays.check(logout)
        if not self._sessions and logout.subject is None:
            raise InvalidToken("the token has only a sid, and the access tokens have none")
        return logout

    async def _signed(self, token: str) -> dict[str, Any]:
        """Return the claims of a token with a valid signature, or raise an `AuthError`.

        Any client can name a key that does not exist. That must not use up the one read per `cooldown` that access
        tokens with a new key need, so reads for logout tokens have their own interval.
        """
        if self._keys is None:
            return await self._auth.signed(token, LOGOUT_TYPES)
        begun = self._readings
        while True:
            try:
                return await self._auth.signed(token, LOGOUT_TYPES, fetch=False)
            except AuthUnavailable:
                if self._readings > begun:  # A read that began earlier may have missed a key that was published since.
                    break
            await self._read_keys(self._keys)
        if self._keys.trouble:
            raise AuthUnavailable(f"the keys of {self._keys} cannot be read: {self._keys.trouble}")
        raise InvalidToken(NO_KEY)

    async def _read_keys(self, keys: Refreshed) -> None:
        """Read the keys once for all waiting requests, as soon as the interval allows."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_once(keys))
        await asyncio.shield(self._reading)

    async def _read_once(self, keys: Refreshed) -> None:
        await asyncio.sleep(self._read_at + KEY_PAUSE - self._auth.clock.monotonic())
        self._read_at = self._auth.clock.monotonic()
        self._readings += 1
        await keys.refresh()

    async def _carry_out(self, logout: Logout) -> None:
        if logout.session_id is not None and self._sessions:
            await self._io.revoke(session_id=logout.session_id, issuer=logout.issuer)
        else:
            await self._io.revoke(subject=logout.subject, issuer=logout.issuer)


class _TooLarge(Exception):
    """The request body is larger than `MAX_BODY`."""


class _BadForm(Exception):
    """The body is not a form with exactly one logout token."""


class _Gone(Exception):
    """The client disconnected before its request was complete."""


def _media_type(scope: Scope) -> str:
    """Return the content type in lower case without its parameters; empty if there is none, or several."""
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
    """Return the one logout token in a form, or raise `_BadForm`."""
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
        (token,) = (value for name, value in fields if name == "logout_token")
    except ValueError:
        raise _BadForm from None
    return token


async def _unavailable(send: Send) -> None:
    await _refuse(send, 503, "the logout could not be completed: try again", _RETRY, code="server_error")


async def _refuse(
    send: Send, status: int, description: str, *headers: tuple[bytes, bytes], code: str = "invalid_request"
) -> None:
    """Answer with the error object of OAuth 2.0 (RFC 6749, section 5.2), as section 2.8 of the specification allows."""
    body = msgspec.json.encode({"error": code, "error_description": description})
    await _answer(send, status, body, (b"content-type", b"application/json"), *headers)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fields = [*headers, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
