"""Checks of the TLS certificate and its key at the start, with error messages that explain what to change."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from functools import partial

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from iogate.errors import ConfigurationError

_KEY = b" PRIVATE KEY-----"  # RSA, EC or ENCRYPTED may come before it.
_CERTIFICATE = b" CERTIFICATE-----"

logger = logging.getLogger("iogate")


def check_tls(certfile: str | None, keyfile: str | None) -> None:
    """Check that a certificate and its key can be used.

    Args:
        certfile: file with the certificate; None without TLS.
        keyfile: file with its private key; None if that is in the same file.

    Raises:
        ConfigurationError: a file cannot be read or has other content, or the two do not match.
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
        # Without this callback, OpenSSL would ask for the password on the terminal, and a service would wait for ever.
        raise ConfigurationError(
            f"{where}: the private key is encrypted, and a server cannot ask for the password. Write a copy without one"
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
