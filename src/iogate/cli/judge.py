"""The verdict of `iogate token show`: the gate's own code, with the keys and rules of a live configuration.

This module contains no rules. A `Judge` holds the parts of a running server, and the gate's own function decides.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import click

from iogate.auth import Auth, JWTAuth, Principal
from iogate.auth.keys import ALGORITHMS, load_public_key
from iogate.cli.checks.keys import quiet, read
from iogate.cli.target import Misconfigured, Target, load, place, what
from iogate.errors import AuthTimeout, AuthUnavailable, ConfigurationError, Refused, RevokedToken
from iogate.keys import Discovery, KeySetURL
from iogate.keys.fetch import Network
from iogate.keys.remote import Remote
from iogate.printable import escape
from iogate.revocation import MemoryRevocations, Revocation, Revocations, SQLiteRevocations
from iogate.server.gate.gate import verify_token
from iogate.server.server import Server, core_of

_READY_WITHIN = 30.0


class CannotTell(click.ClickException):
    """The token cannot be verified. The message says why, and what to write instead."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(escape, message.split("\n"))))


class Verdict(NamedTuple):
    """The result for a token: exactly one of `principal`, `refusal` and `unknown` is set."""

    principal: Principal | None = None
    refusal: Refused | None = None
    unknown: str = ""
    """Why there is no verdict."""
    revocation: Revocation | None = None
    """The revocation that matches the token, if the store can return it."""
    log: Sequence[str] = ()
    """The lines that a server would have logged."""


class Judge(NamedTuple):
    """The parts of a server that its gate uses to verify a token."""

    auth: Auth
    revocations: Revocations
    server: Server | None = None
    name: str = ""
    """The application that the parts come from, as `module:name`; empty if they come from the command line."""

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Start the authenticator as a server does, read its keys, and stop it at the end.

        Raises:
            CannotTell: it cannot be started.
        """
        try:
            await self._start()
            yield
        finally:
            await self.auth.stop(_nobody)
            self.revocations.close()

    async def verdict(self, token: str) -> Verdict:
        """Return the gate's verdict on a token."""
        with Heard() as log:
            try:
                principal: Any = await verify_token(token, self.auth, self.revocations)
            except (AuthUnavailable, AuthTimeout) as error:
                return Verdict(unknown=error.reason, log=log)
            except Refused as refusal:
                found = await self._revocation(token) if isinstance(refusal, RevokedToken) else None
                return Verdict(refusal=refusal, revocation=found, log=log)
            except (Exception, SystemExit) as error:  # From an authenticator or a key function of the application.
                return Verdict(unknown=f"{type(self.auth).__name__} failed: {what(error)}{place(error)}", log=log)
        if not isinstance(principal, Principal):
            return Verdict(unknown=f"{type(self.auth).__name__} returned no Principal", log=log)
        return Verdict(principal, log=log)

    async def _start(self) -> None:
        try:
            self.revocations.open()
            self.auth.start(_nobody)
            with quiet():
                if isinstance(self.auth, JWTAuth):
                    if self.name:  # For --url, `source_at` has read the keys already.
                        await read(self.auth.keys)  # If a read fails, the verdict says so, if the token needs that key.
                    return
                async with asyncio.timeout(_READY_WITHIN):
                    await self.auth.ready()
        except TimeoutError:
            raise CannotTell(
                f"{type(self.auth).__name__} is not ready after {_READY_WITHIN:g} seconds: a server would not start"
            ) from None
        except AuthUnavailable as error:
            raise CannotTell(f"it is not ready, and a server would not start: {error.reason}") from None
        except ConfigurationError as error:
            raise CannotTell(str(error)) from None
        except Exception as error:  # From an authenticator of the application.
            raise CannotTell(f"{type(self.auth).__name__} cannot be started: {what(error)}{place(error)}") from None

    async def _revocation(self, token: str) -> Revocation | None:
        find = getattr(self.revocations, "find", None)
        if find is None or not isinstance(self.auth, JWTAuth):
            return None
        found: Revocation | None = find(await self.auth.verify_async(token), self.auth.clock.wall())
        return found


