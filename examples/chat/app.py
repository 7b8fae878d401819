"""A chat whose door asks for a token. From the root of the repository:

    iogate run examples.chat.app:app --port 3000

Settings, from the environment:
    JWT_SECRET      signs the tokens, 32 bytes or more; when it is missing one is made for the life of this process
    TOKEN_LIFETIME  seconds that a token is good for; 60 when it is missing
    REFRESH_GRACE   seconds in which a refresh token that was used is taken once more; a quarter of a token's life, at
                    most 10, when it is missing
    DATABASE_URL    where accounts and sessions are; sqlite:///chat.db when it is missing
    PORT            the port to print in the address; 3000 when it is missing
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from iogate import ConfigurationError, JWTAuth, MemoryRevocations, Principal, Server, Socket, SQLiteRevocations

from .accounts import Accounts, Person
from .api import Api
from .attempts import Attempts
from .database import Base, connect, make_private, revocations_file
from .room import Room, describe
from .sessions import Session, Sessions
from .tokens import ALGORITHM, AUDIENCE, ISSUER, Mint
from .web import CLIENT, website

MAX_TEXT = 2000
"""Characters of a message."""
TERMINAL_LIFETIME = 15 * 60
"""Seconds that the token is good for that is printed at the start."""


def seconds(name: str, default: float, least: int, most: int) -> float:
    """Return a setting from the environment."""
    text = os.environ.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise ConfigurationError(f"{name} is a whole number of seconds from {least} to {most}")
    return float(text)


SECRET = os.environ.get("JWT_SECRET") or secrets.token_urlsafe(48)
DATABASE_URL = os.environ.get("DATABASE_URL") or "sqlite:///chat.db"
LIFETIME = seconds("TOKEN_LIFETIME", 60, 1, TERMINAL_LIFETIME)
GRACE = seconds("REFRESH_GRACE", min(10.0, LIFETIME / 4), 0, 60)

# The gate. Both doors, the sockets and /api/me, are kept by this one object.
auth = JWTAuth(
    secret=SECRET,
    algorithms=[ALGORITHM],
    issuer=ISSUER,
    audience=AUDIENCE,
    require=("exp", "iat", "sub", "sid", "jti", "name"),
    # For so long a revocation is remembered.
    max_lifetime=TERMINAL_LIFETIME,
    # Early enough that a page on a bad line can try again before the end.
    refresh_before=LIFETIME / 2,
)
# Who has signed out stays out when the server comes back.
kept = revocations_file(DATABASE_URL)
if kept is not None:
    make_private(kept)
revocations = MemoryRevocations() if kept is None else SQLiteRevocations(kept)
io = Server(auth=auth, revocations=revocations, max_payload=64_000)

database = connect(DATABASE_URL)
accounts = Accounts(database)
sessions = Sessions(database, grace=GRACE)
mint = Mint(SECRET, LIFETIME)
room = Room()
flood = Attempts(20, 10)
# The page sends one every two seconds at most.
keystrokes = Attempts(10, 10)


def person_of(socket: Socket) -> Person:
    """Return who the token says this is. What the client says about itself is never asked."""
    return Person(socket.principal.subject, str(socket.claims["name"]))


def life_of(principal: Principal) -> dict[str, float]:
    """Return how long a token still lives and lives in all: seconds, as the clock of the page may be wrong."""
    issued_at, expires_at = principal.claims["iat"], principal.claims["exp"]
    return {"left": expires_at - time.time(), "lifetime": expires_at - issued_at}


@io.on("connect")
def enter(socket: Socket) -> None:
    person = person_of(socket)
    first = room.enter(person, socket.id)
    socket.emit(
        "welcome",
        {"you": describe(person), "token": life_of(socket.principal), "history": room.history()},
    )
    io.emit("people", room.people())
    if first:
        socket.broadcast.emit("joined", describe(person))


@io.on("refresh")
def renew(socket: Socket, old: Principal | None, new: Principal) -> None:
    """Tell the page, which counts the seconds. The connection is the one it was, and so is everything else."""
    socket.emit("token", life_of(new))


@io.on("disconnect")
def leave(socket: Socket, reason: str) -> None:
    person = person_of(socket)
    if room.leave(person, socket.id):
        io.emit("people", room.people())
        io.emit("left", describe(person))


@io.on("message")
def relay(socket: Socket, text: Any = None) -> dict[str, Any]:
    """Send a message to everybody; what is returned is the acknowledgement."""
    person = person_of(socket)
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        return {"error": f"A message is a text of 1 to {MAX_TEXT} characters."}
    if flood.wait(person.id, time.monotonic()):
        return {"error": "That was a lot at once. Wait a moment."}
    message = room.say(person, text.strip())
    io.emit("message", message)
    return {"id": message["id"]}


@io.on("typing")
def typing(socket: Socket) -> None:
    """Tell the others, a limited number of times per person. A client with a full buffer does not get the event."""
    person = person_of(socket)
    if not keystrokes.wait(person.id, time.monotonic()):
        socket.broadcast.volatile.emit("typing", describe(person))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    if not CLIENT.exists():
        raise RuntimeError("The page needs the Socket.IO client: run `npm ci` in examples/chat")
    await asyncio.to_thread(Base.metadata.create_all, database)
    announce(f"http://localhost:{os.environ.get('PORT') or 3000}")
    yield
    revocations.close()
    await asyncio.to_thread(database.dispose)


def announce(address: str) -> None:
    """Print where the demo is, and a way in for somebody at a terminal: a token that is meant to be seen."""
    somebody = Session(secrets.token_hex(16), Person("terminal", "Somebody at a terminal"))
    token = mint.token(somebody, time.time(), TERMINAL_LIFETIME)
    print(f"\n  The chat is at {address}\n")
    if not os.environ.get("JWT_SECRET"):
        print("  JWT_SECRET is not set: a random one signs the tokens. After a restart pages have to get new ones.\n")
    print(f"  From a terminal, for the next {TERMINAL_LIFETIME // 60} minutes:\n")
    print(f'  curl -H "Authorization: Bearer {token.text}" {address}/api/me\n', flush=True)


app = io.asgi(website(Api(io, auth, revocations, accounts, sessions, mint), lifespan))
