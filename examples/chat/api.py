"""The JSON endpoints of the demo: accounts, sessions, and one behind the same gate as the sockets.

Two credentials, and neither does the other's work. The refresh token is in a cookie that no script can read, all tabs
of a browser share it, and only the endpoints of this file take it. The access token is the page's: it opens the socket
and `/api/me`, for a minute.
"""

from __future__ import annotations

import math
import time

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from iogate import AuthError, CredentialsRequired, JWTAuth, Principal, RevokedToken, Server
from iogate.revocation import Revocations

from .accounts import Accounts, Invalid, NameTaken, Person
from .attempts import Attempts, source
from .sessions import IDLE, NoSession, Session, Sessions
from .tokens import Mint

COOKIE = "iogate-chat-session"
PATH = "/api"
"""Where the browser sends the cookie: to `/api/accounts` as well, for a new account takes the place of a session."""
MAX_BODY = 4096
"""Bytes of a request's body. A name and a password fit well."""


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """What a person types to sign in."""

    username: str
    password: str


class Problem(Exception):
    """A request that is answered with an error; `message` is for the person who made it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = JSONResponse({"message": message}, status, headers)


class Presented:
    """An HTTP request as the gate reads it: what a client may show its token in."""

    def __init__(self, request: Request) -> None:
        # A header that came twice is joined, so that a second token is seen, and refused.
        self.headers = {name: ", ".join(request.headers.getlist(name)) for name in request.headers}
        self.query = dict(request.query_params)
        self.cookies = request.cookies
        self.payload = None


class Api:
    """The endpoints."""

    def __init__(
        self,
        io: Server,
        auth: JWTAuth,
        revocations: Revocations,
        accounts: Accounts,
        sessions: Sessions,
        mint: Mint,
    ) -> None:
        self._io = io
        self._auth = auth
        self._revocations = revocations
        self._accounts = accounts
        self._sessions = sessions
        self._mint = mint
        self._by_address = Attempts(30, 60)
        self._by_name = Attempts(6, 60)

    async def create_account(self, request: Request) -> Response:
        """Make an account and sign in: 201, 400, 409, 413 or 429."""
        credentials = await self._credentials(request)
        try:
            person = await self._accounts.create(credentials.username, credentials.password)
        except Invalid as error:
            raise Problem(400, str(error)) from None
        except NameTaken as error:
            raise Problem(409, str(error)) from None
        return await self._sign_in(request, person, 201)

    async def create_session(self, request: Request) -> Response:
        """Sign in: 200, 400, 401, 413 or 429."""
        credentials = await self._credentials(request)
        who = (_address(request), credentials.username.lower())
        _allow(self._by_name.wait(who, time.monotonic()))
        person = await self._accounts.sign_in(credentials.username, credentials.password)
        if person is None:
            raise Problem(401, "The name or the password is wrong.")
        self._by_name.forget(who)
        return await self._sign_in(request, person, 200)

    async def refresh_session(self, request: Request) -> Response:
        """Give the next tokens of a session: 200; 204 where nobody is signed in; 401 when the session is over."""
        token = request.cookies.get(COOKIE)
        if token is None:
            return Response(status_code=204)
        now = time.time()
        try:
            session, token = await self._sessions.refresh(token, now)
        except NoSession as gone:
            return await self._gone(request, gone)
        return self._tokens(request, session, token, now, 200)

    async def end_session(self, request: Request) -> Response:
        """Sign out in all tabs of this browser: 204, also if there is nobody to sign out."""
        ended = await self._end(request)
        if ended is not None:
            await self._io.revoke(session_id=ended)
        return _without_cookie(request, Response(status_code=204))

    async def end_sessions(self, request: Request) -> Response:
        """Sign out everywhere: 204, or 401."""
        try:
            session = await self._sessions.end_all(request.cookies.get(COOKIE, ""), time.time())
        except NoSession as gone:
            return await self._gone(request, gone)
        await self._io.revoke(subject=session.person.id)
        return _without_cookie(request, Response(status_code=204))

    async def me(self, request: Request) -> Response:
        """Say who the token says you are. The verifier is the one that guards the sockets."""
        try:
            principal = self._identify(request)
        except AuthError as refusal:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'} if refusal.status == 401 else None
            return JSONResponse(refusal.data, refusal.status, challenge)
        return JSONResponse(
            {"id": principal.subject, "name": principal.claims["name"], "expires_at": principal.claims["exp"]}
        )

    def _identify(self, request: Request) -> Principal:
        token = self._auth.credential(Presented(request))
        if token is None:
            raise CredentialsRequired
        principal = self._auth.verify(token)
        if self._revocations.revoked(principal, time.time()):
            raise RevokedToken
        return principal

    async def _credentials(self, request: Request) -> Credentials:
        _allow(self._by_address.wait(_address(request), time.monotonic()))
        try:
            return msgspec.json.decode(await _body(request), type=Credentials)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem(400, 'Send JSON: {"username": "...", "password": "..."}') from None

    async def _sign_in(self, request: Request, person: Person, status: int) -> Response:
        # The browser is about to forget the session that it has, and nobody else may go on with it.
        ended = await self._end(request)
        now = time.time()
        session, token = await self._sessions.begin(person, now)
        answer = self._tokens(request, session, token, now, status)
        if ended is not None:
            # Its tabs ask for a token as soon as they are thrown out: the browser has the new cookie by then.
            answer.background = BackgroundTask(self._io.revoke, session_id=ended)
        return answer

    async def _end(self, request: Request) -> str | None:
        """End the session of the browser, if it has one, and return the id by which its tokens are to be revoked."""
        token = request.cookies.get(COOKIE)
        if token is None:
            return None
        try:
            return (await self._sessions.end(token, time.time())).id
        except NoSession as gone:
            return gone.ended

    async def _gone(self, request: Request, gone: NoSession) -> Response:
        """Answer a refresh token that is good no more. If it had been used already, both who have it are out now."""
        if gone.ended is not None:
            await self._io.revoke(session_id=gone.ended)
        answer = JSONResponse({"message": "Your session is over. Sign in again."}, 401)
        return _without_cookie(request, answer)

    def _tokens(self, request: Request, session: Session, refresh: str, now: float, status: int) -> Response:
        access = self._mint.token(session, now)
        person = session.person
        answer = JSONResponse(
            {"token": access.text, "expires_at": access.expires_at, "id": person.id, "name": person.name}, status
        )
        answer.set_cookie(COOKIE, refresh, IDLE, path=PATH, secure=_tls(request), httponly=True, samesite="strict")
        return answer


async def _body(request: Request) -> bytes:
    """Return the body, or refuse as soon as it is known to be too large: it is never held whole."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Problem(413, f"More than {MAX_BODY} bytes.", {"Connection": "close"})
    return bytes(body)


def _allow(wait: float) -> None:
    if wait:
        seconds = math.ceil(wait)
        raise Problem(429, f"Too many attempts. Try again in {seconds} s.", {"Retry-After": str(seconds)})


def _without_cookie(request: Request, answer: Response) -> Response:
    answer.delete_cookie(COOKIE, path=PATH, secure=_tls(request), httponly=True, samesite="strict")
    return answer


def _tls(request: Request) -> bool:
    return request.url.scheme == "https"


def _address(request: Request) -> str:
    return source(request.client.host) if request.client else ""
