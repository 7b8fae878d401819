"""Checks of the settings of a `Server` other than `auth`: origins, proxies, revocations and the connect timeout."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from iogate.auth import Auth
from iogate.cli.checks.finding import Finding, listing, span
from iogate.revocation import MemoryRevocations, SQLiteRevocations
from iogate.server.core import Core
from iogate.server.server import Server, core_of

_LONG_CONNECT = 60.0


def of_server(server: Server) -> Iterator[Finding]:
    """Check a server, except its `auth`."""
    core = core_of(server)
    if core.auth is None:
        yield Finding(
            "wrong",
            "auth",
            "auth=None: everybody may connect, and nobody is known",
            "auth=JWTAuth(...)",
        )
    yield from _origins(core)
    yield from _proxies(core)
    if core.auth is not None:
        yield from _revocations(core, core.auth)
    if core.settings.connect_timeout > _LONG_CONNECT:
        yield Finding(
            "note",
            "connect_timeout",
            f"a client that has shown nothing may stay for {span(core.settings.connect_timeout)}",
            "connect_timeout=10, the default",
        )


def _origins(core: Core) -> Iterator[Finding]:
    origins = core.origins
    if origins.any:
        yield Finding(
            "weak",
            "cors_allowed_origins",
            '"*": a page of anybody may connect from the browser of any of its visitors, with a token that it got hold'
            " of, or as a guest",
            'cors_allowed_origins=["https://app.example.com"]; clients that are no browsers need not be listed',
        )
        return
    plain = [origin for origin in origins.allowed if origin.startswith("http://")]
    foreign = [origin for origin in plain if not _is_this_machine(origin)]
    if foreign:
        yield Finding(
            "weak",
            "cors_allowed_origins",
            f"{listing(foreign)}: a page that comes without TLS can be changed on its way, and then acts with the token"
            " of its visitor",
            "https:// in its place",
        )
    if len(plain) > len(foreign):
        yield Finding(
            "note",
            "cors_allowed_origins",
            f"{listing(set(plain) - set(foreign))}: pages on the visitor's own machine, which is for development",
        )
    if not plain:
        allowed = listing(origins.allowed) if origins.allowed else "the same origin"
        yield Finding("good", "cors_allowed_origins", f"only pages of {allowed} may connect")


def _is_this_machine(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxies(core: Core) -> Iterator[Finding]:
    wide = [str(network) for network in core.proxies.networks if network.prefixlen == 0]
    if wide:
        yield Finding(
            "weak",
            "trusted_proxies",
            f"{listing(wide)}: every client may say which address it has, and limits of an address hold nobody",
            'trusted_proxies=["10.0.0.5"], the addresses of your own proxies',
        )


def _revocations(core: Core, auth: Auth) -> Iterator[Finding]:
    store = core.revocations
    if isinstance(store, MemoryRevocations):
        yield Finding(
            "note",
            "revocations",
            "in memory: a restart forgets them, and a token that was revoked is good again until it expires, which may"
            f" be {span(auth.max_lifetime)}",
            'revocations=SQLiteRevocations("revoked.db")',
        )
    elif isinstance(store, SQLiteRevocations):
        mode = stat.S_IMODE(store.path.stat().st_mode) if store.path.exists() else 0o600
        if mode & 0o022:
            meaning = "others on this machine can take revocations away"
        elif mode & 0o044:
            meaning = "others on this machine can read who was thrown out, and when"
        else:
            yield Finding("good", "revocations", f"kept in {store.path}")
            return
        yield Finding(
            "weak", "revocations", f"{store.path} has the mode {mode:o}: {meaning}", f"chmod 600 {store.path}"
        )
