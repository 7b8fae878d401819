"""TLS: certificates that cannot be used are explained at the start, and handshakes have a deadline."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from iogate.errors import ConfigurationError

HANDSHAKE_TIMEOUT = 5.0
"""Seconds that a client has for the TLS handshake."""
LOG_INTERVAL = 60.0
"""Seconds between two log lines about handshakes that failed."""
_KEY = b" PRIVATE KEY-----"  # Without the kind before it: RSA, EC, ENCRYPTED or none.
_CERTIFICATE = b" CERTIFICATE-----"

logger = logging.getLogger("iogate")


def check_tls(certfile: str | None, keyfile: str | None) -> None:
    """Make sure that a certificate and its key can be used.

    Args:
        certfile: file with the certificate; None without TLS.
        keyfile: file with its private key; None if that is in the same file.

    Raises:
        ConfigurationError: a file cannot be read, has something else in it, or the two do not fit.
    """
    if certfile is None:
        return
    certificate = _read("ssl_certfile", certfile)
    if _CERTIFICATE not in certificate:
        if _KEY in certificate:
            raise ConfigurationError(
                f"ssl_certfile: {certfile} has a private key and no certificate: give that file as ssl_keyfile,"
                " and the certificate as ssl_certfile"
            )
        raise ConfigurationError(
            f"ssl_certfile: {certfile} has no certificate in PEM format (-----BEGIN CERTIFICATE-----)."
            f" If it is in DER format, convert it: openssl x509 -inform der -in {certfile} -out cert.pem"
        )
    key = certificate if keyfile is None else _read("ssl_keyfile", keyfile)
    if _KEY not in key:
        if keyfile is None:
            raise ConfigurationError(f"ssl_certfile: {certfile} has no private key in it: give its file as ssl_keyfile")
        raise ConfigurationError(
            f"ssl_keyfile: {keyfile} has no private key in PEM format (-----BEGIN PRIVATE KEY-----)."
            f" If it is in DER format, convert it: openssl pkey -inform der -in {keyfile} -out key.pem"
        )
    _load(certfile, keyfile, certificate, key)


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path!r} cannot be read: {error.strerror}") from None


def _load(certfile: str, keyfile: str | None, certificate: bytes, key: bytes) -> None:
    where = f"ssl_keyfile: {keyfile}" if keyfile is not None else f"ssl_certfile: {certfile}"

    def encrypted() -> str:
        # Without this function OpenSSL would ask on the terminal, and a service would wait for ever.
        raise ConfigurationError(
            f"{where}: the private key is encrypted, and there is nobody to type its password. Write a copy without one"
            f" that only the server can read: (umask 077; openssl pkey -in {keyfile or certfile} -out key.pem)"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, encrypted)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise ConfigurationError(
                f"{where}: the private key does not belong to the certificate in {certfile}."
                " In a file with several certificates, the server's own comes first"
            ) from None
        if not _parses(partial(x509.load_pem_x509_certificates, certificate)):
            raise ConfigurationError(f"ssl_certfile: {certfile} has a certificate that is damaged") from None
        if not _parses(partial(load_pem_private_key, key, None)):
            raise ConfigurationError(f"{where}: the private key is damaged, or of a kind that is not known") from None
        raise ConfigurationError(
            f"ssl_certfile: {certfile} cannot be used with its key: OpenSSL says {error.reason or 'nothing more'}"
        ) from None


def _parses(load: Callable[[], object]) -> bool:
    try:
        load()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


class FailedHandshakes:
    """Counts them, and logs the first one at once, and then one line a minute at most."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._unlogged = 0

    def add(self, why: str) -> None:
        """Take note of one."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        self.log_others()
        logger.info("A TLS handshake failed: %s.", why)
        self._quiet_until = now + LOG_INTERVAL

    def log_others(self) -> None:
        """Log the number of those that have no line of their own."""
        if self._unlogged:
            logger.info("%d more TLS handshakes failed since.", self._unlogged)
            self._unlogged = 0


@contextmanager
def handshake_deadline(context: ssl.SSLContext | None, failures: FailedHandshakes) -> Iterator[None]:
    """Give handshakes of each server that is created with this context a deadline, and log those that fail.

    uvicorn has no setting for it; the event loop gives each handshake 60 seconds, and logs nothing.
    """
    if context is None:
        yield
        return
    context.sslobject_class = _watched(failures)
    loop: Any = asyncio.get_running_loop()
    create_server = loop.create_server
    deadlines = {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT, "ssl_shutdown_timeout": HANDSHAKE_TIMEOUT}

    def create(*args: Any, **settings: Any) -> Any:
        return create_server(*args, **settings, **(deadlines if settings.get("ssl") is context else {}))

    loop.create_server = create
    try:
        yield
    finally:
        del loop.create_server


def _watched(failures: FailedHandshakes) -> type[ssl.SSLObject]:
    """Return what the event loop keeps of a TLS connection, such that handshakes that fail are counted."""

    class Watched(ssl.SSLObject):
        deadline: asyncio.TimerHandle | None = None

        def do_handshake(self) -> None:
            if self.deadline is None:
                # Before the event loop's own: then nothing would be left of the handshake.
                self.deadline = asyncio.get_running_loop().call_later(0.98 * HANDSHAKE_TIMEOUT, late, weakref.ref(self))
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise  # It goes on when more has come.
            except ssl.SSLError as error:
                self.deadline.cancel()
                failures.add(_REASONS.get(error.reason or "", error.reason or "no reason is known"))
                raise
            self.deadline.cancel()

    def late(handshake: weakref.ref[Watched]) -> None:
        if handshake() is not None:
            failures.add(f"it took more than {HANDSHAKE_TIMEOUT:g} s")

    return Watched


_REASONS = {
    "HTTP_REQUEST": "the client speaks plain HTTP, and this is https",
    "WRONG_VERSION_NUMBER": "what the client sent is not TLS",
    "UNEXPECTED_EOF_WHILE_READING": "the client left in the middle of it",
}
