"""The fields of a request body, for tokens that are sent in the body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from iogate.auth import jws
from iogate.errors import AuthError, CredentialsBadFormat, InvalidToken
from iogate.server.session.handshake import Handshake

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MAX_BODY = 64 * 1024
"""Maximum size in bytes of a body that is read for a token."""
MAX_FIELDS = 100
"""Maximum number of fields in a form."""
BODY_TIMEOUT = 5.0
"""Seconds within which a body that is read for a token must arrive completely."""


class SlowBody(AuthError):
    """The body that may contain the token did not arrive in time."""

    code = "timeout"
    text = "The body of the request took too long"
    retry = "later"
    status = 408


@asynccontextmanager
async def body_in_time() -> AsyncIterator[None]:
    """Limit the time in which a body is read.

    Raises:
        SlowBody: the body did not arrive within `BODY_TIMEOUT` seconds.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            yield
    except TimeoutError:
        raise SlowBody(f"the body did not arrive within {BODY_TIMEOUT:g} seconds") from None


def may_say_close(scope: Mapping[str, Any]) -> bool:
    """Return True if a response can close the connection, so that the rest of the body need not be read.

    HTTP/2 does not have the `Connection` header (RFC 9113, section 8.2.2).
    """
    return str(scope.get("http_version", "1.1")).startswith("1")


def length_with_fields(handshake: Handshake) -> int:
    """Return how many bytes of the body to read for its fields.

    The result is 0 if the body is neither a form nor JSON, or if the request has no valid Content-Length.

    Raises:
        CredentialsBadFormat: the body has more than `MAX_BODY` bytes.
    """
    text = handshake.headers.get("content-length", "")
    if media_type(handshake) not in {FORM, JSON} or not (text.isascii() and text.isdigit()):
        return 0
    if len(text) > len(str(MAX_BODY)) or int(text) > MAX_BODY:  # Compare lengths first: parsing long numbers is slow.
        raise CredentialsBadFormat(f"a token in the body comes with {MAX_BODY} bytes at most")
    return int(text)


def media_type(handshake: Handshake) -> str:
    """Return the media type of a body, in lower case and without its parameters."""
    return handshake.headers.get("content-type", "").partition(";")[0].strip().lower()


def fields_of(handshake: Handshake, body: bytes) -> Mapping[str, object]:
    """Return the fields of a form or of a JSON object; empty if the body is malformed.

    A JSON object with a duplicate name counts as malformed (RFC 8259, section 4). A form may have several values per
    name.
    """
    if media_type(handshake) == JSON:
        try:
            return jws.members(body, "body")
        except InvalidToken:
            return {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}
    return by_name(pairs)


def by_name(pairs: Iterable[tuple[str, object]]) -> Mapping[str, object]:
    """Return fields by name.

    The value of a repeated name is a list. A list is not a valid token, so the guard does not guess which value counts.
    """
    fields: dict[str, list[object]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in fields.items()}
