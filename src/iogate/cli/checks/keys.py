"""Checks of the keys: the configured secret or public key, and key sets, which are fetched as a server fetches them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from iogate.auth import Auth, JWTAuth
from iogate.auth.interface import Keys
from iogate.auth.keys import secret_of
from iogate.auth.keyset import Key, KeySet
from iogate.cli.checks.finding import Finding, listing
from iogate.cli.checks.secret import ENOUGH, GUESSABLE, estimate
from iogate.clock import SYSTEM
from iogate.errors import AuthUnavailable
from iogate.keys.fixed import FixedKey, FixedKeySet
from iogate.keys.function import FunctionKeys
from iogate.keys.issuers import Issuers
from iogate.keys.refreshed import Refreshed
from iogate.keys.remote import Remote

_MAKE_ONE = 'a new one: python -c "import secrets; print(secrets.token_urlsafe(64))"'
_READY_WITHIN = 30.0


async def of_keys(auth: Auth) -> list[Finding]:
    """Check the keys of an authenticator. Key sets from files and URLs are read."""
    if not isinstance(auth, JWTAuth):
        return await _of_another(auth)
    sources = auth.keys.sources if isinstance(auth.keys, Issuers) else {"": auth.keys}
    taken = await read(auth.keys)
    return [
        finding
        for source in sources.values()
        for finding in _of_source(source, auth.policy.algorithms, taken.get(source))
    ]


async def read(keys: Keys) -> dict[Keys, float]:
    """Read all key sets from files and URLs, and return the seconds that each read took.

    A read that fails does not raise: `trouble` of the source has the reason.
    """
    sources = keys.sources.values() if isinstance(keys, Issuers) else [keys]
    remote = [source for source in sources if isinstance(source, Refreshed)]
    with quiet():
        seconds = await asyncio.gather(*map(_read, remote))
    return dict(zip(remote, seconds, strict=True))


def key_set(keys: Keys) -> KeySet | None:
    """Return the key set of a source, or None if the source has no key set or has not read it."""
    return keys.keys if isinstance(keys, (FixedKeySet, Refreshed)) else None


def described(key: Key, algorithms: frozenset[str]) -> str:
    """Return a description of a key for a message, its kid and its accepted algorithms: `'k1' (RS256)`."""
    name = "one without a kid" if key.key_id is None else f"{key.key_id!r:.100}"
    fitting = listing(algorithms & frozenset(key.verifiers))
    return f"{name} ({fitting or 'for none of the accepted algorithms'})"


@contextmanager
def quiet() -> Iterator[None]:
    """Turn iogate's log off, because errors are reported as findings."""
    logger = logging.getLogger("iogate")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


async def _read(source: Refreshed) -> float:
    began = SYSTEM.monotonic()
    try:
        await source.refresh()
        return SYSTEM.monotonic() - began
    finally:
        await source.stop(_nobody)


def _nobody() -> None:
    """Do nothing. This is the callback for removed keys, and no server runs here."""


async def _of_another(auth: Auth) -> list[Finding]:
    """Check that an authenticator of the application becomes ready, as a server does when it starts."""
    auth.start(_nobody)
    try:
        with quiet():
            async with asyncio.timeout(_READY_WITHIN):
                await auth.ready()
    except TimeoutError:
        return [Finding("wrong", "auth", f"it is not ready after {_READY_WITHIN:g} seconds: a server would not start")]
    except AuthUnavailable as error:
        return [Finding("wrong", "auth", f"it is not ready, and a server would not start: {error.reason}")]
    finally:
        await auth.stop(_nobody)
    return []


def _of_source(source: Keys, algorithms: frozenset[str], seconds: float | None) -> Iterator[Finding]:
    if isinstance(source, FixedKey):
        yield from _of_key(source.key)
    elif isinstance(source, FunctionKeys):
        yield Finding("note", "keys", f"{source!r}: which keys that function returns cannot be seen from here")
    elif isinstance(source, Remote):
        yield from _of_way(source)
    if isinstance(source, Refreshed) and source.trouble:
        yield Finding(
            "wrong", "keys", f"{source!r}: the keys cannot be read: {source.trouble}. So nobody is let in", ""
        )
        return
    found = key_set(source)
    if found is not None:
        yield from _of_set(source, found, algorithms, seconds)


def _of_key(key: Key) -> Iterator[Finding]:
    secrets = [secret_of(verifier) for verifier in key.verifiers.values()]
    if not secrets or secrets[0] is None:
        yield Finding("good", "public_key", f"it is strong enough, and goes with {listing(key.verifiers)}")
        return
    bits, why = estimate(secrets[0])
    if bits >= ENOUGH:
        yield Finding("good", "secret", "nothing that makes it easy to guess was found")
        return
    meaning = (
        "who has one token can find it by trying, and then make tokens of anybody"
        if bits < GUESSABLE
        else "RFC 6749, section 10.10, asks for 128, and RFC 8725, section 3.5, for none that people remember"
    )
    yield Finding(
        "wrong" if bits < GUESSABLE else "weak",
        "secret",
        f"by an estimate it is worth {bits} bits at most ({why}): {meaning}",
        _MAKE_ONE,
    )


def _of_way(source: Remote) -> Iterator[Finding]:
    context = source.ssl_context
    if context is not None and (context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname):
        yield Finding(
            "wrong",
            "keys",
            f"{source!r}: its certificate is not checked: who stands in between can give keys of his own",
            'ssl_context=ssl.create_default_context(cafile="...") with the certificate of your own authority',
        )
    if source.network == "loopback":
        yield Finding(
            "weak",
            "keys",
            f'{source!r}: network="loopback" is for tests: keys come from this machine alone, by plain http too',
            'an https address, and network="public" (the default) or "private"',
        )
    elif source.network == "private":
        yield Finding(
            "note",
            "keys",
            f'{source!r}: network="private": what its name leads to, and what it names, may be inside your network',
        )


def _of_set(source: Keys, found: KeySet, algorithms: frozenset[str], seconds: float | None) -> Iterator[Finding]:
    fitting = [key for key in found.keys if not algorithms.isdisjoint(key.verifiers)]
    others = [key for key in found.keys if algorithms.isdisjoint(key.verifiers)]
    name = repr(source) if isinstance(source, Refreshed) else "the key set"
    if fitting:
        count = "one key" if len(fitting) == 1 else f"{len(fitting)} keys"
        took = "" if seconds is None else f", read in {seconds:.2f} s"
        kids = ", ".join(described(key, algorithms) for key in fitting)
        yield Finding("good", "keys", f"{name}: {count}{took}: {kids}")
    else:
        yield Finding(
            "wrong",
            "keys",
            f"{name}: none of its keys goes with {listing(algorithms)}. So nobody is let in",
            f"algorithms=[...] with those of the keys: {listing({name for key in others for name in key.verifiers})}",
        )
    for key in others:
        kid = "a key without a kid" if key.key_id is None else f"the key {key.key_id!r:.100}"
        yield Finding(
            "note", "keys", f"{name}: {kid} is not used: it is for {listing(key.verifiers)}, which is not accepted"
        )
    for problem in found.problems:
        yield Finding("note", "keys", f"{name}: left out: {problem}")
    nameless = [key for key in fitting if key.key_id is None]
    if nameless and len(fitting) > 1:
        yield Finding(
            "note", "keys", f"{name}: {len(nameless)} of {len(fitting)} keys have no kid: tokens cannot ask for them"
        )
