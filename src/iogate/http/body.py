"""The fields of a request's body, where a token may be one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from iogate.auth import jws
from iogate.errors import CredentialsBadFormat, InvalidToken

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MAX_BODY = 64 * 1024
"""Bytes of a body that are read for a token."""
MAX_FIELDS = 100
"""Fields that a form may have."""


def may_have_fields(content_type: str, length: int | None) -> bool:
    """Say whether a body is to be read for its fields.

    Args:
        content_type: its Content-Type.
        length: bytes that it has, as the request says; None if it does not say: then it is left alone.

    Raises:
        CredentialsBadFormat: it has more than are read.
    """
    if media_type(content_type) not in {FORM, JSON} or not length:
        return False
    if length > MAX_BODY:
        raise CredentialsBadFormat(f"a token in the body comes with {MAX_BODY} bytes at most")
    return True


def length_of(text: str) -> int | None:
    """Return the number in a Content-Length; None if there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def media_type(content_type: str) -> str:
    """Return the media type of a Content-Type, in lower case and without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def fields_of(content_type: str, body: bytes) -> Mapping[str, object]:
    """Return the fields of a form or of a JSON object; none for anything else, and for what is broken.

    JSON in which a name comes twice is broken (RFC 8259, section 4); a form may well have several values for one.
    """
    if media_type(content_type) == JSON:
        try:
            return jws.members(body, "body")
        except InvalidToken:
            return {}
    if media_type(content_type) != FORM:
        return {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}
    return by_name(pairs)


def by_name(pairs: Iterable[tuple[str, object]]) -> Mapping[str, object]:
    """Return fields by their names. What came twice is a list, which is no token: which one counts is no guess."""
    fields: dict[str, object] = {}
    for name, value in pairs:
        fields[name] = [fields[name], value] if name in fields else value
    return fields
