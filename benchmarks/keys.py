"""A server whose key server is in trouble, or whose clients invent the names of keys.

    python -m benchmarks.keys                    # under a minute
    python -m benchmarks.keys --json keys.json

The server is this process, on a core of its own; the key server and the clients are others. What is looked at: how
many users with a known key are let in each second, and whether one of them is refused; how long the event loop was busy
with one thing; how often the key server was asked.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import uvloop
from joserfc.jwk import ECKey
from joserfc.jws import serialize_compact
from rich.console import Console
from rich.table import Table

from benchmarks.machine import conclude, describe
from benchmarks.served import CORES, Clients, Heart, served, swarm
from iogate import JWTAuth, KeySetURL, Limits, Server
from tests.keys.keyserver import KEYS, KeyServer, crash, document, endless, failure, large, redirect, text

SECONDS = 4.0
"""How long each kind of trouble lasts: with `every=1`, four readings."""
COOLDOWN = 5.0
FLOOD = 10_000
"""Tokens that name a key nobody has."""
KINDS = (
    *("in order", "slow", "500", "HTML", "100 MB", "endless"),
    *("an empty set", "a redirect", "hangs up", "other keys", "killed"),
)
USERS = 200
"""Users that connect again and again."""
STALL = 0.05
"""Seconds that the event loop may be busy with one thing."""


class Remote:
    """A key server in a process of its own, which does as it is told.

    Args:
        key: the key that it publishes while it is in order, a JWK.
    """

    def __init__(self, key: dict[str, Any]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        # Another Python, not a copy of this one: this one has an event loop.
        self._process = multiprocessing.get_context("spawn").Process(target=_keep, args=(theirs, key), daemon=True)
        self._process.start()
        theirs.close()
        self.url: str = self._pipe.recv()

    def be(self, kind: str) -> None:
        """Be in this kind of trouble from now on."""
        self._ask(kind)

    def count(self) -> int:
        """Return how often the keys were asked for."""
        return self._ask(None)

    def close(self) -> None:
        """End."""
        self._process.kill()
        self._process.join()

    def _ask(self, order: str | None) -> int:
        self._pipe.send(order)
        count: int = self._pipe.recv()
        return count


def _keep(pipe: Connection, key: dict[str, Any]) -> None:
    """Be the key server."""
    os.sched_setaffinity(0, {CORES.load})
    asyncio.run(_obey(pipe, key))


async def _obey(pipe: Connection, key: dict[str, Any]) -> None:
    server = KeyServer(None)
    server.publish(key)
    answers = {
        "in order": server.answers[KEYS],
        "slow": server.held,
        "500": failure(500),
        "HTML": text("<!doctype html><title>Trouble</title>", content_type="text/html"),
        "100 MB": large(100_000_000),
        "endless": endless(),
        "an empty set": document({"keys": []}),
        "a redirect": redirect("/elsewhere"),
        "hangs up": crash,
        "other keys": document({"keys": [_made("P-521") for _ in range(100)]}),
    }
    await server.start()
    pipe.send(server.url)
    while True:
        order = await asyncio.to_thread(pipe.recv)
        if order == "killed":
            await server.kill()
        elif order is not None:
            server.answers[KEYS] = answers[order]
            server.let_go()
        pipe.send(server.count())


def _made(curve: str) -> dict[str, Any]:
    public: dict[str, Any] = ECKey.generate_key(curve).as_dict(private=False)
    return public


@contextmanager
def key_server(key: dict[str, Any]) -> Iterator[Remote]:
    """Have a key server with this key."""
    remote = Remote(key)
    try:
        yield remote
    finally:
        remote.close()


class Issuer:
    """Signs tokens.

    Args:
        name: its `iss`.
        key: what signs.
    """

    def __init__(self, name: str, key: ECKey) -> None:
        self._name = name
        self._key = key

    def tokens(self, number: int, kid: str | None = None) -> list[str]:
        """Return tokens of as many users; each names the key, or one that is invented from `kid`."""
        end = int(time.time()) + 3600
        return [
            serialize_compact(
                {"alg": "ES256", "kid": "known" if kid is None else f"{kid}-{index}"},
                json.dumps({"sub": f"user-{index}", "exp": end, "iss": self._name}),
                self._key,
            )
            for index in range(number)
        ]


async def measure() -> dict[str, Any]:
    """Return what was measured."""
    key = ECKey.generate_key("P-256")
    with key_server(key.as_dict(private=False) | {"kid": "known"}) as remote:
        issuer = Issuer(remote.url, key)
        return {
            "flood": await flooded(remote, issuer),
            "trouble": await troubled(remote, issuer),
        }


async def flooded(remote: Remote, issuer: Issuer) -> dict[str, Any]:
    """Let clients invent names of keys as fast as they can, while users connect."""
    io = _server(KeySetURL(remote.url + KEYS, network="loopback", every=3600, cooldown=COOLDOWN), issuer)
    invented = issuer.tokens(FLOOD, kid="invented")
    async with served(io) as port, swarm(port, 200) as strangers, swarm(port, 200) as users:
        heart = Heart()
        quiet = await _users(users, issuer, 2.0)
        stalled, asked = heart.reset(), remote.count()
        flood = asyncio.create_task(strangers("connect", group="flood", tokens=invented))
        beside = await _users(users, issuer, flood)
        seconds = (await flood)["seconds"]
        heart.stop()
        return {
            "tokens a second": round(FLOOD / seconds),
            "seconds": round(seconds, 1),
            "let in of them": flood.result()["connected"],
            "readings": remote.count() - asked,
            "readings allowed": 1 + int(seconds / COOLDOWN),
            "users a second, before": quiet["a second"],
            "users a second, meanwhile": beside["a second"],
            "users refused": beside["refused"],
            "longest stall, before": round(stalled, 4),
            "longest stall": round(heart.longest, 4),
        }


async def troubled(remote: Remote, issuer: Issuer) -> dict[str, Any]:
    """Let the key server be in trouble of every kind, while users connect and somebody invents names of keys."""
    result = {}
    keys = KeySetURL(remote.url + KEYS, network="loopback", every=1, cooldown=1)
    async with served(_server(keys, issuer)) as port, swarm(port, 200) as users, swarm(port, 200) as strangers:
        await _users(users, issuer, 1.0)
        for kind in KINDS:
            remote.be(kind)
            asked, heart = remote.count(), Heart()
            unknown = asyncio.create_task(strangers("connect", group=kind, tokens=issuer.tokens(50, kid=kind)))
            seen = await _users(users, issuer, SECONDS)
            heart.stop()
            result[kind] = seen | {"readings": remote.count() - asked, "longest stall": round(heart.longest, 4)}
            remote.be("in order")  # Who is held is let go, so that the strangers have their answer.
            await unknown
            await keys.refresh()
    return result


async def _users(users: Clients, issuer: Issuer, until: float | asyncio.Task[Any]) -> dict[str, Any]:
    """Let users connect again and again, for some seconds or until something has ended."""
    tokens = issuer.tokens(USERS)
    connected = refused = 0
    began = time.monotonic()
    while (not until.done()) if isinstance(until, asyncio.Task) else time.monotonic() - began < until:
        seen = await users("connect", group="users", tokens=tokens)
        connected += seen["connected"]
        refused += USERS - seen["connected"]
        await users("leave", group="users")
    return {"a second": round(connected / (time.monotonic() - began)), "refused": refused}


def _server(keys: KeySetURL, issuer: Issuer) -> Server:
    auth = JWTAuth(keys=keys, algorithms=["ES256"], issuer=issuer._name)
    # All clients come from one address: at that they would be too many, and soon not be listened to.
    return Server(auth=auth, limits=Limits(pending=10**5, pending_per_address=10**5, failures_per_address=10**9))


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result."""
    table = Table("what", "measured", title=f"{FLOOD} tokens with keys that are invented")
    for name, value in result["flood"].items():
        table.add_row(name, str(value))
    console.print(table)
    table = Table("key server", "users/s", "refused", "readings", "longest stall", title=f"{SECONDS} s of each")
    for kind, seen in result["trouble"].items():
        stall = f"{seen['longest stall'] * 1000:.0f} ms"
        table.add_row(kind, str(seen["a second"]), str(seen["refused"]), str(seen["readings"]), stall)
    console.print(table)


def verdict(result: dict[str, Any]) -> list[str]:
    """Return what should be otherwise."""
    flood = result["flood"]
    wrong = {
        "more readings than one a cool-down": flood["readings"] > flood["readings allowed"],
        "a user was refused during the flood": flood["users refused"] > 0,
        "an invented key was let in": flood["let in of them"] > 0,
        "the event loop stalled during the flood": flood["longest stall"] > STALL,
    }
    for kind, seen in result["trouble"].items():
        # A set without the users' key refuses them, as it must.
        wrong[f"a user was refused while the key server was: {kind}"] = seen["refused"] > 0 and kind != "other keys"
        wrong[f"the event loop stalled while the key server was: {kind}"] = seen["longest stall"] > STALL
    return [what for what, is_so in wrong.items() if is_so]


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write the result.")
def main(file: Path | None) -> None:
    """Measure, print, and end with 1 if something is not as it should be."""
    console = Console()
    result = {"machine": describe(), **uvloop.run(measure())}
    show(console, result)
    conclude(console, result, verdict(result), file)


if __name__ == "__main__":
    main()