def of_app(name: str, app_dir: str) -> Judge:
    """Return the `Judge` of an application.

    Args:
        name: `module:name` of the application.
        app_dir: the folder in which Python finds the module.

    Raises:
        CannotLoad: the application does not exist, or its module cannot be imported.
        CannotTell: iogate rejects its configuration, or the application has `auth=None`.
    """
    try:
        target: Target = load(name, app_dir)
    except Misconfigured as error:
        raise CannotTell(f"iogate refuses this configuration, so that the server does not start: {error}") from None
    if target.auth is None:
        raise CannotTell(f"{name} has auth=None: everybody may connect, and no token is looked at")
    store: Revocations = core_of(target.server).revocations if target.server is not None else MemoryRevocations()
    if isinstance(store, SQLiteRevocations) and not store.path.exists():
        # Opening the store would create the file, perhaps as a user whose files the server must not write.
        store = MemoryRevocations()
    return Judge(target.auth, store, target.server, name)


def of_keys(
    keys: Mapping[str, Any],
    algorithms: Sequence[str],
    issuers: Sequence[str],
    audiences: Sequence[str],
) -> Judge:
    """Return a `Judge` with one source of keys, and the default settings of `JWTAuth` for the rest.

    Args:
        keys: the argument of `JWTAuth` for the source, by its name: `secret`, `public_key` or `keys`.
        algorithms: the accepted algorithms; by default all that fit the keys.
        issuers: the accepted issuers; by default any.
        audiences: the accepted audiences; by default any.

    Raises:
        CannotTell: `JWTAuth` rejects these arguments.
    """
    try:
        auth = JWTAuth(
            **keys,
            algorithms=algorithms or _fitting(keys),
            issuer=issuers or None,
            audience=audiences or None,
        )
    except ConfigurationError as error:
        raise CannotTell(_for_the_command_line(error)) from None
    return Judge(auth, MemoryRevocations())


async def source_at(url: str, network: Network) -> Remote:
    """Return the keys of the issuer or of the key set at a URL.

    Args:
        url: the issuer, or the URL of the key set.
        network: the addresses to which the URL may lead.

    Raises:
        CannotTell: the URL is not allowed, or there is neither an issuer nor a key set.
    """
    troubles = []
    try:
        sources: list[Remote] = [KeySetURL(url, network=network, start_within=None)]
        if "?" not in url:
            sources.insert(0, Discovery(url, network=network, start_within=None))
    except ConfigurationError as error:
        raise CannotTell(_for_the_command_line(error)) from None
    for source in sources:
        with quiet():
            await read(source)
        if source.keys is not None:
            return source
        kind = "no issuer" if isinstance(source, Discovery) else "no key set"
        troubles.append(f"{kind} ({_for_the_command_line(source.trouble)})")
    raise CannotTell(
        f"{url.partition('?')[0]} is {' and '.join(troubles)}. Give the issuer, as tokens have it in iss, or the"
        " address of its key set (jwks_uri)"
    )


def _fitting(keys: Mapping[str, Any]) -> list[str]:
    """Return the algorithms that fit a key. The token has no influence on this (RFC 8725, section 3.1)."""
    if "secret" in keys:
        size = len(keys["secret"].encode("utf-8", "replace"))
        secrets = [name for name, needed in ALGORITHMS.items() if 0 < needed.secret_bytes <= size]
        return secrets or ["HS256"]
    if "public_key" in keys:
        return list(load_public_key(keys["public_key"]).algorithms)
    return [name for name, needed in ALGORITHMS.items() if needed.family != "secret"]


def _for_the_command_line(error: object) -> str:
    """Return an error message with the command-line options instead of the arguments of `JWTAuth`."""
    text = re.sub(r'network="(\w+)"', r"--network \1", str(error))
    return re.sub(r"\b(?:keys|jwks_url)= needs issuer=", "a key set needs --issuer", text)


class Heard(logging.Handler):
    """A context manager that collects iogate's log lines instead of logging them.

    The lines may contain text from clients, which must be escaped before it is printed on a terminal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._logger = logging.getLogger("iogate")

    def __enter__(self) -> list[str]:
        self._before = self._logger.propagate, self._logger.handlers
        self._logger.propagate, self._logger.handlers = False, [self]
        return self._lines

    def __exit__(self, *error: object) -> None:
        self._logger.propagate, self._logger.handlers = self._before

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a log record as one line, with the exception in it if there is one."""
        error = record.exc_info[1] if record.exc_info else None
        more = f": {what(error)}{place(error)}" if error is not None else ""
        self._lines.append(f"{record.getMessage()}{more}")


def _nobody() -> None:
    """Do nothing. This is the callback for removed keys, and no server runs here."""
